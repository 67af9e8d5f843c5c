"""Heun's second-order method on the probability-flow ODE, as EDM uses it."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

import solverbench as sb


class Heun(sb.Solver):
    """A trial Euler step, then a step along the mean of both slopes; corrected on the last interval too.

    Source: Karras et al. 2022, arXiv:2206.00364, algorithm 1, ending at sigma_min instead of 0.
    """

    name: ClassVar[str] = "heun"
    paper: ClassVar[str] = "EDM, arXiv:2206.00364"
    local_order: ClassVar[int | None] = 2

    def steps(self, nfe: int) -> int:
        if nfe % 2 or nfe < 2:
            nearest = [n for n in (nfe - 1, nfe + 1) if n >= 2]
            raise sb.refuse_budget(self, nfe, "each step costs 2 evaluations", nearest)
        return nfe // 2

    def integrate(self, denoise: sb.Denoise, x: Tensor, grid: sb.Grid) -> Tensor:
        """Return the sample; 2M calls for M intervals."""
        sigmas = grid.sigmas
        for n in range(grid.steps):
            s, t = sigmas[n], sigmas[n + 1]
            slope = (x - denoise(x, s)) / s
            trial = x + (t - s) * slope
            slope_there = (trial - denoise(trial, t)) / t
            x = x + (t - s) * (slope + slope_there) / 2
        return x
