"""Checks of a solver's declared orders against measured slopes; see `solverbench.conformance.order`."""

from __future__ import annotations

from solverbench.conformance import order
from solverbench.conformance.trials import Failed
from solverbench.method.schedules import NoiseSchedule
from solverbench.method.solver import Solver

TOLERANCE = 0.25
"""Tolerance between a measured order and the declared one."""


def local_order(solver: Solver, schedule: NoiseSchedule) -> str:
    """Raise unless a regular step, after any corrector, has the declared order."""
    return _compare(solver.local_order, order.local_order(solver))


def predicted_order(solver: Solver, schedule: NoiseSchedule) -> str:
    """Raise unless a regular step has the declared order before its corrector."""
    return _compare(solver.predicted_order, order.predicted_order(solver))


def global_order(solver: Solver, schedule: NoiseSchedule) -> str:
    """Raise unless the whole sample, with start-up steps and end rule, has the declared order."""
    return _compare(solver.global_order, order.global_order(solver))


def _compare(claim: int | None, found: order.Slopes) -> str:
    assert claim is not None
    slopes = ", ".join(f"{name} {slope:.2f}" for name, slope in found.items())
    if not all(abs(slope - claim) <= TOLERANCE for slope in found.values()):
        raise Failed(f"declares {claim}, measured {slopes}; correct the coefficients or the declaration")
    return f"declares {claim}, measured {slopes}"
