"""The metrics of a cell from its blocks, each with its leave-one-block-out values, and paired differences of two."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from solverbench.bench.cells import Cell
from solverbench.bench.protocol import BLOCKS
from solverbench.errors import UserError
from solverbench.evaluation.selection import MANIFOLD
from solverbench.metrics import vectors as features
from solverbench.metrics.evaluation import Evaluation, Reference
from solverbench.metrics.frechet import Moments, Rows, Statistics, frechet
from solverbench.metrics.intervals import extrapolated, half_width, standard_error
from solverbench.sampling import exact as solutions
from solverbench.store.folder import BlockResult

Array = NDArray[np.float64]

LEAST = 1e-14
"""Mean squared error that counts as none in PSNR, 146 dB: float32 images don't resolve less."""


@dataclass(frozen=True, eq=False)
class Measure:
    """One metric of one cell.

    Args:
        metric: its name; see docs/metrics.md.
        replicates: [R], the metric of each replicate.
        leave_one_out: [R, 10], the same with one of a replicate's ten groups of images left out.
        n: images per replicate.
        over: what two measures must share to be compared: seeds, and what the images are compared with.
        reference: what the images are compared with, for people.
    """

    metric: str
    replicates: Array
    leave_one_out: Array
    n: int
    over: str
    reference: str

    @property
    def value(self) -> float:
        """The mean over replicates."""
        return float(self.replicates.mean())

    @cached_property
    def std_error(self) -> float:
        """Sampling error of the mean at this n, by the delete-a-group jackknife; bias isn't removed."""
        return standard_error(self.leave_one_out)

    @cached_property
    def interval(self) -> tuple[float, float]:
        """The 95 % interval of `value`, by Student's t with 9 R degrees of freedom."""
        half = half_width(self.leave_one_out)
        return self.value - half, self.value + half

    def as_dict(self) -> dict[str, Any]:
        """Return the measure as plain JSON values; the derived ones are there for readers."""
        low, high = self.interval
        return {
            "value": self.value,
            "std_error": self.std_error,
            "low": low,
            "high": high,
            "n": self.n,
            "over": self.over,
            "reference": self.reference,
            "replicates": self.replicates.tolist(),
            "leave_one_out": self.leave_one_out.tolist(),
        }

    @classmethod
    def from_dict(cls, metric: str, stored: dict[str, Any]) -> Measure:
        """Return what `as_dict` described."""
        replicates, leave_one_out = np.array(stored["replicates"]), np.array(stored["leave_one_out"])
        return cls(metric, replicates, leave_one_out, stored["n"], stored["over"], stored["reference"])


def paired(a: Measure, b: Measure) -> tuple[float, float, float]:
    """Return a - b and the ends of its 95 % interval, from leave-one-outs with the same images left out of both.

    Raises:
        UserError: another metric, other seeds or another reference.
    """
    if (a.metric, a.over, a.leave_one_out.shape) != (b.metric, b.over, b.leave_one_out.shape):
        raise UserError(f"{a.metric} over {a.over} and {b.metric} over {b.over}: not paired; compare cells of one run")
    difference = a.value - b.value
    half = half_width(a.leave_one_out - b.leave_one_out)
    return difference, difference - half, difference + half


