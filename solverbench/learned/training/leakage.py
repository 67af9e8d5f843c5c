"""The only access of training code to the metric's network; `losses` uses it only with `allow_metric_loss=true`.

A solver trained this way is marked in every table, because its distance in these features is meaningless.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable

from torch import Tensor

from solverbench.errors import TrainingError
from solverbench.teachers.teacher import Teacher

NETWORKS = {
    "digits": "solverbench.teachers.embedded.digits:load_metric",
    "shapes": "solverbench.teachers.embedded.shapes:load_metric",
}
"""Teacher name to loader: (device) -> differentiable features of the teacher's metric, for float images on [-1, 1]."""


def network(teacher: Teacher) -> Callable[[Tensor], Tensor]:
    """Return the metric's features as a function of float images [B, C, H, W] on [-1, 1].

    Raises:
        TrainingError: the teacher has no differentiable metric.
    """
    if teacher.base not in NETWORKS:
        raise TrainingError(
            f"loss metric_features: teacher {teacher.name!r} has no differentiable metric; use l2, l1 or huber"
        )
    module, _, loader = NETWORKS[teacher.base].partition(":")
    found: Callable[[Tensor], Tensor] = getattr(importlib.import_module(module), loader)(teacher.device)
    return found
