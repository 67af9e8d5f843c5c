"""The scheduler: submit the units of a run to workers, and store their results from one thread."""

from __future__ import annotations

import queue
import time
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Any

from solverbench import seeds
from solverbench.bench import estimates
from solverbench.bench.block import CELLS, EXACT, BlockDone, UnitTask
from solverbench.bench.cells import FAILED
from solverbench.bench.estimates import Forecast, Phase
from solverbench.bench.outcome import Outcome
from solverbench.bench.progress import Listener
from solverbench.bench.reference import References, ReferenceTask
from solverbench.bench.work import NEW, PARTIAL, CellProgress, Unit, units
from solverbench.bench.workers.local import Workers
from solverbench.errors import RecordError, StoreError, UserError
from solverbench.sampling.devices import pool
from solverbench.sampling.sample import Cancel, Cancelled
from solverbench.store import leases
from solverbench.store.folder import Store
from solverbench.store.leases import Leases
from solverbench.store.queue import Others, Queue
from solverbench.store.shared import remade

FATAL = (StoreError, RecordError)
"""Errors that end the run, as every other cell would raise them too."""

TICK = 0.2
"""Seconds between two polls of the workers' progress."""


class Ledger:
    """The state of each unit; writes results to the store and reports progress, from one thread.

    Args:
        jobs: all jobs of the run.
        tell: listener for progress.
        workers: number of workers, for the time estimate.
        limit: time limit of a cell in this run, in seconds; None for no limit.
        references: the references of the cells, whose errors are measured first.
    """

    def __init__(
        self,
        jobs: Sequence[CellProgress],
        tell: Listener,
        workers: int,
        limit: float | None = None,
        references: References | None = None,
    ) -> None:
        self.tell, self.limit, self.references = tell, limit, references or References()
        waiting = [job for job in jobs if job.status in (NEW, PARTIAL)]
        self.units = units(waiting)
        self.left = {unit: [unit.images, unit.calls] for unit in self.units}
        self.begun: set[CellProgress] = set()
        images, calls = sum(unit.images for unit in self.units), sum(unit.calls for unit in self.units)
        calls += self.references.calls
        self.forecast = _forecast(self.units, jobs, workers, self.references)
        tell.begin(images, calls, self.forecast.left)
        shares = Counter[str]()
        for unit in self.units:
            shares.update({str(job.cell): len(unit.block) for job in unit.jobs})
        tell.share(shares)
        for job in jobs:
            for error in job.damaged.values():
                tell.note(remade(error))
            if job not in waiting:
                job.restore()
                self._settle(job)
            elif not job.calls:
                self._begin(job)
                self._conclude(job)

    def queue(self, mine: Leases) -> Queue[Unit, tuple[CellProgress, range]]:
        """Return the queue of units, which is shared with other runs on this store."""

        def pieces(unit: Unit) -> list[tuple[CellProgress, range]]:
            return [(job, unit.block) for job in unit.jobs if unit.block in job.calls]

        def name(piece: tuple[CellProgress, range]) -> str:
            return f"{piece[0].folder.address}-{seeds.label(piece[1])}"

        return Queue(mine, self.units, pieces, name, lambda piece: piece[0].stored(piece[1]))

    def opened(self, unit: Unit, pieces: Sequence[tuple[CellProgress, range]]) -> Unit | None:
        """Return the part of a unit that is still to do; None if all its cells have failed meanwhile."""
        left = tuple(job for job, _ in pieces if job.status != FAILED)
        for job in left:
            self._begin(job)
            job.clear(unit.block)
        if not left:
            self._closed(unit)
            return None
        return Unit(left, unit.block)

    def limits(self, unit: Unit) -> list[float]:
        """Return the seconds left for each cell of a unit; empty without a time limit."""
        return [] if self.limit is None else [self.limit - job.seconds for job in unit.jobs]

    def measured(self, task: ReferenceTask, calls: float, seconds: float) -> None:
        """Count finished work on a reference for the time estimate."""
        self._spend((REFERENCE, task.name), calls, seconds)

    def worked(self, unit: Unit, job: CellProgress, images: int, calls: int, kind: str, seconds: float) -> None:
        """Report a worker's progress on a unit, and count it for the time estimate."""
        self._spend((kind, unit.teacher.name), calls, seconds)
        self.advance(unit, job, images, calls)

    def _spend(self, phase: Hashable, work: float, seconds: float) -> None:
        self.forecast.spend(phase, work, seconds)
        if (left := self.forecast.left) is not None:
            self.tell.expect(left)

    def advance(self, unit: Unit, job: CellProgress, images: int, calls: int) -> None:
        """Report a worker's progress on a unit, at most what is left of it."""
        left = self.left[unit]
        images, calls = min(images, left[0]), min(calls, left[1])
        left[0] -= images
        left[1] -= calls
        self.tell.advance(str(job.cell), images, calls)

    def close(self, unit: Unit, members: Unit, found: Sequence[BlockDone | Exception] | BaseException) -> None:
        """Store a worker's results of a unit, or record its error.

        Args:
            members: the part of the unit that `opened` returned.
            found: one result or error per cell, or the error of the whole unit.

        Raises:
            StoreError, RecordError: the store can't be used.
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
                self.forecast.drop(MEASURES, 1)
                self._settle(job)
        self._closed(unit)

    def came(self, unit: Unit, job: CellProgress) -> None:
        """Record that another run finished a job's block."""
        if job.calls.pop(unit.block, None) is not None and not job.calls:
            self._begin(job)
            self._conclude(job)
        self._closed(unit)

    def _closed(self, unit: Unit) -> None:
        """Report the unreported rest of a finished unit as done, such as that of a failed cell."""
        if any(unit.block in job.calls for job in unit.jobs):
            return
        self.forecast.drop((CELLS, unit.teacher.name), self.left[unit][1])
        if any(self.left[unit]):
            self.advance(unit, unit.jobs[-1], *self.left[unit])

    def _begin(self, job: CellProgress) -> None:
        if job not in self.begun:
            self.begun.add(job)
            job.begin()

    def _conclude(self, job: CellProgress) -> None:
        begun = time.monotonic()
        try:
            job.finish()
        except FATAL:
            raise
        except Exception as error:  # such as a reference that doesn't fit the features
            job.fail(error)
        self._spend(MEASURES, 1, time.monotonic() - begun)
        self._settle(job)

    def _settle(self, job: CellProgress) -> None:
        outcome = Outcome(
            job.cell, job.status, job.reason, job.measures, failed=job.failed,
            convergence=self.references.of(job.cell), statistics=job.statistics,
        )  # fmt: skip
        self.tell.settle(str(job.cell), job.status, outcome.summary)


