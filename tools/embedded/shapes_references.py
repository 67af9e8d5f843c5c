"""Makes the references for the shapes teacher's samples: moments of the data and of its own many-step samples.

python -m tools.embedded.shapes_references --out FOLDER --device cpu, where FOLDER holds the trained weights.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from solverbench.seeds import label
from solverbench.teachers.conditions import Condition
from solverbench.teachers.embedded import artifacts as weights
from solverbench.teachers.embedded import shapes as shapes_teacher
from solverbench.teachers.embedded.shapes import conditioned, data, denoiser, metric
from solverbench.teachers.embedded.streams import as_tensor

from . import commands, references
from .commands import Say
from .references import Sampler, chunks, moments_of

SET = 2_000
"""Images in each of the disjoint sets whose distances are measured."""
BATCH = 250
"""Images sampled at once."""
NOISE_SEEDS = range(1_000_000, 1_010_000)
"""Noise seeds of the teacher's samples; their classes are the seeds modulo 10."""
GUIDANCE = (1.0, 2.0)
COMPARED = 64
"""Images on which the sampler's error is measured."""


@torch.inference_mode()
def make_all(options: argparse.Namespace, say: Say) -> None:
    """Write the reference files into options.out, and the facts measured with them into its record.

    Each value of options.guidance gets a reference of the teacher's samples. References that the record already has for
    the same weights and sampler are kept, so an interrupted run resumes; with options.keep, those of other samplers
    too: each says which sampler made it. Then the error of the teacher's sampler is measured.

    Raises:
        MissingError, RecordError: the weights are missing, or differ from the recorded ones.
    """
    started, out, device = time.monotonic(), options.out, options.device
    extract, network = metric.load(out, device=device).features, denoiser.load(out, device=device)
    sampler = Sampler(options.sampler, options.nfe, BATCH, device)

    def draw(seeds: range) -> Tensor:
        return data.draw(as_tensor(seeds, device)).images

    reference = references.drawn_moments(draw, data.REFERENCE_SEEDS, 1000, extract)
    floor = [references.drawn_moments(draw, part, 1000, extract) for part in chunks(data.FLOOR_SEEDS, SET)]
    seeds = data.REFERENCE_SEEDS, data.FLOOR_SEEDS
    facts = references.data_facts(out, reference, floor, key="seeds", seeds=seeds, fresh="fresh data")
    say(f"references: data floor {facts['data_floor']['mean']:.4f}, {time.monotonic() - started:.0f} s")
    made_by: dict[str, Any] = {"weights_sha256": references.weights_of(out), **sampler.facts}
    before = weights.read_record(out).get("references", {})
    whole = before.get("weights_sha256") == made_by["weights_sha256"]
    kept = {
        name: own
        for name, own in (before.get("teacher", {}) if whole else {}).items()
        if options.keep or (own["sampler"], own["nfe"]) == (options.sampler, options.nfe)
    }
    for w in options.guidance:
        if f"{w:g}" in kept:
            say(f"references: guidance {w:g} is there already, kept")
            continue
        bind = conditioned(network, Condition(classes="seed", count=data.CLASSES, guidance=w), device)
        parts = []
        for chunk in chunks(NOISE_SEEDS, SET):
            parts.append(moments_of(list(sampler.samples(bind, chunk, data.SHAPE)), extract))
            say(f"references: guidance {w:g}, samples {label(chunk)}, {time.monotonic() - started:.0f} s")
        path = out / f"reference-teacher-{w:g}.npz"
        kept[f"{w:g}"] = {
            **references.write_moments(path, references.total_of(parts), noise_seeds=label(NOISE_SEEDS)),
            **references.distances(parts, reference),
            "sampler": made_by["sampler"],
            "nfe": made_by["nfe"],
        }
        say(f"references: guidance {w:g}, distance to the data {kept[f'{w:g}']['teacher_distance']['mean']:.4f}")
        record(out, made_by | facts, kept, device)
    record(out, made_by | facts, kept, device)
    for w in options.guidance:
        found = references.convergence_of(out, shapes_teacher.load, COMPARED, guidance=w)
        told = weights.read_record(out)["references"]
        told["convergence"] = told.get("convergence", {}) | {f"{w:g}": found}
        weights.add_to_record(out, "references", told)


def record(out: Path, facts: Mapping[str, Any], kept: Mapping[str, Any], device: str) -> None:
    """Write the facts into the record of `out`."""
    made = {"quantiser": "edm-round", "teacher": kept, "made": weights.environment(torch.device(device))}
    weights.add_to_record(out, "references", {**facts, **made})


def main(arguments: list[str] | None = None) -> int:
    """Make the references of the weights in --out; return the exit code."""
    sampler = "unipc:order=3"
    options = references.parser("shapes_references", __doc__, "the trained weights", sampler=sampler, nfe=64)
    options.add_argument("--keep", action="store_true", help="keep references of samples by another sampler")
    options.add_argument("--guidance", type=float, nargs="+", default=GUIDANCE, help="a reference of samples for each")
    return commands.run(options, arguments, make_all)


if __name__ == "__main__":
    sys.exit(main())
