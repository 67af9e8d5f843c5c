"""The outcome of a requested cell: status, reason, measures, a few images and cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from solverbench.bench import measure as measures
from solverbench.bench import statistics
from solverbench.bench.cells import Cell, teachers_of
from solverbench.bench.measure import Measure
from solverbench.errors import UserError
from solverbench.metrics import table
from solverbench.metrics.table import Takes
from solverbench.teachers.convergence import SHARE, Convergence
from solverbench.teachers.teacher import Teacher

REFERENCE = "reference-error"
"""Code of the flag of a value that is small beside the error of its reference."""


@dataclass(frozen=True, eq=False)
class Outcome:
    """The outcome of a cell.

    Args:
        status: done, cached, failed, unsupported or needs-training.
        reason: why the cell has no measures; empty if it has some.
        measures: metric name to measure.
        pictures: [k, C, H, W] uint8, images of the first seeds; None without measures.
        cost: block label to the block's cost, as in timing.json.
        failed: metric name to the reason why it has no measure although the cell has results.
        convergence: the error of the teacher sampler, that paired errors refer to; None if it wasn't measured.
        statistics: statistics of its images, see `bench.statistics`; empty without results, or for earlier ones.
        origin: where it was merged from, when, and how its numbers were checked; empty if it was computed here.
        parts: the outcomes of each training seed if this is their mean, see `bundle.trainings`; empty otherwise.
    """

    cell: Cell
    status: str
    reason: str = ""
    measures: Mapping[str, Measure] = field(default_factory=dict)
    pictures: NDArray[np.uint8] | None = None
    cost: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    failed: Mapping[str, str] = field(default_factory=dict)
    convergence: Convergence | None = None
    statistics: Mapping[str, Any] = field(default_factory=dict)
    origin: str = ""
    parts: Sequence[Outcome] = ()

    @property
    def place(self) -> str:
        """The start of its cell's address, as in results.csv; those of all trainings, joined by +."""
        return "+".join(each.cell.address[:16] for each in self.parts or (self,))

    @property
    def reference_error(self) -> float | None:
        """The error of the reference of paired errors, RMSE on [-1, 1]; None if it is unknown."""
        return None if self.convergence is None else self.convergence.error

    def flags(self, metric: str = table.ALWAYS) -> Mapping[str, str]:
        """Return the caveats about a metric's value, as code (one word) -> sentence.

        Those of the cell come first, then those of its images (`bench.statistics`). `reference-error` comes last; only
        metrics that compare with the teacher's own samples have it.
        """
        teacher = self.cell.teacher
        shown = statistics.flags(self.statistics, pixels=teacher.decode is None)
        found, measured = {**self.cell.flags, **shown}, self.measures.get(table.ALWAYS)
        paired = metric in table.TABLE and table.TABLE[metric].takes is Takes.PAIR
        if paired and measured is not None and self.convergence and self.convergence.marks(measured.value):
            found[REFERENCE] = (
                f"its RMSE {measured.value:.2g} is below {SHARE} times the error of its reference, "
                f"{self.reference_error:.2g}"
            )
        return found

    @property
    def summary(self) -> str:
        """One line: the measures, or the reason."""
        parts = [f"{m.metric} {' ± '.join(m.texts)}" for m in self.measures.values()]
        biased = any(self.biased(metric) for metric in self.measures)
        parts = [*parts, *(f"no {metric}" for metric in self.failed), *(f"flagged {code}" for code in self.flags())]
        return self.reason or ", ".join(parts) + (f" (biased, n={self.cell.protocol.samples})" if biased else "")

    def biased(self, metric: str) -> bool:
        """Return whether the metric is biased, as it uses features of too few images."""
        return self.cell.protocol.samples < self.cell.measurement.full(metric)

    def total(self, name: str) -> float | None:
        """Return the sum of one cost over the blocks; None if unknown."""
        known = [block[name] for block in self.cost.values() if name in block]
        return float(sum(known)) if known else None

    def least(self, name: str) -> float | None:
        """Return the minimum of one cost over the blocks; None if unknown."""
        return min((float(block[name]) for block in self.cost.values() if name in block), default=None)

    def greatest(self, name: str) -> float | None:
        """Return the maximum of one cost over the blocks; None if unknown."""
        return max((float(block[name]) for block in self.cost.values() if name in block), default=None)


def paired(a: Outcome, b: Outcome, metric: str) -> tuple[float, float, float]:
    """Return a - b in `metric` and the ends of its 95 % interval, paired by the images' seeds.

    Raises:
        UserError: a cell lacks the metric, or the seeds or references differ.
    """
    for outcome in (a, b):
        if metric not in outcome.measures:
            found = ", ".join(outcome.measures) or f"none ({outcome.status})"
            raise UserError(
                asked=outcome.cell, wrong=f"has no {metric}, but {found}", remedy="compare cells that have it"
            )
    return measures.paired(a.measures[metric], b.measures[metric])


def teachers_of_outcomes(outcomes: Sequence[Outcome]) -> list[Teacher]:
    """Return the distinct teachers of the outcomes, in order."""
    return teachers_of(outcome.cell for outcome in outcomes)
