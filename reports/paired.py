"""Paired differences of two cells by the images' seeds, and which solver is ahead of all others at a budget.

Computed from the cells' leave-one-out values: noise that two cells share, that of their images, cancels. What a table
says about who is ahead is corrected for the number of its comparisons; the intervals are not.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from scipy.special import stdtr, stdtrit

from solverbench.reports.bundle import BundleError, excluded, unmarked
from solverbench.reports.parts import Part
from solverbench.wording import BELOW_ERROR, interval_texts, masked

Cells = Mapping[str, Mapping[str, Any]]
Row = Mapping[Any, Any]


LARGEST = 1e305
"""Largest absolute value; beyond it differences and intervals overflow."""


LEVEL = 0.05
"""Probability that a table tells any two equal solvers apart (family-wise error)."""
BLOCKS = 9
"""Degrees of freedom of a replicate's jackknife."""


@dataclass(frozen=True)
class Difference:
    """a - b with its 95 % interval; `reason` says why there are no numbers.

    `reference` is the error of the reference of both: a smaller difference has no sign. NaN if it is unknown.
    `p` is that of the two-sided test of this difference alone, `p_holm` the one adjusted for all comparisons of a table
    (`corrected`); NaN where it is unknown, or where the difference stands alone.
    """

    value: float = math.nan
    low: float = math.nan
    high: float = math.nan
    reason: str = ""
    reference: float = math.nan
    p: float = math.nan
    p_holm: float = math.nan

    @property
    def below(self) -> bool:
        """Whether the difference is smaller than the error of the reference."""
        return abs(self.value) < self.reference

    @property
    def masked(self) -> bool:
        """Whether it is `below` although its interval excludes 0: `wording.BELOW_ERROR`."""
        return masked(self.value, self.low, self.high, self.reference)

    @property
    def texts(self) -> tuple[str, str, str]:
        """The difference and the ends of its interval as text, with their signs."""
        return interval_texts(self.value, self.low, self.high, sign="+")

    @property
    def sign(self) -> int:
        """-1 or 1 where the test says that it is below or above 0, else 0; also 0 for a difference that is `below`.

        The test is the corrected one, or for a difference alone whether its interval excludes 0.
        """
        if self.below:
            return 0
        if not math.isnan(self.p_holm):
            return (-1 if self.value < 0 else 1) if self.p_holm <= LEVEL else 0
        return -1 if self.high < 0 else 1 if self.low > 0 else 0


def below_error(errors: Iterable[float], name: str = BELOW_ERROR) -> str:
    """Return what `BELOW_ERROR` means, as a sentence of a caption; empty if there are no `errors` of references.

    Args:
        name: the words or the mark that it explains.
    """
    known = [each for each in errors if not math.isnan(each)]
    if not known:
        return ""
    return (
        f"{name[0].upper()}{name[1:]}, {max(known):.2g}: the interval of the difference excludes 0, but the teacher's "
        "own samples are no more exact than that, so it isn't known which is ahead. More images don't help; a more "
        "exact reference does."
    )


@dataclass(frozen=True)
class Compared:
    """The comparison of the best solver of a budget with another one: best less other.

    `paired` says whether it is of paired differences, rather than of two intervals.
    """

    best: str
    other: str
    found: Difference
    paired: bool


@dataclass(frozen=True)
class Standing:
    """The solver that is ahead at one budget: `winner`, or empty, with the solvers `level` with the best one.

    `level` has the best one first. `below` are those whose difference from it is only smaller than the error of the
    reference, see `Difference.masked`.

    `paired` says whether paired differences decided it, rather than intervals that do not overlap; `alone`, that no
    other solver has a value. `comparisons` are those with each other solver.
    """

    winner: str
    level: tuple[str, ...]
    paired: bool
    alone: bool
    comparisons: tuple[Compared, ...] = ()
    below: tuple[str, ...] = ()


@dataclass(frozen=True)
class Standings:
    """Who is ahead in one table: by budget, for each of its parts; budgets without any value are left out.

    `pairs` is the number of comparisons that were corrected for: every pair of solvers at each budget, as each solver
    could have been the best.
    """

    found: tuple[Mapping[int, Standing], ...]
    pairs: int


def difference(a: Row, b: Row, part: Part, cells: Cells) -> Difference:
    """Return a - b in the part's metric, for two of its rows.

    The mean over training seeds brings the variance between them divided by their number, K.

    Source: the delete-a-group jackknife of each replicate, Student's t with R (G - 1) degrees of freedom; with training
    seeds K - 1 for each mean, joined by Satterthwaite's formula.
    """
    found = [cells.get(str(row["cell"]), {}).get("measures", {}).get(part.metric) for row in (a, b)]
    if any(math.isnan(row["value"]) for row in (a, b)):
        return Difference(reason="no value")
    if found[0] is None or found[1] is None:
        return Difference(reason="the leave-one-outs of a cell are not here")
    return replace(of_measures(found[0], found[1]), reference=float(a["reference_error"]))


