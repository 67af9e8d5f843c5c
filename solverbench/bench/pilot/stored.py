"""Finished cells as a pilot of a run to come: values and leave-one-outs, from a store or a report's folder."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from solverbench import files
from solverbench.bench.cells import Cell
from solverbench.errors import RecordError, UserError
from solverbench.metrics.reduction import Array
from solverbench.store import layout
from solverbench.store.folder import CellFolder
from solverbench.wording import of_csv

REPORT_BYTES = 1 << 28
"""Largest size of a file of a report that is read."""


@dataclass(frozen=True, eq=False)
class Pilot:
    """One metric of one finished cell.

    Args:
        value: mean over replicates.
        left: leave-one-outs, [R, 10].
        n: images per replicate that the metric uses.
        over: what two of them must share to be compared: seeds and reference.
    """

    teacher: str
    solver: str
    nfe: int
    metric: str
    value: float
    left: Array
    n: int
    over: str

    @property
    def images(self) -> int:
        """Number of images of all replicates."""
        return self.n * len(self.left)


def of_store(root: Path, cells: Iterable[Cell]) -> Iterator[Pilot]:
    """Yield the stored measures of these cells, on any seeds and with any number of images."""
    wanted = {_asked(cell.names, cell.key): cell for cell in cells if cell.plan is not None}
    for path in layout.cells(root) if wanted else ():
        try:
            found = files.read_json(path / "cell.json")
            cell = wanted.get(_asked(found["names"], found["key"]))
            metrics = CellFolder(path, path.name).metrics() if cell is not None else None
        except (RecordError, KeyError, TypeError):  # damaged: `store verify` names it
            continue
        if cell is not None and metrics is not None:
            for name, each in metrics["measures"].items():
                yield _pilot(cell.teacher.name, cell.solver, cell.nfe, name, int(each["n"]), each)


def of_report(folder: Path) -> list[Pilot]:
    """Return the measures of a finished run from its report's folder.

    Raises:
        UserError: it is no folder of a report, or holds no leave-one-outs.
    """
    try:
        rows = csv.DictReader(io.StringIO(_text(folder / "results.csv")))
        cells = json.loads(_text(folder / "cells.json"))
        found = [
            _pilot(
                of_csv(row["teacher"]), of_csv(row["solver"]), int(row["nfe"]), row["metric"],
                int(float(row["n"])), cells[row["cell"]]["measures"][row["metric"]],
            )
            for row in rows
            if row["value"] and row["cell"] in cells and row["metric"] in cells[row["cell"]].get("measures", {})
        ]  # fmt: skip
        if all(_sound(each) for each in found):
            return found
        wrong = "its leave-one-outs are damaged"
    except (OSError, ValueError, KeyError, TypeError, csv.Error) as error:
        wrong = f"results.csv or cells.json can't be read ({type(error).__name__}: {error})"
    raise UserError(asked=folder, wrong=wrong, remedy="name a report's folder, such as runs/reports/NAME")


def _text(path: Path) -> str:
    with files.regular(path) as file:
        content = file.read(REPORT_BYTES + 1)
    if len(content) > REPORT_BYTES:
        raise ValueError(f"{path.name} has more than {REPORT_BYTES} bytes")
    return content.decode()


def _asked(names: Mapping[str, Any], key: Mapping[str, Any]) -> tuple[Any, ...]:
    """Return what a pilot must share with a cell: network, condition, solver and number of calls."""
    condition = json.dumps(key.get("condition"), sort_keys=True)
    return key["teacher"], condition, key["dtype"], names["spec"], names["nfe"], names["trained"]


def _pilot(teacher: str, solver: str, nfe: int, metric: str, n: int, each: Mapping[str, Any]) -> Pilot:
    left = np.array(each["leave_one_out"], dtype=np.float64)
    return Pilot(teacher, solver, nfe, metric, float(np.mean(each["replicates"])), left, n, str(each["over"]))


def _sound(each: Pilot) -> bool:
    return each.left.ndim == 2 and each.left.shape[1] > 1 and math.isfinite(each.value) and each.n > 0
