"""The tableau of a solver: traced on a grid, checked against the loop, and compared with the calls asked for."""

from __future__ import annotations

from collections.abc import Sequence

from solverbench.errors import BudgetError, LoopError, NeedsTrainingError
from solverbench.method import suspects
from solverbench.method.grids import Grid, check_ends, explicit
from solverbench.method.linearity import check_linear, check_start
from solverbench.method.loops import intervals, most_calls, sampled
from solverbench.method.schedules import EDM, NoiseSchedule
from solverbench.method.solver import LearnedSolver, Solver
from solverbench.method.tableau import Tableau
from solverbench.method.tape import Tape, record


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
        LoopError: a plugin's `grid` makes other levels than its spec says.
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
        tape = Tape(most_calls(grid) + 1)
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
    found = record(solver, grid)
    if check:
        check_start(solver, grid, found)
        check_linear(solver, grid, found)
    return found
