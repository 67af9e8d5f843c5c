"""Win rates of each two solvers in scores of images and their prompts, and the mean scores of each prompt."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from solverbench import files
from solverbench.bench.outcome import Outcome
from solverbench.errors import RecordError, StoreError
from solverbench.metrics.intervals import Array
from solverbench.metrics.table import MetricDefinition, Takes
from solverbench.metrics.wins import Wins, compared
from solverbench.store.folder import Store

PROMPTS = "prompts.csv"
"""The mean score of each prompt by each cell."""

MOST = 1_000_000
"""Largest number of rows of that table; a longer one isn't written."""

SHOWN = 3
"""Number of prompts that a pair of solvers is told with, in each direction."""


@dataclass(frozen=True, eq=False)
class Scores:
    """The scores of a cell's images in one metric.

    Args:
        values: [n] by seed, or [K, n] for K trainings.
        prompts: place of each image's prompt, [n].
        lines: the different prompts, by their place in the teacher's file.
    """

    outcome: Outcome
    metric: MetricDefinition
    values: Array
    prompts: NDArray[np.int64]
    lines: Mapping[int, str]

    @property
    def group(self) -> tuple[Any, ...]:
        """What two cells must share to be compared: teacher, metric, number of calls, and images with their prompts."""
        cell = self.outcome.cell
        return cell.teacher.name, self.metric.name, cell.nfe, self.outcome.measures[self.metric.name].over

    def means(self) -> tuple[Array, NDArray[np.int64]]:
        """Return the mean score of each prompt and its number of images, [C] each, in the order of `lines`."""
        used = np.array(list(self.lines))
        sizes = np.bincount(self.prompts)[used]
        return np.bincount(self.prompts, weights=np.atleast_2d(self.values).mean(0))[used] / sizes, sizes

    def against(self, other: Scores) -> Wins:
        """Return how often this cell scores above another one."""
        return compared(self.values, other.values, self.prompts, higher=self.metric.higher)


def found(outcomes: Sequence[Outcome], root: Path) -> list[Scores]:
    """Return the scores of the finished cells in metrics that take prompts; cells whose blocks are gone are left out.

    Args:
        root: results folder.
    """
    made: list[Scores] = []
    for outcome in outcomes:
        told = outcome.cell.teacher.condition
        for metric in outcome.cell.metrics:
            if metric.takes is not Takes.PROMPT or metric.name not in outcome.measures or told is None:
                continue
            parts = [_stored(each, metric.array, root) for each in outcome.parts or (outcome,)]
            values = [each for each in parts if each is not None and each.ndim == 1]
            if len(values) == len(parts):
                places = {line: place for place, line in reversed(list(enumerate(told.prompts)))}
                used = [places[line] for line in told.lines(outcome.cell.protocol.seeds)]
                lines = {place: told.prompts[place] for place in sorted(set(used))}
                made.append(Scores(outcome, metric, np.stack(values), np.array(used), lines))
    return made


def rates(scores: Sequence[Scores]) -> list[dict[str, Any]]:
    """Return the comparison of each two solvers with as many calls, as JSON values.

    The keys are those of `Wins`, teacher, metric, nfe, the solvers `a` and `b`, and `up` and `down`: the prompts where
    a's mean score exceeds b's by most, and falls short of it by most, each with the difference.
    """
    made = []
    for a, b in pairs(scores):
        cell = a.outcome.cell
        about = {"teacher": cell.teacher.name, "metric": a.metric.name, "nfe": cell.nfe}
        about |= {"a": cell.solver, "b": b.outcome.cell.solver}
        made.append({**about, **asdict(a.against(b)), **_extremes(a, b)})
    return made


def pairs(scores: Sequence[Scores]) -> Iterator[tuple[Scores, Scores]]:
    """Yield each two cells of one teacher, metric and number of calls, over the same images, in the order given."""
    groups: dict[object, list[Scores]] = {}
    for each in scores:
        groups.setdefault(each.group, []).append(each)
    for group in groups.values():
        yield from itertools.combinations(group, 2)


def table(scores: Sequence[Scores]) -> pd.DataFrame:
    """Return the mean score of each prompt by each cell; without rows if there are none, or more than `MOST`."""
    columns = ("teacher", "metric", "solver", "nfe", "line", "prompt", "images", "mean")
    rows: list[tuple[Any, ...]] = []
    if sum(len(each.lines) for each in scores) <= MOST:
        for each in scores:
            cell = each.outcome.cell
            about = (cell.teacher.name, each.metric.name, cell.solver, cell.nfe)
            means, sizes = each.means()
            told = zip(each.lines.items(), sizes, means, strict=True)
            rows += [(*about, place, line, int(size), float(mean)) for (place, line), size, mean in told]
    return pd.DataFrame(rows, columns=list(columns))


def _extremes(a: Scores, b: Scores) -> Mapping[str, list[list[Any]]]:
    apart, lines = a.means()[0] - b.means()[0], list(a.lines.values())
    order = np.argsort(apart, kind="stable")
    up = [number for number in order[::-1][:SHOWN] if apart[number] > 0]
    down = [number for number in order[:SHOWN] if apart[number] < 0]
    return {
        name: [[lines[number], float(apart[number])] for number in chosen]
        for name, chosen in (("up", up), ("down", down))
    }


def _stored(outcome: Outcome, array: str, root: Path) -> Array | None:
    """Return the array of a finished cell's blocks, one value for each image; None if a block can't be read."""
    cell, values = outcome.cell, []
    try:
        folder = Store(root).at(cell.address)
        for block in cell.protocol.blocks:
            values.append(np.asarray(files.read_array(folder.place(block), array), dtype=np.float64))
    except (RecordError, StoreError):
        return None
    return np.concatenate(values)
