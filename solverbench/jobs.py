"""The work of a run: cells beside what the store has of them, their missing blocks done by a few workers."""

from __future__ import annotations

import os
import socket
import traceback
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from solverbench import cells, leases, sampling, seeds, solutions, targets
from solverbench.cells import CACHED, DONE, FAILED, Cell
from solverbench.errors import RecordError, StoreError
from solverbench.evaluate import Work
from solverbench.keeping import anew
from solverbench.measures import Measure, measure
from solverbench.outcome import Outcome
from solverbench.progress import Listener
from solverbench.sampling import Stop, Stopped
from solverbench.store import Store

FATAL = (StoreError, RecordError)
"""What ends the run, as every other cell would meet it too."""

NEW, PARTIAL = "new", "partial"
"""The status of a cell with work left: no block is stored, or some are."""


class Job:
    """A cell beside what the store has of it, and what has become of it so far.

    Args:
        claimed: files of teacher endpoints and exact solutions that earlier jobs will make; this one's are added.
    """

    def __init__(self, cell: Cell, store: Store, claimed: set[Path]) -> None:
        self.cell = cell
        self.status, self.reason = cell.obstacle or (NEW, "")
        self.calls: dict[range, int] = {}
        self.measures: dict[str, Measure] = {}
        self.timing: dict[str, Any] = {"attempts": [], "blocks": {}}
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
                self.calls[block] = len(block) * cell.nfe + self._goal_calls(block, store.root, claimed)
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
        self.folder.describe(self.cell.key, self.cell.names)
        started = datetime.now(UTC).isoformat(timespec="seconds")
        versions = {"torch": torch.__version__, "host": socket.gethostname(), "pid": os.getpid()}
        self.timing["attempts"] = [*self.timing["attempts"], {"started": started, **versions}]

    def add(self, block: range, cost: dict[str, Any]) -> None:
        """Note a block that was stored; the last one makes the measures."""
        del self.calls[block]
        self.timing["blocks"][seeds.label(block)] = cost
        self.folder.write_timing(self.timing)

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
        self.timing = self.folder.timing()  # with what other runs did
        found = measure(self.cell, [self.folder.read_block(block) for block in self.cell.protocol.blocks])
        self.folder.finish({"nfe": self.cell.nfe, "measures": {name: m.as_dict() for name, m in found.items()}})
        self._read(self.folder.metrics() or {})
        self.status = DONE

    def fail(self, error: BaseException) -> None:
        """Note why the cell can't be finished now; a later run tries again."""
        self.status, self.reason = FAILED, cells.reason(error)
        self.folder.fail(self.reason, "".join(traceback.format_exception(error)))

    def outcome(self) -> Outcome:
        """Return how it ended."""
        if self.status not in (DONE, CACHED):
            return Outcome(self.cell, self.status, self.reason)
        pictures = self.pictures
        if pictures is None:
            pictures = self.folder.pictures(self.cell.protocol.blocks[0])
        return Outcome(self.cell, self.status, "", self.measures, pictures, self.timing["blocks"])

    def _read(self, stored: dict[str, Any]) -> None:
        self.status, self.reason = CACHED, ""
        self.measures = {name: Measure.from_dict(name, each) for name, each in stored["measures"].items()}

    def _goal_calls(self, block: range, out: Path, claimed: set[Path]) -> int:
        """Calls for what the block's images are compared with, as far as that isn't stored or claimed."""
        cell, teacher, protocol = self.cell, self.cell.teacher, self.cell.protocol
        costs: dict[Path, int] = {}
        if pairs := protocol.pairs(block):
            path = targets.location(teacher, cell.targets, pairs, out, batch=protocol.batch)
            costs[path] = len(pairs) * teacher.sampler_nfe
        if cell.exact:
            solves = protocol.solves(block)
            costs[solutions.location(teacher, solves, out)] = len(solves) * solutions.CALLS
        missing = {path for path in costs if path not in claimed and not path.exists()}
        claimed |= missing
        return sum(costs[path] for path in missing)