def of_measures(a: Mapping[str, Any], b: Mapping[str, Any]) -> Difference:
    """Return a - b of two measures of a bundle: replicates [R], leave_one_out [R, G], `over` (images, reference)."""
    return combined((a, b), (1.0, -1.0))


def combined(measures: Sequence[Mapping[str, Any]], weights: Sequence[float]) -> Difference:
    """Return the weighted sum of measures of a bundle, with its interval; see `of_measures`."""
    try:
        left = [np.asarray(each["leave_one_out"], dtype=float) for each in measures]
        values = np.array([np.asarray(each["replicates"], dtype=float) for each in measures])
        trainings = [np.asarray(each.get("trainings", ()), dtype=float) for each in measures]
    except (KeyError, TypeError, ValueError):
        return Difference(reason="the leave-one-outs of a cell are damaged")
    over, shapes = [each.get("over") for each in measures], [each.shape for each in left]
    if over.count(over[0]) < len(over) or shapes.count(shapes[0]) < len(shapes) or left[0].ndim != 2:
        return Difference(reason="not over the same images and reference")
    known = (*left, *trainings, values)
    if not all(np.isfinite(each).all() and np.abs(each).max(initial=0) < LARGEST for each in known):
        return Difference(reason="a value is not finite, or too large")
    apart = sum(weight * each for weight, each in zip(weights, left, strict=True))
    assert isinstance(apart, np.ndarray)
    replicates, groups = apart.shape
    size = float(np.abs(apart).max(initial=0.0)) or 1.0  # so that no square overflows
    spread = (((apart - apart.mean(1, keepdims=True)) / size) ** 2).sum(1) * (groups - 1) / groups
    sources = [(float(spread.sum()) / replicates**2, replicates * (groups - 1))]
    for weight, each in zip(weights, trainings, strict=True):
        if len(each) > 1:
            sources.append((weight**2 * float((each / size).var(ddof=1)) / len(each), len(each) - 1))
    variance, squares = sum(part for part, _ in sources), sum(part**2 / freedom for part, freedom in sources)
    value = float((np.asarray(weights) @ values).mean())
    if squares <= 0:
        return Difference(value, value, value, p=float(value == 0))
    freedom, error = variance**2 / squares, size * math.sqrt(variance)
    half = float(stdtrit(freedom, 0.975)) * error
    return Difference(value, value - half, value + half, p=float(2 * stdtr(freedom, -abs(value) / error)))


def holm(values: Sequence[float], family: int | None = None) -> list[float]:
    """Return the p values of a family of comparisons, adjusted by Holm's step-down; NaN for one that is unknown.

    Args:
        family: number of comparisons that these were chosen from; if None, as many as are known.

    Source: Holm 1979, Scandinavian Journal of Statistics 6(2), 65-70.
    """
    known = sorted((value, place) for place, value in enumerate(values) if not math.isnan(value))
    found, largest = [math.nan] * len(values), 0.0
    left = max(family or 0, len(known))
    for rank, (value, place) in enumerate(known):
        largest = max(largest, min((left - rank) * value, 1.0))
        found[place] = largest
    return found


def corrected(found: Iterable[Difference], family: int | None = None) -> list[Difference]:
    """Return the differences of one table with `p_holm`, their p adjusted for its number of comparisons; see `holm`."""
    each = list(found)
    return [replace(one, p_holm=p) for one, p in zip(each, holm([one.p for one in each], family), strict=True)]


