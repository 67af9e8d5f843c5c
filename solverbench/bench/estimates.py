"""Time estimates for this machine: before a run from stored blocks or probe calls, and during it by its phases."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass

import torch

from solverbench import plugins, registries, seeds
from solverbench.bench.protocol import Protocol
from solverbench.bench.reference import ReferenceTask
from solverbench.bench.work import CellProgress, Unit
from solverbench.sampling import devices, stopwatch
from solverbench.teachers.teacher import Teacher

_PROBED = 4
"""Number of calls of a probe; the first one warms up."""
DOUBLE = 2.0
"""Guess of the time of a call in float64, relative to the network's own precision."""
DRAWING = 4.0, 0.7
"""Guess of the seconds that a report takes to draw: its fixed part, and more for each teacher and metric."""
_BUSIEST = 50.0
"""Largest factor by which a busy machine is taken to slow down one thread."""
_TRUST = 0.02
"""Share of a phase's work that its guess counts for, once its own pace is measured."""


@dataclass
class Phase:
    """The work of one kind in a run.

    Args:
        work: its amount: network calls times images, or the number of things to do.
        guess: seconds of a worker for each unit of work, before any is done; None if unknown.
        serial: whether one thread does it, rather than all workers.
        done: the amount that is done.
        seconds: time of a worker that this took.
    """

    work: float
    guess: float | None
    serial: bool = False
    done: float = 0.0
    seconds: float = 0.0


class Forecast:
    """The time left of a run. Each phase has a pace of its own, measured as the run goes.

    The phases are those of each teacher, with its reference, its own samples, exact solutions and cells, and then the
    measures and the drawing of the report. A call takes a different time in each of them: in float64, in smaller
    batches, or with features to be extracted from its images. A phase that has not begun goes by its guess, corrected
    by what the other phases took beside theirs.

    Args:
        phases: by any name, in any order.
        workers: number of workers.
        clock: seconds.
        processor: seconds of processor time of this process, if workers compute on processors; None otherwise. What one
            thread does at the end takes as much longer than its guess as the workers waited for a busy machine.
    """

    def __init__(
        self,
        phases: Mapping[Hashable, Phase],
        workers: int,
        clock: Callable[[], float],
        processor: Callable[[], float] | None = None,
    ) -> None:
        self.phases, self.workers, self.clock, self.processor = dict(phases), workers, clock, processor
        self.begun, self.longest = clock(), 0.0
        self.used = processor() if processor is not None else 0.0

    def spend(self, name: Hashable, work: float, seconds: float) -> None:
        """Count finished work of a phase, and the seconds that a worker spent on it."""
        phase = self.phases[name]
        phase.done = min(phase.done + work, phase.work)
        phase.seconds += seconds
        if not phase.serial:
            self.longest = max(self.longest, seconds)

    def drop(self, name: Hashable, work: float) -> None:
        """Leave out work of a phase that needn't be done, such as the rest of a failed cell."""
        phase = self.phases[name]
        phase.work = max(phase.work - work, phase.done)

    @property
    def left(self) -> float | None:
        """Seconds until all is done; None if no pace is known yet."""
        total = 0.0
        for name, phase in self.phases.items():
            if (rest := phase.work - phase.done) > 0:
                pace = self._pace(name)
                if pace is None:
                    return None
                total += rest * pace / (1 if phase.serial else self._parallel)
        return total

    @property
    def _parallel(self) -> float:
        """Workers at work on average, counting what the scheduler and idle workers cost."""
        measured = [each for each in self.phases.values() if not each.serial]
        waited = sum(each.seconds for each in self.phases.values() if each.serial)
        elapsed = max(self.clock() - self.begun - waited, 0.0)
        spent, known = sum(each.seconds for each in measured), self.longest
        if known <= 0:
            return self.workers
        return max(0.25, min((spent + self.workers * known) / (elapsed + known), self.workers))

    @property
    def _busy(self) -> float:
        """Seconds that pass on average for a second of a thread's work, because others use the processors, too."""
        measured = [each for each in self.phases.values() if not each.serial]
        if self.processor is None or (used := self.processor() - self.used) <= 0:
            return 1.0
        return min(max(sum(each.seconds for each in measured) / used, 1.0), _BUSIEST)

    def _pace(self, name: Hashable) -> float | None:
        """Return the seconds for each unit of work of a phase."""
        phase = self.phases[name]
        guess = (phase.guess or 0.0) * self._busy if phase.serial else self._corrected(phase)
        if phase.done <= 0:
            return guess
        weight = 0.0 if guess is None else _TRUST * phase.work
        return (phase.seconds + weight * (guess or 0.0)) / (phase.done + weight)

    def _corrected(self, phase: Phase) -> float | None:
        """Return a phase's guess times what the others took beside theirs; without a guess, their average pace."""
        others = [each for each in self.phases.values() if each is not phase and not each.serial and each.done > 0]
        took = sum(each.seconds for each in others)
        if phase.guess is None:
            return took / sum(each.done for each in others) if others else None
        guessed = sum(each.done * (each.guess or 0.0) for each in others)
        return phase.guess * (took / guessed if guessed > 0 and took > 0 else 1.0)


