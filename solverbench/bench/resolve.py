"""Resolution of a run's options to its cells, each with a plan or the reason why it can't be run."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from solverbench import plugins, seeds
from solverbench.bench.cells import FAILED, NEEDS_TRAINING, UNSUPPORTED, Cell, Need, reason
from solverbench.bench.protocol import Protocol
from solverbench.bench.run_options import RunOptions
from solverbench.errors import BudgetError, GridError, MissingError, NeedsSearchError, UserError
from solverbench.evaluation.selection import Measurement
from solverbench.learned import recipes, trained_files, zoo
from solverbench.learned.searches import search
from solverbench.learned.trained_files import Trained
from solverbench.method import grids, probe, suspects
from solverbench.method.declarations import Unnamed
from solverbench.method.grids import Grid
from solverbench.method.linearity import check_linear, check_start
from solverbench.method.schedules import NoiseSchedule
from solverbench.method.solver import LearnedSolver, Solver
from solverbench.method.spec import calls, expand, make
from solverbench.method.tableau import Plan, Tableau
from solverbench.method.tracing import miscounted, own_grid, trace
from solverbench.sampling import devices, endpoints
from solverbench.sampling.endpoints import Goal
from solverbench.store.folder import CellFolder, Store
from solverbench.teachers.loading import load_teacher
from solverbench.teachers.teacher import Teacher, expanded, shortened

SHORT = 0.5
"""Share of the recipe's iterations below which a trained solver is flagged."""


def resolve(options: RunOptions, protocol: Protocol, *, keep: bool = True) -> list[Cell]:
    """Return the requested cells by teacher, then solver, then number of calls, without duplicate solvers.

    Args:
        keep: whether teachers may keep encoded prompts in the results folder, once it is a store.

    Raises:
        UserError: an invalid name, option, value, number or seed; raised before anything is computed.
        MissingError: a teacher or device that isn't available.
    """
    device, out = devices.check_device(options.device), Path(options.out)
    budgets = calls(options.nfe)
    wanted = list(_solvers(options.solvers))
    cells: list[Cell] = []
    for teacher in shortened(list(_teachers(options.teachers, device, out if keep else None))):
        measurement = protocol.judging.of_teacher(teacher, protocol.samples, protocol.block, out)
        if teacher.identity == Teacher.identity:
            raise UserError(
                asked=f"teacher {teacher.name!r}",
                wrong="has no identity, so its results can't be distinguished from another network's",
                remedy="give Teacher(identity=...), such as the sha256 of its weights",
            )
        plan = endpoints.sampler_plan(teacher)
        settled: dict[tuple[str, int], tuple[str, Solver]] = {}  # on this schedule, two solvers may take the same grid
        for asked, solver in wanted:
            own = solver.on(teacher.schedule)
            settled.setdefault((own.spec, id(getattr(own, "parameters", None))), (asked, own))
        for asked, own in settled.values():
            cells += _cells_of(asked, own, budgets, teacher, plan, protocol, measurement, out)
    return cells


def check_possible(wanted: Sequence[Cell]) -> None:
    """Check that something can be measured.

    Raises:
        MissingError: every cell is unsupported or needs training; the text gives the reason for the first one.
    """
    obstacles = [cell.obstacle for cell in wanted if cell.obstacle and cell.needs is None]
    lacking = [each for each in obstacles if each[0] in (UNSUPPORTED, NEEDS_TRAINING)]
    if not wanted or len(lacking) < len(wanted):
        return
    status, why = lacking[0]
    raise MissingError(
        asked=wanted[0],
        wrong=f"{status}, so there is nothing to measure: {why.rstrip('.')}",
        remedy=f"see 'solverbench plan' for {'this cell' if len(wanted) == 1 else f'all {len(wanted)} cells'}",
    )


def resolved_again(cell: Cell, out: Path) -> Cell:
    """Return the cell resolved again, with parameters trained or a grid searched since."""
    solver = trained_files.learned(cell.spec) if cell.needs is None else cell.needs.solver
    try:
        about = cell.teacher, cell.targets, cell.protocol, cell.measurement
        [found] = _cells_of(cell.solver, solver, [cell.nfe], *about, out)
    except GridError as error:
        return blocked(cell, FAILED, str(error))
    return found


