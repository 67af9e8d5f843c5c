"""One panel: a metric against NFE for the solvers of one panel, with direct labels in a column at its right.

Everything is placed in inches, so a figure has the width of a paper's column whatever its labels say.
"""

import math
import re
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import NullFormatter

from solverbench.reports.drawing.palette import GREY, SMALL, dress, look_of, shape, shown_label, size_of
from solverbench.reports.drawing.ticks import linear_ticks, log_minor_ticks, log_ticks, spread, tick_text, wrapped

_MARK, _TEXT, _EDGE = 0.14, 0.21, 0.03  # inches from the axes' right edge to a label's marker, to its text; end margin
_GAP = 0.015  # inches between two labels
_LINE = 0.115  # inches: a line of a title
_LINES = ("--", ":", "-.")  # horizontal lines


@dataclass(frozen=True)
class Panel:
    """The content of one pair of axes.

    `rows` are its rows of the figure's CSV: `kind` is measured, line (horizontal), published or front. `specs` are the
    specs of its solvers by their labels. `images` is the number of images per value, `count` the same in words; both
    are of no value if `images` is 0. `number` counts the parts of a teacher and metric from 1. `short` is the metric's
    short name; empty if it has none. `title` is the teacher as text, if it differs from its name. `everyone` has the
    specs of all labels of the run.
    """

    name: str
    rows: pd.DataFrame
    teacher: str
    metric: str
    number: int
    label: str
    images: int
    count: str
    log: bool
    specs: Mapping[str, str]
    learned: Sequence[str]
    short: str = ""
    title: str = ""
    everyone: Mapping[str, str] = field(default_factory=dict)

    @property
    def run(self) -> Mapping[str, str]:
        """The specs of all solvers of the run, among whom looks are assigned; its own if the others aren't known."""
        return self.everyone or self.specs

    @property
    def named(self) -> str:
        """The teacher as text."""
        return self.title or self.teacher

    @cached_property
    def solvers(self) -> list[str]:
        """The solvers' labels, in their order."""
        return list(self.specs)

    @cached_property
    def measured(self) -> pd.DataFrame:
        """The solvers' own rows."""
        return self.rows[self.rows["kind"] == "measured"]

    @cached_property
    def nfe(self) -> list[int]:
        """The budgets asked for, ascending, finished or not."""
        return sorted({int(nfe) for nfe in self.measured["nfe"]})

    @cached_property
    def lines(self) -> list[Any]:
        """The horizontal lines: series, value, low and high; the last two are NaN where they are not known."""
        return list(self.rows[self.rows["kind"] == "line"].itertuples())

    @cached_property
    def published(self) -> list[Any]:
        """The published numbers: series, nfe and value."""
        return list(self.rows[self.rows["kind"] == "published"].itertuples())

    @cached_property
    def curves(self) -> dict[str, pd.DataFrame]:
        """Value, low and high of each solver by budget, NaN where there is no value."""
        numbers = self.measured[["value", "low", "high"]].set_index(self.measured["nfe"].astype(int))
        series = self.measured["series"].to_numpy()
        return {label: numbers[series == label].reindex(self.nfe) for label in self.specs}

    @property
    def valued(self) -> bool:
        """Whether there is a value."""
        return bool(self.measured["value"].notna().any())


def panels(data: pd.DataFrame, figure: Mapping[str, Any]) -> list[Panel]:
    """Return the panels of a figure from the rows of its CSV and its constants."""
    return [Panel(name, data[data["panel"] == name], **facts) for name, facts in figure["panels"].items()]


@dataclass(frozen=True)
class Title:
    """The lines above a panel: `name`, in bold, tells it from its neighbours; `rest` is in regular type."""

    name: str
    rest: str

    @property
    def height(self) -> float:
        """The height in inches."""
        lines = sum(text.count("\n") + 1 for text in (self.name, self.rest) if text)
        return _LINE * lines


