"""The input of a report: one folder with results.csv, bundle.json and images.npz, read without torch.

Numbers are parsed strictly: an empty value is NaN and keeps its reason; a value that is not a number is an error.
"""

import html
import io
import math
import re
import tomllib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from solverbench.reports import files
from solverbench.wording import Problem, of_csv, one_line, printable

SCHEMA = 1
FINISHED = ("done", "cached")
STATUSES = (*FINISHED, "failed", "unsupported", "needs-training")
MARKS = {"unsupported": "-", "needs-training": "t", "failed": "x"}
MEANINGS = {"-": "unsupported", "t": "needs training", "x": "failed", "?": "no value", "": "not asked for"}
"""The mark that a table shows in place of a value, by status, and the meaning of each mark."""
METRIC_LOSS, INFERRED, FLAGGED = "†", "‡", "*"
"""Marks after a solver's name: trained on the metric's own features; a method that its paper only partly specifies."""
REFERENCE_ERROR = "reference-error:"
"""Start of the flag of a value that is small beside the error of its reference; the last flag of a value."""
CALLS, SOLVERS, LABEL = 1_000_000, 1000, 60
"""Largest number of calls, of solvers in a report, and of characters in a solver's name in tables and figures."""
_COLUMNS = tomllib.loads(Path(__file__).with_name("columns.toml").read_text(encoding="utf-8"))["columns"]
_NEEDED = [name for name, about in _COLUMNS.items() if about["use"] == "needed"]
_VALUES = [name for name in _NEEDED if _COLUMNS[name]["kind"] == "number"]
_EMPTY = ("", "nan", "none", "<na>")


class BundleError(Problem):
    """A folder or frame that cannot be drawn: damaged, foreign, or written by another version."""


@dataclass(frozen=True)
class Bundle:
    """The data of one report: `frame` has a row per (teacher, solver, nfe, metric), `record` is bundle.json."""

    folder: Path
    frame: pd.DataFrame
    record: Mapping[str, Any]

    @cached_property
    def images(self) -> dict[str, np.ndarray]:
        """The sample images by "teacher|solver|nfe", uint8 [k, C, H, W], read on first access."""
        path = self.folder / "images.npz"
        return _read_images(path) if path.exists() else {}

    @cached_property
    def cells(self) -> dict[str, dict[str, Any]]:
        """The "plan" (sigmas, rows) and "measures" (leave-one-outs) of each known cell, by the `cell` column.

        A bundle of an older version has no cells.json; its cells are read from the store that contains it.
        """
        path = self.folder / "cells.json"
        return _read_cells(path) if path.exists() else _from_store(self.folder.parents[1] / "cells", self.frame)

    def table(self, metric: str | None = None, teacher: str | None = None) -> pd.DataFrame:
        """Return the values of one metric: a row per solver, a column per number of calls; NaN where there is no value.

        Args:
            metric: name of the metric; may be left out if there is one alone.
            teacher: name of the teacher; may be left out if there is one alone.
        Raises: BundleError for a name that isn't there, or for one left out where there are several.
        """
        frame = self.frame
        for column, name in (("metric", metric), ("teacher", teacher)):
            there = list(dict.fromkeys(frame[column]))
            if name is None and len(there) == 1:
                name = there[0]
            if name not in there:
                asked = f"{column} {name!r}" if name is not None else f"the table of a {column}"
                raise BundleError(
                    asked=asked, wrong=f"there is {', '.join(there)}", remedy=f"give {column}= one of them"
                )
            frame = frame[frame[column] == name]
        solvers = list(dict.fromkeys(frame["solver"]))
        return frame.pivot(index="solver", columns="nfe", values="value").reindex(solvers)

    def __repr__(self) -> str:
        """Return where it is and what it holds, on one line."""
        cells = len(self.frame.drop_duplicates(["teacher", "label", "nfe"]))
        metrics = ", ".join(dict.fromkeys(self.frame["metric"]))
        return printable(f"Bundle({str(self.folder)!r}: {cells} cells, {metrics})")

    def _repr_html_(self) -> str:
        """Return the tables of all teachers and metrics as HTML, for a notebook."""
        parts = []
        for teacher in dict.fromkeys(self.frame["teacher"]):
            for metric in dict.fromkeys(self.frame.loc[self.frame["teacher"] == teacher, "metric"]):
                title = html.escape(f"{metric} on {teacher}")
                parts.append(
                    f"<p><b>{title}</b></p>{self.table(metric, teacher).to_html(float_format='{:.4g}'.format)}"
                )
        return "\n".join(parts)


