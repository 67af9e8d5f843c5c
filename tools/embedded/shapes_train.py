"""Trains the shapes teacher and the two feature networks; an interrupted run resumes.

python -m tools.embedded.shapes_train --out FOLDER --device cpu --shipped, then shapes_references.
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
from torch.nn.functional import cross_entropy, mse_loss

from solverbench.metrics.quantise import quantise
from solverbench.teachers.embedded import artifacts as weights
from solverbench.teachers.embedded.shapes import data, denoiser
from solverbench.teachers.embedded.shapes.denoiser import NULL, Denoiser
from solverbench.teachers.embedded.shapes.loss import LossNet
from solverbench.teachers.embedded.shapes.metric import MetricNet
from solverbench.teachers.embedded.streams import LOSS_STREAM, METRIC_STREAM, TEACHER_STREAM

from . import commands, training
from .commands import Say
from .fitting import NetworkFit
from .shapes_growth import grown

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
    """Return `training.denoising_loss` of images of these classes.

    The network runs in bfloat16 here, which takes half the time on a CPU that supports it; sampling uses float32.

    Args:
        clean, noise: [B, 3, 16, 16]; sigma: [B] float64; classes: [B] int64.
    """

    def estimate(x: Tensor, sigma: Tensor) -> Tensor:
        with torch.autocast(x.device.type, torch.bfloat16):
            found: Tensor = network(x, sigma, classes)
        return found

    return training.denoising_loss(estimate, network.sigma_data, clean, sigma, noise)


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
        train_teacher(Denoiser().to(device), options, say)
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


def train_teacher(network: Denoiser, options: argparse.Namespace, say: Say) -> None:
    """Train the teacher, starting from `network`'s weights or, with options.more, from those in options.out."""
    device, batch = torch.device(options.device), options.batch
    before = weights.read_record(options.out).get("teacher", {}) if options.more else {}
    if before:
        network = denoiser.load(options.out).requires_grad_(True).train()
        widths, blocks = options.widths or network.config["widths"], options.blocks or network.config["blocks"]
        network = grown(network, widths, blocks).to(device)
    seen = before.get("images", before.get("steps", 0) * before.get("batch", 0))
    loss = partial(teacher_loss, network, device, batch, seed=TEACHER_STREAM + seen)
    job = NetworkFit("teacher", network, loss, options.rate, options.more or options.steps, options.minutes)

    @torch.no_grad()
    def after(facts: dict[str, Any]) -> dict[str, Any]:
        first = data.VALIDATION_SEEDS.start
        losses = [teacher_loss(network, device, VALIDATED[1], k, seed=first) for k in range(VALIDATED[0])]
        told: dict[str, Any] = {
            "validation_loss": torch.stack(losses).mean().item(),
            "sigma": training.sigma_facts(UNIFORM_SHARE),
        }
        told |= {"dropped_classes": DROPPED, "arithmetic": "bfloat16", "first_seed": TEACHER_STREAM + seen}
        return told | ({"images": seen + facts["steps"] * batch, "before": before} if before else {})

    training.train(job, batch, options, after, say)


def stages(folder: Path) -> int:
    """Return the number of stages in which the teacher in `folder` was trained; 0 if there is none."""
    count, facts = 0, weights.read_record(folder).get("teacher")
    while facts:
        count, facts = count + 1, facts.get("before")
    return count


def train_in_stages(name: str, options: argparse.Namespace, say: Say) -> None:
    """Train one network; with options.shipped, train the teacher through its remaining stages."""
    if options.shipped and name == "teacher":
        for stage in SHIPPED[stages(options.out) :]:
            train(name, argparse.Namespace(**vars(options) | stage), say)
    else:
        train(name, options, say)


def work(options: argparse.Namespace, say: Say) -> None:
    """Train the requested networks that do not exist yet; continue the teacher's training if requested."""
    training.train_all(options, say, train_in_stages, again=bool(options.more or options.shipped))


def main(arguments: list[str] | None = None) -> int:
    """Train the requested networks; return the exit code."""
    options = training.parser(
        "shapes_train", __doc__, minutes=75.0, batches=(1024, 64), rate=3e-3, classifier_batch=128
    )
    options.add_argument("--more", type=int, metavar="STEPS", help="train the teacher in --out for so many more steps")
    options.add_argument("--shipped", action="store_true", help="train the teacher in the stages of the package's own")
    options.add_argument("--widths", type=int, nargs=3, help="with --more: first grow the teacher to so many channels")
    options.add_argument("--blocks", type=int, nargs=3, help="and so many blocks a level")
    return commands.run(options, arguments, work)


if __name__ == "__main__":
    sys.exit(main())
