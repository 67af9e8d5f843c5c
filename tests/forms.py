"""The form of a figure: what decides by which code it is composed, without its names and numbers."""

import math
from collections.abc import Mapping

_composed = set()


def once(content, compose):
    """Compose a figure unless one of its form was composed in this process before."""
    if (form := of(content)) not in _composed:
        compose(content)
        _composed.add(form)


def of(content):
    """Its kind, its columns with the sorts of their values, its constants, and whether and what images it shows."""
    columns = {name: (_many(set(values)), frozenset(map(_sort, values))) for name, values in content.data.items()}
    kinds = frozenset(content.data["kind"]) if "kind" in columns else None
    images = {batch.shape[1:] for batch in (content.stored or {}).values()}
    return content.kind, tuple(columns.items()), kinds, _sort(content.figure), frozenset(images)


def _many(things):
    """None, one or more: layouts differ by that."""
    return min(len(things), 2)


def _sort(value):
    if isinstance(value, Mapping):
        return _many(value), frozenset(map(_sort, value.values()))
    if isinstance(value, list | tuple):
        return _many(value), frozenset(map(_sort, value))
    if isinstance(value, int | float) and not isinstance(value, bool):
        return "nan" if math.isnan(value) else "infinite" if math.isinf(value) else (value > 0) - (value < 0)
    return type(value) if isinstance(value, str) else value
