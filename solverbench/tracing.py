"""From a solver's loop to its tableau: the loop is run once on coefficient vectors instead of images."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor

from solverbench.errors import BudgetError, NotLinearError
from solverbench.execution import unrounded
from solverbench.grids import Grid, explicit
from solverbench.schedules import EDM, NoiseSchedule
from solverbench.solver import LearnedSolver, Solver
from solverbench.spec import make
from solverbench.tableaux import Tableau
from solverbench.teachers import Teacher, load_teacher


def tableau(
    solver: str | Solver,
    *,
    nfe: int | None = None,
    teacher: str | Teacher | None = None,
    schedule: NoiseSchedule | None = None,
    grid: Sequence[float] | None = None,
    out: Path | None = None,
) -> Tableau:
    """Return the tableau of a solver: on a teacher's schedule, on another one, or on explicit levels.

    Dynamic thresholding isn't linear and so no part of it: execute it on `solver.adapt(denoise)`.

    Args:
        solver: a spec such as "dpm:order=3", or a Solver.
        nfe: the number of calls; given by `grid` if that is given.
        teacher: a Teacher or the name of one; a learned solver's parameters are looked up for it.
        schedule: without a teacher; EDM() if neither is given.
        grid: the M+1 noise levels instead of the solver's own grid.
        out: a results folder, whose own trained solvers come before the packaged ones.

    Raises:
        SpecError, UnknownNameError: the spec can't be read.
        BudgetError: the solver can't spend exactly `nfe` calls.
        NeedsTrainingError: a learned solver without parameters for this teacher and `nfe`.
        GridError, NotLinearError: see `trace`.
    """
    solver = make(solver) if isinstance(solver, str) else solver
    teacher = load_teacher(teacher) if isinstance(teacher, str) else teacher
    schedule = teacher.schedule if teacher is not None else schedule or EDM()
    if grid is not None:
        return _spends(trace(solver, explicit(grid, schedule)), solver, nfe)
    if nfe is None:
        raise BudgetError(f"{solver.spec}: neither nfe nor grid is given; give one, as in nfe=6")
    if isinstance(solver, LearnedSolver) and solver.parameters is None:
        from solverbench import zoo  # a trained file holds its tableau: the zoo needs this module

        solver = zoo.equip(solver, nfe, teacher, () if out is None else (out / "trained",))
    return _spends(trace(solver, solver.grid(schedule, solver.steps(nfe))), solver, nfe)


def _spends(found: Tableau, solver: Solver, nfe: int | None) -> Tableau:
    """The tableau, if it makes the calls that were asked for."""
    if nfe not in (None, found.nfe):
        raise BudgetError(f"{solver.spec} with nfe={nfe}: its loop makes {found.nfe} calls; ask for nfe={found.nfe}")
    return found


def trace(solver: Solver, grid: Grid, *, check: bool = True) -> Tableau:
    """Return the tableau of `solver` on `grid`, by running its loop on coefficient vectors.

    Args:
        check: compare loop and tableau on random nonlinear networks; without it the result may carry gradient.

    Raises:
        GridError: the grid ends in 0 and the solver can't.
        NotLinearError: the loop isn't a fixed linear combination of x and the outputs.
    """
    tape = _Tape(capacity=4 * grid.steps + 8)
    try:
        sample = solver.sample(tape, tape.unit(0), grid)
    except (IndexError, TypeError, RuntimeError) as error:
        raise NotLinearError(
            f"{solver.spec}: its loop doesn't run on coefficient vectors ({type(error).__name__}: {error}); "
            "use no shapes, reductions or casts of x"
        ) from error
    tableau = tape.tableau(sample, grid)
    if check:
        check_linear(solver, grid, tableau)
    return tableau


class _Tape:
    """The denoiser that a loop meets when it is traced: it writes down its inputs and returns unit vectors."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.rows: list[Tensor] = []
        self.told: list[Tensor] = []
        self.levels: list[Tensor] = []

    def unit(self, index: int) -> Tensor:
        vector = torch.zeros(self.capacity, dtype=torch.float64)
        vector[index] = 1
        return vector

    def __call__(self, x: Tensor, sigma: Tensor, *, level: Tensor | None = None) -> Tensor:
        if len(self.rows) + 1 == self.capacity:
            raise IndexError(f"more than {len(self.rows)} calls")
        self.rows.append(x)
        self.told.append(_scalar(sigma))
        self.levels.append(_scalar(sigma if level is None else level))
        return self.unit(len(self.rows))

    def tableau(self, sample: Tensor, grid: Grid) -> Tableau:
        size = len(self.rows) + 1
        weights = torch.stack([*self.rows, sample])[:, :size]
        levels = torch.stack([*self.levels, _scalar(grid.sigmas[-1])])
        return Tableau(torch.stack(self.told), weights, levels, _scalar(grid.sigmas[0]))


def _scalar(value: Tensor | float) -> Tensor:
    return torch.as_tensor(value, dtype=torch.float64).reshape(())


ROUNDINGS = 512
"""How many roundings of its start a sample may differ by between loop and tableau."""

_checked: set[tuple[type[Solver], str, tuple[float, ...]]] = set()


def check_linear(solver: Solver, grid: Grid, tableau: Tableau) -> None:
    """Compare loop and tableau on two random networks and two start scales; remember what passed.

    Raises:
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
            by_loop = solver.sample(denoise, x, grid)
            by_tableau = unrounded(tableau, network, x)
        size, gap = float(by_loop.abs().max()), float((by_loop - by_tableau).abs().max())
        # From a high start the rounding of x, which nearly cancels, outweighs that of the sample.
        error, rounding = gap / size, ROUNDINGS * torch.finfo(x.dtype).eps * float(x.abs().max()) / size
        if calls != tableau.nfe or not math.isfinite(error) or error > 1e-10 + rounding:
            raise NotLinearError(
                f"{solver.spec}: loop and tableau differ on a random network (relative {error:.1e}, {calls} and "
                f"{tableau.nfe} calls); combine x and the outputs linearly, without branches on their values"
            )
    _checked.add(seen)


def _random_network(generator: torch.Generator) -> Callable[[Tensor, Tensor], Tensor]:
    matrix = torch.randn(8, 8, dtype=torch.float64, generator=generator)

    def network(x: Tensor, sigma: Tensor) -> Tensor:
        inside = (x / (1 + sigma**2).sqrt()).flatten(1) @ matrix
        return (1.5 * torch.tanh(inside)).reshape(x.shape)

    return network
