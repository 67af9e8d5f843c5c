"""The error of each teacher's reference, measured as a part of a run: one unit of work for each teacher."""

from __future__ import annotations

import queue
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import FIRST_COMPLETED, Executor, wait
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from solverbench.bench import cells
from solverbench.bench.cells import Cell
from solverbench.bench.progress import Listener
from solverbench.errors import RecordError, StoreError
from solverbench.sampling import convergence
from solverbench.sampling.convergence import Measurement, Rival
from solverbench.sampling.sample import Cancel, Cancelled
from solverbench.teachers.convergence import Convergence, warning

Spent = Callable[["ReferenceTask", float, float], None]

TICK = 0.2
"""Seconds between two polls of the workers' progress."""


@dataclass(eq=False)
class ReferenceTask:
    """The measurement of the error of one teacher's reference.

    Attributes:
        name: the teacher's name.
        found: the error; None until it is measured.
        calls: sampler whose images are missing to its denoiser calls times images.
    """

    measurement: Measurement
    found: Convergence | None = None
    calls: Mapping[Rival, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.name = self.measurement.teacher.name
        self.found = self.measurement.known
        if self.found is None:
            self.calls = {rival: self.measurement.calls(rival) for rival in self.measurement.missing}

    @property
    def label(self) -> str:
        """Its name in the progress of a run."""
        return f"reference of {self.measurement.teacher.shown}"

    @property
    def images(self) -> int:
        """Number of images that are compared."""
        return len(self.measurement.seeds)

    @property
    def line(self) -> str:
        """A line for the user if the reference isn't converged; empty if it is, or if that is unknown."""
        teacher = self.measurement.teacher
        return "" if self.found is None else warning(teacher.shown, teacher.sampler_nfe, self.found.error)


def tasks(wanted: Iterable[Cell], out: Path) -> list[ReferenceTask]:
    """Return the measurement of each teacher of which a cell can be run."""
    first = {cell.teacher.name: cell for cell in reversed([cell for cell in wanted if cell.plan is not None])}
    return [
        ReferenceTask(Measurement(cell.teacher, out, cell.protocol.batch, goal=cell.targets))
        for cell in reversed(first.values())
    ]


class References:
    """The references of a run.

    Args:
        tasks: their measurements.
    """

    def __init__(self, tasks: Iterable[ReferenceTask] = ()) -> None:
        self.tasks = list(tasks)

    @property
    def calls(self) -> int:
        """The denoiser calls that are missing, each counted once for every image."""
        return sum(sum(task.calls.values()) for task in self.tasks)

    def of(self, cell: Cell) -> Convergence | None:
        """Return the error of the reference of a cell; None if it isn't measured."""
        return next((task.found for task in self.tasks if task.name == cell.teacher.name), None)

    def measure(self, threads: Executor, tell: Listener, stop: Cancel, spent: Spent = lambda *each: None) -> None:
        """Measure what is missing, before the cells; an error that can't be measured is unknown, with the reason.

        Args:
            spent: callback for the time estimate: (task, calls times images, seconds they took).

        Raises:
            StoreError, RecordError: the store can't be used.
        """
        said: queue.SimpleQueue[str] = queue.SimpleQueue()
        for task in self.tasks:
            if task.found is not None:
                continue
            calls = sum(task.calls.values())
            tell.say(f"measuring the error of the {task.label}: {task.images} images, {calls} network calls")
            self._measure(task, threads, tell, {"stop": stop, "say": said.put}, spent)
            while not said.empty():
                tell.note(said.get())
            if task.line:
                tell.note(task.line)

    def _measure(
        self, task: ReferenceTask, threads: Executor, tell: Listener, shared: Mapping[str, Any], spent: Spent
    ) -> None:
        def timed(rival: Rival) -> float:
            begun = time.perf_counter()
            task.measurement.sample(rival, **shared)
            return time.perf_counter() - begun

        work = {threads.submit(timed, rival): rival for rival in task.calls}
        pending = set(work)
        while pending:
            done, pending = wait(pending, timeout=TICK, return_when=FIRST_COMPLETED)
            for future in done:
                if isinstance(error := future.exception(), (StoreError, RecordError)):
                    raise error
                spent(task, task.calls[work[future]], future.result() if error is None else 0.0)
                tell.advance(task.label, 0, task.calls[work[future]])
        try:
            task.found = threads.submit(partial(task.measurement.result, **shared)).result()
        except (StoreError, RecordError, Cancelled):
            raise
        except (Exception, SystemExit) as error:  # a teacher's network may raise anything; its cells say so too
            task.found = convergence.unknown(cells.reason(error))
