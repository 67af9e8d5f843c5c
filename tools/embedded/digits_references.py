"""Makes what the digits teacher's samples are judged by: moments of the data and of its own many-step samples.

python -m tools.embedded.digits_references --out FOLDER --device cpu, where FOLDER holds the trained weights.
"""

from __future__ import annotations

import argparse
import functools
import operator
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.special import stdtrit
from torch import Tensor

from solverbench.errors import UserError
from solverbench.files import write_arrays
from solverbench.method.execution import execute
from solverbench.method.schedules import EDM
from solverbench.method.spec import make
from solverbench.method.tableau import Plan
from solverbench.metrics.frechet import Moments, frechet
from solverbench.metrics.quantise import quantise
from solverbench.sampling import endpoints
from solverbench.seeds import label, noise
from solverbench.teachers.embedded import artifacts as weights
from solverbench.teachers.embedded.digits import data, denoiser, metric
from solverbench.teachers.embedded.digits.data import Digits

SET = 10_000
"""Images in each of the disjoint sets whose distances are taken."""
NOISE_SEEDS = range(1_000_000, 1_100_000)
"""Noise of the teacher's samples."""
DATA_FILE, TEACHER_FILE = "reference-data.npz", "reference-teacher.npz"


def data_sets(digits: Digits, seeds: range, extract: Callable[[Tensor], Tensor]) -> Iterator[Moments]:
    """Yield the moments of the copies with `seeds`, 10 000 by 10 000, as uint8, on the features of `extract`."""
    for chunk in chunks(seeds, SET):
        yield moments_of([digits.copies(part).images for part in chunks(chunk, 2000)], extract)


def samples(
    network: Callable[[Tensor, Tensor], Tensor], plan: Plan, seeds: range, batch: int, device: str
) -> Iterator[Tensor]:
    """Yield the images [batch, 1, 8, 8] in [-1, 1] that `plan` (of unit noise) makes from the noise of `seeds`."""
    for part in chunks(seeds, batch):
        yield execute(plan, network, noise(part, data.SHAPE).to(device))


def nearest(images: Tensor, others: Tensor) -> Tensor:
    """Return [B], the Euclidean distance of each of `images` [B, ...] to the nearest of `others` [M, ...]."""
    parts = torch.split(others.flatten(1), 10_000)
    found = [torch.cdist(images.flatten(1), part).amin(1) for part in parts]
    return torch.stack(found).amin(0)


