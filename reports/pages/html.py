"""The page of a report: report.html, one file that holds everything it shows and asks nothing of a network."""

import base64
import hashlib
import json
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from solverbench.reports import paired, verdicts
from solverbench.reports.bundle import FINISHED, MEANINGS, STATUSES, Bundle
from solverbench.reports.figures import bound, costs, plans
from solverbench.reports.figures.palette import on_dark
from solverbench.reports.figures.panel import look_of
from solverbench.reports.figures.sprites import blocks, sprites
from solverbench.reports.pages import tables
from solverbench.reports.pages.text import below_teacher, flat, splits
from solverbench.reports.parts import Part, parts, ranges
from solverbench.reports.published import rows as published_rows

_WEB = Path(__file__).parents[1] / "web"
_SOLVERS_IN_HEADING = 6


def page(bundle: Bundle, baseline: str | None = None) -> str:
    """The text of report.html.

    Args:
        baseline: the solver that paired differences are taken from; see `reports.paired.chosen`.
    """
    found = parts(bundle.frame, bundle.record)
    labels = list(dict.fromkeys(bundle.frame["label"]))
    teachers = list(dict.fromkeys(bundle.frame["teacher"]))
    base = paired.chosen(bundle.frame, baseline)
    pictures = sprites(bundle.images)
    style, script = _asset("page.css"), _asset("page.js")
    data = {
        "solvers": [_solver(found, label) for label in labels],
        "parts": [_part(part, labels, bundle.record) for part in found],
        "images": _images(bundle.frame, pictures.uris, pictures.sides, pictures.counts, labels, teachers),
        "plans": _plans(bundle, labels, teachers),
    }
    standings = [(part, paired.standings(part, bundle.cells)) for part in found]
    context = {
        **_heading(bundle, labels, teachers),
        **_verdicts(bundle.record),
        "metrics": [{"name": name, "short": _short(found, name, bundle.record)} for name in _metrics(found)],
        "overview": list(_overview(standings, labels, bundle.record)),
        "notes": _notes(bundle, found),
        "shares": list(bound.sentences(found, bundle.cells)),
        "shares_explained": bound.explained(found),
        "tables": [_table(part, i, labels) for i, part in enumerate(found)],
        "paired": list(_paired(found, base, labels, bundle)),
        "baseline": base,
        "has_images": bool(data["images"]),
        "images_note": pictures.note,
        "has_plans": bool(data["plans"]),
        "training": _training(found),
        "published": _published(bundle),
        "unfinished": _unfinished(bundle.frame),
        "solvers": _solvers(bundle.frame, labels),
        "facts": _facts(bundle.record),
        "bibtex": str(bundle.record.get("bibtex", "")),
        "command": str(bundle.record.get("command", "(command not recorded)")),
        "version": str(bundle.record["environment"].get("solverbench", "")),
        "style": Markup(style), "script": Markup(script), "data": _json(data),
        "style_hash": _hash(style), "script_hash": _hash(script),
    }  # fmt: skip
    context["sections"] = list(_sections(context))
    return str(_template().render(context))


