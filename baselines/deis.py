"""DEIS: interpolate the slope through the last calls in a chosen variable and integrate the interpolant exactly."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from solverbench.errors import SpecError
from solverbench.method import Classical, Denoise, Grid, NoiseSchedule, VPLinear, lagrange, option

GAUSS_NODES, GAUSS_WEIGHTS = map(torch.from_numpy, np.polynomial.legendre.leggauss(64))
"""Gauss-Legendre rule on [-1, 1]. In log sigma the integrands are analytic within pi/2 of the real axis, so 64 nodes
reach round-off on any grid; on a discrete schedule, whose time has kinks, the error is about 1e-6."""

PUBLIC_TIME = VPLinear.refit(0.002, 80.0)
POINTS = 10_000
"""Variable and number of points of the public code's quadrature, independent of the teacher's levels."""


class DEIS(Classical):
    """Exponential Adams-Bashforth of order 1 to 4; one call per interval. The order rises over the first steps.

    form=tab interpolates in the time of the grid's schedule (on an EDM schedule, in that of the linear VP schedule with
    the same ends), form=rho in sigma. quadrature=compat is the public code's rectangle rule with 10000 points,
    including both ends; its weights have errors of 1e-6 to 3e-5.
    Source: Zhang and Chen 2022, arXiv:2204.13902, section 3 (tAB and rhoAB; its tAB3 is order=4 here).
    """

    name: ClassVar[str] = "deis"
    paper: ClassVar[str] = "DEIS, arXiv:2204.13902"

    levels: str = option("time_quadratic", key="grid", help="grid name, or M+1 noise levels joined with +")
    order: int = option(4, choices=(1, 2, 3, 4), help="number of outputs that a regular step combines")
    form: str = option(
        "tab", choices=("tab", "rho"), help="variable of the interpolation: the model's time (tab) or sigma (rho)"
    )
    quadrature: str = option(
        "exact", choices=("exact", "compat"), help="compat: integrate by the public code's rectangle rule"
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.form == "rho" and self.quadrature == "compat":
            raise SpecError(
                asked="deis:form=rho:quadrature=compat",
                wrong="the public code integrates rho exactly",
                remedy="leave it out",
            )
        if self.order == 1 and (self.form == "rho" or self.quadrature == "compat"):
            option = "form=rho" if self.form == "rho" else "quadrature=compat"
            raise SpecError(
                asked=f"deis:order=1:{option}",
                wrong="order 1 is Euler's method, which interpolates nothing",
                remedy=f"leave {option} out",
            )

    @property
    def consistent(self) -> bool:
        """Whether every row keeps a constant image; false with compat quadrature: its weights miss the step length."""
        return super().consistent and not self._rough

    @property
    def local_order(self) -> int | None:
        """The order of the interpolant; None with compat quadrature, whose own second-order error dominates at last."""
        return None if self._rough else self.order

    @property
    def global_order(self) -> int | None:
        """At most 2, because the first step is an Euler step."""
        return None if self._rough else min(self.order, 2)

    @property
    def _rough(self) -> bool:
        return self.quadrature == "compat"

    def integrate(self, denoise: Denoise, x: Tensor, grid: Grid) -> Tensor:
        """Return the sample; M calls for M intervals."""
        sigmas = grid.sigmas
        past: list[Tensor] = []
        for n in range(grid.steps):
            slope = (x - denoise(x, sigmas[n])) / sigmas[n]
            past = [slope, *past][: self.order]
            for weight, e in zip(self._weights(grid, n, len(past)), past, strict=True):
                x = x + weight * e
        return x

    def _weights(self, grid: Grid, n: int, order: int) -> list[Tensor]:
        """Return the integrals over step n of the Lagrange basis on levels n, n - 1, ..., n - order + 1."""
        sigmas = grid.sigmas
        known = [sigmas[n - i] for i in range(order)]
        if order == 1:
            return [sigmas[n + 1] - sigmas[n]]
        if self.quadrature == "compat":
            return _rectangles(sigmas[n], sigmas[n + 1], known)
        return _gauss(sigmas[n], sigmas[n + 1], known, self._variable(grid.schedule))

    def _variable(self, schedule: NoiseSchedule) -> Callable[[Tensor], Tensor]:
        return schedule.clock.time if self.form == "tab" else lambda sigma: sigma


def _gauss(s: Tensor, t: Tensor, known: list[Tensor], variable: Callable[[Tensor], Tensor]) -> list[Tensor]:
    """Return the integrals by the Gauss-Legendre rule in log sigma."""
    middle, half = (t.log() + s.log()) / 2, (t.log() - s.log()) / 2
    levels = (middle + half * GAUSS_NODES).exp()
    basis = lagrange(variable(levels), [variable(level) for level in known])
    return [(values * levels * GAUSS_WEIGHTS).sum() * half for values in basis]


def _rectangles(s: Tensor, t: Tensor, known: list[Tensor]) -> list[Tensor]:
    """Return the integrals by the public code's rule in time: `POINTS` points with both ends, weights 1/POINTS each."""
    vp = PUBLIC_TIME
    start, end = vp.time(s), vp.time(t)
    times = start + (end - start) * torch.linspace(0, 1, POINTS, dtype=torch.float64)
    sigma = vp.sigma(times)
    speed = (vp.beta_d * times + vp.beta_min) * (1 + sigma**2) / (2 * sigma)  # d sigma/dt
    basis = lagrange(times, [vp.time(level) for level in known])
    return [(values * speed).sum() * (end - start) / POINTS for values in basis]
