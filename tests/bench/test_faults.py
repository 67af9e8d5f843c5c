"""The campaign of benchmarks/faults.py in small; the log of whole ones is benchmarks/faults.log."""

import subprocess
import sys
from pathlib import Path

CAMPAIGN = Path(__file__).parents[2] / "benchmarks" / "faults.py"


def test_no_fault_has_an_effect(tmp_path):
    line = [sys.executable, str(CAMPAIGN), "--kills", "12", "--rounds", "1", "--seed", "7"]
    child = subprocess.run(line, cwd=tmp_path, capture_output=True, text=True, timeout=3600, check=False)
    assert child.returncode == 0, child.stdout + child.stderr
    assert "34 faults (12 SIGKILL; " in child.stdout
    assert "SHOWN" not in child.stdout
