"""The embedded teacher `digits`: a denoiser of 8x8 handwritten digits with all that is needed to judge its samples.

Training code reaches `digits.loss` through `load_loss`, and must never import `digits.metric`.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    import torch
    from torch import Tensor

    from solverbench.metrics.evaluation import Evaluation, Reference
    from solverbench.teachers.embedded.digits.loss import LossNet
    from solverbench.teachers.embedded.digits.metric import MetricNet
    from solverbench.teachers.teacher import Teacher

FOLDER = Path(__file__).parent / "data"
FACTS = ("data_floor", "teacher_distance", "teacher_floor", "nearest")


def load(device: str = "cpu", *, folder: Path = FOLDER) -> Teacher:
    """Return the teacher on `device`, with its evaluation.

    Args:
        folder: of its weights, references and record; the package's own by default.

    Raises:
        MissingError: a file isn't there.
        RecordError: a file isn't the one that the record names, or the references are of other weights.
    """
    from solverbench.errors import RecordError
    from solverbench.files import digest
    from solverbench.method.schedules import EDM
    from solverbench.teachers.embedded import artifacts as weights
    from solverbench.teachers.embedded.digits import data, denoiser
    from solverbench.teachers.teacher import Teacher

    network = denoiser.load(folder, device=device)
    record = weights.read_record(folder)
    references = record.get("references", {})
    made_for = references.get("weights_sha256")
    if made_for != {name: record.get(name, {}).get("sha256") for name in ("teacher", "metric")}:
        raise RecordError(
            f"digits: the references in {folder} are of other weights; "
            f"run python -m tools.embedded.digits_references --out {folder}"
        )
    return Teacher(
        denoise=network,
        name="digits",
        shape=data.SHAPE,
        schedule=EDM(),
        identity=digest({"weights": record["teacher"]["sha256"], "config": network.config}),
        sampler=references["teacher"]["sampler"],
        sampler_nfe=references["teacher"]["nfe"],
        evaluation=_evaluation(folder, device, record),
        device=device,
        move=lambda device: load(device, folder=folder),
        double=denoiser.Double(network),
    )


def load_loss(device: torch.device | str = "cpu", *, folder: Path = FOLDER) -> LossNet:
    """Return the network to train on: images [B, 1, 8, 8] in [-1, 1] to feature vectors [B, D], differentiable."""
    from solverbench.teachers.embedded.digits import loss

    return loss.load(folder, device=device)


def load_metric(device: torch.device | str = "cpu", *, folder: Path = FOLDER) -> Callable[[Tensor], Tensor]:
    """Return the metric's features of float images [B, 1, 8, 8] in [-1, 1], differentiable: for `leakage` alone."""
    from solverbench.teachers.embedded.digits import metric

    network = metric.load(folder, device=device)
    return lambda images: network(127.5 * (images + 1))


def _evaluation(folder: Path, device: str, record: dict[str, Any]) -> Evaluation:
    from solverbench.metrics.evaluation import Evaluation

    references = record["references"]
    return Evaluation(
        extractor=Extractor(folder, device),
        extractor_id=f"digits-metric {record['metric']['sha256'][:12]}",
        quantiser=references["quantiser"],
        data=reference(folder, references["data"], "augmentation_seeds", "digits data"),
        teacher=reference(folder, references["teacher"], "noise_seeds", "digits teacher's samples"),
        facts={name: references[name] for name in FACTS},
    )


def reference(folder: Path, facts: dict[str, Any], seeds: str, what: str) -> Reference:
    """Return the moments in `folder` that `facts`, a section of a record, name.

    Args:
        seeds: the key of `facts` that says what the images were made from.
        what: they are, for people.

    Raises:
        MissingError, RecordError: the file isn't there, or isn't the recorded one.
    """
    from solverbench.errors import RecordError
    from solverbench.files import read_arrays
    from solverbench.metrics.evaluation import Reference
    from solverbench.metrics.frechet import Moments
    from solverbench.teachers.embedded import artifacts as weights

    path = folder / str(facts["file"])
    if weights.digest(path) != facts["sha256"]:
        raise RecordError(f"{path}: not the file that {weights.RECORD} names; restore or remake both")
    arrays = read_arrays(path)
    moments = Moments(int(arrays["n"]), arrays["total"], arrays["outer"])
    sampler = f", {facts['sampler']} {facts['nfe']} calls" if "sampler" in facts else ""
    name = f"{what}{sampler}, {seeds.replace('_', ' ')} {facts[seeds]}"
    return Reference(moments, name, facts["sha256"])


class Extractor:
    """Metric features, from a network that is loaded when first asked: training has the teacher, and never asks."""

    def __init__(self, folder: Path, device: str) -> None:
        self.folder, self.device = folder, device
        self.network: MetricNet | None = None

    def __call__(self, images: Tensor) -> Tensor:
        """Return features [B, 64] float32 of images [B, 1, 8, 8] uint8."""
        if self.network is None:
            from solverbench.teachers.embedded.digits import metric

            self.network = metric.load(self.folder, device=self.device)
        return self.network.features(images)
