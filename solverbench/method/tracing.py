"""Tracing: run a solver's loop once on coefficient vectors instead of images to get its tableau."""

from __future__ import annotations

import math
import numbers
import operator
import re
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from solverbench import registries
from solverbench.errors import BudgetError, LoopError, NeedsTrainingError, NotLinearError, UserError
from solverbench.method.execution import unrounded
from solverbench.method.grids import Grid, explicit
from solverbench.method.schedules import EDM, NoiseSchedule
from solverbench.method.solver import Denoise, LearnedSolver, Solver
from solverbench.method.tableau import Tableau
from solverbench.wording import Problem


def tableau(
    solver: Solver,
    *,
    nfe: int | None = None,
    schedule: NoiseSchedule | None = None,
    grid: Sequence[float] | None = None,
) -> Tableau:
    """Return the tableau of a solver on a schedule, or on explicit levels.

    Args:
        nfe: number of calls; optional with `grid`, which determines it.
        schedule: the noise schedule; EDM() if not given.
        grid: M+1 noise levels that replace the solver's own grid.

    Raises:
        BudgetError: the solver cannot spend exactly `nfe` calls.
        NeedsTrainingError: the solver is learned and has no parameters.
        GridError, LoopError, NotLinearError: see `trace`.
    """
    schedule = schedule or EDM()
    if grid is not None:
        return spends(trace(solver, explicit(grid, schedule)), solver, nfe)
    if nfe is None:
        raise BudgetError(asked=solver.spec, wrong="neither nfe nor grid is given", remedy="give one, as in nfe=6")
    if isinstance(solver, LearnedSolver) and solver.parameters is None:
        raise NeedsTrainingError(
            f"{solver.name} nfe={nfe}: its parameters belong to a teacher; give the argument teacher"
        )
    return spends(trace(solver, solver.grid(schedule, intervals(solver, nfe))), solver, nfe)


def spends(found: Tableau, solver: Solver, nfe: int | None) -> Tableau:
    """Return the tableau if it makes `nfe` calls.

    Raises:
        BudgetError: it makes another number of calls.
    """
    if nfe not in (None, found.nfe):
        raise BudgetError(
            asked=f"{solver.spec} with nfe={nfe}",
            wrong=f"its loop makes {found.nfe} calls",
            remedy=f"ask for nfe={found.nfe}",
            near=[found.nfe],
        )
    return found


def trace(solver: Solver, grid: Grid, *, check: bool = True) -> Tableau:
    """Return the tableau of `solver` on `grid`, by running its loop on coefficient vectors.

    Args:
        check: whether to compare loop and tableau on random nonlinear networks; if not, the result may carry gradient.

    Raises:
        GridError: the grid ends in 0, and the solver cannot step to 0.
        LoopError: see `sampled`; or a state is changed in place.
        NotLinearError: the loop is not a fixed linear combination of x and the outputs.
    """
    if not isinstance(grid, Grid):
        raise _broken(solver, f"{registries.origin(type(solver).grid)}: grid returned {_told(grid)}", "return a Grid")
    tape = _Tape(_most(grid) + 1)
    try:
        sample = sampled(solver, tape, tape.unit(0), grid)
    except LoopError as error:
        _run_on_images(solver, grid)  # what fails there as well has nothing to do with the tracing
        found = error.finding(solver.spec)
        raise NotLinearError(
            asked=solver.spec,
            wrong=f"its loop runs on images, but not on the coefficients that it is traced on: {found}",
            remedy="use no shapes, reductions or casts of x",
        ) from error
    if tape.changed:
        raise _changing(solver, grid)
    tableau = tape.tableau(sample, grid)
    if check:
        check_linear(solver, grid, tableau)
    return tableau


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
        raise _raised(solver, error, "steps") from error
    try:
        count = operator.index(found)
    except TypeError:
        count = 0
    if count < 1:
        where = registries.origin(type(solver).steps)
        raise _broken(solver, f"{where}: steps({nfe}) returned {found!r}", "return the number of grid intervals")
    return count


def sampled(solver: Solver, denoise: Denoise, x: Tensor, grid: Grid) -> Tensor:
    """Return `solver.sample(denoise, x, grid)`, checked.

    Raises:
        UserError: the solver's own.
        LoopError: it raises another error, returns a value unlike `x`, passes such a value to `denoise`, or makes more
            than 4 calls per step plus 7; the text names file and line.
    """
    try:
        found: Any = solver.sample(_Watched(denoise, x, _most(grid)), x, grid)
    except UserError:
        raise
    except _Misuse as error:
        where = registries.place(error, type(solver).__module__) or registries.origin(type(solver).integrate)
        raise _broken(solver, f"{where}: {error.wrong}", error.remedy) from error
    except (Exception, SystemExit) as error:  # a plugin may raise anything
        raise _raised(solver, error, "integrate") from error
    if what := _unlike(found, x):
        where = registries.origin(type(solver).integrate)
        raise _broken(solver, f"{where}: integrate returned {what}", "return the final state")
    assert isinstance(found, Tensor)
    return found


def _most(grid: Grid) -> int:
    """Return the number of calls above which a loop counts as endless."""
    return 4 * grid.steps + 7


class _Misuse(Problem):
    """What a loop does that none may."""


