"""Time estimates for this machine, from the stored blocks of a teacher or from a few probe calls."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import nullcontext

import torch

from solverbench import plugins, registries, seeds
from solverbench.bench.reference import ReferenceTask
from solverbench.bench.work import CellProgress, Unit
from solverbench.sampling import devices, stopwatch
from solverbench.teachers.teacher import Teacher

_PROBED = 4
"""Number of calls of a probe; the first one warms up."""


def expected(
    work: Sequence[Unit], jobs: Iterable[CellProgress], workers: int, references: Iterable[ReferenceTask] = ()
) -> float | None:
    """Return the seconds that `workers` need for `work`; None if it is too little for a probe, or the probe fails.

    Args:
        work: units of work to do.
        jobs: all jobs of the run; their stored blocks give the time per call.
        workers: number of workers.
        references: measurements of the references' errors.
    """
    known, total = list(jobs), 0.0
    others = {task.name: sum(task.calls.values()) for task in references}
    for teacher in {unit.teacher for unit in work}:
        own = [unit for unit in work if unit.teacher is teacher]
        calls = sum(unit.calls for unit in own) + others.get(teacher.name, 0)
        pace = stored_pace(known, teacher)
        if pace is None:
            batch = own[0].jobs[0].cell.protocol.batch
            if calls < 20 * _PROBED * batch:
                return None
            try:
                pace = probe(teacher, batch)
            except (Exception, SystemExit):  # a cell raises the same error and reports it
                return None
        total += calls * pace / workers
    return total


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
