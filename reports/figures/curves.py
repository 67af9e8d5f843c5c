"""The data of figures of a metric against NFE, and the choice of their panels."""

from collections.abc import Sequence
from typing import Any

import pandas as pd

from solverbench.reports.figures.widths import Width
from solverbench.reports.parts import Part

_ACROSS, _NARROW = 4, 1.6  # panels side by side at most, and the inches that each needs
TRAJECTORY = ("rmse_exact", "rmse_teacher", "lpips_teacher")
"""Errors of a sample against the end of the teacher's trajectory from the same noise."""


def shown(found: Sequence[Part], wide: Width) -> list[Part]:
    """Return the parts that fit into one figure: those of the first metrics, four at most."""
    most = min(_ACROSS, int(wide.double / _NARROW))
    metrics = list(dict.fromkeys(part.metric for part in found))[:most]
    return [part for part in found if part.metric in metrics]


def trajectory(found: Sequence[Part]) -> list[Part]:
    """Return the parts with errors against the end of the teacher's trajectory, by metric."""
    return [part for metric in TRAJECTORY for part in found if part.metric == metric]


def drawn(part: Part) -> pd.DataFrame:
    """Return exactly the data of a panel: points with intervals, then published points, then horizontal lines (no nfe).

    `panel` names the axes; `kind` is measured, published or line.
    """
    tables = []
    for label in part.solvers:
        points = part.curves[label].reset_index()
        points.insert(0, "series", label)
        points.insert(0, "kind", "measured")
        tables.append(points)
    rows = pd.concat(tables, ignore_index=True)
    reasons = {(label, nfe): reason for label, nfe, reason in
             zip(part.frame["label"], part.frame["nfe"], part.frame["reason"], strict=True)}  # fmt: skip
    keys = zip(rows["series"], rows["nfe"], rows["value"].isna(), strict=True)
    rows["missing"] = [reasons.get((label, nfe), "not asked for") if missing else "" for label, nfe, missing in keys]
    more: list[dict[str, Any]] = [
        {"kind": "published", "series": part.label_of(each.label), "nfe": each.nfe, "value": each.value,
         "missing": ""}
        for each in part.beside
    ]  # fmt: skip
    more += [{"kind": "line", "series": line.label, "nfe": "", "value": line.value, "low": line.low, "high": line.high,
              "missing": ""} for line in part.level]  # fmt: skip
    if more:
        lines = pd.DataFrame(more, columns=rows.columns).astype({"low": float, "high": float})
        rows = pd.concat([rows.astype({"nfe": object}), lines], ignore_index=True)
    for name, value in (("metric", part.metric), ("teacher", part.teacher), ("panel", part.name)):
        rows.insert(0, name, value)
    return rows.assign(**columns(part))


TAKEN = ("panel", "teacher", "metric", "kind", "series", "nfe", "value", "low", "high", "missing", "key", "calls",
         "speed", "serial", "latency")  # fmt: skip
"""Columns of figures' CSVs; an option of such a name has the column `teacher_NAME`."""


def columns(part: Part) -> dict[str, str]:
    """Return the columns of the teacher's options that differ in this run, each named after its option."""
    return {f"teacher_{name}" if name in TAKEN else name: value for name, value in part.options}