def title(panel: Panel, width: int, *, lead: str = "", brief: bool = False) -> Title:
    """Return a panel's title, in lines of at most `width` characters: its metric and its images.

    Args:
        lead: what comes before the metric, such as the teacher.
        brief: whether a metric without a short name is named without its unit or feature space.
    """
    images = panel.count.replace(" ", "\u00a0") if panel.images else ""
    plain, _, space = panel.label.partition(" (")
    if panel.short:
        space = space.removesuffix(")")
        name, rest = f"{lead}{panel.short}", [space.replace(" ", "\u00a0") if len(space) < 24 else space]
    else:
        name, rest = "", [lead + (plain if brief else panel.label)]
    said = ", ".join(filter(None, [*rest, images]))
    return Title(wrapped(name, width) if name else "", wrapped(said, width))


def put(figure: Figure, lines: Title, left: float, bottom: float) -> None:
    """Write a title with its lower left corner at this place, in inches."""
    width, height = figure.get_size_inches()
    for text, weight, above in ((lines.rest, "normal", 0.0), (lines.name, "bold", Title("", lines.rest).height)):
        if text:
            figure.text(
                left / width, (bottom + above) / height, text, fontsize=6.5, fontweight=weight, linespacing=1.15
            )


@dataclass(frozen=True)
class Box:
    """A rectangle of the figure, in inches from its lower left corner."""

    left: float
    bottom: float
    width: float
    height: float


@dataclass(frozen=True)
class Tag:
    """A direct label: its text, the data value at its preferred position, and the style of its line."""

    text: str
    at: float
    colour: str
    marker: str
    dash: str | tuple[int, tuple[float, ...]]
    fill: str
    reaches: bool  # the line ends at the last budget, or is horizontal


def place(figure: Figure, panel: Panel, box: Box, *, tagged: bool = True) -> Axes:
    """Draw the panel with its axes in the box; ticks, labels and axis labels are outside it.

    Args:
        tagged: whether to draw direct labels at the right.
    """
    width, height = figure.get_size_inches()
    extent = (box.left / width, box.bottom / height, box.width / width, box.height / height)
    axes = figure.add_axes(extent, label=panel.name)
    _frame(axes, panel)
    _draw_lines(axes, panel)
    for label in panel.solvers:
        _draw_solver(axes, panel, label)
    _draw_published(axes, panel)
    if not panel.valued:
        note = axes.text(0.5, 0.5, panel.count, transform=axes.transAxes, ha="center", va="center", color=GREY)
        note.set_bbox({"facecolor": "white", "edgecolor": "none", "pad": 1.5})
    found = tags(panel) if tagged else []
    _draw_tags(figure, axes, panel, found, [_size(figure, tag.text)[1] for tag in found])
    return axes


def margins(figure: Figure, panel: Panel) -> tuple[float, float, float]:
    """Return the inches that the panel needs left of its axes (ticks) and right (labels), and the labels' height."""
    sizes = [_size(figure, tag.text) for tag in tags(panel)]
    ticks = [_size(figure, tick_text(tick))[0] for tick in _ticks(panel, *_limits(panel))]
    right = _TEXT + max(width for width, _ in sizes) + _EDGE if sizes else 0.06
    return max(ticks, default=0.0) + 0.08, right, sum(height for _, height in sizes)


def tags(panel: Panel) -> list[Tag]:
    """Return a label for every solver that has a value, at its last value, and for every horizontal line."""
    found = list[Tag]()
    for label in panel.solvers:
        values = panel.curves[label]["value"].dropna()
        if len(values):
            colour, marker, dash, fill = look_of(panel.run, label)
            reaches = values.index[-1] == panel.nfe[-1]
            text = _short(shown_label(panel.specs, label))
            found.append(Tag(text, float(values.iloc[-1]), colour, marker, dash, fill, reaches))
    for line, dash in zip(panel.lines, _LINES * len(panel.lines), strict=False):
        found.append(Tag(_short(line.series), line.value, GREY, "", dash, GREY, True))
    return found


def handle(label: str, specs: Mapping[str, str]) -> Line2D:
    """Return a solver's legend entry."""
    colour, marker, dash, fill = look_of(specs, label)
    plain = fill == colour
    return Line2D(
        [], [], color=colour, ls=dash, lw=0.8, marker=shape(marker), ms=size_of(marker) * 1.15, mfc=fill,
        mec="white" if plain else colour, mew=0.35 if plain else 0.8, label=shown_label(specs, label),
    )  # fmt: skip


