"""The plan of a run: what it would compute and how long that would take."""

from __future__ import annotations

import dataclasses
import textwrap
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from solverbench import files
from solverbench.bench import estimates, reference, resolve, train_missing
from solverbench.bench import work as jobs
from solverbench.bench.autobatch import _fitted
from solverbench.bench.bundle import notes
from solverbench.bench.cells import Cell, Need, lacking
from solverbench.bench.outcome import Outcome
from solverbench.bench.pilot import detect as detect_
from solverbench.bench.pilot.detect import Detection
from solverbench.bench.pilot.stored import of_report, of_store
from solverbench.bench.progress import duration
from solverbench.bench.protocol import Protocol
from solverbench.bench.run_options import AUTO, RunOptions
from solverbench.learned.searches import search
from solverbench.method.prefixes import Tree
from solverbench.sampling import devices
from solverbench.sampling.sample import BATCH
from solverbench.store.folder import Store
from solverbench.teachers.teacher import Teacher
from solverbench.wording import printable, wrapped

PILOT = (1000, 3)
"""Images per replicate and replicates of a pilot."""


@dataclass(frozen=True, eq=False)
class PlannedCell:
    """The planned work on one cell.

    Args:
        status: cached, new, partial (some blocks are stored), failed, unsupported, needs-training, or to-train or
            to-search (the run trains it, or searches its grid, first).
        reason: why it can't be run, how it failed before, or a description of its training.
        blocks_done: number of stored blocks.
        blocks_missing: number of blocks that a run would compute.
        calls: denoiser calls times images for the missing blocks, including the teacher's own samples, exact solutions
            and the training.
        needed: its share of the calls that are made, as calls shared by several cells are made once.
        seconds: estimated time on this machine with all workers; rough if there is a training.
        own: the part of `calls` for the teacher's own samples and exact solutions, which its other cells use, too.
    """

    cell: Cell
    status: str
    reason: str
    blocks_done: int
    blocks_missing: int
    calls: int
    needed: float
    seconds: float
    own: int = 0

    @property
    def remark(self) -> str:
        """What there is to say about it: the reason, or that its time holds what others use."""
        return self.reason or ("includes the teacher's own samples, which all rows use" if self.own else "")

    def as_dict(self) -> dict[str, Any]:
        """Return the planned cell as plain JSON values."""
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
            "calls_of_teacher": self.own,
            "seconds": self.seconds,
        }


@dataclass(frozen=True)
class PlannedReference:
    """The planned work to measure the error of a teacher's reference.

    Args:
        teacher: name of the teacher.
        images: number of images that are compared.
        calls: denoiser calls times images that are missing; 0 if the error is known.
        seconds: estimated time on this machine with all workers.
        error: the error if it is known: RMSE on [-1, 1].
        shown: what the teacher is called in the line.
    """

    teacher: str
    images: int
    calls: int
    seconds: float
    error: float | None
    shown: str

    @property
    def line(self) -> str:
        """A human-readable line; empty if nothing is missing."""
        if not self.calls:
            return ""
        return (
            f"error of the reference of {self.shown}: measured on {self.images} images, {self.calls} calls, about "
            f"{duration(self.seconds)}"
        )


@dataclass(frozen=True, eq=False)
class RunPlan:
    """The planned work of a run.

    Args:
        cells: the planned cells, in order.
        asked: calls for one image of each cell with missing blocks, if each cell ran alone.
        needed: calls that are made for these images, as cells with equal first calls share them.
        references: measurements of the references' errors, each with the calls that are missing and their time.
        detection: how many images tell solvers apart; None if that wasn't asked for.
    """

    cells: list[PlannedCell]
    asked: int
    needed: int
    references: Sequence[PlannedReference] = ()
    detection: Detection | None = None

    @property
    def seconds(self) -> float:
        """The estimated time of the whole run."""
        return sum(each.seconds for each in self.cells) + sum(each.seconds for each in self.references)

    def as_dict(self) -> dict[str, Any]:
        """Return the plan as plain JSON values."""
        cells = [each.as_dict() for each in self.cells]
        references = [dataclasses.asdict(each) for each in self.references]
        calls = {"calls_asked": self.asked, "calls_needed": self.needed}
        detect = {} if self.detection is None else {"detect": self.detection.as_dict()}
        return {"cells": cells, "references": references, **calls, "seconds": self.seconds, **detect}

    def summary(self, width: int | None = None) -> str:
        """Return human-readable lines: one per cell, then the total.

        Args:
            width: characters in a line of the terminal; longer lines of cells are broken, never within a name or a
                spec. If None, no line is broken.
        """
        table = [("cell", "status", "blocks to do", "estimate", "remark")]
        for each in self.cells:
            blocks = (
                f"{each.blocks_missing} of {each.blocks_done + each.blocks_missing}" if each.blocks_missing else "-"
            )
            time_needed = duration(each.seconds) if each.blocks_missing else "-"
            table.append((str(each.cell), each.status, blocks, time_needed, each.remark))
        lines = [printable(line.rstrip()) for line in _aligned(table, width)]
        more = [*notes.one_method([each.cell for each in self.cells]), *_lacking(self.cells)]
        more += [each.line for each in self.references if each.line]
        counted = _counted(Counter(each.status for each in self.cells))
        more.append(f"{notes.several(self.cells)}: {counted}; about {duration(self.seconds)} of work")
        if self.asked > self.needed:
            more.append(
                f"network calls per image: {self.needed}, as solvers share equal first calls; "
                f"{self.asked} if each cell ran alone"
            )
        told = [] if self.detection is None else ["", *map(printable, self.detection.lines())]
        return "\n".join([*lines, *(each for line in more for each in wrapped(printable(line), width)), *told])


