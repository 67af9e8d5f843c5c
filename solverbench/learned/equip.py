"""The tableau of a solver for a teacher; a learned solver gets the parameters trained for that teacher."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

from solverbench import userdata
from solverbench.errors import NeedsTrainingError, SpecError
from solverbench.learned.searches import search
from solverbench.learned.trained_files import Trained
from solverbench.learned.zoo import OUTDATED, find, training_command
from solverbench.method import tracing
from solverbench.method.schedules import NoiseSchedule
from solverbench.method.solver import LearnedSolver, Solver
from solverbench.method.spec import make
from solverbench.method.tableau import Tableau
from solverbench.method.tracing import trace
from solverbench.teachers.loading import load_teacher
from solverbench.teachers.teacher import Teacher


def needed(solver: LearnedSolver, nfe: int, teacher: Teacher, folders: Sequence[Path] = ()) -> Trained:
    """Return the trained `solver` for `teacher` and `nfe`; its stored tableau is the one that is executed.

    Raises:
        NeedsTrainingError: it is not trained, or its code has changed since.
        RecordError: the file found cannot be used; see `load`.
    """
    trained = find(solver, teacher, nfe, folders)
    if trained is None:
        asked = solver.name if solver == type(solver)() else solver.spec
        command = training_command(asked, nfe, teacher)
        remedy = f"run '{command}'" if command else "there is no recipe for it, so give it parameters in Python"
        raise NeedsTrainingError(
            asked=f"{asked} nfe={nfe}", wrong=f"not trained for teacher {teacher.name!r}", remedy=remedy
        )
    equipped = solver.with_parameters(trained.parameters)
    schedule = search.schedule(teacher, folders)
    if not trained.still(trace(equipped, equipped.grid(schedule, equipped.steps(nfe)), check=False)):
        raise NeedsTrainingError(asked=f"{solver.spec} nfe={nfe}", wrong=OUTDATED, remedy="train it again")
    return trained


def _probe(x: Tensor, sigma: Tensor) -> Tensor:
    return x


def tableau(
    solver: str | Solver,
    *,
    nfe: int | None = None,
    teacher: str | Teacher | None = None,
    schedule: NoiseSchedule | None = None,
    grid: Sequence[float] | None = None,
    out: Path | None = None,
) -> Tableau:
    """Return the tableau of a solver on a teacher's schedule, on another schedule, or on explicit levels.

    A grid that is searched on the teacher, such as `gits`, is searched now if it hasn't been, with a line on stderr.

    A tableau is linear, so it excludes dynamic thresholding and other changes of the denoiser. A spec that asks for
    one is refused. For a Solver, execute the tableau on `solver.adapt(denoise)`.

    Args:
        solver: spec such as "dpm:order=3", or a Solver.
        nfe: number of calls; follows from `grid` if that is given.
        teacher: Teacher or its name; a learned solver's parameters are looked up for it.
        schedule: schedule to use without a teacher; EDM() if neither is given.
        grid: M+1 noise levels that replace the solver's own grid.
        out: results folder; its trained solvers and searched grids take precedence over the packaged ones, and a new
            grid is kept there; if None, in the user's own zoo.

    Raises:
        SpecError, UnknownNameError: the spec cannot be read, or asks for a change of the denoiser.
        BudgetError: the solver cannot spend exactly `nfe` calls.
        NeedsTrainingError: a learned solver has no parameters for this teacher and `nfe`.
        GridError, LoopError, NotLinearError: see `trace`.
    """
    if isinstance(solver, str):
        asked, solver = solver, make(solver)
        if solver.adapt(_probe) is not _probe:
            raise SpecError(
                asked=asked,
                wrong="it changes the denoiser, which a tableau can't hold",
                remedy="give the Solver, sb.make(spec), and execute its tableau on solver.adapt(denoise)",
            )
    teacher = load_teacher(teacher) if isinstance(teacher, str) else teacher
    untrained = solver if isinstance(solver, LearnedSolver) and solver.parameters is None else None
    if untrained is not None and teacher is not None and grid is None and nfe is not None:
        trained = needed(untrained, nfe, teacher, () if out is None else (out / "trained",))
        return tracing.spends(trained.tableau, solver, nfe)
    if teacher is not None:
        folder = userdata.zoo() if out is None else out / "trained"
        schedule = search.searching(teacher, folder).schedule
    return tracing.tableau(solver, nfe=nfe, schedule=schedule, grid=grid)
