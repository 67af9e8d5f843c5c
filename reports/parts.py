"""Comparable results: the rows of one teacher and metric that share n, seeds, reference and extractor.

Rows measured differently are never drawn in one table or figure; they form a further part.
"""

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import pandas as pd

from solverbench.reports.bundle import FINISHED, BundleError
from solverbench.wording import printable

PROTOCOL = ("n", "replicates", "seeds", "reference", "extractor", "quantiser")


@dataclass(frozen=True)
class Line:
    """A reference value, the teacher sampler's or the data floor; its label states n if it isn't the part's n.

    `apart` says that it isn't: the two can't be compared, so figures leave it out.
    """

    label: str
    value: float
    low: float
    high: float
    apart: bool = False


@dataclass(frozen=True)
class Published:
    """A published number: of `solver` as printed; `label` is our solver with the same options, or empty.

    `differences` are those between the two protocols.
    """

    solver: str
    label: str
    nfe: int
    value: float
    digits: int
    row: str
    paper: str
    place: str
    differences: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Part:
    """Rows of one teacher and metric under one protocol, with the facts for their caption.

    `n` images per replicate; `n` and `replicates` are 0 if no row has a value. `number` counts parts from 1. `higher`
    says that higher values are better, `ranked` that either are, else 0 is the teacher's. Below `full` images the
    metric is biased (0: never). `published` are the numbers of papers for the same teacher and metric. `short` is the
    metric's short name; empty if it has none. `options` are the options of the teacher that differ in this run, as
    (name, value), and `model` is its name without them. `whole` is the teacher's name if a reader sees a shorter one;
    empty otherwise. `everyone` has the spec of each label of the run, in their order: looks are assigned among all of
    them, so that a solver has one look wherever it is drawn.
    """

    teacher: str
    metric: str
    number: int
    frame: pd.DataFrame
    label: str
    log: bool
    lines: tuple[Line, ...]
    interval: str
    n: int
    replicates: int
    seeds: str
    reference: str
    extractor: str
    quantiser: str
    higher: bool = False
    full: int = 0
    published: tuple[Published, ...] = ()
    short: str = ""
    model: str = ""
    options: tuple[tuple[str, str], ...] = ()
    ranked: bool = True
    whole: str = ""
    everyone: Mapping[str, str] = field(default_factory=dict)

    @property
    def title(self) -> str:
        """The teacher as text: its name, or its model and the options that differ in this run."""
        return named(self.model or self.teacher, self.options)

    @property
    def name(self) -> str:
        """The end of this part's file names: teacher-metric, and -partK from the second part on."""
        return slug(f"{self.teacher}-{self.metric}") + (f"-part{self.number}" if self.number > 1 else "")

    @cached_property
    def solvers(self) -> list[str]:
        """Row labels in the order of their first appearance in results.csv."""
        return list(self.specs)

    @cached_property
    def specs(self) -> dict[str, str]:
        """The spec of each row label."""
        return dict(zip(self.frame["label"], self.frame["spec"], strict=True))

    @cached_property
    def curves(self) -> dict[str, pd.DataFrame]:
        """Value, low and high of each row label by budget, NaN where there is no value."""
        numbers = self.frame.set_index("nfe")[["label", "value", "low", "high"]]
        return {
            str(label): rows.drop(columns="label").reindex(self.nfe)
            for label, rows in numbers.groupby("label", sort=False)
        }

    @property
    def level(self) -> tuple[Line, ...]:
        """The reference values that figures show as horizontal lines: those measured on as many images."""
        return tuple(line for line in self.lines if not line.apart)

    @property
    def beside(self) -> tuple[Published, ...]:
        """The published numbers of solvers in this part, which a figure shows; a table shows the others, too."""
        return tuple(each for each in self.published if self.label_of(each.label))

    def label_of(self, solver: str) -> str:
        """Return the row label of a solver as it was asked for; empty if the part does not have it."""
        labels = self.frame.loc[self.frame["solver"] == solver, "label"]
        return str(labels.iloc[0]) if len(labels) else ""

    @cached_property
    def nfe(self) -> list[int]:
        """The budgets asked for, ascending, finished or not."""
        return sorted({int(nfe) for nfe in self.frame["nfe"]})

    @property
    def count(self) -> str:
        """The number of images per value, such as "n = 10 000 × 3"."""
        if not self.n:
            return "no value" if self.frame["status"].isin(FINISHED).any() else "no finished cell"
        tag = ", biased" if self.biased else ""
        return f"n = {grouped(self.n)}" + (f" × {self.replicates}" if self.replicates > 1 else "") + tag

    @property
    def biased(self) -> bool:
        """Whether its values use fewer images than the metric needs."""
        return self.n < self.full


