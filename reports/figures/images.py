"""The layout of a teacher's grid of sample images."""

import textwrap
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from solverbench.reports.bundle import MARKS, MEANINGS, unmarked
from solverbench.reports.figures import sprites


@dataclass(frozen=True)
class Samples:
    """Keys in images.npz by (row, column), with labels; `marks` say why a place is empty.

    `taught` says that the first row is the teacher's own.
    """

    rows: Sequence[str]
    columns: Sequence[str]
    keys: Mapping[tuple[int, int], str]
    marks: Mapping[tuple[int, int], str]
    taught: bool


def grid(frame: pd.DataFrame, images: Collection[str], teacher: str) -> Samples | None:
    """Return the grid of one teacher's images, given their keys; None if the bundle holds none."""
    own = {(solver, nfe) for _, solver, nfe in sprites.blocks(list(images), teacher)}
    rows = frame[frame["teacher"] == teacher].drop_duplicates(["solver", "nfe"])
    solvers, budgets = list(dict.fromkeys(rows["solver"])), sorted(set(rows["nfe"]))
    keys, marks = dict[tuple[int, int], str](), dict[tuple[int, int], str]()
    best = sorted(calls for name, calls in own if name == "teacher")
    labels = [f"teacher\n{best[0]} calls"] if best else []
    for j in range(len(budgets) if best else 0):
        keys[0, j] = f"{teacher}|teacher|{best[0]}"
    statuses = {(solver, nfe): status for solver, nfe, status in
                zip(rows["solver"], rows["nfe"], rows["status"], strict=True)}  # fmt: skip
    for i, solver in enumerate(solvers, len(best[:1])):
        for j, nfe in enumerate(budgets):
            if (solver, nfe) in own:
                keys[i, j] = f"{teacher}|{solver}|{nfe}"
            elif (solver, nfe) in statuses:
                marks[i, j] = MEANINGS[MARKS.get(statuses[solver, nfe], "?")]
    if not keys:
        return None
    marks_ = {
        solver: label.removeprefix(unmarked(label)) for solver, label in zip(rows["solver"], rows["label"], strict=True)
    }
    labels += ["\n".join(textwrap.wrap(name.replace(":", " "), 15)) + marks_[name] for name in solvers]
    return Samples(labels, [f"NFE {nfe}" for nfe in budgets], keys, marks, bool(best))


def drawn(layout: Samples) -> pd.DataFrame:
    """Return the data of the grid: for each block its labels and its key in images.npz, or why it is empty."""
    places = sorted({*layout.keys, *layout.marks})
    return pd.DataFrame([
        {"row": i, "column": j, "series": " ".join(layout.rows[i].split()),
         "nfe": layout.columns[j].removeprefix("NFE "), "key": layout.keys.get((i, j), ""),
         "missing": layout.marks.get((i, j), "")}
        for i, j in places
    ])  # fmt: skip
