"""What a processor's instructions could change, with the plainest ones that torch has."""

import os
import subprocess
import sys

import pytest
import torch

MARK = "mark" + ".isa"  # not as one word: this file holds none of them

PLAIN = ("DEFAULT", "NO AVX")
"""What torch calls plain instructions; 2.6 says the second."""

INSIDE = f"""
import sys
import pytest, torch
assert torch.backends.cpu.get_cpu_capability() in {PLAIN}  # read when torch is imported, or its first kernel called
sys.exit(pytest.main(sys.argv[1:]))
"""


def test_what_depends_on_the_processor_passes_with_its_plainest_instructions(pytestconfig):
    """The tests marked `isa` once more, in a process without vector instructions: as on another machine."""
    if torch.backends.cpu.get_cpu_capability() in PLAIN:
        pytest.skip("the tests run with the plainest instructions already")
    command = ["-q", "-m", "isa and not gpu", "-p", "no:cacheprovider", "-p", "no:xdist"]
    command += [word for each in pytestconfig.getoption("pythonwarnings") or () for word in ("-W", each)]
    # Only files that hold such a test: importing all others takes longer than the tests.
    found = sorted((pytestconfig.rootpath / "tests").rglob("test_*.py"))
    files = [str(path) for path in found if MARK in path.read_text(encoding="utf-8")]
    assert files
    environment = {**os.environ, "ATEN_CPU_CAPABILITY": "default", "OMP_NUM_THREADS": "1"}
    environment.pop("PYTEST_XDIST_WORKER", None)
    # A process of its own: torch 2.6 reads the variable when it is imported, so a forked one is too late.
    line = [sys.executable, "-c", INSIDE, *command, *files]
    found = subprocess.run(
        line, cwd=pytestconfig.rootpath, env=environment, check=False, text=True, capture_output=True
    )
    assert found.returncode == 0, found.stdout[-4000:] + found.stderr[-2000:]
    assert " passed" in found.stdout
