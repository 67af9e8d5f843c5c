"""Tracing: a solver's loop runs once on coefficient vectors in place of images; the tape that it calls records them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from solverbench import registries
from solverbench.errors import LoopError, NotLinearError
from solverbench.method import suspects
from solverbench.method.grids import Grid
from solverbench.method.loops import Misuse, broken, kind, most_calls, run_on_images, sampled
from solverbench.method.solver import Solver
from solverbench.method.tableau import Tableau


def record(solver: Solver, grid: Grid) -> Tableau:
    """Return the tableau recorded by one run of the loop on coefficient vectors, not yet compared with the loop.

    Raises:
        GridError: the grid ends in 0, and the solver cannot step to 0.
        LoopError: see `sampled`; or a state is changed in place.
        NotLinearError: a state isn't a linear combination of the start and the earlier outputs.
    """
    if not isinstance(grid, Grid):
        raise broken(solver, f"{registries.origin(type(solver).grid)}: grid returned {kind(grid)}", "return a Grid")
    tape = Tape(most_calls(grid) + 1)
    try:
        sample = sampled(solver, tape, tape.unit(0), grid)
    except LoopError as error:
        run_on_images(solver, grid)  # what fails there as well has nothing to do with the tracing
        found = error.finding(solver.spec)
        raise NotLinearError(
            asked=solver.spec,
            wrong=f"its loop runs on images, but not on the coefficients that it is traced on: {found}",
            remedy="use no shapes, reductions or casts of x",
        ) from error
    if tape.changed:
        raise _changing(solver, grid)
    try:
        return tape.tableau(sample, grid)
    except ValueError as error:
        if "above the diagonal" not in str(error):
            raise
        raise _unfit(solver, grid) from error


class Tape:
    """The denoiser used for tracing: it records its inputs and returns unit vectors."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.rows: list[Tensor] = []
        self.versions: list[int] = []
        self.told: list[Tensor] = []
        self.levels: list[Tensor] = []

    def unit(self, index: int) -> Tensor:
        vector = torch.zeros(self.capacity, dtype=torch.float64)
        vector[index] = 1
        return vector

    def __call__(self, x: Tensor, sigma: Tensor, *, level: Tensor | None = None) -> Tensor:
        self.rows.append(x)
        self.versions.append(_version(x))
        self.told.append(_scalar(sigma))
        self.levels.append(_scalar(sigma if level is None else level))
        return self.unit(len(self.rows))

    @property
    def changed(self) -> bool:
        """Whether a recorded state was changed in place; the newest state may not have its version yet."""
        return any(_version(x) != version for x, version in zip(self.rows, self.versions, strict=False))

    def tableau(self, sample: Tensor, grid: Grid) -> Tableau:
        size = len(self.rows) + 1
        weights = torch.stack([*self.rows, sample])[:, :size]
        levels = torch.stack([*self.levels, _scalar(grid.sigmas[-1])])
        return Tableau(torch.stack(self.told), weights, levels, _scalar(grid.sigmas[0]))


def _version(x: Tensor) -> int:
    """Return how often `x` was changed in place; 0 for inference tensors, which torch does not count."""
    return 0 if x.is_inference() else x._version


def _scalar(value: Tensor | float) -> Tensor:
    return torch.as_tensor(value, dtype=torch.float64).reshape(())


def _changing(solver: Solver, grid: Grid) -> LoopError:
    """Return the error for a loop that changes a state in place; the loop is run again to find the line."""
    tape = Tape(most_calls(grid) + 1)
    try:
        with _Unchanged(tape):
            sampled(solver, tape, tape.unit(0), grid)
    except LoopError as error:
        return error
    where = registries.origin(type(solver).integrate)
    return broken(solver, f"{where}: x is changed in place after denoise was called with it", "make a new tensor")


class _Unchanged(TorchFunctionMode):
    """Raise at the operation that changes a state in place after it was passed to the tape."""

    def __init__(self, tape: Tape) -> None:
        super().__init__()
        self.tape = tape

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        found = func(*args, **(kwargs or {}))
        if self.tape.changed:
            raise Misuse(
                asked="x",
                wrong="is changed in place after denoise was called with it",
                remedy="make a new tensor, as in x = x + d in place of x += d",
            )
        return found


def _unfit(solver: Solver, grid: Grid) -> NotLinearError:
    """Return the error for a loop that combines more than the start and the earlier outputs."""

    def run() -> Tensor:
        tape = Tape(most_calls(grid) + 1)
        sample = sampled(solver, tape, tape.unit(0), grid)
        return torch.stack([*tape.rows, sample])

    shape = torch.Size([most_calls(grid) + 1])
    wrong, remedy = suspects.cause(solver, run, shape) or (
        f"{registries.origin(type(solver).integrate)}: adds to a state what is neither x nor an earlier output",
        "combine x and the outputs linearly, without constants",
    )
    return NotLinearError(asked=solver.spec, wrong=wrong, remedy=remedy)
