"""The cost of quality: training calls of learned solvers, and images per second; a table, and figures."""

import math
import textwrap
from collections.abc import Sequence

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import NullFormatter

from solverbench.reports.figures.axes import log_minor_ticks, log_ticks, tick_text
from solverbench.reports.figures.base import Drawing, blank, settings
from solverbench.reports.figures.curves import shown
from solverbench.reports.figures.panel import GREY, dress, handle, look_of, size_of
from solverbench.reports.figures.widths import DEFAULT, Width
from solverbench.reports.parts import Part, grouped

_HEIGHT, _TOP = 1.8, 0.26  # inches: a panel's height, and the space above it
_LEFT, _RIGHT, _BELOW = 0.42, 0.1, 0.34  # inches: the space beside and below a panel
_NUMBERS = 40  # label every point with its NFE up to this many points in a panel, beyond it only the first and last NFE
_LOWER = 1.25  # inches: a panel's height with many rows
_AXES = {"calls": "network calls spent in training", "speed": "images per second"}
_SPENT = ["cost_training_seeds", "cost_training_student_calls", "cost_training_teacher_calls",
          "cost_training_seconds", "cost_training_peak_memory_bytes", "validation", "validation_spread"]  # fmt: skip


def rows(found: Sequence[Part]) -> pd.DataFrame:
    """Return a row per learned cell with a known training cost: its cost, and its value in each metric."""
    tables = []
    for part in found:
        own = part.frame[part.frame["cost_training_student_calls"].notna()]
        values = own[["teacher", "label", "nfe", *_SPENT]].assign(metric=part.metric, value=own["value"])
        tables.append(values)
    everything = pd.concat(tables, ignore_index=True)
    if everything.empty:
        return everything
    cells = everything.drop_duplicates(["teacher", "label", "nfe"]).drop(columns=["metric", "value"])
    values = everything.pivot_table(index=["teacher", "label", "nfe"], columns="metric", values="value", sort=False)
    calls = cells["cost_training_student_calls"] + cells["cost_training_teacher_calls"].fillna(0)
    cells.insert(3, "calls", calls)
    return cells.join(values, on=["teacher", "label", "nfe"]).reset_index(drop=True)


def text(spent: pd.DataFrame) -> pd.DataFrame:
    """Return the costs of `rows` as human-readable text."""
    return pd.DataFrame(
        {
            "teacher": spent["teacher"],
            "solver": spent["label"],
            "NFE": spent["nfe"].astype(str),
            "training seeds": spent["cost_training_seeds"].map(_count),
            "student calls": spent["cost_training_student_calls"].map(_count),
            "teacher calls": spent["cost_training_teacher_calls"].map(_count),
            "time": spent["cost_training_seconds"].map(_duration),
            "peak memory": spent["cost_training_peak_memory_bytes"].map(_size),
            "validation RMSE": spent["validation"].map(_number),
            "spread over seeds": spent["validation_spread"].map(_number),
        }
    )


def speeds(found: Sequence[Part]) -> pd.DataFrame:
    """Return a row per cell with known images per second: `speed`, and its value in each metric."""
    tables = [
        part.frame[part.frame["cost_images_per_second"] > 0][
            ["teacher", "label", "nfe", "value", "cost_images_per_second"]
        ]
        .rename(columns={"cost_images_per_second": "speed"})
        .assign(metric=part.metric)
        for part in found
        if part.number == 1
    ]
    everything = pd.concat(tables, ignore_index=True)
    if everything.empty or everything["value"].isna().all():
        return everything.iloc[:0]
    cells = everything.drop_duplicates(["teacher", "label", "nfe"]).drop(columns=["metric", "value"])
    values = everything.pivot_table(index=["teacher", "label", "nfe"], columns="metric", values="value", sort=False)
    return cells.join(values, on=["teacher", "label", "nfe"]).reset_index(drop=True)


def front(points: pd.DataFrame, metric: str, higher: bool) -> pd.DataFrame:
    """Return the Pareto front in speed and metric of these cells, the fastest first."""
    known = points[points[metric].notna()].sort_values("speed", ascending=False, kind="stable")
    sign = -1 if higher else 1
    best, kept = math.inf, []
    for i, value in zip(known.index, sign * known[metric], strict=True):
        if value < best:
            best = value
            kept.append(i)
    return known.loc[kept]


