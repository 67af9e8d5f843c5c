"""Singlestep DPM-Solver++ and DPM-Solver: blocks of one to three calls, each a Runge-Kutta step in lambda.

The grid has one level per call: a block of k calls spans k intervals, with its stages at the levels between.
"""

from __future__ import annotations

import itertools

import torch
from torch import Tensor

from solverbench.method import Denoise, ExponentialIntegrator, Grid, block_orders, phis


def regroup(sigmas: Tensor, order: int) -> Tensor:
    """Return levels with the ends of `sigmas` [M+1]: equal blocks in lambda, each split into equal parts.

    Source: the public code of arXiv:2206.00927. On other grids, a block uses the grid's intervals unchanged.
    """
    sizes = block_orders(len(sigmas) - 1, order)
    places = [block + part / size for block, size in enumerate(sizes) for part in range(size)]
    inner = torch.tensor(places[1:], dtype=torch.float64) / len(sizes)
    start, end = sigmas[0].log(), sigmas[-1].log()
    return torch.cat([sigmas[:1], (start + inner * (end - start)).exp(), sigmas[-1:]])


def integrate(
    solver: ExponentialIntegrator, denoise: Denoise, x: Tensor, grid: Grid, *, taylor: bool = False
) -> Tensor:
    """Return the sample; M calls for M intervals.

    Args:
        taylor: give the differences of a block their weights in the Taylor expansion.
    """
    ends = itertools.accumulate(block_orders(grid.steps, solver.order), initial=0)
    for begin, end in itertools.pairwise(ends):
        x = _block(solver, denoise, x, grid.sigmas[begin : end + 1], taylor)
    return x


def _block(solver: ExponentialIntegrator, denoise: Denoise, x: Tensor, levels: Tensor, taylor: bool) -> Tensor:
    """Return `x` integrated from levels[0] to levels[-1], with one call at every level but the last.

    Source: arXiv:2211.01095, algorithm 1 (order 2); arXiv:2206.00927, algorithms 1 and 2 (orders 2 and 3); for
    `taylor` the public code's solver_type of that name.
    """
    s, t = levels[0], levels[-1]
    m = solver.predict(denoise, x, s)

    def first_order(to: Tensor) -> Tensor:
        kept, scale, h = solver.linear(s, to)
        return kept * x - scale * torch.expm1(-h) * m

    _, scale, h = solver.linear(s, t)
    p1, p2, p3 = phis(h)
    if len(levels) == 2:
        return first_order(t)
    _, _, h1 = solver.linear(s, levels[1])
    m1 = solver.predict(denoise, first_order(levels[1]), levels[1])
    if len(levels) == 3:
        return first_order(t) + scale * (p2 if taylor else -p1 / 2) * h / h1 * (m1 - m)
    _, scale2, h2 = solver.linear(s, levels[2])
    stage = first_order(levels[2]) + scale2 * phis(h2)[1] * h2 / h1 * (m1 - m)
    m2 = solver.predict(denoise, stage, levels[2])
    if not taylor:
        return first_order(t) + scale * p2 * h / h2 * (m2 - m)
    r1, r2 = h1 / h, h2 / h
    e1, e2 = (m1 - m) / r1, (m2 - m) / r2
    d1, d2 = (r2 * e1 - r1 * e2) / (r2 - r1), 2 * (e2 - e1) / (r2 - r1)
    return first_order(t) + scale * p2 * d1 - scale * p3 * d2
