"""The cost of quality: training calls, images per second, serial calls and latency; tables, and the data of figures."""

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

import pandas as pd

from solverbench.reports.figures import curves
from solverbench.reports.parts import Part, grouped, ranges

_SPENT = ["cost_training_seeds", "cost_training_student_calls", "cost_training_teacher_calls",
          "cost_training_seconds", "cost_training_peak_memory_bytes", "validation", "validation_spread"]  # fmt: skip
_MADE = ["parameters_origin", "search", "search_origin", "cost_search_teacher_calls", "cost_search_seconds"]


def rows(found: Sequence[Part]) -> pd.DataFrame:
    """Return a row per learned cell with a known training cost: its cost, and its value in each metric."""
    tables = []
    for part in found:
        own = part.frame[part.frame["cost_training_student_calls"].notna()]
        values = own[["teacher", "label", "nfe", *_SPENT, *_MADE]].assign(metric=part.metric, value=own["value"])
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


Row = Mapping[Hashable, Any]

_ORIGINS = {"packaged": "packaged", "own zoo": "own zoo", "run folder": "here"}


@dataclass(frozen=True)
class Spent:
    """What one training, or one search of a grid, cost; NaN where a number is unknown.

    Args:
        solvers: labels of the solvers that use it.
        nfe: their budgets; a search serves several.
        origin: packaged, own zoo or here (the results folder); empty if unknown.
    """

    teacher: str
    solvers: tuple[str, ...]
    nfe: tuple[int, ...]
    student_calls: float
    teacher_calls: float
    seconds: float
    origin: str
    seeds: float = math.nan
    memory: float = math.nan
    validation: float = math.nan
    spread: float = math.nan

    @property
    def texts(self) -> dict[str, str]:
        """The cost by column, as human-readable text."""
        return {
            "teacher": self.teacher, "solver": ", ".join(self.solvers), "NFE": ranges(self.nfe), "made": self.origin,
            "training seeds": _count(self.seeds), "student calls": _count(self.student_calls),
            "teacher calls": _count(self.teacher_calls), "time": _duration(self.seconds),
            "peak memory": _size(self.memory), "validation RMSE": _number(self.validation),
            "spread over seeds": _number(self.spread),
        }  # fmt: skip

    @property
    def numbers(self) -> dict[str, float]:
        """The numbers by which a column of `texts` is sorted."""
        return {
            "NFE": self.nfe[0], "student calls": self.student_calls, "teacher calls": self.teacher_calls,
            "time": self.seconds, "peak memory": self.memory,
        }  # fmt: skip


def made(found: Sequence[Part]) -> list[Spent]:
    """Return the cost of each training, and of each search of a grid once, however many cells it serves.

    A bundle of an older version doesn't tell the searches; each of its cells has one row.
    """
    trainings = list[Spent]()
    searches: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows(found).to_dict("records"):
        if row["search"]:
            alone = (
                row["nfe"] if row["cost_search_teacher_calls"] == 0 else 0
            )  # a search without calls is for one budget
            searches.setdefault((row["teacher"], row["search"], alone), []).append(row)
        if not row["search"] or not math.isnan(row["cost_training_seeds"]):
            trainings.append(_training(row))
    return [*trainings, *(_search(each) for each in searches.values())]


def _training(row: Row) -> Spent:
    """Return the cost of a cell's training, without that of its grid's search."""
    calls, seconds = (
        0.0 if math.isnan(x) else x for x in (row["cost_search_teacher_calls"], row["cost_search_seconds"])
    )
    return Spent(
        row["teacher"], (row["label"],), (row["nfe"],), row["cost_training_student_calls"],
        row["cost_training_teacher_calls"] - calls, row["cost_training_seconds"] - seconds,
        _ORIGINS.get(row["parameters_origin"], ""), row["cost_training_seeds"], row["cost_training_peak_memory_bytes"],
        row["validation"], row["validation_spread"],
    )  # fmt: skip


def _search(cells: Sequence[Row]) -> Spent:
    """Return the cost of one search, from the cells that use it; a search for more steps finds fewer steps, too."""
    labels, budgets = (dict.fromkeys(each[column] for each in cells) for column in ("label", "nfe"))
    calls, seconds = (
        max(each[column] for each in cells) for column in ("cost_search_teacher_calls", "cost_search_seconds")
    )
    origin = _ORIGINS.get(cells[0]["search_origin"], "")
    return Spent(cells[0]["teacher"], tuple(labels), tuple(sorted(budgets)), 0.0, calls, seconds, origin)


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


