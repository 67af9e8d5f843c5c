"""Subjects of the `check` command: solvers and teachers from a plugin file, a name, a spec or a checkpoint."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from solverbench import plugins, registries, userdata
from solverbench.errors import PluginError, UnknownNameError
from solverbench.method.solver import Solver
from solverbench.method.spec import make
from solverbench.teachers.loading import load_teacher
from solverbench.teachers.teacher import Teacher
from solverbench.wording import suggest


def named(text: str) -> list[Solver | Teacher]:
    """Return the subjects that `text` names: all in a plugin file, or in NAME/NAME.py for a folder NAME; else one.

    Raises:
        PluginError: the file does not load, or has neither a solver nor a teacher.
        UserError: the name, spec or checkpoint cannot be read.
    """
    head = text.partition(":")[0]
    if text.endswith(".py"):
        return _of_file(Path(text))
    if head in registries.solvers:
        return [make(text)]
    known = head in registries.teachers or (userdata.teachers() / f"{head}.toml").is_file()
    if not known and (inside := Path(text) / f"{Path(text).name}.py").is_file():
        return _of_file(inside)
    if known or Path(text).exists():
        return [load_teacher(text)]
    for registry in (registries.grids, registries.metrics, registries.losses):
        if head in registry:
            raise UnknownNameError(
                asked=f"check {text}", wrong=f"is a {registry.kind}", remedy="only solvers and teachers are checked"
            )
    remedy = suggest(head, [*registries.solvers, *registries.teachers], "give a name, a spec or a .py file")
    if (beside := Path(f"{text}.py")).is_file():
        remedy = f"install the package, or check {beside}"
    raise UnknownNameError(asked=f"check {text}", wrong="neither a solver nor a teacher", remedy=remedy)


def everything() -> Iterator[tuple[str, Solver | Teacher | None, str]]:
    """Yield (name, solver or teacher, "") for each registered name, or (name, None, reason) if not available."""
    for registry in (registries.solvers, registries.teachers):
        for name in registry:
            try:
                yield name, make(name) if registry is registries.solvers else load_teacher(name), ""
            except PluginError as error:
                yield name, None, str(error)


def _of_file(path: Path) -> list[Solver | Teacher]:
    found: list[Solver | Teacher] = []
    offered = plugins.offered(plugins.load(path))
    for kind, name in offered:
        if kind == "solver":
            found.append(make(name))
        elif kind == "teacher":
            found.append(load_teacher(name))
    if not found:
        has = ", ".join(f"{kind} {name!r}" for kind, name in offered)
        raise PluginError(
            asked=f"check {path}",
            wrong=f"has only {has}",
            remedy="only solvers and teachers are checked: give a file of those",
        )
    return found
