"""Claims about solvers, judged from the cells at hand: held, not held or unresolved by a paired interval."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from solverbench.bench.outcome import Outcome, paired

LEARNED, CLASSICAL = ("gs", "gas"), ("dpm", "euler")
CLOSENESS = ("rmse_teacher", "frechet_teacher")
"""How close a solver is to the teacher's own samples, which is what the learned ones are trained for."""
ALL = (*CLOSENESS, "frechet_data")
FEW, MORE = 4, 7
"""Calls of a learned solver, and of the classical one that it is set against."""
BEST = 6
"""Calls of the best classical solver that GAS at `FEW` is set against; and at twice its own, for any number."""
ORDERED = (("gas", "gs"), ("gs", "ld3"))
"""Learned solvers of which the first is claimed to be level with the second or ahead, at the same number of calls."""
OPEN = (("gs", "s4s_alt"),)
"""Learned solvers of which nothing is claimed: a verdict says which is ahead, or that they are level."""


@dataclass(frozen=True, eq=False)
class Claim:
    """What is to be judged: that `a` is at least level with `b`, or, if `open`, how the two stand.

    Args:
        rival: what `b` is, where it was chosen: "the best classical solver of this run".
    """

    a: Outcome
    b: Outcome
    metrics: tuple[str, ...]
    open: bool = False
    rival: str = ""

    @property
    def text(self) -> str:
        """The claim in words."""
        if self.open:
            return f"{_label(self.a)} against {_label(self.b)} on {self.a.cell.teacher.name}"
        named = f"{self.rival} at NFE {self.b.cell.nfe}, {self.b.cell.solver}," if self.rival else _label(self.b)
        return f"{_label(self.a)} at least level with {named} on {self.a.cell.teacher.name}"

    def verdict(self, low: float, high: float) -> str:
        """Return what the interval of a's distance less b's says."""
        if self.open:
            ahead = self.a if high < 0 else self.b if low > 0 else None
            return "level" if ahead is None else f"{ahead.cell.solver} ahead"
        return "held" if high <= 0 else "not held" if low > 0 else "unresolved"


def verdicts(outcomes: Sequence[Outcome]) -> list[dict[str, Any]]:
    """Return a verdict for each claim whose two cells have results.

    A claim says that one cell's distance is at most another's. With their difference d and its paired 95 % interval,
    it is held if the whole interval is at most 0, not held if all of it is above 0, and else unresolved. Where
    nothing is claimed, the cell whose distance is lower by the whole interval is ahead, and else the two are level.
    A solver trained on a metric's own features is in no claim.

    A verdict between learned solvers has a caution where their training seeds differ by more than they do.
    """
    finished = [outcome for outcome in outcomes if outcome.measures and not outcome.cell.metric_loss]
    return [verdict for claim in _claims(finished) for verdict in _judge(claim)]


def _claims(outcomes: Sequence[Outcome]) -> Iterator[Claim]:
    """Every claim that the cells allow, each once."""
    learned = [outcome for outcome in outcomes if outcome.cell.learned]
    pairs = [(a, b) for a in learned for b in outcomes if a.cell.teacher is b.cell.teacher]
    for a, b in pairs:
        if _name(a) in LEARNED and _name(b) in CLASSICAL and a.cell.nfe == b.cell.nfe:
            yield Claim(a, b, CLOSENESS)
    for a, b in pairs:
        if _name(a) in LEARNED and _name(b) == "dpm" and (a.cell.nfe, b.cell.nfe) == (FEW, MORE):
            yield Claim(a, b, ALL)
    for two in ORDERED:
        yield from (Claim(a, b, ALL) for a, b in pairs if (_name(a), _name(b)) == two and a.cell.nfe == b.cell.nfe)
    for two in OPEN:
        level = [(a, b) for a, b in pairs if (_name(a), _name(b)) == two and a.cell.nfe == b.cell.nfe]
        yield from (Claim(a, b, ALL, open=True) for a, b in level)
    for a in outcomes:
        if _name(a) == "gas":
            for nfe in sorted({2 * a.cell.nfe, *([BEST] if a.cell.nfe == FEW else [])}):
                yield from _against_best(a, nfe, outcomes)


def _against_best(a: Outcome, nfe: int, outcomes: Iterable[Outcome]) -> Iterator[Claim]:
    """A claim for each metric against the classical cell that is lowest in it among those with `nfe` calls."""
    rivals = [b for b in outcomes if b.cell.teacher is a.cell.teacher and not b.cell.learned and b.cell.nfe == nfe]
    for metric in ALL:
        judged = [b for b in rivals if metric in b.measures]
        if judged:
            best = min(judged, key=lambda b: b.measures[metric].value)
            yield Claim(a, best, (metric,), rival="the best classical solver of this run")


def _judge(claim: Claim) -> Iterator[dict[str, Any]]:
    a, b = claim.a, claim.b
    for metric in claim.metrics:
        if metric in a.measures and metric in b.measures:
            difference, low, high = paired(a, b, metric)
            verdict = {
                "claim": claim.text,
                "verdict": claim.verdict(low, high),
                "difference": difference,
                "low": low,
                "high": high,
                "metric": metric,
            }
            level = abs(b.measures[metric].value)
            relative = abs(difference) / level if level else math.inf
            caution = _caution(a, b, relative) if b.cell.learned else ""
            yield verdict | ({"caution": caution} if caution else {})


def _caution(a: Outcome, b: Outcome, difference: float) -> str:
    """Where two learned solvers differ by less than one's own trainings do; both relative, as metrics have units."""
    cautions = []
    for cell in (a.cell, b.cell):
        trained = cell.trained
        if trained is None or not trained.validation or trained.spread is None:
            cautions.append(f"{cell.solver}: the spread of its training seeds is unknown")
        elif trained.spread / trained.validation > difference:
            spread = trained.spread / trained.validation
            cautions.append(f"{cell.solver}: training seeds differ by {spread:.1%}, this by {difference:.1%}")
    return "; ".join(cautions)


def _label(outcome: Outcome) -> str:
    mark = "‡" if outcome.cell.inferred else ""  # as in tables
    return f"{outcome.cell.solver}{mark} NFE {outcome.cell.nfe}"


def _name(outcome: Outcome) -> str:
    return outcome.cell.spec.split(":", 1)[0]
