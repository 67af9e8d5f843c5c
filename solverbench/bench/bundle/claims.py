"""Claims about solvers, judged by paired differences, corrected for their number: held, not held or unresolved.

A difference that only the error of the reference leaves undecided has a verdict of its own, `wording.BELOW_ERROR`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from solverbench.bench.bundle.wins import Scores
from solverbench.bench.measure import p_value
from solverbench.bench.outcome import Outcome, paired
from solverbench.metrics.intervals import holm
from solverbench.metrics.table import ALWAYS
from solverbench.metrics.wins import Wins
from solverbench.wording import BELOW_ERROR, masked

LEVEL = 0.05
"""Probability that any verdict of a run is decided although its two cells are equal (family-wise error)."""

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
    """The claim that `a` is ahead of `b`, or, if `open`, the question which of the two is ahead.

    Args:
        metrics: names of the metrics to judge by.
        rival: description of `b` if it was chosen from several, as in "the best classical solver of this run".
        chosen_from: number of cells that `b` was chosen from: so many comparisons it stands for.
    """

    a: Outcome
    b: Outcome
    metrics: tuple[str, ...]
    open: bool = False
    rival: str = ""
    chosen_from: int = 1

    @property
    def text(self) -> str:
        """The claim in words."""
        if self.open:
            return f"{_label(self.a)} against {_label(self.b)} on {self.a.cell.teacher.shown}"
        named = f"{self.rival} at NFE {self.b.cell.nfe}, {self.b.cell.solver}," if self.rival else _label(self.b)
        return f"{_label(self.a)} ahead of {named} on {self.a.cell.teacher.shown}"

    def verdict(self, difference: float, *, apart: bool) -> str:
        """Return the verdict for a's distance minus b's.

        Args:
            apart: whether the two are told apart: the test, corrected for the number of comparisons, says so.
        """
        if self.open:
            ahead = self.a if difference < 0 else self.b
            return f"{ahead.cell.solver} ahead" if apart else "level"
        return "unresolved" if not apart else "held" if difference < 0 else "not held"


def verdicts(outcomes: Sequence[Outcome], scores: Sequence[Scores] = ()) -> list[dict[str, Any]]:
    """Return a verdict for each claim whose two cells have results, and for each preference.

    A claim says that one cell's distance is at most another's. It is judged by the paired test of their difference:
    held if it is below 0, not held if it is above 0, unresolved if the two can't be told apart. Two equal cells hold
    their claim. For an open question, the cell with the lower distance is ahead, or the two are level. A solver trained
    on a metric's own features takes part in no claim.

    All verdicts of a run are one family of comparisons, whose p values are adjusted by Holm's step-down: two cells are
    told apart if the adjusted one is at most `LEVEL`. A claim whose rival was chosen from several cells counts as a
    comparison with each of them. `low` and `high` stay the ends of the 95 % interval of the one difference.

    A difference of RMSE that is smaller than the error of the reference decides nothing. Its verdict is `BELOW_ERROR`
    if its interval excludes 0, as more images wouldn't decide it.
    A solver with several training seeds (`bundle.trainings`) takes part with their mean, and the interval holds the
    spread between them. Otherwise, a verdict between learned solvers carries a caution if their training seeds differ
    by more than the solvers do.

    Of scores of images and prompts nothing is claimed: the win rate says whether a learned solver or the best classical
    one is ahead. The difference is then that of the means, with an interval that is clustered by prompt.

    Args:
        scores: scores of the cells' images with their prompts.

    Returns:
        for each: claim, verdict, metric, difference, low, high, p, p_holm, comparisons (those of the family), caution
        if there is one, reference_error if the verdict is `BELOW_ERROR`, and wins, the rate and its interval, if that
        decided.
    """
    finished = [outcome for outcome in outcomes if outcome.measures and not outcome.cell.metric_loss]
    asked = [
        (claim, metric)
        for claim in _claims(finished)
        for metric in claim.metrics
        if metric in claim.a.measures and metric in claim.b.measures
    ]
    preferences = list(_preferences(scores))
    single = [p_value(claim.a.measures[metric], claim.b.measures[metric]) for claim, metric in asked]
    single += [told.p for _, told in preferences]
    family = sum(claim.chosen_from for claim, _ in (*asked, *preferences))
    tested = [
        {"p": one, "p_holm": all_, "comparisons": family}
        for one, all_ in zip(single, holm(single, family), strict=True)
    ]
    return [
        *(_judged(*each, ps) for each, ps in zip(asked, tested[: len(asked)], strict=True)),
        *(_preferred(*each, ps) for each, ps in zip(preferences, tested[len(asked) :], strict=True)),
    ]


def _preferences(scores: Sequence[Scores]) -> Iterator[tuple[Claim, Wins]]:
    """Yield each learned solver's comparison with the best classical one in a score of images and prompts.

    The best classical solver is the one with the best mean at as many calls.
    """
    for a in (each for each in scores if each.outcome.cell.learned and not each.outcome.cell.metric_loss):
        name, sign = a.metric.name, 1 if a.metric.higher else -1
        rivals = [b for b in scores if b.group == a.group and not b.outcome.cell.learned]
        if rivals:
            b = max(rivals, key=lambda each: sign * each.outcome.measures[name].value)
            yield Claim(a.outcome, b.outcome, (name,), open=True, chosen_from=len(rivals)), a.against(b)


def _preferred(claim: Claim, told: Wins, tested: Mapping[str, Any]) -> dict[str, Any]:
    """Return the verdict of a win rate, as plain JSON values; `tested` are its p values."""
    return {
        "claim": claim.text,
        "verdict": claim.verdict(0.5 - told.rate, apart=tested["p_holm"] <= LEVEL),
        "difference": told.difference,
        "low": told.difference_low,
        "high": told.difference_high,
        "metric": claim.metrics[0],
        "wins": {"rate": told.rate, "low": told.low, "high": told.high},
        **tested,
    }


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
            yield Claim(a, best, (metric,), rule.open, "the best classical solver of this run", len(judged))


def _judged(claim: Claim, metric: str, tested: Mapping[str, Any]) -> dict[str, Any]:
    """Return the verdict on a claim by one metric, as plain JSON values; `tested` are its p values."""
    a, b = claim.a, claim.b
    difference, low, high = paired(a, b, metric)
    error = a.reference_error if metric == ALWAYS else None
    below = error is not None and abs(difference) < error
    equal = difference == low == high == 0 and not claim.open
    apart = not below and tested["p_holm"] <= LEVEL
    level = abs(b.measures[metric].value)
    relative = abs(difference) / level if level else math.inf
    cautions = [_caution(a, b, relative)] if b.cell.learned else []
    cautions += [f"the difference is {BELOW_ERROR}, {error:.2g}"] if below else []
    caution = "; ".join(filter(None, cautions))
    verdict = "held" if equal and not below else claim.verdict(difference, apart=apart)
    if masked(difference, low, high, error):
        verdict = BELOW_ERROR
    return {
        "claim": claim.text,
        "verdict": verdict,
        "difference": difference,
        "low": low,
        "high": high,
        "metric": metric,
        **tested,
        **({"caution": caution} if caution else {}),
        **({"reference_error": error} if verdict == BELOW_ERROR else {}),
    }


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
