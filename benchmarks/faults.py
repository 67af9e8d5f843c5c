"""Fault injection on the store: kills, damage, full disks, concurrent runs; the results must be identical each time.

python benchmarks/faults.py: about 300 faults in some minutes, from a seed; a line for each, exit code 1 on a failure.

Every run is the command line in a separate process, forked from this one so that torch is imported once. After each
fault the same command resumes, and its results are compared byte for byte with an undisturbed run. Always checked:
the exit code is documented, there is no traceback, and no complete results file is ever rewritten.
"""

from __future__ import annotations

import argparse
import csv
import ctypes
import gc
import io
import os
import platform
import random
import re
import resource
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from solverbench.learned.training.checkpoint import check_trained

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch

import solverbench
from solverbench import files
from solverbench.bench import run as runner
from solverbench.bench import work as jobs
from solverbench.cli import main as cli
from solverbench.store import layout, leases, queue
from solverbench.store import runs as store_runs

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

import hostile

torch.set_num_threads(1)

SELECTION = ["--solvers", "euler,dpm", "--nfe", "3", "--teachers", "mixture", "--samples", "20", "--batch", "2"]
SELECTION += ["--no-exact", "--device", "cpu"]
DOCUMENTED = (0, 1, 2, 3, 4, 5, 130)
LIMIT = 600.0
"""Seconds after which a run counts as hanging."""


INTERRUPTS = 5
"""Number of consecutive interrupts."""


CLONE_NEWNS = 0x20000
"""The flag of unshare(2) for a mount namespace."""


FOREIGN = ("link", "link of a folder", "pipe", "forged JSON", "bomb", "odd name")
"""What a stranger may put in place of a file of a cell."""


class Shown(Exception):
    """A fault had an effect that it must not have."""


@dataclass
class Child:
    """A run in a separate process."""

    pid: int
    said: Path

    def wait(self) -> int:
        """Return its exit code, or minus the signal that ended it."""
        until = time.monotonic() + LIMIT
        while True:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                return os.waitstatus_to_exitcode(status)
            if time.monotonic() > until:
                os.kill(self.pid, signal.SIGKILL)
                os.waitpid(self.pid, 0)
                raise Shown(f"no end after {LIMIT:.0f} s; it said: {self.text[-500:]}")
            time.sleep(0.002)

    @property
    def text(self) -> str:
        """Its output on stdout and stderr."""
        return self.said.read_text(errors="replace") if self.said.exists() else ""

    def ends(self, *codes: int) -> str:
        """Wait for the end and return the output; raise Shown for another exit code or a traceback."""
        code = self.wait()
        if "Traceback" in self.text:
            raise Shown(f"a traceback: {self.text[-3000:]}")
        if code not in codes:
            raise Shown(f"exit code {code}, not one of {codes}; it said: {self.text[-1000:]}")
        return self.text


def nothing() -> None:
    """Do nothing: the default hook."""