def load(folder: str | Path) -> Bundle:
    """Return the checked bundle in `folder`.

    Raises: BundleError naming the file, what is wrong with it, and what to do.
    """
    folder = Path(folder).absolute()
    if not folder.is_dir():
        raise BundleError(
            asked=f"report folder {folder}",
            wrong="it is not there",
            remedy="name the folder that a run printed as its report",
        )
    record = _read_record(folder / "bundle.json")
    path = folder / "results.csv"
    try:
        text = io.BytesIO(files.content(path))
        frame = pd.read_csv(text, dtype=str, keep_default_na=False, encoding="utf-8")
    except FileNotFoundError:
        raise BundleError(asked=path, wrong="it is not there", remedy="run the selection again to write it") from None
    except (OSError, ValueError) as error:  # ValueError: also pandas' ParserError and UnicodeDecodeError
        raise BundleError(asked=path, wrong=f"it cannot be read as CSV ({one_line(error)})", remedy=_REMEDY) from error
    return Bundle(folder=folder, frame=tidy(frame, str(path)), record=record)


def load_results(out: str | Path = "runs", name: str | None = None) -> Bundle:
    """Return the results of a finished run: `.frame` per cell and metric, `.record` with protocol and verdicts.

    Args:
        out: a results folder, or the folder of one report.
        name: the name of the report in it; required if there are several.
    Raises: BundleError if there is no such report, or it is damaged.
    """
    out = Path(out)
    if name is None and (out / "bundle.json").is_file():
        return load(out)
    found = sorted(path.parent.name for path in out.glob("reports/*/bundle.json"))
    if name is None and len(found) == 1:
        name = found[0]
    if name not in found:
        asked = str(out) if name is None else f"{out}, {name!r}"
        raise BundleError(
            asked=f"results {asked}",
            wrong=f"there is {', '.join(found) or 'no report'}",
            remedy="name one of them, or run first",
        )
    return load(out / "reports" / str(name))


_REMEDY = "run the selection again to write it again"


def tidy(frame: pd.DataFrame, name: str = "frame") -> pd.DataFrame:
    """Return a copy with every required column in its own type, and `label`: the row's name in tables and figures.

    Floats are NaN where there is no number; `reason` then always says why. A label ends in `METRIC_LOSS` if any of its
    rows was trained on the metric's own features, and in `INFERRED` if any is inferred. Raises BundleError.
    """
    missing = [column for column in _NEEDED if column not in frame.columns]
    if missing:
        raise BundleError(asked=name, wrong=f"columns {', '.join(missing)} are not there", remedy=_REMEDY)
    if frame.empty:
        raise BundleError(asked=name, wrong="it has no rows", remedy="run a selection that holds at least one cell")
    out = frame.reset_index(drop=True)
    for column, about in _COLUMNS.items():
        if about["use"] != "kept":
            given = frame[column] if column in frame else [""] * len(out)
            finite = about["kind"] == "number" and about["use"] == "optional"
            read = _finite if finite else _READERS[about["kind"]]
            out[column] = [read(value, f"{name}: row {i + 1}, {column}") for i, value in enumerate(given)]
    _check(out, name)
    _explain(out)
    out["label"] = _labels(out)
    return out.copy()  # in few blocks of memory: a report selects rows hundreds of times, from every block


def _read_record(path: Path) -> dict[str, Any]:
    try:
        record = files.parsed(path)
    except FileNotFoundError:
        raise BundleError(
            asked=path, wrong="it is not there, so this is no report folder", remedy="name one that a run wrote"
        ) from None
    except (OSError, ValueError) as error:
        raise BundleError(asked=path, wrong=f"it cannot be read as JSON ({one_line(error)})", remedy=_REMEDY) from error
    if not isinstance(record, dict) or "schema" not in record:
        raise BundleError(
            asked=path, wrong="it holds no 'schema', so SolverBench did not write it", remedy="name a report folder"
        )
    if record["schema"] != SCHEMA:
        raise BundleError(
            asked=path,
            wrong=f"its schema is {record['schema']!r} and this version reads {SCHEMA}",
            remedy="use the SolverBench that wrote it, or run the selection again",
        )
    kinds = {"metrics": dict, "protocol": dict, "environment": dict, "counts": dict,
             "lines": list, "notes": list, "verdicts": list, "tags": list, "published": list, "wins": list}  # fmt: skip
    for key, kind in kinds.items():
        if not isinstance(record.setdefault(key, kind()), kind):
            raise BundleError(
                asked=path, wrong=f"'{key}' is a {type(record[key]).__name__}, not a {kind.__name__}", remedy=_REMEDY
            )
    for key in ("lines", "verdicts", "published"):
        if not all(isinstance(entry, dict) for entry in record[key]):
            raise BundleError(asked=path, wrong=f"'{key}' holds something that is no object", remedy=_REMEDY)
    return record


