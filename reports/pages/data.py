"""The data that the page's script draws: solvers, points, images and plans, as JSON values."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from solverbench.reports.bundle import Bundle
from solverbench.reports.drawing.palette import bounds, look_of, variant_of
from solverbench.reports.figures import costs, plans
from solverbench.reports.figures.sprites import Sprites, blocks
from solverbench.reports.pages.content import Report
from solverbench.reports.pages.contrast import on_dark
from solverbench.reports.parts import Part
from solverbench.wording import interval_texts


def of(report: Report, pictures: Sprites) -> dict[str, Any]:
    """Return the script's data; a number that is not finite becomes None."""
    found, labels, record = report.parts, report.labels, report.bundle.record
    rows = costs.latency(found)
    keys = zip(rows["teacher"], rows["label"], rows["nfe"], strict=True) if len(rows) else ()
    waits = {key: float(each) for key, each in zip(keys, rows["latency"] if len(rows) else (), strict=True)}
    data = {
        "solvers": [_solver(found, label) for label in labels],
        "parts": [_part(part, labels, record, waits) for part in found],
        "images": _images(report.bundle.frame, pictures, labels, report.teachers),
        "plans": _plans(report.bundle, labels, report.teachers),
        "teachers": {name: _teacher(report, name) for name in report.teachers},
        "timed": [{"teacher": each.teacher, "text": each.text} for each in costs.call_times(found)],
    }
    return {name: _finite(value) for name, value in data.items()}


def _teacher(report: Report, name: str) -> dict[str, Any]:
    """Return a teacher's text, its model, and the values of the options that the run varies."""
    model, _ = report.axes.of(name)
    return {"title": report.axes.title(name), "model": model, "values": report.axes.values(name)}


def short(metric: str, record: Mapping[str, Any]) -> str:
    """Return a metric's short label; if it has none, its label without unit or feature space."""
    entry = record["metrics"].get(metric, {})
    return str(entry.get("short") or str(entry.get("label") or metric).partition(" (")[0])


