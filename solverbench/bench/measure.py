"""The metrics of a cell from its blocks, with leave-one-block-out values, and paired differences between cells."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from solverbench.bench.cells import Cell, reason
from solverbench.errors import FeatureError, UserError
from solverbench.metrics import intervals
from solverbench.metrics.intervals import half_width, hierarchical, share, standard_error, within
from solverbench.metrics.reduction import BLOCKS, Array, Kept
from solverbench.metrics.table import TABLE, UNBOUNDED, MetricDefinition, Takes
from solverbench.sampling import exact as solutions
from solverbench.store.folder import BlockResult
from solverbench.wording import decimals, number_text

SHARE = (0.0, 1.0)
"""The range of a share or a probability."""


@dataclass(frozen=True, eq=False)
class Measure:
    """One metric of one cell.

    Args:
        metric: name of the metric; see docs/metrics.md.
        replicates: [R], the metric of each replicate.
        leave_one_out: [R, 10], the same with one of a replicate's ten groups of images left out.
        n: images per replicate.
        over: what two measures must share to be compared: seeds and reference.
        reference: human-readable name of what the images are compared with.
        bounds: least and greatest value that the metric can have.
        trainings: [K], the value of each training seed, if this is the mean over them; empty for a single cell.
    """

    metric: str
    replicates: Array
    leave_one_out: Array
    n: int
    over: str
    reference: str
    bounds: tuple[float, float] = UNBOUNDED
    trainings: tuple[float, ...] = ()

    @property
    def value(self) -> float:
        """The mean over replicates."""
        return float(self.replicates.mean())

    @cached_property
    def std_error(self) -> float:
        """Sampling error of the mean at this n, by the delete-a-group jackknife; bias is not removed.

        Over training seeds it holds the spread between them, too; so does the interval.
        """
        return standard_error(self.leave_one_out) if not self.trainings else self._hierarchical[0]

    @cached_property
    def interval(self) -> tuple[float, float]:
        """The 95 % interval of `value`: Student's with 9 R degrees of freedom, cut to the metric's range.

        Where the range is 0 to 1, as of precision and recall, it is that of a share (`intervals.share`). Over training
        seeds it is `intervals.hierarchical`.
        """
        if self.bounds == SHARE and not self.trainings:
            return share(self.value, self.leave_one_out, self.n * len(self.replicates))
        return within(self.value, self.half, self.bounds)

    @cached_property
    def half(self) -> float:
        """Half the width of the interval before it is cut; of a share, the distance to the farther end."""
        if self.trainings:
            return self._hierarchical[1]
        if self.bounds == SHARE:
            return max(self.interval[1] - self.value, self.value - self.interval[0])
        return half_width(self.leave_one_out)

    @cached_property
    def _hierarchical(self) -> tuple[float, float]:
        return hierarchical(self.leave_one_out, [np.array(self.trainings)])

    @property
    def texts(self) -> tuple[str, str]:
        """The value and `half` as text, with the decimals that reports show."""
        places = decimals(self.value, self.std_error)
        return number_text(self.value, places), number_text(self.half, places)

    def as_dict(self) -> dict[str, Any]:
        """Return the measure as plain JSON values, including derived ones for readers."""
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
            **({"trainings": list(self.trainings)} if self.trainings else {}),
            **({} if self.metric in TABLE or self.bounds == UNBOUNDED else {"bounds": [*map(_finite, self.bounds)]}),
        }

    @classmethod
    def from_dict(cls, metric: str, stored: dict[str, Any]) -> Measure:
        """Return the measure that `as_dict` wrote."""
        replicates, leave_one_out = np.array(stored["replicates"]), np.array(stored["leave_one_out"])
        if metric in TABLE:
            bounds = TABLE[metric].bounds
        else:  # a plugin's, which needn't be loaded
            ends = zip(stored.get("bounds", (None, None)), UNBOUNDED, strict=True)
            bounds = tuple(other if end is None else end for end, other in ends)  # type: ignore[assignment]
        return cls(metric, replicates, leave_one_out, stored["n"], stored["over"], stored["reference"], bounds)


def _finite(end: float) -> float | None:
    return end if math.isfinite(end) else None


def paired(a: Measure, b: Measure, level: float = 0.95) -> tuple[float, float, float]:
    """Return a - b and the ends of its interval, by default that of 95 %.

    Each leave-one-out drops the same images from both.
    The interval of means over training seeds holds the spread between trainings of each of the two.

    Raises:
        UserError: the metrics, seeds or references differ.
    """
    _check_paired(a, b)
    difference, left = a.value - b.value, a.leave_one_out - b.leave_one_out
    trainings = [np.array(each.trainings) for each in (a, b) if each.trainings]
    half = hierarchical(left, trainings, level)[1] if trainings else half_width(left, level)
    return difference, difference - half, difference + half


def p_value(a: Measure, b: Measure) -> float:
    """Return the two-sided p of the test that a - b is 0, at most .05 where the interval of `paired` excludes 0.

    Raises:
        UserError: see `paired`.
    """
    _check_paired(a, b)
    trainings = [np.array(each.trainings) for each in (a, b) if each.trainings]
    return intervals.p_value(
        a.value - b.value, *intervals.error_and_freedom(a.leave_one_out - b.leave_one_out, trainings)
    )


def _check_paired(a: Measure, b: Measure) -> None:
    if (a.metric, a.over, a.leave_one_out.shape) != (b.metric, b.over, b.leave_one_out.shape):
        raise UserError(
            asked=f"{a.metric} over {a.over} and {b.metric} over {b.over}",
            wrong="not paired",
            remedy="compare cells of one run",
        )


def over_trainings(measures: Sequence[Measure]) -> Measure:
    """Return the mean of a metric over cells that differ only in the training seed.

    Raises:
        UserError: they are not over the same images and reference.
    """
    first = measures[0]
    for other in measures[1:]:
        _check_paired(first, other)
    return replace(
        first,
        replicates=np.mean([each.replicates for each in measures], axis=0),
        leave_one_out=np.mean([each.leave_one_out for each in measures], axis=0),
        trainings=tuple(each.value for each in measures),
    )


@dataclass(frozen=True, eq=False)
class Measures:
    """The measures of a cell.

    Args:
        found: metric name to measure.
        failed: metric name to the reason why it has no measure.
    """

    found: Mapping[str, Measure]
    failed: Mapping[str, str]


def measure(cell: Cell, blocks: Sequence[BlockResult]) -> Measures:
    """Return the metrics of `cell` from its blocks, given in seed order; a metric may fail without the others."""
    replicates = [blocks[begin : begin + BLOCKS] for begin in range(0, len(blocks), BLOCKS)]
    kept = Kept(replicates, cell.evaluation, cell.measurement.device)
    lacking = {array: why for block in reversed(blocks) for array, why in block.failed.items()}
    found, failed = dict[str, Measure](), dict[str, str]()
    for metric in sorted(cell.metrics, key=lambda each: each.name):
        if metric.array in lacking:
            failed[metric.name] = lacking[metric.array]
        elif metric.takes is not Takes.FEATURES or metric.reference(kept.judged) is not None:
            try:
                with np.errstate(over="ignore", invalid="ignore"):
                    values, left = metric.reduce(kept)
                if not (np.isfinite(values).all() and np.isfinite(left).all()):
                    raise FeatureError(
                        asked=f"metric {metric.name}",
                        wrong="not finite, although what it is computed from is",
                        remedy="correct it, or leave it out",
                    )
                low, high = metric.bounds
                if metric.name not in TABLE and not ((low <= values) & (values <= high)).all():
                    raise FeatureError(
                        asked=f"metric {metric.name}",
                        wrong=f"{values.tolist()} is outside its bounds {low} to {high}",
                        remedy="correct `bounds` in its class",
                    )
                n, over, reference = _compared_to(cell, metric)
                found[metric.name] = Measure(metric.name, values, left, n, over, reference, metric.bounds)
            except (Exception, SystemExit) as error:  # anything, by a plugin
                failed[metric.name] = reason(error)
    return Measures(found, failed)


def _compared_to(cell: Cell, metric: MetricDefinition) -> tuple[int, str, str]:
    """Return images per replicate, what two measures must share to be compared, and the reference's name."""
    teacher, key, protocol = cell.teacher, cell.key, cell.protocol
    seeded = f"seeds {key['seeds']} by {protocol.samples}"
    if metric.takes is Takes.PAIR:
        goal = {name: key[name] for name in ("teacher", "sampler", "batch", "device")}
        name = f"{teacher.name}'s own samples from the same noise, {teacher.sampler} {teacher.sampler_nfe} calls"
        return protocol.paired, f"{seeded}, paired {protocol.paired}, {goal}", name
    if metric.takes is Takes.EXACT:
        name = f"exact solution of {teacher.name}'s ODE from the same noise, {solutions.describe(teacher)}"
        return protocol.solved, f"{seeded}, {key['exact']}", name
    if metric.takes is Takes.PROMPT:
        scored = key[metric.name] if metric.builtin else key["scores"][metric.name]
        return protocol.samples, f"{seeded}, {scored}, {teacher.condition}", "each image's own prompt"
    if metric.takes is Takes.IMAGE:
        return protocol.samples, f"{seeded}, {key['scores'][metric.name]}", "each image alone"
    assert cell.evaluation is not None
    reference = metric.reference(cell.evaluation)
    assert reference is not None
    over = f"{seeded}, {key['evaluation']}, reference {reference.sha}"
    return metric.images(protocol.samples), over, reference.name
