"""Trained solvers as files: a few hundred numbers and the record of how they were made; and where they are found."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from importlib import resources
from pathlib import Path

from solverbench import plugins, userdata
from solverbench.errors import MissingError, RecordError
from solverbench.learned import recipes
from solverbench.learned.trained_files import Trained, file_name, learned, load
from solverbench.method.solver import LearnedSolver
from solverbench.teachers.teacher import Teacher

OUTDATED = "its code has changed since it was trained, or the schedule: its parameters give another tableau now"


def find(solver: str | LearnedSolver, teacher: Teacher, nfe: int, folders: Sequence[Path] = ()) -> Trained | None:
    """Return the trained solver from the first place that has it: `folders`, the user's own zoo, the packaged one.

    Args:
        folders: each with files <teacher>/<solver>-nfe<N>.safetensors, as OUT/trained is.

    Raises:
        RecordError: the file that is found can't be used; see `load`.
    """
    name = file_name(solver, nfe)
    for folder in (*folders, userdata.zoo(), packaged()):
        path = folder / teacher.name / name
        if path.is_file():
            trained = load(path, teacher=teacher, nfe=nfe)
            if trained.spec != learned(solver).spec:
                raise RecordError(f"{path}: holds {trained.spec}, not {learned(solver).spec}; train it again")
            return trained
    return None


def training_command(asked: str, nfe: int, teacher: Teacher, out: Path | None = None) -> str | None:
    """Return the command that trains a solver, its options kept; None if there is no recipe for it.

    Args:
        asked: the solver's spec.
        out: the results folder that the parameters should go to; the default one if None.
    """
    try:
        recipes.chosen(learned(asked), teacher)
    except MissingError:
        return None
    place = "" if out is None else f" --out {out}"
    words = f"solverbench train {asked} --nfe {nfe} --teacher {shlex.quote(teacher.spec or teacher.name)}{place}"
    return plugins.command(words)


def places(out: Path) -> dict[str, Path]:
    """Return where trained solvers are looked for, in order: of a results folder, the user's own, the packaged ones."""
    return {"run folder": out / "trained", "own zoo": userdata.zoo(), "packaged": packaged()}


def packaged() -> Path:
    """Return the folder of the trained solvers that the package carries."""
    with resources.as_file(resources.files("solverbench.registries")) as folder:
        return folder / "zoo"
