"""The embedded teacher `shapes`: a class-conditional U-Net of 16x16 colour images, with metric and references.

Training code gets `shapes.loss` through `Teacher.features["loss"]` and must never import `shapes.metric`.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from solverbench.teachers.embedded.conditional import Kind
    from solverbench.teachers.embedded.shapes.loss import LossNet
    from solverbench.teachers.embedded.shapes.metric import MetricNet
    from solverbench.teachers.teacher import Teacher

FOLDER = Path(__file__).parent / "data"


def load(device: str = "cpu", *, guidance: float = 1.0, classes: str = "seed", folder: Path = FOLDER) -> Teacher:
    """Return the teacher on `device`, with its evaluation if there is a reference of its own samples.

    Args:
        guidance: w in e_u + w (e_c - e_u); 1 means no guidance, with one pass per call; any other value takes two.
        classes: rule from image seed to class: `seed` (seed modulo 10), `uniform` or `fixed:K`; with `fixed:K` only
            paired errors are measured, as the references contain all classes.
        folder: folder of its weights, references and record; the package's own by default.

    Raises:
        UserError: an option out of range.
        MissingError: a file doesn't exist.
        RecordError: a file differs from the recorded one, or the references belong to other weights.
    """
    found = kind()
    return found.load(device, found.condition(guidance, classes), folder)


def kind() -> Kind:
    """Return the teacher's parts."""
    from solverbench.teachers.embedded.conditional import Kind
    from solverbench.teachers.embedded.shapes import data, denoiser

    return Kind(
        "shapes", data.SHAPE, data.CLASSES, "seeds", denoiser.load, metric_network, load_loss, load_metric,
        lambda seeds: data.draw(seeds).images,
    )  # fmt: skip


def load_loss(device: torch.device | str = "cpu", *, folder: Path = FOLDER) -> LossNet:
    """Return the loss network: images [B, 3, 16, 16] in [-1, 1] to feature vectors [B, D], differentiable."""
    from solverbench.teachers.embedded.shapes import loss

    return loss.load(folder, device=device)


def load_metric(device: torch.device | str = "cpu", *, folder: Path = FOLDER) -> Callable[[Tensor], Tensor]:
    """Return the differentiable metric features of float images [B, 3, 16, 16] in [-1, 1]; see `Teacher.features`."""
    return metric_network(folder, device).of_floats


def metric_network(folder: Path = FOLDER, device: torch.device | str = "cpu") -> MetricNet:
    """Return the metric network; for evaluation only."""
    from solverbench.teachers.embedded.shapes import metric

    return metric.load(folder, device=device)