REFERENCE, MEASURES, DRAWING = "reference", "measures", "drawing"
"""Further phases of a run, beside those of units."""


def _forecast(work: Sequence[Unit], jobs: Sequence[CellProgress], workers: int, references: References) -> Forecast:
    """Return the time estimate of a run: its phases, with what a call takes on this machine if that is known."""
    known = estimates.paces(work, jobs, references.tasks)
    found = dict[Hashable, Phase]()
    for task in references.tasks:
        found[REFERENCE, task.name] = Phase(sum(task.calls.values()), known.get(task.name))
    for unit in work:
        pace = known.get(unit.teacher.name)
        for kind, calls in unit.phases.items():
            guess = pace * (estimates.DOUBLE if kind == EXACT else 1.0) if pace is not None else None
            found.setdefault((kind, unit.teacher.name), Phase(0, guess)).work += calls
    ending = [job for job in jobs if job.status in (NEW, PARTIAL)]
    tables = {(job.cell.teacher.name, metric.name) for job in jobs for metric in job.cell.metrics}
    fixed, each = estimates.DRAWING
    found[MEASURES] = Phase(len(ending), sum(map(estimates.measuring, ending)) / max(len(ending), 1), serial=True)
    found[DRAWING] = Phase(1, fixed + each * len(tables), serial=True)
    on_processors = all(unit.teacher.device == "cpu" for unit in work)
    return Forecast(found, workers, time.monotonic, time.process_time if on_processors else None)


def finish(
    jobs: Sequence[CellProgress],
    store: Store,
    workers: Workers,
    tell: Listener,
    limit: float | None = None,
    measured: Iterable[ReferenceTask] = (),
) -> list[Outcome]:
    """Finish all jobs and return their outcomes in order; wait for units that another run computes.

    Args:
        workers: workers, already entered.
        limit: time limit of a cell in this run, in seconds; None for no limit.
        measured: measurements of the references' errors, which are made first.
    """
    references = References(measured)
    ledger, stop = Ledger(jobs, tell, workers.size, limit, references), Cancel()
    said: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()  # from workers, to be called by this thread
    pending: dict[Future[list[BlockDone | Exception]], tuple[Unit, Unit, list[tuple[CellProgress, range]]]] = {}

    def say(unit: Unit, members: Unit, place: int, *event: Any) -> None:
        said.put(partial(ledger.worked, unit, members.jobs[place], *event))

    def note(line: str) -> None:
        said.put(partial(tell.note, line))

    def work(unit: Unit, members: Unit) -> UnitTask:
        cells = [job.cell for job in members.jobs]
        return UnitTask(cells, unit.block, store.root, stop, ledger.limits(members), partial(say, unit, members), note)

    with leases.opened(store.root) as mine, pool(workers.size) as threads:
        todo, others = ledger.queue(mine), Others(tell.note)
        try:
            references.measure(threads, tell, stop, ledger.measured)
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
                with suppress(UserError):  # the original error may be a full disk
                    job.note()
            raise
    return [replace(job.outcome(), convergence=references.of(job.cell)) for job in jobs]