class Campaign:
    """The faults, one per method; all of them share the undisturbed run.

    Args:
        place: a folder for the stores.
        chance: the source of all random choices.
        replicates: number of replicates of each cell.
    """

    def __init__(self, place: Path, chance: random.Random, replicates: int) -> None:
        self.place, self.chance = place, chance
        self.selection = [*SELECTION, "--replicates", str(replicates)]
        self.count = 0
        cli._report = lambda folder: []  # figures take seconds and do not affect results
        # What the first run imports and computes is shared by all forked processes.
        with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()), suppress(SystemExit):
            cli.main.main(["run", *self.selection, "--out", str(place / "first")], standalone_mode=False)
        shutil.rmtree(place / "first")
        gc.freeze()
        begun = time.monotonic()
        self.go(place / "whole").ends(0)
        self.seconds = time.monotonic() - begun
        self.whole = results(place / "whole")
        self.table = table(place / "whole")

    def go(self, out: Path, hook: Callable[[], None] = nothing, command: list[str] | None = None) -> Child:
        """Start the command line on the store at `out`, after calling `hook` in its process."""
        self.count += 1
        said = self.place / f"said-{self.count}"
        arguments = [*(command or ["run", *self.selection]), "--out", str(out)]
        sys.stdout.flush()
        pid = os.fork()
        if pid:
            return Child(pid, said)
        code = 99
        try:
            sink = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            os.dup2(sink, 1)
            os.dup2(sink, 2)
            sys.argv = ["solverbench", *arguments]
            hook()
            cli.main.main(arguments, prog_name="solverbench")
        except SystemExit as error:
            code = error.code if isinstance(error.code, int) else 99
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)

    def fresh(self) -> Path:
        """Return a path for a new store, and delete earlier ones."""
        for path in self.place.glob("out-*"):
            shutil.rmtree(path, ignore_errors=True)
        self.count += 1
        return self.place / f"out-{self.count}"

    def partial(self) -> Path:
        """Return a store whose run was killed at a random time; the run may have finished."""
        out = self.fresh()
        child = self.go(out)
        self.sleep(self.chance.uniform(0.2, 1.3) * self.seconds)
        kill(child)
        child.wait()
        return out

    def sleep(self, seconds: float) -> None:
        """Wait while a child works."""
        time.sleep(seconds)

    def finish(self, out: Path, without: str = "") -> str:
        """Resume to the end and return the output; raise Shown unless complete files are unchanged and results equal.

        Args:
            without: a file that may be missing in the end.
        """
        before = stamps(out)
        said = self.go(out).ends(0)
        unchanged(before, out)
        self.compare(out, without)
        return said

    def compare(self, out: Path, without: str = "") -> None:
        """Raise Shown if the store's results differ from the undisturbed run's."""
        found = results(out)
        names = sorted(found.keys() | self.whole.keys())
        names = [name for name in names if found.get(name) != self.whole.get(name)]
        if names and not (names == [without] and without not in found):
            raise Shown(f"other results than undisturbed: {names[:5]}")
        if table(out) != self.table:
            raise Shown("another table than undisturbed")

    def kills(self, wanted: int, told: Callable[[str], None]) -> None:
        """Send SIGKILL at random times, repeatedly on one store until it is finished, then on a new one."""
        done = 0
        while done < wanted:
            out, hits = self.fresh(), 0
            while done < wanted:
                before = stamps(out)
                child = self.go(out)
                self.sleep(self.chance.uniform(0.02, 0.6) * self.seconds)
                kill(child)
                code = child.wait()
                if "Traceback" in child.text:
                    raise Shown(child.text[-3000:])
                unchanged(before, out)
                if code == 0:
                    break
                done, hits = done + 1, hits + 1
                if code != -signal.SIGKILL:
                    raise Shown(f"exit code {code} of a killed run: {child.text[-1000:]}")
            self.finish(out)
            if hits:
                told(f"{hits} kills, the last with {len(before)} files stored before it")

    def interrupts(self) -> str:
        """Send SIGINT (Ctrl-C) several times in succession; each run must end with 130, or with 0 if it finished."""
        out, said = self.fresh(), ""
        for _ in range(INTERRUPTS):
            before = stamps(out)
            child = self.go(out)
            self.sleep(self.chance.uniform(0.05, 0.5) * self.seconds)
            with suppress(ProcessLookupError):
                os.kill(child.pid, signal.SIGINT)
            said = child.ends(0, 130)
            unchanged(before, out)
        self.finish(out)
        return last(said) if said.strip() else "before its first line"

    def damage(self, *, finished: bool, cut: bool) -> str:
        """Truncate a file of the store or flip a bit; it must be reported, set aside if needed, and recomputed."""
        if finished:
            out = self.fresh()
            shutil.copytree(self.place / "whole", out)
        else:
            out = self.partial()
        names = [path for path in sorted(out.rglob("*")) if path.is_file() and "reports" not in path.parts]
        names = [path for path in names if path.suffix in (".json", ".npz") and not path.name.startswith(".")]
        if not names:
            return "nothing was stored yet"
        path = self.chance.choice(names)
        content = bytearray(path.read_bytes())
        if cut:
            del content[self.chance.randrange(len(content)) :]
        else:
            content[self.chance.randrange(len(content))] ^= 1 << self.chance.randrange(8)
        path.write_bytes(content)
        name = str(path.relative_to(out))
        if name == "store.json":
            said = self.go(out).ends(2, 3)
            shutil.copy(self.place / "whole" / "store.json", path)
            self.finish(out)
            return f"{name}: {last(said)}"
        self.go(out).ends(0)
        # The numbers are right whether the file was needed or not.
        if table(out) != self.table:
            raise Shown(f"{name}: wrong numbers after damage")
        sound = self.go(out, command=["store", "verify"]).wait() == 0
        if not sound:
            said = self.go(out, command=["store", "verify", "--set-aside"]).ends(4)
            if name not in said:
                raise Shown(f"{name}: damaged, and verify names something else: {said}")
        # No finished cell needs the teacher's images: they are recomputed when a cell needs them.
        self.finish(out, without=name if name.startswith("targets/") else "")
        self.go(out, command=["store", "verify"]).ends(0)
        return f"{name}: {'computed again by the run' if sound else 'named by verify, then computed again'}"

    def full_disk(self) -> str:
        """Run on a disk that fills up at a random point; then give it space again."""
        out = self.fresh()
        size = sum(len(content) for content in self.whole.values())
        limit = int(size * self.chance.uniform(0.05, 1.1)) // 4096 * 4096 + 65536
        with small_disk(out, limit) as grow:
            if grow is None:
                child = self.go(out, lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit % 9000, limit % 9000)))
            else:
                child = self.go(out)
            said = child.ends(0, 1, 3)
            if grow is not None:
                grow()
            self.finish(out)
        kind = "RLIMIT_FSIZE" if grow is None else f"tmpfs of {limit} bytes"
        return f"{kind}: {last(said)}"

    def read_only(self) -> str:
        """Make a partial store read-only; then make it writable again."""
        out = self.partial()
        out.mkdir(exist_ok=True)
        with read_only(out) as how:
            if not how:
                return "not possible: nothing can be mounted, and root can write anywhere"
            said = self.go(out).ends(3)
            self.go(out, command=["store", "status"]).ends(0, 3)
            self.go(out, command=["store", "gc"]).ends(0, 3)
            self.go(out, command=["plan", *self.selection]).ends(0)
        self.finish(out)
        return f"{how}: {last(said)}"

    def together(self, *, jumping: bool, killing: bool) -> str:
        """Start two runs at once on one store, optionally with jumping clocks, optionally killing one of them."""
        out, record = self.fresh(), self.place / f"record-{self.count}"
        seed = self.chance.randrange(10**9)

        def hook() -> None:
            queue.POLL = 0.1
            recorded(record)
            if jumping:
                jumping_clock(seed + os.getpid())

        return self.shared(out, record, self.go(out, hook), self.go(out, hook), killing=killing)

    def shared(self, out: Path, record: Path, one: Child, two: Child, *, killing: bool) -> str:
        """Wait for two runs that share a store, after killing one of them if asked for; no file may be made twice."""
        if killing:
            self.sleep(self.chance.uniform(0.1, 1.0) * self.seconds)
            kill(one)
            one.wait()
        else:
            one.ends(0)
        two.ends(0)
        self.compare(out)
        made = Counter(record.read_text().splitlines())
        twice = sum(count > 1 for count in made.values())
        if twice and not killing:
            raise Shown(f"{twice} files were made twice: {[name for name, count in made.items() if count > 1][:3]}")
        self.finish(out)
        return f"{len(made)} files made, {twice} of them twice"

    def stopped(self) -> str:
        """Suspend a run for longer than the others' patience, then continue it; it must be taken over without harm."""
        out = self.fresh()

        def hook() -> None:
            leases.EVERY, leases.PATIENCE, queue.POLL = 0.05, 0.5, 0.1

        one = self.go(out, hook)
        self.sleep(self.chance.uniform(0.3, 0.8) * self.seconds)
        os.kill(one.pid, signal.SIGSTOP)
        two = self.go(out, hook)
        said = two.ends(0)
        before = stamps(out)
        os.kill(one.pid, signal.SIGCONT)
        one.ends(0)
        unchanged(before, out)
        self.finish(out)
        return "waited, and took over" if "waiting for" in said else "had nothing to wait for"

    def broken_leases(self) -> str:
        """Leave leases of unknown runs and unreadable ones; they must be waited for, then taken over."""
        out = self.partial()
        folder = out / "leases"
        (folder / "runs").mkdir(parents=True, exist_ok=True)
        kinds = Counter[str]()
        for run in folder.glob("runs/*"):
            run.write_bytes(self.chance.randbytes(self.chance.randrange(200)))
            kinds["unreadable runs"] += 1
        for name in [name for name in self.whole if name.endswith(".npz") and name.startswith("cells/")]:
            if not (out / name).exists() and self.chance.random() < 0.3:
                _, _, address, _, label = name.split("/")
                place = folder / f"{address}-{label.removesuffix('.npz')}"
                place.mkdir(exist_ok=True)
                if self.chance.random() < 0.5 and not any(place.iterdir()):
                    (place / "nobody").touch()
                kinds["leases of nobody"] += 1

        def hook() -> None:
            leases.EVERY, leases.PATIENCE, queue.POLL = 0.05, 0.3, 0.1

        before = stamps(out)
        self.go(out, hook).ends(0)
        unchanged(before, out)
        self.compare(out)
        return ", ".join(f"{count} {kind}" for kind, count in kinds.items()) or "nothing was left to do"

    def merging(self) -> str:
        """Kill a merge, and repeat it."""
        out = self.fresh()
        command = ["store", "merge", str(self.place / "whole")]
        child = self.go(out, command=command)
        self.sleep(self.chance.uniform(0.0, 0.1) * self.seconds)
        kill(child)
        child.wait()
        stored = len(results(out))
        self.go(out, command=command).ends(0)
        if results(out) != self.whole:
            raise Shown("a merged store has other results")
        if "2 cached" not in self.go(out).ends(0):
            raise Shown("a merged cell is made again")
        self.compare(out)
        return f"after {stored} of {len(self.whole)} files"

    def hosts(self, *, killing: bool) -> str:
        """Start two runs that take each other for runs of other hosts, one with its clocks 10 minutes ahead."""
        out, record = self.fresh(), self.place / f"record-{self.count}"

        def hook(ahead: float) -> None:
            recorded(record)
            leases.EVERY, leases.PATIENCE, queue.POLL = 0.05, 2.0, 0.1
            socket.gethostname = lambda: f"host-{ahead:.0f}"
            leases._machine = store_runs._machine = lambda: f"boot of host-{ahead:.0f}"
            later_clocks(ahead)

        one, two = self.go(out, lambda: hook(600)), self.go(out, lambda: hook(0))
        return self.shared(out, record, one, two, killing=killing)

    def foreign(self, kind: str) -> str:
        """Put what a stranger may put into a finished store; it must be named, harm nothing, and be repairable."""
        out, elsewhere = self.fresh(), self.place / "elsewhere"
        shutil.copytree(self.place / "whole", out)
        if not elsewhere.exists():
            hostile.elsewhere(self.place)
        before = hostile.seen(elsewhere)
        suffixes = {"forged JSON": (".json",), "bomb": (".npz",)}.get(kind, (".json", ".npz"))
        names = [path for path in sorted(out.glob("cells/*/*/**/*")) if path.is_file() and path.suffix in suffixes]
        path = self.chance.choice(names)
        content, place = path.read_bytes(), path
        if kind == "link":
            path.unlink()
            path.symlink_to(elsewhere / "mine.txt")
        elif kind == "link of a folder":
            place = path.parent
            shutil.rmtree(place)
            place.symlink_to(elsewhere / "moved", target_is_directory=True)
        elif kind == "pipe":
            path.unlink()
            os.mkfifo(path)
        elif kind == "forged JSON":
            hostile._json(path, self.chance)
        elif kind == "bomb":
            hostile.bomb(path)
        else:
            place = path.with_name("\x1b[2J\n" + path.name)
            place.write_bytes(content)
        said = self.go(out, command=["store", "verify"]).ends(0, 4)
        if any(not char.isprintable() and char != "\n" for char in said):
            raise Shown("verify prints control characters")
        named = path.name in said
        if kind not in ("forged JSON", "odd name") and not named and "DAMAGED" not in said:
            raise Shown(f"{kind} at {path.relative_to(out)} is not named: {said}")
        run = self.go(out)
        ended = run.wait()
        self.go(out, command=["store", "gc", "--cells"]).ends(0, 2, 3)
        for each in sorted(out.rglob("*")):  # the remedy that verify gives
            if each.is_symlink() or not (each.is_file() or each.is_dir()) or "\x1b" in each.name:
                each.unlink()
        if kind == "forged JSON" and path.exists() and not named:
            path.write_bytes(content)  # a change that no number depends on
        self.go(out, command=["store", "verify", "--set-aside"]).ends(0, 4)
        self.finish(out)
        if hostile.seen(elsewhere) != before:
            raise Shown(f"{kind}: a file outside the store was touched")
        if ended not in DOCUMENTED:
            raise Shown(f"{kind} of {path.relative_to(out)}: the run ended with {ended}; it said: {run.text[-3000:]}")
        return (
            f"{path.name.partition('-')[0]}: {'named by verify' if named else 'no number depends on it'}, run {ended}"
        )

    def clock(self) -> str:
        """Run alone with a wall clock that jumps by years at each reading."""
        out, seed = self.fresh(), self.chance.randrange(10**9)
        child = self.go(out, lambda: jumping_clock(seed))
        self.sleep(self.chance.uniform(0.1, 1.2) * self.seconds)
        kill(child)
        child.wait()
        self.go(out, lambda: jumping_clock(seed + 1)).ends(0)
        self.compare(out)
        self.finish(out)
        return "same bytes"


