"""The work of a run: cells beside what the store has of them, and the units in which what is missing gets done."""

from __future__ import annotations

import os
import socket
import time
import traceback
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
from solverbench.bench import cells
from solverbench.bench.block import BlockDone
from solverbench.bench.cells import CACHED, DONE, FAILED, Cell
from solverbench.bench.measure import Measure, measure
from solverbench.bench.outcome import Outcome
from solverbench.errors import RecordError
from solverbench.method import prefixes
from solverbench.method.prefixes import Tree
from solverbench.sampling import endpoints
from solverbench.sampling import exact as solutions
from solverbench.store.folder import Store
from solverbench.teachers.teacher import Teacher

MEMORY = 1 << 30
"""Bytes of features that a unit may hold: those of 26 samples of a block of 5000 images by Inception."""

NOTED = 1.0
"""Seconds from one writing of what a cell's blocks cost to the next: after each block it would take as much of the
engine's time as the blocks themselves."""

NEW, PARTIAL = "new", "partial"
"""The status of a cell with work left: no block is stored, or some are."""


class CellProgress:
    """A cell beside what the store has of it, and what has become of it so far.

    Args:
        claimed: files of teacher endpoints and exact solutions that earlier jobs will make; this one's are added.

    Attributes:
        calls: of each missing block, denoiser calls times images that the cell asks for.
        goal_calls: of each missing block, those for what the images are compared with.
        seconds: that its blocks took in this run, each as if alone.
        failed: why a metric has no measure, by metric.
        damaged: files that are made anew.
        noted, written: when its blocks' costs were last written down, and whether all of them are.
    """

    def __init__(self, cell: Cell, store: Store, claimed: set[Path]) -> None:
        self.cell = cell
        self.status, self.reason = cell.obstacle or (NEW, "")
        self.calls: dict[range, int] = {}
        self.goal_calls: dict[range, int] = {}
        self.seconds = 0.0
        self.measures: dict[str, Measure] = {}
        self.failed: dict[str, str] = {}
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
                self.goal_calls[block] = self._goal_calls(block, store.root, claimed)
        if found.metrics is not None and not self.calls:
            self._read(found.metrics)
            return
        failure = self.folder.failure()
        self.reason = f"failed before: {failure}" if failure else ""
        if self.damaged:
            self.reason = f"damaged and made anew: {', '.join(path.name for path in self.damaged)}"

    def begin(self) -> None:
        """Write down what the cell is, and that it is attempted."""
        self.folder.mend(self.damaged)
        self._describe()
        started = datetime.now(UTC).isoformat(timespec="seconds")
        versions = {"torch": torch.__version__, "host": socket.gethostname(), "pid": os.getpid()}
        self.timing["attempts"] = [*self.timing["attempts"], {"started": started, **versions}]

    def _describe(self) -> None:
        assert self.cell.plan is not None
        self.folder.describe(self.cell.key, self.cell.names, self.cell.plan)

    def restore(self) -> None:
        """Write down what a finished cell is, if that was lost."""
        if self.status == CACHED:
            self._describe()

    def add(self, block: range, done: BlockDone) -> None:
        """Store what a block gave."""
        self.folder.write_block(block, done.result)
        del self.calls[block]
        self.seconds += done.cost["seconds"]
        self.timing["blocks"][seeds.label(block)] = done.cost
        self.written = False
        if time.monotonic() - self.noted > NOTED:
            self.note()

    def note(self) -> None:
        """Write down what its blocks cost, as far as that isn't written yet."""
        if not self.written:
            self.folder.write_timing(self.timing)
            self.noted, self.written = time.monotonic(), True

    def stored(self, block: range) -> bool:
        """Return whether a block is there, by this run or another, and sound as far as that is known."""
        path = self.folder.place(block)
        return self.folder.sound_block(block) if path in self.damaged else self.folder.has_block(block)

    def clear(self, block: range) -> None:
        """Set aside what is there of a block that is done now: a damaged one. It is under a lease."""
        if self.folder.place(block) in self.damaged:
            self.folder.set_aside(block)

    def finish(self) -> None:
        """Make the measures from the blocks, all as they are stored, which makes the cell done."""
        self.note()
        self.timing = self.folder.timing()  # with what other runs did
        found = measure(self.cell, [self.folder.read_block(block) for block in self.cell.protocol.blocks])
        numbers: dict[str, Any] = {"nfe": self.cell.nfe}
        numbers["measures"] = {name: each.as_dict() for name, each in found.found.items()}
        self.folder.finish({**numbers, **({"failed": found.failed} if found.failed else {})})
        self._read(self.folder.metrics() or {})
        self.status = DONE

    def fail(self, error: BaseException) -> None:
        """Note why the cell can't be finished now; a later run tries again."""
        self.status, self.reason = FAILED, cells.reason(error)
        self.calls.clear()
        self.note()
        self.folder.fail(self.reason, "".join(traceback.format_exception(error)))

    def outcome(self) -> Outcome:
        """Return how it ended."""
        if self.status not in (DONE, CACHED):
            return Outcome(self.cell, self.status, self.reason)
        pictures = self.pictures
        if pictures is None:
            pictures = self.folder.pictures(self.cell.protocol.blocks[0])
        return Outcome(self.cell, self.status, "", self.measures, pictures, self.timing["blocks"], self.failed)

    def _read(self, stored: dict[str, Any]) -> None:
        self.status, self.reason = CACHED, ""
        self.measures = {name: Measure.from_dict(name, each) for name, each in stored["measures"].items()}
        self.failed = stored.get("failed", {})

    def _goal_calls(self, block: range, out: Path, claimed: set[Path]) -> int:
        """Calls for what the block's images are compared with, as far as that isn't stored or claimed."""
        cell, teacher, protocol = self.cell, self.cell.teacher, self.cell.protocol
        costs: dict[Path, int] = {}
        if pairs := protocol.pairs(block):
            path = endpoints.location(teacher, cell.targets, pairs, out, batch=protocol.batch)
            costs[path] = len(pairs) * teacher.sampler_nfe
        if cell.exact:
            solves = protocol.solves(block)
            costs[solutions.location(teacher, solves, out)] = len(solves) * solutions.CALLS
        missing = {path for path in costs if path not in claimed and not path.exists()}
        claimed |= missing
        return sum(costs[path] for path in missing)


