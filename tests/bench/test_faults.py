"""The campaign of benchmarks/faults.py in small; the log of whole ones is benchmarks/faults.log."""

from pathlib import Path

import forks

CAMPAIGN = Path(__file__).parents[2] / "benchmarks" / "faults.py"


def test_no_fault_has_an_effect(tmp_path):
    line = [CAMPAIGN, "--kills", "12", "--rounds", "1", "--replicates", "1", "--seed", "7"]
    child = forks.run(line, cwd=tmp_path)
    assert child.returncode == 0, child.stdout + child.stderr
    assert "34 faults (12 SIGKILL; " in child.stdout
    assert "SHOWN" not in child.stdout
