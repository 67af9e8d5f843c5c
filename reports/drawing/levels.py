"""Noise levels of plans: a panel per budget, a row per solver, a level per call, on a logarithmic axis."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import NullFormatter

from solverbench.reports.drawing.base import Drawing, blank, settings
from solverbench.reports.drawing.palette import dress, look_of, shape, size_of
from solverbench.reports.drawing.ticks import log_minor_ticks, log_ticks, tick_text

_ROW, _HEAD, _FOOT = 0.15, 0.22, 0.36  # inches: a solver's row, the space above a panel and below it
_TINY = 1e-280  # levels below this are practically 0, and would stretch the axis to 0
_LETTER = 0.062  # width of a label's character in inches


def draw(data: pd.DataFrame, figure: Mapping[str, Any]) -> Drawing:
    """Return a figure with a panel for each budget: a row per solver, a noise level per call.

    Args:
        data: the rows of its CSV.
        figure: `width`, in inches, of a figure of one panel and of several; `rows`, the names of the rows from above;
            `specs`, the spec of each solver's label.
    """
    (single, double), names = figure["width"], figure["rows"]
    budgets = list(dict.fromkeys(data.sort_values("nfe", kind="stable")["panel"]))
    with settings():
        left = 0.12 + _LETTER * max(map(len, names))
        columns = max(1, min(len(budgets), int((double - left) / 1.4)))
        lines = -(-len(budgets) // columns)
        across = double if columns > 1 else single
        tall = max(0.45, _ROW * len(names))
        height = lines * (_HEAD + tall + _FOOT)
        drawing = blank(across, height)
        inner = (across - left) / columns - 0.12
        limits = _limits_of(data["sigma"])
        for i, budget in enumerate(budgets):
            start = left + i % columns * (inner + 0.12)
            bottom = height - (i // columns + 1) * (_HEAD + tall + _FOOT) + _FOOT
            box = (start / across, bottom / height, inner / across, tall / height)
            axes = drawing.add_axes(box, label=budget)
            _draw_levels(axes, data[data["panel"] == budget], names, figure["specs"], limits)
            axes.set_title(budget, fontsize=6.5, loc="left", pad=3)
            if i % columns:
                axes.set_yticks(range(len(names)), [""] * len(names))
    return drawing


def _draw_levels(
    axes: Axes, own: pd.DataFrame, names: Sequence[str], specs: Mapping[str, str], limits: tuple[float, float]
) -> None:
    for label in dict.fromkeys(own["series"]):
        colour, marker, _, fill = look_of(specs, label)
        points = own[(own["series"] == label) & (own["sigma"] > _TINY)]
        axes.plot(
            points["sigma"], points["row"], ls="", marker=shape(marker), ms=size_of(marker) * 1.1, color=fill,
            mec="white" if fill == colour else colour, mew=0.3 if fill == colour else 0.8, label=label, zorder=3,
        )  # fmt: skip
    axes.set_xscale("log")
    axes.set_xlim(limits[1], limits[0])
    ticks = log_ticks(*limits)
    ticks = ticks[:: -(-len(ticks) // 4)]
    axes.set_xticks(ticks, [tick_text(tick) for tick in ticks])
    axes.set_xticks(log_minor_ticks(*limits), minor=True)
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.set_yticks(range(len(names)), names)
    axes.set_xlabel("noise level σ", fontsize=6.5, labelpad=1)
    dress(axes)


def _limits_of(sigmas: Iterable[float]) -> tuple[float, float]:
    known = [math.log10(sigma) for sigma in sigmas if sigma > _TINY] or [0.0]
    margin = 0.05 * (max(known) - min(known)) or 0.3
    return 10 ** (min(known) - margin), 10 ** (max(known) + margin)
