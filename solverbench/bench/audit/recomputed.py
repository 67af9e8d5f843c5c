"""Metrics of a stored cell, computed again from its blocks and compared with those that are stored."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from solverbench import seeds
from solverbench.bench import statistics
from solverbench.bench.cells import Cell
from solverbench.bench.measure import Measure, measure
from solverbench.metrics import table
from solverbench.metrics.intervals import half_width, within
from solverbench.metrics.reduction import BLOCKS, Kept
from solverbench.metrics.table import Takes
from solverbench.store import agreement
from solverbench.store.folder import BlockResult, CellFolder

RELATIVE, ABSOLUTE = 1e-5, 1e-7
"""Largest difference between a stored number and the one computed again from the same blocks on another processor."""

NUMBERS = ("value", "std_error", "low", "high", "n", "replicates", "leave_one_out")
"""The entries of a metric that are compared within `RELATIVE` and `ABSOLUTE`; the other ones are compared exactly."""


def blocks(key: Mapping[str, Any]) -> list[range]:
    """Return the seed blocks of a key, which has been checked."""
    whole, size = seeds.parse(key["seeds"]), key["block"]
    return [whole[begin : begin + size] for begin in range(0, len(whole), size)]


def differences(cell: Cell, stored: Mapping[str, Any], found: Sequence[BlockResult]) -> list[str]:
    """Return one line for each number in metrics.json that doesn't follow from the blocks.

    Args:
        stored: content of metrics.json, which has been checked.
        found: all blocks of the cell, in order.
    """
    again = measure(cell, found)
    lines = [] if stored["nfe"] == cell.nfe else [f"nfe is {stored['nfe']}, but the cell has {cell.nfe}"]
    lines += [f"a block counted {block.nfe} calls, not {cell.nfe}" for block in found if block.nfe != cell.nfe][:1]
    for name, each in stored["measures"].items():
        if name in again.found:
            lines += _unlike(name, each, _as_then(again.found[name], each))
        elif name in again.failed:
            lines.append(f"{name} can't be computed from its blocks ({again.failed[name]})")
        else:
            lines.append(f"{name} isn't among the metrics that its key asks for")
    lines += [f"{name} is missing" for name in again.found if name not in stored["measures"]]
    images = stored.get(statistics.NAME)
    if images and not agreement.values(
        images, statistics.summary([block.arrays for block in found]), RELATIVE, ABSOLUTE
    ):
        lines.append("the statistics of its images don't follow from its blocks")
    return lines


def _as_then(found: Measure, stored: Mapping[str, Any]) -> dict[str, Any]:
    """Return a metric's numbers, with Student's interval, cut or not, if the stored one is that of earlier versions."""
    now, half = found.as_dict(), half_width(found.leave_one_out)
    for ends in ((found.value - half, found.value + half), within(found.value, half, found.bounds)):
        if agreement.values([stored.get("low"), stored.get("high")], list(ends), RELATIVE, ABSOLUTE):
            return now | {"low": ends[0], "high": ends[1]}
    return now


def parts(stored: Mapping[str, Any], found: Sequence[BlockResult]) -> tuple[list[str], list[str]]:
    """Return `differences` for metrics that need neither teacher nor reference, and the names of the other ones."""
    replicates = [found[begin : begin + BLOCKS] for begin in range(0, len(found), BLOCKS)]
    kept = Kept(replicates, None, "cpu")
    lines, others = list[str](), list[str]()
    for name, each in stored["measures"].items():
        metric = table.TABLE.get(name)
        if metric is None or metric.takes is Takes.FEATURES or any(metric.array not in b.arrays for b in found):
            others.append(name)
            continue
        values, left = metric.reduce(kept)
        lines += _unlike(
            name,
            {part: each[part] for part in ("value", "replicates", "leave_one_out")},
            {"value": float(values.mean()), "replicates": values.tolist(), "leave_one_out": left.tolist()},
        )
    return lines, others


def whole(folder: CellFolder, key: Mapping[str, Any]) -> list[BlockResult] | None:
    """Return all blocks of a cell; None if some are missing.

    Raises:
        RecordError: a block is damaged.
    """
    wanted = blocks(key)
    if not all(folder.has_block(block) for block in wanted):
        return None
    return [folder.read_block(block) for block in wanted]


def _unlike(name: str, stored: Mapping[str, Any], again: Mapping[str, Any]) -> Iterator[str]:
    """Yield a line if two results of a metric differ; the first difference stands for all."""
    for part in dict.fromkeys((*again, *stored)):
        if part not in stored or part not in again:
            yield f"{name}: {part} is {'missing' if part in again else 'not among its numbers'}"
            return
        if part in NUMBERS and agreement.values(stored[part], again[part], RELATIVE, ABSOLUTE):
            continue
        if part not in NUMBERS and stored[part] == again[part]:
            continue
        yield f"{name}: {part} is {_short(stored[part])}, but its blocks give {_short(again[part])}"
        return


def _short(value: Any) -> str:
    if isinstance(value, (int, float)):
        return f"{value:.6g}"
    if isinstance(value, list):
        flat = np.asarray(value, dtype=np.float64).ravel()
        return f"[{', '.join(f'{each:.4g}' for each in flat[:3])}{', …' if flat.size > 3 else ''}]"
    return repr(value) if len(repr(value)) < 80 else f"{repr(value)[:80]}…"
