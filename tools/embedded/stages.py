"""Training of a class-conditional teacher in stages: a small network first, then grown, as early steps need no more."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from solverbench.teachers.embedded import artifacts as weights
from solverbench.teachers.embedded.streams import TEACHER_STREAM
from solverbench.teachers.embedded.unet import UNet

from . import training
from .commands import Say
from .fitting import NetworkFit
from .growth import grown


class Loss(Protocol):
    """A teacher's denoising loss on a batch; its random draws depend only on (seed, step, batch)."""

    def __call__(self, network: Any, *, batch: int, step: int, seed: int) -> Tensor: ...


def arithmetic(device: torch.device) -> str:
    """Return what the teacher's layers are trained in: bfloat16 on a GPU, and on a CPU with instructions for it.

    There it takes half of float32's time, elsewhere three times as long. Sampling uses float32.
    """
    known = getattr(torch.cpu, "get_capabilities", dict)()  # torch 2.6 has no such function
    return "bfloat16" if device.type != "cpu" or known.get("amx_bf16") or known.get("avx512_bf16") else "float32"


def estimator(network: UNet, classes: Tensor) -> Callable[[Tensor, Tensor], Tensor]:
    """Return (noisy images, sigma) -> the estimates of images of these classes [B], in the device's `arithmetic`."""

    def estimate(x: Tensor, sigma: Tensor) -> Tensor:
        with torch.autocast(x.device.type, torch.bfloat16, enabled=arithmetic(x.device) == "bfloat16"):
            found: Tensor = network(x, sigma, classes)
        return found

    return estimate


def train_teacher(
    network: UNet, load: Callable[[Path], UNet], losses: tuple[Loss, Loss], options: argparse.Namespace, say: Say, *,
    validation: tuple[int, int, int], facts: dict[str, Any],
) -> None:  # fmt: skip
    """Train the teacher, starting from `network`'s weights or, with options.more, from those in options.out.

    Args:
        load: returns the network in a folder.
        losses: on the training images and on others.
        validation: number of batches for the validation loss, images in each, and the first seed.
        facts: further facts for the record.
    """
    device, batch = torch.device(options.device), options.batch
    before = weights.read_record(options.out).get("teacher", {}) if options.more else {}
    if before:
        network = load(options.out).requires_grad_(True).train()
        widths, blocks = options.widths or network.config["widths"], options.blocks or network.config["blocks"]
        network = grown(network, widths, blocks)
    network = network.to(device)
    seen = before.get("images", before.get("steps", 0) * before.get("batch", 0))

    def loss(step: int) -> Tensor:
        return losses[0](network, batch=batch, step=step, seed=TEACHER_STREAM + seen)

    job = NetworkFit("teacher", network, loss, options.rate, options.more or options.steps, options.minutes)

    @torch.no_grad()
    def after(told: dict[str, Any]) -> dict[str, Any]:
        count, size, first = validation
        found = [losses[1](network, batch=size, step=k, seed=first) for k in range(count)]
        own: dict[str, Any] = {"validation_loss": torch.stack(found).mean().item(), **facts}
        own |= {"arithmetic": arithmetic(device), "first_seed": TEACHER_STREAM + seen}
        return own | ({"images": seen + told["steps"] * batch, "before": before} if before else {})

    training.train(job, batch, options, after, say)


def done(folder: Path) -> int:
    """Return the number of stages in which the teacher in `folder` was trained; 0 if there is none."""
    count, facts = 0, weights.read_record(folder).get("teacher")
    while facts:
        count, facts = count + 1, facts.get("before")
    return count


def work(
    options: argparse.Namespace,
    say: Say,
    train: Callable[[str, argparse.Namespace, Say], None],
    shipped: Sequence[dict[str, Any]],
) -> None:
    """Train the requested networks that do not exist yet; continue the teacher's training if requested.

    Args:
        train: (name, options, say), trains one network.
        shipped: settings of the stages in which options.shipped trains the teacher.
    """

    def trained(name: str, options: argparse.Namespace, say: Say) -> None:
        if options.shipped and name == "teacher":
            for stage in shipped[done(options.out) :]:
                train(name, argparse.Namespace(**vars(options) | stage), say)
        else:
            train(name, options, say)

    training.train_all(options, say, trained, again=bool(options.more or options.shipped))


def parser(name: str, about: str | None, levels: int, **usual: Any) -> argparse.ArgumentParser:
    """Return `training.parser` with the options of stages, for a network of so many levels."""
    made = training.parser(name, about, **usual)
    made.add_argument("--more", type=int, metavar="STEPS", help="train the teacher in --out for so many more steps")
    made.add_argument("--shipped", action="store_true", help="train the teacher in the stages of the package's own")
    made.add_argument("--widths", type=int, nargs=levels, help="channels of each level; with --more, grow it first")
    made.add_argument("--blocks", type=int, nargs=levels, help="and so many blocks a level")
    return made


def bound(loss: Callable[..., Tensor], *first: Any) -> Loss:
    """Return a loss whose arguments after the network are `first`, batch, step and seed."""

    def call(network: Any, *, batch: int, step: int, seed: int) -> Tensor:
        return partial(loss, network, *first)(batch, step, seed=seed)

    return call
