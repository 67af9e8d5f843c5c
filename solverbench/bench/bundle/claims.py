"""Claims about solvers, judged from the finished cells by paired intervals: held, not held or unresolved."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from solverbench.bench.bundle.wins import Scores
from solverbench.bench.outcome import Outcome, paired
from solverbench.metrics.table import ALWAYS

CLOSENESS = ("rmse_teacher", "frechet_teacher")
"""Metrics of the distance to the teacher's own samples, which learned solvers are trained to minimise."""
ALL = (*CLOSENESS, "frechet_data")
BEST_CLASSICAL = ()
"""The rivals of a rule whose second cell is, for each metric, the classical one with the lowest value."""


def _equal(nfe: int) -> Sequence[int]:
    return (nfe,)


@dataclass(frozen=True)
class Rule:
    """The pairs of cells on one teacher that a claim compares.

    Args:
        solvers: names of the learned solvers of the first cell.
        rivals: names of the solvers of the second cell, or `BEST_CLASSICAL`.
        metrics: names of the metrics to judge by.
        nfe: the first cell's number of calls -> those of the second cell; none if the rule has no claim there.
        open: whether nothing is claimed: the verdict says which solver is ahead, or that they are level.
    """

    solvers: tuple[str, ...]
    rivals: tuple[str, ...]
    metrics: tuple[str, ...] = ALL
    nfe: Callable[[int], Sequence[int]] = _equal
    open: bool = False


RULES = (
    Rule(("gs", "gas"), ("dpm", "euler"), CLOSENESS),
    Rule(("gs", "gas"), ("dpm",), nfe=lambda nfe: (7,) if nfe == 4 else ()),
    Rule(("gas",), ("gs",)),
    Rule(("gs",), ("ld3",)),
    Rule(("gs",), ("s4s_alt",), open=True),
    Rule(("gas",), BEST_CLASSICAL, nfe=lambda nfe: (6, 8) if nfe == 4 else (2 * nfe,)),
)
"""All claims, in the order of the report; one line adds a claim."""


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
    A solver with several training seeds (`bundle.trainings`) takes part with their mean, and the interval holds the
    spread between them. Otherwise, a verdict between learned solvers carries a caution if their training seeds differ
    by more than the solvers do.
    """
    finished = [outcome for outcome in outcomes if outcome.measures and not outcome.cell.metric_loss]
    return [verdict for claim in _claims(finished) for verdict in _judge(claim)]


def preferences(scores: Sequence[Scores]) -> list[dict[str, Any]]:
    """Return a verdict for each learned solver against the best classical one in a score of images and prompts.

    Nothing is claimed: the solver is ahead whose win rate's 95 % interval lies on its side of 1/2; otherwise the two
    are level. The best classical solver is the one with the best mean at as many calls. The difference is that of the
    means, with an interval that is clustered by prompt as the win rate's.
    """
    made = []
    for a in (each for each in scores if each.outcome.cell.learned and not each.outcome.cell.metric_loss):
        name, sign = a.metric.name, 1 if a.metric.higher else -1
        rivals = [b for b in scores if b.group == a.group and not b.outcome.cell.learned]
        if rivals:
            b = max(rivals, key=lambda each: sign * each.outcome.measures[name].value)
            told = a.against(b)
            ahead = {1: a, -1: b}.get(told.sign)
            made.append({
                "claim": Claim(a.outcome, b.outcome, (name,), open=True).text,
                "verdict": "level" if ahead is None else f"{ahead.outcome.cell.solver} ahead",
                "difference": told.difference,
                "low": told.difference_low,
                "high": told.difference_high,
                "metric": name,
                "wins": {"rate": told.rate, "low": told.low, "high": told.high},
            })  # fmt: skip
    return made


def _claims(outcomes: Sequence[Outcome]) -> Iterator[Claim]:
    """Yield every claim that the cells allow, each once."""
    for rule in RULES:
        for a in outcomes:
            if a.cell.learned and _name(a) in rule.solvers:
                beside = [b for b in outcomes if b.cell.teacher is a.cell.teacher]
                for nfe in rule.nfe(a.cell.nfe):
                    yield from _against(a, [b for b in beside if b.cell.nfe == nfe], rule)


def _against(a: Outcome, others: Sequence[Outcome], rule: Rule) -> Iterator[Claim]:
    """Yield the claims of a rule on one cell and others with one number of calls."""
    if rule.rivals != BEST_CLASSICAL:
        yield from (Claim(a, b, rule.metrics, rule.open) for b in others if _name(b) in rule.rivals)
        return
    for metric in rule.metrics:
        judged = [b for b in others if not b.cell.learned and metric in b.measures]
        if judged:
            best = min(judged, key=lambda b: b.measures[metric].value)
            yield Claim(a, best, (metric,), rule.open, "the best classical solver of this run")


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
    for outcome in (a, b):
        cell, trained = outcome.cell, outcome.cell.trained
        if outcome.parts:
            continue  # the interval holds the spread between its trainings
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
