"""The teacher's own many-step samples from given seeds, kept in the store: what paired errors and training aim at.

They are final states, of the teacher's shape: the images of a latent model's are `teacher.images` of them. What it took
to make them, and how many fitted the device at once, lies beside them, apart from the result.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

from solverbench import files, seeds
from solverbench.errors import RecordError, UserError
from solverbench.method.schedules import NoiseSchedule
from solverbench.method.solver import Solver
from solverbench.method.spec import make
from solverbench.method.tableau import Plan, asked
from solverbench.method.tracing import tableau
from solverbench.sampling.devices import THREADS, pool, worker_count
from solverbench.sampling.sample import BATCH, BatchLimit, Cancel, batches, sample
from solverbench.store.shared import made_once
from solverbench.teachers.teacher import Teacher

CHUNK = 1000
"""Seeds per file when many are asked for; files begin at its multiples."""


def endpoints(
    teacher: Teacher, chosen: range, out: Path | str, *, batch: int = BATCH, workers: int | None = None
) -> Tensor:
    """Return the teacher sampler's samples [len(chosen), *shape] float32 on the CPU; those not stored are made.

    Args:
        out: the results folder; files go to out/targets/.
        batch: images per call of the denoiser.
        workers: threads; as many as serve the teacher's device if None. It doesn't change the result.

    Raises:
        RecordError: a stored file is of other images.
        StoreError: the folder can't be written.
        SampleError: a sample isn't finite.
    """
    plan = sampler_plan(teacher)
    with pool(workers or worker_count(teacher.device)) as threads:
        parts = threads.map(lambda part: piece(teacher, plan, part, Path(out), batch=batch), chunks(chosen))
        return torch.cat(list(parts))


def piece(
    teacher: Teacher,
    plan: Goal,
    chosen: range,
    out: Path,
    *,
    batch: int = BATCH,
    stop: Cancel | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> Tensor:
    """Return what `endpoints` does for the seeds of one file; call it from a worker.

    Args:
        plan: `sampler_plan(teacher)`.
        stop: looked at before every batch.
        say: told of a damaged file, which is made anew.
    """
    path, check = location(teacher, plan, chosen, out, batch=batch), stop.check if stop is not None else lambda: None

    def make() -> dict[str, NDArray[Any]]:
        made, fit, begun = [], BatchLimit(batch), time.perf_counter()
        for part in batches(chosen, batch):
            check()
            made.append(sample(plan, teacher, part, nfe=teacher.sampler_nfe, fit=fit).cpu())
        seconds = round(time.perf_counter() - begun, 3)
        cost = {"seconds": seconds, "images": len(chosen), "batch": fit.most, "host": socket.gethostname()}
        files.write_json(timing(path), {**cost, "device": teacher.device})
        return {"images": torch.cat(made).numpy()}

    _hold(path.parent / "plan.json", plan)
    images = torch.from_numpy(made_once(path, out, make, stop=check, say=say)["images"])
    if images.shape != (len(chosen), *teacher.shape):
        raise RecordError(f"{path}: holds images {tuple(images.shape)}; delete this file and run again")
    return images


def _hold(path: Path, plan: Plan) -> None:
    """Write down the plan of the samples in a folder, or compare with the one that is written there.

    Raises:
        RecordError: another one, as when a function was edited that the sampler's plugin imports; or damaged.
    """
    if not path.exists():
        files.write_json(path, plan.as_dict(), replace=False, lines=False)
        return
    try:
        stored = Plan.of(files.read_json(path))
    except (KeyError, TypeError, ValueError):
        raise RecordError(f"{path}: holds no plan; delete this folder and run again") from None
    if not plan.fits(stored):
        raise RecordError(
            f"{path.parent}: holds samples by other numbers: what the teacher's sampler computes has changed, but not "
            "its source; raise `version` in its class, or delete this folder"
        )


def location(teacher: Teacher, plan: Goal, chosen: range, out: Path, *, batch: int = BATCH) -> Path:
    """Return where the samples of these seeds are kept."""
    return Path(out) / "targets" / files.digest(key(teacher, plan, batch))[:32] / f"{seeds.label(chosen)}.npz"


def timing(path: Path) -> Path:
    """Return where it is kept what the samples at `path` took to make."""
    return path.with_suffix("") / "timing.json"


def absent(teacher: Teacher, plan: Goal, chosen: range, out: Path, *, batch: int = BATCH) -> dict[Path, range]:
    """Return the files of these seeds that aren't stored, each with its seeds."""
    places = {location(teacher, plan, part, out, batch=batch): part for part in chunks(chosen)}
    return {path: part for path, part in places.items() if not path.exists()}


def key(teacher: Teacher, plan: Goal, batch: int = BATCH) -> dict[str, Any]:
    """Return everything that the samples depend on besides their seeds."""
    return {
        "teacher": teacher.identity,
        "shape": list(teacher.shape),
        "sampler": plan.asked,
        "batch": batch,
        "threads": THREADS,
        "dtype": teacher.arithmetic,
        "device": torch.device(teacher.device).type,
        **conditioned(teacher),
    }


def conditioned(teacher: Teacher) -> dict[str, Any]:
    """Return what the teacher's images are conditioned on as a part of a key: none if on nothing."""
    return {} if teacher.condition is None else {"condition": teacher.condition.key}


@dataclass(frozen=True)
class Goal(Plan):
    """The teacher sampler's plan for unit noise.

    Args:
        asked: the sha256 of what was asked for: solver, calls and schedule. It names the samples in keys.
    """

    asked: str = ""


def goal(solver: Solver, nfe: int, schedule: NoiseSchedule) -> Goal:
    """Return the plan of `solver` as a teacher sampler of `nfe` calls on `schedule`."""
    plan = tableau(solver, nfe=nfe, schedule=schedule).plan_from_noise(schedule)
    named = {"solver": asked(solver.key, plan), "schedule": schedule.key}
    return Goal(plan.sigmas, plan.rows, files.digest(named))


def sampler_plan(teacher: Teacher) -> Goal:
    """Return the teacher sampler's plan for unit noise.

    Raises:
        UserError: it adapts the denoiser, which is no part of a plan.
    """
    solver = make(teacher.sampler)
    if solver.adapt(teacher.denoise) is not teacher.denoise:
        raise UserError(
            f"teacher {teacher.name!r}: its sampler {teacher.sampler} adapts the denoiser; leave threshold out"
        )
    return goal(solver, teacher.sampler_nfe, teacher.schedule)


def chunks(chosen: range) -> Iterator[range]:
    """Yield `chosen` cut at the multiples of `CHUNK`."""
    begin = chosen.start
    while begin < chosen.stop:
        end = min((begin // CHUNK + 1) * CHUNK, chosen.stop)
        yield range(begin, end)
        begin = end
