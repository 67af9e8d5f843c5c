"""The error of a tableau on Gaussian data, where the denoiser and the solution of the ODE are known."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from solverbench.errors import GridError
from solverbench.method import grids
from solverbench.method.execution import unrounded
from solverbench.method.schedules import NoiseSchedule
from solverbench.method.tableau import Tableau

MEAN, DEVIATION = 0.3, 0.5
"""Mean and standard deviation of the Gaussian data, about those of an image's values in [-1, 1]."""

WORSE = 10.0
"""Factor by which an error may exceed that of Euler's method with as many calls."""


def gaussian_error(tableau: Tableau, schedule: NoiseSchedule) -> float:
    """Return the root mean square error of a tableau on Gaussian data, with the exact denoiser, from unit noise.

    For data N(m, d^2) the denoiser is (d^2 x + m s^2)/(d^2 + s^2), and the solution of the probability-flow ODE from
    level s to t is m + (x - m) sqrt((d^2 + t^2)/(d^2 + s^2)).
    """
    x = tableau.noise_scale(schedule) * _noise()
    weights = Tableau(*(each.detach() for each in (tableau.sigmas, tableau.weights, tableau.levels, tableau.start)))
    return _error(unrounded(weights, _denoise, x), x, float(tableau.start), float(tableau.levels[-1]))


def unstable(tableau: Tableau, schedule: NoiseSchedule) -> str:
    """Return why the steps of a tableau are too long for its method, as measured on Gaussian data; empty if they fit.

    The error is compared with Euler's with as many calls from the schedule's start to its end, on the better of two
    grids: equal steps in time, and in sigma^(1/7).
    """
    error, plain = gaussian_error(tableau, schedule), euler_error(schedule, tableau.nfe)
    if error <= WORSE * plain and (error <= DEVIATION or error <= plain):
        return ""
    return (
        f"the steps are too long for this method: on Gaussian data of deviation {DEVIATION:g} its error is "
        f"{error:.2g}, that of Euler's method with as many calls {plain:.2g}"
    )


_known: WeakKeyDictionary[NoiseSchedule, dict[int, float]] = WeakKeyDictionary()


def euler_error(schedule: NoiseSchedule, steps: int) -> float:
    """Return the error of Euler's method on Gaussian data, on the better one of two grids; infinite if neither fits.

    It is computed once for a schedule and a number of steps, however many solvers are compared with it.
    """
    try:
        known = _known.setdefault(schedule, {})
    except TypeError:  # a plugin's schedule may have no hash
        known = {}
    if steps not in known:
        known[steps] = min(_euler_errors(schedule, steps), default=math.inf)
    return known[steps]


def _euler_errors(schedule: NoiseSchedule, steps: int) -> Iterator[float]:
    for name in ("time_uniform", "polynomial"):
        try:
            levels = grids.named(name, schedule, steps).sigmas
        except GridError:  # levels of a network that knows only some may coincide
            continue
        x = start = schedule.scale(float(levels[0])) * _noise()
        for s, t in itertools.pairwise(levels):
            d = _denoise(x, s)
            x = d + t / s * (x - d)
        yield _error(x, start, float(levels[0]), float(levels[-1]))


def _noise() -> Tensor:
    """Return the 0.5 %, 1.5 %, ..., 99.5 % quantiles of unit noise."""
    return torch.linspace(-0.99, 0.99, 100, dtype=torch.float64).erfinv() * math.sqrt(2)


def _denoise(x: Tensor, sigma: Tensor) -> Tensor:
    return (DEVIATION**2 * x + MEAN * sigma**2) / (DEVIATION**2 + sigma**2)


def _error(sample: Tensor, x: Tensor, start: float, end: float) -> float:
    ratio = (DEVIATION**2 + end**2) / (DEVIATION**2 + start**2)
    return float((sample - MEAN - (x - MEAN) * math.sqrt(ratio)).square().mean().sqrt())
