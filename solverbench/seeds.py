"""Image seeds: an image's seed fixes its noise; ranges of seeds are reserved for evaluation and training."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from solverbench.errors import UserError

EVALUATION_START = 50_000
"""First evaluation seed; the seeds below it are for training and validation."""


def noise(seeds: Sequence[int], shape: Sequence[int], device: str = "cpu") -> Tensor:
    """Return the unit normal noise [B, *shape] float32 on `device` of the images with these B seeds.

    A row depends only on its own seed, not on the batch, the solver or the device. It is drawn on the CPU and
    copied to a CUDA device asynchronously from pinned memory.
    """
    cuda = torch.device(device).type == "cuda"
    rows = torch.empty((len(seeds), *shape), dtype=torch.float32, pin_memory=cuda)
    generator = torch.Generator("cpu")
    for row, seed in zip(rows, seeds, strict=True):
        generator.manual_seed(seed)
        draw(generator, shape, out=row)
    return rows.to(device, non_blocking=cuda)


def generator(seed: int, purpose: str, number: int) -> torch.Generator:
    """Return a separate CPU generator for one use in a training; its seed is hashed, so it repeats no image's noise."""
    digest = hashlib.sha256(f"{purpose} {number} of training seed {seed}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)


def draw(generator: torch.Generator, shape: Sequence[int], *, out: Tensor | None = None) -> Tensor:
    """Return unit normal noise [*shape] from a seed's generator; later draws from it also depend only on that seed."""
    return torch.randn(tuple(shape), generator=generator, out=out)


def label(seeds: range) -> str:
    """Return consecutive seeds as text, both ends included: `50000-79999`."""
    return f"{seeds.start}-{seeds.stop - 1}"


def parse(text: str) -> range:
    """Return the consecutive seeds written `FIRST-LAST` (both included) or as one number.

    Raises:
        UserError: another form, a reversed range, or a seed of 2^63 or more.
    """
    match = re.fullmatch(r"\s*(\d+)\s*(?:-\s*(\d+)\s*)?", text)
    if match is None:
        raise UserError(
            asked=f"seeds {text!r}", wrong="not a range of seeds", remedy="write FIRST-LAST, such as 50000-79999"
        )
    first, last = int(match[1]), int(match[2] or match[1])
    if last < first:
        raise UserError(
            asked=f"seeds {text!r}", wrong=f"reversed, {last} is below {first}", remedy=f"write {last}-{first}"
        )
    if last >= 2**63:
        raise UserError(asked=f"seeds {text!r}", wrong=f"{last} is too large for a seed", remedy="use seeds below 2^63")
    return range(first, last + 1)


def check_apart(evaluation: range, used: Mapping[str, range], what: str) -> None:
    """Refuse to evaluate on seeds that `what`, a learned solver, was made with.

    Args:
        evaluation: the seeds to evaluate on.
        used: seeds that it has seen, by purpose, such as {"training": range(0, 40000)}.
        what: the learned solver, for the message.

    Raises:
        UserError: the two share a seed.
    """
    for purpose, seeds in used.items():
        first, last = max(evaluation.start, seeds.start), min(evaluation.stop, seeds.stop) - 1
        if first <= last:
            raise UserError(
                asked=f"seeds {label(evaluation)}",
                wrong=f"{label(range(first, last + 1))} are {purpose} seeds of {what}",
                remedy=f"evaluate on seeds from {max(EVALUATION_START, seeds.stop)}",
            )