def parts(frame: pd.DataFrame, record: Mapping[str, Any]) -> list[Part]:
    """Return every part of a tidy frame: teachers in order of appearance, metrics in bundle.json's order."""
    metrics = [metric for metric in record.get("metrics", {}) if (frame["metric"] == metric).any()]
    metrics += [metric for metric in dict.fromkeys(frame["metric"]) if metric not in metrics]
    first = frame.drop_duplicates("label")
    everyone = {str(label): str(spec) for label, spec in zip(first["label"], first["spec"], strict=True)}
    found = []
    for teacher in dict.fromkeys(frame["teacher"]):
        for metric in metrics:
            rows = frame[(frame["teacher"] == teacher) & (frame["metric"] == metric)]
            if len(rows):
                found += [_part(rows_, record, i + 1, everyone) for i, rows_ in enumerate(_split(rows))]
    return found


@dataclass(frozen=True)
class Axes:
    """The options of teachers that a run varies, as its record has them.

    `teachers` are (model, values of the options) by the teacher's name. A value is empty for a default that isn't
    known, and None for an option that doesn't differ between teachers of this model. `shown` are the names that a
    reader sees in place of a teacher's own.
    """

    options: tuple[str, ...] = ()
    teachers: Mapping[str, tuple[str, tuple[str | None, ...]]] = field(default_factory=dict)
    shown: Mapping[str, str] = field(default_factory=dict)

    def of(self, teacher: str) -> tuple[str, tuple[tuple[str, str], ...]]:
        """Return a teacher's model and its options, as (name, value)."""
        model, _ = self.teachers.get(teacher, (self.shown.get(teacher, teacher), ()))
        pairs = zip(self.options, self.values(teacher), strict=True)
        return model, tuple((name, value) for name, value in pairs if value is not None)

    def values(self, teacher: str) -> tuple[str | None, ...]:
        """Return a teacher's value of each option."""
        return self.teachers.get(teacher, (teacher, (None,) * len(self.options)))[1]

    def title(self, teacher: str) -> str:
        """Return a teacher as text."""
        return named(*self.of(teacher))


def named(model: str, options: Sequence[tuple[str, str]]) -> str:
    """Return a model with options as text: "shapes, guidance 2"."""
    return ", ".join([model, *(f"{name} {value}" if value else f"default {name}" for name, value in options)])


def axes(record: Mapping[str, Any]) -> Axes:
    """Return the options that differ between the teachers of a record; none if the record has none, or is foreign."""
    told, names = record.get("axes"), record.get("shown")
    given = names.items() if isinstance(names, dict) else ()
    shown = {printable(str(teacher)): printable(str(name)) for teacher, name in given}
    if not isinstance(told, dict) or not isinstance(told.get("options"), list):
        return Axes(shown=shown)
    options = tuple(printable(str(name)) for name in told["options"])
    teachers = told.get("teachers")
    found = {}
    for teacher, entry in teachers.items() if isinstance(teachers, dict) else ():
        values = entry.get("values") if isinstance(entry, dict) else None
        if isinstance(values, dict):
            texts = tuple(
                printable(str(values[name])) if name in values else None for name in map(str, told["options"])
            )
            found[printable(str(teacher))] = printable(str(entry.get("model", teacher))), texts
    return Axes(options, found, shown) if found else Axes(shown=shown)


def grouped(number: int) -> str:
    """Return 10000 as "10 000"."""
    return f"{number:,}".replace(",", " ")


def slug(text: str) -> str:
    """Return the text as part of a file name: letters, digits, dot, dash and underscore, at most 80 bytes of them."""
    plain = "".join(letter if letter.isalnum() or letter in "._-" else "-" for letter in text)
    if len(plain.encode()) <= 80:
        return plain
    return f"{plain.encode()[:60].decode(errors='ignore')}-{hashlib.sha256(text.encode()).hexdigest()[:16]}"


def ranges(numbers: Sequence[int]) -> str:
    """Return [3, 4, 5, 8] as "3-5, 8"."""
    pieces, numbers = [], sorted(set(numbers))
    while numbers:
        length = next((i for i in range(len(numbers)) if numbers[i] != numbers[0] + i), len(numbers))
        run, numbers = numbers[:length], numbers[length:]
        pieces.append(f"{run[0]}-{run[-1]}" if length > 2 else ", ".join(map(str, run)))
    return ", ".join(pieces)


