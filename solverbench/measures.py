"""The metrics of a cell from its blocks, each with its leave-one-block-out values, and paired differences of two."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from solverbench import solutions
from solverbench.cells import BLOCKS, Cell
from solverbench.errors import UserError
from solverbench.metrics import Moments, frechet, half_width, standard_error
from solverbench.store import BlockResult
from solverbench.teachers import Reference

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Measure:
    """One metric of one cell.

    Args:
        metric: frechet_data, frechet_teacher, rmse_exact or rmse_teacher.
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

    @property
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
    evaluation = cell.teacher.evaluation
    if evaluation is not None:
        sums = [[block.moments for block in part if block.moments is not None] for part in replicates]
        found.append(_frechet(cell, "frechet_data", sums, evaluation.data))
        found.append(_frechet(cell, "frechet_teacher", sums, evaluation.teacher))
    return {each.metric: each for each in sorted(found, key=lambda each: each.metric)}


def frechets(replicates: Sequence[Sequence[Moments]], reference: Moments) -> tuple[Array, Array]:
    """Return the Fréchet distance to `reference` of each replicate's features [R], and with a block left out [R, 10].

    Args:
        replicates: R times the moments of its blocks.
    """
    values, left = [], []
    for blocks in replicates:
        whole = sum(blocks[1:], blocks[0])
        values.append(frechet(whole, reference))
        left.append([frechet(whole - block, reference) for block in blocks])
    return np.array(values), np.array(left)


def rmses(errors: Array) -> tuple[Array, Array]:
    """Return the root of the mean error of each replicate [R], and with a tenth of its images left out [R, 10].

    Args:
        errors: [R, p] mean squared error of each image over its pixels, on [-1, 1]; p is a multiple of 10.
    """
    sums, each = errors.reshape(len(errors), BLOCKS, -1).sum(2), errors.shape[1] // BLOCKS
    left = np.sqrt((sums.sum(1, keepdims=True) - sums) / (each * (BLOCKS - 1)))
    return np.sqrt(sums.sum(1) / (each * BLOCKS)), left


def _frechet(cell: Cell, metric: str, replicates: Sequence[Sequence[Moments]], reference: Reference) -> Measure:
    key = cell.key
    over = f"seeds {key['seeds']} by {cell.protocol.samples}, {key['evaluation']}, reference {reference.sha}"
    return Measure(metric, *frechets(replicates, reference.moments), cell.protocol.samples, over, reference.name)


def _rmse_exact(cell: Cell, replicates: Sequence[Array]) -> Measure:
    teacher, solved = cell.teacher, cell.protocol.solved
    over = f"seeds {cell.key['seeds']} by {cell.protocol.samples}, {cell.key['exact']}"
    name = f"exact solution of {teacher.name}'s ODE from the same noise, {solutions.describe(teacher)}"
    return Measure("rmse_exact", *rmses(np.stack(replicates)), solved, over, name)


def _rmse_teacher(cell: Cell, replicates: Sequence[Array]) -> Measure:
    teacher = cell.teacher
    goal = {name: cell.key[name] for name in ("teacher", "sampler", "batch", "device")}
    over = f"seeds {cell.key['seeds']} by {cell.protocol.samples}, paired {cell.protocol.paired}, {goal}"
    name = f"{teacher.name}'s own samples from the same noise, {teacher.sampler} {teacher.sampler_nfe} calls"
    return Measure("rmse_teacher", *rmses(np.stack(replicates)), cell.protocol.paired, over, name)
