"""Agreement of results that two machines computed for one address: equal up to rounding, or not."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

CLOSE = 1e-3
"""Largest difference between two machines' arrays for one address, relative to the largest value.

Between two instruction sets of one processor it is about 1e-5: a float32 network differs in its last bits.
"""

SQUARED = frozenset({"errors", "exact", "doubled", "other"})
"""Names of arrays of mean squared differences."""

LEAST = 1e-3
"""Their roots agree if they differ by no more than `CLOSE` times this.

The error of a converged solver is rounding alone, and differs by any share between two machines.
"""

LATER = frozenset({"statistics"})
"""Names in blocks and metrics.json that earlier versions didn't write."""


ENDS = frozenset({"low", "high"})
"""The numbers of a metric that follow from its other ones; how, has changed between versions."""


def comparable(a: Mapping[str, Any], b: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the entries of two result files, without those that only a later version writes if one lacks them.

    The ends of intervals are left out.
    """
    lacking = LATER - (a.keys() & b.keys())
    mine, theirs = ({name: each for name, each in one.items() if name not in lacking} for one in (a, b))
    return _without_ends(mine), _without_ends(theirs)


def _without_ends(file: dict[str, Any]) -> dict[str, Any]:
    measures = file.get("measures")
    if not isinstance(measures, Mapping):
        return file
    plain = {name: _other(each) if isinstance(each, Mapping) else each for name, each in measures.items()}
    return {**file, "measures": plain}


def _other(measure: Mapping[str, Any]) -> dict[str, Any]:
    return {part: number for part, number in measure.items() if part not in ENDS}


def distance(a: NDArray[Any], b: NDArray[Any]) -> float:
    """Return the largest difference of two arrays, relative to the largest value of `b`.

    For uint8 images it is 0 if no value differs by more than one step, which is a value next to a rounding boundary.
    It is infinite for arrays of other types or shapes, for values of which one is no number, and for whole numbers
    that differ.
    """
    if a.dtype != b.dtype or a.shape != b.shape:
        return math.inf
    if a.dtype.kind != "f":
        step = 1 if a.dtype == np.uint8 else 0
        return 0.0 if (np.abs(a.astype(np.int64) - b.astype(np.int64)) <= step).all() else math.inf
    known = ~np.isnan(b)
    if (np.isnan(a) == known).any():
        return math.inf
    with np.errstate(invalid="ignore"):
        apart, largest = (float(np.abs(each).max(initial=0, where=known)) for each in (a - b, b))
    if not math.isfinite(apart + largest):
        return math.inf
    return 0.0 if apart == 0 else apart / largest if largest else math.inf


def distance_of_files(a: Mapping[str, NDArray[Any]], b: Mapping[str, NDArray[Any]]) -> float:
    """Return the largest `distance` of the arrays of two files; infinite if they hold arrays of other names."""
    mine, theirs = comparable(a, b)
    if mine.keys() != theirs.keys():
        return math.inf
    return max((_distance(name, mine[name], theirs[name]) for name in mine), default=0.0)


def _distance(name: str, a: NDArray[Any], b: NDArray[Any]) -> float:
    found = distance(a, b)
    if CLOSE < found < math.inf and name in SQUARED:
        apart = float(np.abs(np.sqrt(np.abs(a)) - np.sqrt(np.abs(b))).max(initial=0, where=~np.isnan(b)))
        if apart <= CLOSE * LEAST:
            return apart / LEAST
    return found


def values(a: Any, b: Any, relative: float, absolute: float) -> bool:
    """Return whether two JSON values agree: numbers within the tolerances, everything else exactly."""
    if isinstance(a, float) or isinstance(b, float):
        numbers = all(isinstance(each, (int, float)) for each in (a, b))
        return numbers and math.isclose(a, b, rel_tol=relative, abs_tol=absolute)
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(values(a[name], b[name], relative, absolute) for name in a)
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(values(*pair, relative, absolute) for pair in zip(a, b, strict=True))
    return bool(a == b)
