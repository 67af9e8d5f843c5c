"""SIGKILL at any moment: the same command goes on, and ends with the same bytes as if nothing had happened."""

import signal
import subprocess
import sys
from pathlib import Path

import toys

from solverbench import runner

SELECTION = {"solvers": "dpm,euler", "nfe": "3,4", "samples": 40, "replicates": 2, "batch": 3}

CHILD = """
import itertools, os, signal, sys
sys.path.insert(0, {tests!r})
import toys
from solverbench import runner

replace, writes = os.replace, itertools.count(1)

def watched(part, path):
    # Die while the file is written beside its place, or right after it was put there.
    now = next(writes) if str(path).endswith({name!r}) else 0
    if now == {at} and {before}:
        os.kill(os.getpid(), signal.SIGKILL)
    replace(part, path)
    if now == {at}:
        os.kill(os.getpid(), signal.SIGKILL)

os.replace = watched
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


def test_two_runs_at_once_share_a_store(tmp_path):
    tests = str(Path(toys.__file__).parent)
    script = CHILD.format(tests=tests, at=-1, name="", before=False, out=str(tmp_path / "both"), selection=SELECTION)
    children = [subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) for _ in range(2)]
    assert [child.communicate(timeout=120)[0] for child in children] == ["finished\n"] * 2
    runner.run(teachers=toys.teacher(), out=tmp_path / "whole", **SELECTION)
    assert toys.files_of(tmp_path / "whole") == toys.files_of(tmp_path / "both")
