"""Shared by the commands that make references: moments of images, sets of samples, facts for the record, options."""

from __future__ import annotations

import argparse
import dataclasses
import functools
import operator
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.special import stdtrit
from torch import Tensor

from solverbench.files import write_arrays
from solverbench.method.execution import execute
from solverbench.method.schedules import EDM
from solverbench.method.spec import make
from solverbench.metrics.frechet import Moments, frechet
from solverbench.metrics.quantise import quantise
from solverbench.sampling import convergence, endpoints
from solverbench.sampling.endpoints import Goal
from solverbench.seeds import label, noise
from solverbench.store.folder import Store
from solverbench.teachers.embedded import artifacts
from solverbench.teachers.teacher import Teacher

from . import commands

Denoise = Callable[[Tensor, Tensor], Tensor]
Extract = Callable[[Tensor], Tensor]
"""Feature extractor: uint8 images [B, C, H, W] -> features [B, D]."""

DATA_FILE, TEACHER_FILE = "reference-data.npz", "reference-teacher.npz"


@dataclass(frozen=True)
class Sampler:
    """The teacher sampler.

    Args:
        spec, nfe: its spec and its number of calls.
        batch: images sampled at once.
        device: the device to sample on.
    """

    spec: str
    nfe: int
    batch: int
    device: str

    @functools.cached_property
    def plan(self) -> Goal:
        """Its plan, from unit noise."""
        return endpoints.goal(make(self.spec), self.nfe, EDM())

    @property
    def facts(self) -> dict[str, Any]:
        """Its facts for the record."""
        return {"sampler": self.spec, "nfe": self.nfe, "asked": self.plan.asked}

    def samples(
        self, bind: Callable[[Sequence[int]], Denoise], seeds: range, shape: tuple[int, int, int]
    ) -> Iterator[Tensor]:
        """Yield its images [batch, *shape] in [-1, 1] from the noise of `seeds`.

        Args:
            bind: seeds -> the denoiser of their images.
        """
        for part in chunks(seeds, self.batch):
            yield execute(self.plan, bind(part), noise(part, shape).to(self.device))


def chunks(seeds: range, size: int) -> Iterator[range]:
    """Yield `seeds` in parts of `size`; the last may be shorter."""
    return (seeds[first : first + size] for first in range(0, len(seeds), size))


def moments_of(images: Sequence[Tensor], extract: Extract) -> Moments:
    """Return the moments of all `images`, as uint8, on the features of `extract`."""
    return Moments.of(torch.cat([extract(quantise(part)) for part in images]))


def drawn_moments(draw: Callable[[range], Tensor], seeds: range, part: int, extract: Extract) -> Moments:
    """Return the moments of the images that `draw` makes from `seeds`, `part` at a time."""
    return moments_of([draw(each) for each in chunks(seeds, part)], extract)


def total_of(parts: Sequence[Moments]) -> Moments:
    """Return the moments of all parts together."""
    return functools.reduce(operator.add, parts)


def spread(values: Sequence[float], n: int) -> dict[str, Any]:
    """Return mean, standard deviation and 95 % Student interval of the mean of one value per set of `n` images."""
    mean, sd = float(np.mean(values)), float(np.std(values, ddof=1))
    half = float(stdtrit(len(values) - 1, 0.975)) * sd / len(values) ** 0.5
    rounded = {"mean": mean, "sd": sd, "low": mean - half, "high": mean + half}
    return {"n": n, "sets": len(values), **{key: round(value, 6) for key, value in rounded.items()}}


def write_moments(path: Path, moments: Moments, **made_of: Any) -> dict[str, Any]:
    """Write `moments`; return the record's facts on the file.

    Args:
        made_of: the inputs of the images, for the record.
    """
    write_arrays(path, {"n": np.array(moments.n), "total": moments.total, "outer": moments.outer})
    return {"file": path.name, "n": moments.n, **made_of, "sha256": artifacts.digest(path)}


def data_facts(
    out: Path, reference: Moments, floor: Sequence[Moments], *, key: str, seeds: tuple[range, range], fresh: str
) -> dict[str, Any]:
    """Write the moments of the data into `out`; return the sections of the record on the data and on fresh data.

    Args:
        floor: moments of disjoint sets of fresh data, all of one size.
        key: the record's key for the seeds.
        seeds: the seeds of the reference and of the fresh data.
        fresh: human-readable description of the fresh data.
    """
    return {
        "data": write_moments(out / DATA_FILE, reference, **{key: label(seeds[0])}),
        "data_floor": {
            "what": f"{fresh} against the data reference",
            key: label(seeds[1]),
            **spread([frechet(part, reference) for part in floor], floor[0].n),
        },
    }


def distances(parts: Sequence[Moments], reference: Moments, **made_of: str) -> dict[str, Any]:
    """Return the sections of the record on the distances of sets of the teacher's samples, all of one size.

    Args:
        parts: moments of the sets.
        reference: moments of the data.
        made_of: the inputs of the samples, for the record.
    """
    total, size = total_of(parts), parts[0].n
    return {
        "teacher_distance": {
            "what": "sets of the teacher's samples against the data reference",
            **made_of,
            **spread([frechet(part, reference) for part in parts], size),
        },
        "teacher_floor": {
            "what": "each set of the teacher's samples against all the other sets",
            **made_of,
            **spread([frechet(part, total - part) for part in parts], size),
        },
    }


def both(
    out: Path, made_for: Mapping[str, str], about_data: dict[str, Any], reference: Moments,
    parts: Sequence[Moments], seeds: range, sampler: Sampler,
) -> dict[str, Any]:  # fmt: skip
    """Write the moments of the teacher's samples into `out`; return the record of both references.

    Args:
        made_for: the sha256 of each weights file.
        about_data: see `data_facts`.
        reference: moments of the data.
        parts: moments of sets of the teacher's samples, made from the noise of `seeds`.
    """
    noise_seeds = label(seeds)
    teacher = write_moments(out / TEACHER_FILE, total_of(parts), noise_seeds=noise_seeds, **sampler.facts)
    return {
        "weights_sha256": made_for,
        "quantiser": "edm-round",
        "data": about_data["data"],
        "teacher": teacher,
        "data_floor": about_data["data_floor"],
        **distances(parts, reference, noise_seeds=noise_seeds),
    }


def weights_of(out: Path) -> dict[str, str]:
    """Return the sha256 of the weights in `out` that references depend on."""
    return {name: artifacts.digest(out / f"{name}.safetensors") for name in ("teacher", "metric")}


def convergence_of(out: Path, load: Callable[..., Teacher], images: int, **options: Any) -> dict[str, Any]:
    """Return the measured error of the sampler of the teacher in `out`, for its record.

    Args:
        load: function that loads the teacher.
        images: number of images that are compared.
        options: arguments of `load`.
    """
    teacher = dataclasses.replace(load(folder=out, **options), sampler_error=None)
    with tempfile.TemporaryDirectory() as store:
        Store.open(store)
        return convergence.measure(teacher, store, images=images).as_dict()


def parser(name: str, about: str | None, out: str, *, sampler: str, nfe: int) -> argparse.ArgumentParser:
    """Return a parser for a command that makes references; `sampler` and `nfe` are defaults."""
    made = commands.parser(name, about, f"folder with {out}, and of the products")
    made.add_argument("--sampler", default=sampler, help="spec of the teacher sampler")
    made.add_argument("--nfe", type=int, default=nfe, help="its calls")
    return made
