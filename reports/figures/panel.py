"""One panel: a metric against NFE for the solvers of one part, with direct labels in a column at its right.

Everything is placed in inches, so a figure has the width of a paper's column whatever its labels say.
"""

import math
import re
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import NullFormatter

from solverbench.reports.figures import bound
from solverbench.reports.figures.axes import linear_ticks, log_minor_ticks, log_ticks, spread, tick_text
from solverbench.reports.figures.palette import style
from solverbench.reports.parts import Part

GREY = "#4d4d4d"
SMALL = 6.0  # points: labels and ticks
_MARK, _TEXT, _EDGE = 0.14, 0.21, 0.03  # inches from the axes' right edge to a label's marker, to its text; end margin
_GAP = 0.015  # inches between two labels
_DASHES = ("-", (0, (4, 1.5)), (0, (1, 1)), (0, (5, 1, 1, 1)))  # variants of one solver
_SIZES = {"*": 5.6, "X": 4.2, "P": 4.2, "p": 3.8, "h": 3.8, "D": 2.9}  # points; other markers 3.2
_LINES = ("--", ":", "-.")  # horizontal lines


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


def place(figure: Figure, part: Part, box: Box, *, tagged: bool = True) -> Axes:
    """Draw the part with its axes in the box; ticks, labels and axis labels are outside it.

    Args:
        tagged: whether to draw direct labels at the right.
    """
    width, height = figure.get_size_inches()
    extent = (box.left / width, box.bottom / height, box.width / width, box.height / height)
    axes = figure.add_axes(extent, label=part.name)
    _frame(axes, part)
    _draw_lines(axes, part)
    for label in part.solvers:
        _draw_solver(axes, part, label)
    _draw_published(axes, part)
    if not part.frame["value"].notna().any():
        note = axes.text(0.5, 0.5, part.count, transform=axes.transAxes, ha="center", va="center", color=GREY)
        note.set_bbox({"facecolor": "white", "edgecolor": "none", "pad": 1.5})
    found = tags(part) if tagged else []
    _draw_tags(figure, axes, part, found, [_size(figure, tag.text)[1] for tag in found])
    return axes


def margins(figure: Figure, part: Part) -> tuple[float, float, float]:
    """Return the inches that the part needs left of its axes (ticks) and right (labels), and the labels' height."""
    sizes = [_size(figure, tag.text) for tag in tags(part)]
    ticks = [_size(figure, tick_text(tick))[0] for tick in _ticks(part, *_limits(part))]
    right = _TEXT + max(width for width, _ in sizes) + _EDGE if sizes else 0.06
    return max(ticks, default=0.0) + 0.08, right, sum(height for _, height in sizes)


def curve(part: Part, label: str) -> pd.DataFrame:
    """Return one solver's drawn data: value, low, high for every budget asked for, NaN where there is no value."""
    return part.curves[label]


def tags(part: Part) -> list[Tag]:
    """Return a label for every solver that has a value, at its last value, and for every horizontal line."""
    found = list[Tag]()
    for label in part.solvers:
        values = curve(part, label)["value"].dropna()
        if len(values):
            colour, marker, dash, fill = look_of(part, label)
            reaches = values.index[-1] == part.nfe[-1]
            text = _short(bound.shown(part, label))
            found.append(Tag(text, float(values.iloc[-1]), colour, marker, dash, fill, reaches))
    for line, dash in zip(part.lines, _LINES * len(part.lines), strict=False):
        found.append(Tag(_short(line.label), line.value, GREY, "", dash, GREY, True))
    return found


def look_of(part: Part, label: str) -> tuple[str, str, str | tuple[int, tuple[float, ...]], str]:
    """Return colour, marker, dash and fill: the first two identify the solver, the others its variants.

    A solver that represents a bound is dashed.
    """
    looks = {other: style(other, spec) for other, spec in part.specs.items()}
    look, twins = looks[label], [other for other in part.solvers if looks[other] == looks[label]]
    variant = twins.index(label)
    dash = _DASHES[(variant + (label in bound.bounds(part))) % len(_DASHES)]
    return look.colour, look.marker, dash, look.colour if variant % 2 == 0 else "white"


def handle(label: str, part: Part) -> Line2D:
    """Return a solver's legend entry."""
    colour, marker, dash, fill = look_of(part, label)
    plain = fill == colour
    return Line2D(
        [], [], color=colour, ls=dash, lw=0.8, marker=marker, ms=size_of(marker) * 1.15, mfc=fill,
        mec="white" if plain else colour, mew=0.35 if plain else 0.8, label=bound.shown(part, label),
    )  # fmt: skip


def size_of(marker: str) -> float:
    """Return the size in points at which a marker looks as large as the others."""
    return _SIZES.get(marker, 3.2)


def _frame(axes: Axes, part: Part) -> None:
    axes.set_xlim(part.nfe[0] - 0.4, part.nfe[-1] + 0.4)
    stride = 1 + (part.nfe[-1] - part.nfe[0]) // 12
    ticks = [nfe for nfe in part.nfe if (nfe - part.nfe[0]) % stride == 0]
    axes.set_xticks(ticks, [str(nfe) for nfe in ticks])
    low, high = _limits(part)
    if part.log:
        axes.set_yscale("log")
    axes.set_ylim(low, high)
    marks = _ticks(part, low, high)
    axes.set_yticks(marks, [tick_text(mark) for mark in marks])
    axes.set_yticks(log_minor_ticks(low, high) if part.log else [], minor=True)
    axes.yaxis.set_minor_formatter(NullFormatter())
    dress(axes)


