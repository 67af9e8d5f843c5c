"""Lookup of trained solvers: in a results folder, the user's own zoo and the package."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import replace
from importlib import resources
from pathlib import Path

from solverbench import plugins, userdata
from solverbench.errors import MissingError, RecordError
from solverbench.learned import recipes
from solverbench.learned.trained_files import Trained, file_name, learned, load
from solverbench.method.solver import LearnedSolver
from solverbench.teachers.teacher import Teacher

OUTDATED = "its code or the schedule has changed since it was trained, so its parameters now give another tableau"


def find(solver: str | LearnedSolver, teacher: Teacher, nfe: int, folders: Sequence[Path] = ()) -> Trained | None:
    """Return the trained solver from the first place that has it: `folders`, the user's own zoo, the packaged zoo.

    A solver with the option `training` has a file of its own, or is one of those in the first file without it.

    Args:
        folders: folders with files <teacher>/<solver>-nfe<N>.safetensors, such as OUT/trained.

    Raises:
        RecordError: the file found cannot be used; see `load`.
    """
    wanted = learned(solver)
    for folder in (*folders, userdata.zoo(), packaged()):
        found = _in(folder / teacher.name, wanted, teacher, nfe)
        if found is None and wanted.training is not None:
            several = _in(folder / teacher.name, replace(wanted, training=None), teacher, nfe)
            if several is not None:  # a file of another place may be of another recipe
                return several.training(wanted.training)
        if found is not None:
            return found
    return None


def _in(folder: Path, solver: LearnedSolver, teacher: Teacher, nfe: int) -> Trained | None:
    """Return what the solver's own file in a folder holds; None if it isn't there."""
    path = folder / file_name(solver, nfe)
    if not path.is_file():
        return None
    trained = load(path, teacher=teacher, nfe=nfe)
    if trained.spec != solver.spec:
        raise RecordError(asked=path, wrong=f"holds {trained.spec}, not {solver.spec}", remedy="train it again")
    return trained


def training_command(asked: str, nfe: int, teacher: Teacher, out: Path | None = None) -> str | None:
    """Return the command that trains a solver with its options; None if it has no recipe.

    Args:
        asked: spec of the solver.
        out: results folder for the parameters; the default one if None.
    """
    try:
        recipes.chosen(learned(asked), teacher)
    except MissingError:
        return None
    place = "" if out is None else f" --out {out}"
    words = f"solverbench train {asked} --nfe {nfe} --teacher {shlex.quote(teacher.spec or teacher.name)}{place}"
    return plugins.command(words)


def places(out: Path) -> dict[str, Path]:
    """Return the folders searched for trained solvers, in order: the results folder's, the user's own, the packaged."""
    return {"run folder": out / "trained", "own zoo": userdata.zoo(), "packaged": packaged()}


def origin(path: Path | None) -> str:
    """Return where a file of a trained solver or of a search lies: packaged, own zoo, run folder; empty if nowhere."""
    if path is None:
        return ""
    shared = {"own zoo": userdata.zoo(), "packaged": packaged()}
    return next((name for name, folder in shared.items() if path.is_relative_to(folder)), "run folder")


def packaged() -> Path:
    """Return the folder of the packaged trained solvers."""
    with resources.as_file(resources.files("solverbench.registries")) as folder:
        return folder / "zoo"
