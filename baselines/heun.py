"""Heun's second-order method on the probability-flow ODE, as EDM uses it."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from solverbench.method import Classical, Denoise, Grid


class Heun(Classical):
    """A trial Euler step, then a step along the mean of both slopes, on every interval including the last.

    Source: Karras et al. 2022, arXiv:2206.00364, algorithm 1; end=zero adds its last step to level 0.
    """

    name: ClassVar[str] = "heun"
    paper: ClassVar[str] = "EDM, arXiv:2206.00364"
    local_order: ClassVar[int | None] = 2
    global_order: ClassVar[int | None] = 2
    stages: ClassVar[int] = 2

    def integrate(self, denoise: Denoise, x: Tensor, grid: Grid) -> Tensor:
        """Return the sample; 2M calls for M intervals."""
        sigmas = grid.sigmas
        for n in range(grid.steps):
            s, t = sigmas[n], sigmas[n + 1]
            slope = (x - denoise(x, s)) / s
            trial = x + (t - s) * slope
            slope_there = (trial - denoise(trial, t)) / t
            x = x + (t - s) * (slope + slope_there) / 2
        return x
