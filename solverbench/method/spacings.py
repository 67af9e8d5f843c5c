"""Grids of diffusers' pipelines: where its schedulers place their calls, and flows with a shift.

Each gives the levels of `steps` calls and the level after the last one, `end`, which is the schedule's own or 0. The
calls are diffusers'; its schedulers differ in that last level (set_alpha_to_one, final_sigmas_type).
Source: the code of diffusers 0.42.1; Lin et al. 2023, arXiv:2305.08891, table 2, for the names.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from solverbench.errors import GridError
from solverbench.method.grids import Grid
from solverbench.method.rectified_flow import RectifiedFlow
from solverbench.method.schedules import NoiseSchedule
from solverbench.method.vp_discrete import VPDiscrete


def leading(schedule: NoiseSchedule, steps: int, *, offset: int = 1, end: float | None = None) -> Grid:
    """Return levels at training steps k (M // N) + offset, k = N-1..0: timestep_spacing=leading of DDIM and Euler.

    Args:
        offset: steps_offset; Stable Diffusion's is 1. At 0 the last call is at sigma_min, which only `end` = 0 follows.

    Raises:
        GridError: the schedule is not discrete, or a step lies outside it.
    """
    known = count("leading", schedule)
    return whole_steps("leading", schedule, np.arange(steps)[::-1] * (known // steps) + offset, end)


def dpm_leading(schedule: NoiseSchedule, steps: int, *, offset: int = 1, end: float | None = None) -> Grid:
    """Return levels at training steps k (M // (N+1)) + offset, k = N..1: leading of DPM-Solver, UniPC and DEIS.

    Raises:
        GridError: the schedule is not discrete, or a step lies outside it.
    """
    known = count("dpm_leading", schedule)
    return whole_steps("dpm_leading", schedule, np.arange(1, steps + 1)[::-1] * (known // (steps + 1)) + offset, end)


def trailing(schedule: NoiseSchedule, steps: int, *, shift: float | None = None, end: float | None = None) -> Grid:
    """Return levels at training steps round(M - k M/N) - 1, k = 0..N-1: timestep_spacing=trailing.

    On a flow they are at u = 1 - k/N, shifted: the times that pipelines of FLUX.1 and later ones give.

    Raises:
        GridError: the schedule is neither discrete nor a flow.
    """
    if isinstance(schedule, RectifiedFlow):
        return _at_times("trailing", schedule, 1 - torch.arange(steps, dtype=torch.float64) / steps, shift, end)
    unshifted("trailing", schedule, shift)
    known = count("trailing", schedule, "or a flow")
    return whole_steps("trailing", schedule, np.round(np.arange(known, 0, -known / steps))[:steps] - 1, end)


def linspace(schedule: NoiseSchedule, steps: int, *, shift: float | None = None, end: float | None = None) -> Grid:
    """Return levels at training steps round((M-1)(N-1-k)/(N-1)), k = 0..N-1: linspace of DDIM and DDPM.

    The last call is at sigma_min, which only `end` = 0 follows. On a flow they are at N equally spaced u from 1 to
    t_end, shifted: the times of FlowMatchEulerDiscreteScheduler where its pipeline gives none, as that of SD3.

    Raises:
        GridError: the schedule is neither discrete nor a flow.
    """
    if isinstance(schedule, RectifiedFlow):
        u = torch.linspace(1.0, schedule.t_end, steps, dtype=torch.float64)
        return _at_times("linspace", schedule, u, shift, end)
    unshifted("linspace", schedule, shift)
    known = count("linspace", schedule, "or a flow")
    if steps == 1:
        raise GridError(asked="grid=linspace with 1 call", wrong="it would be at the last level", remedy="use trailing")
    return whole_steps("linspace", schedule, _linear(known, steps), end)


def dpm_linspace(schedule: NoiseSchedule, steps: int, *, end: float | None = None) -> Grid:
    """Return levels at training steps round((M-1)(N-k)/N), k = 0..N-1: linspace of DPM-Solver, UniPC and DEIS.

    Raises:
        GridError: the schedule is not discrete.
    """
    return whole_steps("dpm_linspace", schedule, _linear(count("dpm_linspace", schedule), steps + 1)[:-1], end)


def flow_shift(schedule: NoiseSchedule, steps: int, *, shift: float | None = None) -> Grid:
    """Return a flow's levels at t = s u/(1 + (s - 1) u) for equal steps in u, between the schedule's own ends.

    Source: Esser et al. 2024, arXiv:2403.03206, equation 23.

    Args:
        shift: s; the schedule's own if None.

    Raises:
        GridError: the schedule is not a flow.
    """
    if not isinstance(schedule, RectifiedFlow):
        raise GridError(
            asked=f"grid=flow_shift on {type(schedule).__name__}",
            wrong="only a flow has a shift",
            remedy="use time_uniform",
        )
    s = schedule.shift if shift is None else shift
    first, last = (t / (s * (1 - t) + t) for t in (schedule.t_start, schedule.t_end))
    sigmas = schedule.sigma(shifted(torch.linspace(first, last, steps + 1, dtype=torch.float64), s))
    sigmas[0], sigmas[-1] = schedule.sigma_max, schedule.sigma_min
    return Grid(sigmas, schedule)


def pipeline(schedule: NoiseSchedule, steps: int, *, end: float | None = None) -> Grid:
    """Return the levels at which a diffusers pipeline's own scheduler calls the network, for this number of steps.

    A folder of the diffusers family has them if it is a flow's: the scheduler's shift, static or by the resolution,
    `shift_terminal` and stretched times included. With family=pipeline any pipeline has them.

    Raises:
        GridError: the teacher is no pipeline, or its pipeline makes another number of calls.
    """
    asked = f"grid=pipeline with {steps} calls"
    sigmas = schedule.calls(steps)
    if sigmas is None:
        raise GridError(
            asked=asked, wrong="it isn't known where a pipeline of this teacher would call it",
            remedy="give its folder with family=pipeline, or name another grid",
        )  # fmt: skip
    return ended(asked, schedule, sigmas, end, "give end=zero")


def count(name: str, schedule: NoiseSchedule, more: str = "") -> int:
    """Return M, the number of training steps."""
    if isinstance(schedule, VPDiscrete):
        return len(schedule.log_alphas)
    raise GridError(
        asked=f"grid={name} on {type(schedule).__name__}",
        wrong=" ".join(["it needs a discrete schedule", more]).strip(),
        remedy="use time_uniform",
    )


def unshifted(name: str, schedule: NoiseSchedule, shift: float | None) -> None:
    """Check that no shift is given; call it where the schedule is no flow.

    Raises:
        GridError: one is given.
    """
    if shift is not None:
        raise GridError(
            asked=f"grid={name}:shift={shift:g} on {type(schedule).__name__}",
            wrong="only a flow has a shift",
            remedy="leave shift out",
        )


def _linear(count: int, points: int) -> NDArray[Any]:
    """Return whole steps equally spaced from the last training step to the first one, as numpy rounds them."""
    return np.linspace(0, count - 1, points).round()[::-1]


def shifted(u: Tensor, shift: float) -> Tensor:
    return shift * u / (1 + (shift - 1) * u)


def _at_times(name: str, schedule: RectifiedFlow, u: Tensor, shift: float | None, end: float | None) -> Grid:
    times = shifted(u, schedule.shift if shift is None else shift)
    sigmas = torch.where(times < schedule.t_start, schedule.sigma(times), schedule.sigma_max)
    return ended(f"grid={name} with {len(u)} calls", schedule, sigmas, end, "give end=zero, or a shift above 1")


def whole_steps(name: str, schedule: NoiseSchedule, steps: NDArray[Any], end: float | None) -> Grid:
    """Return the levels of a discrete schedule at whole training steps, falling, from 0."""
    assert isinstance(schedule, VPDiscrete)
    known, asked = len(schedule.log_alphas), f"grid={name} with {len(steps)} calls"
    if len(set(steps.tolist())) < len(steps) or steps[0] >= known or steps[-1] < 0:
        raise GridError(
            asked=asked,
            wrong=f"it places calls from training step {steps[0]:g} to {steps[-1]:g} of 0 to {known - 1}",
            remedy="use fewer calls or another offset",
        )
    times = (torch.tensor(steps.copy(), dtype=torch.float64) + 1) / known
    return ended(asked, schedule, schedule.sigma(times), end, "give end=zero, or an offset above 0 where it has one")


def ended(asked: str, schedule: NoiseSchedule, sigmas: Tensor, end: float | None, remedy: str) -> Grid:
    """Return the levels of calls and the level after them, which must be lower."""
    last = schedule.sigma_min if end is None else end
    if not float(sigmas[-1]) > last * (1 + 1e-9):
        raise GridError(
            asked=asked,
            wrong=f"its last call is at {float(sigmas[-1]):g}, and the model's levels end at {last:g}",
            remedy=remedy,
        )
    return Grid(torch.cat([sigmas, sigmas.new_tensor([last])]), schedule)
