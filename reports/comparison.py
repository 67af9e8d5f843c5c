"""Comparison of two runs: differing specs, protocols and environments, and paired differences of cells."""

import math
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd

from solverbench.reports.bundle import Bundle, BundleError, load
from solverbench.reports.pages.text import flat
from solverbench.reports.paired import LEVEL, Difference, below_error, from_half, holm, of_measures
from solverbench.wording import BELOW_ERROR, decimals, interval_texts, masked, number_text

KEYS = ["teacher", "label", "nfe", "metric"]
SHARE = 10
"""Share of the error of its reference below which an RMSE is flagged in a run and its report."""
_PROTOCOL = ("n", "replicates", "seeds", "reference", "extractor", "quantiser")


@dataclass(frozen=True)
class Comparison:
    """The common and the differing parts of two runs.

    Args:
        names: the names of the two runs.
        settings: (where, key, a's value, b's value) of each difference in selection, protocol and environment.
        specs: (solver, a's spec, b's spec, what differs) of solvers with equal names and different specs.
        only: by run name, the cells that only this run has, such as "gas at NFE 4 on digits".
        cells: a row for each cell and metric in both: the columns `KEYS`, a, b, difference (b - a), low, high,
            paired (whether the interval is of paired differences), same (the same cell of a store), note,
            reference_error (the larger one of the two, NaN where the metric has none), beside_reference: empty, or
            that a value is below `SHARE` times that error, or that the difference is below the error and has no sign;
            p of the test of the difference alone, and p_holm, adjusted for all cells of this list that aren't the same.
    """

    names: tuple[str, str]
    settings: Sequence[tuple[str, str, str, str]]
    specs: Sequence[tuple[str, str, str, str]]
    only: Mapping[str, Sequence[str]]
    cells: pd.DataFrame

    def lines(self) -> Iterator[str]:
        """Yield the comparison as human-readable lines."""
        a, b = self.names
        yield f"a = {a}"
        yield f"b = {b}"
        yield ""
        if not self.settings and not self.specs:
            yield "nothing differs in what was asked, how, and where"
        for solver, one, other, what in self.specs:
            yield f"solver {solver}: {what}"
            yield f"  a  {one}"
            yield f"  b  {other}"
        for where, key, one, other in self.settings:
            yield f"{where}, {key}"
            yield f"  a  {one or '(not there)'}"
            yield f"  b  {other or '(not there)'}"
        for name, cells in self.only.items():
            if cells:
                shown = ", ".join(cells[:8]) + (f" and {len(cells) - 8} more" if len(cells) > 8 else "")
                yield f"only in {'a' if name == a else 'b'}: {shown}"
        yield ""
        differing = self.cells[~self.cells["same"]]
        if same := len(self.cells) - len(differing):
            yield f"{same} values are of the same stored cells, and so equal"
        yield from _table(differing) if len(differing) else [] if same else ["no cell is in both"]

    def as_dict(self) -> dict[str, Any]:
        """Return the comparison as plain JSON values."""
        rows = [
            {
                key: None if isinstance(value, float) and not math.isfinite(value) else value
                for key, value in row.items()
            }
            for row in self.cells.to_dict("records")
        ]
        return {
            "a": self.names[0], "b": self.names[1], "settings": [list(each) for each in self.settings],
            "specs": [list(each) for each in self.specs], "only_a": list(self.only[self.names[0]]),
            "only_b": list(self.only[self.names[1]]), "cells": rows,
        }  # fmt: skip


def compare(a: str | Path | Bundle, b: str | Path | Bundle) -> Comparison:
    """Return the differences between two runs, and b - a on the cells that both have.

    A difference is paired by seed if both cells use the same images and reference. If only the seeds differ and no seed
    is in both, the interval is that of independent values. Otherwise there is no interval, and the note says why.

    Raises: BundleError if a folder holds no valid bundle, or both are the same.
    """
    one, other = (each if isinstance(each, Bundle) else load(each) for each in (a, b))
    if one.folder == other.folder:
        raise BundleError(asked=f"compare {one.folder}", wrong="both runs are this one", remedy="name two")
    names = _names(one.folder, other.folder)
    other = _as_in(one, other)
    mine, theirs = _cells(one.frame), _cells(other.frame)
    only = {
        names[0]: [text for key, text in mine.items() if key not in theirs],
        names[1]: [text for key, text in theirs.items() if key not in mine],
    }
    return Comparison(
        names, list(_settings(one.record, other.record)), list(_specs(one, other)), only, _both(one, other)
    )