def _read_images(path: Path) -> dict[str, np.ndarray]:
    try:
        images = {printable(key): batch for key, batch in files.arrays(path).items()}
    except (OSError, ValueError) as error:
        raise BundleError(asked=path, wrong=f"it cannot be read as npz ({one_line(error)})", remedy=_REMEDY) from error
    for key, batch in images.items():
        if batch.dtype != np.uint8 or batch.ndim != 4 or batch.shape[1] not in (1, 3) or 0 in batch.shape:
            what = f"{batch.dtype} {list(batch.shape)}"
            raise BundleError(asked=path, wrong=f"'{key}' is {what}, not uint8 [k, 1 or 3, H, W]", remedy=_REMEDY)
    return images


def _read_cells(path: Path) -> dict[str, dict[str, Any]]:
    try:
        cells = files.parsed(path)
    except (OSError, ValueError) as error:
        raise BundleError(asked=path, wrong=f"it cannot be read as JSON ({one_line(error)})", remedy=_REMEDY) from error
    if not isinstance(cells, dict) or not all(isinstance(cell, dict) for cell in cells.values()):
        raise BundleError(asked=path, wrong="it is no table of cells", remedy=_REMEDY)
    for name, cell in cells.items():
        if not _sound(cell):
            raise BundleError(asked=path, wrong=f"cell {name!r} has no valid plan or measures", remedy=_REMEDY)
    return cells


def _sound(cell: Mapping[str, Any]) -> bool:
    """Return whether a cell's plan, if it has one, is levels and rows of weights, and its measures are objects."""
    measures, plan = cell.get("measures", {}), cell.get("plan")
    if not isinstance(measures, dict) or not all(isinstance(each, dict) for each in measures.values()):
        return False
    if plan is None:
        return True
    if not isinstance(plan, dict) or not all(isinstance(plan.get(part), list) for part in ("sigmas", "rows")):
        return False
    sigmas, rows = plan["sigmas"], plan["rows"]
    if not all(isinstance(row, list) for row in rows):
        return False
    return all(type(each) in (int, float) and math.isfinite(each) for row in (sigmas, *rows) for each in row)


def _from_store(root: Path, frame: pd.DataFrame) -> dict[str, dict[str, Any]]:
    """Return the cells of a frame from the store's own files; cells without files are left out."""
    found = {}
    for key in dict.fromkeys(frame["cell"]):
        if re.fullmatch("[0-9a-f]{16}", key):
            for folder in root.glob(f"{key[:2]}/{key}*"):
                try:
                    cell = files.parsed(folder / "cell.json")
                    plan = cell["plan"] if "plan" in cell else cell["key"]["plan"]  # its place in format 1
                    measures = files.parsed(folder / "metrics.json")["measures"]
                except (OSError, ValueError, KeyError, TypeError):
                    continue
                if isinstance(measures, dict) and _sound(cell := {"plan": plan, "measures": measures}):
                    found[key] = cell
    return found


def _check(frame: pd.DataFrame, name: str) -> None:
    unknown = sorted(set(frame["status"]) - set(STATUSES))
    if unknown:
        raise BundleError(asked=name, wrong=f"status {unknown[0]!r} is none of {', '.join(STATUSES)}", remedy=_REMEDY)
    for column in ("teacher", "solver", "metric"):
        if (frame[column] == "").any():
            raise BundleError(asked=name, wrong=f"a row has no {column}", remedy=_REMEDY)
    if frame["nfe"].isna().any():
        raise BundleError(asked=name, wrong="a row has no nfe", remedy=_REMEDY)
    if (frame["nfe"] > CALLS).any():
        raise BundleError(asked=name, wrong=f"a row has more than {CALLS} calls", remedy=_REMEDY)
    frame["nfe"] = frame["nfe"].astype(int)
    if (count := frame.groupby("solver")["spec"].nunique().sum()) > SOLVERS:
        remedy = "its results.csv holds every number; run fewer solvers with the same --out to draw them"
        raise BundleError(asked=name, wrong=f"{count} solvers, more than the {SOLVERS} of a report", remedy=remedy)


