"""The runner: what is asked for becomes cells, their missing work is done or only planned, and a bundle is written."""

from __future__ import annotations

import json
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from solverbench import batches, bundle, cells, crews, estimates, jobs, judging, lessons, sampling, tested
from solverbench.batches import AUTO
from solverbench.cells import CACHED, DONE, FAILED, NEEDS_TRAINING, SAMPLES, UNSUPPORTED, Cell, Protocol
from solverbench.clusters import Ray
from solverbench.engine import finish
from solverbench.errors import UserError
from solverbench.judging import Judging
from solverbench.outcome import Outcome
from solverbench.prefixes import Tree
from solverbench.progress import Listener, Silent, duration
from solverbench.solver import Solver
from solverbench.store import Store
from solverbench.teachers import Teacher

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
        return bundle.counts(self.cells)

    @property
    def exit_code(self) -> int:
        """0 if every cell is done, cached, unsupported or untrained; 1 if some failed; 3 if none could be run."""
        if self.counts[FAILED]:
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
        lines += bundle.one_method([each.cell for each in self.cells])
        return "\n".join([*lines, *_lacking(self.cells), f"{bundle.several(self.cells)}: {_counted(self.counts)}"])


@dataclass(frozen=True, eq=False)
class PlannedCell:
    """What a run would do with a cell.

    Args:
        status: cached, new, partial (some blocks are stored), failed, unsupported, needs-training, or to-train, which
            is trained first.
        reason: why it can't be run, how it failed before, or what its training is.
        blocks_done: stored blocks.
        blocks_missing: blocks that a run would compute.
        calls: denoiser calls times images that they ask for, the teacher's own samples and exact solutions included,
            and the training.
        needed: its part of the calls that are made, as those that several cells ask for are made once.
        seconds: estimate for them on this machine with all workers; a rough one where there is a training.
    """

    cell: Cell
    status: str
    reason: str
    blocks_done: int
    blocks_missing: int
    calls: int
    needed: float
    seconds: float

    def as_dict(self) -> dict[str, Any]:
        """Return it as plain JSON values."""
        return {
            "teacher": self.cell.teacher.name,
            "solver": self.cell.solver,
            "spec": self.cell.spec,
            "nfe": self.cell.nfe,
            "cell": self.cell.address[:16],
            "status": self.status,
            "reason": self.reason,
            "blocks_done": self.blocks_done,
            "blocks_missing": self.blocks_missing,
            "calls": self.calls,
            "calls_needed": self.needed,
            "seconds": self.seconds,
        }


@dataclass(frozen=True, eq=False)
class RunPlan:
    """What a run would do, in order.

    Args:
        asked: calls for an image of each cell with something to do.
        needed: those of them that are made: cells that begin alike share their first calls.
    """

    cells: list[PlannedCell]
    asked: int
    needed: int

    @property
    def seconds(self) -> float:
        """The estimate for all of it."""
        return sum(each.seconds for each in self.cells)

    def as_dict(self) -> dict[str, Any]:
        """Return the plan as plain JSON values."""
        cells = [each.as_dict() for each in self.cells]
        return {"cells": cells, "calls_asked": self.asked, "calls_needed": self.needed, "seconds": self.seconds}

    def summary(self) -> str:
        """Return lines for people: one per cell, then the sum."""
        table = [("cell", "status", "blocks to do", "estimate", "")]
        for each in self.cells:
            blocks = (
                f"{each.blocks_missing} of {each.blocks_done + each.blocks_missing}" if each.blocks_missing else "-"
            )
            time_needed = duration(each.seconds) if each.blocks_missing else "-"
            table.append((str(each.cell), each.status, blocks, time_needed, each.reason))
        widths = [max(len(row[column]) for row in table) for column in range(4)]
        lines = ["  ".join([*(f"{text:<{w}}" for text, w in zip(row, widths, strict=False)), row[4]]) for row in table]
        lines += [*bundle.one_method([each.cell for each in self.cells]), *_lacking(self.cells)]
        counted = _counted(Counter(each.status for each in self.cells))
        total = f"{bundle.several(self.cells)}: {counted}; about {duration(self.seconds)} of work"
        if self.asked > self.needed:
            total += f"\ncalls for an image of each: {self.asked} asked, {self.needed} needed"
        return "\n".join([*(line.rstrip() for line in lines), total])


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
        reference, extractor, quantiser: what the images are judged by, as `Judging.of` takes them.
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
    lessons.check(train)
    if timeout_cell is not None and not timeout_cell > 0:
        raise UserError(f"timeout-cell {timeout_cell}: not a time; give seconds above 0")
    judged = Judging.of(metrics, reference, extractor, quantiser)
    samples, replicates = judging.protocol(protocol, samples, replicates, SAMPLES)
    settled = Protocol.of(samples, replicates, seeds, _number(batch), full, exact, judged)
    wanted = cells.resolve(solvers, nfe, teachers, settled, Path(out), sampling.check_device(device))
    hired = _crew(engine, device, workers, ray_address, gpus_per_worker)
    store, tell = Store.open(out), progress or Silent()
    former = [f"{store.root}: {FORMER}"] if store.former() else []
    for line in [*former, *tested.newer(torch.__version__), *judging.lacking(_teachers(wanted))]:
        tell.note(line)
    if batch == AUTO:
        settled, wanted = _fitted(settled, wanted, store.root, tell.note)
    try:
        with hired as crew:
            if train:
                wanted = lessons.learn(wanted, store.root, device, tell)
            cells.check_possible(wanted)
            outcomes = finish(jobs.gather(wanted, store), store, crew, tell, timeout_cell)
    finally:
        tell.end()
    seconds = time.monotonic() - begun
    frame = bundle.frame(outcomes)
    folder = bundle.write(
        store.root, outcomes, settled, device=device, seconds=seconds, command=command, train=train, table=frame
    )
    return RunResult(frame, outcomes, folder)


