"""Grids: the M+1 noise levels between which a solver steps, from the start to the end level."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

import registries
from solverbench.errors import GridError, UnknownNameError
from solverbench.schedules import NoiseSchedule, VPLinear


@dataclass(frozen=True, eq=False)
class Grid:
    """Falling noise levels and the schedule they belong to.

    Args:
        sigmas: [M+1] float64, strictly decreasing, positive but for the last, which may be 0. May carry gradient.
        schedule: what the model's own time is, for loops that need it.

    Raises:
        GridError: fewer than two levels, not finite, negative, or not strictly decreasing.
    """

    sigmas: Tensor
    schedule: NoiseSchedule

    def __post_init__(self) -> None:
        values = self.sigmas.detach().tolist()
        asked = f"grid {'+'.join(f'{v:g}' for v in values[:12])}"
        if len(values) < 2:
            raise GridError(f"{asked}: {len(values)} level(s); give at least two, from the start to the end")
        if not all(math.isfinite(v) for v in values):
            raise GridError(f"{asked}: has a value that isn't finite; give finite noise levels")
        for above, below in itertools.pairwise(values):
            if not above > below:
                raise GridError(f"{asked}: {below:g} follows {above:g}; levels must strictly decrease")
        if values[-1] < 0:
            raise GridError(f"{asked}: ends at {values[-1]:g}; levels are positive, and only the last may be 0")

    @property
    def steps(self) -> int:
        """M, the number of intervals."""
        return len(self.sigmas) - 1


def explicit(levels: Sequence[float] | Tensor, schedule: NoiseSchedule) -> Grid:
    """Return the grid of the given levels [M+1], in the order from start to end."""
    return Grid(torch.as_tensor(levels, dtype=torch.float64), schedule)


def polynomial(schedule: NoiseSchedule, steps: int, *, rho: float = 7.0) -> Grid:
    """Return levels whose rho-th roots are equally spaced. Source: Karras et al. 2022, arXiv:2206.00364, equation 5."""
    ends = schedule.sigma_max ** (1 / rho), schedule.sigma_min ** (1 / rho)
    return _with_ends(_linspace(*ends, steps) ** rho, schedule)


def logsnr(schedule: NoiseSchedule, steps: int) -> Grid:
    """Return levels equally spaced in lambda = -log sigma. Source: Lu et al. 2022, arXiv:2206.00927, section 3.4."""
    return _with_ends(_linspace(math.log(schedule.sigma_max), math.log(schedule.sigma_min), steps).exp(), schedule)


def time_uniform(schedule: NoiseSchedule, steps: int, *, rho: float = 1.0) -> Grid:
    """Return levels at times whose rho-th roots are equally spaced; rho = 1 is uniform, 2 quadratic.

    The time is the model's own on a VP schedule, and on an EDM schedule that of the linear VP schedule with the same
    ends. Source: Lu et al. 2022, arXiv:2206.00927, section 4.
    """
    vp = schedule if isinstance(schedule, VPLinear) else VPLinear.refit(schedule.sigma_min, schedule.sigma_max)
    times = _linspace(1.0, vp.t_eps ** (1 / rho), steps) ** rho
    return _with_ends(vp.sigma(times), schedule)


def learned(schedule: NoiseSchedule, steps: int) -> Grid:
    """Raise GridError: a learned grid comes from a solver's own parameters."""
    raise GridError(f"grid=learned with {steps} steps: only a learned solver has one; name another grid")


def default_rho(name: str) -> float | None:
    """Return the rho that the named grid takes by default; None for a grid without one."""
    return (function(name).__kwdefaults__ or {}).get("rho")


def function(name: str) -> Callable[..., Grid]:
    """Return the function (schedule, steps, *, rho) behind a grid's name.

    Raises:
        UnknownNameError: no such grid.
    """
    found: Callable[..., Grid] = registries.grids.get(resolve(name))
    return found


def resolve(name: str) -> str:
    """Return the name of the grid that `name` or an alias stands for.

    Raises:
        UnknownNameError: no such grid.
    """
    try:
        return registries.grids.resolve(name)
    except registries.UnknownName as error:
        raise UnknownNameError(str(error)) from None


def _linspace(start: float, end: float, steps: int) -> Tensor:
    return torch.linspace(start, end, steps + 1, dtype=torch.float64)


def _with_ends(sigmas: Tensor, schedule: NoiseSchedule) -> Grid:
    """The grid with its two ends exactly the schedule's own: roots and powers miss them by an ulp or two."""
    sigmas[0], sigmas[-1] = schedule.sigma_max, schedule.sigma_min
    return Grid(sigmas, schedule)
