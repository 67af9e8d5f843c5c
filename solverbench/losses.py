"""What the student is trained to make small: the distance of its images from the teacher's, one number per image."""

from __future__ import annotations

import importlib
from collections.abc import Callable

import torch
from torch import Tensor

from solverbench.errors import TrainingError

HUBER_SCALE = 0.00054
"""Per square root of an image's size. Source: Song & Dhariwal 2023, arXiv:2310.14189, section 3.3."""

FEATURE_NETWORKS = {"digits": "solverbench.digits:load_loss"}
"""Teacher to the loader (device) -> network of its training-only features; never the network that measures."""

Distance = Callable[[Tensor, Tensor], Tensor]


def distance(name: str, teacher: str, device: torch.device | str) -> Distance:
    """Return the distance (student [B, C, H, W], teacher [B, C, H, W]) -> [B], differentiable in the student.

    Args:
        name: l2 (mean squared difference), l1 (mean absolute), huber (pseudo-Huber), features (mean squared difference
            of the features of the teacher's own loss network).
        teacher: its name, for `features`.

    Raises:
        TrainingError: the teacher has no loss network.
    """
    if name != "features":
        return {"l2": _l2, "l1": _l1, "huber": _huber}[name]
    if teacher not in FEATURE_NETWORKS:
        raise TrainingError(f"loss features: teacher {teacher!r} has no loss network; use l2, l1 or huber")
    module, _, loader = FEATURE_NETWORKS[teacher].partition(":")
    network = getattr(importlib.import_module(module), loader)(device)

    def features(student: Tensor, target: Tensor) -> Tensor:
        with torch.no_grad():
            wanted = network(target)
        gap: Tensor = network(student) - wanted
        return gap.square().flatten(1).sum(1)

    return features


def _l2(student: Tensor, target: Tensor) -> Tensor:
    return (student - target).square().flatten(1).mean(1)


def _l1(student: Tensor, target: Tensor) -> Tensor:
    return (student - target).abs().flatten(1).mean(1)


def _huber(student: Tensor, target: Tensor) -> Tensor:
    """(sqrt(|x - y|^2 + c^2) - c) / sqrt(P) with c = 0.00054 sqrt(P) for P pixels: a root mean square, smooth at 0."""
    mean = (student - target).square().flatten(1).mean(1)
    return (mean + HUBER_SCALE**2).sqrt() - HUBER_SCALE
