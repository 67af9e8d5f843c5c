"""SIGKILL at any moment: the same command goes on, and ends with the same bytes as if nothing had happened."""

import json
import os
import signal
from pathlib import Path

import forks
import toys

from solverbench.bench import run
from solverbench.bench.progress import Silent
from solverbench.bench.run_options import RunOptions
from solverbench.store import leases

SELECTION = {"solvers": "dpm,euler", "nfe": "3,4", "samples": 40, "replicates": 2, "batch": 3}

CHILD = """
import itertools, json, os, signal, sys
from pathlib import Path
import torch
torch.set_num_threads(1)  # a process forked after several have worked would wait for them for ever
sys.path.insert(0, {tests!r})
import toys
from solverbench.bench import run as runner
from solverbench.bench.run_options import RunOptions

def watched(put, at, name, before, writes):
    def dying(part, path):
        # Die while the file is written beside its place, or right after it was put there.
        now = next(writes) if str(path).endswith(name) else 0
        if now == at and before:
            os.kill(os.getpid(), signal.SIGKILL)
        put(part, path)
        if now == at:
            os.kill(os.getpid(), signal.SIGKILL)
    return dying

def run(at, name, before):
    writes = itertools.count(1)
    os.replace, os.link = (watched(put, at, name, before, writes) for put in (os.replace, os.link))
    runner.run(RunOptions(teachers=toys.teacher(), out={out!r}, **{selection}))

ends = []
for moment in {moments}:
    if not (pid := os.fork()):
        try:
            run(*moment)
        finally:
            os._exit(1)
    ends.append([os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), len(list(Path({out!r}).glob({glob!r})))])
print(json.dumps(ends))
"""
"""Each run is a process of its own, forked so that torch is imported once."""


def killed(out: Path, moments: list[tuple[int, str, bool]], glob: str) -> list[int]:
    """Run in processes that kill themselves; return how many files there are after each.

    Args:
        moments: the number of a write of a file, how the file's name ends, and whether it dies before or after it.
        glob: the files that are counted.
    """
    tests = str(Path(toys.__file__).parent)
    script = CHILD.format(tests=tests, moments=moments, glob=glob, out=str(out), selection=SELECTION)
    child = forks.run(["-c", script])
    assert child.returncode == 0, child.stderr
    codes, counts = zip(*json.loads(child.stdout), strict=True)
    assert set(codes) == {-signal.SIGKILL}, child.stderr
    return list(counts)


def test_a_run_killed_again_and_again_ends_with_the_same_bytes(tmp_path):
    run.run(RunOptions(teachers=toys.teacher(), out=tmp_path / "whole", **SELECTION))
    broken = tmp_path / "broken"
    moments = [(1, "", True), (9, "", False), (30, "", True), (20, ".npz", False)]
    stored = killed(broken, moments, "cells/*/*/blocks/*.npz")
    assert stored == sorted(stored)
    assert 0 < stored[-1] < 80
    assert list(broken.glob("**/*.part"))
    assert killed(broken, [(2, "metrics.json", True)], "cells/*/*/metrics.json") == [1]

    result = run.run(RunOptions(teachers=toys.teacher(), out=broken, **SELECTION))
    assert result.exit_code == 0
    assert toys.files_of(tmp_path / "whole") == toys.files_of(broken)
    columns = ["solver", "nfe", "metric", "value", "low", "high", "std_error", "cell"]
    whole = run.run(RunOptions(teachers=toys.teacher(), out=tmp_path / "whole", **SELECTION))
    assert result.frame[columns].equals(whole.frame[columns])
    assert result.folder.name == whole.folder.name


TOGETHER = """
import os, sys
import torch
torch.set_num_threads(1)  # a process forked after several have worked would wait for them for ever
sys.path.insert(0, {tests!r})
import toys
from solverbench.bench import run as runner
from solverbench.bench.run_options import RunOptions
from solverbench.store import folder as store

made, write = [], store.files.write_arrays

def watched(path, arrays, *, replace=True):
    made.append(path)
    write(path, arrays, replace=replace)

store.files.write_arrays = watched

def run(workers):
    code = 1
    try:
        runner.run(RunOptions(teachers=toys.teacher(), out={out!r}, workers=workers, **{selection}))
        os.write(1, b"%d\\n" % len(made))
        code = 0
    finally:
        if code:
            sys.excepthook(*sys.exc_info())
        os._exit(code)

children = []
for workers in (1, 2):
    if not (pid := os.fork()):
        run(workers)
    children.append(pid)
sys.exit(max([os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in children], key=abs))
"""
"""Both are forked from one process, so that torch is imported once and they begin together."""


def test_two_runs_at_once_share_a_store_and_its_work(tmp_path):
    tests, out = str(Path(toys.__file__).parent), str(tmp_path / "both")
    script = TOGETHER.format(tests=tests, out=out, selection=SELECTION)
    child = forks.run(["-c", script])
    assert child.returncode == 0, child.stderr
    made = [int(line) for line in child.stdout.splitlines()]
    assert len(made) == 2
    assert sum(made) == 80 + 20, "blocks and teacher samples are made once"
    run.run(RunOptions(teachers=toys.teacher(), out=tmp_path / "whole", **SELECTION))
    assert toys.files_of(tmp_path / "whole") == toys.files_of(tmp_path / "both")
    costs = [json.loads(path.read_text())["blocks"] for path in tmp_path.glob("both/cells/*/*/timing.json")]
    assert [len(cost) for cost in costs] == [20] * 4, "what each block cost is known, whoever made it"


def test_a_run_waits_for_what_another_has_and_says_whose_it_is(tmp_path):
    class Told(Silent):
        """Lets go of the block once the run has said that it waits for it."""

        def __init__(self, other, unit):
            self.lines, self.other, self.unit = [], other, unit

        def note(self, line):
            self.lines.append(line)
            self.other.release(self.unit)

    run.run(RunOptions(teachers=toys.teacher(), out=tmp_path, **SELECTION))
    block = sorted(tmp_path.glob("cells/*/*/blocks/50008-50011.npz"))[0]
    whole, cell = block.read_bytes(), block.parents[1]
    block.unlink()
    other = leases.Leases(tmp_path)
    unit = f"{cell.name}-50008-50011"
    assert other.attempt(unit)
    told = Told(other, unit)
    result = run.run(RunOptions(teachers=toys.teacher(), out=tmp_path, **SELECTION), progress=told)
    other.close()
    assert [f"process {os.getpid()}, since 20" in line for line in told.lines] == [True]
    assert (result.exit_code, block.read_bytes()) == (0, whole)
