"""The one place that runs a solver: any tableau or plan, on any denoiser, images in their own dtype and device."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from solverbench.tableaux import Plan, Tableau


class Counter:
    """A denoiser that counts its calls.

    Args:
        denoise: (x [B, C, H, W], sigma 0-d float64 on the CPU) -> the data prediction, of x's shape.
    """

    def __init__(self, denoise: Callable[[Tensor, Tensor], Tensor]) -> None:
        self.denoise = denoise
        self.calls = 0

    def __call__(self, x: Tensor, sigma: Tensor) -> Tensor:
        self.calls += 1
        return self.denoise(x, sigma)


def execute(solver: Tableau | Plan, denoise: Callable[[Tensor, Tensor], Tensor], x: Tensor) -> Tensor:
    """Return the sample.

    Args:
        solver: a tableau, planned here with scale 1, so that x is the state at its start level; or a plan, so that
            x is what its scale says. A tableau that carries gradient is run unrounded and passes gradient on.
        denoise: (x, sigma) -> the data prediction, same shape; sigma is 0-d float64 on the CPU.
        x: [B, ...] floating point.

    Raises:
        ValueError: the denoiser returned another shape.
    """
    if isinstance(solver, Plan):
        return _run(solver, denoise, x)
    if torch.is_grad_enabled() and (solver.weights.requires_grad or solver.sigmas.requires_grad):
        return unrounded(solver, denoise, x)
    return _run(solver.plan(), denoise, x)


def _run(plan: Plan, denoise: Callable[[Tensor, Tensor], Tensor], x: Tensor) -> Tensor:
    history = [x]
    for sigma, row in zip(plan.sigmas, plan.rows[:-1], strict=True):
        state = _combine(row, history)
        history.append(_same_shape(denoise(state, torch.tensor(sigma, dtype=torch.float64)), x))
    return _combine(plan.rows[-1], history)


def _combine(row: Sequence[float], history: Sequence[Tensor]) -> Tensor:
    """sum_j row[j] history[j], one pass over the images per weight that isn't 0."""
    state = history[0] * row[0]
    for weight, past in zip(row[1:], history[1:], strict=True):
        if weight:
            state.add_(past, alpha=weight)
    return state


def unrounded(tableau: Tableau, denoise: Callable[[Tensor, Tensor], Tensor], x: Tensor) -> Tensor:
    """Return the sample from `x` at the start level by the exact weights, differentiable in the tableau."""
    weights = tableau.weights.to(device=x.device, dtype=x.dtype)  # all rows in one transfer
    history = [x]
    for k, sigma in enumerate(tableau.sigmas):
        history.append(_same_shape(denoise(_combined(weights[k], history), sigma), x))
    return _combined(weights[-1], history)


def _combined(row: Tensor, history: Sequence[Tensor]) -> Tensor:
    """The same sum out of place, differentiable in the row."""
    state: Tensor = torch.tensordot(row[: len(history)], torch.stack(list(history)), 1)
    return state


def _same_shape(d: Tensor, x: Tensor) -> Tensor:
    if d.shape != x.shape:
        raise ValueError(f"denoise returned {tuple(d.shape)} for a state {tuple(x.shape)}; return the state's shape")
    return d
