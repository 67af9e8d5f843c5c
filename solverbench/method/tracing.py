"""Tracing: run a solver's loop once on coefficient vectors instead of images to get its tableau."""

from __future__ import annotations

import math
import numbers
import operator
import re
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from solverbench import registries
from solverbench.errors import (
    BudgetError,
    GridError,
    LoopError,
    NeedsTrainingError,
    NotLinearError,
    UserError,
)
from solverbench.method import suspects
from solverbench.method.execution import unrounded
from solverbench.method.grids import Grid, check_ends, explicit
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
        SpecError: an option does not act on these levels.
        GridError, LoopError, NotLinearError: see `trace`.
    """
    if grid is not None:
        found = explicit(grid, schedule or EDM())
        if schedule is not None:
            check_ends(found, solver.name)
        return spends(trace(solver.at(found.sigmas.tolist()), found), solver, nfe)
    schedule = schedule or EDM()
    if nfe is None:
        raise BudgetError(asked=solver.spec, wrong="neither nfe nor grid is given", remedy="give one, as in nfe=6")
    if isinstance(solver, LearnedSolver) and solver.parameters is None:
        wrong, remedy = "its parameters belong to a teacher", "give the argument teacher"
        raise NeedsTrainingError(asked=f"{solver.name} nfe={nfe}", wrong=wrong, remedy=remedy)
    solver = solver.on(schedule)
    return claimed(trace(solver, own_grid(solver, schedule, nfe)), solver, schedule, nfe)


def own_grid(solver: Solver, schedule: NoiseSchedule, nfe: int) -> Grid:
    """Return the solver's grid for `nfe` calls.

    Raises:
        BudgetError: the solver cannot spend exactly `nfe` calls.
        LoopError: it is a plugin's, and makes other levels than its spec says.
    """
    steps = intervals(solver, nfe)
    grid = solver.grid(schedule, steps)
    if isinstance(grid, Grid) and (wrong := suspects.other_levels(solver, grid, steps)):
        raise LoopError(asked=solver.spec, wrong=wrong, remedy=suspects.LEVELS_REMEDY)
    return grid


def spends(found: Tableau, solver: Solver, nfe: int | None) -> Tableau:
    """Return the tableau on explicit levels if it makes `nfe` calls, or `nfe` is None.

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


def claimed(found: Tableau, solver: Solver, schedule: NoiseSchedule, nfe: int) -> Tableau:
    """Return the tableau on the solver's own grid for `nfe` calls if it makes as many.

    Raises:
        BudgetError: it makes another number, so that its `steps` and its loop don't fit each other.
    """
    if nfe != found.nfe:
        wrong, remedy = miscounted(solver, schedule, nfe, found.nfe)
        raise BudgetError(asked=f"{solver.spec} with nfe={nfe}", wrong=wrong, remedy=remedy)
    return found


def miscounted(solver: Solver, schedule: NoiseSchedule, nfe: int, made: int) -> tuple[str, str]:
    """Return what is wrong with a solver that claims `nfe` calls and makes `made`, and what to do."""

    def count(grid: Grid) -> int:
        tape = _Tape(_most(grid) + 1)
        sampled(solver, tape, tape.unit(0), grid)
        return len(tape.rows)

    wrong = f"claims nfe={nfe} with steps({nfe}) = {intervals(solver, nfe)}, but its loop makes {made} calls"
    return wrong, suspects.calls_advice(solver, schedule, nfe, made, count)


def trace(solver: Solver, grid: Grid, *, check: bool = True) -> Tableau:
    """Return the tableau of `solver` on `grid`, by running its loop on coefficient vectors.

    Args:
        check: whether to compare loop and tableau on random nonlinear networks; if not, the result may carry gradient.

    Raises:
        GridError: the grid ends in 0, and the solver cannot step to 0; or, with `check`, see `check_start`.
        LoopError: see `sampled`; or a state is changed in place.
        NotLinearError: the loop is not a fixed linear combination of x and the outputs.
    """
    if not isinstance(grid, Grid):
        raise _broken(solver, f"{registries.origin(type(solver).grid)}: grid returned {_kind(grid)}", "return a Grid")
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
    try:
        tableau = tape.tableau(sample, grid)
    except ValueError as error:
        if "above the diagonal" not in str(error):
            raise
        raise _unfit(solver, grid) from error
    if check:
        check_start(solver, grid, tableau)
        check_linear(solver, grid, tableau)
    return tableau


def _unfit(solver: Solver, grid: Grid) -> NotLinearError:
    """Return the error for a loop that combines more than the start and the earlier outputs."""

    def run() -> Tensor:
        tape = _Tape(_most(grid) + 1)
        sample = sampled(solver, tape, tape.unit(0), grid)
        return torch.stack([*tape.rows, sample])

    wrong, remedy = suspects.cause(solver, run) or (
        f"{registries.origin(type(solver).integrate)}: adds to a state what is neither x nor an earlier output",
        "combine x and the outputs linearly, without constants",
    )
    return NotLinearError(asked=solver.spec, wrong=wrong, remedy=remedy)


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
        raise _broken(solver, f"{where}: {error.asked} {error.wrong}", error.remedy) from error
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
            raise _Misuse(
                asked="the loop", wrong="calls denoise more than 4 times a step and doesn't end", remedy=suspects.FIXED
            )
        self.left -= 1
        if what := _unlike(x, self.like):
            raise _Misuse(asked="denoise", wrong=f"gets {what} as x", remedy="pass it the state")
        for name, value in (("sigma", sigma), ("level", sigma if level is None else level)):
            if not (value.numel() == 1 if isinstance(value, Tensor) else isinstance(value, numbers.Real)):
                raise _Misuse(
                    asked="denoise",
                    wrong=f"gets {_kind(value)} as {name}",
                    remedy="pass it one level, such as grid.sigmas[n]",
                )
        return self.denoise(x, sigma, level=level)


