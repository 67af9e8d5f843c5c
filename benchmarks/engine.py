"""The engine's overhead per cell: planning, keys, leases, records; and the time to load a finished grid again.

python benchmarks/engine.py: two JSON lines. Cells of 30 blocks (the default), with one image per block and a network
that costs nothing, run one after the other. The time per cell is the engine's own, compared with a cell of ten
seconds. The references that all cells of a teacher share already exist.
"""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grid
import harness

from solverbench.bench import run as runner
from solverbench.bench.run_options import RunOptions

CELL = 10.0
"""Seconds of the cell that the engine's share refers to."""

MOST = 0.01
RESUMED = 1.0
"""Goal in seconds for loading a finished grid, in addition to reading the files."""


def measure(options: harness.Options) -> Iterator[harness.Line]:
    """Yield the figures."""
    with tempfile.TemporaryDirectory() as place:
        yield _cell(Path(place), options.pairs)
    with tempfile.TemporaryDirectory() as place:
        yield _resumed(Path(place), 2 if options.quick else 12, options.pairs)


def _cell(place: Path, pairs: int) -> harness.Line:
    numbers = itertools.count()
    asked: dict[str, Any] = {"teachers": grid.teacher(), "samples": 10, "replicates": 3, "workers": 1, "exact": False}

    def run(nfe: str) -> None:
        spec = f"dpm:order=3:grid=polynomial:rho={5 + next(numbers) / 1000:g}"
        runner.run(RunOptions(**asked, nfe=nfe, solvers=spec, out=place))

    run("4")
    times = harness.alternate({"alone": lambda: run("4"), "of_eight": lambda: run("3-10")}, pairs)
    alone, wall, one = (
        harness.Ratio([seconds / count / CELL for seconds in each])
        for each, count in ((times["alone"].cpu, 1), (times["alone"].wall, 1), (times["of_eight"].cpu, 8))
    )
    return {
        "benchmark": "engine", "case": "one cell of 30 blocks, done again", "seconds": times["alone"].as_dict(),
        "share_of_ten_seconds": alone.as_dict(), "goal": MOST, "verdict": alone.verdict(at_most=MOST),
        "share_wall": wall.as_dict(), "share_of_one_of_eight_cells": one.as_dict(),
        "verdict_of_one_of_eight_cells": one.verdict(at_most=MOST),
    }  # fmt: skip


def _resumed(place: Path, solvers: int, pairs: int) -> harness.Line:
    asked: dict[str, Any] = {"solvers": grid.solvers(solvers), "nfe": grid.BUDGETS, "teachers": grid.teacher()}
    asked |= {"samples": 10, "replicates": 3, "workers": 1, "exact": False, "out": place}
    runner.run(RunOptions(**asked))
    cells = 8 * solvers
    files = [path for path in place.rglob("*") if path.is_file()]

    def read() -> None:
        for path in files:
            path.read_bytes()

    times = harness.alternate({"run": lambda: runner.run(RunOptions(**asked)), "read": read}, pairs)
    beside = harness.Ratio([a - b for a, b in zip(times["run"].cpu, times["read"].cpu, strict=True)])
    return {
        "benchmark": "engine", "case": "a finished grid, run again", "cells": cells, "files": len(files),
        "seconds": times["run"].as_dict(), "seconds_beside_reading_all_files": beside.as_dict(),
        "goal": RESUMED, "verdict": beside.verdict(at_most=RESUMED),
    }  # fmt: skip


if __name__ == "__main__":
    harness.main(measure)