def measure(cell: Cell, blocks: Sequence[BlockResult]) -> dict[str, Measure]:
    """Return the metrics of `cell` from its blocks, in the order of their seeds."""
    replicates = [blocks[begin : begin + BLOCKS] for begin in range(0, len(blocks), BLOCKS)]
    found = [_rmse_teacher(cell, [np.concatenate([block.errors for block in part]) for part in replicates])]
    if cell.exact:
        solved = [[block.exact for block in part if block.exact is not None] for part in replicates]
        found.append(_rmse_exact(cell, [np.concatenate(part) for part in solved]))
    if "psnr_teacher" in cell.metrics:
        each = [10 * np.log10(4 / np.concatenate([b.errors for b in part]).clip(LEAST)) for part in replicates]
        found.append(_paired(cell, "psnr_teacher", *means(np.stack(each))))
    if "lpips_teacher" in cell.metrics:
        seen = [np.concatenate([b.perceptual for b in part if b.perceptual is not None]) for part in replicates]
        found.append(_paired(cell, "lpips_teacher", *means(np.stack(seen))))
    if "clip_score" in cell.metrics:
        fits = [np.concatenate([b.prompted for b in part if b.prompted is not None]) for part in replicates]
        found.append(_prompted(cell, "clip_score", *means(np.stack(fits))))
    for name in cell.protocol.judging.scored(cell.teacher):
        each = [np.concatenate([block.scores[name] for block in part]) for part in replicates]
        found.append(_scored(cell, name, *means(np.stack(each))))
    if cell.teacher.evaluation is not None:
        found += _judged(cell, cell.teacher.evaluation, replicates)
    return {each.metric: each for each in sorted(found, key=lambda each: each.metric)}


def frechets(replicates: Sequence[Sequence[Moments | Array]], reference: Statistics) -> tuple[Array, Array]:
    """Return the Fréchet distance to `reference` of each replicate's features [R], and with a block left out [R, 10].

    Args:
        replicates: R times its blocks' moments, or their feature vectors [n, D] where there are fewer than features.
    """
    values, left = [], []
    for blocks in replicates:
        sums = [block for block in blocks if isinstance(block, Moments)]
        if sums:
            whole = sum(sums[1:], sums[0])
            values.append(frechet(whole, reference))
            left.append([frechet(whole - block, reference) for block in sums])
        else:
            rows = [block for block in blocks if not isinstance(block, Moments)]
            values.append(frechet(Rows(np.concatenate(rows)), reference))
            parts = (np.concatenate(rows[:g] + rows[g + 1 :]) for g in range(len(rows)))
            left.append([frechet(Rows(part), reference) for part in parts])
    return np.array(values), np.array(left)


def means(each: Array) -> tuple[Array, Array]:
    """Return the mean of each replicate's values [R], and with a tenth of them left out [R, 10].

    Args:
        each: [R, p], a value per image or block; p is a multiple of 10.
    """
    sums, size = each.reshape(len(each), BLOCKS, -1).sum(2), each.shape[1] // BLOCKS
    left = (sums.sum(1, keepdims=True) - sums) / (size * (BLOCKS - 1))
    return sums.sum(1) / (size * BLOCKS), left


def rmses(errors: Array) -> tuple[Array, Array]:
    """Return the root of the mean error of each replicate [R], and with a tenth of its images left out [R, 10].

    Args:
        errors: [R, p] mean squared error of each image over its pixels, on [-1, 1]; p is a multiple of 10.
    """
    sums, each = errors.reshape(len(errors), BLOCKS, -1).sum(2), errors.shape[1] // BLOCKS
    left = np.sqrt((sums.sum(1, keepdims=True) - sums) / (each * (BLOCKS - 1)))
    return np.sqrt(sums.sum(1) / (each * BLOCKS)), left


