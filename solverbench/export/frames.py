"""A teacher's network in diffusers' terms: prediction type, alphas and timesteps."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from solverbench.method.tableau import Plan
from solverbench.method.vp_discrete import VPDiscrete
from solverbench.teachers.adaptors import Adapted
from solverbench.teachers.teacher import Teacher

PREDICTIONS = {"eps": "epsilon", "v": "v_prediction", "x0": "sample", "flow": "flow_prediction"}


@dataclass(frozen=True)
class Frame:
    """A plan's calls in the network's own frame.

    Args:
        prediction: epsilon, v_prediction, sample or flow_prediction.
        alphas: scale of the clean image in the network's state at each call, [N].
        timesteps: times told to the network, [N].
        steps: number of training steps; 1000 if unknown.
        own: whether the teacher has a network in such a frame. If not, timesteps are the plan's levels, for a network
            that is `denoise(x, sigma)` itself.
    """

    prediction: str
    alphas: tuple[float, ...]
    timesteps: tuple[float, ...]
    steps: int
    own: bool


def own(teacher: Teacher) -> bool:
    """Return whether the teacher has a network in such a frame, which its pipeline calls."""
    return isinstance(teacher.denoiser([0]), Adapted)


def frame(teacher: Teacher, plan: Plan) -> Frame:
    """Return the calls of `plan` in the frame of the teacher's network; that of `denoise` unless it is `Adapted`."""
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
