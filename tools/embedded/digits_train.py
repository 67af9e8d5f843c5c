"""Trains the digits teacher and the two feature networks; an interrupted run resumes.

python -m tools.embedded.digits_train --out FOLDER --device cpu --minutes 60, then digits_references.
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
from solverbench.teachers.embedded.digits import data
from solverbench.teachers.embedded.digits.data import Digits
from solverbench.teachers.embedded.digits.denoiser import Denoiser
from solverbench.teachers.embedded.digits.loss import LossNet
from solverbench.teachers.embedded.digits.metric import MetricNet
from solverbench.teachers.embedded.streams import LOSS_STREAM, METRIC_STREAM, TEACHER_STREAM

from . import commands, training
from .commands import Say
from .fitting import NetworkFit

UNIFORM_SHARE = 7
"""One in this many of the teacher's noise levels is log-uniform."""
POSE_WEIGHT = 0.5


def teacher_loss(network: Denoiser, digits: Digits, batch: int, step: int, *, seed: int = TEACHER_STREAM) -> Tensor:
    """Return the denoising loss on fresh copies; its random draws depend only on (seed, step, batch)."""
    first, device = seed + step * batch, digits.images.device
    clean = digits.copies(training.batch_seeds(first, batch, device)).images
    generator = torch.Generator(device).manual_seed(first)
    sigma = training.levels(batch, generator, UNIFORM_SHARE)
    noise = torch.randn(clean.shape, generator=generator, device=device)
    return training.denoising_loss(network, network.config["sigma_data"], clean, sigma, noise)


def metric_loss(network: MetricNet, digits: Digits, batch: int, step: int) -> Tensor:
    """Return the cross entropy of the class plus half the squared error of the pose, on fresh copies as uint8."""
    copies = digits.copies(training.batch_seeds(METRIC_STREAM + step * batch, batch, digits.images.device))
    features = network(quantise(copies.images))
    error = mse_loss(network.pose(features), copies.pose.float())
    return cross_entropy(network.classes(features), copies.labels) + POSE_WEIGHT * error


def loss_loss(network: LossNet, digits: Digits, batch: int, step: int) -> Tensor:
    """Return the cross entropy of the class on fresh copies with noise of random strength."""
    first = LOSS_STREAM + step * batch
    copies = digits.copies(training.batch_seeds(first, batch, digits.images.device))
    return cross_entropy(network.logits(training.noisy(copies.images, first)), copies.labels)


def accuracy(classify: Callable[[Tensor], Tensor], digits: Digits, *, copies: int = 0) -> float:
    """Return the fraction of `digits`, or of `copies` validation copies of them, that `classify` gets right.

    Args:
        classify: images [B, 1, 8, 8] in [-1, 1] -> scores [B, 10].
    """
    images, labels = digits.images * 2 - 1, digits.labels
    if copies:
        made = digits.copies(data.VALIDATION_SEEDS[:copies])
        images, labels = made.images, made.labels
    return training.accuracy(classify, images, labels, part=len(images))


def train(name: str, options: argparse.Namespace, say: Say) -> None:
    """Train one of metric, loss, teacher into options.out: its weights, and its section of the record."""
    device = torch.device(options.device)
    digits = data.load().to(device)
    seen, unseen = digits.fold(held_out=False), digits.fold(held_out=True)
    training.start(name)
    if name == "teacher":
        train_teacher(Denoiser().to(device), digits, options, say)
        return

    def measure(classify: Callable[[Tensor], Tensor]) -> dict[str, Any]:
        return {
            "held_out_accuracy": accuracy(classify, unseen),
            "digits": "index not a multiple of 5",
            "held_out_copies_accuracy": accuracy(classify, unseen, copies=10_000),
        }

    network: MetricNet | LossNet
    if name == "metric":
        network = MetricNet().to(device)
        loss = partial(metric_loss, network, seen, options.classifier_batch)
    else:
        network = LossNet().to(device)
        loss = partial(loss_loss, network, seen, options.classifier_batch)
    training.train_classifier(network, name, loss, options, measure, say)


def train_teacher(network: Denoiser, digits: Digits, options: argparse.Namespace, say: Say) -> None:
    """Train the teacher on copies of `digits`."""
    loss = partial(teacher_loss, network, digits, options.batch)
    job = NetworkFit("teacher", network, loss, options.rate, options.steps, options.minutes)

    @torch.no_grad()
    def after(facts: dict[str, Any]) -> dict[str, Any]:
        validation = teacher_loss(network, digits, 20_000, 0, seed=data.VALIDATION_SEEDS.start).item()
        told = {"validation_loss": validation, "digits": "all", "sigma": training.sigma_facts(UNIFORM_SHARE)}
        return told | {"first_seed": TEACHER_STREAM}

    training.train(job, options.batch, options, after, say)


def main(arguments: list[str] | None = None) -> int:
    """Train the requested networks that do not exist yet; return the exit code."""
    options = training.parser(
        "digits_train", __doc__, minutes=60.0, batches=(8192, 512), rate=2e-3, classifier_batch=512
    )
    return commands.run(options, arguments, partial(training.train_all, train=train))


if __name__ == "__main__":
    sys.exit(main())
