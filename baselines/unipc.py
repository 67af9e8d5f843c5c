"""UniPC: a multistep predictor whose next call also corrects the step that led to it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor

from solverbench.method import Denoise, ExponentialIntegrator, Grid, option, unified


class UniPC(ExponentialIntegrator):
    """Unified predictor-corrector of order 1 to 3; one call per interval, at the predicted points.

    With h and scale of `linear`, z = -h, m_i the prediction at level n - i, and over the last p of them

        r_i = (lam_{n-i} - lam_n) / (lam_{n+1} - lam_n),  D_i = (m_i - m_0) / r_i          i = 1 .. p-1
        r_p = 1,                                          D_p = m(predicted x) - m_0
        B   = z (bh1) or expm1(z) (bh2),                  b_j = j! z phi_{j+1}(z) / B      j = 1 .. p

    both steps are kept x - scale expm1(z) m_0 - scale B sum_i rho_i D_i, where rho solves sum_i r_i^(j-1) rho_i = b_j:
    the predictor over p - 1 unknowns, the corrector over p. A single unknown is 1/2 (predictor of order 2, corrector
    of order 1). The history keeps the call at the predicted point, which isn't made again at the corrected one, and
    the last step isn't corrected.

    Source: Zhao et al. 2023, arXiv:2302.04867, algorithms 1 and 2 (UniC and UniP), section 3.4 for B; the public
    code's degenerate rules. Its matrix of r_i is differentiated through here, and is a constant there.
    """

    name: ClassVar[str] = "unipc"
    paper: ClassVar[str] = "UniPC, arXiv:2302.04867"

    variant: str = option(
        "bh2",
        choices=("bh1", "bh2"),
        help="B(h), h or expm1(h); GAS, LD3 take bh1 on pixel models",
    )

    @property
    def local_order(self) -> int | None:
        """The corrected step's: one more than the predictor's."""
        return self.order + 1

    @property
    def predicted_order(self) -> int | None:
        """The predictor's: the values combined."""
        return self.order

    @property
    def global_order(self) -> int | None:
        """3 at most: the first step is the corrector of order 1; 2 where the last one is the predictor of order 1."""
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
        """Return the state at level n + 1: predicted, or corrected by `new`.

        Args:
            x: the state at level n.
            past: predictions, newest first: past[i] was made at level n - i. As many as the order.
            sigmas: [M+1], the grid's levels.
            n: the step.
            new: the prediction at level n + 1.
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
