"""What learned solvers cost to train and the quality that they reach for it: a table, and a figure."""

import math
import textwrap
from collections.abc import Sequence

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.lines import Line2D
from matplotlib.ticker import NullFormatter

from reports.axes import log_minor_ticks, log_ticks, tick_text
from reports.figures import DOUBLE, SINGLE, Drawing, settings
from reports.panel import GREY, dress, look_of
from reports.parts import Part, grouped

_HEIGHT, _TOP = 1.8, 0.26  # inches of a panel, and above it
_LEFT, _RIGHT, _BELOW = 0.42, 0.1, 0.34  # inches beside and below it
_AXIS = "network calls spent in training"
_SPENT = ["cost_training_seeds", "cost_training_student_calls", "cost_training_teacher_calls",
          "cost_training_seconds", "cost_training_peak_memory_bytes", "validation", "validation_spread"]  # fmt: skip


def rows(found: Sequence[Part]) -> pd.DataFrame:
    """A row for every learned cell whose training cost is known: its cost, and its value in each metric."""
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
    """The costs of `rows` as people read them."""
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


def compose(found: Sequence[Part]) -> Drawing:
    """The figure: a row for each teacher, a column for each metric; a point for each cell, at its NFE's number."""
    spent = rows(found)
    parts = [part for part in found if part.number == 1 and part.metric in spent.columns]
    metrics = list(dict.fromkeys(part.metric for part in parts))
    teachers = [name for name in dict.fromkeys(part.teacher for part in parts) if (spent["teacher"] == name).any()]
    with settings():
        width = SINGLE if len(metrics) == 1 else DOUBLE
        legend = 0.22
        height = legend + len(teachers) * (_HEIGHT + _BELOW + _TOP)
        figure = Drawing(figsize=(width, height), dpi=300)
        FigureCanvasAgg(figure)
        labels = list(dict.fromkeys(spent["label"]))
        for part in parts:
            if part.teacher in teachers:
                column, row = metrics.index(part.metric), teachers.index(part.teacher)
                left = column * width / len(metrics) + _LEFT
                bottom = height - legend - (row + 1) * (_HEIGHT + _BELOW + _TOP) + _BELOW
                inner = width / len(metrics) - _LEFT - _RIGHT
                box = (left / width, bottom / height, inner / width, _HEIGHT / height)
                axes = figure.add_axes(box, label=part.name)
                _panel(axes, part, spent[spent["teacher"] == part.teacher])
                name = part.label.split(" (")[0] if len(metrics) > 1 else part.label
                title = f"{part.teacher}: {name}" if len(teachers) > 1 else name
                axes.set_title(_wrapped(title, int(inner * 19)), fontsize=6.5, loc="left", pad=4, linespacing=1.1)
        homes = {label: next(part for part in parts if label in part.solvers) for label in labels}
        handles = [_handle(label, homes[label]) for label in labels]
        figure.text(1 - _RIGHT / width, 1 - 0.08 / height, "numbers: NFE", fontsize=6, ha="right", va="top", color=GREY)
        figure.legend(
            handles=handles, loc="upper left", ncols=len(handles), frameon=False, fontsize=6.5, handletextpad=0.3,
            columnspacing=1.2, bbox_to_anchor=(0.0, 1.0), borderpad=0.3,
        )  # fmt: skip
    return figure


def _panel(axes: Axes, part: Part, spent: pd.DataFrame) -> None:
    known = spent[spent[part.metric].notna() & ((spent[part.metric] > 0) | (not part.log))]
    for label in dict.fromkeys(known["label"]):
        own = known[known["label"] == label].sort_values("nfe")
        colour, marker, dash, fill = look_of(part, label)
        axes.plot(own["calls"], own[part.metric], color=colour, ls=dash, lw=0.8, alpha=0.6, zorder=2)
        axes.plot(
            own["calls"], own[part.metric], color=fill, ls="", marker=marker, ms=4.0, mec=_edge(colour, fill),
            mew=0.35 if fill == colour else 0.8, zorder=3,
        )  # fmt: skip
        for nfe, x, y in zip(own["nfe"], own["calls"], own[part.metric], strict=True):
            axes.annotate(
                str(nfe), (x, y), (2.5, 2.0), textcoords="offset points", fontsize=4.8, color=colour, zorder=4
            )
    axes.set_xscale("log")
    low, high = _stretched(known["calls"].to_list())
    axes.set_xlim(low, high)
    axes.set_xticks(ticks := _few(log_ticks(low, high)), [_short(tick) for tick in ticks])
    axes.set_xticks(log_minor_ticks(low, high), minor=True)
    if part.log:
        axes.set_yscale("log")
        low, high = _stretched(known[part.metric].to_list())
        axes.set_ylim(low, high)
        axes.set_yticks(marks := log_ticks(low, high), [tick_text(mark) for mark in marks])
        axes.set_yticks(log_minor_ticks(low, high), minor=True)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_minor_formatter(NullFormatter())
    axes.set_xlabel(_AXIS, fontsize=6.5, labelpad=2)
    dress(axes)


def _handle(label: str, part: Part) -> Line2D:
    colour, marker, dash, fill = look_of(part, label)
    return Line2D(
        [], [], color=colour, ls=dash, lw=0.8, marker=marker, ms=4.0, mfc=fill, mec=_edge(colour, fill),
        mew=0.35 if fill == colour else 0.8, label=label,
    )  # fmt: skip


def _edge(colour: str, fill: str) -> str:
    """A filled marker stands on white, a hollow one has its colour at the edge."""
    return "white" if fill == colour else colour


def _stretched(values: Sequence[float]) -> tuple[float, float]:
    """The range of positive values with a margin for markers and their numbers."""
    if not values:
        return 0.1, 10.0
    low, high = math.log10(min(values)), math.log10(max(values))
    margin = max(0.08 * (high - low), 0.05)
    return 10 ** (low - margin), 10 ** (high + margin)


def _few(ticks: Sequence[float]) -> list[float]:
    """At most four of them."""
    return list(ticks[:: -(-len(ticks) // 4)])


def _short(calls: float) -> str:
    """A number of calls: 300k, 1.5M."""
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