def last(said: str) -> str:
    """Return the last line of the output, with paths reduced to their last part."""
    return re.sub(r"\S*/", "", said.strip().splitlines()[-1])


def kill(child: Child) -> None:
    """Send SIGKILL unless the process has ended."""
    with suppress(ProcessLookupError):
        os.kill(child.pid, signal.SIGKILL)


def results(out: Path) -> dict[str, bytes]:
    """Return the bytes of every results file by name, without timings and temporary files."""
    about = ("timing.json", "origin.json")
    return {name: (out / name).read_bytes() for name in layout.walk(out) if not name.endswith(about)}


def table(out: Path) -> list[dict[str, str]]:
    """Return the report's table, without costs, statuses and origins."""
    [path] = out.glob("reports/*/results.csv")
    with open(path, newline="") as file:
        rows = list(csv.DictReader(file))
    about = ("status", "origin")
    return [{key: row[key] for key in row if not key.startswith("cost_") and key not in about} for row in rows]


def stamps(out: Path) -> dict[str, tuple[int, int]]:
    """Return the inode and modification time of each valid block, target and solution."""
    names = [
        name for name in layout.walk(out) if name.endswith(".npz") and layout.check(out, name, check_trained) is None
    ]
    return {name: ((out / name).stat().st_ino, (out / name).stat().st_mtime_ns) for name in names}