def compose(found: Sequence[Part], across: str = "calls", wide: Width = DEFAULT) -> Drawing | None:
    """Return the figure: a row per teacher, a column per metric; each cell is a point with its NFE.

    None if no cell's cost is known.

    Args:
        across: the x axis: calls (of training) or speed (images per second).
    """
    spent = speeds(found) if across == "speed" else rows(found)
    if spent.empty:
        return None
    parts = _fitting(found, spent, wide)
    spent = spent[spent["label"].isin({label for part in parts for label in part.solvers})]
    metrics = list(dict.fromkeys(part.metric for part in parts))
    teachers = [name for name in dict.fromkeys(part.teacher for part in parts) if (spent["teacher"] == name).any()]
    with settings():
        width = wide.single if len(metrics) == 1 else wide.double
        labels = list(dict.fromkeys(spent["label"]))
        homes = {label: next(part for part in parts if label in part.solvers) for label in labels}
        per_line = max(1, int((width - 0.7) / (0.42 + 0.065 * max(map(len, labels)))))
        legend = 0.08 + 0.14 * -(-len(labels) // per_line)
        tall = _HEIGHT if len(teachers) < 3 else _LOWER
        inner = width / len(metrics) - _LEFT - _RIGHT
        titles = {part.name: _wrapped(_name(part, metrics, teachers), int(inner * 19)) for part in parts}
        top = _TOP + 0.1 * max(0, max(title.count("\n") for title in titles.values()) - 1)
        height = legend + len(teachers) * (tall + _BELOW + top)
        figure = blank(width, height)
        for part in parts:
            if part.teacher in teachers:
                column, row = metrics.index(part.metric), teachers.index(part.teacher)
                left = column * width / len(metrics) + _LEFT
                bottom = height - legend - (row + 1) * (tall + _BELOW + top) + _BELOW
                box = (left / width, bottom / height, inner / width, tall / height)
                axes = figure.add_axes(box, label=part.name)
                own = spent[(spent["teacher"] == part.teacher) & spent["label"].isin(part.solvers)]
                _panel(axes, part, own, across)
                axes.set_title(titles[part.name], fontsize=6.5, loc="left", pad=4, linespacing=1.1)
        said = "numbers: NFE" + (", dotted: not beaten in both" if across == "speed" and width > 5 else "")
        figure.text(1 - _RIGHT / width, 1 - 0.08 / height, said, fontsize=6, ha="right", va="top", color=GREY)
        figure.legend(
            handles=[handle(label, homes[label]) for label in labels], loc="upper left", ncols=per_line, frameon=False,
            fontsize=6.5, handletextpad=0.3, columnspacing=1.2, bbox_to_anchor=(0.0, 1.0), borderpad=0.3,
            labelspacing=0.3,
        )  # fmt: skip
    return figure


def drawn(found: Sequence[Part], across: str, wide: Width = DEFAULT) -> pd.DataFrame:
    """Return exactly the data shown in the figure: a row per point, with `panel`, and every known cost column."""
    spent = speeds(found) if across == "speed" else rows(found)
    tables = []
    for part in _fitting(found, spent, wide):
        own = spent[(spent["teacher"] == part.teacher) & spent[part.metric].notna() & spent["label"].isin(part.solvers)]
        own = own.rename(columns={"label": "series"}).assign(panel=part.name, metric=part.metric, kind="measured")
        own = own.rename(columns={part.metric: "value"}).join(_intervals(part), on=["series", "nfe"])
        extra = [column for column in _SPENT if column in own]
        columns = ["panel", "teacher", "metric", "kind", "series", "nfe", across, "value", "low", "high", *extra]
        tables.append(own[columns])
        if across == "speed":
            best = front(own, "value", part.higher)
            tables.append(tables[-1].loc[best.index].assign(kind="front", low=math.nan, high=math.nan))
    return pd.concat(tables, ignore_index=True)


def _fitting(found: Sequence[Part], spent: pd.DataFrame, wide: Width) -> list[Part]:
    """Return the parts that have values in `spent`, as many as fit into a figure."""
    return shown([part for part in found if part.number == 1 and part.metric in spent.columns], wide)


def _panel(axes: Axes, part: Part, spent: pd.DataFrame, across: str) -> None:
    known = spent[spent[part.metric].notna() & ((spent[part.metric] > 0) | (not part.log))]
    known = known.join(_intervals(part), on=["label", "nfe"])
    if part.log:
        axes.set_yscale("log")
        ends = [low for low, value in zip(known["low"], known[part.metric], strict=True) if low > value / 3]
        low, high = _stretched([*known[part.metric], *ends, *known["high"].dropna()])
        axes.set_ylim(low, high)
        axes.set_yticks(marks := log_ticks(low, high), [tick_text(mark) for mark in marks])
        axes.set_yticks(log_minor_ticks(low, high), minor=True)
    numbered = set(known["nfe"]) if len(known) <= _NUMBERS else {known["nfe"].min(), known["nfe"].max()}
    for label in dict.fromkeys(known["label"]):
        own = known[known["label"] == label].sort_values("nfe")
        colour, marker, dash, fill = look_of(part, label)
        axes.plot(own[across], own[part.metric], color=colour, ls=dash, lw=0.8, alpha=0.6, zorder=2)
        axes.plot(
            own[across], own[part.metric], color=fill, ls="", marker=marker, ms=1.2 * size_of(marker),
            mec=_edge(colour, fill), mew=0.35 if fill == colour else 0.8, zorder=3, label=label,
        )  # fmt: skip
        barred = own[own["low"].notna() & own["high"].notna()]
        floor = barred["low"].clip(lower=axes.get_ylim()[0]) if part.log else barred["low"]
        axes.vlines(barred[across], floor, barred["high"], color=colour, lw=0.8, zorder=3)
        for nfe, x, y in zip(own["nfe"], own[across], own[part.metric], strict=True):
            if nfe not in numbered:
                continue
            axes.annotate(
                str(nfe), (x, y), (2.5, 2.0), textcoords="offset points", fontsize=4.8, color=colour, zorder=4
            )
    if across == "speed":
        best = front(known, part.metric, part.higher)
        axes.plot(best["speed"], best[part.metric], color=GREY, ls=":", lw=0.8, zorder=1.5, label="_front")
    axes.set_xscale("log")
    low, high = _stretched(known[across].to_list())
    axes.set_xlim(low, high)
    axes.set_xticks(ticks := _few(log_ticks(low, high)), [_short(tick) for tick in ticks])
    axes.set_xticks(log_minor_ticks(low, high), minor=True)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_minor_formatter(NullFormatter())
    axes.set_xlabel(_AXES[across], fontsize=6.5, labelpad=2)
    dress(axes)


def _name(part: Part, metrics: Sequence[str], teachers: Sequence[str]) -> str:
    """Return a panel's title: the metric and its images, with the teacher if there are several."""
    name = part.label.split(" (")[0] if len(metrics) > 1 else part.label
    name += ", " + part.count.replace(" ", "\u00a0") if part.n else ""
    return f"{part.teacher}: {name}" if len(teachers) > 1 else name


def _intervals(part: Part) -> pd.DataFrame:
    """Return the interval of each value, by label and NFE."""
    return part.frame.set_index(["label", "nfe"])[["low", "high"]]


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


def _short(calls: float) -> str:
    """Return a number of calls as text: 300k, 1.5M."""
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if calls >= size:
            return f"{calls / size:.3g}{letter}"
    return f"{calls:.3g}"


def _wrapped(title: str, width: int) -> str:
    return "\n".join(textwrap.wrap(title, max(width, 12)))


def _count(value: float) -> str:
    return "" if math.isnan(value) else grouped(round(value))


def _number(value: float) -> str:
    return "" if math.isnan(value) else f"{value:.3g}"


def _size(value: float) -> str:
    return "" if math.isnan(value) or value <= 0 else f"{value / 2**20:.0f} MiB"


def _duration(seconds: float) -> str:
    if math.isnan(seconds):
        return ""
    if seconds < 60:
        return f"{seconds:.0f} s"
    whole = round(seconds / 60)
    return f"{whole} min" if whole < 60 else f"{whole // 60} h {whole % 60:02d} min"
