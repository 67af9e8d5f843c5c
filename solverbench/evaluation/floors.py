"""What a distance can reach: sets of a reference's own images against the rest of it, for the lines of a report."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from solverbench import files
from solverbench.errors import RecordError, StoreError
from solverbench.metrics.evaluation import Evaluation, Reference
from solverbench.metrics.frechet import Moments, Rows, Statistics
from solverbench.metrics.intervals import half_width, within
from solverbench.metrics.reduction import BLOCKS, frechets

Array = NDArray[np.float64]

SETS = 5
"""Largest number of disjoint sets whose distances are averaged."""

WIDE = 512
"""Number of features above which there is one set: eleven distances of 2048 features take a minute."""


def of(evaluation: Evaluation, n: int, out: Path) -> dict[str, Any]:
    """Return the facts of an evaluation with the missing ones that its references allow, at up to `n` images.

    `data_floor` is the distance of the data's images to its other ones, `teacher_floor` that of the teacher's own
    samples to the other ones, and `teacher_distance` that of the teacher's own samples to the data. They are kept in
    DIR/references.
    """
    data, own = evaluation.data, evaluation.teacher
    wanted: dict[str, tuple[Reference, Reference | None]] = {"data_floor": (data, None)} if data.sha else {}
    if own is not None:
        wanted["teacher_floor"] = own, None
        wanted |= {"teacher_distance": (own, data)} if data.sha else {}
    missing = {name: pair for name, pair in wanted.items() if name not in evaluation.facts}
    found = {name: _kept(images, against, n, out) for name, (images, against) in missing.items()}
    return {**evaluation.facts, **{name: fact for name, fact in found.items() if fact is not None}}


def distance(images: Reference, against: Reference | None, n: int) -> dict[str, float | int] | None:
    """Return the mean Fréchet distance of sets of a reference's images, with its 95 % interval.

    The sets are disjoint, drawn by a fixed generator from the feature vectors that the reference holds, at most `SETS`.
    A set is smaller than `n` if the reference holds fewer vectors, or fewer than twice as many images.

    Args:
        images: the reference whose images form the sets.
        against: the reference to compare with; if None, the images of the first one that aren't in the set.
        n: number of images of a set.

    Returns:
        `mean`, `low`, `high`, `n` and `sets`; None if the vectors are missing or too few.
    """
    rows, whole = images.features, _moments(images)
    if rows is None or (against is None and whole is None and not isinstance(images.moments, Rows)):
        return None
    total = whole.n if whole is not None else len(rows)
    size = min(n, len(rows), total // 2 if against is None else total) // BLOCKS * BLOCKS
    if size < 2 * BLOCKS:
        return None
    mixed = rows[np.random.default_rng(0).permutation(len(rows))]
    sets = min(SETS, len(rows) // size) if against is not None or total >= (SETS + 1) * size else 1
    sets = 1 if rows.shape[1] > WIDE else sets
    values, left = [], []
    for number in range(sets):
        part = mixed[number * size : (number + 1) * size]
        other = against.moments if against is not None else _rest(rows, whole, part, mixed, number * size)
        found = frechets([_blocks(part)], other)
        values.append(found[0][0])
        left.append(found[1][0])
    mean, half = float(np.mean(values)), half_width(np.array(left))
    low, high = within(mean, half, (0.0, np.inf))
    return {"mean": mean, "low": low, "high": high, "n": size, "sets": sets}


def _kept(images: Reference, against: Reference | None, n: int, out: Path) -> Mapping[str, Any] | None:
    """Return a distance from its file in DIR/references; it is computed and stored there if it is missing."""
    about = [images.sha, against.sha if against is not None else "", n]
    path = out / "references" / f"floor-{files.digest(about)[:16]}.json"
    with suppress(RecordError, StoreError):
        if path.is_file():
            found = files.read_json(path)
            if found.get("of") == about:
                return found
    made = distance(images, against, n)
    if made is None:
        return None
    path.parent.mkdir(parents=True, exist_ok=True)
    files.write_json(path, {"of": about, **made})
    return made


def _moments(reference: Reference) -> Moments | None:
    """Return the sums behind a reference of images; None if its number of images is unknown, or for few vectors."""
    moments = reference.moments
    if isinstance(moments, Moments):
        return moments
    if isinstance(moments, Rows) or moments.n < 2:
        return None
    total, outer = moments.mean * moments.n, np.outer(moments.mean, moments.mean) * moments.n
    return Moments(moments.n, total, moments.cov * (moments.n - 1) + outer)


def _rest(rows: Array, whole: Moments | None, part: Array, mixed: Array, begin: int) -> Statistics:
    """Return the statistics of a reference's images without those of a set."""
    if whole is not None and whole.n - len(part) > rows.shape[1]:
        return whole - Moments.of(part)
    rest = np.concatenate([mixed[:begin], mixed[begin + len(part) :]])
    return Rows(rest) if len(rest) <= rows.shape[1] else Moments.of(rest)


def _blocks(part: Array) -> list[Moments | Array]:
    """Return ten blocks of a set as `frechets` takes them."""
    blocks = np.split(part, BLOCKS)
    few = len(part) * (BLOCKS - 1) <= BLOCKS * part.shape[1]
    return list(blocks) if few else [Moments.of(block) for block in blocks]
