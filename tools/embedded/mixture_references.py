"""Makes what samples of the mixture are judged by: moments of exact samples and of the teacher sampler's, on features
of the digits metric network, and how far the sampler is from the exact solution.

python -m tools.embedded.mixture_references --out FOLDER --device cpu, where FOLDER holds the fitted mixture.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from solverbench.errors import UserError
from solverbench.method.schedules import EDM
from solverbench.method.spec import make
from solverbench.metrics.frechet import Moments, frechet
from solverbench.sampling import endpoints
from solverbench.sampling import exact as solutions
from solverbench.seeds import label, noise
from solverbench.teachers.embedded import artifacts as weights
from solverbench.teachers.embedded import digits
from solverbench.teachers.embedded.digits import metric
from solverbench.teachers.embedded.mixture import density
from solverbench.teachers.embedded.mixture.density import Mixture

from .digits_references import (
    SET,
    chunks,
    moments_of,
    samples,
    spread,
    total_of,
    write_moments,
)

FIRST_REFERENCE, FIRST_FLOOR, FIRST_NOISE = 1_000_000, 2_000_000, 1_000_000
"""First seeds of the exact samples, of those that measure the floor, and of the noise of the teacher's samples."""
REFERENCE_SETS, FLOOR_SETS, TEACHER_SETS = 40, 20, 10
DATA_FILE, TEACHER_FILE = "reference-data.npz", "reference-teacher.npz"
SOLVED = 1000
"""Noise seeds, the first ones, on which the sampler is compared with the exact solution."""


def data_sets(mixture: Mixture, seeds: range, size: int, extract: Callable[[Tensor], Tensor]) -> Iterator[Moments]:
    """Yield the moments of the exact samples of `seeds`, `size` by `size`, as uint8, on the features of `extract`."""
    for chunk in chunks(seeds, size):
        yield moments_of([mixture.sample(part) for part in chunks(chunk, 2000)], extract)


def make_all(
    out: Path, *, device: str, sampler: str, nfe: int, batch: int, size: int, say: Callable[[str], None]
) -> None:
    """Write both reference files into `out`, and the facts measured beside them into its record.

    Args:
        sampler, nfe: spec and calls of the teacher sampler.
        batch: images sampled at once.
        size: images in each of the disjoint sets whose distances are taken.
        say: takes one progress line now and then.

    Raises:
        MissingError, RecordError: the mixture isn't there, or isn't the recorded one.
    """
    started = time.monotonic()
    mixture, _ = density.load(out, device=device)
    extract, schedule = metric.load(device=device).features, EDM()
    plan = endpoints.goal(make(sampler), nfe, schedule)
    exact_seeds = range(FIRST_REFERENCE, FIRST_REFERENCE + REFERENCE_SETS * size)
    floor_seeds = range(FIRST_FLOOR, FIRST_FLOOR + FLOOR_SETS * size)
    noise_seeds = range(FIRST_NOISE, FIRST_NOISE + TEACHER_SETS * size)

    with torch.inference_mode():
        reference = total_of(list(data_sets(mixture, exact_seeds, size, extract)))
        floor = [frechet(part, reference) for part in data_sets(mixture, floor_seeds, size, extract)]
        say(f"references: data floor {np.mean(floor):.4f}, {time.monotonic() - started:.0f} s")
        sets = [moments_of(list(samples(mixture, plan, chunk, batch, device)), extract)
                for chunk in chunks(noise_seeds, size)]  # fmt: skip
        say(f"references: {len(noise_seeds)} samples, {time.monotonic() - started:.0f} s")
        first = noise_seeds[:SOLVED]
        start = schedule.prior_scale * noise(first, mixture.shape).double().to(device)
        exact = solutions.solve(mixture, start, schedule.sigma_max, schedule.sigma_min, solutions.TOLERANCE)
        error = (torch.cat(list(samples(mixture, plan, first, batch, device))).double() - exact).flatten(1)

    total = total_of(sets)
    own = digits.load().evaluation
    assert own is not None
    facts: dict[str, Any] = {
        "weights_sha256": made_for(out),
        "quantiser": "edm-round",
        "data": {
            "file": DATA_FILE,
            "n": reference.n,
            "sample_seeds": label(exact_seeds),
            "sha256": write_moments(out / DATA_FILE, reference),
        },
        "teacher": {
            "file": TEACHER_FILE,
            "n": total.n,
            "noise_seeds": label(noise_seeds),
            "sampler": sampler,
            "nfe": nfe,
            "asked": plan.asked,
            "sha256": write_moments(out / TEACHER_FILE, total),
        },
        "data_floor": {
            "what": "fresh exact samples against the data reference",
            "sample_seeds": label(floor_seeds),
            **spread(floor, size),
        },
        "teacher_distance": {
            "what": "sets of the teacher's samples against the data reference",
            "noise_seeds": label(noise_seeds),
            **spread([frechet(part, reference) for part in sets], size),
        },
        "teacher_floor": {
            "what": "each set of the teacher's samples against all the other sets",
            "noise_seeds": label(noise_seeds),
            **spread([frechet(part, total - part) for part in sets], size),
        },
        "sampler_error": {
            "what": "RMSE of the teacher's samples to the exact solution of its ODE, pixels in [-1, 1]",
            "n": len(first),
            "rmse": error.square().mean().sqrt().item(),
            "largest_of_an_image": error.square().mean(1).sqrt().max().item(),
            "tolerance": solutions.TOLERANCE,
        },
        "digits_distance": {
            "what": "the data reference against that of the digits: how much of the digits the mixture misses",
            "value": round(frechet(reference, own.data.moments), 6),
        },
        "seconds": round(time.monotonic() - started, 1),
        "made": weights.environment(torch.device(device)),
    }
    weights.add_to_record(out, "references", facts)
    say(f"references: teacher {facts['teacher_distance']['mean']:.4f}, {facts['sampler_error']}")


def made_for(folder: Path) -> dict[str, str]:
    """Return the hashes of what references in `folder` depend on: the mixture there, and the metric network."""
    names = {"mixture": folder / density.FILE, "metric": digits.FOLDER / "metric.safetensors"}
    return {name: weights.digest(path) for name, path in names.items()}


def main(arguments: list[str] | None = None) -> int:
    """Make the references of the mixture in --out; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tools.embedded.mixture_references", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder with the fitted mixture, and of the products")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--sampler", default="deis:order=4:grid=time_quadratic", help="spec of the teacher sampler")
    parser.add_argument("--nfe", type=int, default=64, help="its calls")
    parser.add_argument("--batch", type=int, default=1000, help="images sampled at once")
    parser.add_argument(
        "--size", type=int, default=SET, help="images of a set: 40 make the data reference, 10 the teacher's"
    )
    options = parser.parse_args(arguments)
    try:
        weights.check_device(options.device)
        make_all(**vars(options), say=partial(print, flush=True))
    except UserError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
