"""The teacher's own many-step samples from given seeds, kept in the store: targets of paired errors and training.

They are final states of the teacher's shape; `teacher.images` turns a latent model's states into images. Their cost,
and the batch size that fitted the device, are stored in a separate file next to them.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator, Mapping
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
from solverbench.method.suspects import believed
from solverbench.method.tableau import Plan, asked
from solverbench.method.tracing import tableau
from solverbench.sampling.devices import THREADS, pool, worker_count
from solverbench.sampling.sample import BATCH, BatchLimit, Cancel, batches, sample
from solverbench.store.shared import made_once
from solverbench.teachers.teacher import Teacher

CHUNK = 1000
"""Largest number of seeds per file; files begin at its multiples."""


def endpoints(
    teacher: Teacher, chosen: range, out: Path | str, *, batch: int = BATCH, workers: int | None = None
) -> Tensor:
    """Return the teacher sampler's samples [len(chosen), *shape] float32 on the CPU; compute those not stored.

    Args:
        out: the results folder; files go to out/targets/.
        batch: images per call of the denoiser.
        workers: number of threads; `worker_count` of the teacher's device if None. The result does not depend on it.

    Raises:
        RecordError: a stored file holds images of another shape, or samples of another plan.
        StoreError: the folder cannot be written.
        SampleError: a sample is not finite.
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
    told: Callable[[int], None] = lambda calls: None,
) -> Tensor:
    """Return the result of `endpoints` for the seeds of one file; call it from a worker.

    Args:
        plan: `sampler_plan(teacher)`.
        stop: checked before every batch.
        say: callback for a line about a damaged file, which is then recomputed.
        told: progress callback: denoiser calls times images of the batch that was just made.
    """
    path, check = location(teacher, plan, chosen, out, batch=batch), stop.check if stop is not None else lambda: None

    def make() -> dict[str, NDArray[Any]]:
        made, fit, begun = [], BatchLimit(batch), time.perf_counter()
        for part in batches(chosen, batch):
            check()
            made.append(sample(plan, teacher, part, nfe=teacher.sampler_nfe, fit=fit).cpu())
            told(len(part) * teacher.sampler_nfe)
        seconds = round(time.perf_counter() - begun, 3)
        cost = {
            "seconds": seconds,
            "images": len(chosen),
            "batch": min(fit.most, len(chosen)),
            "host": socket.gethostname(),
        }
        files.write_json(timing(path), {**cost, "device": teacher.device})
        return {"images": torch.cat(made).numpy()}

    _hold(path.parent / "plan.json", plan)
    images = torch.from_numpy(made_once(path, out, make, stop=check, say=say)["images"])
    if images.shape != (len(chosen), *teacher.shape):
        raise RecordError(
            asked=path, wrong=f"holds images {tuple(images.shape)}", remedy="delete this file and run again"
        )
    return images


def _hold(path: Path, plan: Plan) -> None:
    """Write the plan of the samples in a folder, or compare it with the plan stored there.

    Raises:
        RecordError: the stored plan differs (for example, a function that the sampler's plugin imports was edited) or
            is damaged.
    """
    if not path.exists():
        files.write_json(path, plan.as_dict(), replace=False, lines=False)
        return
    try:
        stored = Plan.of(files.read_json(path))
    except (KeyError, TypeError, ValueError):
        raise RecordError(asked=path, wrong="has no plan", remedy="delete this folder and run again") from None
    if not plan.fits(stored):
        raise RecordError(
            asked=path.parent,
            wrong=(
                "holds samples of another sampler: what the teacher's sampler computes has "
                "changed, although its source has not"
            ),
            remedy="raise `version` in its class, or delete this folder",
        )


def location(teacher: Teacher, plan: Goal, chosen: range, out: Path, *, batch: int = BATCH) -> Path:
    """Return the path of the file with the samples of these seeds."""
    return Path(out) / "targets" / files.digest(key(teacher, plan, batch))[:32] / f"{seeds.label(chosen)}.npz"


def timing(path: Path) -> Path:
    """Return the path of the file with the cost of the samples at `path`."""
    return path.with_suffix("") / "timing.json"


def absent(teacher: Teacher, plan: Goal, chosen: range, out: Path, *, batch: int = BATCH) -> dict[Path, range]:
    """Return the missing files of these seeds: path to seeds."""
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
    """Return the condition's part of a key; empty for an unconditional teacher."""
    return {} if teacher.condition is None else {"condition": teacher.condition.key}


@dataclass(frozen=True)
class Goal(Plan):
    """The teacher sampler's plan for unit noise.

    Args:
        asked: sha256 of the request: solver, calls and schedule. It identifies the samples in keys.
    """

    asked: str = ""


_plans: dict[tuple[type[Solver], type[NoiseSchedule], str], Plan] = {}
"""Plans of built-in solvers on built-in grids by what was asked for, since tracing hundreds of calls takes a while."""

KEPT = 32
"""Largest number of plans kept in memory."""


def goal(solver: Solver, nfe: int, schedule: NoiseSchedule) -> Goal:
    """Return the plan of `solver` as a teacher sampler of `nfe` calls on `schedule`."""
    solver = solver.on(schedule)
    method = solver.key
    named = {"solver": method, "nfe": nfe, "schedule": schedule.key}
    place = type(solver), type(schedule), files.digest(named)
    plan = _plans.get(place)
    if plan is None:
        plan = believed(solver, tableau(solver, nfe=nfe, schedule=schedule)).plan_from_noise(schedule)
        if _settled(method):
            if len(_plans) >= KEPT:
                _plans.clear()
            _plans[place] = plan
    identity = {"solver": asked(method, plan, schedule), "schedule": schedule.key}
    return Goal(plan.sigmas, plan.rows, files.digest(identity))


def _settled(method: Mapping[str, Any]) -> bool:
    """Return whether a solver's key and the schedule's fix its plan in this process.

    A plugin's functions may be loaded again, and the levels of `grid=pipeline` are not in the schedule's key.
    """
    grid = method["grid"]
    return "sources" not in method and "source" not in grid and grid.get("name") != "pipeline"


def sampler_plan(teacher: Teacher) -> Goal:
    """Return the teacher sampler's plan for unit noise.

    Raises:
        UserError: the sampler adapts the denoiser, which a plan cannot express.
    """
    solver = make(teacher.sampler)
    if solver.adapt(teacher.denoise) is not teacher.denoise:
        raise UserError(
            asked=f"teacher {teacher.name!r}",
            wrong=f"its sampler {teacher.sampler} adapts the denoiser",
            remedy="leave threshold out",
        )
    return goal(solver, teacher.sampler_nfe, teacher.schedule)


def chunks(chosen: range) -> Iterator[range]:
    """Yield `chosen`, split at the multiples of `CHUNK`."""
    begin = chosen.start
    while begin < chosen.stop:
        end = min((begin // CHUNK + 1) * CHUNK, chosen.stop)
        yield range(begin, end)
        begin = end
