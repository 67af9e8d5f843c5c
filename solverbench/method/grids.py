"""Grids: the M+1 noise levels between which a solver steps, from the start to the end level."""

from __future__ import annotations

import itertools
import math
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from solverbench import plugins, registries
from solverbench.errors import GridError, PluginError, UnknownNameError
from solverbench.method.rectified_flow import RectifiedFlow
from solverbench.method.schedules import NoiseSchedule, Searched, VariancePreserving
from solverbench.method.vp_discrete import VPDiscrete

VERSIONS: dict[str, int] = {}
"""Versions of named grids other than 1; bump one when its formula gives other levels, so no old result is reused."""

ROUNDED = 0.01
"""Relative tolerance between a schedule's ends and typed or published levels, which are rounded to three digits."""


@dataclass(frozen=True, eq=False)
class Grid:
    """Falling noise levels and the schedule they belong to.

    Args:
        sigmas: [M+1] float64, strictly decreasing, positive except that the last may be 0. May carry gradient.
        schedule: the model's schedule, for loops that need the model's own time.
        search: the search that found the levels; None if no search was needed.

    Raises:
        GridError: fewer than two levels, not finite, negative, or not strictly decreasing.
    """

    sigmas: Tensor
    schedule: NoiseSchedule
    search: Searched | None = None

    def __post_init__(self) -> None:
        values = self.sigmas.detach().tolist()
        asked = f"grid {'+'.join(f'{v:g}' for v in values[:12])}"
        if len(values) < 2:
            raise GridError(
                asked=asked, wrong=f"{len(values)} level(s)", remedy="give at least two, from the start to the end"
            )
        if not all(math.isfinite(v) for v in values):
            raise GridError(asked=asked, wrong="has a value that isn't finite", remedy="give finite noise levels")
        for above, below in itertools.pairwise(values):
            if not above > below:
                raise GridError(
                    asked=asked, wrong=f"{below:g} follows {above:g}", remedy="levels must strictly decrease"
                )
        if values[-1] < 0:
            raise GridError(
                asked=asked, wrong=f"ends at {values[-1]:g}", remedy="levels are positive, and only the last may be 0"
            )

    def __repr__(self) -> str:
        """Return the levels on one line."""
        levels = [f"{level:.4g}" for level in self.sigmas.detach().tolist()]
        shown = levels if len(levels) <= 21 else [*levels[:3], "…", levels[-1]]
        return f"Grid({self.steps} steps: {' '.join(shown)}; {self.schedule!r})"

    @property
    def steps(self) -> int:
        """M, the number of intervals."""
        return len(self.sigmas) - 1


def refused(error: GridError) -> bool:
    """Return whether `Grid` itself raised the error, because the levels are not a valid grid."""
    *_, (frame, _) = traceback.walk_tb(error.__traceback__)
    return frame.f_code is Grid.__post_init__.__code__


def explicit(levels: Sequence[float] | Tensor, schedule: NoiseSchedule) -> Grid:
    """Return the grid of the given levels [M+1], in the order from start to end."""
    return Grid(torch.as_tensor(levels, dtype=torch.float64), schedule)


def check_ends(grid: Grid, asked: str) -> None:
    """Check that explicit levels lie between the ends of their schedule; the last may also be 0.

    Raises:
        GridError: an end lies outside, or the levels look like times of the schedule or like training steps.
    """
    schedule, first, last = grid.schedule, float(grid.sigmas[0].detach()), float(grid.sigmas[-1].detach())
    if levels := _from_times(grid):
        flow = isinstance(schedule, RectifiedFlow)
        times = "a flow's times t" if flow else "training steps" if first > schedule.t_start else "the model's times"
        formula = "t/(1 - t)" if flow else "sqrt(1 - alpha^2)/alpha"
        raise GridError(
            asked=asked,
            wrong=f"levels from {first:g} to {last:g} look like {times}, but a level is {formula}",
            remedy=f"give grid={levels}",
        )
    for name, level, outside in (
        ("start", first, first > schedule.sigma_max * (1 + ROUNDED)),
        ("end", last, 0 < last < schedule.sigma_min * (1 - ROUNDED)),
    ):
        if outside:
            raise GridError(
                asked=asked,
                wrong=f"its {name} {level:g} is outside the model's {schedule.sigma_max:g} to {schedule.sigma_min:g}",
                remedy="stay between these two; the last level may also be 0",
            )


