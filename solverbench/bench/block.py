"""One seed block of several cells: sample the images, measure them and reduce them to what the store keeps."""

from __future__ import annotations

import socket
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from solverbench import seeds
from solverbench.bench import cells, statistics
from solverbench.bench.cells import Cell
from solverbench.method import prefixes
from solverbench.method.prefixes import Call, End
from solverbench.metrics.frechet import Moments
from solverbench.metrics.quantise import quantise
from solverbench.metrics.table import MetricDefinition, Takes
from solverbench.sampling import endpoints, energy
from solverbench.sampling import exact as solutions
from solverbench.sampling.devices import device_name, peak_memory
from solverbench.sampling.sample import BatchLimit, Cancel, Cancelled, SampleError, batches, decoded, samples
from solverbench.sampling.stopwatch import Stopwatch
from solverbench.store.folder import BlockResult

OWN, EXACT, CELLS = "own", "exact", "cells"
"""Kinds of a unit's work: the teacher's own samples, exact solutions, the images of cells."""

PICTURES = 8
"""Number of images kept from the first block of a cell, for the image strips of a report."""


@dataclass(frozen=True)
class BlockDone:
    """The result of a block of a cell, and its cost."""

    result: BlockResult
    cost: dict[str, Any]


@dataclass(frozen=True)
class UnitTask:
    """A block of several cells of one teacher, as a unit of work; calls that cells share are made once.

    Args:
        cells: cells with a plan, all of the same teacher, protocol and `adapt`.
        block: image seeds.
        out: results folder, for the teacher's endpoints and the exact solutions.
        stop: checked before every batch and after every sample of it.
        limits: time limit of each cell, in seconds; empty for no limit.
        told: progress callback: (cell index, images done, new denoiser calls x images, kind of work, seconds it took).
        say: callback for a human-readable line, such as a note on a damaged file that is recomputed.
    """

    cells: Sequence[Cell]
    block: range
    out: Path
    stop: Cancel
    limits: Sequence[float] = ()
    told: Callable[[int, int, int, str, float], None] = lambda place, images, calls, kind, seconds: None
    say: Callable[[str], None] = lambda line: None

    def __call__(self) -> list[BlockDone | Exception]:
        """Return the result of each cell, or its error.

        Raises:
            SampleError: the teacher's own samples or the exact solutions can't be computed.
            StoreError, RecordError: the store can't be used.
            Cancelled: the run is ending.
        """
        cell, batch = self.cells[0], self.cells[0].protocol.batch
        pairs, solves = cell.protocol.pairs(self.block), cell.protocol.solves(self.block)
        goal = exact = None

        lap = Lap(time.perf_counter)

        def told(kind: str, calls: int) -> None:
            self.told(0, 0, calls, kind, lap())

        shared: dict[str, Any] = {"stop": self.stop, "say": self.say}
        if pairs:
            tell = partial(told, OWN)
            goal = endpoints.piece(cell.teacher, cell.targets, pairs, self.out, batch=batch, told=tell, **shared)
        if cell.exact:
            exact = solutions.piece(cell.teacher, solves, self.out, told=partial(told, EXACT), **shared)
        return _UnitRun(self, {Takes.PAIR: goal, Takes.EXACT: exact}).results()


@dataclass
class _Sums:
    """Results of one plan's images, collected batch by batch.

    Args:
        features: feature vectors [B, D] of each batch.
        pictures: uint8 images for the report.
        arrays: array name to the per-image values of each batch.
        failed: array name to the reason why it can't be computed.
        statistics: rows of `statistics.ROWS` of each batch.
        seconds: time spent on the images after their last denoiser call.
    """

    features: list[Tensor] = field(default_factory=list)
    pictures: list[Tensor] = field(default_factory=list)
    arrays: defaultdict[str, list[NDArray[Any]]] = field(default_factory=lambda: defaultdict(list))
    failed: dict[str, str] = field(default_factory=dict)
    statistics: list[list[NDArray[np.float64]]] = field(default_factory=list)
    seconds: float = 0.0


@dataclass
class Lap:
    """A stopwatch of one worker that is read at each of its events.

    Args:
        clock: seconds.
    """

    clock: Callable[[], float]
    last: float = field(init=False)

    def __post_init__(self) -> None:
        self.last = self.clock()

    def __call__(self) -> float:
        """Return the seconds since the last call, or since the beginning."""
        before, self.last = self.last, self.clock()
        return self.last - before


