"""UniPC: a multistep predictor-corrector; the call after a step also corrects that step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor

from solverbench.method import Denoise, ExponentialIntegrator, Grid, option, unified


class UniPC(ExponentialIntegrator):
    """Unified predictor-corrector of order 1 to 3; one call per interval, at the predicted points.

    With h and scale from `linear`, z = -h, m_i the prediction at level n - i, and the last p of them:

        r_i = (lam_{n-i} - lam_n) / (lam_{n+1} - lam_n),  D_i = (m_i - m_0) / r_i          i = 1 .. p-1
        r_p = 1,                                          D_p = m(predicted x) - m_0
        B   = z (bh1) or expm1(z) (bh2),                  b_j = j! z phi_{j+1}(z) / B      j = 1 .. p

    both steps are kept x - scale expm1(z) m_0 - scale B sum_i rho_i D_i, where rho solves sum_i r_i^(j-1) rho_i = b_j:
    the predictor has p - 1 unknowns, the corrector p. A single unknown is 1/2 (predictor of order 2, corrector of
    order 1). The history keeps the call at the predicted point; it is not repeated at the corrected one. The last step
    is not corrected.

    Source: Zhao et al. 2023, arXiv:2302.04867, algorithms 1 and 2 (UniC and UniP), section 3.4 for B; the public
    code's degenerate rules. The matrix of r_i is differentiated here, but constant in the public code.
    """

    name: ClassVar[str] = "unipc"
    paper: ClassVar[str] = "UniPC, arXiv:2302.04867"

    variant: str = option(
        "bh2",
        choices=("bh1", "bh2"),
        help="B(h): h (bh1) or expm1(h) (bh2); GAS and LD3 use bh1 for pixel models",
    )

    @property
    def local_order(self) -> int | None:
        """The order of the corrected step: one more than the predictor's."""
        return self.order + 1

    @property
    def predicted_order(self) -> int | None:
        """The order of the predictor: the number of values combined."""
        return self.order

    @property
    def global_order(self) -> int | None:
        """At most 3, because the first corrector has order 1; 2 where the last step is a predictor of order 1."""
        return 2 if self.lower_order_final else min(self.order + 1, 3)

    def integrate(self, denoise: Denoise, x: Tensor, grid: Grid) -> Tensor:
        """Return the sample; M calls for M intervals."""
        sigmas = grid.sigmas
        past = [self.predict(denoise, x, sigmas[0])]
        for n in range(grid.steps):
            used = past[: self.order_at(n, grid.steps)]
            predicted = self.step(x, used, sigmas, n)
            if n + 1 == grid.steps:
                return predicted
            new = self.predict(denoise, predicted, sigmas[n + 1])
            x = self.step(x, used, sigmas, n, new=new)
            past = [new, *past][: self.order]
        raise AssertionError("a grid has at least one interval")

    def step(self, x: Tensor, past: Sequence[Tensor], sigmas: Tensor, n: int, *, new: Tensor | None = None) -> Tensor:
        """Return the state at level n + 1: predicted, or corrected if `new` is given.

        Args:
            x: the state at level n.
            past: predictions, newest first: past[i] was made at level n - i. Their number is the order.
            sigmas: [M+1], the grid's levels.
            n: index of the step.
            new: the prediction at level n + 1; None for the predictor.
        """
        kept, scale, h = self.linear(sigmas[n], sigmas[n + 1])
        z = -h
        lam = -sigmas.log()
        r = [(lam[n - i] - lam[n]) / (lam[n + 1] - lam[n]) for i in range(1, len(past))]
        d = [(m - past[0]) / r_i for m, r_i in zip(past[1:], r, strict=True)]
        if new is not None:
            r, d = [*r, torch.ones_like(z)], [*d, new - past[0]]
        x = kept * x - scale * torch.expm1(z) * past[0]
        b = z if self.variant == "bh1" else torch.expm1(z)
        for rho_i, d_i in zip(unified(r, z, b), d, strict=True):
            x = x - scale * b * rho_i * d_i
        return x