def inner_ends(grid: Grid) -> str:
    """Return a sentence about ends that lie inside the schedule; empty if the grid covers the whole schedule."""
    schedule, first, last = grid.schedule, float(grid.sigmas[0].detach()), float(grid.sigmas[-1].detach())
    starts = first < min(schedule.sigma_first, schedule.sigma_max) * (1 - ROUNDED)
    ends = last > schedule.sigma_min * (1 + ROUNDED)
    if not starts and not ends:
        return ""
    where = " and ".join([f"starts at {first:g}"] * starts + [f"ends at {last:g}"] * ends)
    return f"the grid {where}, inside the model's levels from {schedule.sigma_max:g} to {schedule.sigma_min:g}"


LIKE_TIMES = 0.95
"""Smallest share of the last time at which a first level is taken for a time; a sampler starts near its last time."""


def _from_times(grid: Grid) -> str:
    """Return the levels at a grid's values read as times, or as training steps from 0; empty if they aren't."""
    schedule, values = grid.schedule, grid.sigmas.detach()
    if not isinstance(schedule, (RectifiedFlow, VariancePreserving)):
        return ""
    first, steps = float(values[0]), len(schedule.log_alphas) if isinstance(schedule, VPDiscrete) else 0
    if first / schedule.t_start >= LIKE_TIMES and first <= 1:
        times = values
    elif steps and schedule.sigma_max < first < steps and LIKE_TIMES * steps <= first + 1:
        times = (values + 1) / steps
    else:
        return ""
    levels = schedule.sigma(times.clamp(min=schedule.t_end, max=schedule.t_start)).tolist()
    return "+".join("0" if value == 0 else f"{level:.6g}" for value, level in zip(values.tolist(), levels, strict=True))


def polynomial(schedule: NoiseSchedule, steps: int, *, rho: float = 7.0) -> Grid:
    """Return levels whose rho-th roots are equally spaced. Source: Karras et al. 2022, arXiv:2206.00364, equation 5."""
    ends = schedule.sigma_first ** (1 / rho), schedule.sigma_min ** (1 / rho)
    return _with_ends(_linspace(*ends, steps) ** rho, schedule, schedule.sigma_first)


def logsnr(schedule: NoiseSchedule, steps: int) -> Grid:
    """Return levels equally spaced in lambda = -log sigma. Source: Lu et al. 2022, arXiv:2206.00927, section 3.4."""
    first = schedule.sigma_first
    return _with_ends(_linspace(math.log(first), math.log(schedule.sigma_min), steps).exp(), schedule, first)


def time_uniform(schedule: NoiseSchedule, steps: int, *, rho: float = 1.0) -> Grid:
    """Return levels at times whose rho-th roots are equally spaced; rho = 1 is uniform, 2 quadratic.

    The time is the model's own, or on an EDM schedule the time of the linear VP schedule with the same ends.
    Source: Lu et al. 2022, arXiv:2206.00927, section 4; the rule with rho is that of diff-sampler (arXiv:2312.00094).
    """
    clock = schedule.clock
    times = _linspace(clock.t_start ** (1 / rho), clock.t_end ** (1 / rho), steps) ** rho
    return _with_ends(clock.sigma(times), schedule)


def time_quadratic(schedule: NoiseSchedule, steps: int) -> Grid:
    """Return levels at times whose square roots are equally spaced: `time_uniform` with rho = 2.

    Source: the public code of DPM-Solver, UniPC and GAS, which use this name; LD3 uses it for `time_poly`.
    """
    return time_uniform(schedule, steps, rho=2.0)


