"""The work of a run: the state of each cell in the store, and the units of work for the missing blocks."""

from __future__ import annotations

import os
import socket
import time
import traceback
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from solverbench import seeds
from solverbench.bench import cells, statistics
from solverbench.bench.block import CELLS, EXACT, OWN, BlockDone
from solverbench.bench.cells import CACHED, DONE, FAILED, Cell
from solverbench.bench.measure import Measure, measure
from solverbench.bench.outcome import Outcome
from solverbench.errors import RecordError
from solverbench.method import prefixes
from solverbench.method.prefixes import Call, Tree
from solverbench.sampling import endpoints
from solverbench.sampling import exact as solutions
from solverbench.store.folder import Store
from solverbench.store.verdict import describe
from solverbench.teachers.teacher import Teacher

MEMORY = 1 << 30
"""Maximum bytes of features of a unit: those of 26 plans with blocks of 5000 images and Inception features."""

NOTED = 1.0
"""Minimum seconds between two writes of a cell's block costs; a write after each block would take the scheduler as
long as the blocks themselves."""

NEW, PARTIAL = "new", "partial"
"""Status of a cell with missing blocks: no block is stored, or some are."""


class CellProgress:
    """A cell with its stored blocks and its progress in this run.

    Args:
        claimed: files of teacher endpoints and exact solutions that earlier jobs will write; this one's are added.

    Attributes:
        calls: missing block to denoiser calls times images for its samples.
        goal_calls: missing block to denoiser calls times images for the teacher's own samples and exact solutions.
        exact_calls: the part of `goal_calls` that is for exact solutions.
        seconds: time of its blocks in this run, each counted as if computed alone.
        failed: metric name to the reason why it has no measure.
        statistics: statistics of its images, see `bench.statistics`; empty for results of an earlier version.
        origin: where it was merged from, as text; empty if it was computed in this store.
        damaged: damaged files, which are recomputed, with their errors.
        noted: time of the last write of the block costs.
        written: whether all block costs are written.
    """

    def __init__(self, cell: Cell, store: Store, claimed: set[Path]) -> None:
        self.cell = cell
        self.status, self.reason = cell.obstacle or (NEW, "")
        self.calls: dict[range, int] = {}
        self.goal_calls: dict[range, int] = {}
        self.exact_calls: dict[range, int] = {}
        self.seconds = 0.0
        self.measures: dict[str, Measure] = {}
        self.failed: dict[str, str] = {}
        self.statistics: dict[str, Any] = {}
        self.origin = ""
        self.timing: dict[str, Any] = {"attempts": [], "blocks": {}}
        self.noted, self.written = time.monotonic(), True
        self.pictures: NDArray[np.uint8] | None = None
        self.damaged: dict[Path, RecordError] = {}
        if cell.plan is None:
            return
        self.folder = store.at(cell.address)
        found = self.folder.inspect(cell.protocol.blocks)
        self.timing, self.pictures, self.damaged = found.timing, found.pictures, found.damaged
        if found.blocks:
            self.status = PARTIAL
        there = set(found.blocks)
        for block in cell.protocol.blocks:
            if block not in there:
                self.calls[block] = len(block) * cell.nfe
                self.goal_calls[block], self.exact_calls[block] = self._goal_calls(block, store.root, claimed)
        if found.metrics is not None and not self.calls:
            self._read(found.metrics)
            return
        failure = self.folder.failure()
        self.reason = f"failed before: {failure}" if failure else ""
        if self.damaged:
            self.reason = f"damaged files, computed again: {', '.join(path.name for path in self.damaged)}"

    def begin(self) -> None:
        """Write the cell's description and record an attempt."""
        self.folder.discard_damaged(self.damaged)
        self._describe()
        started = datetime.now(UTC).isoformat(timespec="seconds")
        versions = {"torch": torch.__version__, "host": socket.gethostname(), "pid": os.getpid()}
        self.timing["attempts"] = [*self.timing["attempts"], {"started": started, **versions}]

    def _describe(self) -> None:
        assert self.cell.plan is not None
        self.folder.describe(self.cell.key, self.cell.names, self.cell.plan)

    def restore(self) -> None:
        """Restore the description of a finished cell, in case it was lost."""
        if self.status == CACHED:
            self._describe()

    def add(self, block: range, done: BlockDone) -> None:
        """Store the result of a block."""
        self.folder.write_block(block, done.result)
        del self.calls[block]
        self.seconds += done.cost["seconds"]
        self.timing["blocks"][seeds.label(block)] = done.cost
        self.written = False
        if time.monotonic() - self.noted > NOTED:
            self.note()

    def note(self) -> None:
        """Write the block costs that are not written yet."""
        if not self.written:
            self.folder.write_timing(self.timing)
            self.noted, self.written = time.monotonic(), True

    def stored(self, block: range) -> bool:
        """Return whether a block is stored, by this run or another, and not known to be damaged."""
        path = self.folder.place(block)
        return self.folder.sound_block(block) if path in self.damaged else self.folder.has_block(block)

    def clear(self, block: range) -> None:
        """Set aside the damaged file of a block that is about to be recomputed; the caller holds its lease."""
        if self.folder.place(block) in self.damaged:
            self.folder.set_aside(block)

    def finish(self) -> None:
        """Compute the measures from the stored blocks and mark the cell as done."""
        self.note()
        self.timing = self.folder.timing()  # includes other runs' blocks
        blocks = [self.folder.read_block(block) for block in self.cell.protocol.blocks]
        found = measure(self.cell, blocks)
        numbers: dict[str, Any] = {"nfe": self.cell.nfe}
        numbers["measures"] = {name: each.as_dict() for name, each in found.found.items()}
        if images := statistics.summary([block.arrays for block in blocks]):
            numbers[statistics.NAME] = images
        self.folder.finish({**numbers, **({"failed": found.failed} if found.failed else {})})
        self._read(self.folder.metrics() or {})
        self.status = DONE

    def fail(self, error: BaseException) -> None:
        """Record why the cell failed; a later run tries again."""
        self.status, self.reason = FAILED, cells.reason(error)
        self.calls.clear()
        self.note()
        self.folder.fail(self.reason, "".join(traceback.format_exception(error)))

    def outcome(self) -> Outcome:
        """Return the cell's outcome."""
        if self.status not in (DONE, CACHED):
            return Outcome(self.cell, self.status, self.reason)
        pictures = self.pictures
        if pictures is None:
            pictures = self.folder.pictures(self.cell.protocol.blocks[0])
        return Outcome(
            self.cell, self.status, "", self.measures, pictures, self.timing["blocks"], self.failed,
            statistics=self.statistics, origin=self.origin,
        )  # fmt: skip

    def _read(self, stored: dict[str, Any]) -> None:
        self.status, self.reason = CACHED, ""
        self.measures = {name: Measure.from_dict(name, each) for name, each in stored["measures"].items()}
        self.failed = stored.get("failed", {})
        self.statistics = stored.get(statistics.NAME, {})
        self.origin = "; ".join(describe(each) for each in self.folder.origin())

    def _goal_calls(self, block: range, out: Path, claimed: set[Path]) -> tuple[int, int]:
        """Return the calls for the teacher's own samples and exact solutions that are neither stored nor claimed.

        Returns:
            those of both, and those of exact solutions alone.
        """
        cell, teacher, protocol = self.cell, self.cell.teacher, self.cell.protocol
        costs, exact = dict[Path, int](), set[Path]()
        if pairs := protocol.pairs(block):
            path = endpoints.location(teacher, cell.targets, pairs, out, batch=protocol.batch)
            costs[path] = len(pairs) * teacher.sampler_nfe
        if cell.exact:
            solves = protocol.solves(block)
            exact.add(path := solutions.location(teacher, solves, out))
            costs[path] = len(solves) * solutions.CALLS
        missing = {path for path in costs if path not in claimed and not path.exists()}
        claimed |= missing
        return sum(costs[path] for path in missing), sum(costs[path] for path in missing & exact)