def dress(axes: Axes) -> None:
    """Give the axes the common look: two thin spines, small ticks, a light grid."""
    axes.tick_params(which="minor", length=1.5, width=0.4)
    axes.tick_params(labelsize=SMALL, length=2.5, width=0.6, pad=2)
    axes.grid(axis="y", color="#e6e6e6", lw=0.5, zorder=0)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_linewidth(0.6)


def _ticks(part: Part, low: float, high: float) -> list[float]:
    return log_ticks(low, high) if part.log else linear_ticks(low, high)


def _limits(part: Part) -> tuple[float, float]:
    """Return the y range of values, intervals and lines with a margin; only positive ones on a logarithmic axis."""
    numbers = [*part.frame[["value", "low", "high"]].to_numpy().ravel()]
    numbers += [number for line in part.lines for number in (line.value, line.low, line.high)]
    numbers += [each.value for each in part.beside if part.nfe[0] <= each.nfe <= part.nfe[-1]]
    numbers = [float(x) for x in numbers if math.isfinite(x) and (x > 0 or not part.log)]
    if not numbers:
        return (0.1, 10.0) if part.log else (0.0, 1.0)
    if part.log:
        low, high = math.log10(min(numbers)), math.log10(max(numbers))
        margin = max(0.05 * (high - low), 0.12 - (high - low) / 2)
        return 10.0 ** (low - margin), 10.0 ** (high + margin)
    margin = 0.05 * (max(numbers) - min(numbers)) or abs(max(numbers)) * 0.05 or 1.0
    return min(numbers) - margin, max(numbers) + margin


def _draw_lines(axes: Axes, part: Part) -> None:
    for line, dash in zip(part.lines, _LINES * len(part.lines), strict=False):
        axes.axhline(line.value, color=GREY, lw=0.7, ls=dash, zorder=1)
        if line.low < line.high:
            axes.axhspan(line.low, line.high, color=GREY, alpha=0.13, lw=0, zorder=0.5)


def _draw_solver(axes: Axes, part: Part, label: str) -> None:
    """Draw line, interval bars and markers; the line stops at a budget without a value, or without a positive one."""
    points = curve(part, label)
    colour, marker, dash, fill = look_of(part, label)
    learned = bool(part.frame.loc[part.frame["label"] == label, "learned"].any())
    x = points.index.to_numpy(dtype=float) + _dodge(part, label)
    value, low, high = (points[column].to_numpy(dtype=float) for column in ("value", "low", "high"))
    bottom = axes.get_ylim()[0]
    outside = (value <= 0) & part.log
    inside = np.where(outside, np.nan, value)
    order = 3 + part.solvers.index(label) / 100 + learned
    barred = np.isfinite(inside) & np.isfinite(low) & np.isfinite(high)
    floor = np.maximum(low, bottom) if part.log else low
    axes.vlines(x[barred], floor[barred], high[barred], color=colour, lw=0.8, zorder=order)
    axes.plot(
        x, inside, color=colour, ls=dash, lw=1.4 if learned else 0.9, marker=marker, ms=size_of(marker),
        mfc=fill, mec="white" if fill == colour else colour, mew=0.35 if fill == colour else 0.8, zorder=order,
        label=label,
    )  # fmt: skip
    if outside.any():  # zero or less: an arrowhead at the lower edge means "below"
        axes.plot(x[outside], np.full(outside.sum(), bottom), color=colour, ls="", marker=7, ms=4, clip_on=False)


def _draw_published(axes: Axes, part: Part) -> None:
    """Draw published numbers: hollow, larger than a marker, without a line."""
    for each in part.beside:
        if part.nfe[0] <= each.nfe <= part.nfe[-1] and (each.value > 0 or not part.log):
            colour, marker = look_of(part, part.label_of(each.label))[:2]
            axes.plot(
                each.nfe, each.value, ls="", marker=marker, ms=1.7 * size_of(marker), mfc="none", mec=colour,
                mew=0.6, zorder=6, label="_published",
            )  # fmt: skip


def _dodge(part: Part, label: str) -> float:
    """Return the horizontal offset that separates solvers if there is only one budget."""
    if len(part.nfe) > 1 or len(part.solvers) < 2:
        return 0.0
    return 0.6 * (part.solvers.index(label) / (len(part.solvers) - 1) - 0.5)


def _draw_tags(figure: Figure, axes: Axes, part: Part, found: Sequence[Tag], heights: Sequence[float]) -> None:
    """Draw the labels at the right, each with a leader from the height at which its line ends."""
    if not found:
        return
    inches = figure.dpi_scale_trans.inverted()
    bounds = axes.get_window_extent().transformed(inches)
    low, high = axes.get_ylim()

    def height(value: float) -> float:
        return float(inches.transform(axes.transData.transform((part.nfe[-1], min(max(value, low), high))))[1])

    wanted = [height(tag.at) for tag in found]
    slack = max(0.0, sum(heights) - bounds.height) / 2 + 0.04
    centres = spread(wanted, heights, bounds.y0 - slack, bounds.y1 + slack)
    for tag, at, centre in zip(found, wanted, centres, strict=True):
        start = bounds.x1 + 0.01
        if tag.reaches and tag.marker and len(part.nfe) > 1:
            start = float(inches.transform(axes.transData.transform((part.nfe[-1], 1.0)))[0]) + 0.04
        bend, end = bounds.x1 + 0.02, bounds.x1 + (_MARK - 0.04 if tag.marker else _TEXT - 0.02)
        _line(figure, [start, bend, end], [at, at, centre], tag.colour, 0.4)
        if tag.marker:
            mark = _line(figure, [bounds.x1 + _MARK], [centre], tag.colour, 0.0)
            plain = tag.fill == tag.colour
            mark.set(marker=tag.marker, markersize=size_of(tag.marker), markerfacecolor=tag.fill)
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
