"""What a teacher's network is told, and what it predicts, in diffusers' words."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from solverbench.adaptors import Adapted
from solverbench.tableaux import Plan
from solverbench.teachers import Teacher

PREDICTIONS = {"eps": "epsilon", "v": "v_prediction", "x0": "sample", "flow": "flow_prediction"}


@dataclass(frozen=True)
class Frame:
    """The network's own view of a plan's calls.

    Args:
        prediction: epsilon, v_prediction, sample or flow_prediction.
        alphas: [N], the scale of the clean image in its state.
        timesteps: [N], what it is told.
        own: whether the teacher holds a network that takes them. If not they are the plan's levels, for a network that
            is `denoise(x, sigma)` itself.
    """

    prediction: str
    alphas: tuple[float, ...]
    timesteps: tuple[float, ...]
    own: bool


def frame(teacher: Teacher, plan: Plan) -> Frame:
    """Return how the teacher's network, if it is an `Adapted` one, sees the calls of `plan`."""
    adapted = teacher.denoiser([0])
    if not isinstance(adapted, Adapted):
        return Frame("sample", (1.0,) * plan.nfe, plan.sigmas, own=False)
    t = adapted.schedule.time(torch.tensor(plan.sigmas, dtype=torch.float64))
    alphas, told = adapted.schedule.alpha(t), t.clamp(max=adapted.schedule.t_last)
    told = told if adapted.told is None else adapted.told(told)
    return Frame(PREDICTIONS[adapted.predicts], tuple(alphas.tolist()), tuple(told.tolist()), own=True)