def standings(table: Sequence[Part], cells: Cells) -> Standings:
    """Return who is ahead at each budget of a table, whose rows are parts of one metric.

    The best solver wins if its paired difference to each other solver is told apart from 0. Where the difference is not
    known, the two intervals decide. All of the table is one family of comparisons: the best of k solvers could have
    been any, so a budget counts k (k - 1) / 2 of them, and Holm's step-down keeps the probability of any false
    statement in the table at `LEVEL`. A difference smaller than the error of the reference decides nothing. Solvers
    trained on the metric's own features take no part.
    """
    ranked = [{nfe: rows for nfe in part.nfe if (rows := _ranked(part, nfe))} for part in table]
    pairs = sum(len(rows) * (len(rows) - 1) // 2 for own in ranked for rows in own.values())
    raw = [
        [_compared(part, rows[0], other, cells) for other in rows[1:]]
        for part, own in zip(table, ranked, strict=True)
        for rows in own.values()
    ]
    tested = iter(corrected([each.found for group in raw for each in group], pairs))
    judged = iter([[replace(each, found=next(tested)) for each in group] for group in raw])
    return Standings(
        tuple({nfe: _standing(str(rows[0]["label"]), next(judged)) for nfe, rows in own.items()} for own in ranked),
        pairs,
    )


def _ranked(part: Part, nfe: int) -> list[Row]:
    """Return the rows with a value at this budget that may be the best, the best first; none if none is better."""
    if not part.ranked:
        return []
    rows = part.frame[
        (part.frame["nfe"] == nfe) & part.frame["value"].notna() & ~part.frame["metric_loss"] & ~excluded(part.frame)
    ]
    return sorted(_rows(rows), key=lambda row: row["value"] * (-1 if part.higher else 1))


def _compared(part: Part, best: Row, other: Row, cells: Cells) -> Compared:
    found = difference(best, other, part, cells)
    paired = not found.reason
    return Compared(str(best["label"]), str(other["label"]), found if paired else _unpaired(best, other), paired)


def _standing(best: str, comparisons: Sequence[Compared]) -> Standing:
    undecided = [each for each in comparisons if each.found.sign == 0]
    level, below = (tuple(each.other for each in undecided if each.found.masked is masked) for masked in (False, True))
    paired = all(each.paired for each in comparisons)
    winner = "" if undecided or not comparisons else best
    return Standing(winner, () if winner else (best, *level), paired, not comparisons, tuple(comparisons), below)


def _unpaired(a: Row, b: Row) -> Difference:
    """Return a - b of two values of which nothing but their intervals is known.

    Whatever the dependence between them, the standard error of a difference is at most the sum of the two, so its
    interval excludes 0 only if the two intervals do not overlap.
    """
    value, reference = float(a["value"] - b["value"]), float(a["reference_error"])
    half = sum(
        (row["high"] - row["value"] if row["value"] < other["value"] else row["value"] - row["low"])
        for row, other in ((a, b), (b, a))
    )
    why = "the leave-one-outs are not here, or not over the same images and reference"
    if not math.isfinite(half):
        return Difference(value, -math.inf, math.inf, why, reference, p=1.0)
    return Difference(value, value - half, value + half, why, reference, p=from_half(value, half, a["replicates"]))


def from_half(value: float, half: float, replicates: float) -> float:
    """Return the two-sided p of a value from half its 95 % interval, by Student's distribution over R replicates."""
    if half <= 0:
        return float(value == 0)
    freedom = BLOCKS * (replicates if replicates >= 1 else 1)
    return float(2 * stdtr(freedom, -abs(value) / half * stdtrit(freedom, 0.975)))


def against(part: Part, baseline: str, cells: Cells) -> dict[tuple[str, int], Difference]:
    """Return each other solver's value minus the baseline's at the same budget, by (label, nfe).

    They are one family of comparisons, see `corrected`.
    """
    base = {int(row["nfe"]): row for row in _rows(part.frame[part.frame["label"] == baseline])}
    found = {}
    for row in _rows(part.frame[part.frame["label"] != baseline]):
        nfe = int(row["nfe"])
        none = Difference(reason=f"{baseline} was not asked for at this NFE")
        found[str(row["label"]), nfe] = difference(row, base[nfe], part, cells) if nfe in base else none
    return dict(zip(found, corrected(found.values()), strict=True))


def tested(found: Iterable[Difference]) -> int:
    """Return the number of comparisons that a table of differences was corrected for: those that are known."""
    return sum(not math.isnan(each.p) for each in found)


def chosen(frame: pd.DataFrame, baseline: str | None) -> str:
    """Return the label of the baseline: the chosen one, or by default dpm, else the first classical solver.

    Raises: BundleError if the results do not hold the chosen one.
    """
    labels = list(dict.fromkeys(frame["label"]))
    if baseline is None:
        classical = list(dict.fromkeys(frame.loc[~frame["learned"], "label"]))
        return "dpm" if "dpm" in classical else str((classical or labels)[0])
    named = {**{str(unmarked(label)): label for label in labels}, **{str(label): label for label in labels}}
    if baseline not in named:
        raise BundleError(
            asked=f"baseline {baseline!r}",
            wrong="the results do not hold it",
            remedy=f"choose from {', '.join(labels)}",
        )
    return str(named[baseline])


def _rows(frame: pd.DataFrame) -> list[dict[Any, Any]]:
    columns = ["label", "nfe", "cell", "value", "low", "high", "reference_error", "replicates"]
    return frame[columns].to_dict("records")
