"""SIGKILL at any moment: the same command goes on, and ends with the same bytes as if nothing had happened."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import toys

from solverbench import leases, runner
from solverbench.progress import Silent

SELECTION = {"solvers": "dpm,euler", "nfe": "3,4", "samples": 40, "replicates": 2, "batch": 3}

CHILD = """
import itertools, os, signal, sys
sys.path.insert(0, {tests!r})
import toys
from solverbench import runner

writes = itertools.count(1)

def watched(put):
    def dying(part, path):
        # Die while the file is written beside its place, or right after it was put there.
        now = next(writes) if str(path).endswith({name!r}) else 0
        if now == {at} and {before}:
            os.kill(os.getpid(), signal.SIGKILL)
        put(part, path)
        if now == {at}:
            os.kill(os.getpid(), signal.SIGKILL)
    return dying

os.replace, os.link = watched(os.replace), watched(os.link)
runner.run(teachers=toys.teacher(), out={out!r}, **{selection})
print("finished")
"""


def killed(out: Path, at: int, name: str, *, before: bool) -> None:
    """Run in a process that kills itself at its `at`-th write of a file that ends in `name`."""
    tests = str(Path(toys.__file__).parent)
    script = CHILD.format(tests=tests, at=at, name=name, before=before, out=str(out), selection=SELECTION)
    child = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert child.returncode == -signal.SIGKILL, (child.stdout, child.stderr)


def test_a_run_killed_again_and_again_ends_with_the_same_bytes(tmp_path):
    runner.run(teachers=toys.teacher(), out=tmp_path / "whole", **SELECTION)
    broken = tmp_path / "broken"
    stored = []
    for at, name, before in ((1, "", True), (9, "", False), (30, "", True), (20, ".npz", False)):
        killed(broken, at, name, before=before)
        stored.append(len(list(broken.glob("cells/*/*/blocks/*.npz"))))
    assert stored == sorted(stored)
    assert 0 < stored[-1] < 80
    assert list(broken.glob("**/*.part"))
    killed(broken, 2, "metrics.json", before=True)
    assert len(list(broken.glob("cells/*/*/metrics.json"))) == 1

    result = runner.run(teachers=toys.teacher(), out=broken, **SELECTION)
    assert result.exit_code == 0
    assert toys.files_of(tmp_path / "whole") == toys.files_of(broken)
    columns = ["solver", "nfe", "metric", "value", "low", "high", "std_error", "cell"]
    whole = runner.run(teachers=toys.teacher(), out=tmp_path / "whole", **SELECTION)
    assert result.frame[columns].equals(whole.frame[columns])
    assert result.folder.name == whole.folder.name


TOGETHER = """
import os, sys
sys.path.insert(0, {tests!r})
import toys
from solverbench import runner, store

made, write = [], store.files.write_arrays

def watched(path, arrays, *, replace=True):
    made.append(path)
    write(path, arrays, replace=replace)

store.files.write_arrays = watched
runner.run(teachers=toys.teacher(), out={out!r}, workers={workers}, **{selection})
print(len(made))
"""


def test_two_runs_at_once_share_a_store_and_its_work(tmp_path):
    tests, out = str(Path(toys.__file__).parent), str(tmp_path / "both")
    scripts = [TOGETHER.format(tests=tests, out=out, selection=SELECTION, workers=count) for count in (1, 2)]
    children = [
        subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) for script in scripts
    ]
    made = [int(child.communicate(timeout=600)[0]) for child in children]
    assert sum(made) == 80 + 20, "blocks and teacher samples are made once"
    runner.run(teachers=toys.teacher(), out=tmp_path / "whole", **SELECTION)
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

    runner.run(teachers=toys.teacher(), out=tmp_path, **SELECTION)
    block = sorted(tmp_path.glob("cells/*/*/blocks/50008-50011.npz"))[0]
    whole, cell = block.read_bytes(), block.parents[1]
    block.unlink()
    other = leases.Leases(tmp_path)
    unit = f"{cell.name}-50008-50011"
    assert other.attempt(unit)
    told = Told(other, unit)
    result = runner.run(teachers=toys.teacher(), out=tmp_path, progress=told, **SELECTION)
    other.close()
    assert [f"process {os.getpid()}, since 20" in line for line in told.lines] == [True]
    assert (result.exit_code, block.read_bytes()) == (0, whole)