def _as_in(a: Bundle, b: Bundle) -> Bundle:
    """Return `b` with its solvers renamed as in `a` where specs are equal: `ipndm:order=4` may be `ipndm` there."""
    names = {(row.teacher, row.spec, row.nfe): row.label for row in a.frame.itertuples()}
    taken = {(row.teacher, row.label, row.nfe) for row in a.frame.itertuples()}

    def name(row: Any) -> str:
        if (row.teacher, row.label, row.nfe) in taken:
            return str(row.label)
        return str(names.get((row.teacher, row.spec, row.nfe), row.label))

    return replace(b, frame=b.frame.assign(label=[name(row) for row in b.frame.itertuples()]))


def _names(a: Path, b: Path) -> tuple[str, str]:
    """Return the folders' own names, or their whole paths if the names are equal."""
    return (a.name, b.name) if a.name != b.name else (str(a), str(b))


def _cells(frame: pd.DataFrame) -> dict[tuple[str, str, int], str]:
    cells = frame.drop_duplicates(["teacher", "label", "nfe"])
    return {
        (teacher, label, int(nfe)): f"{label} at NFE {nfe} on {teacher}"
        for teacher, label, nfe in zip(cells["teacher"], cells["label"], cells["nfe"], strict=True)
    }


def _settings(a: Mapping[str, Any], b: Mapping[str, Any]) -> Iterator[tuple[str, str, str, str]]:
    for where in ("selection", "protocol", "environment"):
        mine, theirs = (_dict(record.get(where)) for record in (a, b))
        for key in dict.fromkeys([*mine, *theirs]):
            if key not in ("specs", "seconds") and mine.get(key) != theirs.get(key):
                yield where, str(key), flat(mine.get(key, "")), flat(theirs.get(key, ""))


