"""Weights of plans as heat maps, one per solver."""

import math
from collections.abc import Mapping
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import Normalize

from solverbench.reports.drawing.base import Drawing, blank, settings
from solverbench.reports.drawing.palette import GREY, SMALL

FULL = 2.0
"""Smallest absolute weight with a saturated colour."""


def draw(data: pd.DataFrame, figure: Mapping[str, Any]) -> Drawing:
    """Return a heat map per solver at one budget: row k is the input of call k, the last row the sample.

    The first column multiplies the starting noise and is drawn relative to its own first entry.

    Args:
        data: the rows of its CSV; `shade` is the value that the colour shows.
        figure: `width`, in inches, of a figure of one panel and of several.
    """
    (single, double), solvers = figure["width"], list(dict.fromkeys(data["panel"]))
    with settings():
        count = len(solvers)
        columns = min(count, max(2, int(double / 1.3)))
        lines = -(-count // columns)
        across = double if count > 1 else single
        side = (across - 0.32) / columns - 0.12
        height = lines * (side + 0.34) + 0.42
        drawing = blank(across, height)
        for i, solver in enumerate(solvers):
            start = 0.32 + i % columns * (side + 0.12)
            bottom = height - (i // columns + 1) * (side + 0.34) + 0.08
            box = (start / across, bottom / height, side / across, side / height)
            axes = drawing.add_axes(box, label=solver)
            _heat(axes, data[data["panel"] == solver], solver, first=i % columns == 0, side=side)
        bar = drawing.add_axes(
            (0.32 / across, 0.3 / height, min(2.0, across / 2) / across, 0.07 / height), label="scale"
        )
        _scale(bar)
        said = f"weights at NFE {data['nfe'].iloc[0]:.0f}: input k = row k of noise, d0, …; "
        said += "noise: colours relative to its top"
        place = min(2.0, across / 2) + 0.45
        drawing.text(place / across, 0.3 / height, said, fontsize=SMALL, color=GREY, va="bottom")
    return drawing


def scaled(value: float) -> float:
    """Return a weight on the colour scale, -1 to 1: the signed square root keeps small weights visible."""
    return math.copysign(math.sqrt(min(1.0, abs(value) / FULL)), value)


def _heat(axes: Axes, own: pd.DataFrame, solver: str, *, first: bool, side: float) -> None:
    """Draw one heat map of `side` inches; the first of a row of them names its rows."""
    size = int(own["row"].max()) + 1
    shown = np.full((size, size), math.nan)
    cells = [(int(k), int(j), float(weight), float(shade)) for k, j, weight, shade in
             zip(own["row"], own["column"], own["weight"], own["shade"], strict=True)]  # fmt: skip
    for k, j, _, shade in cells:
        shown[k, j] = scaled(shade)
    axes.pcolormesh(shown, cmap="PuOr_r", vmin=-1, vmax=1, edgecolors="white", lw=0.4, rasterized=False)
    axes.set_ylim(size, 0)
    names = ["noise", *(f"d{j}" for j in range(size - 1))]
    every = -(-size // 6)
    axes.set_xticks([j + 0.5 for j in range(0, size, every)], names[::every])
    rows = [*map(str, range(size - 1)), "out"]
    axes.set_yticks([k + 0.5 for k in range(size)], rows if first else [""] * size)
    axes.xaxis.tick_top()
    axes.tick_params(labelsize=4.6, length=0, pad=1)
    for spine in axes.spines.values():
        spine.set_visible(False)
    axes.set_title(solver.replace(":", " ")[:26], fontsize=6.5, pad=3)
    if side / size > 0.19:
        for k, j, weight, _ in cells:
            colour = "black" if abs(shown[k, j]) < 0.62 else "white"
            axes.text(j + 0.5, k + 0.5, _two_digits(weight), fontsize=3.6, ha="center", va="center", color=colour)


def _scale(axes: Axes) -> None:
    """Draw a colour bar for the weights."""
    axes.pcolormesh(
        np.linspace(-1, 1, 129)[None].repeat(2, 0)[:1, :128], cmap=matplotlib.colormaps["PuOr_r"], norm=Normalize(-1, 1)
    )
    shown = [-FULL, -FULL / 4, 0.0, FULL / 4, FULL]
    names = [f"≤ {-FULL:g}", *(f"{value:g}" for value in shown[1:-1]), f"≥ {FULL:g}"]
    axes.set_xticks([64 * (1 + scaled(value)) for value in shown], names)
    axes.set_yticks([])
    axes.tick_params(labelsize=4.6, length=1.5, width=0.4, pad=1)
    for spine in axes.spines.values():
        spine.set_visible(False)


def _two_digits(weight: float) -> str:
    text = f"{weight:.2f}" if abs(weight) < 9.95 else f"{weight:.0f}"
    return text.replace("0.", ".", 1) if text.startswith(("0.", "-0.")) else text
