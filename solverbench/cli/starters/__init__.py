"""Starter packages for plugins, as `solverbench new` writes them; unmodified, they work and pass `check`."""

from __future__ import annotations

import importlib.util
import keyword
from importlib import resources
from pathlib import Path
from string import Template

from solverbench import registries
from solverbench._version import __version__
from solverbench.errors import UserError
from solverbench.plugins import WORD

KINDS = {"solver": "solvers", "learned-solver": "solvers", "teacher": "teachers", "extractor": "extractors"}
"""The kinds of starters, each with the entry-point group that offers it."""

_TARGETS = {"solver": "$Name", "learned-solver": "$Name", "teacher": "load", "extractor": "$Name"}


def write(kind: str, name: str, to: Path) -> list[Path]:
    """Write a new package to/name; return its files.

    Args:
        kind: a key of KINDS.
        name: the name of the solver, teacher or extractor, of its module and of its folder.

    Raises:
        UserError: the name is invalid or taken, or the folder exists.
    """
    _check(kind, name)
    folder = to / name
    if folder.exists():
        raise UserError(
            asked=f"new {kind} {name}",
            wrong=f"the folder {folder} exists already, and may hold your work",
            remedy="go on in it, remove it, or choose another name or another --to",
        )
    _check_module(kind, name)
    words = {"name": name, "Name": "".join(part.capitalize() for part in name.split("_")), "version": __version__}
    words |= {"kind": kind, "group": KINDS[kind], "target": Template(_TARGETS[kind]).substitute(words)}
    words |= {"package": f"solverbench-{name.replace('_', '-')}"}
    texts = resources.files(__name__)
    parts = {
        "pyproject.toml": texts / "pyproject.toml.txt",
        "README.md": texts / kind / "README.md.txt",
        f"{name}.py": texts / kind / "module.py.txt",
        f"tests/test_{name}.py": texts / kind / "test.py.txt",
    }
    written = []
    for place, text in parts.items():
        path = folder / place
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(Template(text.read_text(encoding="utf-8")).substitute(words), encoding="utf-8")
        written.append(path)
    return written


def _check(kind: str, name: str) -> None:
    asked = f"new {kind} {name}"
    if not WORD.fullmatch(name) or keyword.iskeyword(name):
        raise UserError(asked=asked, wrong="not a name", remedy="give a lowercase word of letters, digits and _")
    for registry in (registries.solvers, registries.teachers, registries.extractors):
        if name in registry:
            raise UserError(
                asked=asked,
                wrong=f"{'an' if registry.kind[0] in 'aeiou' else 'a'} {registry.kind} of this name exists already",
                remedy="choose another name",
            )


def _check_module(kind: str, name: str) -> None:
    """Refuse the name of a module that `import` would find in place of the new one.

    A folder without code, such as that of another starter in the current folder, is none: a module comes before it.
    """
    spec = importlib.util.find_spec(name)
    if spec is None or spec.origin is None:
        return
    place = "" if spec.origin in ("built-in", "frozen") else f", {spec.origin}"
    raise UserError(
        asked=f"new {kind} {name}", wrong=f"an installed module has this name{place}", remedy="choose another name"
    )
