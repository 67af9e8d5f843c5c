"""The cost of quality: training calls of learned solvers, and images per second; a table, and the data of figures."""

import math
from collections.abc import Sequence

import pandas as pd

from solverbench.reports.parts import Part, grouped

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


def paid(found: Sequence[Part]) -> pd.DataFrame:
    """Return the `rows` with any calls: a search without network calls has no place on a logarithmic axis."""
    everything = rows(found)
    return everything if everything.empty else everything[everything["calls"] > 0].reset_index(drop=True)


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
    return _by_metric(everything)


def serial(found: Sequence[Part]) -> pd.DataFrame:
    """Return a row per cell with known serial calls: `serial`, and its value in each metric.

    It is empty if nowhere they differ from the NFE.
    """
    tables = [
        part.frame[part.frame["serial_calls"] > 0][["teacher", "label", "nfe", "value", "serial_calls"]]
        .rename(columns={"serial_calls": "serial"})
        .assign(metric=part.metric)
        for part in found
        if part.number == 1
    ]
    everything = pd.concat(tables, ignore_index=True)
    if everything["value"].isna().all() or (everything["serial"] == everything["nfe"]).all():
        return everything.iloc[:0]
    return _by_metric(everything)


def _by_metric(everything: pd.DataFrame) -> pd.DataFrame:
    """Return a row per cell of rows per cell and metric, with a column for each metric."""
    cells = everything.drop_duplicates(["teacher", "label", "nfe"]).drop(columns=["metric", "value"])
    values = everything.pivot_table(index=["teacher", "label", "nfe"], columns="metric", values="value", sort=False)
    return cells.join(values, on=["teacher", "label", "nfe"]).reset_index(drop=True)


def across_axis(found: Sequence[Part], across: str) -> pd.DataFrame:
    """Return the rows of a figure's x axis: calls (of training), speed (images per second) or serial (calls)."""
    return {"calls": paid, "speed": speeds, "serial": serial}[across](found)


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


def drawn(found: Sequence[Part], across: str) -> pd.DataFrame:
    """Return exactly the data shown in a figure of these parts: a row per point, with every known cost column.

    `panel` names the axes; `kind` is measured, or front for the Pareto front in speed. It is empty if no cell's
    cost is known.

    Args:
        across: the x axis; see `across_axis`.
    """
    spent = across_axis(found, across)
    tables = []
    for part in valued(found, spent):
        own = spent[(spent["teacher"] == part.teacher) & spent[part.metric].notna() & spent["label"].isin(part.solvers)]
        own = own.rename(columns={"label": "series"}).assign(panel=part.name, metric=part.metric, kind="measured")
        own = own.rename(columns={part.metric: "value"}).join(_intervals(part), on=["series", "nfe"])
        extra = [column for column in _SPENT if column in own]
        columns = ["panel", "teacher", "metric", "kind", "series", "nfe", across, "value", "low", "high", *extra]
        tables.append(own[columns])
        if across == "speed":
            best = front(own[(own["value"] > 0) | (not part.log)], "value", part.higher)
            tables.append(tables[-1].loc[best.index].assign(kind="front", low=math.nan, high=math.nan))
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame()


def valued(found: Sequence[Part], spent: pd.DataFrame) -> list[Part]:
    """Return the first parts of the metrics that have values in `spent`."""
    return [part for part in found if part.number == 1 and part.metric in spent.columns]


def _intervals(part: Part) -> pd.DataFrame:
    """Return the interval of each value, by label and NFE."""
    return part.frame.set_index(["label", "nfe"])[["low", "high"]]


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
