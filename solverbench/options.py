"""Parsing of options, given as text or TOML values, by the types that a function or a dataclass declares."""

from __future__ import annotations

import dataclasses
import inspect
import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any, get_origin

from solverbench.errors import SpecError
from solverbench.wording import suggest

_KINDS = {"str": "text", "int": "a whole number", "float": "a finite number", "bool": "true or false"}


def of(declared: Callable[..., Any]) -> dict[str, str]:
    """Return the options that a function (its keyword-only arguments) or a dataclass (its fields) declares.

    Only options annotated as str, int, float or bool, or as one of them or None, are returned.
    """
    if isinstance(declared, type) and dataclasses.is_dataclass(declared):
        found = {field.name: _spelled(field.type) for field in dataclasses.fields(declared)}
    else:
        parameters = inspect.signature(declared).parameters.values()
        found = {p.name: _spelled(p.annotation) for p in parameters if p.kind is inspect.Parameter.KEYWORD_ONLY}
    plain = {name: text.replace(" ", "").removesuffix("|None") for name, text in found.items()}
    return {name: kind for name, kind in plain.items() if kind in _KINDS}


def read(
    asked: str, declared: Callable[..., Any], given: Mapping[str, Any], beside: Iterable[str] = ()
) -> dict[str, Any]:
    """Return `given` with each value in its declared type.

    Args:
        asked: the user's text, for messages.
        declared: function or dataclass, see `of`.
        given: option name to text, as in a spec, or to TOML value.
        beside: names of further options that are read elsewhere, for suggestions.

    Raises:
        SpecError: an undeclared option, or a value of another type.
    """
    kinds = of(declared)
    for key in given:
        if key not in kinds:
            names = sorted({*kinds, *beside})
            remedy = suggest(key, names, f"it takes {', '.join(names) or 'no options'}.")
            raise SpecError(asked=asked, wrong=f"no option {key!r}", remedy=remedy)
    return {key: _value(asked, key, kinds[key], value) for key, value in given.items()}


def parse(asked: str, kind: Any, text: str) -> Any:
    """Return `text` as a value of a type.

    Args:
        asked: the user's text, for messages.
        kind: bool, int, float, str, one of them or None, or a tuple of whole numbers. `none` is None where allowed,
            but not for text.

    Raises:
        SpecError: the text is not a value of that type.
    """
    base = next((each for each in (bool, int, float, str) if each == kind or each in _members(kind)), tuple)
    if text == "none" and base is not str and type(None) in _members(kind):
        return None
    try:
        if base is bool:
            return {"true": True, "false": False}[text.lower()]
        return tuple(int(part) for part in text.split("+")) if base is tuple else base(text)
    except (ValueError, KeyError):
        raise SpecError(asked=asked, wrong=f"{text!r} isn't {_WANTED[base]}", remedy=f"give {_WANTED[base]}") from None


_WANTED = {
    bool: "true or false", int: "a whole number", float: "a number", tuple: "whole numbers joined with +",
}  # fmt: skip


def _members(kind: Any) -> tuple[Any, ...]:
    """Return the members of a union type; empty for any other type."""
    return () if get_origin(kind) is tuple else getattr(kind, "__args__", ())


def outside(value: float, *, low: float | None = None, high: float | None = None, above: float | None = None) -> str:
    """Return "" if a number is finite and within the bounds, else the requirement as text; `above` is exclusive."""
    fits = (low is None or value >= low) and (high is None or value <= high) and (above is None or value > above)
    if math.isfinite(value) and fits:
        return ""
    parts = {"above": above, "at least": low, "at most": high}
    return "a finite number " + " and ".join(f"{word} {end:g}" for word, end in parts.items() if end is not None)


def _value(asked: str, key: str, kind: str, value: Any) -> Any:
    """Return the value in its declared type; text is converted, any other value must have that type."""
    wrong = SpecError(asked=asked, wrong=f"{key}={value} isn't {_KINDS[kind]}", remedy=f"give {key} such a value")
    text = value if isinstance(value, str) else None
    if kind == "str":
        if text is None:
            raise wrong
        return text
    if kind == "bool":
        if text is not None and text in ("true", "false"):
            return text == "true"
        if not isinstance(value, bool):
            raise wrong
        return value
    if isinstance(value, bool):
        raise wrong
    try:
        number = float(value)
    except (TypeError, ValueError):
        raise wrong from None
    if not math.isfinite(number) or (kind == "int" and number != int(number)):
        raise wrong
    return int(number) if kind == "int" else number


def _spelled(annotation: Any) -> str:
    return annotation if isinstance(annotation, str) else getattr(annotation, "__name__", str(annotation))
