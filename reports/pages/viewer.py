"""The images of a report as one web page: the text of images.html, where any two cells can be compared.

It is self-contained, and its images are lossless. Without JavaScript it still shows all of them.
"""

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from markupsafe import Markup

from solverbench.reports.bundle import MARKS, MEANINGS
from solverbench.reports.figures.sprites import LOSSLESS, MOST_ALONE, Sprites, blocks, sprites
from solverbench.reports.pages import html
from solverbench.reports.pages.content import Report, one_per_cell

NAME = "images.html"
_WORDS = 300
"""Largest number of characters of a class or prompt on the page."""


def page(report: Report) -> str | None:
    """Return the text of images.html; None if the bundle has no image of a cell that it lists."""
    bundle = report.bundle
    shown = sprites(bundle.images, MOST_ALONE, LOSSLESS)
    teachers = [found for name in report.teachers if (found := _teacher(report, name, shown))]
    if not teachers:
        return None
    style = html.asset("page.css") + html.asset("viewer.css")
    script = html.asset("shared.js") + html.asset("viewer.js")
    given = [{key: value for key, value in each.items() if key not in ("own", "rows")} for each in teachers]
    context = {
        **html.heading(report), "teachers": teachers, "note": shown.note, "most": f"{MOST_ALONE >> 20} MB",
        "version": str(bundle.record["environment"].get("solverbench", "")), "data": html.embedded(given),
        "style": Markup(style), "script": Markup(script),
        "style_hash": html.digest(style), "script_hash": html.digest(script),
    }  # fmt: skip
    return str(html.template("viewer.html.j2").render(context))


def _teacher(report: Report, name: str, shown: Sprites) -> dict[str, Any] | None:
    """Return a teacher's images: what the script needs, and the rows of the table; None if there are none."""
    frame = one_per_cell(report.bundle.frame[report.bundle.frame["teacher"] == name])
    keys = {(solver, nfe): key for key, solver, nfe in blocks(list(shown.uris), name)}
    taught = next((key for (solver, _), key in keys.items() if solver == "teacher"), None)
    there = [key for row in zip(frame["solver"], frame["nfe"], strict=True) if (key := keys.get(row))]
    if not there:
        return None
    count = min(shown.counts[key] for key in [*there, *([taught] if taught else [])])
    budgets, found = sorted({int(nfe) for nfe in frame["nfe"]}), list[dict[str, Any]]()
    numbers = _seeds(frame["seeds"].to_list(), count)
    batches = report.bundle.images

    def block(key: str, label: str, nfe: int) -> dict[str, Any]:
        about = f"{label}, {nfe} calls" if key == taught else f"{label}, NFE {nfe}"
        own = _apart(batches[key], batches[taught], count) if taught and key != taught else []
        made = {"label": label, "nfe": nfe, "about": about, "rmse": own, "teacher": key == taught,
                "side": shown.sides[key]}  # fmt: skip
        found.append(made)
        return made | {"index": len(found) - 1, "uri": shown.uris[key], "mean": _mean(own),
                       "alt": f"{about}: {count} image{'s' * (count > 1)}, {numbers[0]} to {numbers[-1]}"}  # fmt: skip

    own = block(taught, "teacher", int(taught.rpartition("|")[2])) if taught else None
    cells = {(label, int(nfe)): (keys.get((solver, nfe)), MEANINGS[MARKS.get(status, "?")]) for solver, label, nfe,
             status in zip(frame["solver"], frame["label"], frame["nfe"], frame["status"], strict=True)}  # fmt: skip
    rows = [
        {"label": label, "cells": [_cell(cells.get((label, nfe)), label, nfe, block) for nfe in budgets]}
        for label in dict.fromkeys(frame["label"])
    ]
    side = shown.sides[there[0]]
    original = batches[there[0]].shape[2:]
    return {
        "name": report.axes.title(name), "side": side, "scaled": tuple(original) != side, "count": count,
        "seeds": numbers,
        "conditions": _conditions(report.bundle.record, name, count), "budgets": budgets,
        "solvers": [row["label"] for row in rows], "blocks": found, "own": own, "rows": rows,
    }  # fmt: skip


def _cell(found: tuple[str | None, str] | None, label: str, nfe: int, block: Any) -> dict[str, Any]:
    """Return a cell of the table: its images, or why it has none."""
    key, why = found or (None, "")
    return {"nfe": nfe, "block": block(key, label, nfe) if key else None, "why": "" if key else why}


def _apart(batch: np.ndarray, goal: np.ndarray, count: int) -> list[float | None]:
    """Return the RMSE of each of the first images, uint8 [k, C, H, W], to its goal, with values scaled to [-1, 1]."""
    if batch.shape[1:] != goal.shape[1:]:
        return []
    squares = ((batch[:count].astype(np.float64) - goal[:count]) / 127.5) ** 2
    return [float(f"{value:.4g}") for value in np.sqrt(squares.mean((1, 2, 3)))]


def _mean(apart: Sequence[float | None]) -> str:
    """Return the RMSE over all images as text, as the metric rmse_teacher combines them; empty if there is none."""
    known = [value for value in apart if value is not None]
    return f"{math.sqrt(sum(value**2 for value in known) / len(known)):.3g}" if known else ""


def _seeds(texts: Sequence[str], count: int) -> list[str]:
    """Return the names of the first images: their seeds, or their numbers if no cell has recorded its seeds."""
    firsts = [int(match[1]) for text in texts if (match := re.match(r"(\d{1,18})(?!\d)", text))]
    return [f"seed {firsts[0] + k}" if firsts else f"image {k + 1}" for k in range(count)]


def _conditions(record: Mapping[str, Any], teacher: str, count: int) -> list[str]:
    """Return the class or prompt of each of the first images; empty if the bundle has none."""
    given = record.get("conditions")
    texts = given.get(teacher) if isinstance(given, dict) else None
    if not isinstance(texts, list) or len(texts) < count or not all(isinstance(text, str) for text in texts):
        return []
    return list(_short(texts[:count]))


def _short(texts: Sequence[str]) -> Iterator[str]:
    for text in texts:
        yield text if len(text) <= _WORDS else text[: _WORDS - 1] + "…"