def _aligned(table: Sequence[Sequence[str]], width: int | None) -> Iterator[str]:
    """Yield the lines of a table whose last column is a free text.

    If its other columns don't fit into `width` characters, each row's name has a line of its own, and so has a text
    that doesn't fit behind its row.
    """
    widths = [max(len(row[column]) for row in table) for column in range(len(table[0]) - 1)]
    narrow = width is not None and sum(widths) + 2 * (len(widths) - 1) > width
    for *cells, text in table:
        padded = [f"{each:<{size}}" for each, size in zip(cells, widths, strict=True)]
        if narrow:
            yield padded[0]
        line = "    " * narrow + "  ".join(padded[narrow:])
        if width is None or len(line) + 2 + len(text) <= width or not text:
            yield f"{line}  {text}"
        else:
            yield line
            yield from textwrap.wrap(
                text, max(width, 40), initial_indent="    ", subsequent_indent="    ", break_on_hyphens=False,
                break_long_words=False,
            )  # fmt: skip


def plan(options: RunOptions, *, detect: str | float | None = None, power: float = detect_.POWER) -> RunPlan:
    """Return the work that `run` would do with the same options, with its estimated time; write nothing.

    The time is extrapolated from stored cells of the same teacher, or from a few probe calls of the denoiser.

    Args:
        detect: relative difference of a metric, such as "5%", that is to be told from 0: the plan then says how many
            images that takes, from the paired differences of stored cells.
        power: probability that the difference is found.

    Raises:
        UserError, MissingError, StoreError, RecordError: as `run` does.
    """
    train_missing.check(options.train)
    difference, power = None if detect is None else detect_.parse(str(detect)), detect_.check_power(power)
    protocol, out = Protocol.of(options), Path(options.out)
    if not out.exists():  # one that exists may be shown although it is read-only
        files.check_writable(out)
    wanted = resolve.resolve(options, protocol, keep=False)
    if options.batch == AUTO:
        protocol, wanted = _fitted(protocol, wanted, out, None)
    todo = jobs.gather(wanted, Store.look(out))
    count = options.workers or devices.worker_count(options.device)
    slow: dict[tuple[str, int], float] = {}
    claimed: set[Path] = set()
    planned: dict[jobs.CellProgress, PlannedCell] = {}
    searches: set[str] = set()
    for job in todo:
        if job.cell.needs is not None:
            planned[job] = _to_search(job.cell, job.cell.needs, searches, count)
        elif options.train and (training := train_missing.estimate(job.cell, out, claimed)) is not None:
            teacher = job.cell.teacher
            batches = (teacher.name, training.recipe.batch)
            if batches not in slow:
                slow[batches] = estimates.probe(teacher, training.recipe.batch)
            planned[job] = _to_train(job.cell, training, slow[batches], count)
    work = jobs.units(job for job in todo if job not in planned)
    needed: defaultdict[jobs.CellProgress, float] = defaultdict(float)
    pace: dict[Teacher, float] = {}
    for unit in work:
        if unit.teacher not in pace:
            pace[unit.teacher] = estimates.pace(todo, unit.teacher, protocol)
        for job, share in zip(unit.jobs, unit.shares(), strict=True):
            needed[job] += share
    for job in todo:
        if job not in planned:
            total = len(protocol.blocks) if job.cell.plan else 0
            own = sum(job.goal_calls.values())
            counts = total - len(job.calls), len(job.calls), sum(job.calls.values()) + own
            seconds = needed[job] * pace.get(job.cell.teacher, 0.0) / count
            planned[job] = PlannedCell(job.cell, job.status, job.reason, *counts, needed[job], seconds, own)
    references = list(_references(reference.tasks(wanted, out), todo, pace, protocol.batch, count))
    detection = None if difference is None else _detection(wanted, protocol, options, difference, power)
    return RunPlan([planned[job] for job in todo], *_calls(work), references, detection)


