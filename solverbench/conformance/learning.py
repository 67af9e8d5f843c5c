"""Additional checks of a learned solver: its parameters can be trained, saved and restored."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path

import torch

from solverbench import registries
from solverbench.conformance import trials
from solverbench.conformance.trials import BUDGETS, Failed
from solverbench.errors import GridError, RecordError, UserError
from solverbench.learned import recipes, stages, trained_files
from solverbench.learned.stages import GROUPS
from solverbench.learned.trained_files import Trained
from solverbench.method.execution import unrounded
from solverbench.method.schedules import NoiseSchedule
from solverbench.method.solver import LearnedSolver, Solver
from solverbench.method.tracing import trace
from solverbench.registries import recipe_names


def parameters(solver: Solver, schedule: NoiseSchedule) -> str:
    """Raise unless the initial parameters are float64 with the declared shapes and known groups, and reproducible."""
    assert isinstance(solver, LearnedSolver)
    counts = {}
    for budget in BUDGETS:
        if trials.steps(solver, budget) is None:
            continue
        try:
            initial, again = solver.initial(schedule, budget), solver.initial(schedule, budget)
        except GridError:
            continue
        shapes = {name: tuple(tensor.shape) for name, tensor in initial.items()}
        if solver.shapes(budget) != shapes:
            raise Failed(
                f"`shapes` says {solver.shapes(budget)} at nfe={budget}, `initial` gives {shapes}; make them agree"
            )
        for name, tensor in initial.items():
            if tensor.dtype != torch.float64 or tensor.device.type != "cpu" or not tensor.isfinite().all():
                raise Failed(
                    f"{name!r} is initially {tensor.dtype} on {tensor.device} at nfe={budget}, with "
                    f"{int((~tensor.isfinite()).sum())} values not finite; give finite float64 on the CPU"
                )
            if solver.group(name) not in GROUPS:
                raise Failed(f"{name!r} is in group {solver.group(name)!r}; use {', '.join(GROUPS)}")
            if name not in again or not torch.equal(tensor, again[name]):
                raise Failed(f"{name!r} has other initial values at a second call; use no randomness in `initial`")
        counts[budget] = sum(tensor.numel() for tensor in initial.values())
    if not counts:
        raise Failed(f"has initial parameters for no budget from 1 to {BUDGETS[-1]}; check `steps` and `initial`")
    smallest, largest = min(counts), max(counts)
    return f"{counts[smallest]} numbers at nfe={smallest}, {counts[largest]} at nfe={largest}"


def parameter_gradients(solver: Solver, schedule: NoiseSchedule) -> str:
    """Raise unless the sample's gradient reaches every parameter."""
    budget, ready, _ = trials.typical(solver, schedule)
    assert isinstance(ready, LearnedSolver)
    leaves = {name: value.detach().clone().requires_grad_() for name, value in ready.trained.items()}
    ready = ready.with_parameters(leaves)
    grid = ready.grid(schedule, ready.steps(budget))
    sample = unrounded(trace(ready, grid, check=False), trials.network, trials.start(grid))
    if not sample.requires_grad:
        raise Failed("the sample carries no gradient; use the parameters in the loop, undetached")
    gradients = torch.autograd.grad(sample.square().sum(), list(leaves.values()), allow_unused=True)
    for (name, leaf), gradient in zip(leaves.items(), gradients, strict=True):
        if leaf.numel() and (gradient is None or not gradient.isfinite().all() or not gradient.any()):
            raise Failed(f"no finite gradient reaches {name!r}; use it in the loop, undetached")
    return f"reach {', '.join(leaves)}"


def wrong_parameters(solver: Solver, schedule: NoiseSchedule) -> str:
    """Raise unless parameters for another number of steps are refused, by the grid, the loop or the step count."""
    _, ready, grid = trials.typical(solver, schedule)
    assert isinstance(ready, LearnedSolver)
    budgets = [budget for budget in BUDGETS if trials.steps(solver, budget) is not None]
    if len(budgets) > 1 and all(ready.shapes(budget) == ready.shapes(budgets[0]) for budget in budgets):
        return "the same parameters serve every number of steps"
    more = grid.steps + 1
    try:
        wrong = ready.grid(schedule, more)
        calls = trace(ready, wrong, check=False).nfe
    except UserError as error:
        return str(error)
    if wrong.steps == more:
        raise Failed(f"parameters for {grid.steps} steps make {calls} calls in {more} steps; raise GridError in `grid`")
    return f"parameters for {grid.steps} steps make a grid of {wrong.steps}, not of {more}"


def recipe(solver: Solver, schedule: NoiseSchedule) -> str:
    """Raise unless the recipe loads for every teacher that it names and trains every parameter."""
    assert isinstance(solver, LearnedSolver)
    said = solver.trained_by or {}
    tables = [name for name, value in said.items() if isinstance(value, Mapping) and name != recipes.ANY]
    budget = next(budget for budget, *_ in trials.runs(solver, schedule))
    groups = {name: solver.group(name) for name in solver.initial(schedule, budget)}
    for teacher in ("", *tables):
        try:
            found = recipes.load(solver.recipe_name, teacher)
        except UserError as error:
            raise Failed(str(error)) from None
        trained = frozenset[str]().union(*(part for part, _ in stages.parse(found.stages)))
        for name, group in groups.items():
            if group not in trained:
                raise Failed(f"stages={found.stages} never train {name!r}, which is in group {group}; add the group")
    return f"{solver.recipe_name}, {', '.join(tables) or 'the same for every teacher'}"


def trainable(solver: Solver) -> bool:
    """Return whether the solver is learned and its recipe exists."""
    return isinstance(solver, LearnedSolver) and recipe_names.exists(registries.solvers, solver.recipe_name)


def saved(solver: Solver, schedule: NoiseSchedule) -> str:
    """Raise unless saving and loading its parameters gives bitwise the same numbers."""
    budget, ready, grid = trials.typical(solver, schedule)
    assert isinstance(ready, LearnedSolver)
    tableau = trace(ready, grid, check=False)
    made = Trained(ready.spec, budget, "conformance", "conformance", ready.trained, tableau)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / trained_files.file_name(ready, budget)
        trained_files.save(made, path)
        size = path.stat().st_size
        try:
            read = trained_files.load(path, solver=ready)
        except RecordError as error:
            raise Failed(f"its saved parameters can't be loaded: {error}") from None
    again = ready.with_parameters(read.parameters)
    if list(read.parameters) != list(ready.trained):
        raise Failed(
            f"saved parameters come back in the order {list(read.parameters)}; return them in the same "
            "order from every call of `initial`"
        )
    plan = trace(again, again.grid(schedule, again.steps(budget)), check=False).plan_from_noise(schedule)
    if plan != tableau.plan_from_noise(schedule) or not read.tableau.equals(tableau, 0.0):
        raise Failed("saved and loaded parameters give other results; keep everything that is trained in `parameters`")
    return f"{path.name}, {size} bytes, loads with the same results"
