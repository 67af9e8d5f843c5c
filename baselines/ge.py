"""Gradient estimation: the last slope extrapolated by the one before, with one constant weight."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from solverbench.method import Classical, Denoise, Grid, option


class GradientEstimation(Classical):
    """Two-slope method with constant weights gamma and 1 - gamma on any grid; one call per interval.

    gamma = 1 is Euler's method, gamma = 3/2 is iPNDM of order 2. The published gamma = 2 extrapolates further, which is
    of first order. The first step is Euler's.
    Source: Permenter and Yuan 2023, arXiv:2306.04848, its sampler with gradient estimation.
    """

    name: ClassVar[str] = "ge"
    paper: ClassVar[str] = "gradient estimation, arXiv:2306.04848"
    uniform: ClassVar[bool] = True

    gamma: float = option(2.0, help="weight of the last slope; the one before has 1 - gamma")

    @property
    def local_order(self) -> int | None:
        """1, but 2 with the weights of Adams and Bashforth, on equal steps in sigma."""
        return 2 if self.gamma == 1.5 else 1

    @property
    def global_order(self) -> int | None:
        """As the local order: the Euler step at the start costs none."""
        return self.local_order

    def integrate(self, denoise: Denoise, x: Tensor, grid: Grid) -> Tensor:
        """Return the sample; M calls for M intervals."""
        sigmas = grid.sigmas
        slope = before = (x - denoise(x, sigmas[0])) / sigmas[0]
        for n in range(grid.steps):
            if n > 0:
                before, slope = slope, (x - denoise(x, sigmas[n])) / sigmas[n]
            x = x + (sigmas[n + 1] - sigmas[n]) * (slope + (self.gamma - 1) * (slope - before))
        return x
