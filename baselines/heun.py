"""Heun's second-order method on the probability-flow ODE, as EDM uses it."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from solverbench.errors import GridError
from solverbench.method import Classical, Denoise, Grid, NoiseSchedule


class Heun(Classical):
    """A trial Euler step, then a step along the mean of both slopes, on every interval including the last.

    Source: Karras et al. 2022, arXiv:2206.00364, algorithm 1; end=zero adds its last step to level 0.
    """

    name: ClassVar[str] = "heun"
    paper: ClassVar[str] = "EDM, arXiv:2206.00364"
    local_order: ClassVar[int | None] = 2
    global_order: ClassVar[int | None] = 2
    stages: ClassVar[int] = 2

    def grid(self, schedule: NoiseSchedule, steps: int) -> Grid:
        """Return the grid.

        Raises:
            GridError: it starts at the stand-in for an infinite level, from which no mean of slopes holds.
        """
        grid = super().grid(schedule, steps)
        if schedule.sigma_first < schedule.sigma_max and grid.sigmas[0] > schedule.sigma_first:
            raise GridError(
                asked=f"{self.name}:grid={self.levels}",
                wrong=(
                    f"starts at {float(grid.sigmas[0]):g}, which replaces an "
                    "infinite level, where the mean of two slopes is not valid"
                ),
                remedy="use grid=polynomial or grid=logsnr",
            )
        return grid

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
