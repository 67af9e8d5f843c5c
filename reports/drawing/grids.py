"""Metrics against NFE as a grid of small panels with one legend: teachers side by side, or trajectory errors."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pandas as pd
from matplotlib.lines import Line2D

from solverbench.reports.drawing.base import Drawing, blank, settings
from solverbench.reports.drawing.palette import GREY
from solverbench.reports.drawing.panel import Box, Panel, Title, handle, margins, panels, place, put, title

_HEIGHT, _BELOW = 1.35, 0.34  # inches: a panel, and the space below it
_LEAST = 1.7  # inches that a panel needs with its ticks


def draw(data: pd.DataFrame, figure: Mapping[str, Any]) -> Drawing:
    """Return a grid with a panel per part, row by row, and one common legend below; see `curves.draw`."""
    found, (single, double) = panels(data, figure), figure["width"]
    columns = max(1, min(len(found), int(double / _LEAST)))
    rows = [found[i : i + columns] for i in range(0, len(found), columns)]
    across = double if columns > 1 else single
    with settings():
        drawing = blank(across, 3.0)
        letters = int(across / columns * 16)
        titles = {panel.name: _title(panel, found, letters) for panel in found}
        heads = [max(titles[panel.name].height for panel in row) + 0.08 for row in rows]
        left = max(margins(drawing, panel)[0] for panel in found)
        handles = _handles(found)
        per_line = max(
            1, int(across / (0.42 + 0.062 * max((len(str(each.get_label())) for each in handles), default=1)))
        )
        legend = 0.15 * -(-len(handles) // per_line) + 0.1
        total = sum(heads) + len(rows) * (_HEIGHT + _BELOW) + legend
        drawing.set_size_inches(across, total)
        top = total
        for row, head in zip(rows, heads, strict=True):
            top -= head + _HEIGHT
            for j, panel in enumerate(row):
                start = j * across / columns
                box = Box(start + left, top, across / columns - left - 0.1, _HEIGHT)
                axes = place(drawing, panel, box, tagged=False)
                axes.set_xlabel("NFE", fontsize=6.5, labelpad=1)
                put(drawing, titles[panel.name], start + 0.05, top + _HEIGHT + 0.06)
            top -= _BELOW
        drawing.legend(
            handles=handles, loc="lower center", ncols=min(per_line, max(1, len(handles))), frameon=False, fontsize=6,
            handletextpad=0.3, columnspacing=1.1, bbox_to_anchor=(0.5, 0.0), borderpad=0.2, labelspacing=0.35,
        )  # fmt: skip
    return drawing


def _handles(found: Sequence[Panel]) -> list[Line2D]:
    """Return a legend entry for each solver of any panel, then for the horizontal lines and published numbers."""
    homes = {label: panel for panel in reversed(found) for label in panel.solvers}
    labels = list(dict.fromkeys(label for panel in found for label in panel.solvers))
    handles = [handle(label, homes[label].run) for label in labels]
    plain = {re.sub(r",? n = .*", "", line.series): dash for panel in found
             for line, dash in zip(panel.lines, ("--", ":", "-."), strict=False)}  # fmt: skip
    handles += [Line2D([], [], color=GREY, lw=0.7, ls=dash, label=label) for label, dash in plain.items()]
    if any(panel.published for panel in found):
        handles.append(
            Line2D([], [], color="none", marker="o", ms=5, mfc="none", mec=GREY, mew=0.6, label="hollow: published")
        )
    return handles


def _title(panel: Panel, found: Sequence[Panel], width: int) -> Title:
    """Return what distinguishes a panel from the others: the teacher, the metric, or both."""
    teachers, metrics = (len({getattr(each, name) for each in found}) > 1 for name in ("teacher", "metric"))
    part = f", part {panel.number}" if panel.number > 1 else ""
    if teachers and not metrics:
        return title(replace(panel, short=f"{panel.named}{part}", label=""), max(width, 14))
    lead = f"{panel.named}{part}: " if teachers else part.removeprefix(", ") + ": " * bool(part)
    return title(panel, max(width, 14), lead=lead, brief=True)
