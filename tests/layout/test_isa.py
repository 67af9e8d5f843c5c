"""What a processor's instructions could change, with the plainest ones that torch has."""

import os
import subprocess
import sys

import pytest
import torch


def test_what_depends_on_the_processor_passes_with_its_plainest_instructions(pytestconfig):
    """The tests marked `isa` once more, in a process without vector instructions: as on another machine."""
    if torch.backends.cpu.get_cpu_capability() == "DEFAULT":
        pytest.skip("the tests run with the plainest instructions already")
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-m",
        "isa and not gpu",
        "-p",
        "no:cacheprovider",
        "-p",
        "no:xdist",
    ]
    environment = {**os.environ, "ATEN_CPU_CAPABILITY": "default", "OMP_NUM_THREADS": "1"}
    environment.pop("PYTEST_XDIST_WORKER", None)
    found = subprocess.run(
        [*command, str(pytestconfig.rootpath / "tests")], cwd=pytestconfig.rootpath, env=environment,
        capture_output=True, text=True,
    )  # fmt: skip
    assert found.returncode == 0, found.stdout[-4000:] + found.stderr[-2000:]
    assert " passed" in found.stdout