def make_all(out: Path, *, device: str, sampler: str, nfe: int, batch: int, say: Callable[[str], None]) -> None:
    """Write both reference files into `out`, and the facts measured beside them into its record.

    Args:
        sampler, nfe: spec and calls of the teacher sampler.
        batch: images sampled at once.
        say: takes one progress line now and then.

    Raises:
        MissingError, RecordError: the weights aren't there, or aren't the recorded ones.
    """
    started = time.monotonic()
    extract, network = metric.load(out, device=device).features, denoiser.load(out, device=device)
    digits, schedule, solver = data.load().to(device), EDM(), make(sampler)
    plan = endpoints.goal(solver, nfe, schedule)

    with torch.inference_mode():
        reference = total_of(list(data_sets(digits, data.REFERENCE_SEEDS, extract)))
        floor = [frechet(part, reference) for part in data_sets(digits, data.FLOOR_SEEDS, extract)]
        say(f"references: data floor {np.mean(floor):.4f}, {time.monotonic() - started:.0f} s")
        parts, kept = [], torch.empty(0)
        for chunk in chunks(NOISE_SEEDS, SET):
            images = list(samples(network, plan, chunk, batch, device))
            kept = kept if len(kept) else torch.cat(images)[:2000]
            parts.append(moments_of(images, extract))
            distance = frechet(parts[-1], reference)
            say(f"references: samples {label(chunk)}, distance {distance:.4f}, {time.monotonic() - started:.0f} s")
        fresh = torch.cat([digits.copies(part).images for part in chunks(data.VALIDATION_SEEDS[:52_000], 2000)])
        near = {"samples": nearest(kept, fresh[2000:]), "fresh_data": nearest(fresh[:2000], fresh[2000:])}

    total = total_of(parts)
    facts: dict[str, Any] = {
        "weights_sha256": {name: weights.digest(out / f"{name}.safetensors") for name in ("teacher", "metric")},
        "quantiser": "edm-round",
        "data": {
            "file": DATA_FILE,
            "n": reference.n,
            "augmentation_seeds": label(data.REFERENCE_SEEDS),
            "sha256": write_moments(out / DATA_FILE, reference),
        },
        "teacher": {
            "file": TEACHER_FILE,
            "n": total.n,
            "noise_seeds": label(NOISE_SEEDS),
            "sampler": solver.spec,
            "nfe": nfe,
            "asked": plan.asked,
            "sha256": write_moments(out / TEACHER_FILE, total),
        },
        "data_floor": {
            "what": "fresh data against the data reference",
            "augmentation_seeds": label(data.FLOOR_SEEDS),
            **spread(floor),
        },
        "teacher_distance": {
            "what": "sets of the teacher's samples against the data reference",
            "noise_seeds": label(NOISE_SEEDS),
            **spread([frechet(part, reference) for part in parts]),
        },
        "teacher_floor": {
            "what": "each set of the teacher's samples against all the other sets",
            "noise_seeds": label(NOISE_SEEDS),
            **spread([frechet(part, total - part) for part in parts]),
        },
        "nearest": {
            "what": "mean distance of 2000 images to the nearest of 50000 fresh copies; pixels in [-1, 1]",
            **{name: round(values.mean().item(), 4) for name, values in near.items()},
        },
        "seconds": round(time.monotonic() - started, 1),
        "made": weights.environment(torch.device(device)),
    }
    weights.add_to_record(out, "references", facts)
    say(f"references: teacher {facts['teacher_distance']['mean']:.4f}, nearest {facts['nearest']}")


def chunks(seeds: range, size: int) -> Iterator[range]:
    """Yield `seeds` in parts of `size`, the last perhaps shorter."""
    return (seeds[first : first + size] for first in range(0, len(seeds), size))


def moments_of(images: Sequence[Tensor], extract: Callable[[Tensor], Tensor]) -> Moments:
    """Return the moments of the images of all `images`, as uint8, on the features of `extract`."""
    return Moments.of(torch.cat([extract(quantise(part)) for part in images]))


def total_of(parts: Sequence[Moments]) -> Moments:
    """Return the moments of all parts together."""
    return functools.reduce(operator.add, parts)


def spread(values: Sequence[float], n: int = SET) -> dict[str, Any]:
    """Return mean, standard deviation and 95 % Student interval of the mean of one value per set of `n` images."""
    mean, sd = float(np.mean(values)), float(np.std(values, ddof=1))
    half = float(stdtrit(len(values) - 1, 0.975)) * sd / len(values) ** 0.5
    rounded = {"mean": mean, "sd": sd, "low": mean - half, "high": mean + half}
    return {"n": n, "sets": len(values), **{key: round(value, 6) for key, value in rounded.items()}}


def write_moments(path: Path, moments: Moments) -> str:
    """Write `moments`; return the sha256 of the file."""
    write_arrays(path, {"n": np.array(moments.n), "total": moments.total, "outer": moments.outer})
    return weights.digest(path)


def main(arguments: list[str] | None = None) -> int:
    """Make the references of the weights in --out; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tools.embedded.digits_references", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder with the trained weights, and of the products")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--sampler", default="dpm:order=3:grid=polynomial", help="spec of the teacher sampler")
    parser.add_argument("--nfe", type=int, default=64, help="its calls")
    parser.add_argument("--batch", type=int, default=1000, help="images sampled at once")
    options = parser.parse_args(arguments)
    say = functools.partial(print, flush=True)
    try:
        weights.check_device(options.device)
        make_all(
            options.out, device=options.device, sampler=options.sampler, nfe=options.nfe, batch=options.batch, say=say
        )
    except UserError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
