"""What a store holds, whether it is sound, and what of it can go."""

from __future__ import annotations

import csv
import os
import shutil
from collections import Counter
from collections.abc import Callable
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
    """What a store holds.

    Args:
        cells: how many are done, failed last time, or unfinished.
        sizes: bytes by folder.
        reports: how many.
        runs: at work, or dead with leases left.
        leftovers: temporary files and damaged ones that were set aside.
        free: bytes that the disk has left.
    """

    cells: dict[str, int]
    sizes: dict[str, int]
    reports: int
    runs: list[Run]
    leftovers: int
    free: int

    def lines(self) -> list[str]:
        """Return it for people."""
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
    """Return what the store holds; reads no result.

    Raises:
        StoreError: there is no store.
    """
    _present(store)
    cells = Counter({DONE: 0, FAILED: 0, UNFINISHED: 0})
    for cell in (each for shelf in files.listed(store.root / "cells") for each in files.listed(shelf)):
        there = {path.name for path in files.listed(cell)}
        cells[DONE if "metrics.json" in there else FAILED if "error.txt" in there else UNFINISHED] += 1
    sizes = dict.fromkeys((*layout.FOLDERS, "reports"), 0)
    leftovers = 0
    for folder in sizes:
        for place, _, names in os.walk(store.root / folder):
            for name in names:
                leftovers += _leftover(name)
                try:
                    sizes[folder] += os.stat(os.path.join(place, name)).st_size
                except OSError:  # a run has just renamed it
                    continue
    reports = len(list(store.root.glob("reports/*/bundle.json")))
    free = shutil.disk_usage(store.root).free
    return Status(dict(cells), sizes, reports, store_runs.runs(store.root), leftovers, free)


def verify(
    store: Store,
    check_trained: Callable[[Path], None],
    *,
    aside: bool = False,
    say: Callable[[int], None] = lambda count: None,
) -> list[Damage]:
    """Return the damaged files of a store after reading all of it.

    Args:
        check_trained: as for `layout.check`.
        aside: rename the damaged ones that a run makes anew.
        say: told how many files were read, now and then.

    Raises:
        StoreError: there is no store, or a file can't be read or renamed.
    """
    _present(store)
    damaged = []
    for count, name in enumerate(layout.walk(store.root), 1):
        if count % 1000 == 0:
            say(count)
        if (damage := layout.check(store.root, name, check_trained)) is not None:
            damaged.append(damage)
            if aside and not name.startswith(("trained/", "references/")):
                files.set_aside(store.root / name)
    return damaged


@dataclass(frozen=True)
class Removed:
    """What was removed, or would be.

    Args:
        files: leftovers.
        runs: dead ones whose leases are gone.
        cells: in no report.
        size: bytes.
        kept: why some leftovers stay; empty if none do.
    """

    files: list[Path]
    runs: list[Run]
    cells: list[Path]
    size: int
    kept: str = ""


def collect(store: Store, *, dry: bool = False, unreported: bool = False, look: float = 0.0) -> Removed:
    """Remove leftovers: temporary files of killed runs, damaged files that were set aside, leases of dead runs.

    Args:
        dry: remove nothing, only say what would be.
        unreported: remove the cells that no report shows, too.
        look: seconds to wait for heartbeats of runs on other machines, which are kept without.

    Raises:
        StoreError: there is no store, it can't be written; or cells are to go while a run works or a report can't be
            read.
    """
    _present(store)
    runs = store_runs.runs(store.root, look)
    dead, living = [run for run in runs if run.state == "dead"], [run for run in runs if run.state != "dead"]
    kept = f"temporary files stay while a run may be at work: {living[0].holder}" if living else ""
    found = []
    for folder in (*layout.FOLDERS, "reports"):
        for path in files.below(store.root / folder):
            temporary = layout.TEMPORARY.fullmatch(path.name) is not None
            if (temporary and not living) or path.name.endswith(files.DAMAGED):
                found.append(path)
    cells = _unreported(store, living) if unreported else []
    freed = sum(path.stat().st_size for path in found)
    freed += sum(path.stat().st_size for cell in cells for path in cell.rglob("*") if path.is_file())
    if not dry:
        try:
            for path in found:
                path.unlink(missing_ok=True)
            for cell in cells:
                # What makes it a cell goes first, so that a half that is left is never taken for one.
                (cell / "metrics.json").unlink(missing_ok=True)
                shutil.rmtree(cell)
        except OSError as error:
            raise files.refusal(Path(error.filename or store.root), 0, error) from error
        for run in dead:
            store_runs.forget(store.root, run)
    return Removed(found, dead, cells, freed, kept)


def reported(store: Store, name: str) -> list[str]:
    """Return the addresses, as far as they are told, of the cells of a report.

    Raises:
        UserError: there is no such report.
        RecordError: it can't be read.
    """
    table = store.root / "reports" / name / "results.csv"
    if Path(name).name != name or not table.is_file():
        found = sorted(path.parent.name for path in store.root.glob("reports/*/results.csv"))
        raise UserError(f"report {name!r}: {store.root}/reports has {', '.join(found) or 'none'}; name one of them")
    return sorted(address for address in _shown(table) if address and _stored(store, address))


def _stored(store: Store, address: str) -> bool:
    return any(store.root.glob(f"cells/{address[:2]}/{address}*"))


def _shown(table: Path) -> set[str]:
    """The beginnings of the addresses in a report's table."""
    try:
        with open(table, newline="", encoding="utf-8") as file:
            return {row["cell"] for row in csv.DictReader(file)}
    except (OSError, ValueError, KeyError, csv.Error):
        raise RecordError(f"{table}: can't be read, so that its cells aren't known; delete that report") from None


def _unreported(store: Store, living: list[Run]) -> list[Path]:
    if living:
        raise StoreError(f"gc of cells: a run may be at work here ({living[0].holder}); wait for its end")
    shown = {address for table in store.root.glob("reports/*/results.csv") for address in _shown(table)}
    return [cell for cell in sorted(store.root.glob("cells/??/*")) if cell.is_dir() and cell.name[:16] not in shown]


def _leftover(name: str) -> bool:
    return name.endswith(files.DAMAGED) or layout.TEMPORARY.fullmatch(name) is not None


def _present(store: Store) -> None:
    if not (store.root / "store.json").exists():
        raise StoreError(f"{store.root}: no store, it has no store.json; give --out the folder of a run")


def size(count: int) -> str:
    """Return bytes as people say them: `812 B`, `3.4 MB`."""
    amount = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if amount < 1000:
            return f"{amount:.0f} {unit}" if unit == "B" or amount >= 100 else f"{amount:.1f} {unit}"
        amount /= 1000
    return f"{amount:.1f} TB"