def named(
    asked: str,
    solver: Solver,
    nfe: int,
    teacher: Teacher,
    goal: Goal,
    protocol: Protocol,
    measurement: Measurement,
    out: Path,
    schedule: NoiseSchedule | None = None,
) -> Cell:
    """Return one cell.

    Args:
        asked: name of the solver in results.
        goal: plan of the teacher's own sampler.
        out: results folder.
        schedule: the teacher's schedule with its searched grids; if None, those in the folder and in the zoos.
    """
    about = teacher, goal, protocol, measurement, out, schedule
    [found] = _cells_of(asked, solver.on(teacher.schedule), [nfe], *about)
    return found


def blocked(cell: Cell, status: str, reason: str) -> Cell:
    """Return the cell with another obstacle."""
    return replace(cell, obstacle=(status, reason))


def _cells_of(
    asked: str,
    solver: Solver,
    budgets: list[int],
    teacher: Teacher,
    goal: Goal,
    protocol: Protocol,
    measurement: Measurement,
    out: Path,
    schedule: NoiseSchedule | None = None,
) -> Iterator[Cell]:
    """Yield the cells of one solver; a budget that the grid doesn't fit is unsupported, whatever else is asked for."""

    schedule = schedule or search.schedule(teacher, [out / "trained"])

    def cell(
        nfe: int,
        plan: Plan | None,
        obstacle: tuple[str, str] | None,
        trained: Trained | None,
        grid: Grid | None = None,
        needs: Need | None = None,
    ) -> Cell:
        method = grids.found_key(equipped.key, grid) if plan is not None and grid is not None else {}
        about = teacher, asked, solver.spec, method, nfe, solver.learned, solver.adapt
        inferred = solver.inferred if isinstance(solver, LearnedSolver) else ""
        searched = None if grid is None else grid.search
        more = plan, obstacle, trained, inferred, flags, searched, needs
        return Cell(*about, protocol, measurement, goal, *more)

    for nfe in budgets:
        equipped, trained, flags = solver, None, dict[str, str]()
        if isinstance(solver, LearnedSolver) and solver.parameters is None:
            trained = zoo.find(solver, teacher, nfe, [out / "trained"])
            if trained is None:
                yield cell(nfe, None, _lack(solver, asked, nfe, teacher, out), None)
                continue
            seeds.check_apart(protocol.seeds, trained.seeds, f"{asked} nfe={nfe}")
            equipped = trained.solver
        try:
            grid = own_grid(equipped, schedule, nfe)
            tableau = trace(equipped, grid, check=False)
            check_start(equipped, grid, tableau)
            if trained is not None:
                if not trained.still(tableau):
                    yield cell(nfe, None, (NEEDS_TRAINING, _untrained(asked, nfe, teacher, out, zoo.OUTDATED)), None)
                    continue
                tableau = trained.tableau
            plan = tableau.plan_from_noise(teacher.schedule)
            flags = _flags(equipped, grid, tableau) | _short(trained, teacher)
            equipped.adapt(teacher.denoise)  # an error here would end the run later
            found = cell(nfe, plan, None, trained, grid)
            if stale := _stale(found, Store(out).at(found.address)):
                yield cell(nfe, None, (FAILED, stale), trained)
                continue
            if not Store(out).at(found.address).done:  # a finished cell was checked when it was computed
                check_linear(equipped, grid, tableau)
                if plan.nfe == nfe:
                    suspects.believed(equipped, tableau)
        except NeedsSearchError as error:
            yield cell(nfe, None, (NEEDS_TRAINING, str(error)), trained, needs=Need(solver, *error.search))
        except BudgetError as error:
            yield cell(nfe, None, (UNSUPPORTED, str(error)), trained)
        except GridError as error:
            if grids.refused(error) and (where := plugins.place(error)):  # a plugin that returns no grid has a bug
                yield cell(nfe, None, (FAILED, f"{where}: {error}; fix it there"), trained)
                continue
            yield cell(nfe, None, (UNSUPPORTED, str(error)), trained)
        except (Exception, SystemExit) as error:  # a plugin may raise anything; the other cells continue
            yield cell(nfe, None, (FAILED, reason(error, solver.spec)), trained)
        else:
            if grid.search is not None:
                seeds.check_apart(protocol.seeds, {"search": grid.search.seeds}, f"{asked} nfe={nfe}")
            if plan.nfe == nfe:
                yield found
            else:
                wrong, remedy = miscounted(equipped, schedule, nfe, plan.nfe)
                yield cell(nfe, None, (FAILED, f"{wrong}; {remedy}"), trained)


def _flags(solver: Solver, grid: Grid, tableau: Tableau) -> dict[str, str]:
    """Return the caveats about a cell's numbers, as code -> sentence."""
    told = {"inner-ends": grids.inner_ends(grid)}
    if not solver.learned:  # its parameters fit another network's outputs than a Gaussian's
        told["long-steps"] = probe.unstable(tableau, grid.schedule)
    return {code: sentence for code, sentence in told.items() if sentence}


