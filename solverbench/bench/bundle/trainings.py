"""Solvers with several training seeds as one row: the mean over the trainings, with the spread between them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

from solverbench import files
from solverbench.bench.cells import Cell
from solverbench.bench.measure import over_trainings
from solverbench.bench.outcome import Outcome
from solverbench.learned.trained_files import Trained
from solverbench.learned.training.train import best_of

_OPTION = re.compile(r":training=(\d+)")


def pooled(outcomes: Sequence[Outcome]) -> list[Outcome]:
    """Return the outcomes with finished cells that differ only in their solvers' option `training` as one.

    Its solver is `gs:training=0|1|2`, in the place of the first. It has the metrics that all of them have, their mean
    with an interval over images and training seeds, the images of the first and the summed cost. A single training, and
    one that isn't finished, stays as it is. Trainings by different recipes stay apart.
    """
    groups: dict[object, list[Outcome]] = {}
    for outcome in outcomes:
        groups.setdefault(_group(outcome), []).append(outcome)
    return [group[0] if len(group) == 1 else _pooled(group) for group in groups.values()]


def _group(outcome: Outcome) -> object:
    cell = outcome.cell
    if not outcome.measures or not _OPTION.search(cell.spec):
        return id(outcome)
    recipe = cell.trained.record.get("recipe", {}) if cell.trained is not None else {}
    settings = {name: value for name, value in recipe.items() if name != "training_seeds"}
    return cell.teacher.name, _OPTION.sub("", cell.spec), cell.nfe, files.digest(settings)


def _pooled(group: Sequence[Outcome]) -> Outcome:
    first = group[0]
    shared = [metric for metric in first.measures if all(metric in each.measures for each in group)]
    return replace(
        first,
        cell=_cell([each.cell for each in group]),
        status=next((each.status for each in group if each.status == "done"), first.status),
        measures={metric: over_trainings([each.measures[metric] for each in group]) for metric in shared},
        cost={f"{n} {label}": cost for n, each in enumerate(group) for label, cost in each.cost.items()},
        failed={metric: why for each in group for metric, why in each.failed.items()},
        statistics={},
        origin="; ".join(dict.fromkeys(each.origin for each in group if each.origin)),
        parts=tuple(group),
    )


def _cell(cells: Sequence[Cell]) -> Cell:
    """Return the first cell, named after all trainings; its flags are those of any of them."""
    seeds = "|".join(match[1] for cell in cells if (match := _OPTION.search(cell.spec)))
    first = cells[0]
    return replace(
        first,
        solver=_OPTION.sub(f":training={seeds}", first.solver),
        spec=_OPTION.sub(f":training={seeds}", first.spec),
        flags={code: sentence for cell in cells for code, sentence in cell.flags.items()},
        trained=_trained([cell.trained for cell in cells if cell.trained is not None]),
    )


def _trained(trainings: Sequence[Trained]) -> Trained | None:
    """Return the training with the lowest validation error, with the records of all."""
    known = [each for each in trainings if each.validation is not None]
    return best_of(known) if len(known) == len(trainings) and known else None