def gather(wanted: Iterable[Cell], store: Store) -> list[CellProgress]:
    """Return the jobs of `wanted` in order; write nothing."""
    claimed: set[Path] = set()
    return [CellProgress(cell, store, claimed) for cell in wanted]


@dataclass(frozen=True, eq=False)
class Unit:
    """A unit of work: a block of several jobs of one teacher, whose shared calls are made once."""

    jobs: tuple[CellProgress, ...]
    block: range

    @property
    def teacher(self) -> Teacher:
        """The common teacher of the jobs."""
        return self.jobs[0].cell.teacher

    @cached_property
    def tree(self) -> Tree:
        """The prefix tree of the calls for one image."""
        return prefixes.grow([job.cell.plan for job in self.jobs if job.cell.plan is not None])

    @property
    def images(self) -> int:
        """Number of images, counted for each cell."""
        return len(self.jobs) * len(self.block)

    @cached_property
    def calls(self) -> int:
        """Denoiser calls times images that are made."""
        return self.tree.needed * len(self.block) + sum(job.goal_calls[self.block] for job in self.jobs)

    @property
    def phases(self) -> dict[str, int]:
        """The parts of `calls` by the names of `bench.block`: teacher's own samples, exact solutions and cells."""
        goal = sum(job.goal_calls[self.block] for job in self.jobs)
        exact = sum(job.exact_calls[self.block] for job in self.jobs)
        return {OWN: goal - exact, EXACT: exact, CELLS: self.calls - goal}

    def shares(self) -> list[float]:
        """Return each job's part of `calls`; a shared call is split equally."""
        found = [float(job.goal_calls[self.block]) for job in self.jobs]
        users = Counter[Call]()
        for end in self.tree.ends:
            users.update(dict.fromkeys(end.path, len(end.plans)))
        for end in self.tree.ends:
            for place in end.plans:
                found[place] += len(self.block) * sum(1 / users[call] for call in end.path)
        return found


def units(jobs: Iterable[CellProgress]) -> list[Unit]:
    """Return the missing blocks of `jobs` as units, in the best order.

    Cells of one teacher are grouped, as many as a unit may hold, block after block.
    """
    families: dict[tuple[int, str], list[CellProgress]] = {}
    for job in jobs:
        if job.calls:
            families.setdefault(_family(job.cell), []).append(job)
    found = []
    for family in families.values():
        protocol = family[0].cell.protocol
        plans = [job.cell.plan for job in family if job.cell.plan is not None]
        for bunch in prefixes.bunches(plans, protocol.block, samples=_samples(family[0].cell)):
            for block in protocol.blocks:
                members = tuple(family[place] for place in bunch if block in family[place].calls)
                if members:
                    found.append(Unit(members, block))
    return found


def _samples(cell: Cell) -> int | None:
    """Return how many plans' features of a block fit into `MEMORY`; None without features."""
    judged = cell.evaluation
    if judged is None:
        return None
    return max(1, MEMORY // (4 * len(judged.data.moments.mean) * cell.protocol.block))


def _family(cell: Cell) -> tuple[int, str]:
    """Return a key that is equal for cells that may share calls: same network, and no adaptor or the same spec."""
    plain = cell.adapt(cell.teacher.denoise) is cell.teacher.denoise
    return id(cell.teacher), "" if plain else cell.spec
