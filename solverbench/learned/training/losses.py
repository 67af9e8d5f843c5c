"""Training losses: distances between the student's and the teacher's images, one number per image."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from solverbench import plugins, registries
from solverbench.errors import PluginError, TrainingError
from solverbench.metrics.lpips import colour
from solverbench.metrics.lpips import network as load_lpips
from solverbench.teachers.teacher import FeatureNetwork, Teacher

HUBER_SCALE = 0.00054
"""Pseudo-Huber c per square root of the image size. Source: Song & Dhariwal 2023, arXiv:2310.14189, section 3.3."""

LOG_FLOOR = 1e-10
"""Mean squared difference below which `log_l2` no longer falls: an RMSE of 1e-5, below the error of any reference."""

LPIPS_SIDE = 224
"""Both images are resized to it first. Source: the public code of GAS, arXiv:2510.17699."""

Distance = Callable[[Tensor, Tensor], Tensor]


def distance(name: str, teacher: Teacher, *, allow_metric_loss: bool = False) -> Distance:
    """Return the distance (student [B, *shape], teacher's [B, *shape]) -> [B], differentiable in the student.

    Args:
        name: of a loss, in `registries.losses`: a function of the teacher that returns the distance.
        allow_metric_loss: without it metric_features is refused, and a loss is given the teacher without the network
            that measures.

    Raises:
        UnknownNameError, PluginError: no such loss, or a plugin's that can't be had, or a plugin's network that fails.
        TrainingError: the teacher has no such network.
        MissingError: LPIPS's package or weights are missing.
    """
    assert allow_metric_loss or name != "metric_features", "the recipe refuses it"
    loss = plugins.get(registries.losses, name)
    with plugins.blamed(registries.losses, name):
        made: Distance = loss(teacher if allow_metric_loss else teacher.without_metric())
    offer = registries.losses.plugin(name)
    return made if offer is None else _of_plugin(f"loss {name!r} of {offer.source}", name, made)


def _of_plugin(label: str, name: str, made: Distance) -> Distance:
    """Return the distance with checks of its contract: shape, gradient and finiteness."""
    if not callable(made):
        raise PluginError(
            asked=label,
            wrong=f"returned {made!r}, which can't be called",
            remedy="return a function of (student, target)",
        )

    def checked(student: Tensor, target: Tensor) -> Tensor:
        with plugins.blamed(registries.losses, name):
            found = made(student, target)
        if not isinstance(found, Tensor) or found.shape != (len(student),):
            raise PluginError(
                asked=label,
                wrong=f"returned {_described(found)} for {len(student)} images",
                remedy="return one number for each, [B]",
            )
        if student.requires_grad and not found.requires_grad:
            raise PluginError(
                asked=label, wrong="carries no gradient to the student's images", remedy="compute it with torch alone"
            )
        if student.isfinite().all() and not found.isfinite().all():
            raise PluginError(asked=label, wrong="isn't finite for finite images", remedy="correct it")
        return found

    return checked


def _described(found: object) -> str:
    return f"shape {tuple(found.shape)}" if isinstance(found, Tensor) else repr(found)


def l2(teacher: Teacher) -> Distance:
    """Return the mean squared difference of the final states."""
    return _l2


def l1(teacher: Teacher) -> Distance:
    """Return the mean absolute difference of the final states."""
    return _l1


def huber(teacher: Teacher) -> Distance:
    """Return the pseudo-Huber distance of the final states."""
    return _huber


def log_l2(teacher: Teacher) -> Distance:
    """Return log(1 + l2/1e-10), which is at least 0: the negative PSNR, times 0.23, plus a constant."""
    return _log_l2


def features(teacher: Teacher) -> Distance:
    """Return the squared difference of the images' features in the teacher's own loss network.

    Raises:
        TrainingError: the teacher has no such network.
    """
    if "loss" not in teacher.features:
        raise TrainingError(
            asked="loss features", wrong=f"teacher {teacher.name!r} has no loss network", remedy="use l2, l1 or huber"
        )
    return _on_images(teacher, _features(_network(teacher, teacher.features["loss"])))


def metric_features(teacher: Teacher) -> Distance:
    """Return the same by the network that measures: the one place where training code asks for it.

    `distance` lets it through for `allow_metric_loss` alone. A solver trained so is marked in every table: its distance
    in these features means nothing.

    Raises:
        TrainingError: the teacher has no differentiable metric.
    """
    if "metric" not in teacher.features:
        raise TrainingError(
            asked="loss metric_features",
            wrong=f"teacher {teacher.name!r} has no differentiable metric",
            remedy="use l2, l1 or huber",
        )
    return _on_images(teacher, _features(_network(teacher, teacher.features["metric"])))


def _network(teacher: Teacher, load: Callable[[str], FeatureNetwork]) -> FeatureNetwork:
    """Return the network that `load` gives for the teacher's device; the output of a plugin's network is checked."""
    name = teacher.base
    offer = registries.teachers.plugin(name) if name in registries.teachers else None
    if offer is None:
        return load(teacher.device)
    label = f"features of teacher {name!r} of {offer.source}"
    with plugins.blamed(registries.teachers, name):
        network = load(teacher.device)

    def checked(images: Tensor) -> Tensor:
        with plugins.blamed(registries.teachers, name):
            found = network(images)
        if not isinstance(found, Tensor) or found.ndim < 2 or len(found) != len(images):
            raise PluginError(
                asked=label,
                wrong=f"returned {_described(found)} for {len(images)} images",
                remedy="return one vector for each, [B, D]",
            )
        if images.requires_grad and not found.requires_grad:
            raise PluginError(
                asked=label, wrong="carry no gradient to the images", remedy="compute them with torch alone"
            )
        return found

    return checked


def lpips(teacher: Teacher) -> Distance:
    """Return LPIPS-VGG of images resized to 224 x 224.

    Raises:
        MissingError: its package or weights are missing.
    """
    return _on_images(teacher, _lpips(teacher.device, LPIPS_SIDE))


def lpips_native(teacher: Teacher) -> Distance:
    """Return LPIPS-VGG of images at their own size.

    Raises:
        MissingError: its package or weights are missing.
    """
    return _on_images(teacher, _lpips(teacher.device, None))


def _on_images(teacher: Teacher, gap: Distance) -> Distance:
    """Return a distance of images as a distance of final states."""

    def decoded(student: Tensor, target: Tensor) -> Tensor:
        with torch.no_grad():
            wanted = teacher.images(target)
        return gap(teacher.images(student), wanted)

    return decoded


def _features(network: FeatureNetwork) -> Distance:
    def gap(student: Tensor, target: Tensor) -> Tensor:
        with torch.no_grad():
            wanted = network(target)
        return (network(student) - wanted).square().flatten(1).sum(1)

    return gap


def _lpips(device: str, side: int | None) -> Distance:
    """LPIPS-VGG of images clipped to [-1, 1], grey ones repeated; Zhang et al. 2018, arXiv:1801.03924."""
    network = load_lpips("loss lpips", device, download=False)

    def seen(images: Tensor) -> Tensor:
        if side is not None:
            images = interpolate(images, (side, side), mode="bilinear", align_corners=False, antialias=False)
        return colour(images)

    return lambda student, target: network(seen(student), seen(target)).flatten()


def _l2(student: Tensor, target: Tensor) -> Tensor:
    return (student - target).square().flatten(1).mean(1)


def _log_l2(student: Tensor, target: Tensor) -> Tensor:
    """Return the logarithm of the mean squared difference of each image, in units of `LOG_FLOOR`.

    Source: Shaul et al. 2024, arXiv:2403.01329 (its PSNR loss).
    """
    return torch.log1p(_l2(student, target) / LOG_FLOOR)


def _l1(student: Tensor, target: Tensor) -> Tensor:
    return (student - target).abs().flatten(1).mean(1)


def _huber(student: Tensor, target: Tensor) -> Tensor:
    """Return (sqrt(|x - y|^2 + c^2) - c) / sqrt(P), c = 0.00054 sqrt(P) for P pixels: an RMS that is smooth at 0."""
    mean = (student - target).square().flatten(1).mean(1)
    return (mean + HUBER_SCALE**2).sqrt() - HUBER_SCALE
