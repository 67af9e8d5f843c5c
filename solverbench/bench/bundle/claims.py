"""Claims about solvers, judged from the finished cells by paired intervals: held, not held or unresolved."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from solverbench.bench.outcome import Outcome, paired
from solverbench.metrics.table import ALWAYS

LEARNED, CLASSICAL = ("gs", "gas"), ("dpm", "euler")
CLOSENESS = ("rmse_teacher", "frechet_teacher")
"""Metrics of the distance to the teacher's own samples, which learned solvers are trained to minimise."""
ALL = (*CLOSENESS, "frechet_data")
FEW, MORE = 4, 7
"""NFE of a learned solver, and of the classical solver that it is compared with."""
BEST = 6
"""NFE of the best classical solver that GAS at `FEW` is compared with, besides the one at twice its own NFE."""
ORDERED = (("gas", "gs"), ("gs", "ld3"))
"""Pairs of learned solvers; the first is claimed to be at least level with the second at equal NFE."""
OPEN = (("gs", "s4s_alt"),)
"""Pairs of learned solvers without a claim; the verdict says which one is ahead, or that they are level."""


@dataclass(frozen=True, eq=False)
class Claim:
    """The claim that `a` is at least level with `b`, or, if `open`, the question which of the two is ahead.

    Args:
        metrics: names of the metrics to judge by.
        rival: description of `b` if it was chosen from several, as in "the best classical solver of this run".
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
        """Return the verdict for the interval of a's distance minus b's."""
        if self.open:
            ahead = self.a if high < 0 else self.b if low > 0 else None
            return "level" if ahead is None else f"{ahead.cell.solver} ahead"
        return "held" if high <= 0 else "not held" if low > 0 else "unresolved"


def verdicts(outcomes: Sequence[Outcome]) -> list[dict[str, Any]]:
    """Return a verdict for each claim whose two cells have results.

    A claim says that one cell's distance is at most another's. It is judged by the paired 95 % interval of their
    difference: held if the whole interval is at most 0, not held if all of it is above 0, otherwise unresolved. For
    an open question, the cell with the lower distance is ahead if the interval excludes 0; otherwise the two are level.
    A solver trained on a metric's own features takes part in no claim.

    A difference of RMSE that is smaller than the error of the reference decides nothing, and its verdict says so.
    A verdict between learned solvers carries a caution if their training seeds differ by more than the solvers do.
    """
    finished = [outcome for outcome in outcomes if outcome.measures and not outcome.cell.metric_loss]
    return [verdict for claim in _claims(finished) for verdict in _judge(claim)]


def _claims(outcomes: Sequence[Outcome]) -> Iterator[Claim]:
    """Yield every claim that the cells allow, each once."""
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
    """Yield a claim for each metric, against the classical cell with `nfe` calls that has the lowest value."""
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
            error = a.reference_error if metric == ALWAYS else None
            below = error is not None and abs(difference) < error
            verdict = {
                "claim": claim.text,
                "verdict": claim.verdict(-math.inf, math.inf) if below else claim.verdict(low, high),
                "difference": difference,
                "low": low,
                "high": high,
                "metric": metric,
            }
            level = abs(b.measures[metric].value)
            relative = abs(difference) / level if level else math.inf
            cautions = [_caution(a, b, relative)] if b.cell.learned else []
            cautions += [f"smaller than the error of the reference, {error:.2g}"] if below else []
            caution = "; ".join(filter(None, cautions))
            yield verdict | ({"caution": caution} if caution else {})


def _caution(a: Outcome, b: Outcome, difference: float) -> str:
    """Return a caution if learned solvers differ by less than their training seeds; both relative, to drop units."""
    cautions = []
    for cell in (a.cell, b.cell):
        trained = cell.trained
        if trained is None or not trained.validation or trained.spread is None:
            cautions.append(f"{cell.solver}: the spread of its training seeds is unknown")
        elif trained.spread / trained.validation > difference:
            spread = trained.spread / trained.validation
            cautions.append(
                f"{cell.solver}: its validation RMSE varies by {spread:.1%} between training seeds, more "
                f"than this difference of {difference:.1%}"
            )
    return "; ".join(cautions)


def _label(outcome: Outcome) -> str:
    mark = "‡" if outcome.cell.inferred else ""  # as in tables
    return f"{outcome.cell.solver}{mark} NFE {outcome.cell.nfe}"


def _name(outcome: Outcome) -> str:
    return outcome.cell.spec.split(":", 1)[0]
