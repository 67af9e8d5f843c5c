"""Options of a solver class: how they are declared, checked, and written in a spec."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from functools import cache
from typing import Any, ClassVar, get_type_hints

from solverbench import options
from solverbench.errors import GridError, SpecError
from solverbench.method import grids
from solverbench.wording import suggest

RESERVED = ("rho", "shift", "offset")
"""Parameters of grids whose names mean these in every class; the others a class may use for something of its own."""


class Unnamed(str):
    """The grid that a solver takes by default; another one takes its place on a schedule that has its own default."""

    __slots__ = ()


def option(
    default: Any, *, key: str | None = None, choices: Sequence[Any] = (), above: float | None = None, help: str = ""
) -> Any:
    """Declare an option of a solver.

    Args:
        default: value when a spec does not name the option.
        key: name in a spec; the attribute's name if None.
        choices: allowed values; any value of its type if empty.
        above: exclusive lower bound of a number.
        help: one line for `solverbench info`.
    """
    metadata = {"key": key, "choices": tuple(choices), "above": above, "help": help}
    default = Unnamed(default) if key == "grid" else default
    return dataclasses.field(default=default, metadata=metadata)


@cache
def declared(cls: type) -> dict[str, tuple[dataclasses.Field[Any], Any]]:
    """Return the options of a solver class: spec key to (field, type)."""
    hints = get_type_hints(cls)
    return {spec_key(f): (f, hints[f.name]) for f in dataclasses.fields(cls) if "choices" in f.metadata}


def read_levels(asked: str, text: str) -> str | list[float]:
    """Return the value of a levels option: the name of a grid, or the levels themselves.

    Raises:
        GridError: `text` is neither a name nor numbers joined with +.
    """
    if "+" not in text and not text[:1].isdigit():
        return text
    try:
        return [float(part) for part in text.split("+")]
    except ValueError:
        raise GridError(
            asked=asked, wrong="not a list of numbers", remedy="join levels with +, as in 80+9.7+0.8+0.002"
        ) from None


def write_levels(levels: str | Sequence[float]) -> str:
    """Return the canonical text of the result of `read_levels`: aliases resolved, levels with all their digits.

    Raises:
        UnknownNameError: no such grid.
    """
    return grids.resolve(levels) if isinstance(levels, str) else "+".join(map(repr, levels))


def unknown_option(asked: str, cls: Any, key: str) -> SpecError:
    """Return the error for an option that the solver does not have."""
    keys = sorted(declared(cls))
    told = [each for each in keys if each in RESERVED or each not in grids.PARAMETERS]
    remedy = suggest(key, keys, f"it has {', '.join(told)}, and what its grid takes.")
    return SpecError(asked=asked, wrong=f"{cls.name} has no option {key!r}", remedy=remedy)


def own_defaults(cls: type) -> None:
    """Make a plain class attribute with the name of an inherited option the option's default in `cls`.

    A dataclass reads annotated attributes alone, and would ignore it. An attribute with the name of a grid's parameter
    that isn't `RESERVED` stays the class's own.

    Raises:
        SpecError: an attribute that is taken for the default grid, and isn't read.
    """
    mine = vars(cls)
    if "grid_name" in mine or isinstance(mine.get("grid"), (str, list, tuple)):
        name = "grid_name" if "grid_name" in mine else "grid"
        raise SpecError(
            asked=f"class {cls.__qualname__}: {name} = {mine[name]!r}",
            wrong="not the default grid's name",
            remedy='give levels = NAME, as in levels = "logsnr"',
        )
    annotated = mine.get("__annotations__", {})
    free = [name for name in grids.PARAMETERS if name not in RESERVED and name not in annotated]
    if plain := [name for name in free if name in mine and not _is_field(mine[name])]:
        annotated = cls.__annotations__ = {**annotated, **dict.fromkeys(plain, ClassVar[Any])}
    for base in reversed(cls.__mro__[1:]):
        for name, field in vars(base).get("__dataclass_fields__", {}).items():
            if name not in mine or name in annotated or "choices" not in field.metadata:
                continue
            given = mine[name]
            if _is_field(given):
                metadata = {**given.metadata, "key": given.metadata["key"] or field.metadata["key"]}
                given = given.default
            elif callable(given) or isinstance(given, property):
                continue
            else:
                metadata = dict(field.metadata)
            given = Unnamed(given) if metadata["key"] == "grid" and isinstance(given, str) else given
            setattr(cls, name, dataclasses.field(default=given, metadata=metadata))
            cls.__annotations__ = {**annotated, name: get_type_hints(base)[name]}
            annotated = cls.__annotations__


def _is_field(value: Any) -> bool:
    return isinstance(value, dataclasses.Field)


def check(asked: str, field: dataclasses.Field[Any], kind: Any, value: Any) -> None:
    """Check the value of an option.

    Args:
        asked: subject of the error, as in "heun:afs=2".
        kind: declared type.

    Raises:
        SpecError: it is of another type, none of the choices, or out of range.
    """
    allowed = getattr(kind, "__args__", (kind,))
    fits = isinstance(value, (*allowed, int) if float in allowed else allowed)
    absent = value is None and type(None) in allowed
    if not fits or (isinstance(value, bool) is not (bool in allowed) and not absent):
        raise SpecError(
            asked=asked,
            wrong=f"{value!r} is {type(value).__name__}",
            remedy=f"give {' or '.join(k.__name__ for k in allowed)}",
        )
    choices, above = field.metadata["choices"], field.metadata["above"]
    if choices and value not in choices and not absent:
        raise SpecError(
            asked=asked,
            wrong=f"{shown(value)} isn't one of its values",
            remedy=f"use {' or '.join(map(shown, choices))}",
        )
    if above is not None and value is not None and (wanted := options.outside(value, above=above)):
        raise SpecError(asked=asked, wrong=f"{value:g} is out of range", remedy=f"give {wanted}")


def spec_key(field: dataclasses.Field[Any]) -> str:
    """Return the name of an option in a spec."""
    return str(field.metadata["key"] or field.name)


def shown(value: Any) -> str:
    """Return a value as it is written in a spec."""
    return (
        str(value).lower() if isinstance(value, bool) else f"{value:.12g}" if isinstance(value, float) else str(value)
    )