class _UnitRun:
    """A unit of work in progress.

    Args:
        goals: states that the first images are compared with: final states [p, *shape] of the teacher's own sampler,
            and exact solutions; or None.
    """

    def __init__(self, work: UnitTask, goals: dict[Takes, Tensor | None]) -> None:
        self.work, self.goals = work, goals
        self.cell, self.teacher = work.cells[0], work.cells[0].teacher
        self.judged, self.rule = self.cell.evaluation, self.cell.measurement.quantiser
        self.scored = [each for each in self.cell.metrics if each.score is not None]
        device = self.teacher.device
        self.networks = {each.name: each.network(device) for each in self.scored if each.network is not None}
        self.tree = prefixes.grow([cell.plan for cell in work.cells if cell.plan is not None])
        self.sums = {end: _Sums() for end in self.tree.ends}
        self.failed: dict[int, Exception] = {}
        self.lap = Lap(time.perf_counter)
        self.fit, self.watch = BatchLimit(self.cell.protocol.batch), Stopwatch(self.teacher.device)
        self.starting = 0.0
        self.made: set[Call] = set()
        self.near: dict[Takes, Tensor] = {}
        self.own: dict[int, NDArray[np.float64]] = {}

    def results(self) -> list[BlockDone | Exception]:
        """Compute the block; return the result of each cell, or its error."""
        drawn, begun = energy.joules(self.teacher.device), time.perf_counter()
        for part in batches(self.work.block, self.cell.protocol.batch):
            self.work.stop.check()
            self.made, self.near = set(), {}
            for end, found in samples(self.tree, self.teacher, part, self._start, self._wanted, self.fit):
                self.work.stop.check()
                self._take(end, found, part)
        whole = time.perf_counter() - begun
        now = energy.joules(self.teacher.device)
        joules = now - drawn if drawn is not None and now is not None else None
        return [self.failed.get(place) or self._done(place, whole, joules) for place in range(len(self.work.cells))]

    def _start(self, part: range) -> tuple[Callable[[Call, Tensor, Tensor], Tensor], Tensor]:
        begun = time.perf_counter()
        adapted = self.cell.adapt(self.watch.watched(self.teacher.denoiser(part)))
        noise = seeds.noise(part, self.teacher.shape, self.teacher.device)
        self.starting += time.perf_counter() - begun

        def denoise(call: Call, x: Tensor, sigma: Tensor) -> Tensor:
            self.watch.now = call
            return adapted(x, sigma)

        return denoise, noise

    def _wanted(self, end: End) -> bool:
        return any(place not in self.failed for place in end.plans)

    def _take(self, end: End, found: Tensor | Exception, part: range) -> None:
        """Measure a batch of final states, or record its error."""
        begun = time.perf_counter()
        try:
            if isinstance(found, Exception):
                raise found
            self._judge(self.sums[end], found, part)
        except Cancelled:
            raise
        except Exception as error:  # an extractor may raise anything
            self.failed |= dict.fromkeys(end.plans, error)
            return
        self.sums[end].seconds += time.perf_counter() - begun
        for place in end.plans:
            if self.work.limits and (spent := self._spent(end)) > self.work.limits[place]:
                done = part.stop - self.work.block.start
                self.failed[place] = SampleError(
                    asked=f"seeds {part.start}-{part[-1]}",
                    wrong=(
                        f"took longer than the time limit of a cell ({spent:.3g} s for {done} of a block's "
                        f"{len(self.work.block)} images, where {self.work.limits[place]:.3g} s were left)"
                    ),
                    remedy="raise --timeout-cell, or ask for fewer samples",
                )
            new = 0 if place != end.plans[0] else sum(call not in self.made for call in end.path)
            self.work.told(place, len(part), new * len(part), CELLS, self.lap())
        self.made |= set(end.path)

    def _judge(self, sums: _Sums, states: Tensor, part: range) -> None:
        images = decoded(self.teacher, states, self.fit)
        levels = quantise(images, self.rule)
        done = part.start - self.work.block.start
        first = self.work.block.start == self.cell.protocol.seeds.start
        sums.statistics.append(self._statistics(states, levels, part))
        sums.pictures.append(levels[: PICTURES - done if first and done < PICTURES else 0].cpu())
        for metric in (each for each in self.scored if each.array not in sums.failed):
            with _blamed(sums, metric.array, metric.network is not None):
                found = self._score(metric, images, levels, part)
                sums.arrays[metric.array] += [] if found is None else [found]
        if self.judged is not None and "features" not in sums.failed:
            with _blamed(sums, "features"):
                sums.features.append(_features(self.judged.extractor(levels), part))

    def _statistics(self, states: Tensor, levels: Tensor, part: range) -> list[NDArray[np.float64]]:
        """Return the rows of `statistics.ROWS` of a batch."""
        whole, goal = statistics.row(states, levels), self.goals[Takes.PAIR]
        done = part.start - self.work.block.start
        near = self._near(Takes.PAIR, part)
        if goal is None or near is None:
            return [whole, statistics.nothing(), statistics.nothing()]
        count = len(near)
        if done not in self.own:
            own = goal[done : done + count]
            self.own[done] = statistics.row(own, quantise(near, self.rule).to(own.device))
        mine = whole if count == len(part) else statistics.row(states[:count], levels[:count])
        return [whole, mine, self.own[done]]

    def _score(self, metric: MetricDefinition, images: Tensor, levels: Tensor, part: range) -> NDArray[Any] | None:
        """Return the metric's value of each image of a batch; None if it doesn't apply to them."""
        others: Any = None
        if metric.takes in self.goals:
            if (others := self._near(metric.takes, part)) is None:
                return None
            images = images[: len(others)]
        elif metric.takes is Takes.PROMPT:
            assert self.teacher.condition is not None
            others = self.teacher.condition.lines(part)
        assert metric.score is not None
        found = metric.score(self.networks.get(metric.name), images if metric.takes in self.goals else levels, others)
        if metric.network is not None and not found.isfinite().all():
            raise SampleError(
                asked=f"metric {metric.name}",
                wrong=f"returned values that are not finite, within seeds {part.start}-{part[-1]}",
                remedy="correct it, or leave it out",
            )
        return np.asarray((found if found.dim() > 1 else found.double()).detach().cpu().numpy())

    def _near(self, name: Takes, part: range) -> Tensor | None:
        """Return the images to compare `part` with; fewer, or None, at the end of the block's comparison images."""
        goal, done = self.goals[name], part.start - self.work.block.start
        if goal is None or done >= len(goal):
            return None
        if name not in self.near:
            near = decoded(self.teacher, goal[done : done + len(part)], self.fit)
            self.near[name] = near.to(self.teacher.device)
        return self.near[name]

    def _spent(self, end: End) -> float:
        """Return the seconds that this plan would have taken alone, without combining states."""
        calls = self.watch.parts
        return self.starting + sum(calls.get(call, 0.0) for call in end.path) + self.sums[end].seconds

    def _arrays(self, sums: _Sums, features: NDArray[np.float32] | None) -> dict[str, NDArray[Any]]:
        """Return the per-image arrays by name, in the order of the file."""
        found: dict[str, NDArray[Any]] = {}
        for metric in self.cell.metrics:
            if metric.takes is Takes.FEATURES:
                found |= {} if features is None else {metric.array: features}
            elif metric.score is not None and metric.array not in sums.failed:
                parts = sums.arrays[metric.array]
                with _blamed(sums, metric.array, metric.network is not None):  # a plugin's batches may differ in shape
                    found[metric.array] = np.concatenate(parts) if parts else np.empty(0)
        return found

    def _done(self, place: int, whole: float, joules: float | None) -> BlockDone:
        [end] = [end for end in self.sums if place in end.plans]
        sums, nfe = self.sums[end], len(end.path)
        rows = [statistics.joined(each) for each in zip(*sums.statistics, strict=True)]
        features = torch.cat(sums.features) if sums.features and "features" not in sums.failed else None
        kept = self.judged is not None and self.judged.rows
        result = BlockResult(
            Moments.of(features) if features is not None and not kept else None,
            nfe,
            torch.cat(sums.pictures).numpy(),
            self._arrays(sums, features.float().numpy() if features is not None and kept else None)
            | {statistics.NAME: np.stack(rows)},
            sums.failed,
        )
        known = self.starting + self.watch.seconds + sum(each.seconds for each in self.sums.values())
        combining = max(whole - known, 0.0) / (self.tree.needed + len(self.sums))
        seconds = self._spent(end) + combining * (nfe + 1)
        cost = {
            "seconds": seconds,
            "denoiser_seconds": sum(self.watch.parts.get(call, 0.0) for call in end.path),
            "images": len(self.work.block),
            "shared_calls": sum(sum(len(each.plans) for each in call.below) > 1 for call in end.path),
            "peak_memory_bytes": peak_memory(self.teacher.device),
            "batch": min(self.fit.most, len(self.work.block)),
            "host": socket.gethostname(),
            "device": device_name(self.teacher.device),
            **({} if joules is None else {"joules": joules * seconds / whole}),
        }
        return BlockDone(result, cost)


@contextmanager
def _blamed(sums: _Sums, array: str, broken: bool = True) -> Iterator[None]:
    """Record the error of a metric's array, so that it is skipped from then on; the other metrics continue.

    Args:
        array: name of the array.
        broken: whether only the array fails, as for networks and plugins; otherwise the cell fails.
    """
    try:
        yield
    except Cancelled:
        raise
    except (Exception, SystemExit) as error:  # an extractor or a plugin may raise anything
        if not broken:
            raise
        sums.failed.setdefault(array, cells.reason(error))


def _features(rows: Tensor, part: range) -> Tensor:
    if rows.shape[0] != len(part) or rows.dim() != 2:
        raise SampleError(
            asked="extractor", wrong=f"returned {tuple(rows.shape)} for {len(part)} images", remedy="return [B, D]"
        )
    if not rows.isfinite().all():
        raise SampleError(
            asked="extractor",
            wrong=f"returned features that are not finite, within seeds {part.start}-{part[-1]}",
            remedy="correct it, or use another one",
        )
    return rows.cpu()