def _short(trained: Trained | None, teacher: Teacher) -> dict[str, str]:
    """Return the caveat that a solver was trained for fewer iterations than its recipe has."""
    made = trained.record.get("recipe", {}).get("iterations") if trained is not None else None
    if trained is None or made is None:
        return {}
    try:
        asked = recipes.chosen(trained.solver, teacher).iterations
    except UserError:  # a plugin's recipe may be gone
        return {}
    short = f"trained for {made} iterations, where its recipe has {asked}"
    return {"short-training": short} if made < SHORT * asked else {}


def _stale(cell: Cell, folder: CellFolder) -> str:
    """Return why the results stored at the cell's address are not its own; empty if they are, or nothing is stored."""
    stored = folder.plan()
    if stored is None or cell.plan is None or cell.plan.fits(stored):
        return ""
    return (
        f"{folder.path}: holds results of other coefficients: what the solver computes has changed, "
        "although its source has not, for example because a function that a plugin imports was edited; "
        "raise `version` in the solver's class, "
        "or delete that folder"
    )


def _lack(solver: LearnedSolver, asked: str, nfe: int, teacher: Teacher, out: Path) -> tuple[str, str]:
    """Return status and reason of a learned solver without parameters: an impossible budget, or not trained yet."""
    try:
        solver.steps(nfe)
    except BudgetError as error:
        return UNSUPPORTED, str(error)
    return NEEDS_TRAINING, _untrained(asked, nfe, teacher, out)


def _untrained(asked: str, nfe: int, teacher: Teacher, out: Path, lack: str = "no trained parameters") -> str:
    command = zoo.training_command(asked, nfe, teacher, out)
    if command is None:
        name = asked.partition(":")[0]
        return f"{lack}, and no recipe for training {name}; give it parameters in Python"
    return f"{lack}; run: {command}"


def _solvers(solvers: str | Solver | Sequence[str | Solver]) -> Iterator[tuple[str, Solver]]:
    """Yield each distinct solver with its displayed name: the spec as typed, or the solver's own spec."""
    listed = list(solvers) if isinstance(solvers, Iterable) and not isinstance(solvers, str) else [solvers]
    seen: dict[tuple[str, bool, int], Solver] = {}
    names: set[str] = set()
    for item in listed:
        if not isinstance(item, (str, Solver)):
            raise UserError(
                asked=f"solvers {listed!r}", wrong=f"{item!r} is no solver", remedy="give specs, as in 'dpm'"
            )
        for one in [item] if isinstance(item, Solver) else expand(item):
            solver = make(one) if isinstance(one, str) else one
            spec = solver.spec
            same = spec, isinstance(solver.levels, Unnamed), id(getattr(solver, "parameters", None))
            if same in seen:
                continue
            name = one if isinstance(one, str) else spec
            if name in names and same[:2] not in {known[:2] for known in seen}:
                name = f"{solver.name} on its default grid"
            if name in names:
                raise UserError(
                    asked="solvers",
                    wrong=f"{name} is given with two sets of parameters",
                    remedy="measure one set per run",
                )
            seen[same] = solver
            names.add(name)
            yield name, solver
    if not seen:
        raise UserError(asked="solvers", wrong="none is given", remedy="give some, as in gas,dpm")


def _teachers(teachers: str | Teacher | Sequence[str | Teacher], device: str, out: Path | None) -> Iterator[Teacher]:
    listed = list(teachers) if isinstance(teachers, Iterable) and not isinstance(teachers, str) else [teachers]
    seen: dict[str, str] = {}
    for item in listed:
        if not isinstance(item, (str, Teacher)):
            remedy = "give names, checkpoints or an sb.Teacher"
            raise UserError(asked=f"teachers {listed!r}", wrong=f"{item!r} is no teacher", remedy=remedy)
        for one in [item] if isinstance(item, Teacher) else expanded(item):
            teacher = one.to(device) if isinstance(one, Teacher) else load_teacher(one, device, out=out)
            if teacher.name not in seen:
                seen[teacher.name] = teacher.identity
                yield teacher
            elif seen[teacher.name] != teacher.identity:
                raise UserError(
                    asked="teachers",
                    wrong=f"two different ones are named {teacher.name!r}",
                    remedy="give them other names",
                )
    if not seen:
        raise UserError(asked="teachers", wrong="none is given", remedy="give one, as in digits")
