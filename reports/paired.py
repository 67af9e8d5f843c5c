"""Paired differences of two cells by the images' seeds, and which solver is ahead of all others at a budget.

Computed from the cells' leave-one-out values: noise that two cells share, that of their images, cancels.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from scipy.special import stdtrit

from solverbench.reports.bundle import BundleError, excluded, unmarked
from solverbench.reports.parts import Part
from solverbench.wording import interval_texts

Cells = Mapping[str, Mapping[str, Any]]
Row = Mapping[Any, Any]


LARGEST = 1e305
"""Largest absolute value; beyond it differences and intervals overflow."""


@dataclass(frozen=True)
class Difference:
    """a - b with its 95 % interval; `reason` says why there are no numbers.

    `reference` is the error of the reference of both: a smaller difference has no sign. NaN if it is unknown.
    """

    value: float = math.nan
    low: float = math.nan
    high: float = math.nan
    reason: str = ""
    reference: float = math.nan

    @property
    def below(self) -> bool:
        """Whether the difference is smaller than the error of the reference."""
        return abs(self.value) < self.reference

    @property
    def texts(self) -> tuple[str, str, str]:
        """The difference and the ends of its interval as text, with their signs."""
        return interval_texts(self.value, self.low, self.high, sign="+")

    @property
    def sign(self) -> int:
        """-1 or 1 where the whole interval is below or above 0, else 0; also 0 for a difference that is `below`."""
        if self.below:
            return 0
        return -1 if self.high < 0 else 1 if self.low > 0 else 0


@dataclass(frozen=True)
class Standing:
    """The solver that is ahead at one budget: `winner`, or empty, with the solvers `level` with the best one.

    `paired` says whether paired differences decided it, rather than intervals that do not overlap; `alone`, that no
    other solver has a value.
    """

    winner: str
    level: tuple[str, ...]
    paired: bool
    alone: bool


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
    half = float(stdtrit(variance**2 / squares, 0.975)) * size * math.sqrt(variance) if squares > 0 else 0.0
    value = float((np.asarray(weights) @ values).mean())
    return Difference(value, value - half, value + half)


def standing(part: Part, nfe: int, cells: Cells) -> Standing | None:
    """Return who is ahead at this budget; None if no solver has a value.

    The best solver wins if its paired difference to each other solver excludes 0. Where that difference is not known,
    the two intervals must not overlap. A difference smaller than the error of the reference decides nothing. Solvers
    trained on the metric's own features take no part.
    """
    rows = part.frame[
        (part.frame["nfe"] == nfe) & part.frame["value"].notna() & ~part.frame["metric_loss"] & ~excluded(part.frame)
    ]
    ranked = sorted(_rows(rows), key=lambda row: row["value"] * (-1 if part.higher else 1))
    if not ranked:
        return None
    best, others = ranked[0], ranked[1:]
    differences = [difference(best, other, part, cells) for other in others]
    paired = all(not each.reason for each in differences)
    level = tuple(
        str(other["label"])
        for other, each in zip(others, differences, strict=True)
        if (_overlap(best, other) or _below(best, other) if each.reason else each.sign == 0)
    )
    winner = "" if level or not others else str(best["label"])
    return Standing(winner, (str(best["label"]), *level) if level or not others else (), paired, not others)


def standings(part: Part, cells: Cells) -> dict[int, Standing]:
    """Return who is ahead, by budget; budgets at which no solver has a value are left out."""
    return {nfe: found for nfe in part.nfe if (found := standing(part, nfe, cells)) is not None}


def against(part: Part, baseline: str, cells: Cells) -> dict[tuple[str, int], Difference]:
    """Return each other solver's value minus the baseline's at the same budget, by (label, nfe)."""
    base = {int(row["nfe"]): row for row in _rows(part.frame[part.frame["label"] == baseline])}
    found = {}
    for row in _rows(part.frame[part.frame["label"] != baseline]):
        nfe = int(row["nfe"])
        none = Difference(reason=f"{baseline} was not asked for at this NFE")
        found[str(row["label"]), nfe] = difference(row, base[nfe], part, cells) if nfe in base else none
    return found


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
    return frame[["label", "nfe", "cell", "value", "low", "high", "reference_error"]].to_dict("records")


def _below(a: Row, b: Row) -> bool:
    """Return whether two values differ by less than the error of their reference; an unknown error is none."""
    return bool(abs(a["value"] - b["value"]) < a["reference_error"])


def _overlap(a: Row, b: Row) -> bool:
    """Return whether two intervals overlap; an unknown interval counts as overlapping."""
    known = all(math.isfinite(row[end]) for row in (a, b) for end in ("low", "high"))
    return not known or (a["low"] <= b["high"] and b["low"] <= a["high"])
