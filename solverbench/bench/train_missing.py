"""Searches of grids and training of solvers that a run makes first; one that fails doesn't end the run."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch

from solverbench import seeds
from solverbench.bench import cells, resolve
from solverbench.bench.cells import FAILED, NEEDS_TRAINING, Cell
from solverbench.bench.progress import Listener
from solverbench.errors import MissingError, StoreError, UserError
from solverbench.learned import recipes, trained_files, zoo
from solverbench.learned.recipes import Recipe
from solverbench.learned.searches import search
from solverbench.learned.trained_files import Trained
from solverbench.learned.training import train as training
from solverbench.method.spec import ranges
from solverbench.sampling import endpoints
from solverbench.sampling.devices import THREADS
from solverbench.sampling.sample import BATCH

CHOICES = ("missing",)
"""Values of `train`: `missing` trains the solvers that have no parameters yet."""

BACKWARD = 3
"""Cost of a call with gradient, in calls without gradient; the backward pass costs about two."""


@dataclass(frozen=True, eq=False)
class TrainingEstimate:
    """The approximate cost of training a cell's solver.

    Args:
        recipe: training recipe.
        calls: network calls times images; a call with gradient counts as `BACKWARD`.
        teacher_calls: the part of `calls` for the teacher's images that are neither stored nor made by an earlier
            training.
    """

    recipe: Recipe
    calls: int
    teacher_calls: int

    @property
    def text(self) -> str:
        """Human-readable text."""
        count = self.recipe.training_seeds
        return f"{count} training{'s' * (count > 1)} of {self.recipe.iterations} iterations"


def check(choice: str | None) -> None:
    """Raise UserError if `choice` is not a value of `train`."""
    if choice not in (None, *CHOICES):
        raise UserError(
            asked=f"train {choice!r}", wrong="not a choice", remedy=f"use {' or '.join(CHOICES)}, or leave it out"
        )


def estimate(cell: Cell, out: Path, claimed: set[Path]) -> TrainingEstimate | None:
    """Return the cost of a cell's training; None if it needs none or has no recipe.

    Args:
        out: results folder.
        claimed: files of the teacher's images that earlier trainings will write; this one's are added.
    """
    recipe = _recipe(cell)
    if recipe is None:
        return None
    missing = 0
    for chosen in (recipe.train, recipe.validation):
        for path, part in endpoints.absent(cell.teacher, cell.targets, chosen, out, batch=BATCH).items():
            if path not in claimed:
                claimed.add(path)
                missing += len(part)
    images = recipe.iterations * recipe.batch * (BACKWARD + recipe.adversarial) + recipe.pretraining * recipe.batch
    images += (1 + recipe.iterations // recipe.validate_every) * recipe.validation_size
    teacher = missing * cell.teacher.sampler_nfe
    return TrainingEstimate(recipe, images * cell.nfe * recipe.training_seeds + teacher, teacher)


def train_missing(wanted: Sequence[Cell], out: Path, device: str, tell: Listener) -> list[Cell]:
    """Train the cells that need it, one after another; return all cells, resolved again, in order.

    A failed training makes its cell a failed one. A second call resumes where the first one stopped.

    Raises:
        UserError: evaluation seeds that a training would see; raised before any training.
        StoreError: the folder can't be written.
    """
    todo = {cell: recipe for cell in wanted if (recipe := _recipe(cell)) is not None}
    for cell, recipe in todo.items():
        used = {"training": recipe.train, "validation": recipe.validation}
        seeds.check_apart(cell.protocol.seeds, used, f"{cell.solver} nfe={cell.nfe}")
    found: dict[Cell, Cell] = {}
    below: dict[tuple[str, str], Sequence[Trained]] = {}
    with _threads():
        for cell in sorted(todo, key=lambda cell: cell.nfe if todo[cell].warm_start else 0):
            found[cell] = _learned(cell, todo[cell], out, device, tell, below)
    return [found.get(cell, cell) for cell in wanted]


def search_missing(wanted: Sequence[Cell], out: Path, tell: Listener) -> list[Cell]:
    """Search the grids that cells need; return all cells, resolved again, in order.

    A failed search makes its cells failed ones.

    Raises:
        UserError: evaluation seeds that a search would see; raised before any search.
        StoreError: the folder can't be written.
    """
    for cell in wanted:
        if cell.needs is not None:
            search.check_apart(cell.protocol.seeds, cell.needs.given, f"{cell.solver} nfe={cell.nfe}")
    return [_searched(cell, _most(cell, wanted), out, tell) for cell in wanted]


def reused(wanted: Sequence[Cell]) -> Iterator[str]:
    """Yield a line for each searched grid and each solver whose parameters exist already: where they are from."""
    budgets: dict[tuple[str, str, str], list[int]] = {}
    for cell in wanted:
        if cell.search is not None and (path := cell.search.path) is not None:
            about = f"grid {path.stem.removeprefix('grid-')}", cell.teacher.shown, _whence(path, path)
            budgets.setdefault(about, []).append(cell.nfe)
        if cell.trained is not None and (path := cell.trained.path) is not None:
            about = f"parameters of {cell.solver}", cell.teacher.shown, _whence(path, path.parent)
            budgets.setdefault(about, []).append(cell.nfe)
    for (what, teacher, whence), found in budgets.items():
        yield f"{what} on {teacher}, NFE {ranges(set(found))}: {whence}"


def _whence(path: Path, named: Path) -> str:
    return "packaged" if zoo.origin(path) == "packaged" else f"reused from {named}"


def _most(cell: Cell, wanted: Sequence[Cell]) -> int:
    """Return the largest number of steps that cells need of the same search; a search of `oss` gives all below."""
    if cell.needs is None:
        return 0
    if cell.needs.name == "dmn":
        return cell.needs.steps
    needs = [each.needs for each in wanted if each.needs and each.teacher.name == cell.teacher.name]
    same = [each.steps for each in needs if (each.name, each.given) == (cell.needs.name, cell.needs.given)]
    return max([cell.needs.steps, *(steps for steps in same if steps < cell.needs.given["candidates"])])


def _searched(cell: Cell, most: int, out: Path, tell: Listener) -> Cell:
    """Search the grid that the cell needs, up to `most` steps, and return the resolved cell."""
    if cell.needs is None or (found := resolve.resolved_again(cell, out)).needs is None:
        return cell if cell.needs is None else found
    about = cell.needs.name, most, cell.needs.given, cell.teacher
    try:
        search.told(*about, out / "trained", tell.say)
    except StoreError:
        raise
    except Exception as error:  # a teacher's network may raise anything; the other cells continue
        return resolve.blocked(dataclasses.replace(cell, needs=None), FAILED, f"search: {cells.reason(error)}")
    return resolve.resolved_again(cell, out)


def _learned(
    cell: Cell,
    recipe: Recipe,
    out: Path,
    device: str,
    tell: Listener,
    below: dict[tuple[str, str], Sequence[Trained]],
) -> Cell:
    """Train the cell's solver and return the resolved cell.

    Args:
        below: results of the largest budget trained so far by a recipe with warm_start, by solver and teacher; this
            one's are put there.
    """
    same = cell.spec, cell.teacher.name
    try:
        solver = trained_files.learned(cell.spec)
        about = solver, cell.nfe, cell.teacher, recipe
        begun = below.get(same, ()) if recipe.warm_start else ()
        runs = training.train_seeds(*about, begun, out=out, device=device, progress=_shown(cell, tell))
        training.keep(runs, solver, out)
        for [run] in (each.record["runs"] for each in runs):
            if "stopped" in run:
                tell.note(f"{cell}, training seed {run['seed']}: {run['note']}")
    except StoreError:
        raise
    except Exception as error:  # a teacher's network may raise anything; the other cells continue
        return resolve.blocked(cell, FAILED, f"training: {cells.reason(error)}")
    below[same] = runs
    return resolve.resolved_again(cell, out)


def _shown(cell: Cell, tell: Listener) -> Callable[[int, int, float, float | None], None]:
    return lambda iteration, total, loss, validation: tell.learn(str(cell), iteration, total, loss, validation)


def _recipe(cell: Cell) -> Recipe | None:
    if cell.obstacle is None or cell.obstacle[0] != NEEDS_TRAINING or cell.needs is not None:
        return None
    try:
        return recipes.chosen(trained_files.learned(cell.spec), cell.teacher)
    except MissingError:
        return None


@contextmanager
def _threads() -> Iterator[None]:
    """Use a worker's number of torch threads, as more slow down such small steps; restore the caller's number."""
    before = torch.get_num_threads()
    torch.set_num_threads(THREADS)
    try:
        yield
    finally:
        torch.set_num_threads(before)
