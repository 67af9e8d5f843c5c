"""Figures for a paper: a metric against NFE, at the width of one column or two."""

import re
import textwrap
from collections.abc import Sequence
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from solverbench.reports.figures.base import Drawing, blank, settings
from solverbench.reports.figures.panel import GREY, Box, curve, margins, place
from solverbench.reports.figures.widths import DEFAULT, Width
from solverbench.reports.parts import Part

_ACROSS, _NARROW = 4, 1.6  # panels side by side at most, and the inches that each needs
_AXIS = "NFE (denoiser calls per sample)"


def compose(found: Sequence[Part], wide: Width = DEFAULT) -> Drawing:
    """Return the figure of these parts: a row per teacher and part number, a column per metric that is `shown`."""
    found = shown(found, wide)
    with settings():
        figure = blank(wide.single, 3.0)
        metrics = list(dict.fromkeys(part.metric for part in found))
        rows = [[part for part in found if (part.teacher, part.number) == row]
                for row in dict.fromkeys((part.teacher, part.number) for part in found)]  # fmt: skip
        if len(metrics) == 1:
            _compose_column(figure, [row[0] for row in rows], wide.single)
        else:
            _compose_grid(figure, rows, metrics, wide.double)
    return figure


def shown(found: Sequence[Part], wide: Width = DEFAULT) -> list[Part]:
    """Return the parts that fit into one figure: those of the first metrics, four at most."""
    most = min(_ACROSS, int(wide.double / _NARROW))
    metrics = list(dict.fromkeys(part.metric for part in found))[:most]
    return [part for part in found if part.metric in metrics]


def drawn(part: Part) -> pd.DataFrame:
    """Return exactly the data of a panel: points with intervals, then published points, then horizontal lines (no nfe).

    `panel` names the axes; `kind` is measured, published or line.
    """
    tables = []
    for label in part.solvers:
        points = curve(part, label).reset_index()
        points.insert(0, "series", label)
        points.insert(0, "kind", "measured")
        tables.append(points)
    rows = pd.concat(tables, ignore_index=True)
    reasons = {(label, nfe): reason for label, nfe, reason in
             zip(part.frame["label"], part.frame["nfe"], part.frame["reason"], strict=True)}  # fmt: skip
    keys = zip(rows["series"], rows["nfe"], rows["value"].isna(), strict=True)
    rows["missing"] = [reasons.get((label, nfe), "not asked for") if missing else "" for label, nfe, missing in keys]
    more: list[dict[str, Any]] = [
        {"kind": "published", "series": part.label_of(each.label), "nfe": each.nfe, "value": each.value,
         "missing": ""}
        for each in part.beside
    ]  # fmt: skip
    more += [{"kind": "line", "series": line.label, "nfe": "", "value": line.value, "low": line.low, "high": line.high,
              "missing": ""} for line in part.lines]  # fmt: skip
    if more:
        lines = pd.DataFrame(more, columns=rows.columns).astype({"low": float, "high": float})
        rows = pd.concat([rows.astype({"nfe": object}), lines], ignore_index=True)
    for name, value in (("metric", part.metric), ("teacher", part.teacher), ("panel", part.name)):
        rows.insert(0, name, value)
    return rows


def _compose_column(figure: Figure, rows: Sequence[Part], wide: float) -> None:
    """Draw one metric at the width of one column, with the teacher's name above each row if there are several."""
    titles = [_title(part, 36) for part in rows]
    needs = [margins(figure, part) for part in rows]
    left = max(need[0] for need in needs) + 0.115 * max(title.count("\n") + 1 for title in titles) + 0.05
    width = wide - left - max(need[1] for need in needs)
    head = 0.2 if len(rows) > 1 else 0.08
    heights = [max(1.75, need[2]) for need in needs]
    total = sum(heights) + len(rows) * (head + 0.22) + 0.14
    figure.set_size_inches(wide, total)
    top = total
    for part, title, height in zip(rows, titles, heights, strict=True):
        top -= head + height
        axes = place(figure, part, Box(left, top, width, height))
        axes.set_ylabel(title, fontsize=6.5, linespacing=1.15, verticalalignment="top")
        axes.yaxis.set_label_coords(0.03 / wide, (top + height / 2) / total, transform=figure.transFigure)
        if len(rows) > 1:
            _head(figure, part, left, top + height + 0.06)
        top -= 0.22
    axes.set_xlabel(_AXIS, fontsize=6.5, labelpad=2)


def _compose_grid(figure: Figure, rows: Sequence[Sequence[Part]], metrics: Sequence[str], wide: float) -> None:
    """Draw metrics side by side at the width of two columns, each with its label above."""
    several = len(rows) > 1
    titles = [[_title(part, int(14.8 * wide) // len(metrics)) for part in row] for row in rows]
    heads = [0.115 * max(title.count("\n") + 1 for title in row) + 0.07 + 0.16 * several for row in titles]
    needs = {part.name: margins(figure, part) for row in rows for part in row}
    heights = [max(1.55, *(needs[part.name][2] for part in row)) for row in rows]
    total = sum(heights) + sum(heads) + 0.24 * len(rows) + 0.12
    figure.set_size_inches(wide, total)
    width, top = wide / len(metrics), total
    for row, head, height, titles_ in zip(rows, heads, heights, titles, strict=True):
        top -= head + height
        for part, title in zip(row, titles_, strict=True):
            column = [needs[other.name] for row_ in rows for other in row_ if other.metric == part.metric]
            start = width * metrics.index(part.metric) + 0.05
            left, right = max(need[0] for need in column), max(need[1] for need in column)
            axes = place(figure, part, Box(start + left, top, width - 0.1 - left - right, height))
            figure.text(start / wide, (top + height + 0.1) / total, title, fontsize=6.5, linespacing=1.15)
            if row is rows[-1]:
                axes.set_xlabel(_AXIS if len(metrics) < 4 else "NFE", fontsize=6.5, labelpad=2)
        if several:
            _head(figure, row[0], 0.05, top + height + head - 0.1)
        top -= 0.24


def _title(part: Part, width: int) -> str:
    """Return the metric's label with n and replicates, balanced over the fewest lines of at most `width` characters."""
    text = re.sub(r"\([^)]{1,24}\)", lambda found: found[0].replace(" ", "\u00a0"), part.label)
    text += ", " + part.count.replace(" ", "\u00a0") if part.n else ""
    text += "; hollow: published" if part.beside else ""
    wrapped = [textwrap.wrap(text, size, break_on_hyphens=False) for size in range(width, width // 2, -1)]
    return "\n".join([lines for lines in wrapped if len(lines) == len(wrapped[0])][-1])


def _head(figure: Figure, part: Part, left: float, bottom: float) -> None:
    width, height = figure.get_size_inches()
    text = part.teacher + (f", part {part.number}" if part.number > 1 else "")
    figure.text(left / width, bottom / height, text, fontsize=7, fontweight="bold", color=GREY)