def gather(wanted: Iterable[Cell], store: Store) -> list[CellProgress]:
    """Return the jobs of `wanted` in order; nothing is written."""
    claimed: set[Path] = set()
    return [CellProgress(cell, store, claimed) for cell in wanted]


@dataclass(frozen=True, eq=False)
class Unit:
    """A block of some jobs of one teacher, done together: what they share of it is computed once."""

    jobs: tuple[CellProgress, ...]
    block: range

    @property
    def teacher(self) -> Teacher:
        """The one whose images are made."""
        return self.jobs[0].cell.teacher

    @cached_property
    def tree(self) -> Tree:
        """The calls for an image."""
        return prefixes.grow([job.cell.plan for job in self.jobs if job.cell.plan is not None])

    @property
    def images(self) -> int:
        """Images that it makes, each cell's own."""
        return len(self.jobs) * len(self.block)

    @cached_property
    def calls(self) -> int:
        """Calls times images that are needed."""
        return self.tree.needed * len(self.block) + sum(job.goal_calls[self.block] for job in self.jobs)

    def shares(self) -> list[float]:
        """Return each job's part of `calls`: of a shared call, as much as each other job that needs it."""
        found = [float(job.goal_calls[self.block]) for job in self.jobs]
        users = {call: sum(len(end.plans) for end in call.below) for end in self.tree.ends for call in end.path}
        for end in self.tree.ends:
            for place in end.plans:
                found[place] += len(self.block) * sum(1 / users[call] for call in end.path)
        return found


def units(jobs: Iterable[CellProgress]) -> list[Unit]:
    """Return the missing blocks of `jobs` in the order in which they are best done.

    Cells of one teacher stand together, as many as a unit may hold, block after block.
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
    """How many samples' features of a block fit the memory that a unit may take; None without features."""
    judged = cell.evaluation
    if judged is None:
        return None
    return max(1, MEMORY // (4 * len(judged.data.moments.mean) * cell.protocol.block))


def _family(cell: Cell) -> tuple[int, str]:
    """Cells may share calls if this is equal: the same network, met by none of their own adaptors or the same one."""
    plain = cell.adapt(cell.teacher.denoise) is cell.teacher.denoise
    return id(cell.teacher), "" if plain else cell.spec
