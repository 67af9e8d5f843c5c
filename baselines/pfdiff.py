"""PFDiff: jump over several intervals along a slope that the past slope made reachable ahead of time."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from solverbench.errors import SpecError
from solverbench.method import Classical, Denoise, Grid, option


class PFDiff(Classical):
    """Euler's method with slopes from the past and the future; one call per k + 1 intervals.

    Each round goes from level i along the past slope to level i + h, calls the network there, and jumps from level i to
    level i + k + 1 along that slope; it doesn't use the other levels inside. The first interval is an Euler step; the
    last round ends where the grid does. k = h = 0 is Euler's method. The paper prints the best of its six pairs (k, h)
    for each budget.
    Source: Wang et al. 2024, arXiv:2408.08822 (PFDiff-k_h on DDIM).
    """

    name: ClassVar[str] = "pfdiff"
    paper: ClassVar[str] = "PFDiff, arXiv:2408.08822"
    uniform: ClassVar[bool] = True

    levels: str = option("time_quadratic", key="grid", help="grid name, or M+1 noise levels joined with +")
    k: int = option(2, choices=(0, 1, 2, 3), help="number of levels that a round skips")
    h: int = option(1, choices=(0, 1, 2, 3), help="number of intervals ahead at which the slope is computed; at most k")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.h > self.k or (self.k and not self.h):
            raise SpecError(
                asked=f"pfdiff:k={self.k}:h={self.h}",
                wrong="the slope would lie beyond the round" if self.h else "with h=0 it is euler on fewer levels",
                remedy=f"use h from 1 to {self.k}" if self.k else "use h=0, or a larger k",
            )

    @property
    def block(self) -> int:
        """The number of intervals of a round."""
        return self.k + 1

    @property
    def local_order(self) -> int | None:
        """1 for k = 0; else not declared: rounds do not begin at the levels that the measurement places."""
        return None if self.k else 1

    @property
    def global_order(self) -> int | None:
        """2 on equal steps in sigma where the slope is that of the middle of a round, else 1."""
        return 2 if 2 * self.h == self.k + 1 else 1

    def spanned(self, calls: int) -> int | None:
        """Return the intervals of `calls` calls: one for the first, k + 1 for each further one."""
        return 1 + (calls - 1) * (self.k + 1) if calls > 0 else None

    def integrate(self, denoise: Denoise, x: Tensor, grid: Grid) -> Tensor:
        """Return the sample; 1 + (M - 1)/(k + 1) calls for M intervals, rounded up."""
        sigmas, last = grid.sigmas, grid.steps
        slope = (x - denoise(x, sigmas[0])) / sigmas[0]
        x = x + (sigmas[1] - sigmas[0]) * slope
        for i in range(1, last, self.k + 1):
            ahead, end = sigmas[min(i + self.h, last)], sigmas[min(i + self.k + 1, last)]
            spring = x + (ahead - sigmas[i]) * slope
            slope = (spring - denoise(spring, ahead)) / ahead
            x = x + (end - sigmas[i]) * slope
        return x
