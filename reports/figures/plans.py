"""Plans in a bundle as figures: noise levels on a logarithmic axis, and weights as heat maps."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.ticker import NullFormatter

from solverbench.reports.bundle import Bundle, unmarked
from solverbench.reports.figures.axes import log_minor_ticks, log_ticks, tick_text
from solverbench.reports.figures.base import Drawing, blank, settings
from solverbench.reports.figures.panel import GREY, SMALL, dress, look_of, size_of
from solverbench.reports.figures.widths import DEFAULT, Width
from solverbench.reports.parts import Part

_ROW, _HEAD, _FOOT = 0.15, 0.22, 0.36  # inches: a solver's row, the space above a panel and below it
_PANELS = 4
FULL = 2.0
"""Absolute weight from which on its colour is saturated."""
MOST = 64
"""Largest number of calls whose weights are still legible in a figure; longer plans are left out."""
_TINY = 1e-280  # levels below this are practically 0, and would stretch the axis to 0
_LETTER = 0.062  # width of a label's character in inches


@dataclass(frozen=True)
class Plan:
    """The plan of one cell: `sigmas` [N] passed to the network, `rows` [N + 1][k + 1] of weights.

    `part` is a part that contains the solver; it determines its style.
    """

    label: str
    nfe: int
    learned: bool
    sigmas: tuple[float, ...]
    rows: tuple[tuple[float, ...], ...]
    part: Part


def of(bundle: Bundle, found: Sequence[Part], teacher: str) -> list[Plan]:
    """Return the plans of one teacher's cells that the bundle has, by solver and then budget."""
    plans = dict[tuple[str, int], Plan]()
    for part in (part for part in found if part.teacher == teacher):
        columns = (part.frame[name] for name in ("label", "nfe", "cell", "learned"))
        for label, nfe, cell, learned in zip(*columns, strict=True):
            stored = bundle.cells.get(cell, {}).get("plan")
            if stored and (label, nfe) not in plans and (read := _read(stored)) is not None:
                plans[str(label), int(nfe)] = Plan(str(label), int(nfe), bool(learned), *read, part)
    order = list(dict.fromkeys(label for label, _ in plans))
    return sorted(plans.values(), key=lambda plan: (order.index(plan.label), plan.nfe))


