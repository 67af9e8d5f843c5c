"""Trains the digits teacher and the two feature networks; an interrupted run resumes.

python -m tools.embedded.digits_train --out FOLDER --device cpu --minutes 60, then digits_references.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, mse_loss

from solverbench.errors import UserError
from solverbench.metrics.quantise import quantise
from solverbench.teachers.embedded import artifacts as weights
from solverbench.teachers.embedded.digits import data
from solverbench.teachers.embedded.digits.data import Digits
from solverbench.teachers.embedded.digits.denoiser import Denoiser
from solverbench.teachers.embedded.digits.loss import LossNet
from solverbench.teachers.embedded.digits.metric import MetricNet

from .fitting import NetworkFit, fit

NETWORKS = ("metric", "loss", "teacher")
P_MEAN, P_STD = -0.8, 1.4
"""Noise levels that the teacher learns from: log-normal, and one in seven log-uniform between the bounds below."""
UNIFORM_SHARE = 7
SIGMA_BOUNDS = (1e-3, 200.0)
POSE_WEIGHT = 0.5
LOSS_NOISE = 0.4
"""The loss network sees images with up to this much noise added."""


def levels(batch: int, generator: torch.Generator) -> Tensor:
    """Return [batch] float64 noise levels, stratified: the i-th lies in the i-th of equal parts of the distribution.

    Source: Karras et al. 2022, arXiv:2206.00364, table 1 (log-normal); the log-uniform share keeps the far ends honest.
    """
    device = generator.device
    parts = torch.arange(batch, device=device) + torch.rand(
        batch, generator=generator, device=device, dtype=torch.float64
    )
    uniform = batch // UNIFORM_SHARE
    low, high = np.log(SIGMA_BOUNDS)
    normal = torch.special.ndtri(((parts[uniform:] - uniform) / (batch - uniform)).clamp(1e-9, 1 - 1e-9))
    flat = low + (high - low) * parts[:uniform] / max(uniform, 1)
    return torch.cat((flat, P_MEAN + P_STD * normal)).exp()


def denoising_loss(network: Denoiser, clean: Tensor, sigma: Tensor, noise: Tensor) -> Tensor:
    """Return the mean squared error of the estimates, weighted by (sigma^2 + sigma_data^2) / (sigma sigma_data)^2.

    Args:
        clean, noise: [B, 1, 8, 8]; sigma: [B] float64.

    Source: Karras et al. 2022, arXiv:2206.00364, equation 8 and table 1.
    """
    scale = sigma.float()[:, None, None, None]
    spread = network.config["sigma_data"]
    weight = (scale.square() + spread**2).sqrt() / (scale * spread)
    error: Tensor = network(clean + scale * noise, sigma) - clean
    return (weight * error).square().mean()


def teacher_loss(
    network: Denoiser, digits: Digits, batch: int, step: int, *, seed: int = data.TEACHER_STREAM
) -> Tensor:
    """Return the denoising loss on fresh copies; what it draws depends on (seed, step, batch) alone."""
    first = seed + step * batch
    clean = digits.copies(_seeds(first, batch, digits)).images
    generator = torch.Generator(clean.device).manual_seed(first)
    sigma = levels(batch, generator)
    noise = torch.randn(clean.shape, generator=generator, device=clean.device)
    return denoising_loss(network, clean, sigma, noise)


def metric_loss(network: MetricNet, digits: Digits, batch: int, step: int) -> Tensor:
    """Return the cross entropy of the class plus half the squared error of the pose, on fresh copies as uint8."""
    copies = digits.copies(_seeds(data.METRIC_STREAM + step * batch, batch, digits))
    features = network(quantise(copies.images))
    error = mse_loss(network.pose(features), copies.pose.float())
    return cross_entropy(network.classes(features), copies.labels) + POSE_WEIGHT * error


def loss_loss(network: LossNet, digits: Digits, batch: int, step: int) -> Tensor:
    """Return the cross entropy of the class on fresh copies with noise of random strength."""
    first = data.LOSS_STREAM + step * batch
    copies = digits.copies(_seeds(first, batch, digits))
    generator = torch.Generator(copies.images.device).manual_seed(first)
    strength = LOSS_NOISE * torch.rand(batch, 1, 1, 1, generator=generator, device=copies.images.device)
    noise = torch.randn(copies.images.shape, generator=generator, device=copies.images.device)
    return cross_entropy(network.logits(copies.images + strength * noise), copies.labels)


def _seeds(first: int, count: int, digits: Digits) -> Tensor:
    return torch.arange(first, first + count, device=digits.images.device)


@torch.no_grad()
def accuracy(classify: Callable[[Tensor], Tensor], digits: Digits, *, copies: int = 0) -> float:
    """Return the share of `digits`, or of that many validation copies of them, that `classify` gets right.

    Args:
        classify: images [B, 1, 8, 8] in [-1, 1] -> scores [B, 10].
    """
    images, labels = digits.images * 2 - 1, digits.labels
    if copies:
        made = digits.copies(data.VALIDATION_SEEDS[:copies])
        images, labels = made.images, made.labels
    return (classify(images).argmax(1) == labels).double().mean().item()


def train(name: str, options: argparse.Namespace, say: Callable[[str], None]) -> None:
    """Train one of metric, loss, teacher into options.out: its weights, and its section of the record."""
    device, out = torch.device(options.device), options.out
    digits = data.load().to(device)
    seen, unseen = digits.fold(held_out=False), digits.fold(held_out=True)
    torch.manual_seed({"metric": 1, "loss": 2, "teacher": 3}[name])  # the networks' initial weights: we are the program
    network: MetricNet | LossNet | Denoiser
    if name == "metric":
        network, batch = MetricNet().to(device), options.classifier_batch
        job = NetworkFit(name, network, partial(metric_loss, network, seen, batch), 2e-3, options.classifier_steps)
    elif name == "loss":
        network, batch = LossNet().to(device), options.classifier_batch
        job = NetworkFit(name, network, partial(loss_loss, network, seen, batch), 2e-3, options.classifier_steps)
    else:
        network, batch = Denoiser().to(device), options.batch
        loss = partial(teacher_loss, network, digits, batch)
        job = NetworkFit(name, network, loss, options.rate, options.steps, options.minutes)
    checkpoint = out / f"{name}.checkpoint"
    facts: dict[str, Any] = fit(job, checkpoint, say)
    facts |= {"rate": job.rate, "batch": batch, "config": network.config, "made": weights.environment(device)}
    if isinstance(network, Denoiser):
        with torch.no_grad():
            first = data.VALIDATION_SEEDS.start
            facts["validation_loss"] = teacher_loss(network, digits, 20_000, 0, seed=first).item()
        facts |= {"digits": "all", "sigma": {"p_mean": P_MEAN, "p_std": P_STD, "log_uniform_share": 1 / UNIFORM_SHARE}}
        facts["first_seed"] = data.TEACHER_STREAM
    else:
        classify = partial(_scores, network)
        facts |= {"held_out_accuracy": accuracy(classify, unseen), "digits": "index not a multiple of 5"}
        facts["held_out_copies_accuracy"] = accuracy(classify, unseen, copies=10_000)
        facts["first_seed"] = data.METRIC_STREAM if name == "metric" else data.LOSS_STREAM
    state = network.state_dict()
    if name == "teacher":
        state = {key: tensor.half() for key, tensor in state.items()}
    facts["sha256"] = weights.write(out / f"{name}.safetensors", state, network.config)
    weights.add_to_record(out, name, facts)
    checkpoint.unlink(missing_ok=True)
    rest = {key: value for key, value in facts.items() if key.endswith(("accuracy", "loss"))}
    say(f"{name}: done, {facts['seconds']} s, {rest}")


def _scores(network: MetricNet | LossNet, images: Tensor) -> Tensor:
    scores = network.classes(network(quantise(images))) if isinstance(network, MetricNet) else network.logits(images)
    assert isinstance(scores, Tensor)
    return scores


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tools.embedded.digits_train", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder of the products; a second run resumes there")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, help="CPU threads (default: torch's choice)")
    parser.add_argument("--minutes", type=float, default=60.0, help="for the teacher; the others: 1 (GPU) to 12 (CPU)")
    parser.add_argument("--steps", type=int, help="training steps of the teacher, in place of --minutes")
    parser.add_argument("--batch", type=int, help="of the teacher (default: 8192 on a GPU, 512 on a CPU)")
    parser.add_argument("--rate", type=float, default=2e-3, help="peak learning rate of the teacher")
    parser.add_argument("--classifier-steps", type=int, default=6000)
    parser.add_argument("--classifier-batch", type=int, default=512)
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=NETWORKS)
    options = parser.parse_args(arguments)
    weights.check_device(options.device)
    options.batch = options.batch or (8192 if torch.device(options.device).type == "cuda" else 512)
    return options


def main(arguments: list[str] | None = None) -> int:
    """Train the networks that are asked for and not yet there; return the exit code."""
    say = partial(print, flush=True)
    try:
        options = _options(arguments)
        if options.threads:
            torch.set_num_threads(options.threads)
        for name in options.networks:
            if name in weights.read_record(options.out):
                say(f"{name}: already there, kept; use another --out to train it again")
                continue
            torch.set_float32_matmul_precision("high" if name == "teacher" else "highest")
            train(name, options, say)
    except UserError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
