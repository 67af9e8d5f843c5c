"""A report as one web page: the text of report.html, which is self-contained and makes no network request."""

import base64
import hashlib
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from solverbench.reports import paired, verdicts
from solverbench.reports.bundle import MEANINGS
from solverbench.reports.figures.sprites import sprites
from solverbench.reports.pages import data, overview, tables
from solverbench.reports.pages.content import Lines, Numbers, Prose, Report, Section, Table
from solverbench.reports.pages.data import short
from solverbench.reports.pages.text import bibtex

_WEB = Path(__file__).parents[1] / "web"
_SOLVERS_IN_HEADING = 6
_PLAIN = ("wins", "training", "verdicts", "published", "unfinished")
"""Keys of the sections that consist of paragraphs and tables only."""


def page(report: Report) -> str:
    """Return the text of report.html."""
    pictures = sprites(report.bundle.images)
    style, script = asset("page.css"), asset("shared.js") + asset("page.js")
    given, record = data.of(report, pictures), report.bundle.record
    context = {
        **heading(report),
        "metrics": [{"name": name, "short": short(name, record)} for name in _metrics(report)],
        "overview": list(overview.rows(report)),
        "verdict_counts": _verdict_counts(report),
        "notes": [*_lines(report, "notes"), *(f"{mark} {text}" for mark, text in report.marks)],
        "shares": _lines(report, "bound"),
        "shares_explained": " ".join(_prose(section) for section in report.all("bound")),
        "tables": [_numbers(section, block, i, report.labels) for i, (section, block) in enumerate(report.numbers())],
        "paired": [_paired(block, report) for _, block in report.numbers() if block.compared],
        "baseline": report.baseline,
        "has_images": bool(given["images"]),
        "images_note": pictures.note,
        "has_plans": bool(given["plans"]),
        "plain": [_plain(section) for key in _PLAIN for section in report.all(key)],
        "how": [_plain(section) for key in ("solvers", "facts") for section in report.all(key)],
        "bibtex": bibtex(record),
        "command": report.command,
        "version": str(record["environment"].get("solverbench", "")),
        "style": Markup(style), "script": Markup(script), "data": embedded(given),
        "style_hash": digest(style), "script_hash": digest(script),
    }  # fmt: skip
    context["sections"] = list(_links(context))
    return str(template("page.html.j2").render(context))


def embedded(value: Any) -> Markup:
    """Return JSON that cannot end its script element, nor be read as markup."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    for letter in "<>&\u2028\u2029":
        text = text.replace(letter, f"\\u{ord(letter):04x}")
    return Markup(text)


def heading(report: Report) -> dict[str, Any]:
    """Return what the heads of the pages say."""
    labels = report.labels
    named = ", ".join(labels) if len(labels) <= _SOLVERS_IN_HEADING else f"{len(labels)} solvers"
    return {
        "title": f"{named} on {'; '.join(report.titles)}",
        "heading": named,
        "teachers": _models(report),
        "axes": _axes(report),
        "scope": "; ".join(report.titles),
        "budgets": report.budgets,
        "counts": f"{report.cells} cells: {report.statuses}",
        "tags": report.tags,
    }


def _models(report: Report) -> list[str]:
    """Return the teachers, each model once if its options are axes."""
    return list(dict.fromkeys(report.axes.of(name)[0] for name in report.teachers))


def _axes(report: Report) -> list[dict[str, Any]]:
    """Return the options of teachers that the run varies, each with its values in the order of results.csv."""
    values = zip(*(report.axes.values(name) for name in report.teachers), strict=True)
    return [
        {"name": name, "values": [{"value": each, "text": each or "default"} for each in there]}
        for name, own in zip(report.axes.options, values, strict=True)
        if (there := [each for each in dict.fromkeys(own) if each is not None])
    ]


def _links(context: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield the page's navigation: anchors and names."""
    yield from (("overview", "Who is ahead"), ("figure", "Figure"), ("tables", "Tables"))
    if context["has_images"]:
        yield "samples", "Samples"
    if context["has_plans"]:
        yield "plans", "Levels and weights"
    yield from ((section["key"], section["link"]) for section in context["plain"])
    yield "how", "How it was measured"


def _metrics(report: Report) -> list[str]:
    """Return the metrics, those without any value last: the page begins with the first one."""
    valued = dict.fromkeys(part.metric for part in report.parts if part.n)
    return list(valued | dict.fromkeys(part.metric for part in report.parts))