def levels(known: Sequence[Plan], wide: Width = DEFAULT) -> Drawing | None:
    """Return a figure with a panel for each of up to four budgets: a row per solver, a noise level per call."""
    budgets = shown_budgets(known)
    if not budgets:
        return None
    with settings():
        names = list(dict.fromkeys(plan.label for plan in known))
        left = 0.12 + _LETTER * max(map(len, names))
        columns = max(1, min(len(budgets), int((wide.double - left) / 1.4)))
        lines = -(-len(budgets) // columns)
        across = wide.double if columns > 1 else wide.single
        tall = max(0.45, _ROW * len(names))
        height = lines * (_HEAD + tall + _FOOT)
        figure = blank(across, height)
        inner = (across - left) / columns - 0.12
        low, high = _limits([sigma for plan in known if plan.nfe in budgets for sigma in plan.sigmas])
        for i, nfe in enumerate(budgets):
            start = left + i % columns * (inner + 0.12)
            bottom = height - (i // columns + 1) * (_HEAD + tall + _FOOT) + _FOOT
            box = (start / across, bottom / height, inner / across, tall / height)
            axes = figure.add_axes(box, label=f"NFE {nfe}")
            _levels(axes, [plan for plan in known if plan.nfe == nfe], names, (low, high))
            axes.set_title(f"NFE {nfe}", fontsize=6.5, loc="left", pad=3)
            if i % columns:
                axes.set_yticks(range(len(names)), [""] * len(names))
    return figure


def levels_drawn(known: Sequence[Plan], teacher: str) -> pd.DataFrame:
    """Return exactly the data of the figure of levels: a row per call; `row` is its height in the panel."""
    names = list(dict.fromkeys(plan.label for plan in known))
    return pd.DataFrame([
        {"panel": f"NFE {plan.nfe}", "teacher": teacher, "kind": "measured", "series": plan.label, "nfe": plan.nfe,
         "call": call, "sigma": sigma, "row": names.index(plan.label)}
        for plan in known if plan.nfe in shown_budgets(known) for call, sigma in enumerate(plan.sigmas)
    ])  # fmt: skip


def weights(known: Sequence[Plan], wide: Width = DEFAULT, nfe: int | None = None) -> Drawing | None:
    """Return a heat map per solver at one budget: row k is the input of call k, the last row the sample.

    The first column multiplies the starting noise and is drawn relative to its own first entry.
    """
    chosen = [plan for plan in known if plan.nfe == (weights_budget(known) if nfe is None else nfe)]
    if not chosen:
        return None
    with settings():
        count = len(chosen)
        columns = min(count, max(2, int(wide.double / 1.3)))
        lines = -(-count // columns)
        across = wide.double if count > 1 else wide.single
        side = (across - 0.32) / columns - 0.12
        height = lines * (side + 0.34) + 0.42
        figure = blank(across, height)
        for i, plan in enumerate(chosen):
            start = 0.32 + i % columns * (side + 0.12)
            bottom = height - (i // columns + 1) * (side + 0.34) + 0.08
            box = (start / across, bottom / height, side / across, side / height)
            axes = figure.add_axes(box, label=plan.label)
            _heat(axes, plan, first=i % columns == 0, big=side / len(plan.rows) > 0.19)
        bar = figure.add_axes(
            (0.32 / across, 0.3 / height, min(2.0, across / 2) / across, 0.07 / height), label="scale"
        )
        _scale(bar)
        said = f"weights at NFE {chosen[0].nfe}: input k = row k of noise, d0, d1, …"
        place = min(2.0, across / 2) + 0.45
        figure.text(place / across, 0.3 / height, said, fontsize=SMALL, color=GREY, va="bottom")
    return figure


def weights_drawn(known: Sequence[Plan], teacher: str, nfe: int | None = None) -> pd.DataFrame:
    """Return exactly the data of the heat maps; `shade` is the value that the colour shows."""
    chosen = [plan for plan in known if plan.nfe == (weights_budget(known) if nfe is None else nfe)]
    return pd.DataFrame([
        {"panel": plan.label, "teacher": teacher, "series": plan.label, "nfe": plan.nfe, "row": k, "column": j,
         "weight": weight, "shade": shade}
        for plan in chosen
        for k, (row, shades) in enumerate(zip(plan.rows, shades_of(plan), strict=True))
        for j, (weight, shade) in enumerate(zip(row[: k + 1], shades, strict=False))
    ])  # fmt: skip


def weights_budget(known: Sequence[Plan]) -> int | None:
    """Return the smallest budget that a learned solver has, else the smallest one; None if none can be drawn."""
    drawn = [plan for plan in known if plan.nfe <= MOST]
    return min((plan.nfe for plan in drawn if plan.learned), default=min((plan.nfe for plan in drawn), default=None))


def shown_budgets(known: Sequence[Plan]) -> list[int]:
    """Return up to four budgets, the first and the last among them."""
    budgets = sorted({plan.nfe for plan in known})
    if len(budgets) <= _PANELS:
        return budgets
    return [budgets[round(i * (len(budgets) - 1) / (_PANELS - 1))] for i in range(_PANELS)]


def shades_of(plan: Plan) -> list[list[float]]:
    """Return the value shown for each weight: itself, or relative to the first one in the noise's column."""
    first = abs(plan.rows[0][0]) or 1.0
    return [[row[0] / first, *row[1 : k + 1]] for k, row in enumerate(plan.rows)]


def scaled(value: float) -> float:
    """Return a weight on the colour scale, -1 to 1: the signed square root keeps small weights visible."""
    return math.copysign(math.sqrt(min(1.0, abs(value) / FULL)), value)


def _levels(axes: Axes, own: Sequence[Plan], names: Sequence[str], limits: tuple[float, float]) -> None:
    for plan in own:
        colour, marker, _, fill = look_of(plan.part, plan.label)
        told = [sigma for sigma in plan.sigmas if sigma > _TINY]
        axes.plot(
            told, [names.index(plan.label)] * len(told), ls="", marker=marker, ms=size_of(marker) * 1.1, color=fill,
            mec="white" if fill == colour else colour, mew=0.3 if fill == colour else 0.8, label=plan.label, zorder=3,
        )  # fmt: skip
    axes.set_xscale("log")
    axes.set_xlim(limits[1], limits[0])
    ticks = log_ticks(*limits)
    ticks = ticks[:: -(-len(ticks) // 4)]
    axes.set_xticks(ticks, [tick_text(tick) for tick in ticks])
    axes.set_xticks(log_minor_ticks(*limits), minor=True)
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.set_yticks(range(len(names)), [unmarked(name) for name in names])
    axes.set_xlabel("noise level σ", fontsize=6.5, labelpad=1)
    dress(axes)


def _heat(axes: Axes, plan: Plan, *, first: bool, big: bool) -> None:
    size = len(plan.rows)
    shades = np.full((size, size), math.nan)
    for k, own in enumerate(shades_of(plan)):
        shades[k, : k + 1] = [scaled(shade) for shade in own]
    axes.pcolormesh(shades, cmap="PuOr_r", vmin=-1, vmax=1, edgecolors="white", lw=0.4, rasterized=False)
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
    axes.set_title(plan.label.replace(":", " ")[:26], fontsize=6.5, pad=3)
    if big:
        for k, row in enumerate(plan.rows):
            for j, weight in enumerate(row[: k + 1]):
                light = abs(scaled(shades_of(plan)[k][j])) < 0.62
                axes.text(j + 0.5, k + 0.5, _brief(weight), fontsize=3.6, ha="center", va="center",
                          color="black" if light else "white")  # fmt: skip


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


def _limits(sigmas: Sequence[float]) -> tuple[float, float]:
    known = [math.log10(sigma) for sigma in sigmas if sigma > _TINY] or [0.0]
    margin = 0.05 * (max(known) - min(known)) or 0.3
    return 10 ** (min(known) - margin), 10 ** (max(known) + margin)


def _brief(weight: float) -> str:
    text = f"{weight:.2f}" if abs(weight) < 9.95 else f"{weight:.0f}"
    return text.replace("0.", ".", 1) if text.startswith(("0.", "-0.")) else text


def _read(stored: Any) -> tuple[tuple[float, ...], tuple[tuple[float, ...], ...]] | None:
    """Return the numbers of a plan; None if it is not a triangle of finite ones."""
    try:
        sigmas = tuple(float(sigma) for sigma in stored["sigmas"])
        rows = tuple(tuple(float(weight) for weight in row) for row in stored["rows"])
    except (KeyError, TypeError, ValueError):
        return None
    sound = len(rows) == len(sigmas) + 1 and all(len(row) > k for k, row in enumerate(rows))
    finite = all(math.isfinite(number) for numbers in (sigmas, *rows) for number in numbers)
    return (sigmas, rows) if sound and finite and sigmas else None
