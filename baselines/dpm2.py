"""DPM-Solver-2: one extra evaluation inside each interval, and a step along a combination of both slopes."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from solverbench.errors import SpecError
from solverbench.method import Classical, Denoise, Grid, option


class DPM2(Classical):
    """Second-order singlestep method in noise prediction; two calls per interval.

    The inner level lies at the fraction `r` of the step in lambda: sigma_m = t^r s^(1-r). r = 1 is Heun's method.
    Source: Lu et al. 2022, arXiv:2206.00927, algorithm 1 (r = 1/2) and appendix (general r), in the EDM frame.
    """

    name: ClassVar[str] = "dpm2"
    paper: ClassVar[str] = "DPM-Solver, arXiv:2206.00927"
    local_order = 2
    global_order = 2
    stages: ClassVar[int] = 2

    r: float = option(
        0.5, above=0.0, help="position of the inner evaluation, as a fraction of the step in lambda; at most 1"
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.r > 1:
            raise SpecError(
                asked=f"dpm2:r={self.r:g}",
                wrong="the inner level lies beyond the end of the step",
                remedy="use 0 < r <= 1",
            )

    def integrate(self, denoise: Denoise, x: Tensor, grid: Grid) -> Tensor:
        """Return the sample; 2M calls for M intervals."""
        sigmas = grid.sigmas
        for n in range(grid.steps):
            s, t = sigmas[n], sigmas[n + 1]
            inner = t**self.r * s ** (1 - self.r)
            slope = (x - denoise(x, s)) / s
            trial = x + (inner - s) * slope
            slope_inside = (trial - denoise(trial, inner)) / inner
            x = x + (t - s) * (slope_inside / (2 * self.r) + (1 - 1 / (2 * self.r)) * slope)
        return x