def _frame(axes: Axes, panel: Panel) -> None:
    axes.set_xlim(panel.nfe[0] - 0.4, panel.nfe[-1] + 0.4)
    stride = 1 + (panel.nfe[-1] - panel.nfe[0]) // 12
    ticks = [nfe for nfe in panel.nfe if (nfe - panel.nfe[0]) % stride == 0]
    axes.set_xticks(ticks, [str(nfe) for nfe in ticks])
    low, high = _limits(panel)
    if panel.log:
        axes.set_yscale("log")
    axes.set_ylim(low, high)
    marks = _ticks(panel, low, high)
    axes.set_yticks(marks, [tick_text(mark) for mark in marks])
    axes.set_yticks(log_minor_ticks(low, high) if panel.log else [], minor=True)
    axes.yaxis.set_minor_formatter(NullFormatter())
    dress(axes)


def _ticks(panel: Panel, low: float, high: float) -> list[float]:
    return log_ticks(low, high) if panel.log else linear_ticks(low, high)


def _limits(panel: Panel) -> tuple[float, float]:
    """Return the y range of values, intervals and lines with a margin; only positive ones on a logarithmic axis."""
    numbers = [*panel.measured[["value", "low", "high"]].to_numpy(dtype=float).ravel()]
    numbers += [number for line in panel.lines for number in (line.value, line.low, line.high)]
    numbers += [each.value for each in panel.published if panel.nfe[0] <= each.nfe <= panel.nfe[-1]]
    numbers = [float(x) for x in numbers if math.isfinite(x) and (x > 0 or not panel.log)]
    if not numbers:
        return (0.1, 10.0) if panel.log else (0.0, 1.0)
    if panel.log:
        low, high = math.log10(min(numbers)), math.log10(max(numbers))
        margin = max(0.05 * (high - low), 0.12 - (high - low) / 2)
        return 10.0 ** (low - margin), 10.0 ** (high + margin)
    margin = 0.05 * (max(numbers) - min(numbers)) or abs(max(numbers)) * 0.05 or 1.0
    return min(numbers) - margin, max(numbers) + margin


def _draw_lines(axes: Axes, panel: Panel) -> None:
    for line, dash in zip(panel.lines, _LINES * len(panel.lines), strict=False):
        axes.axhline(line.value, color=GREY, lw=0.7, ls=dash, zorder=1)
        if line.low < line.high:
            axes.axhspan(line.low, line.high, color=GREY, alpha=0.13, lw=0, zorder=0.5)


def _draw_solver(axes: Axes, panel: Panel, label: str) -> None:
    """Draw line, interval bars and markers; the line stops at a budget without a value, or without a positive one."""
    points = panel.curves[label]
    colour, marker, dash, fill = look_of(panel.run, label)
    learned = label in panel.learned
    x = points.index.to_numpy(dtype=float) + _dodge(panel, label)
    value, low, high = (points[column].to_numpy(dtype=float) for column in ("value", "low", "high"))
    bottom = axes.get_ylim()[0]
    outside = (value <= 0) & panel.log
    inside = np.where(outside, np.nan, value)
    order = 3 + panel.solvers.index(label) / 100 + learned
    barred = np.isfinite(inside) & np.isfinite(low) & np.isfinite(high)
    floor = np.maximum(low, bottom) if panel.log else low
    axes.vlines(x[barred], floor[barred], high[barred], color=colour, lw=0.8, zorder=order)
    axes.plot(
        x, inside, color=colour, ls=dash, lw=1.4 if learned else 0.9, marker=shape(marker), ms=size_of(marker),
        mfc=fill, mec="white" if fill == colour else colour, mew=0.35 if fill == colour else 0.8, zorder=order,
        label=label,
    )  # fmt: skip
    if outside.any():  # zero or less: an arrowhead at the lower edge means "below"
        axes.plot(x[outside], np.full(outside.sum(), bottom), color=colour, ls="", marker=7, ms=4, clip_on=False)


