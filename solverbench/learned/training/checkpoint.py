"""Checkpoints of a training: everything that its remaining iterations depend on."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from solverbench.errors import RecordError, UserError
from solverbench.learned import trained_files
from solverbench.learned.searches import files as grid_files
from solverbench.learned.training.optimiser import optimiser_tensors, restore_optimiser
from solverbench.learned.training.trainer import Best, Trainer
from solverbench.tensors import read, write

COLUMNS = (
    "iteration",  # below 0 where the discriminator is trained alone
    "loss",  # mean of distance + weight * adversarial, before the step
    "distance",  # mean of the distillation loss
    "adversarial",  # mean of the generator's loss
    "discriminator",  # mean of the discriminator's adversarial loss, of its own step
    "d_real",
    "d_fake",
    "r1",
    "r2",
    "gradient",  # norm over the trained parameters, before clipping
    "accepted",  # share of the batch's noises that moved
    "validation",  # see `validation_error`; with the averaged parameters, after the step
    "validation_loss",  # the same with the recipe's own loss, if validate_by=loss
)
"""Columns of a run's history; a missing number is NaN, and empty in the CSV file."""

FORMAT, VERSION = "solverbench-checkpoint", 2


def save(student: Trainer, path: Path) -> None:
    """Write everything that the remaining iterations depend on."""
    best = student.best
    tensors = {**student.descent.tensors(), "average": student.average, "best": best.vector}
    tensors["history"] = torch.tensor([_values(row) for row in student.history], dtype=torch.float64)
    tensors["path"] = torch.stack([vector for _, vector in student.path])
    for number, relaxation in enumerate(student.relaxations):
        tensors[f"noise{number}"] = relaxation.moved
    tensors |= {f"best_noise{number}": noise for number, noise in enumerate(best.noises)}
    if student.discriminator is not None:
        tensors |= {f"discriminator.{name}": tensor for name, tensor in student.discriminator.state_dict().items()}
        tensors |= optimiser_tensors("discriminator_adam", student.discriminator_adam)
    known = [best.criterion, best.iteration, best.validation] if math.isfinite(best.criterion) else None
    metadata = {
        "iteration": student.iteration,
        "pretrained": student.pretrained,
        "best": known,
        "seconds": student.elapsed,
        "calls": student.calls,
        "path": [iteration for iteration, _ in student.path],
        "patience": student.patience.state(),
        "relaxations": [[each.rate, each.accepted] for each in student.relaxations],
    }
    write(path, tensors, metadata, FORMAT, VERSION)


def restore(student: Trainer, path: Path) -> None:
    """Restore `student` from a file written by `save`; RecordError if it is damaged."""
    tensors, metadata = read(path, FORMAT, VERSION)
    try:
        student.descent.restore(tensors)
        student.average.copy_(tensors["average"])
        noises = tuple(tensors[name] for name in sorted(tensors) if name.startswith("best_noise"))
        criterion, iteration, validation = metadata["best"] or (math.inf, 0, math.inf)
        student.best = Best(criterion, iteration, tensors["best"], validation, noises)
        student.history = [_row(values) for values in tensors["history"].tolist()]
        student.path = list(zip(metadata["path"], tensors["path"], strict=True))
        for number, (each, state) in enumerate(zip(student.relaxations, metadata["relaxations"], strict=True)):
            each.moved.copy_(tensors[f"noise{number}"])
            each.rate, each.accepted = state
        if student.discriminator is not None:
            names = student.discriminator.state_dict()
            student.discriminator.load_state_dict({name: tensors[f"discriminator.{name}"] for name in names})
            restore_optimiser("discriminator_adam", student.discriminator_adam, tensors)
        student.patience.restore(metadata["patience"])
        student.iteration, student.seconds = int(metadata["iteration"]), float(metadata["seconds"])
        student.pretrained = int(metadata.get("pretrained", 0))  # checkpoints of earlier versions have none
        student.calls = dict(metadata["calls"])
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise RecordError(
            asked=path, wrong=f"an incomplete checkpoint ({error})", remedy="delete it to start the run again"
        ) from None


def _values(row: Mapping[str, float]) -> list[float]:
    return [row.get(name, math.nan) for name in COLUMNS]


def _row(values: Sequence[float]) -> dict[str, float]:
    return {name: value for name, value in zip(COLUMNS, values, strict=True) if not math.isnan(value)}


def check_trained(path: Path) -> None:
    """Read the file of a trained solver, a training checkpoint or a searched grid completely, to check it.

    Raises:
        RecordError: it is damaged or cannot be used.
    """
    if path.suffix == ".json":
        grid_files.load(path)
        return
    if path.stem == "checkpoint":
        read(path, FORMAT, VERSION)
        return
    try:
        trained_files.load(path)
    except RecordError:
        raise
    except UserError as error:
        raise RecordError.of(error, asked=path) from None
