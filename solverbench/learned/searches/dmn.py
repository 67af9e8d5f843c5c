"""DMN: the levels with the least bound on the error that the network's own errors cause in the sample.

Source: Xue et al. 2024, arXiv:2402.17376, section 3, and its public code. In the EDM frame the sample is a share of the
start and sum_k sum_n J[k, n] m_n, with m_n the data predictions and J[k, n] what step k contributes. With the modelled
error eps_n of m_n the bound is

    sum_n |J[k, n]| eps_n              for the first and the last step
    + (sum_n (J[k, n] eps_n)^2)^(1/2)  for the second and for the third step
    + sum_n |sum_k J[k, n]| eps_n      over the other steps k

as errors may cancel between later steps only. eps_n = sigma_n on pixels, and on latents the model's own sigma^2/alpha,
which is sigma_n^2 alpha_n. The least bound near the start is taken: uniform in log sigma on pixels, in time on latents.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from solverbench.method.exponential import adams
from solverbench.method.grids import Grid
from solverbench.method.schedules import NoiseSchedule

CLOSEST = 1e-3
"""Smallest distance of two levels in log sigma."""

ITERATIONS = 300
"""Largest number of iterations of SciPy's trust-constr, the public code's method, which stays near its start."""


def levels(
    schedule: NoiseSchedule, steps: int, contributions: Callable[[Grid], Tensor] | None = None, *, latent: bool = False
) -> Tensor:
    """Return the levels [M+1] float64 of the least bound.

    Args:
        schedule: its finite first level and its last one are the ends.
        steps: number of intervals.
        contributions: grid -> J [M, M]; `polynomial` if None.
        latent: whether states are latents.
    """
    ends = torch.tensor([schedule.sigma_first, schedule.sigma_min], dtype=torch.float64).log()
    if steps == 1:
        return ends.exp()
    made = contributions or (lambda grid: polynomial(grid.sigmas))

    def placed(inner: Tensor) -> Tensor:
        return torch.cat([ends[:1], inner, ends[1:]]).exp()

    def value(inner: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        given = torch.tensor(inner, requires_grad=True)
        with torch.enable_grad():
            sigmas = placed(given)
            found = bound(made(Grid(sigmas, schedule)), errors(schedule, sigmas[:-1], latent=latent))
            (slope,) = torch.autograd.grad(found, given)
        return found.item(), slope.numpy()

    start = _start(schedule, steps, ends, latent=latent)
    gaps = -np.diff(np.eye(steps + 1), axis=0)  # of falling logs
    from scipy.optimize import LinearConstraint, minimize  # a finished run needs no scipy

    apart = LinearConstraint(gaps[:, 1:-1], CLOSEST - gaps[:, [0, -1]] @ ends.numpy(), np.inf, keep_feasible=True)
    options = {"maxiter": ITERATIONS}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # where the bound's slope doesn't change, its approximate curvature stays
        found = minimize(
            value, start[1:-1].numpy(), jac=True, method="trust-constr", constraints=[apart], options=options
        )
    return placed(torch.from_numpy(found.x))


def errors(schedule: NoiseSchedule, sigmas: Tensor, *, latent: bool) -> Tensor:
    """Return eps_n of calls at these levels [M]."""
    return sigmas**2 * schedule.alpha(schedule.time(sigmas)) if latent else sigmas


def bound(contributions: Tensor, errors: Tensor) -> Tensor:
    """Return the bound.

    Args:
        contributions: J [M, M], by step and prediction.
        errors: eps [M].
    """
    terms, steps = contributions * errors, len(errors)
    alone = {0, steps - 1}
    square = {1, 2} & set(range(steps)) - alone
    joint = [k for k in range(steps) if k not in alone | square]
    found = terms[sorted(alone)].abs().sum() + sum((_norm(terms[k]) for k in square), terms.new_zeros(()))
    return found + terms[joint].sum(0).abs().sum()


def polynomial(sigmas: Tensor) -> Tensor:
    """Return J [M, M] of an exponential Adams method on these levels.

    A step interpolates up to three predictions in lambda: one in the first and the last step, two in the second and
    the second to last.
    """
    lam, steps = -sigmas.log(), len(sigmas) - 1
    rows = []
    for k in range(steps):
        nodes = [k - i for i in range(min(k + 1, steps - k, 3))]
        weights = adams(lam, [lam[node] for node in nodes], k)
        row = [lam.new_zeros(())] * steps
        for node, weight in zip(nodes, weights, strict=True):
            row[node] = weight * (lam[k + 1] - lam[-1]).exp()
        rows.append(torch.stack(row))
    return torch.stack(rows)


def of_tableau(weights: Tensor, sigmas: Tensor) -> Tensor:
    """Return J [M, M] of a solver with one call per interval.

    Args:
        weights: [M+1, M+1], its tableau's.
        sigmas: [M+1], the levels of its states.
    """
    kept = sigmas[1:] / sigmas[:-1]
    own = weights[1:, 1:] - kept[:, None] * weights[:-1, 1:]
    return own * (sigmas[-1] / sigmas[1:])[:, None]


def _norm(terms: Tensor) -> Tensor:
    return (terms.square().sum() + 1e-300).sqrt()


def _start(schedule: NoiseSchedule, steps: int, ends: Tensor, *, latent: bool) -> Tensor:
    """Return the logs of the first levels: uniform in log sigma, or in time."""
    shares = torch.linspace(0, 1, steps + 1, dtype=torch.float64)
    if not latent:
        return ends[0] + shares * (ends[1] - ends[0])
    times = schedule.time(ends.exp())
    return schedule.sigma(times[0] + shares * (times[1] - times[0])).log()
