"""DPM-Solver++ multistep: the data prediction, extrapolated in lambda from the last one to three calls."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

import solverbench as sb


class DPMSolverPP(sb.Classical):
    """Exponential multistep integrator of order 1 to 3 in data prediction; one call per interval.

    Source: Lu et al. 2022, arXiv:2211.01095, algorithm 2 and appendix B, in the EDM frame (alpha = 1). Order 3 weighs
    the second difference as every public implementation does, by half of its Taylor weight.
    """

    name: ClassVar[str] = "dpm"
    paper: ClassVar[str] = "DPM-Solver++, arXiv:2211.01095"

    levels: str = sb.option("logsnr", key="grid", help="a named grid, or the M+1 levels joined with +")
    order: int = sb.option(3, choices=(1, 2, 3), help="values that a regular step combines")
    lower_order_final: bool = sb.option(True, help="lower the order over the last steps, down to 1")

    def integrate(self, denoise: sb.Denoise, x: Tensor, grid: sb.Grid) -> Tensor:
        """Return the sample; M calls for M intervals."""
        sigmas, lam = grid.sigmas, -grid.sigmas.log()
        past: list[Tensor] = []
        for n in range(grid.steps):
            past = [denoise(x, sigmas[n]), *past][: self.order]
            used = past[: self._order_at(n, grid.steps)]
            p1, p2, p3 = sb.phis(lam[n + 1] - lam[n])
            x = sigmas[n + 1] / sigmas[n] * x - p1 * used[0]
            match sb.differences(lam, used, n):
                case (d0,):
                    x = x - p1 / 2 * d0
                case (d1, d2):
                    x = x + p2 * d1 - p3 * d2
        return x

    def _order_at(self, n: int, steps: int) -> int:
        """The order of step n: it rises over the first steps, and a warm-up step is never lowered."""
        if n + 1 < self.order or not self.lower_order_final:
            return min(n + 1, self.order)
        return min(self.order, steps - n)
