"""The engine: the units of a run are given to workers, and what they give goes to the store from one thread."""

from __future__ import annotations

import queue
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from contextlib import suppress
from functools import partial

from solverbench import seeds
from solverbench.bench import estimates
from solverbench.bench.block import BlockDone, UnitTask
from solverbench.bench.cells import FAILED
from solverbench.bench.outcome import Outcome
from solverbench.bench.progress import Listener
from solverbench.bench.work import NEW, PARTIAL, CellProgress, Unit, units
from solverbench.bench.workers.local import Workers
from solverbench.errors import RecordError, StoreError, UserError
from solverbench.sampling.devices import pool
from solverbench.sampling.sample import Cancel, Cancelled
from solverbench.store import leases
from solverbench.store.folder import Store
from solverbench.store.leases import Leases
from solverbench.store.queue import Others, Queue
from solverbench.store.shared import anew

FATAL = (StoreError, RecordError)
"""What ends the run, as every other cell would meet it too."""

TICK = 0.2
"""Seconds between two looks at what workers say of their progress."""


class Ledger:
    """What has become of each unit: results go to the store, progress to who listens, from one thread alone.

    Args:
        jobs: all of the run.
        workers: how many will do them, for an estimate of the time.
        limit: seconds that a cell may take in this run; None for as long as it needs.
    """

    def __init__(self, jobs: Sequence[CellProgress], tell: Listener, workers: int, limit: float | None = None) -> None:
        self.tell, self.limit = tell, limit
        waiting = [job for job in jobs if job.status in (NEW, PARTIAL)]
        self.units = units(waiting)
        self.left = {unit: [unit.images, unit.calls] for unit in self.units}
        self.begun: set[CellProgress] = set()
        images, calls = sum(unit.images for unit in self.units), sum(unit.calls for unit in self.units)
        tell.begin(images, calls, estimates.expected(self.units, jobs, workers))
        for job in jobs:
            for error in job.damaged.values():
                tell.note(anew(error))
            if job not in waiting:
                job.restore()
                self._settle(job)
            elif not job.calls:
                self._begin(job)
                self._conclude(job)

    def queue(self, mine: Leases) -> Queue[Unit, tuple[CellProgress, range]]:
        """Return the units, of which other runs on this store may have or take some."""

        def pieces(unit: Unit) -> list[tuple[CellProgress, range]]:
            return [(job, unit.block) for job in unit.jobs if unit.block in job.calls]

        def name(piece: tuple[CellProgress, range]) -> str:
            return f"{piece[0].folder.address}-{seeds.label(piece[1])}"

        return Queue(mine, self.units, pieces, name, lambda piece: piece[0].stored(piece[1]))

    def opened(self, unit: Unit, pieces: Sequence[tuple[CellProgress, range]]) -> Unit | None:
        """Return what is to be done of a unit now; None if nothing is, as its cells have failed meanwhile."""
        left = tuple(job for job, _ in pieces if job.status != FAILED)
        for job in left:
            self._begin(job)
            job.clear(unit.block)
        if not left:
            self._closed(unit)
            return None
        return Unit(left, unit.block)

    def limits(self, unit: Unit) -> list[float]:
        """Return the seconds that each of its cells may still take; none if they may take as long as they need."""
        return [] if self.limit is None else [self.limit - job.seconds for job in unit.jobs]

    def advance(self, unit: Unit, job: CellProgress, images: int, calls: int) -> None:
        """Pass on that a worker has made so much of a unit."""
        left = self.left[unit]
        images, calls = min(images, left[0]), min(calls, left[1])
        left[0] -= images
        left[1] -= calls
        self.tell.advance(str(job.cell), images, calls)

    def close(self, unit: Unit, members: Unit, found: Sequence[BlockDone | Exception] | BaseException) -> None:
        """Take in what a worker made of a unit, or its error.

        Args:
            members: as `opened` gave it.

        Raises:
            StoreError, RecordError: no cell could be stored.
        """
        if isinstance(found, FATAL):
            raise found
        if isinstance(found, Cancelled):
            return
        each = [found] * len(members.jobs) if isinstance(found, BaseException) else found
        for job, done in zip(members.jobs, each, strict=True):
            if job.status == FAILED or unit.block not in job.calls:
                continue
            if isinstance(done, BlockDone):
                job.add(unit.block, done)
                if not job.calls:
                    self._conclude(job)
            else:
                job.fail(done)
                self._settle(job)
        self._closed(unit)

    def came(self, unit: Unit, job: CellProgress) -> None:
        """Take in what another run did."""
        if job.calls.pop(unit.block, None) is not None and not job.calls:
            self._begin(job)
            self._conclude(job)
        self._closed(unit)

    def _closed(self, unit: Unit) -> None:
        """Once nothing is left to do of a unit, what nobody said of it, as of a cell that failed, counts as gone."""
        if any(unit.block in job.calls for job in unit.jobs):
            return
        if any(self.left[unit]):
            self.advance(unit, unit.jobs[-1], *self.left[unit])

    def _begin(self, job: CellProgress) -> None:
        if job not in self.begun:
            self.begun.add(job)
            job.begin()

    def _conclude(self, job: CellProgress) -> None:
        try:
            job.finish()
        except FATAL:
            raise
        except Exception as error:  # a reference that doesn't fit the features, for one
            job.fail(error)
        self._settle(job)

    def _settle(self, job: CellProgress) -> None:
        outcome = Outcome(job.cell, job.status, job.reason, job.measures, failed=job.failed)
        self.tell.settle(str(job.cell), job.status, outcome.summary)


