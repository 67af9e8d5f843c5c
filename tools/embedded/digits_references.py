"""Makes the references for the digits teacher's samples: moments of the data and of its own many-step samples.

python -m tools.embedded.digits_references --out FOLDER --device cpu, where FOLDER holds the trained weights.
"""

from __future__ import annotations

import argparse
import sys
import time
from typing import Any

import torch
from torch import Tensor

from solverbench.metrics.frechet import frechet
from solverbench.seeds import label
from solverbench.teachers.embedded import artifacts as weights
from solverbench.teachers.embedded import digits as digits_teacher
from solverbench.teachers.embedded.digits import data, denoiser, metric

from . import commands, references
from .commands import Say
from .references import Sampler, chunks, moments_of

SET = 10_000
"""Images in each of the disjoint sets whose distances are measured."""
NOISE_SEEDS = range(1_000_000, 1_100_000)
"""Noise seeds of the teacher's samples."""


COMPARED = 1000
"""Images on which the sampler's error is measured."""


def nearest(images: Tensor, others: Tensor) -> Tensor:
    """Return [B], the Euclidean distance of each of `images` [B, ...] to the nearest of `others` [M, ...]."""
    parts = torch.split(others.flatten(1), 10_000)
    found = [torch.cdist(images.flatten(1), part).amin(1) for part in parts]
    return torch.stack(found).amin(0)


@torch.inference_mode()
def make_all(options: argparse.Namespace, say: Say) -> None:
    """Write both reference files into options.out, and the facts measured with them into its record.

    Raises:
        MissingError, RecordError: the weights are missing, or differ from the recorded ones.
    """
    started, out, device = time.monotonic(), options.out, options.device
    extract, network = metric.load(out, device=device).features, denoiser.load(out, device=device)
    digits = data.load().to(device)
    sampler = Sampler(options.sampler, options.nfe, options.batch, device)

    def draw(seeds: range) -> Tensor:
        return digits.copies(seeds).images

    sets = [references.drawn_moments(draw, part, 2000, extract) for part in chunks(data.REFERENCE_SEEDS, SET)]
    reference = references.total_of(sets)
    floor = [references.drawn_moments(draw, part, 2000, extract) for part in chunks(data.FLOOR_SEEDS, SET)]
    seeds = data.REFERENCE_SEEDS, data.FLOOR_SEEDS
    about_data = references.data_facts(out, reference, floor, key="augmentation_seeds", seeds=seeds, fresh="fresh data")
    say(f"references: data floor {about_data['data_floor']['mean']:.4f}, {time.monotonic() - started:.0f} s")
    parts, kept = [], torch.empty(0)
    for chunk in chunks(NOISE_SEEDS, SET):
        images = list(sampler.samples(lambda seeds: network, chunk, data.SHAPE))
        kept = kept if len(kept) else torch.cat(images)[:2000]
        parts.append(moments_of(images, extract))
        distance = frechet(parts[-1], reference)
        say(f"references: samples {label(chunk)}, distance {distance:.4f}, {time.monotonic() - started:.0f} s")
    fresh = torch.cat([draw(part) for part in chunks(data.VALIDATION_SEEDS[:52_000], 2000)])
    near = {"samples": nearest(kept, fresh[2000:]), "fresh_data": nearest(fresh[:2000], fresh[2000:])}
    facts: dict[str, Any] = {
        **references.both(out, references.weights_of(out), about_data, reference, parts, NOISE_SEEDS, sampler),
        "nearest": {
            "what": "mean distance of 2000 images to the nearest of 50000 fresh copies; pixels in [-1, 1]",
            **{name: round(values.mean().item(), 4) for name, values in near.items()},
        },
        "seconds": round(time.monotonic() - started, 1),
        "made": weights.environment(torch.device(device)),
    }
    weights.add_to_record(out, "references", facts)
    facts["convergence"] = references.convergence_of(out, digits_teacher.load, COMPARED)
    weights.add_to_record(out, "references", facts)
    say(f"references: teacher {facts['teacher_distance']['mean']:.4f}, nearest {facts['nearest']}")


def main(arguments: list[str] | None = None) -> int:
    """Make the references of the weights in --out; return the exit code."""
    sampler = "unipc:order=3"
    options = references.parser("digits_references", __doc__, "the trained weights", sampler=sampler, nfe=100)
    options.add_argument("--batch", type=int, default=1000, help="images sampled at once")
    return commands.run(options, arguments, make_all)


if __name__ == "__main__":
    sys.exit(main())
