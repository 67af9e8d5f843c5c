"""A report is written again only if something that it shows has changed."""

from __future__ import annotations

import csv
import hashlib
import io
import json
from pathlib import Path
from typing import Any

from solverbench.reports import files
from solverbench.reports.figures.widths import Width

STAMP = "report.json"
"""The file in a report's folder that says what the report was written from, and the digests of its files."""
_SOURCES = ("bundle.json", "results.csv", "cells.json", "images.npz")
_OPTIONAL = _SOURCES[2:]
"""Files that a bundle may lack. Without cells.json the store is read, whose cells may change at any time."""
_LIBRARIES = ("jinja2", "matplotlib", "numpy", "pandas")


def write(folder: str | Path, *, width: str | Width | None = None, baseline: str | None = None) -> list[Path]:
    """Write the report's files into `folder`, each atomically; return their paths, report.md last.

    Nothing is written if the files are there and were made from the same bundle, by the same code. A repeated run whose
    cells are `cached` where they were `done` has the same bundle. In the folder of a recommendation its page is
    written, and in that of its run the report.

    Args:
        width: the venue whose columns the figures fit: icml, cvpr, neurips, iclr.
        baseline: the baseline of paired differences; if None, dpm or else the first classical solver.
    Raises: BundleError if the folder holds no valid bundle or is not writable, or the venue or solver is unknown.
    """
    place = Path(folder).absolute()
    if (place / "recommendation.json").is_file():
        from solverbench.reports.pages import recommendation

        written = write(recommendation.run_of(place), width=width, baseline=baseline)
        return [*written, recommendation.write(place)]
    stamp = _stamp(place, f"{width} {baseline}")
    if stamp and (there := _unchanged(place, stamp)):
        return there
    from solverbench.reports import report  # drawing takes half a second to import

    written = report.write(place, width=width, baseline=baseline)
    if stamp:
        digests = {path.name: _digest(path) for path in written}
        record = json.dumps({"stamp": stamp, "files": digests}, indent=1) + "\n"
        files.put(place / STAMP, record.encode())
        written = [place / STAMP, *written]
    return written


def _unchanged(folder: Path, stamp: str) -> list[Path]:
    """Return the report's files if the record has this stamp and they have their digests, or an empty list."""
    try:
        record = json.loads(files.content(folder / STAMP))
        known = dict(record["files"]) if record["stamp"] == stamp else {}
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        return []
    if not known or any(Path(name).name != name or _digest(folder / name) != digest for name, digest in known.items()):
        return []
    return [folder / name for name in (STAMP, *known)]


def _stamp(folder: Path, asked: str) -> str:
    """Return a digest of the bundle, the code that draws it and its libraries; empty if that can't be told."""
    found = hashlib.sha256(asked.encode())
    if not (folder / "cells.json").exists() and (folder.parents[1] / "cells").exists():
        return ""
    try:
        for name in _SOURCES:
            found.update(name.encode() + b"\0" + _source(folder / name) + b"\0")
    except (OSError, ValueError, TypeError, KeyError, AttributeError, csv.Error, IndexError, RecursionError):
        return ""
    here = Path(__file__).parent
    for path in sorted(path for path in here.rglob("*") if path.is_file() and path.suffix != ".pyc"):
        found.update(path.relative_to(here).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    for library in _LIBRARIES:
        found.update(f"{library} {files.release(library)}\0".encode())
    return found.hexdigest()


def _source(path: Path) -> bytes:
    """Return what a file of the bundle says of its cells, the same for a run and its repetition."""
    if path.name == "bundle.json":
        record: dict[str, Any] = json.loads(files.content(path))
        counts, environment = dict(record["counts"]), dict(record["environment"])
        counts["done"] = counts.get("done", 0) + counts.pop("cached", 0)
        environment.pop("seconds", None)
        return json.dumps({**record, "counts": counts, "environment": environment}, sort_keys=True).encode()
    if path.name == "results.csv":
        head, *rows = csv.reader(io.StringIO(files.content(path).decode(), newline=""))
        status = head.index("status")
        rows = [[*row[:status], row[status].replace("cached", "done"), *row[status + 1 :]] for row in rows]
        return json.dumps([head, *rows]).encode()
    return files.content(path, files.ARRAY_BYTES) if path.exists() or path.name not in _OPTIONAL else b""


def _digest(path: Path) -> str | None:
    """Return the sha256 of a file, None if it can't be read."""
    try:
        return hashlib.sha256(files.content(path)).hexdigest()
    except (OSError, ValueError):
        return None
