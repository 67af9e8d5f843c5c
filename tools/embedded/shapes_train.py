"""Trains the shapes teacher and the two feature networks; an interrupted run resumes.

python -m tools.embedded.shapes_train --out FOLDER --device cpu --shipped, then shapes_references.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, mse_loss

from solverbench.metrics.quantise import quantise
from solverbench.teachers.embedded.shapes import data, denoiser
from solverbench.teachers.embedded.shapes.denoiser import NULL, Denoiser
from solverbench.teachers.embedded.shapes.loss import LossNet
from solverbench.teachers.embedded.shapes.metric import MetricNet
from solverbench.teachers.embedded.streams import LOSS_STREAM, METRIC_STREAM, TEACHER_STREAM

from . import commands, stages, training
from .commands import Say

VALIDATED = (20, 1000)
"""Number of batches for the trained teacher's validation loss, and unseen images in each."""
CLASSIFIED = 20_000
"""Number of unseen images that the accuracy of the metric and of the loss network is measured on."""
UNIFORM_SHARE = 16
"""One in this many of the teacher's noise levels is log-uniform."""
DROPPED = 0.1
"""Fraction of the images whose class is withheld from the teacher, to train the unconditional estimate."""
GROUND_WEIGHT, ATTRIBUTE_WEIGHT = 0.5, 2.0
SHIPPED: tuple[dict[str, Any], ...] = (
    {"steps": 36_000, "rate": 3e-3},
    {"more": 42_000, "rate": 2e-3},
    {"more": 24_000, "rate": 1.5e-3, "widths": [48, 64, 128], "blocks": [3, 1, 1]},
)
"""The stages in which this package's teacher was trained: a small network is cheaper early in training."""


def denoising_loss(network: Denoiser, clean: Tensor, sigma: Tensor, noise: Tensor, classes: Tensor) -> Tensor:
    """Return `training.denoising_loss` of images of these classes, in the device's arithmetic (`stages.arithmetic`).

    Args:
        clean, noise: [B, 3, 16, 16]; sigma: [B] float64; classes: [B] int64.
    """

    return training.denoising_loss(stages.estimator(network, classes), network.sigma_data, clean, sigma, noise)


def teacher_loss(
    network: Denoiser, device: torch.device, batch: int, step: int, *, seed: int = TEACHER_STREAM
) -> Tensor:
    """Return the denoising loss on fresh images; its random draws depend only on (seed, step, batch)."""
    first = seed + step * batch
    drawn = data.draw(training.batch_seeds(first, batch, device))
    generator = torch.Generator(device).manual_seed(first)
    sigma = training.levels(batch, generator, UNIFORM_SHARE)
    noise = torch.randn(drawn.images.shape, generator=generator, device=device)
    dropped = torch.rand(batch, generator=generator, device=device) < DROPPED
    return denoising_loss(network, drawn.images, sigma, noise, drawn.labels.masked_fill(dropped, NULL))


def metric_loss(network: MetricNet, device: torch.device, batch: int, step: int) -> Tensor:
    """Return the cross entropies of class and background plus the squared error of the rest, on images as uint8."""
    drawn = data.draw(training.batch_seeds(METRIC_STREAM + step * batch, batch, device))
    features = network(quantise(drawn.images))
    grounds = cross_entropy(network.grounds(features), drawn.grounds)
    error = mse_loss(network.attributes(features), drawn.attributes.float())
    return cross_entropy(network.classes(features), drawn.labels) + GROUND_WEIGHT * grounds + ATTRIBUTE_WEIGHT * error


def loss_loss(network: LossNet, device: torch.device, batch: int, step: int) -> Tensor:
    """Return the cross entropy of the class on fresh images with noise of random strength."""
    first = LOSS_STREAM + step * batch
    drawn = data.draw(training.batch_seeds(first, batch, device))
    return cross_entropy(network.logits(training.noisy(drawn.images, first)), drawn.labels)


def train(name: str, options: argparse.Namespace, say: Say) -> None:
    """Train one of metric, loss, teacher into options.out: its weights, and its section of the record."""
    device = torch.device(options.device)
    training.start(name)
    if name == "teacher":
        loss_of = stages.bound(teacher_loss, device)
        facts = {"sigma": training.sigma_facts(UNIFORM_SHARE), "dropped_classes": DROPPED}
        validation = (*VALIDATED, data.VALIDATION_SEEDS.start)
        stages.train_teacher(
            Denoiser(), denoiser.load, (loss_of, loss_of), options, say, validation=validation, facts=facts
        )
        return

    def measure(classify: Callable[[Tensor], Tensor]) -> dict[str, Any]:
        first = data.VALIDATION_SEEDS.start
        unseen = data.draw(training.batch_seeds(first, CLASSIFIED, device))
        return {"held_out_accuracy": training.accuracy(classify, unseen.images, unseen.labels)}

    network: MetricNet | LossNet
    if name == "metric":
        network = MetricNet().to(device)
        loss = partial(metric_loss, network, device, options.classifier_batch)
    else:
        network = LossNet().to(device)
        loss = partial(loss_loss, network, device, options.classifier_batch)
    training.train_classifier(network, name, loss, options, measure, say)


def main(arguments: list[str] | None = None) -> int:
    """Train the requested networks; return the exit code."""
    options = stages.parser(
        "shapes_train", __doc__, 3, minutes=75.0, batches=(1024, 64), rate=3e-3, classifier_batch=128
    )
    return commands.run(options, arguments, partial(stages.work, train=train, shipped=SHIPPED))


if __name__ == "__main__":
    sys.exit(main())