class _Watched:
    """A denoiser that checks its arguments against the first state and limits the number of calls."""

    def __init__(self, denoise: Denoise, like: Tensor, most: int) -> None:
        self.denoise, self.like, self.left = denoise, like, most

    def __call__(self, x: Tensor, sigma: Tensor, *, level: Tensor | None = None) -> Tensor:
        if self.left == 0:
            wrong = "the loop calls denoise more than 4 times a step and doesn't end"
            raise _Misuse(wrong, remedy="end it at grid.steps")
        self.left -= 1
        if what := _unlike(x, self.like):
            raise _Misuse(f"denoise gets {what} as x", remedy="pass it the state")
        for name, value in (("sigma", sigma), ("level", sigma if level is None else level)):
            if not (value.numel() == 1 if isinstance(value, Tensor) else isinstance(value, numbers.Real)):
                wrong = f"denoise gets {_told(value)} as {name}"
                raise _Misuse(wrong, remedy="pass it one level, such as grid.sigmas[n]")
        return self.denoise(x, sigma, level=level)


def _unlike(found: Any, x: Tensor) -> str:
    """Return a description of `found` if it is not a state like `x`; else an empty string."""
    if isinstance(found, Tensor) and found.shape == x.shape:
        return ""
    return f"{_told(found)} for a state {tuple(x.shape)}" if isinstance(found, Tensor) else _told(found)


def _told(thing: Any) -> str:
    if isinstance(thing, Tensor):
        return f"a tensor {tuple(thing.shape)}"
    return "None" if thing is None else f"an object of type {type(thing).__name__}"


def _broken(solver: Solver, found: str, remedy: str) -> LoopError:
    return LoopError(asked=solver.spec, wrong=found, remedy=remedy)


def _raised(solver: Solver, error: BaseException, method: str) -> LoopError:
    """Return the error for a solver method that raised `error`."""
    said = registries.why(error, type(solver).__module__)
    if not registries.place(error, type(solver).__module__):
        said = f"{registries.origin(getattr(type(solver), method))}: {said}"
    number = isinstance(error, (AttributeError, TypeError)) and re.search(r"'float' object|not float", str(error))
    remedy = "keep levels and coefficients as 0-d tensors, without .item() or float()" if number else "fix it there"
    return _broken(solver, said, remedy)


def _run_on_images(solver: Solver, grid: Grid) -> None:
    """Run the loop on a few random images.

    Raises:
        LoopError: see `sampled`.
    """
    generator = torch.Generator().manual_seed(0)
    network = _random_network(generator)
    x = torch.randn(8, 2, 2, 2, dtype=torch.float64, generator=generator)

    def denoise(x: Tensor, sigma: Tensor, *, level: Tensor | None = None) -> Tensor:
        return network(x, sigma)

    with torch.no_grad():
        sampled(solver, denoise, x, grid)


def _changing(solver: Solver, grid: Grid) -> LoopError:
    """Return the error for a loop that changes a state in place; the loop is run again to find the line."""
    tape = _Tape(_most(grid) + 1)
    try:
        with _Unchanged(tape):
            sampled(solver, tape, tape.unit(0), grid)
    except LoopError as error:
        return error
    where = registries.origin(type(solver).integrate)
    return _broken(solver, f"{where}: x is changed in place after denoise was called with it", "make a new tensor")


class _Unchanged(TorchFunctionMode):
    """Raise at the operation that changes a state in place after it was passed to the tape."""

    def __init__(self, tape: _Tape) -> None:
        super().__init__()
        self.tape = tape

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        found = func(*args, **(kwargs or {}))
        if self.tape.changed:
            raise _Misuse(
                "x is changed in place after denoise was called with it",
                remedy="make a new tensor, as in x = x + d in place of x += d",
            )
        return found


class _Tape:
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


ROUNDINGS = 512
"""Allowed difference of a sample between loop and tableau, in rounding errors of its start."""


_checked: set[tuple[type[Solver], str, tuple[float, ...]]] = set()


def check_linear(solver: Solver, grid: Grid, tableau: Tableau) -> None:
    """Compare loop and tableau on two random networks and two start scales; remember which passed.

    Raises:
        LoopError: see `sampled`.
        NotLinearError: they differ.
    """
    seen = type(solver), solver.spec, tuple(grid.sigmas.tolist())
    if seen in _checked and not solver.learned:
        return
    generator = torch.Generator().manual_seed(0)
    for scale in (1.0, 0.1):
        network = _random_network(generator)
        x = torch.randn(3, 2, 2, 2, dtype=torch.float64, generator=generator) * scale * float(tableau.start)
        calls = 0

        def denoise(
            x: Tensor, sigma: Tensor, *, level: Tensor | None = None, network: Callable[..., Tensor] = network
        ) -> Tensor:
            nonlocal calls
            calls += 1
            return network(x, sigma)

        with torch.no_grad():
            by_loop = sampled(solver, denoise, x, grid)
            by_tableau = unrounded(tableau, network, x)
        size, gap = float(by_loop.abs().max()), float((by_loop - by_tableau).abs().max())
        # From a high start level, the rounding error of x, which nearly cancels, exceeds that of the sample.
        error, rounding = gap / size, ROUNDINGS * torch.finfo(x.dtype).eps * float(x.abs().max()) / size
        if calls != tableau.nfe or not math.isfinite(error) or error > 1e-10 + rounding:
            raise NotLinearError(
                asked=solver.spec,
                wrong=f"loop and tableau differ on a random network (relative {error:.1e}, {calls} and "
                f"{tableau.nfe} calls)",
                remedy="combine x and the outputs linearly, without branches on their values",
            )
    _checked.add(seen)


def _random_network(generator: torch.Generator) -> Callable[[Tensor, Tensor], Tensor]:
    matrix = torch.randn(8, 8, dtype=torch.float64, generator=generator)

    def network(x: Tensor, sigma: Tensor) -> Tensor:
        inside = (x / (1 + sigma**2).sqrt()).flatten(1) @ matrix
        return (1.5 * torch.tanh(inside)).reshape(x.shape)

    return network
