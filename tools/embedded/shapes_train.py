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

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, mse_loss

from solverbench.errors import UserError
from solverbench.metrics.quantise import quantise
from solverbench.teachers.embedded import artifacts as weights
from solverbench.teachers.embedded.shapes import data, denoiser
from solverbench.teachers.embedded.shapes.denoiser import NULL, Denoiser
from solverbench.teachers.embedded.shapes.loss import LossNet
from solverbench.teachers.embedded.shapes.metric import MetricNet

from .fitting import NetworkFit, fit
from .shapes_growth import grown

VALIDATED = (20, 1000)
"""Batches that the trained teacher's loss is taken over, and unseen images in each."""
NETWORKS = ("metric", "loss", "teacher")
P_MEAN, P_STD = -0.8, 1.4
"""Noise levels that the teacher learns from: log-normal, and one in sixteen log-uniform between the bounds below."""
UNIFORM_SHARE = 16
SIGMA_BOUNDS = (1e-3, 200.0)
DROPPED = 0.1
"""Share of the images whose class the teacher isn't told: it learns the unconditional estimate from them."""
GROUND_WEIGHT, ATTRIBUTE_WEIGHT = 0.5, 2.0
SHIPPED: tuple[dict[str, Any], ...] = (
    {"steps": 36_000, "rate": 3e-3},
    {"more": 42_000, "rate": 2e-3},
    {"more": 24_000, "rate": 1.5e-3, "widths": [48, 64, 128], "blocks": [3, 1, 1]},
)
"""The stages in which the teacher of this package was trained: the small network is cheaper while it still learns."""
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


def denoising_loss(network: Denoiser, clean: Tensor, sigma: Tensor, noise: Tensor, classes: Tensor) -> Tensor:
    """Return the mean squared error of the estimates, weighted by (sigma^2 + sigma_data^2) / (sigma sigma_data)^2.

    The network's own arithmetic is bfloat16 here: half the time on a CPU that knows it, and sampling is float32.

    Args:
        clean, noise: [B, 3, 16, 16]; sigma: [B] float64; classes: [B] int64.

    Source: Karras et al. 2022, arXiv:2206.00364, equation 8 and table 1.
    """
    scale = sigma.float()[:, None, None, None]
    spread = network.sigma_data
    weight = (scale.square() + spread**2).sqrt() / (scale * spread)
    with torch.autocast(clean.device.type, torch.bfloat16):
        estimate = network(clean + scale * noise, sigma, classes)
    error: Tensor = weight * (estimate - clean)
    return error.square().mean()


def teacher_loss(
    network: Denoiser, device: torch.device, batch: int, step: int, *, seed: int = data.TEACHER_STREAM
) -> Tensor:
    """Return the denoising loss on fresh images; what it draws depends on (seed, step, batch) alone."""
    first = seed + step * batch
    drawn = data.draw(torch.arange(first, first + batch, device=device))
    generator = torch.Generator(device).manual_seed(first)
    sigma = levels(batch, generator)
    noise = torch.randn(drawn.images.shape, generator=generator, device=device)
    dropped = torch.rand(batch, generator=generator, device=device) < DROPPED
    return denoising_loss(network, drawn.images, sigma, noise, drawn.labels.masked_fill(dropped, NULL))


def metric_loss(network: MetricNet, device: torch.device, batch: int, step: int) -> Tensor:
    """Return the cross entropies of class and background plus the squared error of the rest, on images as uint8."""
    first = data.METRIC_STREAM + step * batch
    drawn = data.draw(torch.arange(first, first + batch, device=device))
    features = network(quantise(drawn.images))
    grounds = cross_entropy(network.grounds(features), drawn.grounds)
    error = mse_loss(network.attributes(features), drawn.attributes.float())
    return cross_entropy(network.classes(features), drawn.labels) + GROUND_WEIGHT * grounds + ATTRIBUTE_WEIGHT * error


def loss_loss(network: LossNet, device: torch.device, batch: int, step: int) -> Tensor:
    """Return the cross entropy of the class on fresh images with noise of random strength."""
    first = data.LOSS_STREAM + step * batch
    drawn = data.draw(torch.arange(first, first + batch, device=device))
    generator = torch.Generator(device).manual_seed(first)
    strength = LOSS_NOISE * torch.rand(batch, 1, 1, 1, generator=generator, device=device)
    noise = torch.randn(drawn.images.shape, generator=generator, device=device)
    return cross_entropy(network.logits(drawn.images + strength * noise), drawn.labels)


@torch.no_grad()
def accuracy(classify: Callable[[Tensor], Tensor], images: Tensor, labels: Tensor) -> float:
    """Return the share of `images` that `classify` (images in [-1, 1] -> scores) puts into the class of `labels`."""
    found = torch.cat([classify(part).argmax(1) for part in torch.split(images, 1000)])
    return (found == labels).double().mean().item()


