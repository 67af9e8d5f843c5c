"""Statistics of a cell's images: range, brightness and spread, beside those of the teacher's own from the same noise.

They are no metrics. They show that samples diverge, are clipped, or are constant, which a distance doesn't name. A cell
whose images are far from the teacher's own is flagged (`flags`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from solverbench.metrics.intervals import half_width

Array = NDArray[np.float64]

NAME = "statistics"
"""Name of a block's array [3, 7]: rows `ROWS`, columns `COLUMNS`. A block of an earlier version has none."""

ROWS = ("all", "paired", "teacher")
"""All images of the block; its first images, which are compared with the teacher's own; and the teacher's own."""

COLUMNS = ("n", "lowest", "highest", "mean", "square", "outside", "constant")
"""Number of images; lowest and highest value; and sums over the images of: the mean value, the mean square, the share
of values outside [-1, 1], and whether the uint8 image has one colour. Values are those of the final state: of a latent
teacher, of the latents. All 0 for no images."""

SPREAD = 1.25
"""Largest factor between the standard deviations of the images and of the teacher's own images."""

BRIGHTNESS = 0.25
"""Largest difference of the mean from that of the teacher's own images, in standard deviations of these."""

OUTSIDE = 0.25
"""Largest difference of the share of values outside [-1, 1] from that of the teacher's own images."""

CONSTANT = 0.05
"""Largest difference of the share of constant images from that of the teacher's own images."""

SQUARE = 1.2
"""Largest plausible mean square of images on [-1, 1], whose values may lie slightly outside."""


def nothing() -> Array:
    """Return the row of no images."""
    return np.zeros(len(COLUMNS))


def row(states: Tensor, levels: Tensor) -> Array:
    """Return the row of a batch.

    Args:
        states: final states [B, *shape].
        levels: their images, uint8 [B, C, H, W].
    """
    values = states.detach().flatten(1).float()
    plain = levels.flatten(2)
    constant = (plain.amax(2) == plain.amin(2)).all(1)
    sums = (
        values.double().mean(1).sum(),
        values.double().square().mean(1).sum(),
        (values.abs() > 1).double().mean(1).sum(),
        constant.double().sum(),
    )
    found = torch.stack([values.amin().double(), values.amax().double(), *sums]).cpu().numpy()
    return np.concatenate([[float(len(states))], found])


def joined(rows: Sequence[Array]) -> Array:
    """Return the row of several batches or blocks together."""
    found = np.asarray(np.sum(rows, axis=0))
    there = [each for each in rows if each[0]]
    if there:
        found[1], found[2] = min(each[1] for each in there), max(each[2] for each in there)
    return found


def summary(blocks: Sequence[Mapping[str, NDArray[Any]]]) -> dict[str, Any]:
    """Return the statistics of a cell as plain JSON values; empty if a block has none.

    Args:
        blocks: arrays of each block.

    Returns:
        `images`, all images of the cell; `teacher`, the teacher's own; and `differences`, [value, low, high] with 95 %
        intervals by the jackknife over blocks, paired by noise: `deviation` as a ratio to the teacher's, `mean` in its
        deviations, `outside` and `constant` as differences of shares. The last two only where images are paired.
    """
    if not blocks or any(NAME not in arrays for arrays in blocks):
        return {}
    rows = np.stack([arrays[NAME] for arrays in blocks])  # [B, 3, 7]
    found: dict[str, Any] = {"images": _described(joined(list(rows[:, 0])))}
    left = [joined(list(np.delete(rows[:, 0], n, 0))) for n in range(len(rows))] if len(rows) > 1 else []
    if left:
        found["square"] = _interval(_square, joined(list(rows[:, 0])), left)
    paired = rows[rows[:, 1, 0] > 0]
    if len(paired) < 2:
        return found
    found["teacher"] = _described(joined(list(paired[:, 2])))
    both = [_both(paired), [_both(np.delete(paired, n, 0)) for n in range(len(paired))]]
    found["differences"] = {name: _interval(function, *both) for name, function in _DIFFERENCES.items()}
    return found