def detected(folder: Path, detect: str | float, power: float = detect_.POWER) -> Detection:
    """Return how many images tell the solvers of a finished run apart, from its report's folder.

    Raises:
        UserError: a bad difference or power, or a folder without a report's files.
    """
    difference, power = detect_.parse(str(detect)), detect_.check_power(power)
    pilots = of_report(folder)
    asked = _solvers((each.teacher, each.nfe, each.solver) for each in pilots)
    return detect_.detection(pilots, asked, difference, power, lambda nfe: "solverbench run with more than one solver")


def _solvers(cells: Iterable[tuple[str, int, str]]) -> dict[tuple[str, int], int]:
    """Return the number of different solvers at each (teacher, number of calls), in the order of the cells."""
    found: dict[tuple[str, int], set[str]] = {}
    for teacher, nfe, solver in cells:
        found.setdefault((teacher, nfe), set()).add(solver)
    return {place: len(solvers) for place, solvers in found.items()}


def _detection(
    cells: Sequence[Cell], protocol: Protocol, options: RunOptions, difference: float, power: float
) -> Detection:
    planned = [cell for cell in cells if cell.plan is not None]
    asked = _solvers((cell.teacher.name, cell.nfe, detect_.untrained(cell.solver)) for cell in planned)
    small = dataclasses.replace(options, samples=PILOT[0], replicates=PILOT[1], seeds=None, protocol=None)
    return detect_.detection(
        list(of_store(Path(options.out), cells)), asked, difference, power,
        lambda nfe: dataclasses.replace(small, nfe=nfe).command(), protocol.samples, protocol.paired,
    )  # fmt: skip


def _references(
    tasks: Iterable[reference.ReferenceTask],
    todo: Sequence[jobs.CellProgress],
    pace: Mapping[Teacher, float],
    batch: int,
    count: int,
) -> Iterator[PlannedReference]:
    for task in tasks:
        calls, teacher = sum(task.calls.values()), task.measurement.teacher
        known = pace.get(teacher) or estimates.stored_pace(todo, teacher) if calls else 0.0
        each = estimates.probe(teacher, batch) if known is None else known
        error = task.found.error if task.found is not None else None
        yield PlannedReference(task.name, task.images, calls, calls * each / count, error, teacher.shown)


def _calls(work: Sequence[jobs.Unit]) -> tuple[int, int]:
    """Return the calls for one image of each cell with missing blocks: if each ran alone, and as they are shared."""
    trees: dict[tuple[jobs.CellProgress, ...], Tree] = {}
    for unit in work:
        trees.setdefault(unit.jobs, unit.tree)
    return sum(tree.asked for tree in trees.values()), sum(tree.needed for tree in trees.values())


def _to_train(cell: Cell, training: train_missing.TrainingEstimate, pace: float, count: int) -> PlannedCell:
    """Return the plan of a cell that is trained first: one worker trains, all workers sample."""
    sampling_calls = len(cell.protocol.seeds) * cell.nfe
    alone = (training.calls - training.teacher_calls) * pace
    together = (training.teacher_calls + sampling_calls) * pace / count
    reason = f"{training.text}, about {duration(alone)}"
    blocks, calls = len(cell.protocol.blocks), training.calls + sampling_calls
    return PlannedCell(cell, "to-train", reason, 0, blocks, calls, calls, alone + together)


def _to_search(cell: Cell, needs: Need, known: set[str], count: int) -> PlannedCell:
    """Return the plan of a cell whose grid is searched first, by one worker; a search of several cells counts once.

    Args:
        known: searches of earlier cells; this one's is added.
    """
    name = f"{cell.teacher.name} {files.digest([needs.name, dict(needs.given), needs.name == 'dmn' and needs.steps])}"
    spent = 0 if name in known else search.cost(needs.name, needs.steps, needs.given)
    known.add(name)
    pace, sampling = estimates.probe(cell.teacher, BATCH), len(cell.protocol.seeds) * cell.nfe
    reason = f"its grid is searched first, {spent} network calls" if spent else "its grid is searched first"
    calls, blocks = spent + sampling, len(cell.protocol.blocks)
    return PlannedCell(cell, "to-search", reason, 0, blocks, calls, calls, pace * (spent + sampling / count))


def _lacking(cells: Iterable[Outcome | PlannedCell]) -> list[str]:
    return lacking(each.cell for each in cells)


def _counted(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {status}" for status, count in counts.items() if count)
