"""Trains the fashion teacher and the two feature networks on Fashion-MNIST; an interrupted run resumes.

python -m tools.embedded.fashion_train --data FOLDER --out FOLDER --device cpu --shipped, then fashion_references.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from solverbench.metrics.quantise import quantise
from solverbench.teachers.embedded.fashion import denoiser
from solverbench.teachers.embedded.fashion.denoiser import NULL, Denoiser
from solverbench.teachers.embedded.fashion.loss import LossNet
from solverbench.teachers.embedded.fashion.metric import MetricNet
from solverbench.teachers.embedded.streams import LOSS_STREAM, METRIC_STREAM, TEACHER_STREAM

from . import commands, fashion_images, stages, training
from .commands import Say
from .fashion_images import Labelled

UNIFORM_SHARE = 16
"""One in this many of the teacher's noise levels is log-uniform."""
DROPPED = 0.1
"""Fraction of the images whose class is withheld from the teacher, to train the unconditional estimate."""
VALIDATION_SEED = 3_000_000
VALIDATED = (20, 1000)
"""Number of batches for the trained teacher's validation loss, and held-out images in each."""
SHIFT = 2
"""Pixels by which a classifier's training images are moved at the most."""
SHIPPED: tuple[dict[str, Any], ...] = (
    {"steps": 16_000, "rate": 3e-3, "widths": [64, 128], "blocks": [1, 2]},
    {"more": 24_000, "rate": 2e-3, "widths": [64, 128], "blocks": [2, 3]},
)
"""The stages in which this package's teacher was trained: a small network is cheaper early in training."""


def drawn(fashion: Labelled, seed: int, batch: int) -> Labelled:
    """Return a batch of images, chosen with replacement; a function of the seed."""
    generator = torch.Generator().manual_seed(seed)
    return fashion.pick(torch.randint(len(fashion), (batch,), generator=generator).to(fashion.labels.device))


def teacher_loss(network: Denoiser, fashion: Labelled, batch: int, step: int, *, seed: int = TEACHER_STREAM) -> Tensor:
    """Return the denoising loss on a batch; its random draws depend only on (seed, step, batch)."""
    first = seed + step * batch
    chosen, device = drawn(fashion, first, batch), fashion.images.device
    generator = torch.Generator(device).manual_seed(first)
    sigma = training.levels(batch, generator, UNIFORM_SHARE)
    noise = torch.randn(chosen.images.shape, generator=generator, device=device)
    dropped = torch.rand(batch, generator=generator, device=device) < DROPPED
    labels = chosen.labels.masked_fill(dropped, NULL)
    return training.denoising_loss(stages.estimator(network, labels), network.sigma_data, chosen.images, sigma, noise)


def moved(fashion: Labelled, seed: int, batch: int) -> Labelled:
    """Return a batch of images, each moved by up to `SHIFT` pixels; a function of the seed."""
    chosen, generator = drawn(fashion, seed, batch), torch.Generator().manual_seed(seed)
    by = torch.randint(-SHIFT, SHIFT + 1, (batch, 2), generator=generator).tolist()
    images = torch.stack([image.roll(shift, (1, 2)) for image, shift in zip(chosen.images, by, strict=True)])
    return Labelled(images, chosen.labels)


def metric_loss(network: MetricNet, fashion: Labelled, batch: int, step: int) -> Tensor:
    """Return the cross entropy of the class, on moved images as uint8."""
    chosen = moved(fashion, METRIC_STREAM + step * batch, batch)
    return cross_entropy(network.classes(network(quantise(chosen.images))), chosen.labels)


def loss_loss(network: LossNet, fashion: Labelled, batch: int, step: int) -> Tensor:
    """Return the cross entropy of the class on moved images with noise of random strength."""
    first = LOSS_STREAM + step * batch
    chosen = moved(fashion, first, batch)
    return cross_entropy(network.logits(training.noisy(chosen.images, first)), chosen.labels)


def train(name: str, options: argparse.Namespace, say: Say) -> None:
    """Train one of metric, loss, teacher into options.out: its weights, and its section of the record."""
    device = torch.device(options.device)
    seen, unseen = (fashion_images.read(options.data, held_out=held, device=device) for held in (False, True))
    training.start(name)
    if name == "teacher":
        sizes = {key: given for key in ("widths", "blocks") if (given := getattr(options, key))}
        losses = stages.bound(teacher_loss, seen), stages.bound(teacher_loss, unseen)
        facts = {"sigma": training.sigma_facts(UNIFORM_SHARE), "dropped_classes": DROPPED}
        stages.train_teacher(
            Denoiser(**sizes),
            denoiser.load,
            losses,
            options,
            say,
            validation=(*VALIDATED, VALIDATION_SEED),
            facts=facts,
        )
        return

    def measure(classify: Callable[[Tensor], Tensor]) -> dict[str, Any]:
        network.eval()
        return {"held_out_accuracy": training.accuracy(classify, unseen.images, unseen.labels)}

    network: MetricNet | LossNet
    if name == "metric":
        network = MetricNet().to(device)
        loss = partial(metric_loss, network, seen, options.classifier_batch)
    else:
        network = LossNet().to(device)
        loss = partial(loss_loss, network, seen, options.classifier_batch)
    training.train_classifier(network, name, loss, options, measure, say)


def main(arguments: list[str] | None = None) -> int:
    """Train the requested networks; return the exit code."""
    options = stages.parser(
        "fashion_train", __doc__, 2, minutes=75.0, batches=(512, 64), rate=3e-3, classifier_batch=128
    )
    options.add_argument("--data", type=Path, default=fashion_images.USUAL, help="folder of Fashion-MNIST's files")
    return commands.run(options, arguments, partial(stages.work, train=train, shipped=SHIPPED))


if __name__ == "__main__":
    sys.exit(main())
