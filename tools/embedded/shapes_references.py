"""Makes what the shapes teacher's samples are judged by: moments of the data and of its own many-step samples.

python -m tools.embedded.shapes_references --out FOLDER --device cpu, where FOLDER holds the trained weights.
"""

from __future__ import annotations

import argparse
import functools
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from solverbench.errors import UserError
from solverbench.method.execution import execute
from solverbench.method.schedules import EDM
from solverbench.method.spec import make
from solverbench.method.tableau import Plan
from solverbench.metrics.frechet import Moments, frechet
from solverbench.sampling import endpoints
from solverbench.seeds import label, noise
from solverbench.teachers.conditions import Condition
from solverbench.teachers.embedded import artifacts as weights
from solverbench.teachers.embedded.shapes import conditioned, data, denoiser, metric

from .digits_references import chunks, moments_of, spread, total_of, write_moments

SET = 2_000
"""Images in each of the disjoint sets whose distances are taken."""
NOISE_SEEDS = range(1_000_000, 1_010_000)
"""Noise of the teacher's samples; their classes are the seeds modulo 10."""
GUIDANCE = (1.0, 2.0)
DATA_FILE = "reference-data.npz"


def samples(
    bind: Callable[[Sequence[int]], Callable[[Tensor, Tensor], Tensor]],
    plan: Plan,
    seeds: range,
    device: str,
    batch: int = 250,
) -> Iterator[Tensor]:
    """Yield the images [batch, 3, 16, 16] in [-1, 1] that `plan` (of unit noise) makes from the noise of `seeds`."""
    for part in chunks(seeds, batch):
        yield execute(plan, bind(part), noise(part, data.SHAPE).to(device))


def data_facts(out: Path, extract: Callable[[Tensor], Tensor], device: str) -> tuple[Moments, dict[str, Any]]:
    """Write the moments of the data into `out`; return them, and what the record says of them."""

    def moments(seeds: range) -> Moments:
        return moments_of([data.draw(_tensor(part, device)).images for part in chunks(seeds, 1000)], extract)

    reference = moments(data.REFERENCE_SEEDS)
    floor = [frechet(moments(part), reference) for part in chunks(data.FLOOR_SEEDS, SET)]
    return reference, {
        "data": {
            "file": DATA_FILE,
            "n": reference.n,
            "seeds": label(data.REFERENCE_SEEDS),
            "sha256": write_moments(out / DATA_FILE, reference),
        },
        "data_floor": {
            "what": "fresh data against the data reference",
            "seeds": label(data.FLOOR_SEEDS),
            **spread(floor, SET),
        },
    }


def teacher_facts(
    out: Path, sets: Sequence[Sequence[Tensor]], extract: Callable[[Tensor], Tensor], reference: Moments, file: str
) -> dict[str, Any]:
    """Write the moments of the sets of samples into `out`; return what the record says of them.

    Args:
        reference: of the data.
    """
    parts = [moments_of(images, extract) for images in sets]
    total = total_of(parts)
    return {
        "file": file,
        "n": total.n,
        "noise_seeds": label(NOISE_SEEDS),
        "sha256": write_moments(out / file, total),
        "teacher_distance": {
            "what": "sets of the teacher's samples against the data reference",
            **spread([frechet(part, reference) for part in parts], SET),
        },
        "teacher_floor": {
            "what": "each set of the teacher's samples against all the other sets",
            **spread([frechet(part, total - part) for part in parts], SET),
        },
    }


@torch.inference_mode()
def make_all(
    out: Path, *, device: str, sampler: str, nfe: int, guidance: Sequence[float], say: Callable[[str], None]
) -> None:
    """Write the reference files into `out`, and the facts measured beside them into its record.

    A reference that the record has for the same weights and sampler is kept: an interrupted run goes on.

    Args:
        sampler, nfe: spec and calls of the teacher sampler.
        guidance: each gets a reference of the teacher's samples.
        say: takes one progress line now and then.

    Raises:
        MissingError, RecordError: the weights aren't there, or aren't the recorded ones.
    """
    started = time.monotonic()
    extract, network = metric.load(out, device=device).features, denoiser.load(out, device=device)
    schedule, solver = EDM(), make(sampler)
    plan = endpoints.goal(solver, nfe, schedule)
    reference, facts = data_facts(out, extract, device)
    say(f"references: data floor {facts['data_floor']['mean']:.4f}, {time.monotonic() - started:.0f} s")
    made_by = {
        "weights_sha256": {name: weights.digest(out / f"{name}.safetensors") for name in ("teacher", "metric")},
        "sampler": solver.spec,
        "nfe": nfe,
        "asked": plan.asked,
    }
    before = weights.read_record(out).get("references", {})
    kept = before.get("teacher", {}) if {key: before.get(key) for key in made_by} == made_by else {}
    for w in guidance:
        if f"{w:g}" in kept:
            say(f"references: guidance {w:g} is there already, kept")
            continue
        bind = conditioned(network, Condition(classes="seed", count=data.CLASSES, guidance=w), device)
        sets = []
        for chunk in chunks(NOISE_SEEDS, SET):
            sets.append(list(samples(bind, plan, chunk, device)))
            say(f"references: guidance {w:g}, samples {label(chunk)}, {time.monotonic() - started:.0f} s")
        kept[f"{w:g}"] = teacher_facts(out, sets, extract, reference, f"reference-teacher-{w:g}.npz") | {
            "sampler": solver.spec,
            "nfe": nfe,
        }
        made = {"quantiser": "edm-round", "teacher": kept, "made": weights.environment(torch.device(device))}
        weights.add_to_record(out, "references", made_by | facts | made)
        say(f"references: guidance {w:g}, distance to the data {kept[f'{w:g}']['teacher_distance']['mean']:.4f}")


def _tensor(seeds: range, device: str) -> Tensor:
    return torch.arange(seeds.start, seeds.stop, device=device)


def main(arguments: list[str] | None = None) -> int:
    """Make the references of the weights in --out; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tools.embedded.shapes_references", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder with the trained weights, and of the products")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--sampler", default="dpm:order=3:grid=polynomial", help="spec of the teacher sampler")
    parser.add_argument("--nfe", type=int, default=32, help="its calls")
    parser.add_argument("--guidance", type=float, nargs="+", default=GUIDANCE, help="a reference of samples for each")
    options = parser.parse_args(arguments)
    say = functools.partial(print, flush=True)
    try:
        weights.check_device(options.device)
        make_all(
            options.out,
            device=options.device,
            sampler=options.sampler,
            nfe=options.nfe,
            guidance=options.guidance,
            say=say,
        )
    except UserError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
