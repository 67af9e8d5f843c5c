"""Learned cells without parameters, trained as part of a run: one that can't be trained doesn't end it."""

from __future__ import annotations

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
from solverbench.learned import recipes, trained_files
from solverbench.learned.recipes import Recipe
from solverbench.learned.training import train as training
from solverbench.sampling import endpoints
from solverbench.sampling.devices import THREADS
from solverbench.sampling.sample import BATCH

CHOICES = ("missing",)
"""What can be trained as part of a run: what isn't there."""

BACKWARD = 3
"""A call with gradient costs about so many without: the way back is two of them."""


@dataclass(frozen=True, eq=False)
class TrainingEstimate:
    """What training a cell's solver takes, roughly.

    Args:
        recipe: how it is trained.
        calls: of the network times images, one with gradient as `BACKWARD`.
        teacher_calls: among them for the teacher's images, as far as they aren't stored or another lesson's.
    """

    recipe: Recipe
    calls: int
    teacher_calls: int

    @property
    def text(self) -> str:
        """It in words."""
        count = self.recipe.training_seeds
        return f"{count} training{'s' * (count > 1)} of {self.recipe.iterations} iterations"


def check(choice: str | None) -> None:
    """Raise UserError if this can't be trained as part of a run."""
    if choice not in (None, *CHOICES):
        raise UserError(f"train {choice!r}: isn't something to train; use {' or '.join(CHOICES)}, or leave it out")


def lesson(cell: Cell, out: Path, claimed: set[Path]) -> TrainingEstimate | None:
    """Return what the training of a cell takes; None if it needs none, or nothing says how.

    Args:
        claimed: files of the teacher's images that earlier lessons will make; this one's are added.
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
    images = recipe.iterations * recipe.batch * (BACKWARD + recipe.adversarial)
    images += (1 + recipe.iterations // recipe.validate_every) * recipe.validation_size
    teacher = missing * cell.teacher.sampler_nfe
    return TrainingEstimate(recipe, images * cell.nfe * recipe.training_seeds + teacher, teacher)


def train_missing(wanted: Sequence[Cell], out: Path, device: str, tell: Listener) -> list[Cell]:
    """Train what the cells lack, one after another; return them as they stand then, in order.

    A training that can't be finished makes its cell a failed one. A second call goes on where the first one stopped.

    Raises:
        UserError: evaluation seeds that a training would see, before any training.
        StoreError: the folder can't be written.
    """
    todo = {cell: recipe for cell in wanted if (recipe := _recipe(cell)) is not None}
    for cell, recipe in todo.items():
        used = {"training": recipe.train, "validation": recipe.validation}
        seeds.check_apart(cell.protocol.seeds, used, f"{cell.solver} nfe={cell.nfe}")
    with _threads():
        return [_learned(cell, todo[cell], out, device, tell) if cell in todo else cell for cell in wanted]


def _learned(cell: Cell, recipe: Recipe, out: Path, device: str, tell: Listener) -> Cell:
    """The cell after its training."""
    try:
        solver, shown = trained_files.learned(cell.spec), _shown(cell, tell)
        training.train_best(solver, cell.nfe, cell.teacher, recipe, out=out, device=device, progress=shown)
    except StoreError:
        raise
    except Exception as error:  # a teacher's network may raise anything, and the other cells go on
        return resolve.blocked(cell, FAILED, f"training: {cells.reason(error)}")
    return resolve.again(cell, out)


def _shown(cell: Cell, tell: Listener) -> Callable[[int, int, float, float | None], None]:
    return lambda iteration, total, loss, validation: tell.learn(str(cell), iteration, total, loss, validation)


def _recipe(cell: Cell) -> Recipe | None:
    if cell.obstacle is None or cell.obstacle[0] != NEEDS_TRAINING:
        return None
    try:
        return recipes.chosen(trained_files.learned(cell.spec), cell.teacher)
    except MissingError:
        return None


@contextmanager
def _threads() -> Iterator[None]:
    """As many torch threads as a worker has: steps this small only lose by more. The caller's number comes back."""
    before = torch.get_num_threads()
    torch.set_num_threads(THREADS)
    try:
        yield
    finally:
        torch.set_num_threads(before)
