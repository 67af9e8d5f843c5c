"""The exact solution of a teacher's ODE from given seeds, kept in the store: the reference of discretisation errors."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from solverbench import files, seeds
from solverbench.errors import RecordError
from solverbench.sampling import endpoints
from solverbench.sampling.devices import THREADS
from solverbench.sampling.sample import Cancel, SampleError
from solverbench.store.shared import made_once
from solverbench.teachers.teacher import Teacher

TOLERANCE = 1e-8
"""Relative and absolute tolerance per step for a float64 network; docs/store.md gives the remaining error."""
ROUGH = 1e-5
"""Tolerance for a float32 network; a smaller one would count its rounding as an error."""
CALLS = 500
"""Typical cost of a solution, in calls of the denoiser; used to estimate time."""
TOLD = 20
"""Calls between two reports of progress."""
MAX_STEPS = 20_000
"""Largest number of steps of a solution."""


@torch.no_grad()
def solve(denoise: Callable[[Tensor, Tensor], Tensor], x: Tensor, start: float, end: float, tolerance: float) -> Tensor:
    """Return `x` integrated from level `start` to level `end` along dx/dsigma = (x - denoise(x, sigma)) / sigma.

    Dormand-Prince 5(4) in lam = -log sigma, where dx/dlam = denoise(x, sigma) - x. A step is accepted when, for each
    image by itself, the root mean square of error / (tolerance (1 + |x|)) is at most 1.

    Args:
        denoise: (x, sigma) -> the data prediction, float64.
        x: [B, ...] float64.

    Raises:
        SampleError: the steps become too small or too many: the denoiser is not smooth at this tolerance.

    Source: Karras et al. 2022, arXiv:2206.00364, equation 4; Chen, torchdiffeq.
    """
    from torchdiffeq import odeint  # imports all of scipy.integrate: only where an equation is solved

    ends = -torch.tensor([start, end], dtype=torch.float64).log()
    options = {"norm": _worst, "step_t": ends[1:].to(x.device), "max_num_steps": MAX_STEPS}

    def slope(lam: Tensor, x: Tensor) -> Tensor:
        return denoise(x, (-lam).exp().cpu()) - x

    try:
        path = odeint(slope, x, ends.to(x.device), rtol=tolerance, atol=tolerance, method="dopri5", options=options)
    except AssertionError as error:  # how torchdiffeq reports failure
        raise SampleError(
            asked=f"the teacher's ODE at tolerance {tolerance:g}",
            wrong=f"no solution was found ({_short(error)})",
            remedy="leave --exact out",
        ) from error
    solution: Tensor = path[-1]
    return solution


def piece(
    teacher: Teacher,
    chosen: range,
    out: Path,
    *,
    tolerance: float | None = None,
    stop: Cancel | None = None,
    say: Callable[[str], None] = lambda line: None,
    told: Callable[[int], None] = lambda calls: None,
) -> Tensor:
    """Return the solutions [len(chosen), *shape] float64 on the CPU; solve them as one batch if not stored.

    Args:
        out: the results folder; the file goes to out/solutions/.
        tolerance: per step; the teacher's default if None.
        stop: checked before every call of the denoiser.
        say: callback for a line about a damaged file, which is then recomputed.
        told: progress callback, every `TOLD` calls: new calls times images of the `CALLS` that a solution is expected
            to take, in proportion to the levels that are passed.

    Raises:
        SampleError: there is no solution at this tolerance.
        RecordError: the stored file holds images of another shape.
        StoreError: the folder cannot be written.
    """
    path = location(teacher, chosen, out, tolerance=tolerance)

    def make() -> dict[str, NDArray[Any]]:
        schedule, whole = teacher.schedule, len(chosen) * CALLS

        def passed(sigma: float) -> int:
            """Return the expected calls until a level, by its place between both ends on a logarithmic axis."""
            start, end = math.log(schedule.sigma_max), math.log(schedule.sigma_min)
            return int(whole * min(max((start - math.log(sigma)) / (start - end), 0.0), 1.0))

        network = _Network(teacher, chosen, stop, passed, told)
        x = (schedule.prior_scale * seeds.noise(chosen, teacher.shape).double()).to(teacher.device)
        made = solve(network, x, schedule.sigma_max, schedule.sigma_min, key(teacher, tolerance)["tolerance"])
        told(whole - network.told)
        return {"images": made.cpu().numpy(), "calls": np.array(network.calls)}

    check = stop.check if stop is not None else lambda: None
    images = torch.from_numpy(made_once(path, out, make, stop=check, say=say)["images"])
    if images.shape != (len(chosen), *teacher.shape):
        raise RecordError(
            asked=path, wrong=f"holds images {tuple(images.shape)}", remedy="delete this file and run again"
        )
    return images


def location(teacher: Teacher, chosen: range, out: Path, *, tolerance: float | None = None) -> Path:
    """Return the path of the file with the solutions of these seeds."""
    return Path(out) / "solutions" / files.digest(key(teacher, tolerance))[:32] / f"{seeds.label(chosen)}.npz"


def key(teacher: Teacher, tolerance: float | None = None) -> dict[str, Any]:
    """Return everything that the solutions depend on besides their seeds."""
    return {
        "teacher": teacher.identity,
        "shape": list(teacher.shape),
        "method": "dopri5 in log sigma, float64",
        "tolerance": tolerance or (TOLERANCE if _double(teacher) else ROUGH),
        "network": "float64" if _double(teacher) else teacher.arithmetic,
        "schedule": teacher.schedule.key,
        "threads": THREADS,
        "device": torch.device(teacher.device).type,
        **endpoints.conditioned(teacher),
    }


def describe(teacher: Teacher) -> str:
    """Return a human-readable description of how the teacher's solutions are computed."""
    made = key(teacher)
    return f"dopri5 in float64, tolerance {made['tolerance']:g}, network in {made['network']}"


class _Network:
    """The teacher on float64 images, with counted calls: its float64 network if it has one, else float32 calls."""

    def __init__(
        self,
        teacher: Teacher,
        chosen: range,
        stop: Cancel | None,
        passed: Callable[[float], int] = lambda sigma: 0,
        tell: Callable[[int], None] = lambda calls: None,
    ) -> None:
        self.stop, self.passed, self.tell = stop, passed, tell
        self.double, self.single = _double(teacher), teacher.denoiser(chosen)
        self.calls = self.told = 0

    def __call__(self, x: Tensor, sigma: Tensor) -> Tensor:
        if self.stop is not None:
            self.stop.check()
        if self.calls % TOLD == 0 and (new := self.passed(float(sigma)) - self.told) > 0:
            self.told += new
            self.tell(new)
        self.calls += 1
        return self.double(x, sigma) if self.double else self.single(x.float(), sigma).double()


def _double(teacher: Teacher) -> Callable[[Tensor, Tensor], Tensor] | None:
    """Return the float64 network for any image; None if there is none or the teacher binds a condition."""
    return teacher.double if teacher.bind is None else None


def _short(error: AssertionError) -> str:
    """Return the error's text without the tensor that may follow it."""
    return str(error).partition(":")[0]


def _worst(errors: Tensor) -> Tensor:
    """Return the largest root mean square over the images."""
    return errors.flatten(1).square().mean(1).sqrt().max()
