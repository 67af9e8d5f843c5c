"""The one-step predictions of a teacher: known images with noise of nine levels, denoised once at each.

The optimal denoiser is the posterior mean, so its error is below that of every other predictor. Two of these have known
errors: the noisy image itself (sigma^2) and the mean image (the variance v of the images). The best predictor a + b x
with one number b has the error v sigma^2/(v + sigma^2).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from solverbench.method.execution import execute
from solverbench.method.solver import Solver
from solverbench.method.spec import make
from solverbench.method.tracing import trace
from solverbench.seeds import EVALUATION_START, noise
from solverbench.teachers.teacher import Teacher

LEVELS = 9
"""Number of noise levels, equally spaced in log sigma."""

IMAGES = 64
"""Number of real images that are used at most; 2 000 000 is the first seed of a teacher's own `images_of`."""

FIRST_SEED = 2_000_000

OWN, OWN_LARGE = 16, 4
"""Number of the teacher's own samples, and of those with more than `LARGE` values."""

LARGE = 3 * 128 * 128

BATCH = 2**20
"""Largest number of values in a batch of more than one image."""

CALLS = 12
"""Number of calls of the sampler that makes them, DPM-Solver++(2M)."""

SLACK = 1.5
"""Allowed error, in geometric means of the better trivial error and the best linear one; a tiny MLP needs 1.2."""

NOISE_ERROR = 0.015
"""Largest share of the noise's variance that a prediction of noise may miss. Its error in x0 is sigma^2 times that, so
that it exceeds the variance of the images at high levels; networks in use miss about 0.001."""

ROUGH = 0.05
"""Allowed error of a prediction of the data at any level, as a share of the images' size, as in `small_noise`."""

SURE = 3.0
"""Standard errors by which a limit must be exceeded."""

REAL, SAMPLED = "real images", "its own samples"


@dataclass(frozen=True, eq=False)
class Known:
    """Images of a teacher.

    Args:
        states: [n, *shape] float32, what the network denoises.
        seeds: seeds of their conditions.
        of: `REAL` or `SAMPLED`.
    """

    states: Tensor
    seeds: range
    of: str

    @property
    def variance(self) -> float:
        """The mean squared distance of an image value to that of the mean image, unbiased."""
        return float(self.states.double().var(0).mean())

    @property
    def size(self) -> float:
        """The mean square of an image value."""
        return float(self.states.double().square().mean())


@dataclass(frozen=True, eq=False)
class Curve:
    """The one-step predictions at each level, summarised; all float64.

    Args:
        levels: [L], rising.
        errors: [L, n], mean squared error of each image.
        biases: [L, n], mean error of each image.
        sizes: [L], mean square of a predicted value.
        variance: variance of the images, see `Known`.
        size: mean square of an image value.
    """

    levels: Tensor
    errors: Tensor
    biases: Tensor
    sizes: Tensor
    variance: float
    size: float

    @property
    def noise_error(self) -> float:
        """The share of the noise's variance that is allowed to be missed: at most that at the highest level, twice."""
        return min(NOISE_ERROR, 2 * float(self.errors[-1].mean() / self.levels[-1] ** 2))

    @property
    def limits(self) -> Tensor:
        """The largest error [L] of a decent denoiser, see `SLACK`, `NOISE_ERROR` and `ROUGH`."""
        squares = self.levels**2
        trivial, linear = squares.clamp(max=self.variance), self.variance * squares / (self.variance + squares)
        return SLACK * (trivial * linear).sqrt() + self.noise_error * squares + ROUGH**2 * self.size

    @property
    def excess(self) -> Tensor:
        """The ratio [L] of the error, reduced by `SURE` standard errors, to its limit."""
        return (self.errors.mean(1) - SURE * deviation(self.errors)) / self.limits


def known(teacher: Teacher, images: Tensor | None) -> Known:
    """Return the images to check a teacher on: those given, else its own real ones, else its samples.

    Args:
        images: real images [n, *shape] on [-1, 1]; None for the teacher's own.
    """
    if images is None and teacher.images_of is not None and teacher.decode is None and teacher.condition is None:
        images = _drawn(teacher)  # of no certain class
    if images is None:
        return samples(teacher)
    return _real(teacher, images)


@lru_cache(maxsize=1)
def _drawn(teacher: Teacher) -> Tensor:
    assert teacher.images_of is not None
    return teacher.images_of(range(FIRST_SEED, FIRST_SEED + IMAGES))


@lru_cache(maxsize=1)
def _real(teacher: Teacher, images: Tensor) -> Known:
    seeds = range(EVALUATION_START, EVALUATION_START + len(images))
    return Known(images.to(teacher.device, torch.float32), seeds, REAL)


@lru_cache(maxsize=1)
def samples(teacher: Teacher) -> Known:
    """Return the teacher's own samples."""
    count = OWN if math.prod(teacher.shape) <= LARGE else OWN_LARGE
    seeds = range(EVALUATION_START, EVALUATION_START + count)
    solver: Solver = make("dpm:order=2")
    plan = trace(solver, solver.grid(teacher.schedule, CALLS)).plan_from_noise(teacher.schedule)
    with torch.no_grad():
        parts = [
            execute(plan, teacher.denoiser(part), noise(part, teacher.shape, teacher.device))
            for part in _parts(seeds, teacher)
        ]
    return Known(torch.cat(parts), seeds, SAMPLED)


Denoiser = Callable[[Tensor, Tensor], Tensor]


@lru_cache(maxsize=2)
def curve(teacher: Teacher, known: Known) -> Curve:
    """Return the one-step predictions of a teacher on known images, at all levels."""
    return curve_at(teacher, known, noise_levels(teacher))


def noise_levels(teacher: Teacher) -> Tensor:
    """Return the noise levels, rising."""
    first, last = teacher.schedule.sigma_first, teacher.schedule.sigma_min
    shares = torch.linspace(0, 1, LEVELS, dtype=torch.float64)
    found: Tensor = last * torch.tensor(first / last, dtype=torch.float64) ** shares
    return found


def curve_at(teacher: Teacher, known: Known, levels: Tensor, through: Denoiser | None = None) -> Curve:
    """Return the one-step predictions on known images, with `through` in place of the teacher's denoiser."""
    errors, biases, sizes = [], [], []
    with torch.no_grad():
        for number, level in enumerate(levels):
            generator = torch.Generator().manual_seed(number)
            drawn = torch.randn(known.states.shape, generator=generator).to(known.states.device)
            x = known.states + float(level) * drawn
            rows = []
            for part in _parts(known.seeds, teacher):
                place = slice(part.start - known.seeds.start, part.stop - known.seeds.start)
                rows.append((through or teacher.denoiser(part))(x[place], level))
            d = torch.cat(rows)
            gap = (d - known.states).double().flatten(1)
            errors.append(gap.square().mean(1))
            biases.append(gap.mean(1))
            sizes.append(d.double().square().mean())
    stacked, means, squares = (torch.stack(each).cpu() for each in (errors, biases, sizes))
    return Curve(levels, stacked, means, squares, known.variance, known.size)


def _parts(seeds: range, teacher: Teacher) -> Iterator[range]:
    """Yield the seeds in batches of at most `BATCH` values, or of one image."""
    many = max(1, BATCH // math.prod(teacher.shape))
    for begin in range(0, len(seeds), many):
        yield seeds[begin : begin + many]


def deviation(values: Tensor) -> Tensor:
    """Return the standard error [L] of the means of values [L, n]."""
    return values.std(1) / math.sqrt(values.shape[1])