def _finite(value: Any) -> Any:
    """Return the value with None for numbers that are not finite."""
    if isinstance(value, dict):
        return {key: _finite(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _solver(found: Sequence[Part], label: str) -> dict[str, Any]:
    """Return a solver's style on the page: as in the figures, with a colour for a dark background."""
    part = next(part for part in found if label in part.solvers)
    colour, marker, _, fill = look_of(part.everyone, label)
    specs = dict(zip(part.frame["label"], part.frame["spec"], strict=True))
    learned = bool(part.frame.loc[part.frame["label"] == label, "learned"].any())
    return {
        "label": label, "spec": specs[label], "learned": learned, "light": colour,
        "dark": on_dark(colour), "marker": marker, "hollow": fill != colour,
        "dash": (variant_of(part.everyone, label) + (label in bounds(part.everyone))) % 4,
    }  # fmt: skip


def _part(
    part: Part, labels: Sequence[str], record: Mapping[str, Any], waits: Mapping[tuple[str, str, int], float]
) -> dict[str, Any]:
    """Return a part's points; `waits` is the latency of each (teacher, label, NFE), in milliseconds per image."""
    calls = part.frame["cost_training_student_calls"] + part.frame["cost_training_teacher_calls"].fillna(0)
    numbers = {
        name: part.frame[name].to_list() for name in ("value", "low", "high", "std_error", "net_passes", "serial_calls")
    }
    numbers |= {"speed": part.frame["cost_images_per_second"].to_list(), "calls": calls.to_list()}
    texts = {name: part.frame[name].to_list() for name in ("label", "status", "reason", "spec", "cell")}
    budgets = part.frame["nfe"].to_list()
    points = [
        {
            "solver": labels.index(texts["label"][i]), "nfe": int(budgets[i]), "value": numbers["value"][i],
            "low": numbers["low"][i], "high": numbers["high"][i], "error": numbers["std_error"][i],
            "status": texts["status"][i], "reason": texts["reason"][i], "spec": texts["spec"][i],
            "cell": texts["cell"][i], "passes": numbers["net_passes"][i],
            "serial": _positive(numbers["serial_calls"][i]), "speed": _positive(numbers["speed"][i]),
            "latency": waits.get((part.teacher, texts["label"][i], int(budgets[i]))),
            "calls": _positive(numbers["calls"][i]), "shown": _shown(*(numbers[name][i] for name in _VALUE)),
        }
        for i in range(len(part.frame))
    ]  # fmt: skip
    points.sort(key=lambda point: (point["solver"], point["nfe"]))
    return {
        "teacher": part.teacher, "title": part.title, "metric": part.metric, "number": part.number, "label": part.label,
        "short": short(part.metric, record), "log": part.log, "higher": part.higher, "count": part.count,
        **({} if part.ranked else {"ranked": False}),
        "seeds": part.seeds, "reference": part.reference, "extractor": part.extractor, "quantiser": part.quantiser,
        "interval": part.interval, "points": points,
        "lines": [
            {"label": line.label, "value": line.value, "low": line.low, "high": line.high} for line in part.level
        ],
        "published": [
            {
                "solver": labels.index(part.label_of(each.label)) if part.label_of(each.label) else -1,
                "printed": each.solver, "nfe": each.nfe, "value": each.value, "row": each.row, "paper": each.paper,
                "place": each.place,
            }
            for each in part.published
        ],
    }  # fmt: skip


_VALUE = ("value", "low", "high", "std_error")


def _shown(value: float, low: float, high: float, error: float) -> str:
    """Return a value with its interval as text, for a tooltip; empty without a value."""
    if not math.isfinite(value):
        return ""
    shown, *ends = interval_texts(value, low, high, error=error)
    return f"{shown} ({ends[0]} to {ends[1]})" if ends[0] else shown


def _positive(value: float) -> float | None:
    return value if math.isfinite(value) and value > 0 else None


def _images(frame: pd.DataFrame, pictures: Sprites, labels: Sequence[str], teachers: Sequence[str]) -> dict[str, Any]:
    """Return the images of each teacher that has images of a shown solver."""
    shown = {(solver, nfe): label for solver, nfe, label in
             zip(frame["solver"], frame["nfe"], frame["label"], strict=True)}  # fmt: skip
    found = {}
    for teacher in teachers:
        own = list(blocks(list(pictures.uris), teacher))
        cells = [
            {"solver": labels.index(shown[solver, nfe]), "nfe": nfe, "uri": pictures.uris[key]}
            for key, solver, nfe in own
            if (solver, nfe) in shown
        ]
        if cells:
            keys = [key for key, _, _ in own]
            taught = ({"nfe": nfe, "uri": pictures.uris[key]} for key, solver, nfe in own if solver == "teacher")
            count = min(pictures.counts[key] for key in keys)
            found[teacher] = {"side": pictures.sides[keys[0]], "count": count, "blocks": cells,
                              "teacher": next(taught, None)}  # fmt: skip
    return found


def _plans(bundle: Bundle, labels: Sequence[str], teachers: Sequence[str]) -> dict[str, Any]:
    """Return the plan of each cell with few enough calls, five digits of each number."""
    rows = bundle.frame.drop_duplicates(["teacher", "label", "nfe"])
    found = dict[str, list[dict[str, Any]]]()
    for teacher, label, nfe, cell in zip(rows["teacher"], rows["label"], rows["nfe"], rows["cell"], strict=True):
        plan = bundle.cells.get(cell, {}).get("plan")
        if plan and len(plan["sigmas"]) <= plans.MOST:
            found.setdefault(teacher, []).append({
                "solver": labels.index(label), "nfe": int(nfe), "sigmas": [_five(each) for each in plan["sigmas"]],
                "rows": [[_five(each) for each in row] for row in plan["rows"]],
            })  # fmt: skip
    return {teacher: found[teacher] for teacher in teachers if teacher in found}


def _five(value: float) -> float:
    return float(f"{value:.5g}")
