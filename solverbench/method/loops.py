"""Running a solver's own code with checks: its number of intervals, and its loop on a denoiser."""

from __future__ import annotations

import numbers
import operator
import re
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from solverbench import registries
from solverbench.errors import LoopError, UserError
from solverbench.method import suspects
from solverbench.method.grids import Grid
from solverbench.method.solver import Denoise, Solver
from solverbench.wording import Problem


def intervals(solver: Solver, nfe: int) -> int:
    """Return `solver.steps(nfe)`, checked.

    Raises:
        BudgetError: the solver cannot spend exactly `nfe` calls.
        LoopError: it raises another error, or returns no positive integer.
    """
    try:
        found = solver.steps(nfe)
    except UserError:
        raise
    except (Exception, SystemExit) as error:  # a plugin may raise anything
        raise raised(solver, error, "steps") from error
    try:
        count = operator.index(found)
    except TypeError:
        count = 0
    if count < 1:
        where = registries.origin(type(solver).steps)
        raise broken(solver, f"{where}: steps({nfe}) returned {found!r}", "return the number of grid intervals")
    return count


def sampled(solver: Solver, denoise: Denoise, x: Tensor, grid: Grid) -> Tensor:
    """Return `solver.sample(denoise, x, grid)`, checked.

    Raises:
        UserError: the solver's own.
        LoopError: it raises another error, returns a value unlike `x`, passes such a value to `denoise`, or makes more
            than 4 calls per step plus 7; the text names file and line.
    """
    try:
        found: Any = solver.sample(_Watched(denoise, x, most_calls(grid)), x, grid)
    except UserError:
        raise
    except Misuse as error:
        where = registries.place(error, type(solver).__module__) or registries.origin(type(solver).integrate)
        raise broken(solver, f"{where}: {error.asked} {error.wrong}", error.remedy) from error
    except (Exception, SystemExit) as error:  # a plugin may raise anything
        raise raised(solver, error, "integrate") from error
    if what := unlike(found, x):
        where = registries.origin(type(solver).integrate)
        raise broken(solver, f"{where}: integrate returned {what}", "return the final state")
    assert isinstance(found, Tensor)
    return found


def most_calls(grid: Grid) -> int:
    """Return the number of calls above which a loop counts as endless."""
    return 4 * grid.steps + 7


class Misuse(Problem):
    """An operation of a loop that no loop may do; the subject is its object."""


class _Watched:
    """A denoiser that checks its arguments against the first state and limits the number of calls."""

    def __init__(self, denoise: Denoise, like: Tensor, most: int) -> None:
        self.denoise, self.like, self.left = denoise, like, most

    def __call__(self, x: Tensor, sigma: Tensor, *, level: Tensor | None = None) -> Tensor:
        if self.left == 0:
            raise Misuse(
                asked="the loop", wrong="calls denoise more than 4 times a step and doesn't end", remedy=suspects.FIXED
            )
        self.left -= 1
        if what := unlike(x, self.like):
            raise Misuse(asked="denoise", wrong=f"gets {what} as x", remedy="pass it the state")
        for name, value in (("sigma", sigma), ("level", sigma if level is None else level)):
            if not (value.numel() == 1 if isinstance(value, Tensor) else isinstance(value, numbers.Real)):
                raise Misuse(
                    asked="denoise",
                    wrong=f"gets {kind(value)} as {name}",
                    remedy="pass it one level, such as grid.sigmas[n]",
                )
        return self.denoise(x, sigma, level=level)


def unlike(found: Any, x: Tensor) -> str:
    """Return a description of `found` if it is not a state like `x`; else an empty string."""
    if isinstance(found, Tensor) and found.shape == x.shape:
        return ""
    return f"{kind(found)} for a state {tuple(x.shape)}" if isinstance(found, Tensor) else kind(found)


def kind(thing: Any) -> str:
    """Return a description of an object of the wrong type or shape."""
    if isinstance(thing, Tensor):
        return f"a tensor {tuple(thing.shape)}"
    return "None" if thing is None else f"an object of type {type(thing).__name__}"


def broken(solver: Solver, found: str, remedy: str) -> LoopError:
    """Return the error for a solver whose own code does what no solver may."""
    return LoopError(asked=solver.spec, wrong=found, remedy=remedy)


def raised(solver: Solver, error: BaseException, method: str) -> LoopError:
    """Return the error for a solver method that raised `error`."""
    said = registries.why(error, type(solver).__module__)
    if not registries.place(error, type(solver).__module__):
        said = f"{registries.origin(getattr(type(solver), method))}: {said}"
    number = isinstance(error, (AttributeError, TypeError)) and re.search(r"'float' object|not float", str(error))
    remedy = "keep levels and coefficients as 0-d tensors, without .item() or float()" if number else "fix it there"
    return broken(solver, said, remedy)


def run_on_images(solver: Solver, grid: Grid) -> None:
    """Run the loop on a few random images.

    Raises:
        LoopError: see `sampled`.
    """
    generator = torch.Generator().manual_seed(0)
    network = random_network(generator)
    x = torch.randn(8, 2, 2, 2, dtype=torch.float64, generator=generator)
    with torch.no_grad():
        sampled(solver, plain(network), x, grid)


def random_network(generator: torch.Generator) -> Callable[[Tensor, Tensor], Tensor]:
    """Return a nonlinear denoiser of images with 8 values, with random weights."""
    matrix = torch.randn(8, 8, dtype=torch.float64, generator=generator)

    def network(x: Tensor, sigma: Tensor) -> Tensor:
        inside = (x / (1 + sigma**2).sqrt()).flatten(1) @ matrix
        return (1.5 * torch.tanh(inside)).reshape(x.shape)

    return network


def plain(network: Callable[..., Tensor]) -> Denoise:
    """Return a network as the denoiser of a loop."""

    def denoise(x: Tensor, sigma: Tensor, *, level: Tensor | None = None) -> Tensor:
        return network(x, sigma)

    return denoise
