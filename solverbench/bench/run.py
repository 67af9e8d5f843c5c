"""The runner: what is asked for becomes cells, their missing work is done or only planned, and a bundle is written."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from solverbench import tested
from solverbench.bench import resolve, train_missing
from solverbench.bench import work as jobs
from solverbench.bench.autobatch import AUTO, _fitted, _number
from solverbench.bench.bundle import notes, table, write
from solverbench.bench.cells import CACHED, DONE, FAILED, NEEDS_TRAINING, UNSUPPORTED, lacking
from solverbench.bench.outcome import Outcome
from solverbench.bench.plan import _counted, _lacking
from solverbench.bench.progress import Listener, Silent
from solverbench.bench.protocol import SAMPLES, Protocol
from solverbench.bench.scheduler import finish
from solverbench.bench.workers import local
from solverbench.bench.workers.ray import RayWorkers
from solverbench.errors import UserError
from solverbench.evaluation import selection as judging
from solverbench.evaluation.selection import MetricSelection
from solverbench.method.solver import Solver
from solverbench.sampling import devices
from solverbench.store.folder import Store
from solverbench.teachers.teacher import Teacher

FORMER = (
    "holds cells of an earlier version, which aren't reused: what they were asked for is computed again; 'solverbench "
    "store gc --cells' removes those that no report shows"
)


@dataclass(frozen=True, eq=False)
class RunResult:
    """What a run leaves.

    Args:
        frame: the tidy table, one row per cell and metric; the columns of results.csv.
        cells: one outcome per requested cell, in order.
        folder: the bundle that the report is drawn from.
    """

    frame: pd.DataFrame
    cells: list[Outcome]
    folder: Path

    @property
    def counts(self) -> dict[str, int]:
        """How many cells have each status; they add up to all."""
        return notes.counts(self.cells)

    @property
    def exit_code(self) -> int:
        """0 if every cell is done, cached, unsupported or untrained; 1 if a cell or a metric failed; 3 if none ran."""
        if self.counts[FAILED] or any(each.failed for each in self.cells):
            return 1
        return 0 if self.counts[DONE] + self.counts[CACHED] else 3

    @property
    def strict_exit_code(self) -> int:
        """5 where `exit_code` is 0 although a cell is unsupported or untrained, or lacks a metric."""
        short = self.counts[UNSUPPORTED] + self.counts[NEEDS_TRAINING] + len(_lacking(self.cells))
        return self.exit_code or (5 if short else 0)

    def summary(self) -> str:
        """Return lines for people: each cell or metric without a value and why, then how many have each status."""
        lines = [f"{each.cell}: {each.status}, {each.reason}" for each in self.cells if each.reason]
        lines += [f"no {name} of {each.cell}: {why}" for each in self.cells for name, why in each.failed.items()]
        lines += notes.one_method([each.cell for each in self.cells])
        return "\n".join([*lines, *_lacking(self.cells), f"{notes.several(self.cells)}: {_counted(self.counts)}"])


def run(
    *,
    solvers: str | Solver | Sequence[str | Solver],
    nfe: str | int | Sequence[int] = "3-10",
    teachers: str | Teacher | Sequence[str | Teacher] = "digits",
    out: str | Path = "runs",
    samples: int | None = None,
    replicates: int | None = None,
    seeds: range | str | None = None,
    device: str = "cpu",
    batch: int | str | None = None,
    full: bool = False,
    exact: bool | None = None,
    train: str | None = None,
    metrics: str | Sequence[str] | None = None,
    reference: str | None = None,
    extractor: str | None = None,
    quantiser: str | None = None,
    protocol: str | None = None,
    workers: int | None = None,
    timeout_cell: float | None = None,
    engine: str = "local",
    ray_address: str | None = None,
    gpus_per_worker: float | None = None,
    progress: Listener | None = None,
    command: str | None = None,
) -> RunResult:
    """Return the results of every cell asked for: stored ones as they are, missing ones computed and stored.

    Args:
        solvers: specs joined with commas, or a list of specs and Solvers.
        nfe: denoiser calls: `3-10`, `3,5,8`, `4-10:2`, or numbers.
        teachers: names joined with commas, or a list of names and Teachers.
        out: the results folder, made if it isn't there.
        samples: images per replicate, a multiple of 10; those of the protocol, or 10 000, if None.
        replicates: 3 if neither this nor `seeds` says.
        seeds: of the images, both ends included in `FIRST-LAST`; from 50000 if None.
        device: cpu, cuda or cuda:0.
        batch: images per denoiser call, or `auto`, see `batches.chosen`; another batch makes other cells.
        full: compare every image with the teacher's own instead of the first 2000 of each replicate.
        exact: compare 1000 images of each replicate with the exact solution of the teacher's ODE: the metric
            `rmse_exact`; on teachers where that is cheap if None.
        train: "missing": learned solvers without parameters are trained first, by their recipes; if None, their cells
            need training.
        metrics: names joined with commas, or a list; the teacher's own if None.
        reference, extractor, quantiser: what the images are judged by, as `MetricSelection.of` takes them.
        protocol: smoke, quick or paper: images and replicates where they aren't given.
        workers: as many units at once; one per core or GPU if None. It changes no result.
        engine: local, threads of this process, with `device` cuda on every visible GPU; or ray.
        ray_address, gpus_per_worker: as `clusters.Ray` takes them.
        timeout_cell: seconds after which a cell is given up as failed; looked at between batches. None: never.
        progress: told what happens, from this thread.
        command: as it was typed, for the report; rebuilt from the arguments if None.

    Raises:
        UserError: a mistake in what is asked, before anything is computed or written.
        MissingError: a teacher or device that isn't there.
        StoreError, RecordError: the folder can't be used; what was finished is kept.
        KeyboardInterrupt: finished blocks are kept, and the same call goes on from there.
    """
    begun = time.monotonic()
    train_missing.check(train)
    if timeout_cell is not None and not timeout_cell > 0:
        raise UserError(f"timeout-cell {timeout_cell}: not a time; give seconds above 0")
    judged = MetricSelection.of(metrics, reference, extractor, quantiser)
    samples, replicates = judging.protocol(protocol, samples, replicates, SAMPLES)
    settled = Protocol.of(samples, replicates, seeds, _number(batch), full, exact, judged)
    wanted = resolve.resolve(solvers, nfe, teachers, settled, Path(out), devices.check_device(device))
    team = _workers(engine, device, workers, ray_address, gpus_per_worker)
    store, tell = Store.open(out), progress or Silent()
    former = [f"{store.root}: {FORMER}"] if store.former() else []
    for line in [*former, *tested.newer(torch.__version__), *lacking(wanted)]:
        tell.note(line)
    if batch == AUTO:
        settled, wanted = _fitted(settled, wanted, store.root, tell.note)
    try:
        with team:
            if train:
                wanted = train_missing.train_missing(wanted, store.root, device, tell)
            resolve.check_possible(wanted)
            outcomes = finish(jobs.gather(wanted, store), store, team, tell, timeout_cell)
    finally:
        tell.end()
    seconds = time.monotonic() - begun
    frame = table.frame(outcomes)
    folder = write.write(
        store.root, outcomes, settled, device=device, seconds=seconds, command=command, train=train, table=frame
    )
    return RunResult(frame, outcomes, folder)


def _workers(
    engine: str, device: str, workers: int | None, ray_address: str | None, gpus_per_worker: float | None
) -> local.Workers:
    if engine == "ray":
        return RayWorkers(device, workers, ray_address, gpus_per_worker)
    if engine != "local":
        raise UserError(f"engine {engine!r}: no such engine; use local or ray")
    if ray_address is not None or gpus_per_worker is not None:
        raise UserError("engine 'local': takes no ray-address or gpus-per-worker; give --engine ray with them")
    return local.LocalWorkers(device, workers)


def run_table(**selection: Any) -> pd.DataFrame:
    """Return the tidy table of a run, one row per cell and metric; takes the arguments of `run`, by name.

    The frame's `attrs["record"]` is the bundle's record: labels, protocol, verdicts.
    """
    result = run(**selection)
    result.frame.attrs["record"] = json.loads((result.folder / "bundle.json").read_text(encoding="utf-8"))
    return result.frame
