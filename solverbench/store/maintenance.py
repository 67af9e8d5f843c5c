"""Status, verification and cleanup of a store."""

from __future__ import annotations

import csv
import shutil
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from solverbench import files
from solverbench.errors import RecordError, StoreError, UserError
from solverbench.store import layout
from solverbench.store import runs as store_runs
from solverbench.store.folder import Store
from solverbench.store.layout import Damage
from solverbench.store.runs import Run

DONE, FAILED, UNFINISHED = "done", "failed", "unfinished"


@dataclass(frozen=True)
class Status:
    """Summary of a store.

    Args:
        cells: number of cells by state: done, failed in the last run, or unfinished.
        sizes: bytes by folder.
        reports: number of reports.
        runs: runs that are working, or dead ones with leases left.
        leftovers: number of temporary files and of damaged files that were set aside.
        free: free bytes on the disk.
    """

    cells: dict[str, int]
    sizes: dict[str, int]
    reports: int
    runs: list[Run]
    leftovers: int
    free: int

    def lines(self) -> list[str]:
        """Return it as human-readable lines."""
        counted = ", ".join(f"{count} {state}" for state, count in self.cells.items() if count) or "none"
        sizes = ", ".join(f"{name} {size(count)}" for name, count in self.sizes.items() if count) or "nothing"
        found = [f"cells    {counted}", f"size     {sizes}; {size(self.free)} free", f"reports  {self.reports}"]
        for run in self.runs:
            found.append(f"run      {run.state}: {run.holder}, {len(run.units)} leases")
        if self.leftovers:
            found.append(f"leftover {self.leftovers} temporary or damaged files; remove them: solverbench store gc")
        return found

    def as_dict(self) -> dict[str, Any]:
        """Return it as plain JSON values."""
        runs = [
            {"state": run.state, "host": run.holder.host, "pid": run.holder.pid, "since": run.holder.since,
             "leases": run.units}
            for run in self.runs
        ]  # fmt: skip
        return {
            "cells": self.cells, "bytes": self.sizes, "reports": self.reports, "runs": runs,
            "leftovers": self.leftovers, "free": self.free,
        }  # fmt: skip


def status(store: Store) -> Status:
    """Return a summary of the store without reading any result.

    Raises:
        StoreError: there is no store.
    """
    _present(store)
    cells = Counter({DONE: 0, FAILED: 0, UNFINISHED: 0})
    for cell in layout.cells(store.root):
        there = {path.name for path in files.listed(cell)}
        cells[DONE if "metrics.json" in there else FAILED if "error.txt" in there else UNFINISHED] += 1
    sizes = dict.fromkeys((*layout.FOLDERS, *layout.BESIDE), 0)
    leftovers = 0
    for folder in sizes:
        for path in files.below(store.root / folder):
            leftovers += _leftover(path.name)
            with suppress(OSError):  # a run has just renamed the file
                sizes[folder] += path.lstat().st_size
    reports = sum((path / "bundle.json").is_file() for path in files.listed(store.root / "reports"))
    free = shutil.disk_usage(store.root).free
    return Status(dict(cells), sizes, reports, store_runs.runs(store.root), leftovers, free)


def verify(
    store: Store,
    check_trained: Callable[[Path], None],
    *,
    aside: bool = False,
    say: Callable[[int], None] = lambda count: None,
) -> list[Damage]:
    """Read the whole store and return its damaged files.

    Args:
        check_trained: as for `layout.check`.
        aside: whether to rename damaged files that a run can recompute.
        say: progress callback: number of files read, every 1000 files.

    Raises:
        StoreError: there is no store, or a file cannot be renamed.
    """
    _present(store)
    damaged = list(layout.special(store.root))
    for count, name in enumerate(layout.walk(store.root), 1):
        if count % 1000 == 0:
            say(count)
        if (damage := layout.check(store.root, name, check_trained)) is not None:
            damaged.append(damage)
            if aside and not name.startswith(("trained/", "references/")):
                files.set_aside(store.root / name)
    return damaged


def set_aside(store: Store, wrong: Iterable[Damage]) -> None:
    """Rename false metrics and blocks, so that the next run computes them again; with a block, the cell's metrics.

    Raises:
        StoreError: a file cannot be renamed.
    """
    for damage in wrong:
        path = store.root / damage.name
        if path.parent.name == "blocks" and (path.parents[1] / "metrics.json").exists():
            files.set_aside(path.parents[1] / "metrics.json")
        if path.name != "cell.json" and path.exists():
            files.set_aside(path)