def unchanged(before: dict[str, tuple[int, int]], out: Path) -> None:
    """Raise Shown if a complete file was rewritten or removed."""
    for name, stamp in before.items():
        path = out / name
        if not path.exists() or (path.stat().st_ino, path.stat().st_mtime_ns) != stamp:
            raise Shown(f"{name}: was committed, and was {'written again' if path.exists() else 'removed'}")


def recorded(record: Path) -> None:
    """Record the path of every array file that this process writes."""
    write = files.write_arrays

    def watched(path, arrays, *, replace=True):  # type: ignore[no-untyped-def]
        with open(record, "a") as file:
            file.write(f"{path}\n")
        write(path, arrays, replace=replace)

    files.write_arrays = watched


def later_clocks(seconds: float) -> None:
    """Move this process's clocks ahead."""
    wall, steady = time.time, time.monotonic
    time.time, time.monotonic = (lambda: wall() + seconds), (lambda: steady() + seconds)


def jumping_clock(seed: int) -> None:
    """Make this process's wall clock jump by up to thirty years, in both directions, at every reading."""
    chance, now, moment = random.Random(seed), time.time, jobs.datetime

    class Jumping(moment):  # type: ignore[misc, valid-type]
        @classmethod
        def now(cls, tz=None):  # type: ignore[no-untyped-def]
            return moment.fromtimestamp(time.time(), tz)

    time.time = lambda: now() + chance.uniform(-1e9, 1e9)
    for module in (jobs, leases, runner):
        if hasattr(module, "datetime"):
            module.datetime = Jumping


