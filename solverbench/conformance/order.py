"""Measured orders of a solver: slopes of its error on problems with known solutions."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from solverbench.errors import SpecError
from solverbench.method.grids import Grid, explicit
from solverbench.method.loops import sampled
from solverbench.method.schedules import EDM
from solverbench.method.solver import Denoise, Solver

START = {"sin": (0.4,), "gaussian": (0.9,), "mixture": (-1.2, -0.8, -0.4, 0.1, 0.5, 0.9, 1.3)}
"""The test problems, each with its initial states at sigma = 1.

`sin`: the prediction is sin(lambda), independent of x, so it does not test stages or predictors. `gaussian`: the exact
denoiser of N(0, 0.25), linear in x. `mixture`: the exact denoiser of two Gaussians, nonlinear in x.
"""

VARIANCE = {"gaussian": 0.25, "mixture": 0.25}
MEAN, WEIGHT = 0.6, 0.4
"""Parameters of the mixture: weight WEIGHT at -MEAN and 1 - WEIGHT at MEAN."""

STEPS = (0.012, 0.0085, 0.006)
"""Step sizes of a local measurement, in lambda (in sigma for a solver with equal-step coefficients)."""

PLACES = (0.2, 0.5, 0.8)
"""Starts of the measured step, in lambda; several, because an error may change its sign near one of them."""

IRREGULAR = (1.1, 0.9, 1.2, 0.8, 1.1, 1.3, 0.9, 1.2, 0.8, 1.3, 0.7, 1.0)
"""Relative step sizes of a local measurement, of which the last is measured; equal-step coefficients fail on them."""

HISTORY = len(IRREGULAR) - 1
"""Number of steps before the measured one; enough for no start-up step of lower order to remain in the history."""

COUNTS = (78, 156, 318)
"""Numbers of steps of a global measurement."""

VANISHING = 1e-10
"""Relative size of an extra last step, so small that the sample equals the state carried to the next step."""

FLOOR = 1e-14
"""Error below which a measurement is round-off."""

Slopes = dict[str, float]


def local_order(solver: Solver) -> Slopes:
    """Return, for each problem, the slope minus 1 of a regular step's error, from one carried state to the next.

    The carried state is the one that the next step starts from, after any corrector. It is read with a last step of
    vanishing size. Every call up to the step's start returns the prediction at the exact solution, and the start is
    shifted so that the carried state is exact too; the remaining error is that of one step.
    """
    return _local(solver, carried=True)


def predicted_order(solver: Solver) -> Slopes:
    """Return the same before the corrector: for the sample of a grid that ends after the measured step."""
    return _local(solver, carried=False)


def global_order(solver: Solver) -> Slopes:
    """Return, for each problem, the slope of the sample's error over 78 to 318 steps of lambda in [0, 1].

    The steps vary smoothly, including the first and the last, so that weights that hold only for equal steps are
    detected. A solver with equal-step coefficients gets equal steps in sigma.
    """
    solver = _plain(solver)
    errors = []
    for count in COUNTS:
        u = torch.linspace(0, 1, count + 1, dtype=torch.float64)
        grid = _grid(1 - u * (1 - math.exp(-1)) if solver.uniform else (-u - torch.sin(math.pi * u) / 8).exp())
        sample = sampled(solver, _denoise(math.inf), exact(1.0).clone(), grid)
        errors.append(sample - exact(float(grid.sigmas[-1])))
    return _slopes(errors, [1 / count for count in COUNTS], 0)


def _local(solver: Solver, *, carried: bool) -> Slopes:
    regular = _regular(solver)
    errors = [torch.stack([_one_step(regular, h, at, carried=carried) for at in PLACES], 1) for h in STEPS]
    return _slopes(errors, STEPS, 1)


def _one_step(solver: Solver, h: float, at: float, *, carried: bool) -> Tensor:
    """Return the error of one step of size `h` from exact values at lambda = `at`, after HISTORY other steps."""
    levels = _around(solver, h, math.exp(-at))
    before = [*levels[: -solver.block], _next(levels[-1 - solver.block])]
    levels = [*levels, _next(levels[-1])] if carried else levels

    def run(levels: Sequence[float], shift: float | Tensor, known_to: float) -> Tensor:
        grid = _grid(torch.tensor(levels, dtype=torch.float64))
        sample = sampled(solver, _denoise(known_to), exact(levels[0]) + shift, grid)
        return sample - exact(levels[-1])

    # With exact predictions, the loop is affine in the start; `shift` makes the carried state exact too.
    error = run(before, 0.0, 0.0)
    shift = -error / (run(before, 1.0, 0.0) - error)
    return run(levels, shift, before[-2] * (1 - 1e-6))


def _around(solver: Solver, h: float, start: float) -> list[float]:
    """Return the levels of HISTORY + 1 steps, the last of size `h` from level `start`."""
    if solver.uniform:
        return [start - h * n for n in range(-HISTORY, 2)]
    parts = [h * size / solver.block for size in IRREGULAR for _ in range(solver.block)]
    places = list(itertools.accumulate(parts, initial=0.0))
    return [start * math.exp(places[-1 - solver.block] - place) for place in places]


def _next(level: float) -> float:
    return level * (1 - VANISHING)


def _regular(solver: Solver) -> Solver:
    """Return `solver` with regular steps up to the end, if it has that option."""
    solver = _plain(solver)
    try:
        return _with(solver, lower_order_final=False)
    except SpecError:  # order 1, or a singlestep solver, whose last step is a short block after regular ones
        return solver


def _plain(solver: Solver) -> Solver:
    """Return `solver` as the plain method: no skipped evaluation, last level above 0, no thresholding."""
    return _with(solver, afs=False, end="sigma_min", threshold=False)


def _with(solver: Solver, **values: Any) -> Solver:
    have = {field.name for field in dataclasses.fields(solver)}
    return dataclasses.replace(solver, **{name: value for name, value in values.items() if name in have})


def _grid(sigmas: Tensor) -> Grid:
    return explicit(sigmas, EDM())


def _denoise(known_to: float) -> Denoise:
    """Return a denoiser that predicts from the exact solution at levels >= `known_to`, and from x below."""

    def denoise(x: Tensor, sigma: Tensor, *, level: Tensor | None = None) -> Tensor:
        s = float(sigma)
        if s >= known_to:
            return prediction(exact(s), s)
        return prediction(x, s)

    return denoise


def prediction(x: Tensor, sigma: float) -> Tensor:
    """Return the data prediction [9] of every problem at states `x` [9]: the posterior mean, except for `sin`."""
    sines, normal, mixed = _parts(x)
    s2 = sigma**2 + VARIANCE["mixture"]
    mean = MEAN * torch.tanh(MEAN / s2 * mixed + math.log(1 / WEIGHT - 1) / 2)
    return torch.cat(
        [
            torch.full_like(sines, math.sin(-math.log(sigma))),
            VARIANCE["gaussian"] / (sigma**2 + VARIANCE["gaussian"]) * normal,
            mixed + sigma**2 / s2 * (mean - mixed),
        ]
    )


@functools.cache
def exact(sigma: float) -> Tensor:
    """Return the states [9] at level `sigma` of the solutions that start from START at sigma = 1."""
    lam = -math.log(sigma)

    def particular(lam: float) -> float:
        return (math.sin(lam) - math.cos(lam)) / 2

    v = VARIANCE["gaussian"]
    values = [
        *(sigma * (x - particular(0.0)) + particular(lam) for x in START["sin"]),
        *(x * math.sqrt((v + sigma**2) / (v + 1)) for x in START["gaussian"]),
        *(_quantile(_share(x, 1.0), sigma) for x in START["mixture"]),
    ]
    return torch.tensor(values, dtype=torch.float64)


def _share(x: float, sigma: float) -> float:
    """Return the mixture's distribution function at level `sigma`; it is constant along an ODE solution."""
    width = math.sqrt(2 * (sigma**2 + VARIANCE["mixture"]))
    return 1 - (WEIGHT * math.erfc((x + MEAN) / width) + (1 - WEIGHT) * math.erfc((x - MEAN) / width)) / 2


def _quantile(share: float, sigma: float) -> float:
    """Return the inverse of `_share` by bisection to the last bit."""
    low, high = -10.0, 10.0
    while low < (middle := (low + high) / 2) < high:
        low, high = (middle, high) if _share(middle, sigma) < share else (low, middle)
    return high


def _slopes(errors: Sequence[Tensor], sizes: Sequence[float], less: int) -> Slopes:
    """Return the least-squares slope of log error over log size, minus `less`; infinite if an error is round-off."""
    x = torch.tensor(sizes, dtype=torch.float64).log()
    centred = x - x.mean()
    slopes = {}
    for name, *found in zip(START, *map(_parts, errors), strict=True):
        y = torch.stack([error.norm() for error in found])
        slope = float((centred * y.log()).sum() / centred.square().sum())
        slopes[name] = slope - less if y.min() > FLOOR else math.inf
    return slopes


def _parts(state: Tensor) -> tuple[Tensor, ...]:
    """Return the part of `state` of each problem."""
    ends = itertools.accumulate(map(len, START.values()), initial=0)
    return tuple(state[begin:end] for begin, end in itertools.pairwise(ends))
