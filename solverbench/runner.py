"""The runner: what is asked for becomes cells, their missing work is done or only planned, and a bundle is written."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from solverbench import bundle, cells, jobs, judging, lessons, sampling
from solverbench import seeds as image_seeds
from solverbench.cells import CACHED, DONE, FAILED, NEEDS_TRAINING, SAMPLES, UNSUPPORTED, Cell, Protocol
from solverbench.judging import Judging
from solverbench.outcome import Outcome
from solverbench.progress import Listener, Silent, duration
from solverbench.solver import Solver
from solverbench.store import Store
from solverbench.teachers import Teacher


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
        """5 where `exit_code` is 0 although a cell is unsupported or untrained."""
        return self.exit_code or (5 if self.counts[UNSUPPORTED] + self.counts[NEEDS_TRAINING] else 0)

    def summary(self) -> str:
        """Return lines for people: each cell without a value and why, then how many have each status."""
        lines = [f"{each.cell}: {each.status}, {each.reason}" for each in self.cells if each.reason]
        return "\n".join([*lines, f"{len(self.cells)} cells: {_counted(self.counts)}"])


@dataclass(frozen=True, eq=False)
class PlannedCell:
    """What a run would do with a cell.

    Args:
        status: cached, new, partial (some blocks are stored), failed, unsupported, needs-training, or to-train, which
            is trained first.
        reason: why it can't be run, how it failed before, or what its training is.
        blocks_done: stored blocks.
        blocks_missing: blocks that a run would compute.
        calls: denoiser calls times images that they cost, the teacher's own samples and exact solutions included, and
            the training.
        seconds: estimate for them on this machine with all workers; a rough one where there is a training.
    """

    cell: Cell
    status: str
    reason: str
    blocks_done: int
    blocks_missing: int
    calls: int
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
            "seconds": self.seconds,
        }


@dataclass(frozen=True, eq=False)
class RunPlan:
    """What a run would do, in order."""

    cells: list[PlannedCell]

    @property
    def seconds(self) -> float:
        """The estimate for all of it."""
        return sum(each.seconds for each in self.cells)

    def as_dict(self) -> dict[str, Any]:
        """Return the plan as plain JSON values."""
        return {"cells": [each.as_dict() for each in self.cells], "seconds": self.seconds}

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
        counted = _counted(Counter(each.status for each in self.cells))
        total = f"{len(self.cells)} cells: {counted}; about {duration(self.seconds)} of work"
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
    batch: int | None = None,
    full: bool = False,
    exact: bool | None = None,
    train: str | None = None,
    metrics: str | Sequence[str] | None = None,
    reference: str | None = None,
    extractor: str | None = None,
    quantiser: str | None = None,
    protocol: str | None = None,
    workers: int | None = None,
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
        batch: images per denoiser call; another batch makes other cells.
        full: compare every image with the teacher's own instead of the first 2000 of each replicate.
        exact: compare 1000 images of each replicate with the exact solution of the teacher's ODE: the metric
            `rmse_exact`; on teachers where that is cheap if None.
        train: "missing": learned solvers without parameters are trained first, by their recipes; if None, their cells
            need training.
        metrics: names joined with commas, or a list; the teacher's own if None.
        reference, extractor, quantiser: what the images are judged by, as `Judging.of` takes them.
        protocol: smoke, quick or paper: images and replicates where they aren't given.
        workers: threads; one per core on a CPU if None. It changes no result.
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
    judged = Judging.of(metrics, reference, extractor, quantiser)
    samples, replicates = judging.protocol(protocol, samples, replicates, SAMPLES)
    settled = Protocol.of(samples, replicates, seeds, batch, full, exact, judged)
    wanted = cells.resolve(solvers, nfe, teachers, settled, Path(out), sampling.check_device(device))
    store, tell = Store.open(out), progress or Silent()
    try:
        if train:
            jobs.gather(wanted, store)  # a damaged file is refused before any training, too
            wanted = lessons.learn(wanted, store.root, device, tell)
        todo = jobs.gather(wanted, store)
        outcomes = jobs.finish(todo, store, workers or sampling.worker_count(device), tell)
    finally:
        tell.end()
    seconds = time.monotonic() - begun
    frame = bundle.frame(outcomes)
    folder = bundle.write(
        store.root, outcomes, settled, device=device, seconds=seconds, command=command, train=train, table=frame
    )
    return RunResult(frame, outcomes, folder)


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
    batch: int | None = None,
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
    settled = Protocol.of(samples, replicates, seeds, batch, full, exact, judged)
    wanted = cells.resolve(solvers, nfe, teachers, settled, Path(out), sampling.check_device(device))
    todo = jobs.gather(wanted, Store.look(out))
    count = workers or sampling.worker_count(device)
    pace: dict[str, float] = {}
    slow: dict[tuple[str, int], float] = {}
    claimed: set[Path] = set()
    planned = []
    for job in todo:
        teacher = job.cell.teacher
        if train and (lesson := lessons.lesson(job.cell, Path(out), claimed)) is not None:
            batches = (teacher.name, lesson.recipe.batch)
            if batches not in slow:
                slow[batches] = probe(teacher, lesson.recipe.batch)
            planned.append(_to_train(job.cell, lesson, slow[batches], count))
            continue
        if job.calls and teacher.name not in pace:
            pace[teacher.name] = _stored_pace(todo, teacher) or probe(teacher, settled.batch)
        total = len(settled.blocks) if job.cell.plan else 0
        seconds = sum(job.calls.values()) * pace.get(teacher.name, 0.0) / count
        done = total - len(job.calls)
        planned.append(
            PlannedCell(job.cell, job.status, job.reason, done, len(job.calls), sum(job.calls.values()), seconds)
        )
    return RunPlan(planned)


def _to_train(cell: Cell, lesson: lessons.Lesson, pace: float, count: int) -> PlannedCell:
    """What a run would do with a cell that it trains first: one worker trains, all of them sample."""
    sampling_calls = len(cell.protocol.seeds) * cell.nfe
    alone = (lesson.calls - lesson.teacher_calls) * pace
    together = (lesson.teacher_calls + sampling_calls) * pace / count
    reason = f"{lesson.text}, about {duration(alone)}"
    blocks, calls = len(cell.protocol.blocks), lesson.calls + sampling_calls
    return PlannedCell(cell, "to-train", reason, 0, blocks, calls, alone + together)


def _stored_pace(todo: Iterable[jobs.Job], teacher: Teacher) -> float | None:
    """Seconds per image and call of the blocks that the store has of this teacher and device."""
    seconds = calls = 0.0
    for job in todo:
        if job.cell.teacher is teacher:
            for cost in job.timing["blocks"].values():
                seconds += cost["seconds"]
                calls += cost["images"] * job.cell.nfe
    return seconds / calls if calls else None


def probe(teacher: Teacher, batch: int) -> float:
    """Seconds per image and call, from three calls by one worker after one that warms up."""

    def measure_calls() -> float:
        x = image_seeds.noise(range(batch), teacher.shape).to(teacher.device)
        sigma = torch.tensor(1.0, dtype=torch.float64)
        with torch.no_grad():
            denoise = teacher.denoiser(range(batch))
            denoise(x, sigma)
            watch = sampling.Stopwatch(teacher.device)
            for _ in range(3):
                watch.watched(denoise)(x, sigma)
        return watch.seconds / (3 * batch)

    with sampling.pool(1) as threads:
        return threads.submit(measure_calls).result()


def _counted(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {status}" for status, count in counts.items() if count)


def table(**selection: Any) -> pd.DataFrame:
    """Return the tidy table of a run, one row per cell and metric; takes the arguments of `run`, by name.

    The frame's `attrs["record"]` is the bundle's record: labels, protocol, verdicts.
    """
    result = run(**selection)
    result.frame.attrs["record"] = json.loads((result.folder / "bundle.json").read_text(encoding="utf-8"))
    return result.frame