def paces(
    work: Sequence[Unit], jobs: Iterable[CellProgress], references: Iterable[ReferenceTask] = ()
) -> dict[str, float | None]:
    """Return the seconds per image and call of each teacher with work to do, by its name.

    It is None if there is too little to do for a probe, or if the probe fails.

    Args:
        work: units of work to do.
        jobs: all jobs of the run; their stored blocks give the time per call.
        references: measurements of the references' errors.
    """
    known, found = list(jobs), dict[str, float | None]()
    others = {task.name: sum(task.calls.values()) for task in references}
    for teacher in {unit.teacher for unit in work}:
        own = [unit for unit in work if unit.teacher is teacher]
        calls = sum(unit.calls for unit in own) + others.get(teacher.name, 0)
        protocol = own[0].jobs[0].cell.protocol
        try:
            few = calls < 20 * _PROBED * protocol.batch
            found[teacher.name] = stored_pace(known, teacher) if few else pace(known, teacher, protocol)
        except (Exception, SystemExit):  # a cell raises the same error and reports it
            found[teacher.name] = None
    return found


def pace(jobs: Iterable[CellProgress], teacher: Teacher, protocol: Protocol) -> float:
    """Return the seconds per image and call: from stored blocks, or else from probe calls in the run's batches."""
    found = stored_pace(jobs, teacher)
    return probe(teacher, min(protocol.batch, protocol.block)) if found is None else found


def measuring(job: CellProgress) -> float:
    """Return a guess of the seconds that the measures of a finished cell take.

    Most are for the Fréchet distances of all images and without each seed block, whose eigenvalues take n^3 steps for
    n features: 3 s for the 2048 of Inception.
    """
    judged, blocks = job.cell.evaluation, len(job.cell.protocol.blocks)
    if judged is None:
        return 0.05
    return 0.05 + blocks * 3.5e-10 * len(judged.data.moments.mean) ** 3


def stored_pace(jobs: Iterable[CellProgress], teacher: Teacher) -> float | None:
    """Return the seconds per image and call of this teacher's stored blocks; None if there are none."""
    seconds = calls = 0.0
    for job in jobs:
        if job.cell.teacher is teacher:
            for cost in job.timing["blocks"].values():
                seconds += cost["seconds"]
                calls += cost["images"] * job.cell.nfe
    return seconds / calls if calls else None


def probe(teacher: Teacher, batch: int) -> float:
    """Return the seconds per image and call, from three calls by one worker after a warm-up call.

    Raises:
        PluginError: a plugin's teacher whose network fails.
    """

    def measure_calls() -> float:
        x = seeds.noise(range(batch), teacher.shape, teacher.device)
        sigma = torch.tensor(1.0, dtype=torch.float64)
        with torch.no_grad():
            denoise = teacher.denoiser(range(batch))
            denoise(x, sigma)
            watch = stopwatch.Stopwatch(teacher.device)
            for _ in range(_PROBED - 1):
                watch.watched(denoise)(x, sigma)
        return watch.seconds / ((_PROBED - 1) * batch)

    blamed = plugins.blamed(registries.teachers, teacher.base) if teacher.base in registries.teachers else nullcontext()
    with devices.pool(1) as threads, blamed:
        return threads.submit(measure_calls).result()
