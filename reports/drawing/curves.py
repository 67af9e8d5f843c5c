"""Figures for a paper: a metric against NFE, at the width of one column or two."""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from solverbench.reports.drawing.base import Drawing, blank, settings
from solverbench.reports.drawing.palette import GREY
from solverbench.reports.drawing.panel import Box, Panel, margins, panels, place, put, title
from solverbench.reports.drawing.ticks import wrapped

_AXIS = "NFE (denoiser calls per sample)"


def draw(data: pd.DataFrame, figure: Mapping[str, Any]) -> Drawing:
    """Return the figure: a row per teacher and part number, a column per metric.

    Args:
        data: the rows of its CSV.
        figure: `width`, in inches, of a figure of one panel and of several; `panels`, the facts of each by its name.
    """
    found, (single, double) = panels(data, figure), figure["width"]
    with settings():
        drawing = blank(single, 3.0)
        metrics = list(dict.fromkeys(panel.metric for panel in found))
        rows = [[panel for panel in found if (panel.teacher, panel.number) == row]
                for row in dict.fromkeys((panel.teacher, panel.number) for panel in found)]  # fmt: skip
        if len(metrics) == 1:
            _compose_column(drawing, [row[0] for row in rows], single)
        else:
            _compose_grid(drawing, rows, metrics, double)
    return drawing


def _compose_column(figure: Figure, rows: Sequence[Panel], wide: float) -> None:
    """Draw one metric at the width of one column, with the teacher's name above each row if there are several."""
    titles = [_whole(panel, 36) for panel in rows]
    needs = [margins(figure, panel) for panel in rows]
    left = max(need[0] for need in needs) + 0.115 * max(text.count("\n") + 1 for text in titles) + 0.05
    width = wide - left - max(need[1] for need in needs)
    head = 0.2 if len(rows) > 1 else 0.08
    heights = [max(1.75, need[2]) for need in needs]
    total = sum(heights) + len(rows) * (head + 0.22) + 0.14
    figure.set_size_inches(wide, total)
    top = total
    for panel, text, height in zip(rows, titles, heights, strict=True):
        top -= head + height
        axes = place(figure, panel, Box(left, top, width, height))
        axes.set_ylabel(text, fontsize=6.5, linespacing=1.15, verticalalignment="top")
        axes.yaxis.set_label_coords(0.03 / wide, (top + height / 2) / total, transform=figure.transFigure)
        if len(rows) > 1:
            _head(figure, panel, left, top + height + 0.06)
        top -= 0.22
    axes.set_xlabel(_AXIS, fontsize=6.5, labelpad=2)


def _compose_grid(figure: Figure, rows: Sequence[Sequence[Panel]], metrics: Sequence[str], wide: float) -> None:
    """Draw metrics side by side at the width of two columns, each with its label above."""
    several = len(rows) > 1
    titles = [[title(panel, int(14.8 * wide) // len(metrics)) for panel in row] for row in rows]
    heads = [max(each.height for each in row) + 0.09 + 0.16 * several for row in titles]
    needs = {panel.name: margins(figure, panel) for row in rows for panel in row}
    heights = [max(1.55, *(needs[panel.name][2] for panel in row)) for row in rows]
    total = sum(heights) + sum(heads) + 0.24 * len(rows) + 0.12
    figure.set_size_inches(wide, total)
    width, top = wide / len(metrics), total
    for row, head, height, titles_ in zip(rows, heads, heights, titles, strict=True):
        top -= head + height
        for panel, lines in zip(row, titles_, strict=True):
            column = [needs[other.name] for row_ in rows for other in row_ if other.metric == panel.metric]
            start = width * metrics.index(panel.metric) + 0.05
            left, right = max(need[0] for need in column), max(need[1] for need in column)
            axes = place(figure, panel, Box(start + left, top, width - 0.1 - left - right, height))
            put(figure, lines, start, top + height + 0.1)
            if row is rows[-1]:
                axes.set_xlabel(_AXIS if len(metrics) < 4 else "NFE", fontsize=6.5, labelpad=2)
        if several:
            _head(figure, row[0], 0.05, top + height + head - 0.1)
        top -= 0.24


def _whole(panel: Panel, width: int) -> str:
    """Return the metric's whole label with n and replicates."""
    text = f"{panel.label}, {panel.count}".replace(panel.count, panel.count.replace(" ", "\u00a0"))
    text = text if panel.images else panel.label
    return wrapped(text + ("; hollow: published" if panel.published else ""), width)


def _head(figure: Figure, panel: Panel, left: float, bottom: float) -> None:
    width, height = figure.get_size_inches()
    text = panel.named + (f", part {panel.number}" if panel.number > 1 else "")
    figure.text(left / width, bottom / height, text, fontsize=7, fontweight="bold", color=GREY)