def _unlike(found: Any, x: Tensor) -> str:
    """Return a description of `found` if it is not a state like `x`; else an empty string."""
    if isinstance(found, Tensor) and found.shape == x.shape:
        return ""
    return f"{_kind(found)} for a state {tuple(x.shape)}" if isinstance(found, Tensor) else _kind(found)


def _kind(thing: Any) -> str:
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
                asked="x",
                wrong="is changed in place after denoise was called with it",
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


GROWTH = 4.0
"""Factor by which weights may grow when the start level grows tenfold.

Weights with a logarithm of the level grow by 1.2. Those with its square root grow by 3.2, as in DPM-Solver-2 at the
midpoint, whose error falls with more calls. Weights in proportion to the level grow by 10.
"""


def check_start(solver: Solver, grid: Grid, tableau: Tableau) -> None:
    """Check that a tableau that starts at the stand-in for an infinite level has a limit as that level grows.

    A step that divides a difference of outputs by the level that it reaches, such as Heun's, has weights in proportion
    to the level that it starts from. From the stand-in they multiply an error of the network by a million.

    Raises:
        GridError: the weights grow with the start level.
    """
    schedule, start = grid.schedule, float(grid.sigmas[0])
    if not schedule.stands_in or start <= schedule.sigma_first * (1 + 1e-9):
        return
    higher = grid.sigmas.detach().clone()
    higher[0] *= 10
    if trace(solver, Grid(higher, schedule), check=False).amplification > GROWTH * tableau.amplification:
        raise GridError(
            asked=f"{solver.name}:grid={solver.levels}",
            wrong=f"starts at {start:g}, which stands for an infinite level, and its weights grow with that level",
            remedy="use grid=polynomial or grid=logsnr, which start at a finite one, or a solver of one call a step",
        )


ROUNDINGS = 512
"""Number of rounding errors, of its start and of each operation, by which a sample of loop and tableau may differ."""


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
        allowed = 1e-10 * size + ROUNDINGS * torch.finfo(x.dtype).eps * float(x.abs().max())
        if gap > allowed:
            allowed += _rounding(solver, network, x, grid, by_loop)
        error = gap / size
        if calls != tableau.nfe or not math.isfinite(error) or gap > allowed:
            differ = (
                f"loop and tableau differ on a random network (relative {error:.1e}, {calls} and {tableau.nfe} calls)"
            )
            why = suspects.cause(solver, partial(sampled, solver, _plain(network), x, grid))
            if why is None and calls != tableau.nfe:
                why = "the number of calls depends on the values, as with an adaptive step size", suspects.FIXED
            wrong, remedy = why or ("", "combine x and the outputs linearly, without branches on their values")
            raise NotLinearError(asked=solver.spec, wrong=f"{wrong}: {differ}" if wrong else differ, remedy=remedy)
    _checked.add(seen)


def _rounding(solver: Solver, network: Callable[..., Tensor], x: Tensor, grid: Grid, sample: Tensor) -> float:
    """Return how far a loop's sample moves if the result of each operation on images has `ROUNDINGS` rounding errors.

    It is 0 for a loop that gives another sample each time: what moves there is no rounding.
    Large weights that cancel lose digits, which no weight of the tableau shows where they cancel between two steps.
    Coefficients are left as they are: loop and tableau compute the same ones.
    """

    def exactly(x: Tensor, sigma: Tensor) -> Tensor:
        with torch._C.DisableTorchFunction():
            return network(x, sigma)

    with torch.no_grad():
        if not torch.equal(sampled(solver, _plain(network), x, grid), sample):
            return 0.0
        with _Inexact(x.shape):
            moved = sampled(solver, _plain(exactly), x, grid)
    return float((moved - sample).abs().max())


class _Inexact(TorchFunctionMode):
    """Multiply the results of the given shape by 1 + e, with e of random sign and `ROUNDINGS` rounding errors."""

    def __init__(self, shape: torch.Size) -> None:
        super().__init__()
        self.shape, self.generator = shape, torch.Generator().manual_seed(0)

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        found = func(*args, **(kwargs or {}))
        if not isinstance(found, Tensor) or found.shape != self.shape or not found.is_floating_point():
            return found
        signs = torch.randint(0, 2, self.shape, generator=self.generator).to(found) * 2 - 1
        return found * (1 + ROUNDINGS * torch.finfo(found.dtype).eps * signs)


def _plain(network: Callable[..., Tensor]) -> Denoise:
    """Return a network as the denoiser of a loop."""

    def denoise(x: Tensor, sigma: Tensor, *, level: Tensor | None = None) -> Tensor:
        return network(x, sigma)

    return denoise


def _random_network(generator: torch.Generator) -> Callable[[Tensor, Tensor], Tensor]:
    matrix = torch.randn(8, 8, dtype=torch.float64, generator=generator)

    def network(x: Tensor, sigma: Tensor) -> Tensor:
        inside = (x / (1 + sigma**2).sqrt()).flatten(1) @ matrix
        return (1.5 * torch.tanh(inside)).reshape(x.shape)

    return network