def _number(batch: int | str | None) -> int | None:
    if batch is None or batch == AUTO:
        return None
    try:
        return int(batch)
    except ValueError:
        raise UserError(f"batch {batch!r}: neither a number of images nor {AUTO}; give {sampling.BATCH}, say") from None


def _fitted(
    protocol: Protocol, wanted: list[Cell], out: Path, say: Callable[[str], None] | None
) -> tuple[Protocol, list[Cell]]:
    """Protocol and cells with the batch that fits their teachers here; kept in `out` if somebody is told."""
    keep, tell = say is not None, say or (lambda line: None)
    found = batches.chosen(_teachers(wanted), protocol.block, out, keep=keep, say=tell)
    fitted = replace(protocol, batch=found)
    return fitted, [replace(cell, protocol=fitted) for cell in wanted]


def _crew(
    engine: str, device: str, workers: int | None, ray_address: str | None, gpus_per_worker: float | None
) -> crews.Crew:
    if engine == "ray":
        return Ray(device, workers, ray_address, gpus_per_worker)
    if engine != "local":
        raise UserError(f"engine {engine!r}: no such engine; use local or ray")
    if ray_address is not None or gpus_per_worker is not None:
        raise UserError("engine 'local': takes no ray-address or gpus-per-worker; give --engine ray with them")
    return crews.Local(device, workers)


def plan(
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
) -> RunPlan:
    """Return what `run` with the same arguments would do, and for how long; writes nothing.

    The time is extrapolated from stored cells of the same teacher, or from a few calls of the denoiser made here.

    Raises:
        UserError, MissingError, StoreError, RecordError: as `run` does.
    """
    lessons.check(train)
    judged = Judging.of(metrics, reference, extractor, quantiser)
    samples, replicates = judging.protocol(protocol, samples, replicates, SAMPLES)
    settled = Protocol.of(samples, replicates, seeds, _number(batch), full, exact, judged)
    wanted = cells.resolve(solvers, nfe, teachers, settled, Path(out), sampling.check_device(device))
    if batch == AUTO:
        settled, wanted = _fitted(settled, wanted, Path(out), None)
    todo = jobs.gather(wanted, Store.look(out))
    count = workers or sampling.worker_count(device)
    slow: dict[tuple[str, int], float] = {}
    claimed: set[Path] = set()
    planned: dict[jobs.Job, PlannedCell] = {}
    for job in todo:
        if train and (lesson := lessons.lesson(job.cell, Path(out), claimed)) is not None:
            teacher = job.cell.teacher
            batches = (teacher.name, lesson.recipe.batch)
            if batches not in slow:
                slow[batches] = estimates.probe(teacher, lesson.recipe.batch)
            planned[job] = _to_train(job.cell, lesson, slow[batches], count)
    work = jobs.units(job for job in todo if job not in planned)
    needed: defaultdict[jobs.Job, float] = defaultdict(float)
    pace: dict[Teacher, float] = {}
    for unit in work:
        if unit.teacher not in pace:
            found = estimates.stored_pace(todo, unit.teacher)
            pace[unit.teacher] = estimates.probe(unit.teacher, settled.batch) if found is None else found
        for job, share in zip(unit.jobs, unit.shares(), strict=True):
            needed[job] += share
    for job in todo:
        if job not in planned:
            total = len(settled.blocks) if job.cell.plan else 0
            counts = total - len(job.calls), len(job.calls), sum(job.calls.values()) + sum(job.goal_calls.values())
            seconds = needed[job] * pace.get(job.cell.teacher, 0.0) / count
            planned[job] = PlannedCell(job.cell, job.status, job.reason, *counts, needed[job], seconds)
    return RunPlan([planned[job] for job in todo], *_calls(work))


def _calls(work: Sequence[jobs.Unit]) -> tuple[int, int]:
    """Calls for an image of each cell with anything to do, as the cells ask for them and as they are needed."""
    trees: dict[tuple[jobs.Job, ...], Tree] = {}
    for unit in work:
        trees.setdefault(unit.jobs, unit.tree)
    return sum(tree.asked for tree in trees.values()), sum(tree.needed for tree in trees.values())


def _to_train(cell: Cell, lesson: lessons.Lesson, pace: float, count: int) -> PlannedCell:
    """What a run would do with a cell that it trains first: one worker trains, all of them sample."""
    sampling_calls = len(cell.protocol.seeds) * cell.nfe
    alone = (lesson.calls - lesson.teacher_calls) * pace
    together = (lesson.teacher_calls + sampling_calls) * pace / count
    reason = f"{lesson.text}, about {duration(alone)}"
    blocks, calls = len(cell.protocol.blocks), lesson.calls + sampling_calls
    return PlannedCell(cell, "to-train", reason, 0, blocks, calls, calls, alone + together)


def _lacking(cells: Iterable[Outcome | PlannedCell]) -> list[str]:
    return judging.lacking(_teachers(each.cell for each in cells))


def _teachers(cells: Iterable[Cell]) -> list[Teacher]:
    return list({cell.teacher.name: cell.teacher for cell in cells}.values())


def _counted(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {status}" for status, count in counts.items() if count)


def table(**selection: Any) -> pd.DataFrame:
    """Return the tidy table of a run, one row per cell and metric; takes the arguments of `run`, by name.

    The frame's `attrs["record"]` is the bundle's record: labels, protocol, verdicts.
    """
    result = run(**selection)
    result.frame.attrs["record"] = json.loads((result.folder / "bundle.json").read_text(encoding="utf-8"))
    return result.frame
