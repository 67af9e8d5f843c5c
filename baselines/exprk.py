"""Exponential Runge-Kutta methods in lambda: two or three calls per interval, all from the interval's first state."""

from __future__ import annotations

import dataclasses
from typing import ClassVar, Self

from torch import Tensor

from solverbench.errors import SpecError
from solverbench.method import Classical, Denoise, Grid, option, phis


class ExpRK(Classical):
    """Singlestep method of order 2 or 3 in data prediction, exact in the linear term; two or three calls per interval.

    The stages of a step of length h in lambda lie at c2 h, and with three stages also at h. Two stages are the
    midpoint form at c2 = 1/2 (res_2s) and the exponential Heun method at c2 = 1 (exp_heun_2_x0). An interval of one
    call is a step of DDIM; `final` makes the last interval one of fewer calls, for the budgets between.

    Source: Zhang et al. 2023, arXiv:2308.02157 (RES); Hochbruck and Ostermann 2005, Explicit exponential Runge-Kutta
    methods for semilinear parabolic problems, for the weights.
    """

    name: ClassVar[str] = "exprk"
    paper: ClassVar[str] = "RES, arXiv:2308.02157"

    levels: str = option("logsnr", key="grid", help="grid name, or M+1 noise levels joined with +")
    stages: int = option(2, choices=(2, 3), help="number of calls per interval, which is also the order")
    c2: float = option(
        0.5, above=0.0, help="place of the second call as a fraction of the step in lambda; at most 1, with 3 stages "
        "below 2/3"
    )  # fmt: skip
    final: int | None = option(
        None, choices=(1, 2), help="number of calls in the last interval; if not given, as in the others"
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        beyond = self.c2 >= 2 / 3 if self.stages == 3 else self.c2 > 1
        if beyond:
            raise SpecError(
                asked=f"exprk:stages={self.stages}:c2={self.c2:g}",
                wrong="its weights have no finite limit at 2/3" if self.stages == 3 else "beyond the end of the step",
                remedy="use 0 < c2 < 2/3" if self.stages == 3 else "use 0 < c2 <= 1",
            )
        if self.final is not None and self.final >= self.stages:
            raise SpecError(
                asked=f"exprk:stages={self.stages}:final={self.final}",
                wrong=f"every interval has {self.stages} calls in any case",
                remedy="leave final out",
            )

    @property
    def local_order(self) -> int | None:
        """The number of stages."""
        return self.stages

    @property
    def predicted_order(self) -> int | None:
        """The number of stages; not declared with `final`, whose last step is of lower order."""
        return self.stages if self.final is None else None

    @property
    def global_order(self) -> int | None:
        """The number of stages, or one more than that of the last step."""
        return min(self.stages, (self.final or self.stages) + 1)

    def spanned(self, calls: int) -> int | None:
        """Return the intervals of `calls` calls: `stages` each, but `final` in the last one."""
        last = self.final or self.stages
        before, rest = divmod(calls - last, self.stages)
        return before + 1 if calls >= last and rest == 0 else None

    def alternatives(self) -> dict[str, Self]:
        """Return those of `Classical`, and the ones with another `final`."""
        shorter = {f"final={n}": dataclasses.replace(self, final=n) for n in range(1, self.stages)}
        return {**super().alternatives(), **({} if self.final else shorter)}

    def integrate(self, denoise: Denoise, x: Tensor, grid: Grid) -> Tensor:
        """Return the sample; `stages` M calls for M intervals, fewer with `final`."""
        for n in range(grid.steps):
            stages = self.final or self.stages if n + 1 == grid.steps else self.stages
            x = self._step(denoise, x, grid.sigmas[n], grid.sigmas[n + 1], stages)
        return x

    def _step(self, denoise: Denoise, x: Tensor, s: Tensor, t: Tensor, stages: int) -> Tensor:
        """Return `x` carried from level `s` to level `t`."""
        h = s.log() - t.log()
        first, second, _ = phis(h)  # expm1(-h) and h phi_2(-h)
        d1 = denoise(x, s)
        plain = t / s * x - first * d1
        if stages == 1:
            return plain
        inner = t if self.c2 == 1 else s * (-self.c2 * h).exp()
        first_inside, second_inside, _ = phis(self.c2 * h)
        difference = denoise(inner / s * x - first_inside * d1, inner) - d1
        if stages == 2:
            return plain + second / self.c2 * difference
        gamma = 1 / (self.c2 * (2 - 3 * self.c2))
        stage = plain + (gamma * second_inside + second / self.c2) * difference
        last = second / (gamma * self.c2 + 1)
        return plain + last * (gamma * difference + denoise(stage, t) - d1)
