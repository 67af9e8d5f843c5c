"""Claims about solvers, judged from the cells at hand: held, not held or unresolved by a paired interval."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from solverbench.outcome import Outcome, paired

LEARNED, CLASSICAL = ("gs", "gas"), ("dpm", "euler")
CLOSENESS = ("rmse_teacher", "frechet_teacher")
"""How close a solver is to the teacher's own samples, which is what the learned ones are trained for."""
ALL = (*CLOSENESS, "frechet_data")
FEW, MORE = 4, 7
"""Calls of a learned solver, and of the classical one that it is set against."""


def verdicts(outcomes: Sequence[Outcome]) -> list[dict[str, Any]]:
    """Return a verdict for each claim whose two cells have results.

    A claim says that one cell's distance is at most another's. With their difference d and its paired 95 % interval,
    it is held if the whole interval is at most 0, not held if all of it is above 0, and else unresolved.
    """
    finished = [outcome for outcome in outcomes if outcome.measures]
    return [verdict for a, b, metrics in _claims(finished) for verdict in _judge(a, b, metrics)]


def _claims(outcomes: Iterable[Outcome]) -> Iterator[tuple[Outcome, Outcome, tuple[str, ...]]]:
    """Pairs (a, b): a is claimed to be at least level with b."""
    outcomes = list(outcomes)
    pairs = [(a, b) for a in outcomes for b in outcomes if a.cell.teacher is b.cell.teacher and a.cell.learned]
    for a, b in pairs:
        if _name(a) in LEARNED and _name(b) in CLASSICAL and a.cell.nfe == b.cell.nfe:
            yield a, b, CLOSENESS
    for a, b in pairs:
        if _name(a) in LEARNED and _name(b) == "dpm" and (a.cell.nfe, b.cell.nfe) == (FEW, MORE):
            yield a, b, ALL
    for a, b in pairs:
        if (_name(a), _name(b)) == ("gas", "gs") and a.cell.nfe == b.cell.nfe:
            yield a, b, ALL


def _judge(a: Outcome, b: Outcome, metrics: Iterable[str]) -> Iterator[dict[str, Any]]:
    for metric in metrics:
        if metric in a.measures and metric in b.measures:
            difference, low, high = paired(a, b, metric)
            yield {
                "claim": f"{_label(a)} at least level with {_label(b)} on {a.cell.teacher.name}",
                "verdict": "held" if high <= 0 else "not held" if low > 0 else "unresolved",
                "difference": difference,
                "low": low,
                "high": high,
                "metric": metric,
            }


def _label(outcome: Outcome) -> str:
    return f"{outcome.cell.solver} NFE {outcome.cell.nfe}"


def _name(outcome: Outcome) -> str:
    return outcome.cell.spec.split(":", 1)[0]
