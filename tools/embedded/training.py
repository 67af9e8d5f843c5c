"""Shared by the commands that train the digits and shapes networks: noise levels, losses, options, the record."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from solverbench.metrics.quantise import quantise
from solverbench.teachers.embedded import artifacts
from solverbench.teachers.embedded.networks import FeatureNet, PerceptualNet
from solverbench.teachers.embedded.streams import LOSS_STREAM, METRIC_STREAM, TEACHER_STREAM

from . import commands
from .commands import Say
from .fitting import NetworkFit, fit

NETWORKS = ("metric", "loss", "teacher")
FIRST_SEEDS = {"metric": METRIC_STREAM, "loss": LOSS_STREAM, "teacher": TEACHER_STREAM}
P_MEAN, P_STD = -0.8, 1.4
"""Distribution of a teacher's training noise levels: log-normal, with a share log-uniform between the bounds below."""
SIGMA_BOUNDS = (1e-3, 200.0)
LOSS_NOISE = 0.4
"""Largest strength of the noise added to a loss network's training images."""
CLASSIFIER_RATE = 2e-3


def levels(batch: int, generator: torch.Generator, share: int) -> Tensor:
    """Return [batch] float64 noise levels, stratified: the i-th lies in the i-th of equal parts of the distribution.

    Args:
        share: one in this many is log-uniform.

    Source: Karras et al. 2022, arXiv:2206.00364, table 1 (log-normal); the log-uniform share covers the extremes.
    """
    device = generator.device
    parts = torch.arange(batch, device=device) + torch.rand(
        batch, generator=generator, device=device, dtype=torch.float64
    )
    uniform = batch // share
    low, high = np.log(SIGMA_BOUNDS)
    normal = torch.special.ndtri(((parts[uniform:] - uniform) / (batch - uniform)).clamp(1e-9, 1 - 1e-9))
    flat = low + (high - low) * parts[:uniform] / max(uniform, 1)
    return torch.cat((flat, P_MEAN + P_STD * normal)).exp()


def denoising_loss(
    estimate: Callable[[Tensor, Tensor], Tensor], spread: float, clean: Tensor, sigma: Tensor, noise: Tensor
) -> Tensor:
    """Return the mean squared error of the estimates, weighted by (sigma^2 + sigma_data^2) / (sigma sigma_data)^2.

    Args:
        estimate: (noisy images, sigma) -> clean images.
        spread: sigma_data.
        clean, noise: [B, C, H, W]; sigma: [B] float64.

    Source: Karras et al. 2022, arXiv:2206.00364, equation 8 and table 1.
    """
    scale = sigma.float()[:, None, None, None]
    weight = (scale.square() + spread**2).sqrt() / (scale * spread)
    error = estimate(clean + scale * noise, sigma) - clean
    return (weight * error).square().mean()


def noisy(images: Tensor, seed: int) -> Tensor:
    """Return the images with noise of random strength; both depend only on the seed."""
    generator = torch.Generator(images.device).manual_seed(seed)
    strength = LOSS_NOISE * torch.rand(len(images), 1, 1, 1, generator=generator, device=images.device)
    noise = torch.randn(images.shape, generator=generator, device=images.device)
    return images + strength * noise


def batch_seeds(first: int, batch: int, device: torch.device) -> Tensor:
    """Return [batch] int64, the seeds from `first` on."""
    return torch.arange(first, first + batch, device=device)


def scores(network: FeatureNet | PerceptualNet, images: Tensor) -> Tensor:
    """Return a classifier's class scores of images in [-1, 1]."""
    found = network.classes(network(quantise(images))) if isinstance(network, FeatureNet) else network.logits(images)
    assert isinstance(found, Tensor)
    return found


@torch.no_grad()
def accuracy(classify: Callable[[Tensor], Tensor], images: Tensor, labels: Tensor, *, part: int = 1000) -> float:
    """Return the fraction of `images` that `classify` (images in [-1, 1] -> scores) assigns the class in `labels`."""
    found = torch.cat([classify(each).argmax(1) for each in torch.split(images, part)])
    return (found == labels).double().mean().item()


def start(name: str) -> None:
    """Seed torch for the network's initial weights; changing the global random state is safe in a script."""
    torch.manual_seed(NETWORKS.index(name) + 1)


