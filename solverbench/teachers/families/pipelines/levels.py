"""A pipeline's own levels and told times, read from its own `set_timesteps`."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from solverbench.errors import GridError, RecordError
from solverbench.method.rectified_flow import RectifiedFlow
from solverbench.method.schedules import NoiseSchedule
from solverbench.method.vp_discrete import VPDiscrete
from solverbench.teachers.families import schedulers
from solverbench.teachers.families.pipelines.adapter import Adapter

TRIED = 12
"""Number of steps whose pairs of told time and level are compared with the scheduler's rule."""

ROUNDED = 1.0
"""Largest difference between a told time and the rule's, in training steps: schedulers drop fractions."""


def shift_of_told(adapter: Adapter, made: dict[str, Any]) -> float:
    """Return the shift between told times and a flow's levels: t = s u/(1 + (s - 1) u), told M u; 1 if they are equal.

    Some pipelines shift their levels and tell the network unshifted times, CogView4 among them.

    Raises:
        RecordError: the pairs of told times and levels follow no such rule.
    """
    if not schedulers.flows(made):
        return 1.0
    told, sigmas = adapter.levels(TRIED)
    count = schedulers.steps(made)
    levels = sigmas[: len(told)]
    if len(levels) != len(told) or bool(((levels * count - told).abs() <= ROUNDED).all()):
        return 1.0
    inner = (levels > 1e-6) & (levels < 1 - 1e-6)
    t, u = levels[inner], told[inner] / count
    shifts = t * (1 - u) / (u * (1 - t))
    if not len(shifts) or float(shifts.max() - shifts.min()) > 1e-3 * float(shifts.mean()):
        raise RecordError(
            asked=adapter.name, wrong=f"{adapter.kind} tells its network times that follow no rule from its levels",
            remedy="use sb.Teacher around its network",
        )  # fmt: skip
    return float(shifts.mean())


def shifted(schedule: NoiseSchedule, shift: float) -> NoiseSchedule:
    """Return a flow's schedule whose first and last training times are moved by `shift_of_told`."""
    if shift == 1 or not isinstance(schedule, RectifiedFlow):
        return schedule
    first, last = (shift * t / (1 + (shift - 1) * t) for t in (schedule.t_first, schedule.t_end))
    return dataclasses.replace(schedule, t_first=first, t_end=last)


def told(made: dict[str, Any], schedule: NoiseSchedule, shift: float) -> Callable[[Tensor], Tensor]:
    """Return the map from the schedule's time to the network's; see `shift_of_told`."""
    plain: Callable[[Tensor], Tensor] = schedulers.told(made, schedule)
    if shift == 1:
        return plain
    return lambda t: plain(t / (shift - (shift - 1) * t))


def own(adapter: Adapter, schedule: NoiseSchedule) -> Callable[[int], Tensor]:
    """Return the function steps -> the levels [steps] at which the pipeline calls its network, in the EDM frame.

    Raises, when it is called:
        GridError: the pipeline makes another number of calls, or none with this number of steps.
    """
    found: dict[int, Tensor] = {}

    def levels(steps: int) -> Tensor:
        if steps not in found:
            found[steps] = _levels(adapter, schedule, steps)
        return found[steps].clone()

    return levels


def _levels(adapter: Adapter, schedule: NoiseSchedule, steps: int) -> Tensor:
    times, sigmas = adapter.levels(steps)
    if isinstance(schedule, RectifiedFlow):
        values = sigmas[:-1] if len(sigmas) else times / adapter.count
        made = torch.where(values < schedule.t_start, schedule.sigma(values), schedule.sigma_max)
    elif len(sigmas):
        made = sigmas[:-1]
    else:
        assert isinstance(schedule, VPDiscrete)
        made = schedule.sigma((times + 1) / len(schedule.log_alphas))
    kept = made[torch.cat((torch.ones(1, dtype=torch.bool), made.diff() != 0))]
    if len(kept) != steps:
        raise GridError(
            asked=f"grid=pipeline with {steps} steps", wrong=f"{adapter.kind} makes {len(kept)} calls",
            remedy="use another number of calls, or another grid",
        )  # fmt: skip
    return kept
