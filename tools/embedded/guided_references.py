"""References of a class-conditional teacher's own samples, one for each guidance."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from solverbench.metrics.frechet import Moments
from solverbench.seeds import label
from solverbench.teachers.embedded import artifacts as weights
from solverbench.teachers.embedded.conditional import Kind
from solverbench.teachers.teacher import Teacher

from . import references
from .commands import Say
from .references import Sampler, chunks, moments_of

SET = 2_000
"""Images in each of the disjoint sets whose distances are measured."""
BATCH = 250
"""Images sampled at once."""
NOISE_SEEDS = range(1_000_000, 1_010_000)
"""Noise seeds of the teacher's samples; their classes are the seeds modulo the number of classes."""
GUIDANCE = (1.0, 2.0)
COMPARED = 64
"""Images on which the sampler's error is measured."""


@torch.inference_mode()
def make_all(
    options: argparse.Namespace, say: Say, kind: Kind, load: Callable[..., Teacher], facts: Mapping[str, Any],
    reference: Moments,
) -> None:  # fmt: skip
    """Write the references of the teacher's samples into options.out, and the facts measured with them into its record.

    Each value of options.guidance gets a reference. References that the record already has for the same weights and
    sampler are kept, so an interrupted run resumes; with options.keep, those of other samplers too: each says which
    sampler made it. Then the error of the teacher's sampler is measured.

    Args:
        kind, load: the teacher's parts, and the function that loads it.
        facts: sections of the record on the data.
        reference: moments of the data.
    """
    started, out, device = time.monotonic(), options.out, options.device
    extract, network = kind.metric(out, device=device).features, kind.denoiser(out, device=device)
    sampler = Sampler(options.sampler, options.nfe, BATCH, device)
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
        bind = kind.bound(network, kind.condition(w), device)
        parts = []
        for chunk in chunks(NOISE_SEEDS, SET):
            parts.append(moments_of(list(sampler.samples(bind, chunk, kind.shape)), extract))
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
        found = references.convergence_of(out, load, COMPARED, guidance=w)
        told = weights.read_record(out)["references"]
        told["convergence"] = told.get("convergence", {}) | {f"{w:g}": found}
        weights.add_to_record(out, "references", told)


def record(out: Path, facts: Mapping[str, Any], kept: Mapping[str, Any], device: str) -> None:
    """Write the facts into the record of `out`."""
    made = {"quantiser": "edm-round", "teacher": kept, "made": weights.environment(torch.device(device))}
    weights.add_to_record(out, "references", {**facts, **made})


def parser(name: str, about: str | None, *, nfe: int) -> argparse.ArgumentParser:
    """Return the parser of a command that makes such references; `nfe` is the default."""
    made = references.parser(name, about, "the trained weights", sampler="unipc:order=3", nfe=nfe)
    made.add_argument("--keep", action="store_true", help="keep references of samples by another sampler")
    made.add_argument("--guidance", type=float, nargs="+", default=GUIDANCE, help="a reference of samples for each")
    return made