def _json(value: Any) -> Markup:
    """JSON that cannot end the script element it stands in, nor be read as markup."""
    text = json.dumps(_finite(value), ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    for letter in "<>&\u2028\u2029":
        text = text.replace(letter, f"\\u{ord(letter):04x}")
    return Markup(text)


def _finite(value: Any) -> Any:
    """The value with null where a number is not finite."""
    if isinstance(value, dict):
        return {key: _finite(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _heading(bundle: Bundle, labels: Sequence[str], teachers: Sequence[str]) -> dict[str, Any]:
    cells = bundle.frame.drop_duplicates(["teacher", "label", "nfe"])
    counted = Counter(cells["status"])
    listed = ", ".join(f"{counted[status]} {status}" for status in STATUSES if counted[status])
    named = ", ".join(labels) if len(labels) <= _SOLVERS_IN_HEADING else f"{len(labels)} solvers"
    return {
        "title": f"{named} on {', '.join(teachers)}",
        "heading": named,
        "teachers": teachers,
        "budgets": ranges(bundle.frame["nfe"].to_list()),
        "counts": f"{len(cells)} cells: {listed}",
        "tags": [str(tag) for tag in bundle.record["tags"]],
    }


def _sections(context: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    yield from (("overview", "Who is ahead"), ("figure", "Figure"), ("tables", "Tables"))
    named = {"has_images": ("samples", "Samples"), "has_plans": ("plans", "Levels and weights"),
             "training": ("training", "Training cost"), "verdicts": ("verdicts", "Verdicts"),
             "published": ("published", "Published"), "unfinished": ("unfinished", "Without a result")}  # fmt: skip
    yield from (section for key, section in named.items() if context[key])
    yield "how", "How it was measured"


def _metrics(found: Sequence[Part]) -> list[str]:
    return list(dict.fromkeys(part.metric for part in found))


def _short(found: Sequence[Part], metric: str, record: Mapping[str, Any]) -> str:
    entry = record["metrics"].get(metric, {})
    return str(entry.get("short") or entry.get("label") or metric)


def _learned(frame: pd.DataFrame, label: str) -> bool:
    return bool(frame.loc[frame["label"] == label, "learned"].any())


def _solver(found: Sequence[Part], label: str) -> dict[str, Any]:
    """How a solver is drawn on the page: as in the figures, with a colour for a dark ground."""
    part = next(part for part in found if label in part.solvers)
    colour, marker, _, fill = look_of(part, label)
    specs = dict(zip(part.frame["label"], part.frame["spec"], strict=True))
    return {
        "label": label, "spec": specs[label], "learned": _learned(part.frame, label), "light": colour,
        "dark": on_dark(colour), "marker": marker, "hollow": fill != colour,
        "dash": (variant_of(part, label) + (label in bound.bounds(part))) % 4,
    }  # fmt: skip


def variant_of(part: Part, label: str) -> int:
    """Which of the solvers with its colour and marker it is, from 0."""
    own = look_of(part, label)[:2]
    return [other for other in part.solvers if look_of(part, other)[:2] == own].index(label)


def _part(part: Part, labels: Sequence[str], record: Mapping[str, Any]) -> dict[str, Any]:
    calls = part.frame["cost_training_student_calls"] + part.frame["cost_training_teacher_calls"].fillna(0)
    numbers = {name: part.frame[name].to_list() for name in ("value", "low", "high", "std_error", "net_passes")}
    numbers |= {"speed": part.frame["cost_images_per_second"].to_list(), "calls": calls.to_list()}
    texts = {name: part.frame[name].to_list() for name in ("label", "status", "reason", "spec", "cell")}
    budgets = part.frame["nfe"].to_list()
    points = [
        {
            "solver": labels.index(texts["label"][i]), "nfe": int(budgets[i]), "value": numbers["value"][i],
            "low": numbers["low"][i], "high": numbers["high"][i], "error": numbers["std_error"][i],
            "status": texts["status"][i], "reason": texts["reason"][i], "spec": texts["spec"][i],
            "cell": texts["cell"][i], "passes": numbers["net_passes"][i],
            "speed": _positive(numbers["speed"][i]), "calls": _positive(numbers["calls"][i]),
        }
        for i in range(len(part.frame))
    ]  # fmt: skip
    points.sort(key=lambda point: (point["solver"], point["nfe"]))
    return {
        "teacher": part.teacher, "metric": part.metric, "number": part.number, "label": part.label,
        "short": _short([part], part.metric, record), "log": part.log, "higher": part.higher, "count": part.count,
        "seeds": part.seeds, "reference": part.reference, "extractor": part.extractor, "quantiser": part.quantiser,
        "interval": part.interval, "points": points,
        "lines": [
            {"label": line.label, "value": line.value, "low": line.low, "high": line.high} for line in part.lines
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


def _positive(value: float) -> float | None:
    return value if math.isfinite(value) and value > 0 else None


def _overview(
    standings: Sequence[tuple[Part, Mapping[int, paired.Standing]]], labels: Sequence[str], record: Mapping[str, Any]
) -> Iterator[dict[str, Any]]:
    for metric in dict.fromkeys(part.metric for part, _ in standings):
        own = [(part, found, tables.entries(part)) for part, found in standings if part.metric == metric]
        budgets = sorted({nfe for part, _, _ in own for nfe in part.nfe})
        rows = [
            {"teacher": part.teacher + (f", part {part.number}" if part.number > 1 else ""),
             "cells": [_winner(part, nfe, found.get(nfe), labels, cells) for nfe in budgets]}
            for part, found, cells in own
        ]  # fmt: skip
        by_pairs = all(each.paired for _, found, _ in own for each in found.values())
        how = (
            "its difference from every other one, paired by seed, has a 95 % interval that excludes 0"
            if by_pairs
            else "its interval, or its paired difference where that is known, is clear of every other one's"
        )
        yield {
            "name": metric, "short": _short([], metric, record), "label": own[0][0].label, "nfe": budgets, "rows": rows,
            "explained": f"A solver is ahead where {how}; else those that cannot be told from the best one are named. "
            "Sampling error alone: a learned solver trained again moves too. No correction for many comparisons.",
        }  # fmt: skip


def _winner(
    part: Part, nfe: int, found: paired.Standing | None, labels: Sequence[str],
    cells: Mapping[tuple[str, int], tables.Entry],
) -> dict[str, Any]:  # fmt: skip
    if found is None:
        asked = nfe in part.nfe
        return {"kind": "none", "text": "no value" if asked else "", "why": ""}
    if found.alone:
        return {"kind": "alone", "text": f"{found.level[0]} alone", "why": "no other solver has a value here"}
    if not found.winner:
        named = ", ".join(found.level[:3]) + (f" and {len(found.level) - 3} more" if len(found.level) > 3 else "")
        return {"kind": "level", "text": f"level: {named}", "why": ", ".join(found.level)}
    value = cells[found.winner, nfe].value
    return {"kind": "won", "text": found.winner, "value": value, "index": labels.index(found.winner), "why": ""}


def _notes(bundle: Bundle, found: Sequence[Part]) -> list[str]:
    notes = [str(note) for note in bundle.record["notes"]]
    marks = [f"{mark} {text}" for mark, text in tables.footnotes(bundle.frame)]
    return [*notes, *below_teacher(found, notes), *splits(found), *marks]


def _table(part: Part, index: int, labels: Sequence[str]) -> dict[str, Any]:
    cells = tables.entries(part)
    ordered = sorted(zip(part.frame["label"], part.frame["nfe"], strict=True), key=lambda x: (labels.index(x[0]), x[1]))
    place = {key: i for i, key in enumerate(ordered)}
    values = {(label, nfe): value for label, nfe, value in
              zip(part.frame["label"], part.frame["nfe"], part.frame["value"], strict=True)}  # fmt: skip
    rows = []
    for label in part.solvers:
        row = []
        for nfe in part.nfe:
            cell = cells.get((label, nfe), tables.Entry())
            value = values.get((label, nfe), math.nan)
            row.append({
                "text": cell.value or MEANINGS.get(cell.mark, cell.mark), "margin": cell.margin,
                "rank": cell.rank, "point": place.get((label, nfe)), "sort": None if math.isnan(value) else repr(value),
            })  # fmt: skip
        rows.append({"label": label, "index": labels.index(label), "cells": row})
    heading = f"{part.label}, {part.teacher}" + (f", part {part.number}" if part.number > 1 else "")
    return {"teacher": part.teacher, "metric": part.metric, "heading": heading, "caption": tables.caption(part),
            "nfe": [f"NFE {nfe}" for nfe in part.nfe], "rows": rows, "index": index,
            "legend": tables.legends(part)}  # fmt: skip


def _paired(found: Sequence[Part], baseline: str, labels: Sequence[str], bundle: Bundle) -> Iterator[dict[str, Any]]:
    for part in found:
        if baseline not in part.solvers:
            continue
        differences = paired.against(part, baseline, bundle.cells)
        if not any(math.isfinite(each.value) for each in differences.values()):
            continue
        rows = []
        for label in part.solvers:
            if label != baseline:
                cells = [_difference(differences.get((label, nfe)), part.higher) for nfe in part.nfe]
                rows.append({"label": label, "index": labels.index(label), "cells": cells})
        yield {"teacher": part.teacher, "metric": part.metric, "heading": f"{part.label}, {part.teacher}",
               "nfe": [f"NFE {nfe}" for nfe in part.nfe], "rows": rows}  # fmt: skip


def _difference(found: paired.Difference | None, higher: bool) -> dict[str, Any]:
    if found is None or found.reason:
        return {"text": "" if found is None else "–", "interval": "", "why": found.reason if found else "",
                "kind": "", "sort": None}  # fmt: skip
    better = found.sign * (-1 if higher else 1) < 0
    return {
        "text": f"{found.value:+.3g}", "interval": f"{found.low:+.3g} to {found.high:+.3g}", "why": "",
        "kind": "" if not found.sign else "better" if better else "worse", "sort": repr(found.value),
    }  # fmt: skip


def _images(
    frame: pd.DataFrame, uris: Mapping[str, str], sides: Mapping[str, tuple[int, int]], counts: Mapping[str, int],
    labels: Sequence[str], teachers: Sequence[str],
) -> dict[str, Any]:  # fmt: skip
    """The images of each teacher that has some of a shown solver."""
    shown = {(solver, nfe): label for solver, nfe, label in
             zip(frame["solver"], frame["nfe"], frame["label"], strict=True)}  # fmt: skip
    found = {}
    for teacher in teachers:
        own = list(blocks(list(uris), teacher))
        cells = [
            {"solver": labels.index(shown[solver, nfe]), "nfe": nfe, "uri": uris[key]}
            for key, solver, nfe in own
            if (solver, nfe) in shown
        ]
        if cells:
            keys = [key for key, _, _ in own]
            best = next(({"nfe": nfe, "uri": uris[key]} for key, solver, nfe in own if solver == "teacher"), None)
            found[teacher] = {"side": sides[keys[0]], "count": min(counts[key] for key in keys), "blocks": cells,
                              "teacher": best}  # fmt: skip
    return found


def _plans(bundle: Bundle, labels: Sequence[str], teachers: Sequence[str]) -> dict[str, Any]:
    """What each cell of not too many calls executes, five digits of each number."""
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


def _training(found: Sequence[Part]) -> dict[str, Any] | None:
    spent = costs.rows(found)
    if spent.empty:
        return None
    text = costs.text(spent)
    numbers = {"student calls": "cost_training_student_calls", "teacher calls": "cost_training_teacher_calls",
               "time": "cost_training_seconds", "peak memory": "cost_training_peak_memory_bytes",
               "NFE": "nfe"}  # fmt: skip
    rows = [
        [(str(text.loc[i, name]), repr(float(spent.loc[i, numbers[name]])) if name in numbers else None)
         for name in text.columns]
        for i in text.index
    ]  # fmt: skip
    return {"head": list(text.columns), "rows": rows}


def _verdicts(record: Mapping[str, Any]) -> dict[str, Any]:
    rows, kinds = verdicts.rows(record), {"held": "good", "not held": "bad"}
    if not rows:
        return {"verdicts": None, "verdict_counts": ""}
    head = ["verdict", "claim", "metric", "difference", "95 % interval"]
    cautious = any(row.caution for row in rows)
    listed = [
        {"kind": kinds.get(row.verdict, ""),
         "cells": [(row.verdict, None), (row.claim, None), (row.metric, None), (row.shown, _sort(row.difference)),
                   (row.interval, None), *([(row.caution, None)] if cautious else [])]}
        for row in rows
    ]  # fmt: skip
    head = [*head, *(["caution"] if cautious else [])]
    return {"verdicts": {"head": head, "rows": listed}, "verdict_counts": verdicts.counted(rows) + "."}


def _sort(value: float) -> str | None:
    return repr(value) if math.isfinite(value) else None


def _published(bundle: Bundle) -> dict[str, Any] | None:
    found = published_rows(bundle)
    if not found:
        return None
    head = ["row", "teacher", "metric", "solver", "NFE", "published", "ours", "95 % interval", "difference", "agrees",
            "differences in protocol"]  # fmt: skip
    rows = [
        [(row.row, None), (row.teacher, None), (row.metric, None), (row.solver, None), (str(row.nfe), None),
         (row.published, None), (row.ours, _sort(row.value)), (row.interval, None),
         (row.difference, _sort(row.apart)), (row.agrees, None), (row.protocol, None)]
        for row in found
    ]  # fmt: skip
    return {"head": head, "rows": rows}


def _unfinished(frame: pd.DataFrame) -> list[tuple[str, ...]]:
    cells = frame[~frame["status"].isin(FINISHED)].drop_duplicates(["teacher", "label", "nfe"])
    columns = ("teacher", "label", "nfe", "status", "reason")
    return [tuple(str(row[column]) for column in columns) for _, row in cells.iterrows()]


def _solvers(frame: pd.DataFrame, labels: Sequence[str]) -> list[dict[str, str]]:
    found = []
    for label in labels:
        specs = [spec for spec in dict.fromkeys(frame.loc[frame["label"] == label, "spec"]) if spec]
        kind = "learned" if _learned(frame, label) else "classical"
        found.append({"label": label, "specs": ", ".join(specs) or label, "kind": kind})
    return found


def _facts(record: Mapping[str, Any]) -> list[tuple[str, list[tuple[str, str]]]]:
    return [
        (name.capitalize(), [(str(key), flat(value)) for key, value in record[name].items()])
        for name in ("protocol", "environment")
        if record[name]
    ]


def _hash(text: str) -> str:
    """What a Content-Security-Policy knows an inline script or style by."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


@cache
def _asset(name: str) -> str:
    return (_WEB / name).read_text(encoding="utf-8")


@cache
def _template() -> Any:
    environment = Environment(
        loader=FileSystemLoader(_WEB), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return environment.get_template("page.html.j2")