def train(name: str, options: argparse.Namespace, say: Callable[[str], None]) -> None:
    """Train one of metric, loss, teacher into options.out: its weights, and its section of the record."""
    device, out = torch.device(options.device), options.out
    before = weights.read_record(out).get(name, {}) if options.more else {}
    torch.manual_seed({"metric": 1, "loss": 2, "teacher": 3}[name])  # the networks' initial weights: we are the program
    network: MetricNet | LossNet | Denoiser
    if name == "metric":
        network, batch = MetricNet().to(device), options.classifier_batch
        job = NetworkFit(name, network, partial(metric_loss, network, device, batch), 2e-3, options.classifier_steps)
    elif name == "loss":
        network, batch = LossNet().to(device), options.classifier_batch
        job = NetworkFit(name, network, partial(loss_loss, network, device, batch), 2e-3, options.classifier_steps)
    else:
        network, batch = Denoiser().to(device), options.batch
        if before:
            network = denoiser.load(out).requires_grad_(True).train()
            widths, blocks = options.widths or network.config["widths"], options.blocks or network.config["blocks"]
            network = grown(network, widths, blocks).to(device)
        seen = before.get("images", before.get("steps", 0) * before.get("batch", 0))
        loss = partial(teacher_loss, network, device, batch, seed=data.TEACHER_STREAM + seen)
        job = NetworkFit(name, network, loss, options.rate, options.more or options.steps, options.minutes)
    checkpoint = out / f"{name}.checkpoint"
    facts: dict[str, Any] = fit(job, checkpoint, say)
    facts |= {"rate": job.rate, "batch": batch, "config": network.config, "made": weights.environment(device)}
    first = data.VALIDATION_SEEDS.start
    if isinstance(network, Denoiser):
        with torch.no_grad():
            losses = [teacher_loss(network, device, VALIDATED[1], k, seed=first) for k in range(VALIDATED[0])]
            facts["validation_loss"] = torch.stack(losses).mean().item()
        facts |= {"sigma": {"p_mean": P_MEAN, "p_std": P_STD, "log_uniform_share": 1 / UNIFORM_SHARE}}
        facts |= {"dropped_classes": DROPPED, "arithmetic": "bfloat16", "first_seed": data.TEACHER_STREAM + seen}
        facts |= {"images": seen + facts["steps"] * batch, "before": before} if before else {}
    else:
        unseen = data.draw(torch.arange(first, first + 20_000, device=device))
        facts["held_out_accuracy"] = accuracy(partial(_scores, network), unseen.images, unseen.labels)
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
    parser = argparse.ArgumentParser(prog="python -m tools.embedded.shapes_train", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder of the products; a second run resumes there")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, help="CPU threads (default: torch's choice)")
    parser.add_argument("--minutes", type=float, default=75.0, help="for the teacher; the others: 1 (GPU) to 12 (CPU)")
    parser.add_argument("--steps", type=int, help="training steps of the teacher, in place of --minutes")
    parser.add_argument("--more", type=int, metavar="STEPS", help="train the teacher in --out for so many more steps")
    parser.add_argument("--shipped", action="store_true", help="train the teacher in the stages of the package's own")
    parser.add_argument("--widths", type=int, nargs=3, help="with --more: first grow the teacher to so many channels")
    parser.add_argument("--blocks", type=int, nargs=3, help="and so many blocks a level")
    parser.add_argument("--batch", type=int, help="of the teacher (default: 1024 on a GPU, 64 on a CPU)")
    parser.add_argument("--rate", type=float, default=3e-3, help="peak learning rate of the teacher")
    parser.add_argument("--classifier-steps", type=int, default=6000)
    parser.add_argument("--classifier-batch", type=int, default=128)
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=NETWORKS)
    options = parser.parse_args(arguments)
    weights.check_device(options.device)
    options.batch = options.batch or (1024 if torch.device(options.device).type == "cuda" else 64)
    return options


def _stages(folder: Path) -> int:
    """In how many stages the teacher in `folder` was trained; 0: there is none."""
    count, facts = 0, weights.read_record(folder).get("teacher")
    while facts:
        count, facts = count + 1, facts.get("before")
    return count


def main(arguments: list[str] | None = None) -> int:
    """Train the networks that are asked for and not yet there; return the exit code."""
    say = partial(print, flush=True)
    try:
        options = _options(arguments)
        if options.threads:
            torch.set_num_threads(options.threads)
        for name in options.networks:
            torch.set_float32_matmul_precision("high" if name == "teacher" else "highest")
            if options.shipped and name == "teacher":
                for stage in SHIPPED[_stages(options.out) :]:
                    train(name, argparse.Namespace(**vars(options) | stage), say)
            elif name in weights.read_record(options.out) and not (options.more and name == "teacher"):
                say(f"{name}: already there, kept; use another --out to train it again")
            else:
                train(name, options, say)
    except UserError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