@dataclass(frozen=True)
class Removed:
    """The result of `collect`: what was removed, or would be in a dry run.

    Args:
        files: temporary and damaged files.
        runs: dead runs whose leases were removed.
        cells: folders of cells in no report.
        size: bytes freed.
        kept: reason why temporary files were kept; empty if none were.
    """

    files: list[Path]
    runs: list[Run]
    cells: list[Path]
    size: int
    kept: str = ""


def collect(store: Store, *, dry: bool = False, unreported: bool = False, look: float = 0.0) -> Removed:
    """Remove leftovers: temporary files of killed runs, damaged files that were set aside, leases of dead runs.

    Args:
        dry: whether only to report what would be removed.
        unreported: whether to remove also the cells that no report shows.
        look: seconds to wait for heartbeats of runs on other machines; 0 keeps all of these runs.

    Raises:
        StoreError: there is no store, it cannot be written, or cells are to be removed while a run may be working.
        RecordError: cells are to be removed, and a report cannot be read.
    """
    _present(store)
    runs = store_runs.runs(store.root, look)
    dead, living = [run for run in runs if run.state == "dead"], [run for run in runs if run.state != "dead"]
    kept = f"temporary files are kept because a run may be active: {living[0].holder}" if living else ""
    found = []
    for folder in (*layout.FOLDERS, *layout.BESIDE):
        for path in files.below(store.root / folder):
            temporary = layout.TEMPORARY.fullmatch(path.name) is not None
            if (temporary and not living) or path.name.endswith(files.DAMAGED):
                found.append(path)
    cells = _unreported(store, living) if unreported else []
    freed = sum(path.lstat().st_size for path in [*found, *(each for cell in cells for each in files.below(cell))])
    if not dry:
        try:
            for path in found:
                path.unlink(missing_ok=True)
            for cell in cells:
                # metrics.json goes first, so that a partly removed cell is never taken for a done one.
                (cell / "metrics.json").unlink(missing_ok=True)
                shutil.rmtree(cell)
        except OSError as error:
            raise files.refusal(Path(error.filename or store.root), 0, error) from error
        for run in dead:
            store_runs.forget(store.root, run)
    return Removed(found, dead, cells, freed, kept)


def reported(store: Store, name: str) -> list[str]:
    """Return the address prefixes of a report's cells that are still stored.

    Raises:
        UserError: there is no such report.
        RecordError: the report cannot be read.
    """
    table = store.root / "reports" / name / "results.csv"
    if table not in _tables(store):
        found = [table.parent.name for table in _tables(store)]
        raise UserError(
            asked=f"report {name!r}",
            wrong=f"{store.root}/reports has {', '.join(found) or 'none'}",
            remedy="name one of them",
        )
    return sorted(address for address in _shown(table) if address and _stored(store, address))


def _stored(store: Store, address: str) -> bool:
    return any(cell.name.startswith(address) for cell in files.listed(store.root / "cells" / address[:2]))


def _shown(table: Path) -> set[str]:
    """Return the address prefixes in a report's table."""
    try:
        with open(table, newline="", encoding="utf-8") as file:
            return {row["cell"] for row in csv.DictReader(file)}
    except (OSError, ValueError, KeyError, csv.Error):
        raise RecordError(
            asked=table, wrong="can't be read, so its cells aren't known", remedy="delete that report"
        ) from None


def _unreported(store: Store, living: list[Run]) -> list[Path]:
    if living:
        raise StoreError(
            asked="gc of cells", wrong=f"a run may be at work here ({living[0].holder})", remedy="wait for its end"
        )
    shown = {address for table in _tables(store) for address in _shown(table)}
    return [cell for cell in layout.cells(store.root) if cell.name[:16] not in shown]


def _tables(store: Store) -> list[Path]:
    """Return the tables of the store's reports, in order."""
    tables = (folder / "results.csv" for folder in files.listed(store.root / "reports") if not folder.is_symlink())
    return [table for table in tables if table.is_file() and not table.is_symlink()]


def _leftover(name: str) -> bool:
    return name.endswith(files.DAMAGED) or layout.TEMPORARY.fullmatch(name) is not None


def _present(store: Store) -> None:
    if not (store.root / "store.json").exists():
        raise StoreError(
            asked=store.root, wrong="not a store, because it has no store.json", remedy="give --out the folder of a run"
        )


def size(count: int) -> str:
    """Return a number of bytes in readable form: `812 B`, `3.4 MB`."""
    amount = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if amount < 1000:
            return f"{amount:.0f} {unit}" if unit == "B" or amount >= 100 else f"{amount:.1f} {unit}"
        amount /= 1000
    return f"{amount:.1f} TB"
