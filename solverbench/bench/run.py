"""The runner: resolve the options to cells, compute what is missing, and write the report's bundle."""

from __future__ import annotations

import inspect
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from solverbench import tested
from solverbench.bench import reference, resolve, train_missing
from solverbench.bench import work as jobs
from solverbench.bench.autobatch import _fitted
from solverbench.bench.bundle import notes, numbers, table, write
from solverbench.bench.cells import CACHED, DONE, FAILED, NEEDS_TRAINING, UNSUPPORTED, lacking
from solverbench.bench.outcome import REFERENCE, Outcome
from solverbench.bench.own_samples import with_references
from solverbench.bench.plan import _counted, _lacking
from solverbench.bench.progress import Listener, Silent
from solverbench.bench.protocol import Protocol
from solverbench.bench.run_options import AUTO, RunOptions, declared
from solverbench.bench.scheduler import finish
from solverbench.bench.workers import local
from solverbench.bench.workers.ray import RayWorkers
from solverbench.errors import UserError
from solverbench.store.folder import Store
from solverbench.wording import printable

FORMER = (
    "holds cells of an earlier version, which aren't reused, so their results are computed again; 'solverbench "
    "store gc --cells' removes those that no report shows"
)


@dataclass(frozen=True, eq=False)
class RunResult:
    """The result of a run.

    Args:
        frame: tidy table, one row per cell and metric, with the columns of results.csv.
        cells: one outcome per requested cell, in order.
        folder: folder of the bundle that the report is drawn from.
    """

    frame: pd.DataFrame
    cells: list[Outcome]
    folder: Path

    @property
    def counts(self) -> dict[str, int]:
        """Number of cells of each status; they add up to all cells."""
        return notes.counts(self.cells)

    @property
    def exit_code(self) -> int:
        """0 if every cell is done, cached, unsupported or untrained; 1 if a cell or a metric failed; 3 if none ran."""
        if self.counts[FAILED] or any(each.failed or each.cell.measurement.broken for each in self.cells):
            return 1
        return 0 if self.counts[DONE] + self.counts[CACHED] else 3

    @property
    def strict_exit_code(self) -> int:
        """`exit_code`, or 5 in place of 0 if a cell is unsupported or untrained, or lacks a metric."""
        short = self.counts[UNSUPPORTED] + self.counts[NEEDS_TRAINING] + len(_lacking(self.cells))
        return self.exit_code or (5 if short else 0)

    @property
    def tables(self) -> list[numbers.Table]:
        """The values of all cells with their 95 % intervals: a table for each teacher and metric."""
        return numbers.tables(self.cells)

    def numbers(self) -> str:
        """Return `tables` in Markdown."""
        return "\n\n".join("\n".join(each.markdown()) for each in self.tables)

    def summary(self) -> str:
        """Return human-readable lines: cells and metrics without a value, with reasons, then a count per status."""
        lines = [f"{each.cell}: {each.status}, {each.reason}" for each in self.cells if each.reason]
        lines += [f"no {name} of {each.cell}: {why}" for each in self.cells for name, why in each.failed.items()]
        flagged = [each for each in self.cells if each.measures]
        lines += [
            f"{each.cell}: {code}, {why}"
            for each in flagged
            for code, why in each.flags().items()
            if code != REFERENCE  # all of them are in one sentence of the notes
        ]
        cells = [each.cell for each in self.cells]
        lines += [*notes.diverging(self.cells), *notes.one_method(cells)]
        lines += [*notes.side_by_side(cells), *notes.reference(self.cells)]
        lines += [*_lacking(self.cells), f"{notes.several(self.cells)}: {_counted(self.counts)}"]
        return "\n".join(map(printable, lines))


def run(options: RunOptions, *, progress: Listener | None = None, command: str | None = None) -> RunResult:
    """Return the results of every requested cell; read the stored ones, compute and store the missing ones.

    Args:
        progress: listener, called from this thread.
        command: command line as typed, for the report; rebuilt from the options if None.

    Raises:
        UserError: invalid options; raised before anything is computed or written.
        MissingError: a teacher or device that isn't available.
        StoreError, RecordError: the folder can't be used; finished blocks are kept.
        KeyboardInterrupt: finished blocks are kept, and the same call resumes from them.
    """
    begun = time.monotonic()
    train_missing.check(options.train)
    if options.timeout_cell is not None and not options.timeout_cell > 0:
        raise UserError(asked=f"timeout-cell {options.timeout_cell}", wrong="not a time", remedy="give seconds above 0")
    protocol = Protocol.of(options)
    wanted = resolve.resolve(options, protocol)
    team = _workers(options)
    if not options.train:
        resolve.check_possible(wanted)
    store, tell = Store.open(options.out), progress or Silent()
    former = [f"{store.root}: {FORMER}"] if store.former() else []
    for line in [*former, *tested.newer(torch.__version__)]:
        tell.note(line)
    wanted = with_references(wanted, store.root, tell)
    for line in lacking(wanted):
        tell.note(line)
    if options.batch == AUTO:
        protocol, wanted = _fitted(protocol, wanted, store.root, tell.note)
    for line in train_missing.reused(wanted):
        tell.say(line)
    try:
        with team:
            wanted = train_missing.search_missing(wanted, store.root, tell)
            if options.train:
                wanted = train_missing.train_missing(wanted, store.root, options.device, tell)
                resolve.check_possible(wanted)
            outcomes = finish(
                jobs.gather(wanted, store), store, team, tell, options.timeout_cell, reference.tasks(wanted, store.root)
            )
    finally:
        tell.end()
    seconds = time.monotonic() - begun
    frame = table.frame(outcomes)
    folder = write.write(outcomes, protocol, options, seconds=seconds, command=command, table=frame)
    return RunResult(frame, outcomes, folder)


def _workers(options: RunOptions) -> local.Workers:
    if options.engine == "ray":
        return RayWorkers(options.device, options.workers, options.ray_address, options.gpus_per_worker)
    if options.engine != "local":
        raise UserError(asked=f"engine {options.engine!r}", wrong="no such engine", remedy="use local or ray")
    if options.ray_address is not None or options.gpus_per_worker is not None:
        raise UserError(
            asked="engine 'local'",
            wrong="takes no ray-address or gpus-per-worker",
            remedy="give --engine ray with them",
        )
    return local.LocalWorkers(options.device, options.workers)


def run_table(*, progress: Listener | None = None, command: str | None = None, **options: Any) -> pd.DataFrame:
    """Return the tidy table of a run, one row per cell and metric.

    The frame's `attrs["record"]` is the bundle's record, with labels, protocol and verdicts.
    """
    result = run(RunOptions(**options), progress=progress, command=command)
    result.frame.attrs["record"] = json.loads((result.folder / "bundle.json").read_text(encoding="utf-8"))
    return result.frame


def _sign(function: Callable[..., Any]) -> None:
    """Add the options of a run to the signature and docstring of `function`, for `help` and completion."""
    own = inspect.signature(function)
    options = inspect.signature(RunOptions).parameters.values()
    named = [each for each in own.parameters.values() if each.kind is not inspect.Parameter.VAR_KEYWORD]
    function.__signature__ = own.replace(parameters=[*options, *named])  # type: ignore[attr-defined]
    lines = [f"    {name}: {option.about}" for name, option in declared().items()]
    lines += ["    progress: a `Listener`, told what happens.", "    command: what the report says was typed."]
    function.__doc__ = "\n".join([inspect.cleandoc(function.__doc__ or ""), "", "Args:", *lines])


_sign(run_table)