def _split(rows: pd.DataFrame) -> list[pd.DataFrame]:
    """Return the rows by protocol; a row without a value joins its solver's other rows, or else the first part."""
    keys = [_key(row) if math.isfinite(row["value"]) else None for _, row in rows.iterrows()]
    known = list(dict.fromkeys(key for key in keys if key is not None))
    if len(known) < 2:
        return [rows]
    homes = {label: key for label, key in reversed(list(zip(rows["label"], keys, strict=True))) if key is not None}
    placed = [key or homes.get(label, known[0]) for label, key in zip(rows["label"], keys, strict=True)]
    return [rows[[key == one for key in placed]] for one in known]


def _key(row: "pd.Series[Any]") -> tuple[Any, ...]:
    return tuple(None if isinstance(row[c], float) and math.isnan(row[c]) else row[c] for c in PROTOCOL)


def _part(rows: pd.DataFrame, record: Mapping[str, Any], number: int, everyone: Mapping[str, str]) -> Part:
    teacher, metric = str(rows["teacher"].iloc[0]), str(rows["metric"].iloc[0])
    twice = rows.duplicated(["label", "nfe"])
    if twice.any():
        row = rows[twice].iloc[0]
        raise BundleError(
            asked=f"{teacher}, {row['label']} at NFE {row['nfe']}",
            wrong=f"{metric} occurs twice in the results",
            remedy="run each solver once",
        )
    known = rows[rows["value"].notna()]
    images = _number(known, "n")
    entry = record.get("metrics", {}).get(metric, {})
    told = axes(record)
    model, options = told.of(teacher)
    shown = told.shown.get(teacher, teacher)
    return Part(
        teacher=teacher, metric=metric, number=number, frame=rows, label=str(entry.get("label", metric)),
        log=bool(entry.get("log", True)), lines=_lines(record, teacher, metric, images),
        interval=str(entry.get("interval") or _interval(record)),
        n=images, replicates=_number(known, "replicates"),
        seeds=_word(known, "seeds"), reference=_word(known, "reference").replace(teacher, shown),
        extractor=_word(known, "extractor"), quantiser=_word(known, "quantiser"),
        higher=bool(entry.get("higher", False)), full=int(entry.get("full", 0)),
        published=_published(record, teacher, metric) if number == 1 else (), short=str(entry.get("short", "")),
        model=model, options=options, ranked=bool(entry.get("ranked", True)), whole="" if shown == teacher else teacher,
        everyone=everyone,
    )  # fmt: skip


def _lines(record: Mapping[str, Any], teacher: str, metric: str, images: int) -> tuple[Line, ...]:
    def number(entry: Mapping[str, Any], key: str) -> float:
        value = entry.get(key)
        return float(value) if isinstance(value, int | float) else math.nan

    def apart(entry: Mapping[str, Any]) -> bool:
        n = number(entry, "n")
        return bool(images and n > 0 and n != images)

    def label(entry: Mapping[str, Any]) -> str:
        return str(entry.get("label", "")) + (f", n = {grouped(int(entry['n']))}" if apart(entry) else "")

    entries = [e for e in record.get("lines", []) if e.get("teacher") == teacher and e.get("metric") == metric]
    lines = [Line(label(e), number(e, "value"), number(e, "low"), number(e, "high"), apart(e)) for e in entries]
    return tuple(line for line in lines if math.isfinite(line.value))


def _published(record: Mapping[str, Any], teacher: str, metric: str) -> tuple[Published, ...]:
    """Return the published numbers of a teacher and metric that have a finite value and a number of calls."""
    found = []
    for entry in record.get("published", []):
        value, nfe, digits = entry.get("value"), entry.get("nfe"), entry.get("digits", 2)
        numbers = isinstance(value, int | float) and isinstance(nfe, int) and isinstance(digits, int)
        if (entry.get("teacher"), entry.get("metric")) == (teacher, metric) and numbers and math.isfinite(value):
            texts = {name: str(entry.get(name, "")) for name in ("solver", "label", "row", "paper", "place")}
            differences = tuple(map(str, entry.get("differences", ())))
            found.append(Published(nfe=nfe, value=float(value), digits=digits, differences=differences, **texts))
    return tuple(found)


def _interval(record: Mapping[str, Any]) -> str:
    """Return the protocol's description of intervals."""
    named = [str(value) for key, value in record.get("protocol", {}).items() if "interval" in key.lower()]
    return named[0] if named else "as recorded in results.csv"


def _number(rows: pd.DataFrame, column: str) -> int:
    values = rows[column].dropna()
    return int(values.iloc[0]) if len(values) else 0


def _word(rows: pd.DataFrame, column: str) -> str:
    return str(rows[column].iloc[0]) if len(rows) else ""
