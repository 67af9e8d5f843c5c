"""Fuzz of strangers' files: python benchmarks/foreign.py --seconds 600 [--first SEED]; exit code 1 on a failure.

Each case changes one to three files of a store or of a report (bytes, structure under a right checksum, pipes, links,
odd names; see tests/hostile.py) and runs the commands of tests/cli/test_foreign.py on it. Checked for each case: no
traceback and a documented exit code, no more than 2 s of CPU time (10 s where figures are laid out) and no wait, no
more than 500 MB above the start, nothing outside its folder opened for writing, a sentinel folder unchanged, no process
started and nothing unpickled. A line for each kind of failure, with its seed; benchmarks/foreign.log has a whole run.
"""

from __future__ import annotations

import argparse
import os
import platform
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "tests" / "cli")]

import hostile  # noqa: E402
import test_foreign  # noqa: E402

CPU, FIGURES, WALL, MEMORY = 2.0, 10.0, 180, 500e6
"""Largest CPU time of a case in seconds, of one with figures, seconds after which it hangs, and bytes."""

REFUSED = ("subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.fork", "pickle.find_class")
OWN = "solverbench.reports.figures.gallery"
"""The module of the process that draws half of the figures of a large report."""
FOUND: list[str] = []


class Waits(BaseException):
    """A case doesn't end."""


def watch(place: Path) -> None:
    """Record what is executed, and what is opened for writing outside `place`, from now on."""

    def hook(event: str, arguments: tuple[object, ...]) -> None:
        if event in REFUSED and OWN not in str(arguments):
            FOUND.append(f"{event} {str(arguments)[:80]}")
        if event == "open" and isinstance(arguments[0], str | bytes) and isinstance(arguments[2], int):
            path = os.path.realpath(os.fsdecode(arguments[0]))
            if arguments[2] & (os.O_WRONLY | os.O_RDWR) and not path.startswith((str(place), "/dev/null")):
                FOUND.append(f"opened for writing: {path}")

    sys.addaudithook(hook)


def main() -> int:
    """Run the cases and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--first", type=int, default=0)
    given = parser.parse_args()
    warnings.simplefilter("ignore")
    place = Path(tempfile.mkdtemp(prefix="foreign-")).resolve()
    os.environ["SOLVERBENCH_DATA"] = str(place / "data")
    tempfile.tempdir = str(place)
    test_foreign.make(place)
    tests = test_foreign.check_store, test_foreign.check_report
    for test in tests:  # imports and tables that the first case makes
        test(place, given.first)
    print(f"{datetime.now(UTC):%Y-%m-%d} {platform.platform()}, Python {platform.python_version()}", flush=True)
    watch(place)
    signal.signal(signal.SIGALRM, lambda *_: (_ for _ in ()).throw(Waits()))
    begun, usage, kinds, slowest = time.monotonic(), resource.getrusage(resource.RUSAGE_SELF), Counter[str](), 0.0
    cases = 0
    while time.monotonic() - begun < given.seconds:
        seed, test = given.first + cases // 2, tests[cases % 2]
        cases += 1
        started, what = time.process_time(), ""
        signal.alarm(WALL)
        try:
            test(place, seed)
        except Waits:
            what = "doesn't end"
        except BaseException as error:
            frames = [f for f in traceback.extract_tb(error.__traceback__) if str(ROOT) in f.filename]
            where = [f"{Path(f.filename).name}:{f.lineno}" for f in frames if "tests" not in f.filename][-3:]
            what = f"{type(error).__name__} {str(error)[:120]!r} {where}"
            if isinstance(error, KeyboardInterrupt):
                break
        signal.alarm(0)
        spent = time.process_time() - started
        slowest = max(slowest, spent)
        if not what and spent > (FIGURES if test is test_foreign.check_report and seed % 4 == 0 else CPU):
            what = f"took {spent:.1f} s"
        if FOUND:
            what, FOUND[:] = f"{what} {FOUND}", []
        if what:
            kinds[what] += 1
            if kinds[what] == 1:
                print(f"seed {seed}, {test.__name__}: {what}", flush=True)
        if not (place / "elsewhere" / "mine.txt").exists():
            shutil.rmtree(place / "elsewhere", ignore_errors=True)
            hostile.elsewhere(place)
    after = resource.getrusage(resource.RUSAGE_SELF)
    grown = 1024 * (after.ru_maxrss - usage.ru_maxrss)
    if grown > MEMORY:
        kinds["memory"] += 1
    spent = after.ru_utime + after.ru_stime - usage.ru_utime - usage.ru_stime
    print(
        f"{cases} cases from seed {given.first}: {sum(kinds.values())} failures of {len(kinds)} kinds; the slowest "
        f"took {slowest:.1f} s of CPU time; {grown / 1e6:.0f} MB above the start; {spent:.0f} s on a core"
    )
    shutil.rmtree(place, ignore_errors=True)
    return bool(kinds)


if __name__ == "__main__":
    sys.exit(main())