def time_poly(schedule: NoiseSchedule, steps: int, *, rho: float = 2.0) -> Grid:
    """Return levels at times t_end + (t_start - t_end)(k/M)^rho for k = M..0; no root is taken of the ends.

    Source: Tong et al. 2024, arXiv:2405.15506 (LD3), whose "time_quadratic" is rho = 2, as is equation 23 of GAS,
    arXiv:2510.17699. Time is defined as in `time_uniform`.
    """
    clock = schedule.clock
    times = clock.t_end + (clock.t_start - clock.t_end) * _linspace(1.0, 0.0, steps) ** rho
    return _with_ends(clock.sigma(times), schedule)


def discrete(schedule: NoiseSchedule, steps: int, *, rho: float = 1.0) -> Grid:
    """Return levels at a discrete model's times whose rho-th roots are equally spaced.

    This is `time_uniform` under the name that diff-sampler (arXiv:2312.00094) uses for latent models. Its code takes
    no root of the first time, which is 1.

    Raises:
        GridError: the schedule is not discrete.
    """
    if not isinstance(schedule, VPDiscrete):
        raise GridError(
            asked=f"grid=discrete on {type(schedule).__name__}",
            wrong="this schedule has no discrete times",
            remedy="use time_uniform",
        )
    return time_uniform(schedule, steps, rho=rho)


def gits_ipndm(schedule: NoiseSchedule, steps: int) -> Grid:
    """Return the levels that GITS found for iPNDM on Stable Diffusion. Source: see `gits`."""
    return gits("ipndm", schedule, steps)


def gits_dpm(schedule: NoiseSchedule, steps: int) -> Grid:
    """Return the levels that GITS found for DPM-Solver++ on Stable Diffusion. Source: see `gits`."""
    return gits("dpm", schedule, steps)


def gits(solver: str, schedule: NoiseSchedule, steps: int) -> Grid:
    """Return the levels published for `solver` and `steps` on Stable Diffusion, with the schedule's own exact ends.

    Source: Chen et al. 2024, arXiv:2405.11326, as listed in the code of LD3 (arXiv:2405.15506); stored in
    registries/gits.toml.

    Raises:
        GridError: no list is published for that number of steps, or the schedule has other ends.
    """
    lists = {len(levels) - 1: levels for levels in registries.gits()[solver]}
    asked = f"grid=gits_{solver} with {steps} steps"
    if steps not in lists:
        raise GridError(asked=asked, wrong="none is published", remedy=f"use {', '.join(map(str, sorted(lists)))}")
    levels = torch.tensor(lists[steps], dtype=torch.float64)
    own = torch.tensor([schedule.sigma_max, schedule.sigma_min], dtype=torch.float64)
    if not torch.allclose(levels[[0, -1]], own, rtol=ROUNDED, atol=0.0):
        raise GridError(
            asked=asked,
            wrong=f"it goes from {levels[0]:g} to {levels[-1]:g}, as Stable Diffusion does, but this schedule "
            "goes from "
            f"{own[0]:g} to {own[1]:g}",
            remedy="use another grid",
        )
    return _with_ends(levels, schedule)


def learned(schedule: NoiseSchedule, steps: int) -> Grid:
    """Raise GridError: a learned grid comes from a solver's own parameters."""
    raise GridError(
        asked=f"grid=learned with {steps} steps", wrong="only a learned solver has one", remedy="name another grid"
    )


PARAMETERS = (
    *("rho", "shift", "offset", "a", "b", "c"),
    *("candidates", "warmup", "pilot", "cost", "discount", "own"),
)
"""Keyword arguments of grids; a solver passes its options of the same names."""


def searched(name: str) -> bool:
    """Return whether the named grid is the result of a search on the teacher."""
    return name in registries.searches


def parameters(name: str) -> dict[str, Any]:
    """Return the `PARAMETERS` that the named grid takes, with their defaults."""
    defaults = getattr(function(name), "__kwdefaults__", None) or {}
    return {key: defaults[key] for key in PARAMETERS if key in defaults}