def _lines(report: Report, key: str) -> list[str]:
    blocks = [block for section in report.all(key) for block in section.blocks]
    return [text for block in blocks if isinstance(block, Lines) for text in block.texts]


def _prose(section: Section) -> str:
    return " ".join(block.page for block in section.blocks if isinstance(block, Prose) and block.page)


def _plain(section: Section) -> dict[str, Any]:
    """Return a section of a paragraph and tables."""
    return {
        "key": section.key, "title": section.page_title or section.title, "link": section.link,
        "prose": _prose(section), "tables": [_table(each) for each in section.blocks if isinstance(each, Table)],
    }  # fmt: skip


def _table(table: Table) -> dict[str, Any]:
    shown = table.columns(page=True)
    rows = [{"kind": row.kind, "cells": [row.cells[i] for i in shown]} for row in table.rows]
    return {"head": [table.head[i] for i in shown], "rows": rows, "names": table.names, "tall": table.tall}


def _verdict_counts(report: Report) -> str:
    found = verdicts.rows(report.bundle.record)
    if not found:
        return ""
    return (
        f"{verdicts.counted(found)}. A claim is what a learned solver is expected to show, such as "
        f'"{found[-1].claim}": that its distance is the lower one at these numbers of calls. Every run judges all that '
        "its cells allow."
    )


def _numbers(section: Section, block: Numbers, index: int, labels: Sequence[str]) -> dict[str, Any]:
    """Return the table of one part; each cell refers to its point in the chart."""
    part = block.part
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
                "text": f"{cell.value}{cell.flag}" or MEANINGS.get(cell.mark, cell.mark), "margin": cell.margin,
                "rank": cell.rank, "point": place.get((label, nfe)), "sort": None if math.isnan(value) else repr(value),
            })  # fmt: skip
        rows.append({"label": label, "index": labels.index(label), "cells": row})
    return {"teacher": part.teacher, "metric": part.metric, "heading": section.page_title,
            "caption": tables.caption(part), "nfe": [f"NFE {nfe}" for nfe in part.nfe], "rows": rows, "index": index,
            "legend": tables.legends(part)}  # fmt: skip


def _paired(block: Numbers, report: Report) -> dict[str, Any]:
    """Return the differences of one part from the baseline."""
    part = block.part
    rows = [
        {"label": label, "index": report.labels.index(label),
         "cells": [_difference(block.differences.get((label, nfe)), part.higher, part.ranked) for nfe in part.nfe]}
        for label in part.solvers
        if label != report.baseline
    ]  # fmt: skip
    coloured = f"Coloured: told apart from 0, {tables.correction(paired.tested(block.differences.values()))}."
    coloured += tables.masked_legend(block.differences.values())
    return {"teacher": part.teacher, "metric": part.metric, "heading": f"{part.label}, {part.title}",
            "nfe": [f"NFE {nfe}" for nfe in part.nfe], "rows": rows, "coloured": coloured}  # fmt: skip


def _difference(found: paired.Difference | None, higher: bool, ranked: bool = True) -> dict[str, Any]:
    if found is None or found.reason:
        return {"text": "" if found is None else "–", "interval": "", "why": found.reason if found else "",
                "kind": "", "sort": None}  # fmt: skip
    better = found.sign * (-1 if higher else 1) < 0
    value, low, high = found.texts
    return {
        "text": f"{value}{tables.MASKED * found.masked}", "interval": f"{low} to {high}",
        "why": f"p {found.p:.2g}, corrected {found.p_holm:.2g}",
        "kind": "" if not found.sign or not ranked else "better" if better else "worse", "sort": repr(found.value),
    }  # fmt: skip


def digest(text: str) -> str:
    """Return the hash by which a Content-Security-Policy allows an inline script or style."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


@cache
def asset(name: str) -> str:
    """Return the text of a file of the web pages."""
    return (_WEB / name).read_text(encoding="utf-8")


@cache
def template(name: str) -> Any:
    """Return a template of the web pages; values in it are escaped."""
    environment = Environment(
        loader=FileSystemLoader(_WEB), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"linked": _linked, "breakable": _breakable}
    return environment.get_template(name)


def _linked(text: str) -> Markup:
    """Return the text with a link to the file of comparisons where it names it."""
    return escape(text).replace("ahead.csv", Markup('<a href="ahead.csv">ahead.csv</a>'))


def _breakable(spec: str) -> Markup:
    """Return a spec that a browser breaks between its options."""
    return escape(spec).replace(":", Markup(":<wbr>"))
