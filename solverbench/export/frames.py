"""What a teacher's network is told, and what it predicts, in diffusers' words."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from solverbench.method.schedules import VPDiscrete
from solverbench.method.tableau import Plan
from solverbench.teachers.adaptors import Adapted
from solverbench.teachers.teacher import Teacher

PREDICTIONS = {"eps": "epsilon", "v": "v_prediction", "x0": "sample", "flow": "flow_prediction"}


@dataclass(frozen=True)
class Frame:
    """The network's own view of a plan's calls.

    Args:
        prediction: epsilon, v_prediction, sample or flow_prediction.
        alphas: [N], the scale of the clean image in its state.
        timesteps: [N], what it is told.
        steps: how many times it was trained at; 1000 where nothing says.
        own: whether the teacher holds a network that takes them. If not they are the plan's levels, for a network that
            is `denoise(x, sigma)` itself.
    """

    prediction: str
    alphas: tuple[float, ...]
    timesteps: tuple[float, ...]
    steps: int
    own: bool


def frame(teacher: Teacher, plan: Plan) -> Frame:
    """Return how the teacher's network, if it is an `Adapted` one, sees the calls of `plan`."""
    adapted = teacher.denoiser([0])
    if not isinstance(adapted, Adapted):
        return Frame("sample", (1.0,) * plan.nfe, plan.sigmas, 1000, own=False)
    schedule, told = adapted.schedule, adapted.told or (lambda t: t)
    t = schedule.time(torch.tensor(plan.sigmas, dtype=torch.float64))
    timesteps = told(t.clamp(max=schedule.t_last))
    last = round(float(told(torch.ones((), dtype=torch.float64))))
    return Frame(
        prediction=PREDICTIONS[adapted.predicts],
        alphas=tuple(schedule.alpha(t).tolist()),
        timesteps=tuple(timesteps.tolist()),
        steps=len(schedule.log_alphas) if isinstance(schedule, VPDiscrete) else last,
        own=True,
    )
