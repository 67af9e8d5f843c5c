"""The options of teachers that a run varies, such as guidance: the axes of its report besides solver and NFE."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from solverbench.teachers.teacher import SHOWN, Teacher
from solverbench.wording import ends


@dataclass(frozen=True)
class Axes:
    """The options that differ between teachers of one network.

    Args:
        options: their names, in the order of their first appearance.
        models: name of each teacher to its name without these options.
        values: name of each teacher to the value of each option that differs between teachers of its network; empty
            where it is not given, and its default isn't known.
        shown: name of each teacher that a reader sees by another name to that one.
    """

    options: tuple[str, ...] = ()
    models: Mapping[str, str] = field(default_factory=dict)
    values: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    shown: Mapping[str, str] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """Return the record's entries, as plain JSON values; none for options that don't differ and whole names."""
        names = {"shown": dict(self.shown)} if self.shown else {}
        if not self.options:
            return names
        told = {name: {"model": model, "values": dict(self.values[name])} for name, model in self.models.items()}
        return {"axes": {"options": list(self.options), "teachers": told}, **names}

    def columns(self, teacher: str, taken: Iterable[str]) -> dict[str, str]:
        """Return the columns of a teacher's rows, each named after an option.

        Args:
            taken: names of other columns; an option of such a name is `teacher_NAME`.
        """
        return {column(name, taken): self.values.get(teacher, {}).get(name, "") for name in self.options}


def column(option: str, taken: Iterable[str]) -> str:
    """Return the name of an option's column."""
    return f"teacher_{option}" if option in taken else option


def of(teachers: Iterable[Teacher]) -> Axes:
    """Return the options that differ between teachers of one network, as their specs have them."""
    listed = list({each.name: each for each in teachers}.values())
    groups: dict[str, list[Teacher]] = {}
    for each in listed:
        groups.setdefault(each.base, []).append(each)
    varied = {base: [name for name in _given(group) if _differs(name, group)] for base, group in groups.items()}
    return Axes(
        tuple(dict.fromkeys(name for names in varied.values() for name in names)),
        {each.name: _model(each, varied[each.base]) for each in listed},
        {each.name: {name: _value(each, name) for name in varied[each.base]} for each in listed},
        {each.name: each.shown for each in listed if each.shown != each.name},
    )


def _model(teacher: Teacher, varied: Sequence[str]) -> str:
    """Return a teacher's name without the options that vary, and as short as `shortened` makes it."""
    if not varied:
        return teacher.shown
    if "name" in teacher.options:
        return teacher.model
    return ends(teacher.without(varied), SHOWN)


def _given(group: Iterable[Teacher]) -> list[str]:
    return list(dict.fromkeys(name for each in group for name in each.options if name != "name"))


def _differs(name: str, group: Iterable[Teacher]) -> bool:
    return len({_value(each, name) for each in group}) > 1


def _value(teacher: Teacher, name: str) -> str:
    """Return an option as a teacher's name has it, of a path its stem; if it isn't given, that of its condition."""
    text, told = teacher.options.get(name), teacher.condition
    if text is not None:
        return Path(text).stem if "/" in text else text
    if name == "guidance" and told is not None:
        return f"{told.guidance:g}"
    return (told.classes or "") if name == "classes" and told is not None else ""
