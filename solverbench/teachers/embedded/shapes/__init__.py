"""The embedded teacher `shapes`: a class-conditional U-Net of 16x16 colour images, with metric and references.

Training code gets `shapes.loss` through `Teacher.features["loss"]` and must never import `shapes.metric`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from solverbench.metrics.evaluation import Evaluation
    from solverbench.teachers.conditions import Condition
    from solverbench.teachers.embedded.shapes.denoiser import Denoiser
    from solverbench.teachers.embedded.shapes.loss import LossNet
    from solverbench.teachers.embedded.shapes.metric import MetricNet
    from solverbench.teachers.teacher import Teacher

FOLDER = Path(__file__).parent / "data"
FACTS = ("teacher_distance", "teacher_floor")


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
    from solverbench.files import digest
    from solverbench.method.schedules import EDM
    from solverbench.teachers.conditions import Condition, passes
    from solverbench.teachers.embedded import artifacts as weights
    from solverbench.teachers.embedded import judging
    from solverbench.teachers.embedded.shapes import data, denoiser
    from solverbench.teachers.teacher import Teacher

    condition = Condition(classes=classes, count=data.CLASSES, guidance=guidance)
    network = denoiser.load(folder, device=device)
    record = weights.read_record(folder)
    made_for = {name: record.get(name, {}).get("sha256") for name in ("teacher", "metric")}
    references = judging.references("shapes", folder, made_for)
    return Teacher(
        denoise=network,
        name="shapes",
        shape=data.SHAPE,
        schedule=EDM(),
        identity=digest({"weights": record["teacher"]["sha256"], "config": network.config}),
        sampler=references["sampler"],
        sampler_nfe=references["nfe"],
        sampler_error=judging.sampler_error(references.get("convergence", {}), _measured(condition)),
        evaluation=_evaluation(folder, device, record, condition),
        device=device,
        move=lambda device: load(device, guidance=guidance, classes=classes, folder=folder),
        bind=conditioned(network, condition, device),
        passes=passes(guidance, True),
        condition=condition,
        features={"loss": partial(load_loss, folder=folder), "metric": partial(load_metric, folder=folder)},
        images_of=lambda seeds: data.draw(seeds).images,
    )


def _measured(condition: Condition) -> str:
    """Return the section of the record with the error of the sampler under a condition; empty if there is none."""
    return f"{condition.guidance:g}" if condition.classes in ("seed", "uniform") else ""


def conditioned(
    network: Denoiser, condition: Condition, device: str
) -> Callable[[Sequence[int]], Callable[[Tensor, Tensor], Tensor]]:
    """Return a function from seeds [B] to the denoiser of their images, with bound classes and guidance.

    The network predicts the image, which is affine in the noise, so guiding the image is guiding the noise.
    """
    import torch

    from solverbench.teachers.conditions import Guided
    from solverbench.teachers.embedded.shapes.data import SHAPE
    from solverbench.teachers.embedded.shapes.denoiser import NULL

    def predict(x: Tensor, sigma: Tensor, given: tuple[Tensor, ...]) -> Tensor:
        found: Tensor = network(x, sigma, given[0])
        return found

    def bind(seeds: Sequence[int]) -> Callable[[Tensor, Tensor], Tensor]:
        given = torch.tensor(condition.labels(seeds, SHAPE), device=device)
        return Guided(predict, (given,), (torch.full_like(given, NULL),), condition.guidance)

    return bind


def load_loss(device: torch.device | str = "cpu", *, folder: Path = FOLDER) -> LossNet:
    """Return the loss network: images [B, 3, 16, 16] in [-1, 1] to feature vectors [B, D], differentiable."""
    from solverbench.teachers.embedded.shapes import loss

    return loss.load(folder, device=device)


def load_metric(device: torch.device | str = "cpu", *, folder: Path = FOLDER) -> Callable[[Tensor], Tensor]:
    """Return the differentiable metric features of float images [B, 3, 16, 16] in [-1, 1]; see `Teacher.features`."""
    return metric_network(folder, device).of_floats


def metric_network(folder: Path, device: torch.device | str) -> MetricNet:
    """Return the metric network; for evaluation only."""
    from solverbench.teachers.embedded.shapes import metric

    return metric.load(folder, device=device)


def _evaluation(folder: Path, device: str, record: dict[str, Any], condition: Condition) -> Evaluation | None:
    """Return the evaluation of samples with this condition; None if no reference of the teacher's own has it."""
    from solverbench.metrics.evaluation import Evaluation
    from solverbench.teachers.embedded.judging import Extractor, reference

    references = record["references"]
    own = references["teacher"].get(f"{condition.guidance:g}")
    if own is None or condition.classes not in ("seed", "uniform"):
        return None
    what = f"shapes teacher's samples at guidance {condition.guidance:g}"
    return Evaluation(
        extractor=Extractor(partial(metric_network, folder, device)),
        extractor_id=f"shapes-metric {record['metric']['sha256'][:12]}",
        quantiser=references["quantiser"],
        data=reference(folder, references["data"], "seeds", "shapes data"),
        teacher=reference(folder, own, "noise_seeds", what),
        facts={"data_floor": references["data_floor"]} | {name: own[name] for name in FACTS},
    )
