"""Shared by the reports of quality of class-conditional teachers: classes of guided samples, and a sheet of them."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import pad

from solverbench.files import write_bytes
from solverbench.metrics.frechet import Moments, Statistics, frechet
from solverbench.metrics.quantise import quantise
from solverbench.teachers.conditions import passes
from solverbench.teachers.embedded import artifacts as weights
from solverbench.teachers.embedded.conditional import Kind

from .guided_references import BATCH
from .references import Sampler

SEEDS = range(2_000_000, 3_000_000)
"""Noise seeds of the guided samples; separate from those of the references."""


def samples(kind: Kind, folder: Path, w: float, seeds: range, device: str) -> Iterator[Tensor]:
    """Yield the teacher's samples at guidance `w`, by its own sampler."""
    record = weights.read_record(folder)["references"]
    bind = kind.bound(kind.denoiser(folder, device=device), kind.condition(w), device)
    return Sampler(record["sampler"], record["nfe"], BATCH, device).samples(bind, seeds, kind.shape)


@torch.inference_mode()
def table(
    kind: Kind, folder: Path, guidance: Sequence[float], count: int, reference: Statistics, device: str
) -> Iterator[str]:
    """Yield lines: by guidance, the fraction of samples that show the requested class, and their distance to the data.

    The metric network determines the class shown.
    """
    yield f"\n| guidance | rows a call | of the class that they were told | Fréchet distance, n = {count} |"
    yield "|---|---|---|---|"
    classifier, chosen = kind.metric(folder, device=device), SEEDS[:count]
    for w in guidance:
        made = samples(kind, folder, w, chosen, device)
        features = torch.cat([classifier.features(quantise(images)) for images in made])
        told = torch.tensor(kind.condition(w).labels(chosen, kind.shape), device=device)
        right = (classifier.classes(features).argmax(1) == told).double().mean().item()
        yield f"| {w:g} | {passes(w, True)} | {right:.3f} | {frechet(Moments.of(features), reference):.3f} |"


@torch.inference_mode()
def picture(
    kind: Kind, folder: Path, real: Tensor, guidance: Sequence[float], device: str, path: Path, *, enlarged: int
) -> None:
    """Write a sheet: `real` [classes, across, *shape], then as many samples at each guidance; a row for each class."""
    classes, across = real.shape[:2]
    blocks = [real]
    for w in guidance:
        made = torch.cat(list(samples(kind, folder, w, SEEDS[: classes * across], device)))
        blocks.append(made.cpu().reshape(across, classes, *kind.shape).transpose(0, 1))
    framed = [pad(block, (1, 1, 1, 1), value=1.0) for block in blocks]
    gap = torch.ones_like(framed[0][:, :1])
    sheet = torch.cat([part for block in framed for part in (block, gap)][:-1], 1)
    pixels = quantise(sheet).permute(0, 3, 1, 4, 2).flatten(0, 1).flatten(1, 2).squeeze(-1)
    image = Image.fromarray(pixels.numpy())
    image = image.resize((enlarged * image.width, enlarged * image.height), Image.Resampling.NEAREST)
    buffer = io.BytesIO()
    image.save(buffer, "png", optimize=True)
    write_bytes(path, buffer.getvalue())
