"""DPM-Solver++ and DPM-Solver, multistep: the prediction, extrapolated in lambda from the last one to three calls."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from solverbench.baselines import dpm_singlestep
from solverbench.errors import SpecError
from solverbench.method import Denoise, ExponentialIntegrator, Grid, NoiseSchedule, differences, option, phis


class DPMSolverPP(ExponentialIntegrator):
    """Exponential integrator of order 1 to 3 in data (DPM-Solver++) or noise prediction (DPM-Solver).

    Multistep, one call per interval; `singlestep` goes over to the methods of `dpm_singlestep`. Order 3 weighs the
    second difference as every public implementation does, by half of its Taylor weight, which makes its regular step
    second order; d2=full doubles it.

    Source: Lu et al. 2022, arXiv:2211.01095, algorithm 2 and appendix B; arXiv:2206.00927 for noise prediction. In
    the EDM frame (alpha = 1).
    """

    name: ClassVar[str] = "dpm"
    paper: ClassVar[str] = "DPM-Solver++, arXiv:2211.01095; DPM-Solver, arXiv:2206.00927"

    d2: str = option("half", choices=("half", "full"), help="weight of order 3's second difference; half as public")
    singlestep: bool = option(False, help="blocks of up to `order` calls, each from a single state")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.d2 == "full" and (self.order != 3 or self.singlestep):
            kind = "singlestep" if self.singlestep else f"order {self.order}"
            raise SpecError(f"dpm:d2=full: {kind} has no second difference; use it with multistep order 3 alone")
        if self.singlestep and not self.lower_order_final:
            raise SpecError(
                "dpm:singlestep=true:lower_order_final=false: its list of orders is fixed by the number of calls; "
                "leave lower_order_final out"
            )

    @property
    def block(self) -> int:
        """The intervals of a regular step: singlestep blocks span one for each of their calls."""
        return self.order if self.singlestep else 1

    @property
    def local_order(self) -> int | None:
        """The values combined, but 2 for multistep order 3 with half of the second difference."""
        return 2 if self.order == 3 and not self.singlestep and self.d2 == "half" else self.order

    @property
    def global_order(self) -> int | None:
        """2 at most: the first step, and the last or the last block, are of order 1."""
        return min(self.order, 2)

    def grid(self, schedule: NoiseSchedule, steps: int) -> Grid:
        """Return the grid of `steps` intervals, a level per call; singlestep blocks are equally long on logsnr."""
        grid = super().grid(schedule, steps)
        body = grid.sigmas[grid.sigmas > 0]
        if not self.singlestep or self.levels != "logsnr" or len(body) < 2:
            return grid
        return Grid(torch.cat([dpm_singlestep.regroup(body, self.order), grid.sigmas[len(body) :]]), schedule)

    def integrate(self, denoise: Denoise, x: Tensor, grid: Grid) -> Tensor:
        """Return the sample; M calls for M intervals."""
        if self.singlestep:
            return dpm_singlestep.integrate(self, denoise, x, grid)
        sigmas, lam = grid.sigmas, -grid.sigmas.log()
        share = 2 if self.d2 == "full" else 1
        past: list[Tensor] = []
        for n in range(grid.steps):
            past = [self.predict(denoise, x, sigmas[n]), *past][: self.order]
            used = past[: self.order_at(n, grid.steps)]
            kept, scale, h = self.linear(sigmas[n], sigmas[n + 1])
            p1, p2, p3 = phis(h)
            x = kept * x - scale * p1 * used[0]
            match differences(lam, used, n):
                case (d0,):
                    x = x - scale * p1 / 2 * d0
                case (d1, d2):
                    x = x + scale * p2 * d1 - scale * share * p3 * d2
        return x
