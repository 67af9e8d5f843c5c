"""The local engine: the units of a run, done by threads of this process."""

from __future__ import annotations

import queue
from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from functools import partial

from solverbench import estimates, sampling
from solverbench.cells import FAILED
from solverbench.errors import RecordError, StoreError
from solverbench.evaluate import Done, Work
from solverbench.jobs import NEW, PARTIAL, Job, Unit, units
from solverbench.outcome import Outcome
from solverbench.progress import Listener
from solverbench.sampling import Stop, Stopped
from solverbench.store import Store

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

    def __init__(self, jobs: Sequence[Job], tell: Listener, workers: int, limit: float | None = None) -> None:
        self.tell, self.limit = tell, limit
        waiting = [job for job in jobs if job.status in (NEW, PARTIAL)]
        self.units = units(waiting)
        self.left = {unit: [unit.images, unit.calls] for unit in self.units}
        self.begun: set[Job] = set()
        images, calls = sum(unit.images for unit in self.units), sum(unit.calls for unit in self.units)
        tell.begin(images, calls, estimates.expected(self.units, jobs, workers))
        for job in jobs:
            if job not in waiting:
                self._settle(job)
            elif not job.calls:
                self._begin(job)
                self._conclude(job)

    def opened(self, unit: Unit) -> Unit | None:
        """Return what is left to do of a unit, which begins now; None if nothing is."""
        left = unit.without_failed()
        for job in left.jobs:
            self._begin(job)
        if not left.jobs:
            self._closed(unit)
        return left if left.jobs else None

    def limits(self, unit: Unit) -> list[float]:
        """Return the seconds that each of its cells may still take."""
        return [] if self.limit is None else [self.limit - job.seconds for job in unit.jobs]

    def advance(self, unit: Unit, job: Job, images: int, calls: int) -> None:
        """Pass on that a worker has made so much of a unit."""
        left = self.left[unit]
        images, calls = min(images, left[0]), min(calls, left[1])
        left[0] -= images
        left[1] -= calls
        self.tell.advance(str(job.cell), images, calls)

    def close(self, unit: Unit, members: Unit, found: Sequence[Done | Exception] | BaseException) -> None:
        """Take in what a worker made of a unit, or its error.

        Args:
            members: as `opened` gave it.

        Raises:
            StoreError, RecordError: no cell could be stored.
        """
        if isinstance(found, FATAL):
            raise found
        if isinstance(found, Stopped):
            return
        each = [found] * len(members.jobs) if isinstance(found, BaseException) else found
        for job, done in zip(members.jobs, each, strict=True):
            if job.status == FAILED or unit.block not in job.calls:
                continue
            if isinstance(done, Done):
                job.add(unit.block, done)
                if not job.calls:
                    self._conclude(job)
            else:
                job.fail(done)
                self._settle(job)
        self._closed(unit)

    def _closed(self, unit: Unit) -> None:
        """What nobody said of it, such as of a cell that failed, counts as gone."""
        if any(self.left[unit]):
            self.advance(unit, unit.jobs[-1], *self.left[unit])

    def _begin(self, job: Job) -> None:
        if job not in self.begun:
            self.begun.add(job)
            job.begin()

    def _conclude(self, job: Job) -> None:
        try:
            job.finish()
        except FATAL:
            raise
        except Exception as error:  # a reference that doesn't fit the features, for one
            job.fail(error)
        self._settle(job)

    def _settle(self, job: Job) -> None:
        outcome = Outcome(job.cell, job.status, job.reason, job.measures)
        self.tell.settle(str(job.cell), job.status, outcome.summary)


def finish(
    jobs: Sequence[Job], store: Store, workers: int, tell: Listener, limit: float | None = None
) -> list[Outcome]:
    """Finish all jobs; return their outcomes in order.

    Args:
        workers: threads.
        limit: seconds that a cell may take in this run; None for as long as it needs.
    """
    ledger, stop = Ledger(jobs, tell, workers, limit), Stop()
    said: queue.SimpleQueue[tuple[Unit, Job, int, int]] = queue.SimpleQueue()
    todo = iter(ledger.units)

    def say(unit: Unit, members: Unit, place: int, images: int, calls: int) -> None:
        said.put((unit, members.jobs[place], images, calls))

    with sampling.pool(workers) as threads:
        pending: dict[Future[list[Done | Exception]], tuple[Unit, Unit]] = {}
        try:
            for unit in todo:
                if (members := ledger.opened(unit)) is not None:
                    cells = [job.cell for job in members.jobs]
                    told = partial(say, unit, members)
                    work = Work(cells, unit.block, store.root, stop, ledger.limits(members), told)
                    pending[threads.submit(work)] = unit, members
                while len(pending) >= 2 * workers:
                    _take(pending, said, ledger)
            while pending:
                _take(pending, said, ledger)
        except BaseException:
            stop.set()
            raise
    return [job.outcome() for job in jobs]


def _take(
    pending: dict[Future[list[Done | Exception]], tuple[Unit, Unit]],
    said: queue.SimpleQueue[tuple[Unit, Job, int, int]],
    ledger: Ledger,
) -> None:
    """Wait a little; pass on what workers said and take in what they finished."""
    finished = wait(pending, timeout=TICK, return_when=FIRST_COMPLETED).done
    while not said.empty():
        ledger.advance(*said.get())
    for future in finished:
        error = future.exception()
        ledger.close(*pending.pop(future), future.result() if error is None else error)
