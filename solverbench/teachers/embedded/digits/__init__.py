"""The embedded teacher `digits`: a denoiser of 8x8 handwritten digits, with metric and references.

Training code gets `digits.loss` through `Teacher.features["loss"]` and must never import `digits.metric`.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    import torch
    from torch import Tensor

    from solverbench.metrics.evaluation import Evaluation
    from solverbench.teachers.embedded.digits.loss import LossNet
    from solverbench.teachers.embedded.digits.metric import MetricNet
    from solverbench.teachers.teacher import Teacher

FOLDER = Path(__file__).parent / "data"
FACTS = ("data_floor", "teacher_distance", "teacher_floor", "nearest")


def load(device: str = "cpu", *, folder: Path = FOLDER) -> Teacher:
    """Return the teacher on `device`, with its evaluation.

    Args:
        folder: folder of its weights, references and record; the package's own by default.

    Raises:
        MissingError: a file doesn't exist.
        RecordError: a file differs from the recorded one, or the references belong to other weights.
    """
    from solverbench.files import digest
    from solverbench.method.schedules import EDM
    from solverbench.teachers.embedded import artifacts as weights
    from solverbench.teachers.embedded import judging
    from solverbench.teachers.embedded.digits import data, denoiser
    from solverbench.teachers.teacher import Teacher

    network = denoiser.load(folder, device=device)
    record = weights.read_record(folder)
    made_for = {name: record.get(name, {}).get("sha256") for name in ("teacher", "metric")}
    references = judging.references("digits", folder, made_for)
    return Teacher(
        denoise=network,
        name="digits",
        shape=data.SHAPE,
        schedule=EDM(),
        identity=digest({"weights": record["teacher"]["sha256"], "config": network.config}),
        sampler=references["teacher"]["sampler"],
        sampler_nfe=references["teacher"]["nfe"],
        sampler_error=judging.sampler_error(references),
        evaluation=_evaluation(folder, device, record),
        device=device,
        move=lambda device: load(device, folder=folder),
        double=denoiser.Double(network),
        features={"loss": partial(load_loss, folder=folder), "metric": partial(load_metric, folder=folder)},
        images_of=lambda seeds: data.load().copies(seeds).images,
    )


def load_loss(device: torch.device | str = "cpu", *, folder: Path = FOLDER) -> LossNet:
    """Return the loss network: images [B, 1, 8, 8] in [-1, 1] to feature vectors [B, D], differentiable."""
    from solverbench.teachers.embedded.digits import loss

    return loss.load(folder, device=device)


def load_metric(device: torch.device | str = "cpu", *, folder: Path = FOLDER) -> Callable[[Tensor], Tensor]:
    """Return the differentiable metric features of float images [B, 1, 8, 8] in [-1, 1]; see `Teacher.features`."""
    return metric_network(folder, device).of_floats


def metric_network(folder: Path, device: torch.device | str) -> MetricNet:
    """Return the metric network; for evaluation only."""
    from solverbench.teachers.embedded.digits import metric

    return metric.load(folder, device=device)


def _evaluation(folder: Path, device: str, record: dict[str, Any]) -> Evaluation:
    from solverbench.metrics.evaluation import Evaluation
    from solverbench.teachers.embedded.judging import Extractor, reference

    references = record["references"]
    return Evaluation(
        extractor=Extractor(partial(metric_network, folder, device)),
        extractor_id=f"digits-metric {record['metric']['sha256'][:12]}",
        quantiser=references["quantiser"],
        data=reference(folder, references["data"], "augmentation_seeds", "digits data"),
        teacher=reference(folder, references["teacher"], "noise_seeds", "digits teacher's samples"),
        facts={name: references[name] for name in FACTS},
    )