@contextmanager
def small_disk(out: Path, size: int) -> Iterator[Callable[[], None] | None]:
    """Yield a function that enlarges the disk at `out`; None if mounting is not possible."""
    out.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "none", str(out)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        out.rmdir()
        yield None
        return
    grow = ["mount", "-o", "remount,size=1g", str(out)]
    try:
        yield lambda: subprocess.run(grow, capture_output=True, check=True) and None
    finally:
        subprocess.run(["umount", "-l", str(out)], capture_output=True, check=True)


@contextmanager
def read_only(out: Path) -> Iterator[str]:
    """Make everything below `out` read-only temporarily; yield the method, or an empty string if impossible."""
    bound = subprocess.run(["mount", "--bind", str(out), str(out)], capture_output=True, check=False).returncode == 0
    if not bound and os.geteuid() == 0:
        yield ""
        return
    if bound:
        subprocess.run(["mount", "-o", "remount,ro,bind", str(out)], capture_output=True, check=True)
    else:
        folders = [out, *(path for path in out.rglob("*") if path.is_dir())]
        for path in folders:
            path.chmod(0o555)
    try:
        yield "read-only bind mount" if bound else "folders without write permission"
    finally:
        if bound:
            subprocess.run(["umount", "-l", str(out)], capture_output=True, check=True)
        else:
            for path in folders:
                path.chmod(0o755)