def _explain(frame: pd.DataFrame) -> None:
    """Drop values that are not finite results, and give every row without a value a reason."""
    value = frame["value"].to_numpy(dtype=float)
    known = np.isfinite(value) & frame["status"].isin(FINISHED).to_numpy()
    for column in _VALUES:
        numbers = frame[column].to_numpy(dtype=float)
        frame[column] = np.where(known & np.isfinite(numbers), numbers, np.nan)
    rows = zip(known, frame["reason"], frame["status"], value, strict=True)
    frame["reason"] = ["" if fine else reason or _why(status, number) for fine, reason, status, number in rows]


def _why(status: str, value: float) -> str:
    if status not in FINISHED:
        return "no reason recorded"
    return "no value recorded" if math.isnan(value) else f"the value is {value}, not finite"


def _labels(frame: pd.DataFrame) -> list[str]:
    """Return the solver names as asked, plus the options that differ if one name has several specs at one NFE."""
    labels = dict[tuple[str, str], str]()
    for solver, rows in frame.groupby("solver", sort=False):
        clash = rows.groupby(["teacher", "nfe", "metric"])["spec"].nunique().max() > 1
        specs = list(dict.fromkeys(rows["spec"]))
        shared = set.intersection(*(set(spec.split(":")[1:]) for spec in specs))
        for spec in specs:
            own = [option for option in spec.split(":")[1:] if option not in shared]
            labels[str(solver), spec] = ":".join([str(solver), *own]) if clash else str(solver)
    short = dict(zip(labels, shortened(labels.values()), strict=True))
    plain = [short[solver, spec] for solver, spec in zip(frame["solver"], frame["spec"], strict=True)]
    marked = {label for label, metric_loss in zip(plain, frame["metric_loss"], strict=True) if metric_loss}
    unknown = {label for label, inferred in zip(plain, frame["inferred"], strict=True) if inferred}
    return [f"{each}{METRIC_LOSS * (each in marked)}{INFERRED * (each in unknown)}" for each in plain]


def shortened(labels: Iterable[str]) -> list[str]:
    """Return names of at most `LABEL` characters, which a figure has room for; different names stay different."""
    found: dict[str, str] = {}
    for label in labels:
        short, number = label, 1
        while len(short) > LABEL or found.get(short, label) != label:
            short = f"{label[: LABEL * 3 // 4]}…{label[-LABEL // 8 :]}" + f" ({number})" * (number > 1)
            number += 1
        found[short] = label
    names = {label: short for short, label in found.items()}
    return [names[label] for label in labels]


def unmarked(label: str) -> str:
    """Return a label without the marks at its end."""
    return label.rstrip(METRIC_LOSS + INFERRED)


def excluded(rows: pd.DataFrame) -> "pd.Series[bool]":
    """Return which rows have a flag that keeps them from being the best: any but that of the reference's error."""
    return (rows["flags"] != "") & ~rows["flags"].str.startswith(REFERENCE_ERROR)


def _text(value: object) -> str:
    return "" if value is None or value is pd.NA or (isinstance(value, float) and math.isnan(value)) else str(value)


def _words(value: object, where: str) -> str:
    return printable(" ".join(of_csv(_text(value)).split()))


def _float(value: object, where: str) -> float:
    text = _text(value).strip()
    if text.lower() in _EMPTY:
        return math.nan
    try:
        return float(text)
    except ValueError:
        raise BundleError(asked=where, wrong=f"{text!r} is not a number", remedy=_REMEDY) from None


def _finite(value: object, where: str) -> float:
    number = _float(value, where)
    if math.isinf(number):
        raise BundleError(asked=where, wrong=f"{number} is not finite", remedy=_REMEDY)
    return number


def _whole(value: object, where: str) -> float:
    number = _float(value, where)
    if not math.isnan(number) and (not math.isfinite(number) or number != int(number) or number < 0):
        raise BundleError(asked=where, wrong=f"{number} is not a whole number", remedy=_REMEDY)
    return number


def _flag(value: object, where: str) -> bool:
    text = _text(value).strip().lower()
    if text in ("true", "1", "1.0"):
        return True
    if text in ("false", "0", "0.0", ""):
        return False
    raise BundleError(asked=where, wrong=f"{text!r} is neither true nor false", remedy=_REMEDY)


_READERS: dict[str, Callable[[object, str], str | float]] = {
    "text": _words,
    "number": _float,
    "whole": _whole,
    "flag": _flag,
}