def _dict(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _specs(a: Bundle, b: Bundle) -> Iterator[tuple[str, str, str, str]]:
    mine, theirs = (dict(zip(each.frame["label"], each.frame["spec"], strict=True)) for each in (a, b))
    for label in (label for label in mine if label in theirs and mine[label] != theirs[label]):
        one, other = _options(mine[label]), _options(theirs[label])
        changed = [
            f"{key} {one.get(key, '(none)')} -> {other.get(key, '(none)')}"
            for key in dict.fromkeys([*one, *other])
            if one.get(key) != other.get(key)
        ]
        if (heads := (mine[label].split(":")[0], theirs[label].split(":")[0])) and heads[0] != heads[1]:
            changed.insert(0, f"method {heads[0]} -> {heads[1]}")
        yield label, mine[label], theirs[label], ", ".join(changed)


def _options(spec: str) -> dict[str, str]:
    return {key: value for key, _, value in (option.partition("=") for option in spec.split(":")[1:])}


def _both(a: Bundle, b: Bundle) -> pd.DataFrame:
    mine, theirs = ({tuple(row[key] for key in KEYS): row for row in each.frame.to_dict("records")} for each in (a, b))
    rows = []
    for key in (key for key in mine if key in theirs):
        one, other = mine[key], theirs[key]
        found, note = _difference(a, b, one, other)
        rows.append({
            **dict(zip(KEYS, key, strict=True)), "a": one["value"], "b": other["value"], "difference": found.value,
            "low": found.low, "high": found.high, "paired": not found.reason and not note,
            "same": bool(one["cell"]) and one["cell"] == other["cell"], "note": found.reason or note,
            "reference_error": (error := _reference_error(one, other)),
            "beside_reference": _beside(one["value"], other["value"], found.value, error), "p": found.p,
        })  # fmt: skip
    columns = [*KEYS, "a", "b", "difference", "low", "high", "paired", "same", "note"]
    columns += ["reference_error", "beside_reference", "p"]
    table = pd.DataFrame(rows, columns=columns)
    table["p_holm"] = holm([math.nan if same else p for p, same in zip(table["p"], table["same"], strict=True)])
    return table


def _reference_error(*rows: Mapping[Any, Any]) -> float:
    """Return the largest known error of the references of some rows; NaN if none is known."""
    return max((row["reference_error"] for row in rows if not math.isnan(row["reference_error"])), default=math.nan)


def _beside(a: float, b: float, difference: float, error: float) -> str:
    """Return what the error of the reference means for two values; empty if it means nothing, or isn't known."""
    if math.isnan(error) or math.isnan(difference):
        return ""
    if abs(difference) < error:
        return f"{BELOW_ERROR}, {error:.2g}: decides nothing"
    lower = [name for name, value in (("a", a), ("b", b)) if value < SHARE * error]
    below = [*lower] or ["the difference"] * (abs(difference) < SHARE * error)
    verb = "are" if len(below) > 1 else "is"
    return f"{' and '.join(below)} {verb} below {SHARE} times the error of the reference, {error:.2g}" if below else ""


def _difference(a: Bundle, b: Bundle, one: Mapping[Any, Any], other: Mapping[Any, Any]) -> tuple[Difference, str]:
    """Return b - a, and the reason if it is not paired."""
    missing = {name: str(row["reason"]) for name, row in (("a", one), ("b", other)) if math.isnan(row["value"])}
    if len(missing) == 2 and missing["a"] == missing["b"]:
        return Difference(reason=f"both: {missing['a']}"), ""
    if missing:
        return Difference(reason="; ".join(f"{name}: {reason}" for name, reason in missing.items())), ""
    measures = [
        bundle.cells.get(str(row["cell"]), {}).get("measures", {}).get(row["metric"])
        for bundle, row in ((b, other), (a, one))
    ]
    if measures[0] is not None and measures[1] is not None:
        found = of_measures(measures[0], measures[1])
        if not found.reason:
            return found, ""
    differing = [name for name in _PROTOCOL if one[name] != other[name] and not _none(one[name], other[name])]
    value = float(other["value"] - one["value"])
    if differing == ["seeds"] and _disjoint(one["seeds"], other["seeds"]):
        half = math.hypot(*(max(row["high"] - row["value"], row["value"] - row["low"]) for row in (one, other)))
        p = from_half(value, half, min(one["replicates"], other["replicates"]))
        return Difference(value, value - half, value + half, p=p), "independent: other seeds"
    if differing:
        return Difference(value), f"not to be compared: other {', '.join(differing)}"
    return Difference(value), "not paired: the leave-one-outs are not here, or of other images"


def _disjoint(a: str, b: str) -> bool:
    """Return whether two ranges of seeds, first-last, are disjoint."""
    try:
        (first, last), (begin, end) = ([int(number) for number in each.split("-")] for each in (a, b))
    except ValueError:
        return False
    return last < begin or end < first


def _none(*values: Any) -> bool:
    return all(isinstance(value, float) and math.isnan(value) for value in values)


def _table(cells: pd.DataFrame) -> Iterator[str]:
    """Yield the cells as lines of a plain-text table, with a star where the corrected test tells the two apart."""
    head = ("teacher", "solver", "NFE", "metric", "a", "b", "b - a", "95 % interval", "")
    rows = [head]
    for row in cells.to_dict("records"):
        decided = not abs(row["difference"]) < row["reference_error"]
        clear = decided and row["p_holm"] <= LEVEL
        change = row["difference"], row["low"], row["high"]
        shown, *ends = interval_texts(*change, sign="+")
        places = decimals(change[0], (change[2] - change[1]) / 4)
        rows.append((
            row["teacher"], row["label"], str(row["nfe"]), row["metric"], _number(row["a"], places),
            _number(row["b"], places), "" if math.isnan(change[0]) else shown + "*" * clear,
            " to ".join(filter(None, ends)),
            "; ".join(text for text in (row["note"], row["beside_reference"]) if text),
        ))  # fmt: skip
    widths = [max(len(row[i]) for row in rows) for i in range(len(head) - 1)]
    for texts in rows:
        padded = (f"{text:<{width}}" for text, width in zip(texts, widths, strict=False))
        yield "  ".join([*padded, texts[-1]]).rstrip()
    yield ""
    tested = int(cells["p_holm"].notna().sum())
    yield f"* told apart from 0, corrected for the {tested} comparisons of this list (Holm, family-wise .05), and not"
    yield "below the error of the reference. An interval is that of one difference alone. Differences are paired by"
    yield "seed unless a line says otherwise."
    yield from textwrap.wrap(below_error(cells.loc[_masked(cells), "reference_error"]), 100)


def _masked(cells: pd.DataFrame) -> "pd.Series[bool]":
    """Return where only the error of the reference leaves a difference without a sign."""
    columns = (cells[name] for name in ("difference", "low", "high", "reference_error"))
    return pd.Series([masked(*numbers) for numbers in zip(*columns, strict=True)], cells.index, dtype=bool)


def _number(value: float, places: int) -> str:
    """Return a value with as many decimals as the difference has."""
    return "" if math.isnan(value) else number_text(value, places)