def _judged(cell: Cell, judged: Evaluation, replicates: Sequence[Sequence[BlockResult]]) -> list[Measure]:
    """The metrics of features that the evaluation names."""
    vectors = [[b.features.astype(np.float64) for b in part if b.features is not None] for part in replicates]
    blocks = [_blocks(part, rows) for part, rows in zip(replicates, vectors, strict=True)]

    def made(metric: str, values: Array, left: Array, reference: Reference, n: int = cell.protocol.samples) -> Measure:
        key = cell.key
        over = f"seeds {key['seeds']} by {cell.protocol.samples}, {key['evaluation']}, reference {reference.sha}"
        return Measure(metric, values, left, n, over, reference.name)

    found, data, wanted = [], judged.data, set(judged.metrics)
    for plain, without_bias in (
        ("fid", "fid_inf"), ("fid_clip", ""), ("fdd", ""), ("frechet_data", "frechet_data_inf")
    ):  # fmt: skip
        if wanted & {plain, without_bias}:
            values, left = frechets(blocks, data.moments)
            found += [made(plain, values, left, data)] if plain in wanted else []
            found += [made(without_bias, *extrapolated(values, left), data)] if without_bias in wanted else []
    if "frechet_teacher" in wanted and judged.teacher is not None:
        found.append(made("frechet_teacher", *frechets(blocks, judged.teacher.moments), judged.teacher))
    for metric in sorted(wanted & {"kid", "kernel_data"}):
        assert data.features is not None
        kernels = np.stack([features.kernel_blocks(part, data.features) for part in vectors])
        found.append(made(metric, *means(kernels), data))
    if "inception_score" in wanted:
        assert judged.probabilities is not None
        classes = [[judged.probabilities(torch.from_numpy(rows)).numpy() for rows in part] for part in vectors]
        scores = np.stack([features.inception_scores(part) for part in classes])
        found.append(made("inception_score", *means(scores), data))
    found += _manifold(cell, wanted, vectors, data, made)
    return found


def _manifold(
    cell: Cell, wanted: set[str], vectors: Sequence[Sequence[Array]], data: Reference, made: Callable[..., Measure]
) -> list[Measure]:
    names = [(name, name.removesuffix("_data")) for name in sorted(wanted)]
    names = [(name, part) for name, part in names if part in ("precision", "recall")]
    if not names:
        return []
    assert data.features is not None
    size = min(cell.protocol.block, MANIFOLD // BLOCKS)
    each = [features.manifold([rows[:size] for rows in part], data.features) for part in vectors]
    return [
        made(name, np.array([one[part][0] for one in each]), np.stack([one[part][1] for one in each]), data, size * 10)
        for name, part in names
    ]


def _blocks(part: Sequence[BlockResult], rows: Sequence[Array]) -> list[Moments | Array]:
    """A replicate's blocks as a Fréchet distance takes them: vectors where, one left out, there are too few of them."""
    if rows and sum(map(len, rows)) * (BLOCKS - 1) <= BLOCKS * rows[0].shape[1]:
        return list(rows)
    return [Moments.of(each) for each in rows] if rows else [b.moments for b in part if b.moments is not None]


def _rmse_exact(cell: Cell, replicates: Sequence[Array]) -> Measure:
    teacher, solved = cell.teacher, cell.protocol.solved
    over = f"seeds {cell.key['seeds']} by {cell.protocol.samples}, {cell.key['exact']}"
    name = f"exact solution of {teacher.name}'s ODE from the same noise, {solutions.describe(teacher)}"
    return Measure("rmse_exact", *rmses(np.stack(replicates)), solved, over, name)


def _rmse_teacher(cell: Cell, replicates: Sequence[Array]) -> Measure:
    return _paired(cell, "rmse_teacher", *rmses(np.stack(replicates)))


def _prompted(cell: Cell, metric: str, values: Array, left: Array) -> Measure:
    over = f"seeds {cell.key['seeds']} by {cell.protocol.samples}, {cell.key[metric]}, {cell.teacher.condition}"
    return Measure(metric, values, left, cell.protocol.samples, over, "each image's own prompt")


def _scored(cell: Cell, metric: str, values: Array, left: Array) -> Measure:
    over = f"seeds {cell.key['seeds']} by {cell.protocol.samples}, {cell.key['scores'][metric]}"
    return Measure(metric, values, left, cell.protocol.samples, over, "each image alone")


def _paired(cell: Cell, metric: str, values: Array, left: Array) -> Measure:
    teacher = cell.teacher
    goal = {name: cell.key[name] for name in ("teacher", "sampler", "batch", "device")}
    over = f"seeds {cell.key['seeds']} by {cell.protocol.samples}, paired {cell.protocol.paired}, {goal}"
    name = f"{teacher.name}'s own samples from the same noise, {teacher.sampler} {teacher.sampler_nfe} calls"
    return Measure(metric, values, left, cell.protocol.paired, over, name)