def train_classifier(
    network: FeatureNet | PerceptualNet,
    name: str,
    loss: Callable[[int], Tensor],
    options: argparse.Namespace,
    measure: Callable[[Callable[[Tensor], Tensor]], dict[str, Any]],
    say: Say,
) -> None:
    """Train the metric or the loss network into options.out.

    Args:
        loss: see `NetworkFit`.
        measure: a classifier (images -> scores) -> its measured facts for the record.
    """
    job = NetworkFit(name, network, loss, CLASSIFIER_RATE, options.classifier_steps)

    def after(facts: dict[str, Any]) -> dict[str, Any]:
        return measure(partial(scores, network)) | {"first_seed": FIRST_SEEDS[name]}

    train(job, options.classifier_batch, options, after, say)


def train(
    job: NetworkFit,
    batch: int,
    options: argparse.Namespace,
    after: Callable[[dict[str, Any]], dict[str, Any]],
    say: Say,
) -> None:
    """Train a network into options.out: its weights, the teacher's as float16, and its section of the record.

    Args:
        after: facts of the run -> further facts for the record, measured on the trained network.
    """
    name, network, config = job.name, job.network, job.network.config
    checkpoint = options.out / f"{name}.checkpoint"
    facts = fit(job, checkpoint, say)
    made = artifacts.environment(torch.device(options.device))
    facts |= {"rate": job.rate, "batch": batch, "config": config, "made": made}
    facts |= after(facts)
    state = network.state_dict()
    if name == "teacher":
        state = {key: tensor.half() for key, tensor in state.items()}
    facts["sha256"] = artifacts.write(options.out / f"{name}.safetensors", state, config)  # type: ignore[arg-type]
    artifacts.add_to_record(options.out, name, facts)
    checkpoint.unlink(missing_ok=True)
    rest = {key: value for key, value in facts.items() if key.endswith(("accuracy", "loss"))}
    say(f"{name}: done, {facts['seconds']} s, {rest}")


def sigma_facts(share: int) -> dict[str, Any]:
    """Return the record's facts on the noise levels."""
    return {"p_mean": P_MEAN, "p_std": P_STD, "log_uniform_share": 1 / share}


def parser(
    name: str,
    about: str | None,
    *,
    minutes: float,
    batches: tuple[int, int],
    rate: float,
    classifier_batch: int,
) -> argparse.ArgumentParser:
    """Return a parser for a training command.

    Args:
        minutes, rate, classifier_batch: defaults.
        batches: defaults of --batch on a GPU and on a CPU.
    """
    gpu, cpu = batches
    made = commands.parser(name, about, "folder of the products; a second run resumes there")
    made.add_argument("--threads", type=int, help="CPU threads (default: torch's choice)")
    made.add_argument("--minutes", type=float, default=minutes, help="for the teacher; the others: 1 (GPU) to 12 (CPU)")
    made.add_argument("--steps", type=int, help="training steps of the teacher, in place of --minutes")
    made.add_argument("--batch", type=int, help=f"of the teacher (default: {gpu} on a GPU, {cpu} on a CPU)")
    made.add_argument("--rate", type=float, default=rate, help="peak learning rate of the teacher")
    made.add_argument("--classifier-steps", type=int, default=6000)
    made.add_argument("--classifier-batch", type=int, default=classifier_batch)
    made.add_argument("--networks", nargs="+", choices=NETWORKS, default=NETWORKS)
    made.set_defaults(batches=batches)
    return made


def train_all(
    options: argparse.Namespace,
    say: Say,
    train: Callable[[str, argparse.Namespace, Say], None],
    *,
    again: bool = False,
) -> None:
    """Train the requested networks that do not exist yet.

    Args:
        train: (name, options, say), trains one network.
        again: whether to train the teacher even if it exists.
    """
    gpu, cpu = options.batches
    options.batch = options.batch or (gpu if torch.device(options.device).type == "cuda" else cpu)
    if options.threads:
        torch.set_num_threads(options.threads)
    for name in options.networks:
        if name in artifacts.read_record(options.out) and not (again and name == "teacher"):
            say(f"{name}: already there, kept; use another --out to train it again")
            continue
        torch.set_float32_matmul_precision("high" if name == "teacher" else "highest")
        train(name, options, say)
