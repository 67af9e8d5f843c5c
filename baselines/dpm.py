"""Multistep DPM-Solver++ and DPM-Solver: extrapolate the prediction in lambda from the last one to three calls."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from solverbench.baselines import dpm_singlestep
from solverbench.errors import SpecError
from solverbench.method import Denoise, ExponentialIntegrator, Grid, NoiseSchedule, differences, option, phis


class DPMSolverPP(ExponentialIntegrator):
    """Exponential integrator of order 1 to 3 in data (DPM-Solver++) or noise prediction (DPM-Solver).

    Multistep with one call per interval; singlestep=true selects the methods of `dpm_singlestep`. Order 3 gives the
    second difference half of its Taylor weight, like every public implementation, so its regular step is second
    order; d2=full doubles that weight. A step of order 2 gives its difference the weight -expm1(-h)/2 (midpoint) or
    that of the Taylor expansion, expm1(-h)/h + 1 (taylor). The latter is the exponential Adams-Bashforth method.

    Source: Lu et al. 2022, arXiv:2211.01095, algorithm 2 and appendix B; arXiv:2206.00927 for noise prediction. In
    the EDM frame (alpha = 1).
    """

    name: ClassVar[str] = "dpm"
    paper: ClassVar[str] = "DPM-Solver++, arXiv:2211.01095; DPM-Solver, arXiv:2206.00927"

    d2: str = option(
        "half", choices=("half", "full"), help="weight of the second difference at order 3; the public code uses half"
    )
    variant: str = option(
        "midpoint",
        choices=("midpoint", "taylor"),
        help="weight of the difference in steps of order 2, and in singlestep blocks of order 3",
    )
    singlestep: bool = option(False, help="use blocks of up to `order` calls, each from a single state")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.d2 == "full" and (self.order != 3 or self.singlestep):
            kind = "singlestep" if self.singlestep else f"order {self.order}"
            raise SpecError(
                asked="dpm:d2=full",
                wrong=f"{kind} has no second difference",
                remedy="use it with multistep order 3 alone",
            )
        if self.singlestep and not self.lower_order_final:
            raise SpecError(
                asked="dpm:singlestep=true:lower_order_final=false",
                wrong="its list of orders is fixed by the number of calls",
                remedy="leave lower_order_final out",
            )
        if self.order == 1 and (self.singlestep or self.prediction == "noise" or self.variant == "taylor"):
            told = {"singlestep=true": self.singlestep, "prediction=noise": self.prediction == "noise"}
            option = next((each for each, given in told.items() if given), "variant=taylor")
            raise SpecError(
                asked=f"dpm:order=1:{option}",
                wrong="a step of order 1 is the same with and without it",
                remedy=f"leave {option} out",
            )

    @property
    def block(self) -> int:
        """Intervals per regular step: a singlestep block spans one interval per call."""
        return self.order if self.singlestep else 1

    @property
    def local_order(self) -> int | None:
        """The number of values combined, but 2 for multistep order 3 with d2=half."""
        return 2 if self.order == 3 and not self.singlestep and self.d2 == "half" else self.order

    @property
    def global_order(self) -> int | None:
        """At most 2, because the first step and the last step or block have order 1."""
        return min(self.order, 2)

    def grid(self, schedule: NoiseSchedule, steps: int) -> Grid:
        """Return the grid of `steps` intervals, one level per call; on logsnr, singlestep blocks have equal length."""
        if (own := self.on(schedule)) is not self:
            return own.grid(schedule, steps)
        grid = super().grid(schedule, steps)
        body = grid.sigmas[grid.sigmas > 0]
        if not self.singlestep or self.levels != "logsnr" or len(body) < 2:
            return grid
        return Grid(torch.cat([dpm_singlestep.regroup(body, self.order), grid.sigmas[len(body) :]]), schedule)

    def integrate(self, denoise: Denoise, x: Tensor, grid: Grid) -> Tensor:
        """Return the sample; M calls for M intervals."""
        if self.singlestep:
            return dpm_singlestep.integrate(self, denoise, x, grid, taylor=self.variant == "taylor")
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
                    x = x + scale * (p2 if self.variant == "taylor" else -p1 / 2) * d0
                case (d1, d2):
                    x = x + scale * p2 * d1 - scale * share * p3 * d2
        return x
