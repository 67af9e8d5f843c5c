"""Makes the references for samples of the mixture: moments of exact samples and of the teacher sampler's, on features
of the digits metric network, and the sampler's error against the exact solution.

python -m tools.embedded.mixture_references --out FOLDER --device cpu, where FOLDER holds the fitted mixture.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import Any

import torch

from solverbench.method.schedules import EDM
from solverbench.metrics.frechet import frechet
from solverbench.sampling import exact as solutions
from solverbench.seeds import noise
from solverbench.teachers.embedded import artifacts as weights
from solverbench.teachers.embedded import digits
from solverbench.teachers.embedded.digits import metric
from solverbench.teachers.embedded.mixture import density

from . import commands, references
from .commands import Say
from .references import Sampler, chunks, moments_of

SET = 10_000
FIRST_REFERENCE, FIRST_FLOOR, FIRST_NOISE = 1_000_000, 2_000_000, 1_000_000
"""First seeds of the exact samples, of those that measure the floor, and of the noise of the teacher's samples."""
REFERENCE_SETS, FLOOR_SETS, TEACHER_SETS = 40, 20, 10
SOLVED = 1000
"""Number of noise seeds, from the first on, for which the sampler is compared with the exact solution."""


@torch.inference_mode()
def make_all(options: argparse.Namespace, say: Say) -> None:
    """Write both reference files into options.out, and the facts measured with them into its record.

    Raises:
        MissingError, RecordError: the mixture is missing, or differs from the recorded one.
    """
    started, out, size, device = time.monotonic(), options.out, options.size, options.device
    mixture, _ = density.load(out, device=device)
    extract, schedule = metric.load(device=device).features, EDM()
    sampler = Sampler(options.sampler, options.nfe, options.batch, device)
    exact_seeds = range(FIRST_REFERENCE, FIRST_REFERENCE + REFERENCE_SETS * size)
    floor_seeds = range(FIRST_FLOOR, FIRST_FLOOR + FLOOR_SETS * size)
    noise_seeds = range(FIRST_NOISE, FIRST_NOISE + TEACHER_SETS * size)

    sets = [references.drawn_moments(mixture.sample, part, 2000, extract) for part in chunks(exact_seeds, size)]
    reference = references.total_of(sets)
    floor = [references.drawn_moments(mixture.sample, part, 2000, extract) for part in chunks(floor_seeds, size)]
    seeds, fresh = (exact_seeds, floor_seeds), "fresh exact samples"
    about_data = references.data_facts(out, reference, floor, key="sample_seeds", seeds=seeds, fresh=fresh)
    say(f"references: data floor {about_data['data_floor']['mean']:.4f}, {time.monotonic() - started:.0f} s")

    def samples(seeds: range) -> list[torch.Tensor]:
        return list(sampler.samples(lambda seeds: mixture, seeds, mixture.shape))

    parts = [moments_of(samples(chunk), extract) for chunk in chunks(noise_seeds, size)]
    say(f"references: {len(noise_seeds)} samples, {time.monotonic() - started:.0f} s")
    first = noise_seeds[:SOLVED]
    start = schedule.prior_scale * noise(first, mixture.shape).double().to(device)
    exact = solutions.solve(mixture, start, schedule.sigma_max, schedule.sigma_min, solutions.TOLERANCE)
    error = (torch.cat(samples(first)).double() - exact).flatten(1)

    own = digits.load().evaluation
    assert own is not None
    facts: dict[str, Any] = {
        **references.both(out, made_for(out), about_data, reference, parts, noise_seeds, sampler),
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
    """Return the hashes of the inputs of the references in `folder`: its mixture, and the metric network."""
    names = {"mixture": folder / density.FILE, "metric": digits.FOLDER / "metric.safetensors"}
    return {name: weights.digest(path) for name, path in names.items()}


def main(arguments: list[str] | None = None) -> int:
    """Make the references of the mixture in --out; return the exit code."""
    sampler = "deis:order=4:grid=time_quadratic"
    options = references.parser("mixture_references", __doc__, "the fitted mixture", sampler=sampler, nfe=64)
    options.add_argument("--batch", type=int, default=1000, help="images sampled at once")
    options.add_argument(
        "--size", type=int, default=SET, help="images of a set: 40 make the data reference, 10 the teacher's"
    )
    return commands.run(options, arguments, make_all)


if __name__ == "__main__":
    sys.exit(main())