def finish(
    jobs: Sequence[CellProgress], store: Store, workers: Workers, tell: Listener, limit: float | None = None
) -> list[Outcome]:
    """Finish all jobs; return their outcomes in order. What another run does is left to it.

    Args:
        workers: who does the work; entered already.
        limit: seconds that a cell may take in this run; None for as long as it needs.
    """
    ledger, stop = Ledger(jobs, tell, workers.size, limit), Cancel()
    said: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()  # by workers, to be done by this thread
    pending: dict[Future[list[BlockDone | Exception]], tuple[Unit, Unit, list[tuple[CellProgress, range]]]] = {}

    def say(unit: Unit, members: Unit, place: int, images: int, calls: int) -> None:
        said.put(partial(ledger.advance, unit, members.jobs[place], images, calls))

    def note(line: str) -> None:
        said.put(partial(tell.note, line))

    def work(unit: Unit, members: Unit) -> UnitTask:
        cells = [job.cell for job in members.jobs]
        return UnitTask(cells, unit.block, store.root, stop, ledger.limits(members), partial(say, unit, members), note)

    with leases.opened(store.root) as mine, pool(workers.size) as threads:
        todo, others = ledger.queue(mine), Others(tell.note)
        try:
            while True:
                while len(pending) < 2 * workers.size and (given := todo.next()) is not None:
                    unit, pieces = given
                    if (members := ledger.opened(unit, pieces)) is None:
                        todo.release(pieces)
                    else:
                        pending[threads.submit(workers.run, work(unit, members))] = unit, members, pieces
                for unit, (job, _) in todo.come():
                    ledger.came(unit, job)
                if not pending and not todo.waiting:
                    break
                if not pending:
                    others.wait(todo)
                    continue
                finished = wait(pending, timeout=TICK, return_when=FIRST_COMPLETED).done
                while not said.empty():
                    said.get()()
                for future in finished:
                    unit, members, pieces = pending.pop(future)
                    error = future.exception()
                    ledger.close(unit, members, future.result() if error is None else error)
                    todo.release(pieces)
        except BaseException:
            stop.set()
            for job in jobs:
                with suppress(UserError):  # the disk may be full: that was the error
                    job.note()
            raise
    return [job.outcome() for job in jobs]
