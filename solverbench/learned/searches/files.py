"""Files of searched grids: what a search found on one teacher for several numbers of intervals, and its cost.

A file lies where trained solvers lie, such as OUT/trained/<teacher>/grid-gits.json.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from solverbench import files
from solverbench.errors import RecordError
from solverbench.method.declarations import shown
from solverbench.method.grids import VERSIONS, function
from solverbench.method.schedules import Searched
from solverbench.teachers.teacher import Teacher

FORMAT = "solverbench-grid"
VERSION = 1

DIGITS = 6
"""Significant digits of the levels, so that they are the same decimal numbers wherever the search chose the same."""


@dataclass(frozen=True)
class SearchFile:
    """What one search found on one teacher.

    Args:
        search: name of the search.
        given: its parameters.
        teacher: name of the teacher; `teacher_identity` is its `ode`.
        found: levels and cost by number of intervals.
        record: how it was made: versions of the search and of torch, the processor.
    """

    search: str
    given: Mapping[str, Any]
    teacher: str
    teacher_identity: str
    found: Mapping[int, Searched]
    record: Mapping[str, Any] = field(default_factory=dict)


def file_name(search: str, given: Mapping[str, Any]) -> str:
    """Return the name of a search's file: `grid-gits.json`, `grid-gits-cost=l2.json`; only changed parameters."""
    usual = getattr(function(search), "__kwdefaults__", None) or {}
    told = "-".join(f"{key}={shown(value)}" for key, value in sorted(given.items()) if value != usual.get(key))
    if not re.fullmatch(r"[a-z0-9_.=+-]{0,60}", told):
        told = hashlib.sha256(told.encode()).hexdigest()[:8]
    return f"grid-{search}{told and '-'}{told}.json"


def find(search: str, given: Mapping[str, Any], teacher: Teacher, folders: Sequence[Path]) -> Iterator[SearchFile]:
    """Yield what was found by this search on this teacher, folder by folder; a file is read when its turn comes.

    Args:
        folders: folders with files <teacher>/grid-<search>.json.

    Raises:
        RecordError: a file is damaged, or of another teacher.
    """
    name = file_name(search, given)
    for folder in folders:
        path = folder / teacher.name / name
        if path.is_file():
            found = load(path)
            if found.teacher_identity != teacher.ode:
                made_on, asked = found.teacher_identity[:12], teacher.ode[:12]
                wrong = f"searched on teacher {found.teacher} ({made_on}), not on {teacher.name} ({asked})"
                raise RecordError(asked=path, wrong=wrong, remedy="delete it, so that it is searched again")
            if found.record.get("version") == VERSIONS.get(search, 1):
                yield found


def save(made: SearchFile, path: Path) -> None:
    """Write what a search found to `path` atomically; grids that the file already has are kept."""
    files.write_json(path, _body(made))


def load(path: Path) -> SearchFile:
    """Return what is in a file, checked against its own checksum.

    Raises:
        RecordError: it is damaged or of another kind.
    """
    body = files.read_json(path)
    remedy = "delete it, so that it is searched again"
    if body.get("format") != FORMAT or body.get("version") != VERSION:
        raise RecordError(asked=path, wrong="no searched grid of a version known here", remedy=remedy)
    try:
        found = {int(steps): _searched(each, int(steps), path) for steps, each in body["grids"].items()}
        about = body["search"], dict(body["given"]), body["teacher"], body["teacher_identity"]
        return SearchFile(*about, found, dict(body["record"]))
    except (KeyError, TypeError, ValueError) as error:
        raise RecordError(asked=path, wrong=f"an incomplete searched grid ({error})", remedy=remedy) from None


def rounded(levels: Sequence[float]) -> tuple[float, ...]:
    """Return levels with `DIGITS` significant digits."""
    return tuple(float(f"{level:.{DIGITS}g}") for level in levels)


def _body(made: SearchFile) -> dict[str, Any]:
    grids = {
        str(steps): {
            "levels": list(each.levels),
            "calls": each.calls,
            "seconds": each.seconds,
            "seeds": [each.seeds.start, each.seeds.stop - 1] if each.seeds else [],
        }
        for steps, each in sorted(made.found.items())
    }
    return {
        "format": FORMAT,
        "version": VERSION,
        "search": made.search,
        "given": dict(made.given),
        "teacher": made.teacher,
        "teacher_identity": made.teacher_identity,
        "grids": grids,
        "record": dict(made.record),
    }


def _searched(told: Mapping[str, Any], steps: int, path: Path) -> Searched:
    levels = tuple(float(level) for level in told["levels"])
    if len(levels) != steps + 1 or list(levels) != sorted(set(levels), reverse=True):
        raise ValueError(f"{len(levels)} levels for {steps} steps, or not falling")
    seeds = range(told["seeds"][0], told["seeds"][1] + 1) if told["seeds"] else range(0)
    return Searched(levels, int(told["calls"]), float(told["seconds"]), seeds, path)
