"""What the student is trained to make small: the distance of its images from the teacher's, one number per image."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from solverbench.errors import MissingError, TrainingError
from solverbench.teachers import Teacher

HUBER_SCALE = 0.00054
"""Per square root of an image's size. Source: Song & Dhariwal 2023, arXiv:2310.14189, section 3.3."""

FEATURE_NETWORKS = {"digits": "solverbench.digits:load_loss", "shapes": "solverbench.shapes:load_loss"}
"""Teacher to the loader (device) -> network of its training-only features; never the network that measures."""

LPIPS_SIDE = 224
"""Both images are resized to it first. Source: the public code of GAS, arXiv:2510.17699."""
LPIPS_WEIGHTS = "https://download.pytorch.org/models/vgg16-397923af.pth"

Distance = Callable[[Tensor, Tensor], Tensor]


def distance(name: str, teacher: Teacher, *, allow_metric_loss: bool = False) -> Distance:
    """Return the distance (student [B, *shape], teacher's [B, *shape]) -> [B], differentiable in the student.

    Args:
        name: on the final states themselves, l2 (mean squared difference), l1 (mean absolute) or huber (pseudo-Huber);
            on decoded images, features (mean squared difference of the features of the teacher's own loss network),
            lpips (LPIPS-VGG at 224 x 224), lpips_native (at the images' own size), or metric_features (as features, of
            the network that measures).
        allow_metric_loss: without it metric_features is refused.

    Raises:
        TrainingError: the teacher has no such network.
        MissingError: LPIPS's package or weights aren't there.
    """
    if name in _ON_STATES:
        return _ON_STATES[name]
    on_images = _perceptual(name, teacher, allow_metric_loss)
    decode = teacher.decode or _as_it_is

    def decoded(student: Tensor, target: Tensor) -> Tensor:
        with torch.no_grad():
            wanted = decode(target)
        return on_images(decode(student), wanted)

    return decoded


def _perceptual(name: str, teacher: Teacher, allow_metric_loss: bool) -> Distance:
    if name.startswith("lpips"):
        return _lpips(teacher.device, None if name == "lpips_native" else LPIPS_SIDE)
    if name == "features":
        if teacher.base not in FEATURE_NETWORKS:
            raise TrainingError(f"loss features: teacher {teacher.name!r} has no loss network; use l2, l1 or huber")
        module, _, loader = FEATURE_NETWORKS[teacher.base].partition(":")
        return _features(getattr(importlib.import_module(module), loader)(teacher.device))
    assert allow_metric_loss, "the recipe refuses it"
    # Found by a name put together here: no other line of training code leads to what measures.
    return _features(importlib.import_module("solverbench.leakage").network(teacher))


def _features(network: Callable[[Tensor], Tensor]) -> Distance:
    def gap(student: Tensor, target: Tensor) -> Tensor:
        with torch.no_grad():
            wanted = network(target)
        return (network(student) - wanted).square().flatten(1).sum(1)

    return gap


def _lpips(device: str, side: int | None) -> Distance:
    """LPIPS-VGG of images clipped to [-1, 1], grey ones repeated; Zhang et al. 2018, arXiv:1801.03924."""
    if importlib.util.find_spec("lpips") is None:
        raise MissingError(
            "loss lpips: the package lpips isn't there; pip install 'solverbench[lpips]', or use l2 or l1"
        )
    weights = Path(torch.hub.get_dir()) / "checkpoints" / Path(LPIPS_WEIGHTS).name
    if not weights.is_file():
        raise MissingError(f"loss lpips: VGG16's weights aren't there; put {LPIPS_WEIGHTS} at {weights}")
    network = importlib.import_module("lpips").LPIPS(net="vgg", verbose=False).requires_grad_(False).eval().to(device)

    def seen(images: Tensor) -> Tensor:
        if side is not None:
            images = interpolate(images, (side, side), mode="bilinear", align_corners=False, antialias=False)
        return images.clamp(-1, 1).expand(-1, 3, -1, -1) if images.shape[1] == 1 else images.clamp(-1, 1)

    return lambda student, target: network(seen(student), seen(target)).flatten()


def _as_it_is(state: Tensor) -> Tensor:
    return state


def _l2(student: Tensor, target: Tensor) -> Tensor:
    return (student - target).square().flatten(1).mean(1)


def _l1(student: Tensor, target: Tensor) -> Tensor:
    return (student - target).abs().flatten(1).mean(1)


def _huber(student: Tensor, target: Tensor) -> Tensor:
    """(sqrt(|x - y|^2 + c^2) - c) / sqrt(P) with c = 0.00054 sqrt(P) for P pixels: a root mean square, smooth at 0."""
    mean = (student - target).square().flatten(1).mean(1)
    return (mean + HUBER_SCALE**2).sqrt() - HUBER_SCALE


_ON_STATES: dict[str, Distance] = {"l2": _l2, "l1": _l1, "huber": _huber}
