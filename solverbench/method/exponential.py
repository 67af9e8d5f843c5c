"""Shared parts of exponential integrators: the exact linear part, the DPM-Solver++ weights, the order of each step.

Everything is in the EDM frame (alpha = 1), where lambda = -log sigma.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from solverbench.errors import SpecError
from solverbench.method.classical import Classical
from solverbench.method.declarations import option
from solverbench.method.solver import Denoise

ADAMS_BASHFORTH = {
    1: (1.0,),
    2: (3 / 2, -1 / 2),
    3: (23 / 12, -16 / 12, 5 / 12),
    4: (55 / 24, -59 / 24, 37 / 24, -9 / 24),
}
"""Weights of the slopes by order, newest first, for equal steps."""

GAUSS_NODES, GAUSS_WEIGHTS = map(torch.from_numpy, np.polynomial.legendre.leggauss(20))
"""Gauss-Legendre rule on [-1, 1]. On exp(lambda) times a polynomial of degree 4 its relative error is below 1e-15 for
steps of up to 15 in lambda, longer than from sigma = 80 to 0.002 at once; at 20 it is 1e-13."""


class ExponentialIntegrator(Classical):
    """A solver that is exact in the linear term and extrapolates the network's prediction m as a polynomial in lambda.

    With m the data prediction D or the noise prediction (x - D)/s, the exact solution from level s to t < s is

        data :  x' = (t/s) x +   int_{lam_s}^{lam_t} exp(lam - lam_t) m dlam
        noise:  x' =       x - t int_{lam_s}^{lam_t} exp(lam_t - lam) m dlam

    Source: Lu et al. 2022, arXiv:2211.01095, proposition 4.1 (data); arXiv:2206.00927, proposition 3.1 (noise).
    """

    levels: str = option("logsnr", key="grid", help="grid name, or M+1 noise levels joined with +")
    order: int = option(3, choices=(1, 2, 3), help="number of outputs that a regular step combines")
    prediction: str = option(
        "data", choices=("data", "noise"), help="network prediction that is extrapolated between calls"
    )
    lower_order_final: bool = option(True, help="reduce the order to 1 over the last steps")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.order == 1 and not self.lower_order_final:
            raise SpecError(
                asked=f"{self.name}:order=1:lower_order_final=false",
                wrong="every step has order 1 in any case",
                remedy="leave lower_order_final out",
            )

    def predict(self, denoise: Denoise, x: Tensor, sigma: Tensor) -> Tensor:
        """Return m at state `x` of level `sigma`. Costs one call."""
        d = denoise(x, sigma)
        return d if self.prediction == "data" else (x - d) / sigma

    def linear(self, s: Tensor, t: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return (kept, scale, h): a first-order step from level `s` to `t` is kept x - scale expm1(-h) m.

        h is lambda_t - lambda_s in data prediction and its negative in noise prediction. With that sign, the formulas
        of both predictions are the same.
        """
        h = s.log() - t.log()
        return (t / s, torch.ones_like(t), h) if self.prediction == "data" else (torch.ones_like(t), t, -h)

    def order_at(self, n: int, steps: int) -> int:
        """Return the order of step `n` of `steps`; see `order_at`."""
        return order_at(n, steps, self.order, lowered=self.lower_order_final)


def order_at(n: int, steps: int, order: int, *, lowered: bool) -> int:
    """Return the order of step `n` of `steps`. It rises over the first steps; a warm-up step is not lowered at the end.

    Args:
        order: order of a regular step.
        lowered: whether the order falls over the last steps, down to 1.
    """
    if n + 1 < order or not lowered:
        return min(n + 1, order)
    return min(order, steps - n)


def block_orders(calls: int, order: int) -> list[int]:
    """Return the orders of a singlestep solver's blocks, which add up to `calls`: mostly `order`, lower at the end.

    Source: Lu et al. 2022, arXiv:2206.00927, section 3.4 and its public code. The last block never has order 3:
    3 calls are 2 + 1.
    """
    blocks, rest = divmod(calls, order)
    if order == 3 and rest == 0:
        return [3] * (blocks - 1) + [2, 1]
    return [order] * blocks + [rest] * (rest > 0)


def phis(h: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return (p1, p2, p3) = (expm1(-h), p1/h + 1, p2/h - 1/2) for a step `h` in lambda, negated in noise prediction.

    Source: Lu et al. 2022, arXiv:2211.01095, appendix B.
    """
    p1 = torch.expm1(-h)
    p2 = p1 / h + 1
    return p1, p2, p2 / h - 0.5


def differences(lam: Tensor, past: Sequence[Tensor], n: int) -> tuple[Tensor, ...]:
    """Return the divided differences of predictions that the multistep update of step `n` uses.

    Args:
        lam: [M+1], lambda at the grid's levels.
        past: predictions, newest first: past[i] was made at level n - i. One gives (), two (d0,), three (D1, D2).
        n: the step, from level n to n + 1.

    Source: arXiv:2211.01095, appendix B, as in every public implementation: D2 is a divided difference, half of the
    second-derivative estimate that the Taylor form would need.
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


def unified(r: Sequence[Tensor], z: Tensor, b: Tensor) -> Sequence[Tensor]:
    """Return rho with sum_i r_i^(j-1) rho_i = j! z phi_{j+1}(z) / b for j = 1 .. len(r); 1/2 for a single r.

    Source: Zhao et al. 2023, arXiv:2302.04867 (UniPC), algorithms 1 and 2, and the public code's degenerate rules.
    """
    if len(r) < 2:
        return [z.new_tensor(0.5)] * len(r)
    right, g = [], torch.expm1(z)
    for j in range(1, len(r) + 1):
        g = g / z - 1 / math.factorial(j)  # z phi_{j+1}(z)
        right.append(math.factorial(j) * g / b)
    matrix = torch.linalg.vander(torch.stack(list(r))).T
    return list(torch.linalg.solve(matrix, torch.stack(right)))


def adams(lam: Tensor, nodes: Sequence[Tensor], n: int) -> list[Tensor]:
    """Return the integrals of exp(lambda - lam[n+1]) times the Lagrange polynomials of `nodes` over step `n`.

    They are the weights of predictions made at `nodes` in data prediction, and sum to 1 - exp(-h).

    Args:
        lam: [M+1], lambda at the grid's levels.
        nodes: values of lambda.
        n: the step, from level n to n + 1.

    Source: Hochbruck and Ostermann 2010, Exponential integrators (exponential Adams methods); Xue et al. 2023,
    arXiv:2309.05019 (SA-Solver), with tau = 0.
    """
    half = (lam[n + 1] - lam[n]) / 2
    at = lam[n] + half * (1 + GAUSS_NODES)
    kernel = (at - lam[n + 1]).exp() * GAUSS_WEIGHTS * half
    return [(kernel * values).sum() for values in lagrange(at, nodes)]


def lagrange(u: Tensor, nodes: Sequence[Tensor]) -> list[Tensor]:
    """Return the Lagrange basis polynomials of `nodes` at the points `u`: 1 at one node, 0 at the others."""
    others = [[node for i, node in enumerate(nodes) if i != j] for j in range(len(nodes))]
    return [
        math.prod(((u - node) / (own - node) for node in rest), start=torch.ones_like(u))
        for own, rest in zip(nodes, others, strict=True)
    ]
