"""Specs: `name:key=value:key=value` and lists of them, with `|` for alternatives and `@path` for a file."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable
from typing import Any

from solverbench import options, plugins, registries
from solverbench.errors import SpecError, UnknownNameError
from solverbench.method.declarations import declared, unknown_option
from solverbench.method.solver import Solver

PRESETS: dict[str, dict[str, Any]] = {"ddim": {"levels": "time_uniform"}}
"""Options that an alias gives unless its spec does. DDIM steps equally in the model's time, Euler's method in EDM's."""

GRID_BYTES = 1 << 17
"""Largest size of a file of levels, in bytes; at most 1000 calls need 1001 levels."""


def make(spec: str) -> Solver:
    """Return the solver that `spec` names, e.g. "dpm:order=2:grid=logsnr".

    Raises:
        UnknownNameError: no solver or grid of that name.
        SpecError: the form is not name:key=value, an option is given twice, or an option or value is not known.
    """
    name, *parts = _split(spec)
    cls = solver_class(name)
    given = {}
    for part in parts:
        key, equals, text = part.partition("=")
        if not equals or not key or not text:
            raise SpecError(asked=spec, wrong=f"{part!r} isn't key=value", remedy=f"write {name}:key=value:key=value")
        if key not in declared(cls):
            raise unknown_option(spec, cls, key)
        field, kind = declared(cls)[key]
        if field.name in given:
            raise SpecError(asked=spec, wrong=f"{key!r} is given twice", remedy="give it once")
        given[field.name] = options.parse(spec, kind, _read_levels(spec, text[1:]) if text[0] == "@" else text)
    with plugins.blamed(registries.solvers, name):
        return cls(**(PRESETS.get(name, {}) | given))


def solver_class(name: str) -> type[Solver]:
    """Return the class behind a solver's name or alias.

    Raises:
        UnknownNameError: no such solver.
        PluginError: a plugin offers it but does not load.
    """
    try:
        cls = plugins.get(registries.solvers, name)
    except UnknownNameError:
        if found := registries.foreign(name):
            raise _translated(found[0]) from None
        if name in registries.grids:
            raise UnknownNameError(
                asked=f"solver {name!r}",
                wrong="a grid, not a solver",
                remedy=f"name a solver that takes it, as in unipc:grid={name}",
            ) from None
        raise
    assert isinstance(cls, type)
    assert issubclass(cls, Solver)
    return cls


def _translated(found: registries.Foreign) -> UnknownNameError:
    """Return the error for a sampler or scheduler of diffusers or ComfyUI that was given as a solver's name."""
    about = f"see 'solverbench info {found.name}'"
    remedy = f"write {found.spec}; {about}" if found.spec and found.agrees != "none" else about
    wrong = f"not a solver here, but one of the {found.title[0].lower()}{found.title[1:]}"
    return UnknownNameError(asked=f"solver {found.name!r}", wrong=wrong, remedy=remedy)


def expand(text: str) -> list[str]:
    """Return the specs of a comma-separated list in order without repeats, each `a|b` expanded.

    Raises:
        SpecError: the list or an item of it is empty.
    """
    found: dict[str, None] = {}
    for item in text.split(","):
        if not item.strip():
            raise SpecError(
                asked=f"solvers {text!r}",
                wrong="an empty name",
                remedy="give names joined with commas, as in gas,dpm:order=2",
            )
        if re.match(r"\s*\w+=", item):
            before = next(reversed(found), "dpm")
            raise SpecError(
                asked=f"solvers {text!r}",
                wrong=f"{item.strip()!r} is an option, not a solver",
                remedy=f"write it after its solver and a colon, as in {before}:{item.strip()}",
            )
        found.update(dict.fromkeys(_alternatives(item.strip())))
    return list(found)


def calls(nfe: str | int | Iterable[int]) -> list[int]:
    """Return numbers of calls given as text, see `numbers`, as one number or as several.

    Raises:
        SpecError: see `numbers`; also none given.
    """
    if isinstance(nfe, Iterable) and not isinstance(nfe, str):
        nfe = ",".join(map(str, nfe))
    return numbers(str(nfe))


def numbers(text: str) -> list[int]:
    """Return the sorted whole numbers of `3-10`, `3,5,8` or `4-10:2` (a range with a stride), each once.

    Raises:
        SpecError: another form, a reversed range, a number below 1, or one above 1000.
    """
    found: set[int] = set()
    for part in text.split(","):
        match = re.fullmatch(r"\s*(\d+)\s*(?:-\s*(\d+)\s*(?::\s*(\d+)\s*)?)?", part)
        if match is None:
            raise SpecError(
                asked=f"nfe {text!r}", wrong=f"{part!r} isn't a number or a range", remedy="write 3-10, 3,5,8 or 4-10:2"
            )
        first, last, stride = int(match[1]), int(match[2] or match[1]), int(match[3] or 1)
        if last < first:
            raise SpecError(
                asked=f"nfe {text!r}", wrong=f"the range {part.strip()} runs backwards", remedy=f"write {last}-{first}"
            )
        if first < 1 or stride < 1:
            raise SpecError(
                asked=f"nfe {text!r}",
                wrong=f"{part.strip()} has a number below 1",
                remedy="a solver makes at least one call",
            )
        if last > 1000:
            raise SpecError(asked=f"nfe {text!r}", wrong=f"{last} calls", remedy="at most 1000 are supported")
        found.update(range(first, last + 1, stride))
    return sorted(found)


def ranges(found: Iterable[int]) -> str:
    """Return whole numbers as text, consecutive ones joined: "2, 4-6"."""
    runs: list[list[int]] = []
    for number in sorted(found):
        if runs and runs[-1][-1] == number - 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    return ", ".join(f"{run[0]}-{run[-1]}" if len(run) > 1 else str(run[0]) for run in runs)


def _split(spec: str) -> list[str]:
    """Return the parts between colons; a file path comes last and may contain colons."""
    head, at, path = spec.partition("=@")
    parts = head.split(":")
    if at:
        parts[-1] += at + path
    return parts


def _alternatives(item: str) -> list[str]:
    parts = []
    for part in _split(item):
        key, equals, values = part.partition("=")
        parts.append([f"{key}={value}" for value in values.split("|")] if equals and values[:1] != "@" else [part])
    return [":".join(choice) for choice in itertools.product(*parts)]


def _read_levels(spec: str, path: str) -> str:
    try:
        with open(path, "rb") as file:
            content = file.read(GRID_BYTES + 1)
        if len(content) > GRID_BYTES:
            wrong = f"{path!r} has more than {GRID_BYTES} bytes"
            raise SpecError(asked=spec, wrong=wrong, remedy="give a text file of a grid's levels")
        words = content.decode().replace(",", " ").split()
    except (OSError, UnicodeDecodeError) as error:
        raise SpecError(
            asked=spec, wrong=f"can't read {path!r} ({error})", remedy="give a text file of numbers"
        ) from None
    return "+".join(words)
