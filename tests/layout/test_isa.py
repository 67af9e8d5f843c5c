"""What a processor's instructions could change, with the plainest ones that torch has."""

import os

import forks
import pytest
import torch

MARK = "mark" + ".isa"  # not as one word: this file holds none of them

INSIDE = """
import sys
import pytest, torch
assert torch.backends.cpu.get_cpu_capability() == "DEFAULT"  # read when the first kernel is called
sys.exit(pytest.main(sys.argv[1:]))
"""


def test_what_depends_on_the_processor_passes_with_its_plainest_instructions(pytestconfig):
    """The tests marked `isa` once more, in a process without vector instructions: as on another machine."""
    if torch.backends.cpu.get_cpu_capability() == "DEFAULT":
        pytest.skip("the tests run with the plainest instructions already")
    command = ["-q", "-m", "isa and not gpu", "-p", "no:cacheprovider", "-p", "no:xdist"]
    # Only files that hold such a test: importing all others takes longer than the tests.
    found = sorted((pytestconfig.rootpath / "tests").rglob("test_*.py"))
    files = [str(path) for path in found if MARK in path.read_text(encoding="utf-8")]
    assert files
    environment = {**os.environ, "ATEN_CPU_CAPABILITY": "default", "OMP_NUM_THREADS": "1"}
    environment.pop("PYTEST_XDIST_WORKER", None)
    found = forks.run(["-c", INSIDE, *command, *files], cwd=pytestconfig.rootpath, env=environment)
    assert found.returncode == 0, found.stdout[-4000:] + found.stderr[-2000:]
    assert " passed" in found.stdout
