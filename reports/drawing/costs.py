"""The cost of quality as a figure: training calls of learned solvers, or images per second, against a metric."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import NullFormatter

from solverbench.reports.drawing.base import Drawing, blank, settings
from solverbench.reports.drawing.palette import GREY, dress, look_of, shape, size_of
from solverbench.reports.drawing.panel import Panel, Title, handle, panels, put, title
from solverbench.reports.drawing.ticks import along, log_minor_ticks, log_ticks, scattered, tick_text

_HEIGHT, _TOP = 1.8, 0.26  # inches: a panel's height, and the space above it
_LEFT, _RIGHT, _BELOW = 0.42, 0.1, 0.34  # inches: the space beside and below a panel
_NUMBERS = 40  # label every point with its NFE up to this many points in a panel, beyond it only the first and last NFE
_DIGITS = 4.8  # points: the size of these numbers
_ALIKE = 1.5  # largest ratio of the calls for each NFE of two trainings that a line joins
_LOWER = 1.25  # inches: a panel's height with many rows
_AXES = {
    "calls": ("network calls spent in training", "training calls"),
    "speed": ("images per second", "images per second"),
    "serial": ("serial calls per sample", "serial calls"),
    "latency": ("milliseconds per image", "ms per image"),
}  # the second where panels are narrow


def draw(data: pd.DataFrame, figure: Mapping[str, Any]) -> Drawing:
    """Return the figure: a row per teacher, a column per metric; each cell is a point with its NFE.

    Args:
        data: the rows of its CSV.
        figure: as of `curves.draw`; `across`, the x axis: calls (of training), speed (images per second),
            serial (calls) or latency (milliseconds per image).
    """
    found, across, (single, double) = panels(data, figure), figure["across"], figure["width"]
    metrics = list(dict.fromkeys(panel.metric for panel in found))
    teachers = [name for name in dict.fromkeys(panel.teacher for panel in found) if (data["teacher"] == name).any()]
    found = [panel for panel in found if panel.teacher in teachers]
    with settings():
        width = single if len(metrics) == 1 else double
        labels = list(dict.fromkeys(data["series"]))
        homes = {label: next(panel for panel in found if label in panel.specs) for label in labels}
        per_line = max(1, int((width - 0.7) / (0.42 + 0.065 * max(map(len, labels)))))
        legend = 0.08 + 0.14 * -(-len(labels) // per_line)
        tall = _HEIGHT if len(teachers) < 3 else _LOWER
        inner = width / len(metrics) - _LEFT - _RIGHT
        titles = {panel.name: _title(panel, int(inner * 19), len(metrics) > 1, len(teachers) > 1) for panel in found}
        top = max(_TOP, 0.08 + max(each.height for each in titles.values()))
        height = legend + len(teachers) * (tall + _BELOW + top)
        drawing = blank(width, height)
        for panel in found:
            column, row = metrics.index(panel.metric), teachers.index(panel.teacher)
            left = column * width / len(metrics) + _LEFT
            bottom = height - legend - (row + 1) * (tall + _BELOW + top) + _BELOW
            box = (left / width, bottom / height, inner / width, tall / height)
            axes = drawing.add_axes(box, label=panel.name)
            _draw_panel(axes, panel, across)
            axes.set_xlabel(_AXES[across][len(metrics) > 3], fontsize=6.5, labelpad=2)
            put(drawing, titles[panel.name], left, bottom + tall + 0.055)
        more = {"speed": ", dotted: not beaten in both", "calls": ", a line joins budgets trained alike"}
        said = "numbers: NFE" + (more.get(across, "") if width > 5 else "")
        drawing.text(1 - _RIGHT / width, 1 - 0.08 / height, said, fontsize=6, ha="right", va="top", color=GREY)
        drawing.legend(
            handles=[handle(label, homes[label].run) for label in labels], loc="upper left", ncols=per_line,
            frameon=False, fontsize=6.5, handletextpad=0.3, columnspacing=1.2, bbox_to_anchor=(0.0, 1.0), borderpad=0.3,
            labelspacing=0.3,
        )  # fmt: skip
    return drawing


def _draw_panel(axes: Axes, panel: Panel, across: str) -> None:
    known = panel.measured
    known = known[known["value"].notna() & ((known["value"] > 0) | (not panel.log))]
    if panel.log:
        axes.set_yscale("log")
        ends = [low for low, value in zip(known["low"], known["value"], strict=True) if low > value / 3]
        low, high = _stretched([*known["value"], *ends, *known["high"].dropna()])
        axes.set_ylim(low, high)
        axes.set_yticks(marks := log_ticks(low, high), [tick_text(mark) for mark in marks])
        axes.set_yticks(log_minor_ticks(low, high), minor=True)
    elif len(known):
        shown = [*known["value"], *known["low"].dropna(), *known["high"].dropna()]
        margin = 0.06 * (max(shown) - min(shown)) or 0.05 * abs(shown[0]) or 1.0
        axes.set_ylim(min(shown) - margin, max(shown) + margin)
    if across == "serial":
        counts = range(int(known[across].min()), int(known[across].max()) + 1)
        axes.set_xlim(counts[0] - 0.4, counts[-1] + 0.6)
        axes.set_xticks(counts[:: 1 + len(counts) // 13])
    else:
        axes.set_xscale("log")
        low, high = _stretched(known[across].to_list())
        axes.set_xlim(low, high)
        axes.set_xticks(ticks := _few(log_ticks(low, high)), [_brief(tick) for tick in ticks])
        axes.set_xticks(log_minor_ticks(low, high), minor=True)
    axes.autoscale(False)
    for label in dict.fromkeys(known["series"]):
        own = known[known["series"] == label].sort_values("nfe")
        colour, marker, dash, fill = look_of(panel.run, label)
        for joined in _joined(own, across):
            axes.plot(joined[across], joined["value"], color=colour, ls=dash, lw=0.8, alpha=0.6, zorder=2)
        axes.plot(
            own[across], own["value"], color=fill, ls="", marker=shape(marker), ms=1.2 * size_of(marker),
            mec=_edge(colour, fill), mew=0.35 if fill == colour else 0.8, zorder=3, label=label,
        )  # fmt: skip
        barred = own[own["low"].notna() & own["high"].notna()]
        floor = barred["low"].clip(lower=axes.get_ylim()[0]) if panel.log else barred["low"]
        axes.vlines(barred[across], floor, barred["high"], color=colour, lw=0.8, zorder=3)
    _number(axes, panel, known, across)
    if across == "speed":
        best = panel.rows[panel.rows["kind"] == "front"]
        axes.plot(best["speed"], best["value"], color=GREY, ls=":", lw=0.8, zorder=1.5, label="_front")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_minor_formatter(NullFormatter())
    dress(axes)


def _joined(own: pd.DataFrame, across: str) -> list[pd.DataFrame]:
    """Return a solver's rows in groups that a line joins.

    Those of trainings with as many seeds and about as many calls for each NFE, as by one recipe; a line through others
    would go back and forth.
    """
    if across != "calls" or own.empty:
        return [own]
    seeds = own["cost_training_seeds"].fillna(0)
    each = own["cost_training_student_calls"] / own["nfe"]
    ratio = each / each.shift()
    apart = (seeds != seeds.shift()) | ~(own[across] > own[across].shift()) | ~ratio.between(1 / _ALIKE, _ALIKE)
    return [group for _, group in own.groupby(apart.cumsum())]


def _number(axes: Axes, panel: Panel, known: pd.DataFrame, across: str) -> None:
    """Write each point's NFE beside it, where it covers no other number; with many points the first and last alone."""
    if known.empty:
        return
    few = len(known) <= _NUMBERS
    chosen = known if few else known[known["nfe"].isin([known["nfe"].min(), known["nfe"].max()])]
    point = 72 / axes.figure.dpi

    def placed(rows: pd.DataFrame, column: str = "value") -> list[tuple[float, float]]:
        seen = axes.transData.transform(rows[[across, column]].to_numpy(dtype=float))
        return [(point * x, point * y) for x, y in seen]

    marks = placed(known)
    for label in dict.fromkeys(known["series"]):
        own = known[known["series"] == label].sort_values("nfe")
        for joined in _joined(own, across):
            corners = placed(joined)
            marks += along([x for x, _ in corners], [y for _, y in corners], step=1.5)
        floor = own.assign(low=own["low"].clip(lower=axes.get_ylim()[0]) if panel.log else own["low"])
        for end, other in zip(placed(floor, "low"), placed(own, "high"), strict=True):
            if all(map(math.isfinite, (*end, *other))):
                marks += along((end[0], other[0]), (end[1], other[1]), step=1.5)
    texts = [f"{nfe:.0f}" for nfe in chosen["nfe"]]
    sizes = [(0.66 * _DIGITS * len(text), 0.95 * _DIGITS) for text in texts]
    box = axes.get_window_extent()
    room = point * box.x0 + 1, point * box.y0 + 1, point * (box.x1 + 8), point * (box.y1 + 8)
    points = placed(chosen)
    spots = scattered(points, sizes, marks, room)
    for text, label, (x, y), spot, value, cost in zip(
        texts, chosen["series"], points, spots, chosen["value"], chosen[across], strict=True
    ):
        if spot is not None:
            offset = spot[0] - x, spot[1] - y + 0.1 * _DIGITS
            axes.annotate(
                text, (cost, value), offset, textcoords="offset points", fontsize=_DIGITS, zorder=4,
                color=look_of(panel.run, label)[0], va="baseline", gid="number",
            )  # fmt: skip


def _title(panel: Panel, width: int, several: bool, taught: bool) -> Title:
    """Return a panel's title; `several`: there are several metrics, `taught`: several teachers."""
    lead = f"{panel.named}: " if taught else ""
    return title(panel if several else replace(panel, short=""), max(width, 12), lead=lead, brief=several)


def _edge(colour: str, fill: str) -> str:
    """Return the edge colour: white for a filled marker, its own colour for a hollow one."""
    return "white" if fill == colour else colour


def _stretched(values: Sequence[float]) -> tuple[float, float]:
    """Return the range of positive values with a margin for markers and their numbers."""
    if not values:
        return 0.1, 10.0
    low, high = math.log10(min(values)), math.log10(max(values))
    margin = max(0.08 * (high - low), 0.05)
    return 10 ** (low - margin), 10 ** (high + margin)


def _few(ticks: Sequence[float]) -> list[float]:
    """Return at most four of the ticks."""
    return list(ticks[:: -(-len(ticks) // 4)])


def _brief(calls: float) -> str:
    """Return a number of calls as text: 300k, 1.5M."""
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if calls >= size:
            return f"{calls / size:.3g}{letter}"
    return f"{calls:.3g}"
