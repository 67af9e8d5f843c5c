"""The executor of every solver: any tableau or plan, any denoiser, images in their own dtype and on their device."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from solverbench.method.prefixes import Call, End, Tree
from solverbench.method.tableau import Plan, Tableau


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
        solver: a tableau, planned here with scale 1, so that x is the state at its start level; or a plan, whose
            scale defines x. A tableau that carries gradient is run unrounded and passes gradient on.
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
    return _trajectory(_history(x, plan.rows), _levels(plan.sigmas), denoise)


def _trajectory(past: _History, levels: Sequence[Tensor], denoise: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    for k, level in enumerate(levels):
        past.keep(k, denoise(past.combined(k), level))
    return past.combined(len(levels))


def walk(
    tree: Tree, denoise: Callable[[Call, Tensor, Tensor], Tensor], x: Tensor, wanted: Callable[[End], bool]
) -> Iterator[tuple[End, Tensor | Exception]]:
    """Yield each wanted sample of `tree`, depth first, or the error of a call that it needs.

    A sample has the same bits as when its plan runs alone. At most N+1 states of the longest plan are held at once.

    Args:
        denoise: (call, x, sigma) -> the data prediction.
        x: [B, ...] unit noise; the plans include the scale.
        wanted: polled between calls; an end that is no longer wanted is skipped.

    Raises:
        torch.OutOfMemoryError: a call does not fit in memory.
    """
    ends = tree.ends
    calls = list(dict.fromkeys(call for end in ends for call in end.path))
    nodes: list[Call | End] = [*calls, *ends]
    place = {node: number for number, node in enumerate(nodes)}
    past = _history(x, [node.row for node in nodes])
    levels = _levels([call.sigma for call in calls])

    pending = [(call, 0) for call in reversed(tree.calls)]
    while pending:
        call, depth = pending.pop()
        if not any(map(wanted, call.below)):
            continue
        try:
            past.keep(depth, denoise(call, past.combined(place[call]), levels[place[call]]))
        except torch.OutOfMemoryError:
            raise
        except Exception as error:  # a network may raise anything
            yield from ((end, error) for end in filter(wanted, list(call.below)))
        else:
            for end in filter(wanted, call.ends):
                yield end, past.combined(place[end])
            pending += [(each, depth + 1) for each in reversed(call.calls)]


class Captured:
    """A whole trajectory recorded as one CUDA graph, replayed for every batch of the same shape.

    Its kernels are launched without Python in between. The recording is bound to this `denoise`: its condition is
    fixed, its calls are counted once, and it may neither wait for the device nor copy from the host.

    Args:
        plan: the plan to execute.
        denoise: (x, sigma) -> the data prediction; sigma is 0-d float64, here on x's device.
        x: [B, ...] on a CUDA device; any values.

    Raises:
        ValueError: x is on another device, or the denoiser returned another shape.
    """

    WARM = 3
    """Number of warm-up runs before the recording, in which libraries choose their kernels."""

    @torch.no_grad()
    def __init__(self, plan: Plan, denoise: Callable[[Tensor, Tensor], Tensor], x: Tensor) -> None:
        if x.device.type != "cuda":
            raise ValueError(f"Captured: x is on {x.device}, but CUDA graphs need CUDA; use execute there")
        self._past = _Buffer(x, plan.rows)
        levels = torch.tensor(plan.sigmas, dtype=torch.float64, device=x.device).unbind()
        aside = torch.cuda.Stream(x.device)  # type: ignore[no-untyped-call]
        aside.wait_stream(torch.cuda.current_stream(x.device))
        with torch.cuda.stream(aside):
            for _ in range(self.WARM):
                _trajectory(self._past, levels, denoise)
        torch.cuda.current_stream(x.device).wait_stream(aside)
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph):
            self._sample = _trajectory(self._past, levels, denoise)

    def __call__(self, x: Tensor) -> Tensor:
        """Return the sample in a new tensor.

        Args:
            x: a tensor of the recorded shape, dtype and device.

        Raises:
            ValueError: x has another shape, dtype or device.
        """
        self._past.begin(x)
        self._graph.replay()
        return self._sample.clone()


class _Chain:
    """History as a list: x, then the outputs in call order, combined term by term. Fastest on a CPU (measured)."""

    def __init__(self, x: Tensor, rows: Sequence[Sequence[float]]) -> None:
        self.rows, self.past = rows, [x]

    def keep(self, k: int, d: Tensor) -> None:
        """Store the output of call k; drop all later ones, which belong to another plan."""
        self.past[k + 1 :] = [_same_shape(d, self.past[0])]

    def combined(self, number: int) -> Tensor:
        """Return sum_j row[j] past[j]; one pass over the images per nonzero weight."""
        row = self.rows[number]
        del self.past[len(row) :]  # outputs of another plan
        state = self.past[0] * row[0]
        for weight, past in zip(row[1:], self.past[1:], strict=True):
            if weight:
                state.add_(past, alpha=weight)
        return state


class _Buffer:
    """History as one matrix with rows x and the outputs, combined by one product: two kernels per call.

    The weights are copied to the device once, before the first call, so that no call waits for a copy.
    """

    def __init__(self, x: Tensor, rows: Sequence[Sequence[float]]) -> None:
        self.shape, self.lengths = x.shape, [len(row) for row in rows]
        width = max(self.lengths)
        # Each row starts at a multiple of 16 bytes, so that kernel selection does not depend on the row's address.
        padded = [[*row, *[0.0] * (width + -width % 8 - len(row))] for row in rows]
        self.weights = torch.tensor(padded, dtype=torch.float64).to(x.device, x.dtype, non_blocking=True)
        self.states = x.new_empty(width, x.numel())
        self.begin(x)

    def begin(self, x: Tensor) -> None:
        """Restart from x."""
        known = self.shape, self.states.dtype, self.states.device
        if (x.shape, x.dtype, x.device) != known:
            given = f"{tuple(x.shape)}, {x.dtype} on {x.device}"
            raise ValueError(f"x is {given}; give {tuple(self.shape)}, {known[1]} on {known[2]}")
        self.states[0].view(self.shape).copy_(x)

    def keep(self, k: int, d: Tensor) -> None:
        """Store the output of call k."""
        self.states[k + 1].view(self.shape).copy_(_same_shape(d, self.states[0].view(self.shape)))

    def combined(self, number: int) -> Tensor:
        """Return sum_j row[j] past[j]."""
        length = self.lengths[number]
        return torch.mv(self.states[:length].t(), self.weights[number, :length]).view(self.shape)


_History = _Chain | _Buffer


def _history(x: Tensor, rows: Sequence[Sequence[float]]) -> _History:
    return _Chain(x, rows) if x.device.type == "cpu" else _Buffer(x, rows)


def _levels(sigmas: Sequence[float]) -> tuple[Tensor, ...]:
    """Return each level as a 0-d tensor, all created at once."""
    return torch.tensor(sigmas, dtype=torch.float64).unbind()


def unrounded(
    tableau: Tableau, denoise: Callable[[Tensor, Tensor], Tensor], x: Tensor, *, first: Tensor | None = None
) -> Tensor:
    """Return the sample from `x` at the start level by the exact weights, differentiable in the tableau and in `x`.

    Args:
        first: the output of the first call if it is already known; that call is then skipped.
    """
    weights = tableau.weights.to(device=x.device, dtype=x.dtype)  # all rows in one transfer
    history = [x] if first is None else [x, first]
    for k in range(len(history) - 1, tableau.nfe):
        history.append(_same_shape(denoise(_combined(weights[k], history), tableau.sigmas[k]), x))
    return _combined(weights[-1], history)


def recomputed(
    tableau: Tableau, denoise: Callable[[Tensor, Tensor], Tensor], x: Tensor, *, first: Tensor | None = None
) -> Tensor:
    """Return the sample of `unrounded`, but recompute each call in the backward pass: one call's graph at a time.

    Memory grows by one batch of images per call, not by the activations that a call keeps for its gradient.
    """
    inputs = tableau.weights, tableau.sigmas, x, denoise, first
    sample: Tensor = _Recomputed.apply(*inputs)  # type: ignore[no-untyped-call]
    return sample


class _Recomputed(torch.autograd.Function):
    """The trajectory as one autograd function; its backward pass runs call by call, last call first."""

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
            """Propagate a row's gradient to its weights and to the states and outputs that it combined."""
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
    """Return sum_j row[j] history[j] out of place, differentiable in the row."""
    state: Tensor = torch.tensordot(row[: len(history)], torch.stack(list(history)), 1)
    return state


def _same_shape(d: Tensor, x: Tensor) -> Tensor:
    if not isinstance(d, Tensor):  # a user's network may return anything
        told = "None" if d is None else f"an object of type {type(d).__name__}"
        raise ValueError(f"denoise returned {told} for a state {tuple(x.shape)}; return the data prediction")
    if d.shape != x.shape:
        raise ValueError(f"denoise returned {tuple(d.shape)} for a state {tuple(x.shape)}; return the state's shape")
    return d