@dataclass(frozen=True)
class CallTime:
    """The time of one call of a teacher's network: `milliseconds` per image, median of `cells` cells.

    All of them were measured at `batch` images a call (NaN if unknown) on `device`.
    """

    teacher: str
    batch: float
    device: str
    milliseconds: float
    cells: int

    @property
    def text(self) -> str:
        """What was measured where: "1.2 ms per image and call, 500 images a call, cpu"."""
        batch = "" if math.isnan(self.batch) else f", {grouped(int(self.batch))} images a call"
        device = f", {self.device}" if self.device else ""
        return f"{self.milliseconds:.3g} ms per image and call{batch}{device} (median of {self.cells} cells)"


def call_times(found: Sequence[Part]) -> list[CallTime]:
    """Return the time of a call of each teacher, batch and device, from the cells' seconds in the network.

    It is a median over cells, so that a machine that was busy for a while changes little, and solvers with as many
    serial calls have one latency.
    """
    groups: dict[tuple[str, float | None, str], list[float]] = {}
    cells = _timed(found)
    columns = (cells[name] for name in ("teacher", "cost_batch", "cost_device", "call"))
    for teacher, batch, device, call in zip(*columns, strict=True):
        groups.setdefault((teacher, _known(batch), device), []).append(call)
    return [
        CallTime(teacher, math.nan if batch is None else batch, device, median(calls), len(calls))
        for (teacher, batch, device), calls in groups.items()
    ]


def latency(found: Sequence[Part]) -> pd.DataFrame:
    """Return a row per cell with a known time of a call: `latency`, in milliseconds per image, and its metrics.

    Latency is the number of serial calls times the time of a call: calls that needn't wait for one another are taken to
    run side by side.
    """
    times = {(each.teacher, _known(each.batch), each.device): each.milliseconds for each in call_times(found)}
    tables = []
    for part in (part for part in found if part.number == 1):
        own = part.frame[_measured(part.frame)]
        keys = zip(own["teacher"], own["cost_batch"].map(_known), own["cost_device"], strict=True)
        milliseconds = own["serial_calls"].to_numpy(dtype=float) * [times[key] for key in keys]
        tables.append(own[["teacher", "label", "nfe", "value"]].assign(latency=milliseconds, metric=part.metric))
    everything = pd.concat(tables, ignore_index=True)
    if everything.empty or everything["value"].isna().all():
        return everything.iloc[:0]
    return _by_metric(everything)


def tells_more(found: Sequence[Part]) -> bool:
    """Return whether latency is more than the NFE on another scale: of several teachers, or with parallel calls."""
    cells = _timed(found)
    return bool(cells["teacher"].nunique() > 1 or (cells["serial_calls"] != cells["nfe"]).any())


def _timed(found: Sequence[Part]) -> pd.DataFrame:
    """Return a row per cell with its time of a call, `call`, in milliseconds per image."""
    cells = pd.concat([part.frame[_measured(part.frame)] for part in found if part.number == 1])
    cells = cells.drop_duplicates(["teacher", "label", "nfe"])
    images = cells["cost_images_per_second"] * cells["cost_seconds"]
    return cells.assign(call=1000 * cells["cost_denoiser_seconds"] / (images * cells["nfe"]))


def _measured(frame: pd.DataFrame) -> "pd.Series[bool]":
    columns = ("cost_denoiser_seconds", "cost_images_per_second", "cost_seconds", "serial_calls")
    known = frame["value"].notna()
    for column in columns:
        known &= frame[column] > 0
    return known


def _known(number: float) -> float | None:
    return None if math.isnan(number) else number


def _by_metric(everything: pd.DataFrame) -> pd.DataFrame:
    """Return a row per cell of rows per cell and metric, with a column for each metric."""
    cells = everything.drop_duplicates(["teacher", "label", "nfe"]).drop(columns=["metric", "value"])
    values = everything.pivot_table(index=["teacher", "label", "nfe"], columns="metric", values="value", sort=False)
    return cells.join(values, on=["teacher", "label", "nfe"]).reset_index(drop=True)


def across_axis(found: Sequence[Part], across: str) -> pd.DataFrame:
    """Return the rows of a figure's x axis: calls (of training), speed (images per second), serial (calls), latency."""
    return {"calls": paid, "speed": speeds, "serial": serial, "latency": latency}[across](found)


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
        tables.append(own[columns].assign(**curves.columns(part)))
        if across == "speed" and part.ranked:
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