def gather(wanted: Iterable[Cell], store: Store) -> list[Job]:
    """Return the jobs of `wanted` in order; nothing is written."""
    claimed: set[Path] = set()
    return [Job(cell, store, claimed) for cell in wanted]


def finish(jobs: Sequence[Job], store: Store, count: int, tell: Listener) -> list[Outcome]:
    """Finish all jobs, cell by cell; return their outcomes in order. What another run does is left to it."""
    stop = Stop()
    waiting = [job for job in jobs if job.status in (NEW, PARTIAL)]
    images = sum(len(block) for job in waiting for block in job.calls)
    tell.begin(images, sum(sum(job.calls.values()) for job in waiting))
    for job in jobs:
        for error in job.damaged.values():
            tell.note(anew(error))
        if job not in waiting:
            _settle(job, tell)
    with leases.opened(store.root) as mine, sampling.pool(count) as threads:
        pending: dict[Future[dict[str, Any]], tuple[Job, range]] = {}
        queue = leases.Queue(mine, _units(waiting, tell), _name, lambda unit: unit[0].stored(unit[1]))
        others = leases.Others(tell.note)
        try:
            while True:
                while len(pending) < 2 * count and (unit := queue.next()) is not None:
                    job, block = unit
                    if job.status == FAILED:
                        queue.release(unit)
                        continue
                    job.clear(block)
                    work = Work(job.cell, job.folder, block, store.root, stop)
                    pending[threads.submit(work)] = unit
                for job, block in queue.come():
                    _took(job, block, tell)
                if not pending:
                    if not queue.waiting:
                        break
                    others.wait(queue)
                    continue
                limit = leases.POLL if queue.waiting else None
                for future in wait(pending, limit, return_when=FIRST_COMPLETED).done:
                    unit = pending.pop(future)
                    queue.release(unit)
                    _collect(*unit, future, tell)
        except BaseException:
            stop.set()
            raise
    return [job.outcome() for job in jobs]


def _name(unit: tuple[Job, range]) -> str:
    """A block of a cell as a lease is named."""
    return f"{unit[0].folder.address}-{seeds.label(unit[1])}"


def _units(waiting: Iterable[Job], tell: Listener) -> Iterator[tuple[Job, range]]:
    """The blocks to do, cell after cell; those of a cell that has failed meanwhile are left out."""
    for job in waiting:
        job.begin()
        if not job.calls:
            _conclude(job, tell)
        for block in list(job.calls):
            if job.status == FAILED:
                break
            yield job, block


def _collect(job: Job, block: range, future: Future[dict[str, Any]], tell: Listener) -> None:
    """Take in what a worker did."""
    error = future.exception()
    if isinstance(error, FATAL):
        raise error
    if error is not None and not isinstance(error, Stopped) and job.status != FAILED:
        job.fail(error)
        _settle(job, tell)
        # What is left of the cell is dropped, so that the pace counts it as gone.
        tell.advance(str(job.cell), sum(map(len, job.calls)), sum(job.calls.values()))
        job.calls.clear()
    if error is None and block in job.calls:
        for line in future.result().get("remade", ()):
            tell.note(line)
        tell.advance(str(job.cell), len(block), job.calls[block])
        job.add(block, future.result())
        if not job.calls:
            _conclude(job, tell)


def _took(job: Job, block: range, tell: Listener) -> None:
    """Take in what another run did."""
    if block in job.calls:
        tell.advance(str(job.cell), len(block), job.calls.pop(block))
        if not job.calls:
            _conclude(job, tell)


def _conclude(job: Job, tell: Listener) -> None:
    try:
        job.finish()
    except FATAL:
        raise
    except Exception as error:  # a reference that doesn't fit the features, for one
        job.fail(error)
    _settle(job, tell)


def _settle(job: Job, tell: Listener) -> None:
    tell.settle(str(job.cell), job.status, Outcome(job.cell, job.status, job.reason, job.measures).summary)