def own_mounts() -> None:
    """Enter a separate mount namespace if possible, so that no mount outlives the campaign."""
    libc = ctypes.CDLL(None, use_errno=True)
    if not sys.platform.startswith("linux") or os.geteuid() != 0 or libc.unshare(CLONE_NEWNS):
        return
    subprocess.run(["mount", "--make-rprivate", "/"], capture_output=True, check=False)


def main() -> None:
    """Run the campaign."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kills", type=int, default=220, help="SIGKILLs at random times")
    parser.add_argument("--rounds", type=int, default=10, help="of the other faults, each of which comes in a round")
    parser.add_argument("--replicates", type=int, default=2, help="of each cell of the run")
    parser.add_argument("--only", default="", help="a part of the names of the faults of a round")
    given = parser.parse_args()
    own_mounts()
    chance = random.Random(given.seed)
    base = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    place = Path(tempfile.mkdtemp(prefix="solverbench-faults-", dir=base))
    begun, counts, shown = time.monotonic(), Counter(), 0
    machine = f"{datetime.now(UTC):%Y-%m-%d}, torch {torch.__version__}, {platform.platform()}, {os.cpu_count()} cores"
    print(f"solverbench {solverbench.__version__}, {machine}")
    campaign = Campaign(place, chance, given.replicates)
    print(f"seed {given.seed}; undisturbed: {campaign.seconds:.2f} s, {len(campaign.whole)} files", flush=True)
    faults: list[tuple[str, Callable[[], str]]] = [
        ("cut file, unfinished store", lambda: campaign.damage(finished=False, cut=True)),
        ("cut file, finished store", lambda: campaign.damage(finished=True, cut=True)),
        ("flipped bit, unfinished store", lambda: campaign.damage(finished=False, cut=False)),
        ("flipped bit, finished store", lambda: campaign.damage(finished=True, cut=False)),
        ("full disk", campaign.full_disk),
        ("read-only store", campaign.read_only),
        ("two runs at once", lambda: campaign.together(jumping=False, killing=False)),
        ("two runs at once, one killed", lambda: campaign.together(jumping=False, killing=True)),
        ("two runs at once, jumping clocks", lambda: campaign.together(jumping=True, killing=False)),
        ("run stopped and continued", campaign.stopped),
        ("jumping clock and a kill", campaign.clock),
        (f"{INTERRUPTS} interrupts", campaign.interrupts),
        ("broken leases", campaign.broken_leases),
        ("merge killed", campaign.merging),
        ("two hosts, one clock 10 minutes ahead", lambda: campaign.hosts(killing=False)),
        ("two hosts, the one ahead killed", lambda: campaign.hosts(killing=True)),
        *((f"foreign: {kind}", lambda kind=kind: campaign.foreign(kind)) for kind in FOREIGN),  # type: ignore[misc]
    ]
    faults = [(name, fault) for name, fault in faults if given.only in name]
    try:
        try:
            campaign.kills(given.kills, lambda line: print(f"SIGKILL: {line}: the same", flush=True))
            counts["SIGKILL"] = given.kills
        except Shown as error:
            shown += 1
            print(f"SIGKILL: SHOWN: {error}", flush=True)
        for _ in range(given.rounds):
            for name, fault in faults:
                counts[name] += 1
                try:
                    told = re.sub(r"([0-9a-f]{8})[0-9a-f]{24,}", r"\1", fault())
                    print(f"{name}: {told}: the same", flush=True)
                except Shown as error:
                    shown += 1
                    print(f"{name}: SHOWN: {error}", flush=True)
    finally:
        shutil.rmtree(place, ignore_errors=True)
    told = "; ".join(f"{count} {name}" for name, count in counts.items())
    used = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    work = sum(each.ru_utime + each.ru_stime for each in used)
    print(f"{sum(counts.values())} faults ({told}): {shown} had an effect")
    print(f"{time.monotonic() - begun:.0f} s, {work:.0f} s of them on a core")
    sys.exit(1 if shown else 0)


if __name__ == "__main__":
    main()