def teacher_diverges(stored: Mapping[str, Any], *, pixels: bool) -> str:
    """Return how the teacher's own samples lie out of the range of images; empty if they don't, or if it is unknown.

    Args:
        stored: the result of `summary` for one of the teacher's cells.
        pixels: whether final states are images on [-1, 1].
    """
    own = stored.get("teacher") if pixels else None
    if own is None or own["mean"] ** 2 + own["deviation"] ** 2 <= SQUARE:
        return ""
    return _outside(own)


def _outside(told: Mapping[str, Any]) -> str:
    return (
        f"{told['outside']:.0%} of the values lie outside [-1, 1] (from {told['lowest']:.3g} to "
        f"{told['highest']:.3g}, deviation {told['deviation']:.3g}), as where samples diverge"
    )


def flags(stored: Mapping[str, Any], *, pixels: bool) -> dict[str, str]:
    """Return the caveats about a cell's images, as code -> sentence; empty without any, or if nothing is known.

    Where the teacher's own samples lie out of range, so do those of good solvers, which are not flagged for it; see
    `teacher_diverges`.

    A difference counts if the whole of its 95 % interval is beyond the limit: `SPREAD`, `BRIGHTNESS`, `OUTSIDE` and
    `CONSTANT` against the teacher's own; `SQUARE` against the range of images. The range, and the share outside it, are
    those of pixels: latents have none.

    Args:
        stored: the result of `summary`.
        pixels: whether final states are images on [-1, 1].
    """
    if not stored:
        return {}
    found: list[str] = []
    mine, own = stored["images"], stored.get("teacher")
    far = pixels and "square" in stored and stored["square"][1] > SQUARE
    if far and not teacher_diverges(stored, pixels=pixels):
        found.append(_outside(mine))
    differences = stored.get("differences", {})
    if own is not None and differences:
        ratio, low, high = differences["deviation"]
        if low > SPREAD or high < 1 / SPREAD:
            found.append(f"the deviation is {ratio:.2f} times the teacher's own ({own['deviation']:.3g})")
        value, low, high = differences["mean"]
        if low > BRIGHTNESS or high < -BRIGHTNESS:
            found.append(f"the mean is {value:+.2f} deviations from the teacher's own ({own['mean']:.3g})")
        value, low, high = differences["outside"]
        if pixels and (low > OUTSIDE or high < -OUTSIDE):
            found.append(
                f"{own['outside'] + value:.0%} of the values lie outside [-1, 1] (of the teacher's own "
                f"{own['outside']:.0%})"
            )
        value, low, high = differences["constant"]
        if low > CONSTANT or high < -CONSTANT:
            share = f"{own['constant'] + value:.0%} of the images are of one colour"
            found.append(f"{share} (of the teacher's own {own['constant']:.0%})")
    return {"images": ", and ".join(found)} if found else {}


def _described(row: Array) -> dict[str, Any]:
    n = int(row[0])
    mean, square, outside, constant = (row[3:] / n).tolist()
    return {
        "n": n,
        "lowest": float(row[1]),
        "highest": float(row[2]),
        "mean": mean,
        "deviation": max(square - mean**2, 0.0) ** 0.5,
        "outside": outside,
        "constant": constant,
    }


def _both(rows: Array) -> tuple[Array, Array]:
    """Return the joined rows of the paired images and of the teacher's own, from [B, 3, 7]."""
    return joined(list(rows[:, 1])), joined(list(rows[:, 2]))


def _square(row: Array) -> float:
    return float(row[4] / row[0])


def _deviation(row: Array) -> float:
    variance = float(row[4] / row[0] - (row[3] / row[0]) ** 2)
    return math.sqrt(max(variance, 1e-300))


def _share(column: int) -> Any:
    return lambda both: float(both[0][column] / both[0][0] - both[1][column] / both[1][0])


_DIFFERENCES: dict[str, Any] = {
    "deviation": lambda both: _deviation(both[0]) / _deviation(both[1]),
    "mean": lambda both: _share(3)(both) / _deviation(both[1]),
    "outside": _share(5),
    "constant": _share(6),
}


def _interval(function: Any, whole: Any, left: Sequence[Any]) -> list[float]:
    """Return [value, low, high] of a function of joined rows, from those with a block left out each."""
    value, half = function(whole), half_width(np.array([[function(each) for each in left]]))
    return [value, value - half, value + half]