def told_takers(key: str) -> str:
    """Return ", or take a grid that has ...", which ends an error on a parameter; empty if no grid has it."""
    found = []
    for name in registries.grids:
        with suppress(Exception):  # a plugin that doesn't load is reported where it is asked for
            found += [name] if key in parameters(name) else []
    if len(found) == 1:
        return f", or take the grid that has {key}: {found[0]}"
    return f", or take a grid that has {key}: {', '.join(found)}" if found else ""


def takes(name: str, keyword: str) -> bool:
    """Return whether the named grid takes a keyword besides its `PARAMETERS`.

    The keyword is `end`, the level that follows its calls, such as 0; or `afs`, whether the first step costs no call.
    """
    return keyword in (getattr(function(name), "__kwdefaults__", None) or {})


def function(name: str) -> Callable[..., Grid]:
    """Return the function (schedule, steps, *, rho) behind a grid's name.

    Raises:
        UnknownNameError: no such grid.
        PluginError: a plugin offers it but does not load.
    """
    found: Callable[..., Grid] = plugins.get(registries.grids, name)
    return found


def named(name: str, schedule: NoiseSchedule, steps: int, **given: Any) -> Grid:
    """Return the named grid of `steps` intervals on `schedule`.

    Args:
        given: keywords of the grid, see `PARAMETERS` and `takes`; its own default replaces None.

    Raises:
        UnknownNameError: no such grid.
        GridError: the grid does not fit the schedule or the number of steps, or its levels can't be computed.
        PluginError: a plugin offers it but does not load, fails, or returns no grid of `steps` intervals.
    """
    make, given = function(name), {key: value for key, value in given.items() if value is not None}
    with plugins.blamed(registries.grids, name):
        try:
            found = make(schedule, steps, **given)
        except OverflowError:  # a float's own; a tensor's becomes an infinite level, which Grid refuses
            asked = ":".join([f"grid={name}", *(f"{key}={value}" for key, value in given.items())])
            raise GridError(
                asked=asked,
                wrong="its levels are too large for float64",
                remedy="use a larger rho" if "rho" in given else "use another grid",
            ) from None
    if not isinstance(found, Grid) or found.steps != steps:
        told = f"a grid of {found.steps} steps" if isinstance(found, Grid) else repr(found)
        raise PluginError(
            asked=f"grid {name!r}",
            wrong=f"returned {told} where a Grid of {steps} was asked for",
            remedy="correct the plugin",
        )
    return found


def key(name: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the grid's part of a cell's key: its name, its parameters, and the version or source of its function.

    Raises:
        UnknownNameError: no such grid.
        PluginError: a plugin offers it but does not load.
    """
    made = function(name)
    numbers = {each: _plain(value) for each, value in given.items() if value is not None}
    if name in registries.grids.builtin:
        return {"name": name, "version": VERSIONS.get(name, 1), **numbers}
    return {"name": name, "source": registries.source(made), **numbers}


def found_key(method: Mapping[str, Any], grid: Grid) -> Mapping[str, Any]:
    """Return a solver's part of a key with the levels that a search found, where its grid is searched."""
    name = method["grid"].get("name", "")
    if grid.search is None or not searched(name):
        return method
    return {**method, "grid": {**method["grid"], "levels": list(grid.search.levels)}}


def _plain(value: float | str | bool) -> float | str | bool:
    """Return a parameter as it is written in a key: a number as a float."""
    return value if isinstance(value, (str, bool)) else float(value)


def resolve(name: str) -> str:
    """Return the name of the grid that `name` or an alias stands for.

    Raises:
        UnknownNameError: no such grid.
    """
    try:
        return registries.grids.resolve(name)
    except registries.UnknownName as error:
        raise UnknownNameError.of(error) from None


def _linspace(start: float, end: float, steps: int) -> Tensor:
    return torch.linspace(start, end, steps + 1, dtype=torch.float64)


def _with_ends(sigmas: Tensor, schedule: NoiseSchedule, first: float | None = None) -> Grid:
    """Return the grid with the schedule's exact ends: roots and powers miss them by an ulp or two."""
    sigmas[0], sigmas[-1] = first or schedule.sigma_max, schedule.sigma_min
    return Grid(schedule.rounded(sigmas), schedule)
