"""What exponential integrators share: the weights of DPM-Solver++ in data prediction, in the EDM frame (alpha = 1)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def phis(h: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return (p1, p2, p3) = (expm1(-h), p1/h + 1, p2/h - 1/2) for a step `h` > 0 in lambda.

    Source: Lu et al. 2022, arXiv:2211.01095, appendix B.
    """
    p1 = torch.expm1(-h)
    p2 = p1 / h + 1
    return p1, p2, p2 / h - 0.5


def differences(lam: Tensor, past: Sequence[Tensor], n: int) -> tuple[Tensor, ...]:
    """Return the divided differences of data predictions that a multistep update of step `n` is made of.

    Args:
        lam: [M+1], lambda at the grid's levels.
        past: predictions, newest first: past[i] was made at level n - i. One gives (), two (d0,), three (D1, D2).
        n: the step, from level n to n + 1.

    Source: arXiv:2211.01095, appendix B, as every public implementation has it: D2 is a divided difference, half of
    the second derivative's estimate that the Taylor form would want.
    """
    if len(past) == 1:
        return ()
    h = lam[n + 1] - lam[n]
    r0 = (lam[n] - lam[n - 1]) / h
    d0 = (past[0] - past[1]) / r0
    if len(past) == 2:
        return (d0,)
    r1 = (lam[n - 1] - lam[n - 2]) / h
    d1 = (past[1] - past[2]) / r1
    return d0 + r0 / (r0 + r1) * (d0 - d1), (d0 - d1) / (r0 + r1)
