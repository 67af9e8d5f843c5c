"""Metrics against NFE as a grid of small panels with one legend: teachers side by side, or trajectory errors."""

import re
import textwrap
from collections.abc import Sequence

from matplotlib.lines import Line2D

from solverbench.reports.figures.base import Drawing, blank, settings
from solverbench.reports.figures.panel import GREY, Box, handle, margins, place
from solverbench.reports.figures.widths import DEFAULT, Width
from solverbench.reports.parts import Part

_HEIGHT, _BELOW, _LINE = 1.35, 0.34, 0.115  # inches: a panel, the space below it, and a line of text
_LEAST = 1.7  # inches that a panel needs with its ticks
TRAJECTORY = ("rmse_exact", "rmse_teacher", "lpips_teacher")
"""Errors of a sample against the end of the teacher's trajectory from the same noise."""


def compose(found: Sequence[Part], wide: Width = DEFAULT) -> Drawing:
    """Return a grid with a panel per part, row by row, and one common legend below."""
    columns = max(1, min(len(found), int(wide.double / _LEAST)))
    rows = [found[i : i + columns] for i in range(0, len(found), columns)]
    across = wide.double if columns > 1 else wide.single
    with settings():
        figure = blank(across, 3.0)
        letters = int(across / columns * 16)
        titles = {part.name: _title(part, found, letters) for part in found}
        heads = [_LINE * max(titles[part.name].count("\n") + 1 for part in row) + 0.08 for row in rows]
        left = max(margins(figure, part)[0] for part in found)
        handles = _handles(found)
        per_line = max(
            1, int(across / (0.42 + 0.062 * max((len(str(each.get_label())) for each in handles), default=1)))
        )
        legend = 0.15 * -(-len(handles) // per_line) + 0.1
        total = sum(heads) + len(rows) * (_HEIGHT + _BELOW) + legend
        figure.set_size_inches(across, total)
        top = total
        for row, head in zip(rows, heads, strict=True):
            top -= head + _HEIGHT
            for j, part in enumerate(row):
                start = j * across / columns
                box = Box(start + left, top, across / columns - left - 0.1, _HEIGHT)
                axes = place(figure, part, box, tagged=False)
                axes.set_xlabel("NFE", fontsize=6.5, labelpad=1)
                figure.text(
                    (start + 0.05) / across, (top + _HEIGHT + 0.06) / total, titles[part.name], fontsize=6.5,
                    linespacing=1.15,
                )  # fmt: skip
            top -= _BELOW
        figure.legend(
            handles=handles, loc="lower center", ncols=min(per_line, max(1, len(handles))), frameon=False, fontsize=6,
            handletextpad=0.3, columnspacing=1.1, bbox_to_anchor=(0.5, 0.0), borderpad=0.2, labelspacing=0.35,
        )  # fmt: skip
    return figure


def trajectory(found: Sequence[Part]) -> list[Part]:
    """Return the parts with errors against the end of the teacher's trajectory, by metric."""
    return [part for metric in TRAJECTORY for part in found if part.metric == metric]


def _handles(found: Sequence[Part]) -> list[Line2D]:
    """Return a legend entry for each solver of any panel, then for the horizontal lines and published numbers."""
    homes = {label: part for part in reversed(found) for label in part.solvers}
    labels = list(dict.fromkeys(label for part in found for label in part.solvers))
    handles = [handle(label, homes[label]) for label in labels]
    plain = {re.sub(r",? n = .*", "", line.label): dash for part in found
             for line, dash in zip(part.lines, ("--", ":", "-."), strict=False)}  # fmt: skip
    handles += [Line2D([], [], color=GREY, lw=0.7, ls=dash, label=label) for label, dash in plain.items()]
    if any(part.beside for part in found):
        handles.append(
            Line2D([], [], color="none", marker="o", ms=5, mfc="none", mec=GREY, mew=0.6, label="hollow: published")
        )
    return handles


def _title(part: Part, found: Sequence[Part], width: int) -> str:
    """Return what distinguishes a panel from the others: the teacher, the metric, or both."""
    metric = re.sub(r" \([^)]*\)$", "", part.label)
    pieces = [part.teacher] if len({each.teacher for each in found}) > 1 else []
    pieces += [metric] if len({each.metric for each in found}) > 1 or not pieces else []
    text = ": ".join(pieces) + (f", part {part.number}" if part.number > 1 else "")
    return "\n".join(textwrap.wrap(f"{text}, {part.count}", max(width, 14)))
