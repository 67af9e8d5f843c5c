"""Euler's method on the probability-flow ODE, which is DDIM."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from solverbench.method import Classical, Denoise, Grid


class Euler(Classical):
    """One call and one straight step per interval.

    Source: Song et al. 2020, arXiv:2010.02502, equation 12 with eta = 0; in the EDM frame it is Euler's method
    (Karras et al. 2022, arXiv:2206.00364, section 3).
    """

    name: ClassVar[str] = "euler"
    paper: ClassVar[str] = "DDIM, arXiv:2010.02502"
    local_order: ClassVar[int | None] = 1
    global_order: ClassVar[int | None] = 1

    def integrate(self, denoise: Denoise, x: Tensor, grid: Grid) -> Tensor:
        """Return the sample; M calls for M intervals."""
        sigmas = grid.sigmas
        for n in range(grid.steps):
            d = denoise(x, sigmas[n])
            x = d + sigmas[n + 1] / sigmas[n] * (x - d)
        return x
