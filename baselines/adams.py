"""Exponential Adams methods in lambda: a predictor that extrapolates predictions, and an optional corrector."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from torch import Tensor

from solverbench.errors import SpecError
from solverbench.method import Classical, Denoise, Grid, adams, option, order_at


class Adams(Classical):
    """Multistep predictor of order 1 to 4 in data prediction, with or without a corrector: SA-Solver without noise.

    With m_j the data prediction at the level lam_j, a step from s = sigma_n to t = sigma_{n+1} is

        x' = (t/s) x + sum_j b_j m_j,    b_j = int_{lam_n}^{lam_{n+1}} exp(lam - lam_{n+1}) l_j(lam) dlam

    where l_j are the Lagrange polynomials on the nodes n, n - 1, ... of the predictor, or n + 1, n, ... of the
    corrector. The call at the predicted point corrects the step and becomes the newest m_j (PEC, one call per
    interval); with pece=true another call at the corrected point does (two per interval). The last step is not
    corrected. With simple=true, steps of order 2 weigh the difference of their two predictions by the leading term of
    its weight in h.

    predictor=1 is DDIM, predictor=2 is dpm:order=2:variant=taylor, predictor=3 is dpm:d2=full:variant=taylor.
    Source: Xue et al. 2023, arXiv:2309.05019 (SA-Solver), with tau = 0; Hochbruck and Ostermann 2010 for the method.
    """

    name: ClassVar[str] = "adams"
    paper: ClassVar[str] = "SA-Solver with tau = 0, arXiv:2309.05019"

    levels: str = option("logsnr", key="grid", help="grid name, or M+1 noise levels joined with +")
    predictor: int = option(3, choices=(1, 2, 3, 4), help="number of predictions that a regular step extrapolates")
    corrector: int | None = option(
        None, choices=(2, 3, 4), help="number of predictions that correct a step; if not given, none do"
    )
    pece: bool = option(False, help="call the network again at each corrected point")
    simple: bool = option(False, help="weights of SA-Solver's public code in steps of order 2")
    lower_order_final: bool = option(True, help="reduce the order to 1 over the last steps")

    def __post_init__(self) -> None:
        super().__post_init__()
        for asked, given, wrong, remedy in (
            (f"corrector={self.corrector}", (self.corrector or 0) > self.predictor + 1,
             f"after predictor={self.predictor} more than {self.predictor + 1} predictions raise no order",
             f"use corrector={self.predictor + 1}, or a predictor of a higher order"),
            ("pece=true", self.pece and self.corrector is None, "nothing is corrected", "give a corrector as well"),
            ("simple=true", self.simple and self.predictor == 1 and self.corrector is None,
             "no step has order 2", "leave simple out"),
            ("lower_order_final=false", not self.lower_order_final and self.predictor == 1,
             "every step has order 1 in any case", "leave lower_order_final out"),
        ):  # fmt: skip
            if given:
                raise SpecError(asked=f"adams:predictor={self.predictor}:{asked}", wrong=wrong, remedy=remedy)

    @property
    def local_order(self) -> int | None:
        """The number of predictions combined, of the corrector if there is one."""
        return self.corrector or self.predictor

    @property
    def predicted_order(self) -> int | None:
        """The order of the predictor."""
        return self.predictor

    @property
    def global_order(self) -> int | None:
        """At most 2, because the first step or the last one has order 1; 3 if corrected steps stay regular to the end.

        Not declared where the measurement's problems cancel the error that decides: simple=true with a corrector of
        order 2 on Gaussian data, and a corrector of order 4 without lower orders, whose first step is exact on a sine.
        """
        if self.corrector is None:
            return min(self.predictor, 2)
        if self.lower_order_final:
            return None if self.simple and self.corrector == 2 and self.predictor > 1 else 2
        return None if self.corrector == 4 else self.corrector

    def spanned(self, calls: int) -> int | None:
        """Return the intervals of `calls` calls: as many, but with pece=true 2M - 1 calls span M intervals."""
        if not self.pece:
            return super().spanned(calls)
        return (calls + 1) // 2 if calls > 0 and calls % 2 else None

    def _costs(self) -> str:
        return "each step costs two evaluations, but the last one" if self.pece else super()._costs()

    def integrate(self, denoise: Denoise, x: Tensor, grid: Grid) -> Tensor:
        """Return the sample; M calls for M intervals, with pece=true 2M - 1."""
        sigmas, lam = grid.sigmas, -grid.sigmas.log()
        past = [denoise(x, sigmas[0])]
        for n in range(grid.steps):
            order = order_at(n, grid.steps, self.predictor, lowered=self.lower_order_final)
            predicted = self._step(x, past[:order], lam, n, newest=n)
            if n + 1 == grid.steps:
                return predicted
            new = denoise(predicted, sigmas[n + 1])
            if self.corrector is None:
                x = predicted
            else:
                used = [new, *past][: min(self.corrector, order + 1)]
                x = self._step(x, used, lam, n, newest=n + 1)
            past = [denoise(x, sigmas[n + 1]) if self.pece else new, *past][: max(self.predictor, self.corrector or 1)]
        raise AssertionError("a grid has at least one interval")

    def _step(self, x: Tensor, used: Sequence[Tensor], lam: Tensor, n: int, *, newest: int) -> Tensor:
        """Return the state at level n + 1.

        Args:
            x: the state at level n.
            used: predictions, newest first: used[i] was made at level newest - i.
            lam: [M+1], lambda at the grid's levels.
            newest: n for the predictor, n + 1 for the corrector.
        """
        h = lam[n + 1] - lam[n]
        nodes = [lam[newest - i] for i in range(len(used))]
        weights = adams(lam, nodes, n)
        if self.simple and len(used) == 2:  # the leading term of the integral of (lambda - lam_n)/(nodes' distance)
            slope = h**2 / (2 * (nodes[0] - nodes[1]))
            weights = [slope, -slope]
        base = newest - n  # the prediction at level n, whose weight makes the sum exact
        x = (-h).exp() * x - (-h).expm1() * used[base]
        for i, (weight, m) in enumerate(zip(weights, used, strict=True)):
            if i != base:
                x = x + weight * (m - used[base])
        return x
