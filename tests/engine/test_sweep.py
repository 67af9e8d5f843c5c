"""The sweep of benchmarks/sweep.py in small; the log of a whole one is benchmarks/sweep.log."""

import math
from pathlib import Path
from types import ModuleType

import alone
import pytest

import solverbench as sb

PLACE = Path(__file__).parents[2] / "benchmarks" / "sweep.py"


@pytest.fixture(scope="module")
def sweep() -> ModuleType:
    return alone.load(PLACE)


@pytest.mark.parametrize("schedule", ["EDM", "zero SNR", "iDDPM", "flow from 1", "flow, shift 3"])
def test_no_cell_is_wrong(sweep: ModuleType, schedule: str) -> None:
    grids = ("", "grid=time_uniform", "grid=trailing")
    specs = ("euler", "heun", "dpm2:r=1", "dpm:end=zero", "unipc:prediction=noise", "deis")
    met = list(sweep.sweep([schedule], grids, specs, (1, 4, 10)))
    assert not [cell for *cell, found, euler in met if sweep.wrong(found, euler)]
    assert {"right", "refused"} <= {found.kind for *_, found, _ in met} <= {"right", "flagged", "refused"}


def test_the_sweep_sees_what_is_wrong(sweep: ModuleType) -> None:
    right, off, odd = (sweep.Outcome("right", error=error) for error in (0.1, 1.1, math.nan))
    assert not sweep.wrong(right, right)
    assert sweep.wrong(off, right)
    assert sweep.wrong(odd, right)
    assert sweep.wrong(off, sweep.Outcome("refused", "why"))
    assert not sweep.wrong(sweep.Outcome("flagged", "why", error=1.1), right)
    assert sweep.wrong(sweep.Outcome("broken", "OverflowError"), right)
    assert sweep.outcome("euler:grid=polynomial:rho=0.001", 4, sb.EDM()).kind == "refused"
