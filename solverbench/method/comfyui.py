"""Grids of ComfyUI's schedulers, and the two of Align Your Steps that ComfyUI offers beside them.

All but `arctan` give the levels of `steps` calls and the level after the last one, `end`, which is the schedule's own
or 0, as ComfyUI appends it. Where ComfyUI counts training steps, a flow here has a thousand of them.
Source: the rules of ComfyUI 0.3; each function names the paper behind its rule, if there is one.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from solverbench import registries
from solverbench.errors import GridError
from solverbench.method.grids import ROUNDED, Grid
from solverbench.method.rectified_flow import RectifiedFlow
from solverbench.method.schedules import NoiseSchedule
from solverbench.method.spacings import count, ended, shifted, unshifted, whole_steps
from solverbench.method.vp_discrete import VPDiscrete

FLOW_STEPS = 1000
"""Number of training steps that a flow is taken to have."""


def arctan(schedule: NoiseSchedule, steps: int, *, c: float = 1.0) -> Grid:
    """Return levels c tan(angle) at equal steps of the angle, which is arctan(sigma/c).

    They minimise the KL divergence of DDIM's samples to the data where these are Gaussian.
    Source: Sabour et al. 2024, arXiv:2404.14507, theorem 3.1. ComfyUI's kl_optimal has c = 1.

    Args:
        c: standard deviation of the data.
    """
    first, last = (math.atan(level / c) for level in (schedule.sigma_first, schedule.sigma_min))
    sigmas = c * torch.linspace(first, last, steps + 1, dtype=torch.float64).tan()
    sigmas[0], sigmas[-1] = schedule.sigma_first, schedule.sigma_min
    return Grid(schedule.rounded(sigmas), schedule)


def ays(schedule: NoiseSchedule, steps: int, *, end: float | None = None) -> Grid:
    """Return the levels of Align Your Steps for Stable Diffusion 1.5, or for Stable Video Diffusion on its schedule.

    Raises:
        GridError: the schedule has the ends of neither.
    """
    svd = math.isclose(schedule.sigma_max, registries.ays("svd").ends[0], rel_tol=ROUNDED)
    return _ays("ays", "svd" if svd else "sd15", schedule, steps, end)


def ays_sdxl(schedule: NoiseSchedule, steps: int, *, end: float | None = None) -> Grid:
    """Return the levels of Align Your Steps for Stable Diffusion XL.

    Raises:
        GridError: the schedule has other ends.
    """
    return _ays("ays_sdxl", "sdxl", schedule, steps, end)


def _ays(name: str, table: str, schedule: NoiseSchedule, steps: int, end: float | None) -> Grid:
    """Return a published table of ten steps; for another number, its logarithms interpolated in the index.

    The table's last step ends at the schedule's own last level. Source: arXiv:2404.14507 and its project page.
    """
    known, asked = registries.ays(table), f"grid={name} with {steps} calls"
    own = schedule.sigma_max, schedule.sigma_min
    if not all(math.isclose(a, b, rel_tol=ROUNDED) for a, b in zip(own, known.ends, strict=True)):
        raise GridError(
            asked=asked,
            wrong=f"it goes from {known.ends[0]:g} to {known.ends[1]:g}, as {known.model} does, but this schedule goes "
            f"from {own[0]:g} to {own[1]:g}",
            remedy="use another grid, such as arctan",
        )
    logs = np.log([schedule.sigma_max, *known.levels[1:], schedule.sigma_min])
    places = np.arange(steps) * (len(logs) - 1) / steps
    sigmas = torch.from_numpy(np.exp(np.interp(places, np.arange(len(logs)), logs)))
    sigmas[0] = schedule.sigma_max
    return ended(asked, schedule, schedule.rounded(sigmas), end, "give end=zero")


def simple(schedule: NoiseSchedule, steps: int, *, shift: float | None = None, end: float | None = None) -> Grid:
    """Return levels at training steps M - 1 - floor(k M/N), k = 0..N-1.

    Raises:
        GridError: the schedule is neither discrete nor a flow, or a step is asked for twice.
    """
    known = _count("simple", schedule, shift)
    return _at_steps("simple", schedule, known - 1 - np.floor(np.arange(steps) * (known / steps)), shift, end)


def normal(schedule: NoiseSchedule, steps: int, *, shift: float | None = None, end: float | None = None) -> Grid:
    """Return levels at N equally spaced training steps from the last to the first, which may be fractions.

    On a flow they are at N equally spaced u from 1 to t_end, shifted: those of `linspace`. The last call is at
    sigma_min, which only `end` = 0 follows.

    Raises:
        GridError: the schedule is neither discrete nor a flow.
    """
    return _between("normal", schedule, np.arange(steps) / max(steps - 1, 1), shift, end)


def sgm_uniform(schedule: NoiseSchedule, steps: int, *, shift: float | None = None, end: float | None = None) -> Grid:
    """Return levels at the first N of N + 1 equally spaced training steps from the last to the first: see `normal`.

    Raises:
        GridError: the schedule is neither discrete nor a flow.
    """
    return _between("sgm_uniform", schedule, np.arange(steps) / steps, shift, end)


def ddim_uniform(schedule: NoiseSchedule, steps: int, *, shift: float | None = None, end: float | None = None) -> Grid:
    """Return levels at training steps 1 + k s below M, where the stride s is M // N.

    ComfyUI makes more than N calls where N does not divide M. Here N is the number of calls, which some strides miss.

    Raises:
        GridError: the schedule is neither discrete nor a flow, or no stride gives N calls.
    """
    known = _count("ddim_uniform", schedule, shift)
    for asked in range(steps, 0, -1):
        found = np.arange(1, known, max(known // asked, 1))
        if len(found) == steps:
            return _at_steps("ddim_uniform", schedule, found[::-1].astype(float), shift, end)
    made = len(range(1, known, max(known // steps, 1)))
    raise GridError(
        asked=f"grid=ddim_uniform with {steps} calls",
        wrong=f"ComfyUI's {steps} steps are {made} calls, and no number of its steps makes {steps}",
        remedy="use another number of calls",
    )


def beta(
    schedule: NoiseSchedule, steps: int, *, a: float = 0.6, b: float = 0.6, shift: float | None = None,
    end: float | None = None,
) -> Grid:  # fmt: skip
    """Return levels at training steps that are quantiles of Beta(a, b) at 1 - k/N, k = 0..N-1, rounded.

    On a schedule without training steps, the quantiles are those of its time, or on an EDM schedule of the time of the
    linear VP schedule with the same ends.
    Source: Lee et al. 2024, arXiv:2407.12173, with ComfyUI's defaults.

    Raises:
        GridError: a training step is asked for twice.
    """
    from scipy.special import betaincinv  # a finished run needs no scipy

    places = betaincinv(a, b, 1 - np.arange(steps) / steps)
    if isinstance(schedule, (VPDiscrete, RectifiedFlow)):
        known = _count("beta", schedule, shift)
        return _at_steps("beta", schedule, np.rint(places * (known - 1)), shift, end)
    unshifted("beta", schedule, shift)
    clock = schedule.clock
    sigmas = clock.sigma(torch.from_numpy(clock.t_end + (clock.t_start - clock.t_end) * places))
    sigmas[0] = schedule.sigma_max
    return ended(f"grid=beta with {steps} calls", schedule, schedule.rounded(sigmas), end, "use fewer calls")


LINEAR_END = 0.025
"""How far the time of `linear_quadratic` falls in its linear half, as a share of the whole."""


def linear_quadratic(schedule: NoiseSchedule, steps: int, *, end: float | None = None) -> Grid:
    """Return levels at flow times that fall linearly from 1 to 0.975 in half of the calls, then quadratically to 0.

    At the join both the time and its slope are continuous. On a schedule that isn't a flow the values are shares of
    sigma_max in place of times, as in ComfyUI.
    Source: the code of Mochi (Genmo 2024), which ComfyUI names.
    """
    linear = steps // 2 or 1
    k = np.arange(steps)
    beyond = np.maximum(k - linear, 0)
    curve = (1 - LINEAR_END * steps / linear) / max(steps - linear, 1) ** 2
    left = torch.from_numpy(1 - LINEAR_END / linear * k - curve * beyond**2)
    flow = isinstance(schedule, RectifiedFlow)
    sigmas = schedule.sigma(schedule.t_start * left) if flow else schedule.sigma_max * left
    sigmas[0] = schedule.sigma_max
    asked = f"grid=linear_quadratic with {steps} calls"
    return ended(asked, schedule, schedule.rounded(sigmas), end, "give end=zero")


def _count(name: str, schedule: NoiseSchedule, shift: float | None) -> int:
    """Return the number of training steps."""
    if isinstance(schedule, RectifiedFlow):
        return FLOW_STEPS
    unshifted(name, schedule, shift)
    return count(name, schedule, "or a flow")


def _at_steps(
    name: str, schedule: NoiseSchedule, steps: NDArray[np.floating], shift: float | None, end: float | None
) -> Grid:
    """Return the levels at whole training steps, falling, from 0."""
    asked = f"grid={name} with {len(steps)} calls"
    if len(np.unique(steps)) < len(steps):
        raise GridError(asked=asked, wrong="two calls are at one training step", remedy="use fewer calls")
    if not isinstance(schedule, RectifiedFlow):
        return whole_steps(name, schedule, steps, end)
    u = torch.from_numpy((steps + 1) / FLOW_STEPS)
    return ended(asked, schedule, _flow_levels(schedule, u, shift), end, "give end=zero")


def _between(
    name: str, schedule: NoiseSchedule, shares: NDArray[np.floating], shift: float | None, end: float | None
) -> Grid:
    """Return the levels at shares of the way from the last training step to the first."""
    known, asked = _count(name, schedule, shift), f"grid={name} with {len(shares)} calls"
    way = torch.from_numpy(shares)
    if isinstance(schedule, RectifiedFlow):
        sigmas = _flow_levels(schedule, 1 - (1 - schedule.t_end) * way, shift)
    else:  # ComfyUI interpolates log sigma between training steps
        logs = schedule.sigma(torch.arange(1, known + 1, dtype=torch.float64) / known).log()
        steps = (known - 1) * (1 - way)
        below = steps.long().clamp(max=known - 2)
        sigmas = torch.lerp(logs[below], logs[below + 1], steps - below).exp()
    return ended(asked, schedule, sigmas, end, "give end=zero")


def _flow_levels(schedule: RectifiedFlow, u: Tensor, shift: float | None) -> Tensor:
    """Return the levels at a flow's times before their shift."""
    times = shifted(u, schedule.shift if shift is None else shift)
    return torch.where(times < schedule.t_start, schedule.sigma(times), schedule.sigma_max)
