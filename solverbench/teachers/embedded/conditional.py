"""What the class-conditional embedded teachers share: binding of classes, guidance, references for each guidance."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from solverbench.files import digest
from solverbench.method.schedules import EDM
from solverbench.metrics.evaluation import Evaluation
from solverbench.teachers.conditions import Condition, Guided, passes
from solverbench.teachers.embedded import artifacts, judging
from solverbench.teachers.embedded.networks import FeatureNet
from solverbench.teachers.embedded.unet import UNet
from solverbench.teachers.teacher import Teacher

FACTS = ("teacher_distance", "teacher_floor")


@dataclass(frozen=True)
class Kind:
    """A class-conditional embedded teacher.

    Args:
        name: its name.
        shape: of its images.
        classes: number of classes.
        seeds: key of the record with the seeds of the data reference.
        denoiser, metric: return the network in a folder, on a device.
        load_loss, load_metric: differentiable features, see `Teacher.features`.
        images_of: seeds -> images of the data, where it can be drawn.
    """

    name: str
    shape: tuple[int, int, int]
    classes: int
    seeds: str
    denoiser: Callable[..., UNet]
    metric: Callable[..., FeatureNet]
    load_loss: Callable[..., Any]
    load_metric: Callable[..., Any]
    images_of: Callable[[Any], Tensor] | None = None

    def condition(self, guidance: float, classes: str = "seed") -> Condition:
        """Return the condition with this guidance."""
        return Condition(classes=classes, count=self.classes, guidance=guidance)

    def load(self, device: str, condition: Condition, folder: Path) -> Teacher:
        """Return the teacher, with its evaluation if there is a reference of its own samples for the condition.

        Raises:
            MissingError: a file doesn't exist.
            RecordError: a file differs from the recorded one, or the references belong to other weights.
        """
        network = self.denoiser(folder, device=device)
        record = artifacts.read_record(folder)
        made_for = {name: record.get(name, {}).get("sha256") for name in ("teacher", "metric")}
        references = judging.references(self.name, folder, made_for)
        return Teacher(
            denoise=network,
            name=self.name,
            shape=self.shape,
            schedule=EDM(),
            identity=digest({"weights": record["teacher"]["sha256"], "config": network.config}),
            sampler=references["sampler"],
            sampler_nfe=references["nfe"],
            sampler_error=judging.sampler_error(references.get("convergence", {}), _measured(condition)),
            evaluation=self._evaluation(folder, device, record, condition),
            device=device,
            move=lambda device: self.load(device, condition, folder),
            bind=self.bound(network, condition, device),
            passes=passes(condition.guidance, True),
            condition=condition,
            features={
                "loss": partial(self.load_loss, folder=folder),
                "metric": partial(self.load_metric, folder=folder),
            },
            images_of=self.images_of,
        )

    def bound(
        self, network: UNet, condition: Condition, device: str
    ) -> Callable[[Sequence[int]], Callable[[Tensor, Tensor], Tensor]]:
        """Return a function from seeds [B] to the denoiser of their images, with bound classes and guidance.

        The network predicts the image, which is affine in the noise, so guiding the image is guiding the noise.
        """

        def predict(x: Tensor, sigma: Tensor, given: tuple[Tensor, ...]) -> Tensor:
            found: Tensor = network(x, sigma, given[0])
            return found

        def bind(seeds: Sequence[int]) -> Callable[[Tensor, Tensor], Tensor]:
            given = torch.tensor(condition.labels(seeds, self.shape), device=device)
            return Guided(predict, (given,), (torch.full_like(given, network.classes),), condition.guidance)

        return bind

    def _evaluation(self, folder: Path, device: str, record: dict[str, Any], condition: Condition) -> Evaluation | None:
        """Return the evaluation of samples with this condition; None if no reference of the teacher's own has it."""
        references = record["references"]
        own = references["teacher"].get(f"{condition.guidance:g}")
        if own is None or not _measured(condition):
            return None
        what = f"{self.name} teacher's samples at guidance {condition.guidance:g}"
        return Evaluation(
            extractor=judging.Extractor(partial(self.metric, folder, device=device)),
            extractor_id=f"{self.name}-metric {record['metric']['sha256'][:12]}",
            quantiser=references["quantiser"],
            data=judging.reference(folder, references["data"], self.seeds, f"{self.name} data"),
            teacher=judging.reference(folder, own, "noise_seeds", what),
            facts={"data_floor": references["data_floor"]} | {name: own[name] for name in FACTS},
        )


def _measured(condition: Condition) -> str:
    """Return the section of the record with the error of the sampler under a condition; empty if there is none."""
    return f"{condition.guidance:g}" if condition.classes in ("seed", "uniform") else ""
