"""iPNDM: Adams-Bashforth on the slopes, with the equal-step coefficients on any grid."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from solverbench.method import ADAMS_BASHFORTH, Classical, Denoise, Grid, option


class IPNDM(Classical):
    """Linear multistep method of order 1 to 4; one call per interval. The order rises over the first steps.

    Source: Zhang and Chen 2022, arXiv:2204.13902, appendix (iPNDM), after Liu et al. 2022, arXiv:2202.09778.
    """

    name: ClassVar[str] = "ipndm"
    paper: ClassVar[str] = "iPNDM, arXiv:2204.13902"
    uniform: ClassVar[bool] = True

    order: int = option(4, choices=(1, 2, 3, 4), help="number of outputs that a regular step combines")

    @property
    def local_order(self) -> int | None:
        """The order of the weights on equal steps in sigma; at most 2 on other grids."""
        return self.order

    @property
    def global_order(self) -> int | None:
        """At most 2, because the first step is an Euler step."""
        return min(self.order, 2)

    def integrate(self, denoise: Denoise, x: Tensor, grid: Grid) -> Tensor:
        """Return the sample; M calls for M intervals."""
        sigmas = grid.sigmas
        past: list[Tensor] = []
        for n in range(grid.steps):
            slope = (x - denoise(x, sigmas[n])) / sigmas[n]
            past = [slope, *past][: self.order]
            for weight, e in zip(ADAMS_BASHFORTH[len(past)], past, strict=True):
                x = x + (sigmas[n + 1] - sigmas[n]) * weight * e
        return x
