"""Subjects of the `check` command: solvers, teachers and extractors from a plugin file, a name or a checkpoint."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from solverbench import plugins, registries, userdata
from solverbench.errors import PluginError, UnknownNameError
from solverbench.method.solver import Solver
from solverbench.method.spec import make
from solverbench.metrics.extractors import plugin
from solverbench.metrics.extractors.plugin import Plugged
from solverbench.teachers.loading import load_teacher
from solverbench.teachers.teacher import Teacher, _parts
from solverbench.wording import suggest

Checked = Solver | Teacher | Plugged
"""What is checked."""


def named(text: str) -> list[Checked]:
    """Return the subjects that `text` names: all in a plugin file, or in NAME/NAME.py for a folder NAME; else one.

    Raises:
        PluginError: the file does not load, or has no solver, teacher or extractor.
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
    if known or Path(text).exists() or re.search(r"[/\\.]", _parts(text)[0]):
        return [load_teacher(text)]
    if plugin.there(head):
        return [plugin.load(head, "cpu")]
    for registry in (registries.grids, registries.metrics, registries.losses, registries.extractors):
        if head in registry:
            kind = "built-in extractor" if registry is registries.extractors else registry.kind
            raise UnknownNameError(asked=f"check {text}", wrong=f"is a {kind}", remedy=_ONLY)
    usual = "give a name or a spec, of a plugin with --plugin FILE.py, or the path of a file or folder"
    remedy = suggest(head, [*registries.solvers, *registries.teachers], usual)
    if (beside := Path(f"{text}.py")).is_file():
        remedy = f"install the package, or check {beside}"
    raise UnknownNameError(asked=f"check {text}", wrong="neither a solver nor a teacher", remedy=remedy)


_ONLY = "only solvers, teachers and extractors of plugins are checked"


def everything() -> Iterator[tuple[str, Checked | None, str]]:
    """Yield (name, subject, "") for each registered solver, teacher and plugin's extractor.

    One that isn't available is (name, None, reason).
    """
    makers: list[tuple[Iterable[str], Callable[[str], Checked]]] = [
        (registries.solvers, make),
        (registries.teachers, load_teacher),
        (filter(plugin.there, registries.extractors), lambda name: plugin.load(name, "cpu")),
    ]
    for names, maker in makers:
        for name in names:
            try:
                yield name, maker(name), ""
            except PluginError as error:
                yield name, None, str(error)


def _of_file(path: Path) -> list[Checked]:
    found: list[Checked] = []
    offered = plugins.offered(plugins.load(path))
    for kind, name in offered:
        if kind == "solver":
            found.append(make(name))
        elif kind == "teacher":
            found.append(load_teacher(name))
        elif kind == "extractor":
            found.append(plugin.load(name, "cpu"))
    if not found:
        has = ", ".join(f"{kind} {name!r}" for kind, name in offered)
        raise PluginError(
            asked=f"check {path}",
            wrong=f"has only {has}",
            remedy=f"{_ONLY}: give a file of those",
        )
    return found
