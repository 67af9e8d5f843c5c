"""The one place that runs a solver: any tableau or plan, on any denoiser, images in their own dtype and device."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from solverbench.prefixes import Call, End, Tree
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


def walk(
    tree: Tree, denoise: Callable[[Call, Tensor, Tensor], Tensor], x: Tensor, wanted: Callable[[End], bool]
) -> Iterator[tuple[End, Tensor | Exception]]:
    """Yield each wanted sample of `tree`, depth first, or the error of a call that it needs; the same bits as alone.

    At most N+1 states of the longest plan are held at once.

    Args:
        denoise: (call, x, sigma) -> the data prediction.
        x: [B, ...] unit noise, the plans' scale being in them.
        wanted: asked again and again: what isn't any more is left out from there on.

    Raises:
        torch.OutOfMemoryError: a call doesn't fit.
    """

    def follow(
        calls: Sequence[Call], ends: Sequence[End], history: Sequence[Tensor]
    ) -> Iterator[tuple[End, Tensor | Exception]]:
        for end in filter(wanted, ends):
            yield end, _combine(end.row, history)
        for call in calls:
            if not any(map(wanted, call.below)):
                continue
            try:
                d = denoise(call, _combine(call.row, history), torch.tensor(call.sigma, dtype=torch.float64))
                after = [*history, _same_shape(d, x)]
            except torch.OutOfMemoryError:
                raise
            except Exception as error:  # whatever a network raises
                yield from ((end, error) for end in filter(wanted, list(call.below)))
            else:
                yield from follow(call.calls, call.ends, after)

    yield from follow(tree.calls, [], [x])


def _combine(row: Sequence[float], history: Sequence[Tensor]) -> Tensor:
    """sum_j row[j] history[j], one pass over the images per weight that isn't 0."""
    state = history[0] * row[0]
    for weight, past in zip(row[1:], history[1:], strict=True):
        if weight:
            state.add_(past, alpha=weight)
    return state


def unrounded(
    tableau: Tableau, denoise: Callable[[Tensor, Tensor], Tensor], x: Tensor, *, first: Tensor | None = None
) -> Tensor:
    """Return the sample from `x` at the start level by the exact weights, differentiable in the tableau and in `x`.

    Args:
        first: the output of the first call, if it is known already; it isn't made again.
    """
    weights = tableau.weights.to(device=x.device, dtype=x.dtype)  # all rows in one transfer
    history = [x] if first is None else [x, first]
    for k in range(len(history) - 1, tableau.nfe):
        history.append(_same_shape(denoise(_combined(weights[k], history), tableau.sigmas[k]), x))
    return _combined(weights[-1], history)


def recomputed(
    tableau: Tableau, denoise: Callable[[Tensor, Tensor], Tensor], x: Tensor, *, first: Tensor | None = None
) -> Tensor:
    """Return what `unrounded` does, holding the graph of one call at a time: each is made again on the way back.

    Memory grows with the number of calls by one image each, not by what a call keeps for its gradient.
    """
    inputs = tableau.weights, tableau.sigmas, x, denoise, first
    sample: Tensor = _Recomputed.apply(*inputs)  # type: ignore[no-untyped-call]
    return sample


class _Recomputed(torch.autograd.Function):
    """The trajectory as one function, whose gradient runs through it backwards, call by call."""

    @staticmethod
    def forward(
        ctx: Any,
        weights: Tensor,
        sigmas: Tensor,
        x: Tensor,
        denoise: Callable[[Tensor, Tensor], Tensor],
        first: Tensor | None,
    ) -> Tensor:
        rows = weights.to(device=x.device, dtype=x.dtype)
        history = [x] if first is None else [x, first]
        ctx.known = len(history) - 1
        for k in range(ctx.known, len(sigmas)):
            history.append(_same_shape(denoise(_combined(rows[k], history), sigmas[k]), x))
        ctx.denoise = denoise
        ctx.save_for_backward(weights, sigmas, *history)
        return _combined(rows[-1], history)

    @staticmethod
    def backward(ctx: Any, *slopes: Tensor) -> tuple[Tensor, Tensor, Tensor | None, None, None]:
        weights, sigmas, *history = ctx.saved_tensors
        rows = weights.to(device=history[0].device, dtype=history[0].dtype)
        to_weights, to_sigmas = torch.zeros_like(weights), torch.zeros_like(sigmas)
        to_history = [torch.zeros_like(history[0]) for _ in history]

        def through(row: int, slope: Tensor) -> None:
            """A row's gradient goes to its weights and to what it combined."""
            combined = history[: row + 1]
            to_weights[row, : len(combined)] = torch.stack([(slope * past).sum() for past in combined]).to(to_weights)
            for j in range(len(combined)):
                to_history[j] += rows[row, j] * slope

        through(len(sigmas), slopes[0])
        for k in reversed(range(ctx.known, len(sigmas))):
            with torch.enable_grad():
                state = _combined(rows[k], history[: k + 1]).detach().requires_grad_(True)
                sigma = sigmas[k].detach().requires_grad_(True)
                d = ctx.denoise(state, sigma)
            slope, to_sigma = torch.autograd.grad(d, (state, sigma), to_history[k + 1], allow_unused=True)
            if slope is not None:
                through(k, slope)
            if to_sigma is not None:
                to_sigmas[k] = to_sigma
        return to_weights, to_sigmas, to_history[0] if ctx.needs_input_grad[2] else None, None, None


def _combined(row: Tensor, history: Sequence[Tensor]) -> Tensor:
    """The same sum out of place, differentiable in the row."""
    state: Tensor = torch.tensordot(row[: len(history)], torch.stack(list(history)), 1)
    return state


def _same_shape(d: Tensor, x: Tensor) -> Tensor:
    if d.shape != x.shape:
        raise ValueError(f"denoise returned {tuple(d.shape)} for a state {tuple(x.shape)}; return the state's shape")
    return d