def _draw_published(axes: Axes, panel: Panel) -> None:
    """Draw published numbers: hollow, larger than a marker, without a line."""
    for each in panel.published:
        if panel.nfe[0] <= each.nfe <= panel.nfe[-1] and (each.value > 0 or not panel.log):
            colour, marker = look_of(panel.run, each.series)[:2]
            axes.plot(
                each.nfe, each.value, ls="", marker=shape(marker), ms=1.7 * size_of(marker), mfc="none", mec=colour,
                mew=0.6, zorder=6, label="_published",
            )  # fmt: skip


def _dodge(panel: Panel, label: str) -> float:
    """Return the horizontal offset that separates solvers if there is only one budget."""
    if len(panel.nfe) > 1 or len(panel.solvers) < 2:
        return 0.0
    return 0.6 * (panel.solvers.index(label) / (len(panel.solvers) - 1) - 0.5)


def _draw_tags(figure: Figure, axes: Axes, panel: Panel, found: Sequence[Tag], heights: Sequence[float]) -> None:
    """Draw the labels at the right, each with a leader from the height at which its line ends."""
    if not found:
        return
    inches = figure.dpi_scale_trans.inverted()
    bounds = axes.get_window_extent().transformed(inches)
    low, high = axes.get_ylim()

    def height(value: float) -> float:
        return float(inches.transform(axes.transData.transform((panel.nfe[-1], min(max(value, low), high))))[1])

    wanted = [height(tag.at) for tag in found]
    slack = max(0.0, sum(heights) - bounds.height) / 2 + 0.04
    centres = spread(wanted, heights, bounds.y0 - slack, bounds.y1 + slack)
    for tag, at, centre in zip(found, wanted, centres, strict=True):
        start = bounds.x1 + 0.01
        if tag.reaches and tag.marker and len(panel.nfe) > 1:
            start = float(inches.transform(axes.transData.transform((panel.nfe[-1], 1.0)))[0]) + 0.04
        bend, end = bounds.x1 + 0.02, bounds.x1 + (_MARK - 0.04 if tag.marker else _TEXT - 0.02)
        _line(figure, [start, bend, end], [at, at, centre], tag.colour, 0.4)
        if tag.marker:
            mark = _line(figure, [bounds.x1 + _MARK], [centre], tag.colour, 0.0)
            plain = tag.fill == tag.colour
            mark.set(marker=shape(tag.marker), markersize=size_of(tag.marker), markerfacecolor=tag.fill)
            mark.set(markeredgecolor=tag.colour, markeredgewidth=0.0 if plain else 0.7)
        width_, height_ = figure.get_size_inches()
        figure.text(
            (bounds.x1 + _TEXT) / width_, centre / height_, tag.text, fontsize=SMALL, va="center", linespacing=1.0,
            color=GREY if not tag.marker else "black", style="normal" if tag.marker else "italic", gid="tag",
        )  # fmt: skip


def _line(figure: Figure, x: Sequence[float], y: Sequence[float], colour: str, width: float) -> Line2D:
    line = Line2D(x, y, color=colour, lw=width, transform=figure.dpi_scale_trans, solid_capstyle="butt")
    figure.add_artist(line)
    return line


def _short(text: str, width: int = 13) -> str:
    """Return a label, broken at options or words into lines of about `width` characters; image counts stay whole."""
    text = re.sub(r"n = [\d ]+", lambda found: found[0].replace(" ", "\u00a0"), text.replace(":", " "))
    text = re.sub(rf"\S{{{width + 1},}}", lambda found: found[0].replace("=", "= "), text)
    return "\n".join(textwrap.wrap(text, width, break_on_hyphens=False))


def _size(figure: Figure, text: str) -> tuple[float, float]:
    """Return the width and height of a label in inches, with some padding."""
    probe = figure.text(0, 0, text, fontsize=SMALL, linespacing=1.0, style="italic")
    extent = probe.get_window_extent()
    probe.remove()
    lines = text.count("\n") + 1
    return extent.width / figure.dpi, max(extent.height / figure.dpi, lines * SMALL * 1.2 / 72) + _GAP
