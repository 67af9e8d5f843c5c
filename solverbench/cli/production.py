"""Makes the package's trained solvers: `python -m solverbench.cli.production --teacher NAME --out DIR`.

Every (solver, calls, training seed) is one run in its own process, because a run is too small to fill a device.
Finished runs are kept: start it again to resume.
"""

from __future__ import annotations

import csv
import math
import multiprocessing
import os
import sys
import tarfile
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, replace
from pathlib import Path

import click
import torch

from solverbench import files, plugins
from solverbench.cli.flags import plugin_option
from solverbench.errors import SpecError, UserError
from solverbench.learned import recipes, trained_files
from solverbench.learned.recipes import Recipe
from solverbench.learned.trained_files import Trained
from solverbench.learned.training import train as training
from solverbench.learned.training.checkpoint import COLUMNS
from solverbench.learned.training.data import Data
from solverbench.learned.training.run import TrainingRun
from solverbench.method.spec import expand, numbers
from solverbench.teachers.loading import load_teacher
from solverbench.teachers.teacher import Teacher

CURVE_ROWS = 100
RUN_COLUMNS = (
    "validation", "validation_initial", "validation_last", "validation_best", "best_iteration", "loss_last",
)  # fmt: skip


class _Deadline(Exception):
    """The time limit is reached; raised between two iterations."""


@dataclass(frozen=True)
class Task:
    """One training run."""

    solver: str
    nfe: int
    seed: int
    recipe: Recipe

    @property
    def weight(self) -> float:
        """Its approximate time, in arbitrary units: the longest runs start first."""
        alone = self.recipe.pretraining * self.nfe * 0.4
        return self.recipe.iterations * (self.nfe * (1.4 if self.recipe.adversarial else 1) + 3) + alone

    def job(self, teacher: Teacher) -> TrainingRun:
        """Return the training run for `teacher`."""
        return TrainingRun(trained_files.learned(self.solver), self.nfe, teacher, self.recipe, self.seed)

    def result(self, teacher: Teacher, out: Path) -> Trained | None:
        """Return the run's result, or None if it is not finished."""
        path = self.job(teacher).folder(out) / "trained.safetensors"
        return trained_files.load(path, teacher=teacher, nfe=self.nfe) if path.is_file() else None


def plan(
    solvers: str, nfe: str, training_seeds: int | None, settings: Sequence[str], teacher: str = "digits"
) -> list[Task]:
    """Return the requested runs, by the recipes for `teacher`.

    Args:
        settings: key=value, or solver.key=value for one solver.
        teacher: its spec; recipes are chosen by its name alone.

    Raises:
        SpecError: a solver, a number or a setting that can't be parsed.
    """
    names = expand(solvers)
    tasks = []
    for name in names:
        solver = trained_files.learned(name)
        recipe = recipes.suited(recipes.load(solver.recipe_name, teacher.partition(":")[0]), solver)
        recipe = recipe.override(_settings_of(name, names, settings))
        recipe = recipe if training_seeds is None else replace(recipe, training_seeds=training_seeds)
        if recipe.warm_start:
            raise SpecError(
                asked=f"{name} with warm_start=true",
                wrong="every run is trained on its own here, so none can start from another",
                remedy="use 'solverbench train', which trains a range in one process, or set warm_start=false",
            )
        tasks += [Task(name, n, seed, recipe) for n in numbers(nfe) for seed in range(recipe.training_seeds)]
    return tasks


def _settings_of(name: str, names: Sequence[str], settings: Sequence[str]) -> list[str]:
    chosen = []
    for setting in settings:
        owner, dot, rest = setting.partition("=")[0].partition(".")
        if dot and owner not in names:
            raise SpecError(
                asked=f"setting {setting!r}",
                wrong=f"{owner!r} isn't among {', '.join(names)}",
                remedy="write solver.key=value",
            )
        if not dot or owner == name:
            chosen.append(setting.removeprefix(f"{name}.") if rest else setting)
    return chosen


_worker: tuple[Teacher, Path, float]
_pairs: dict[tuple[range, range], Data] = {}


def _start(name: str, device: str, out: str, deadline: float, held: Sequence[plugins.Held] = ()) -> None:
    """Load the plugins and then the teacher, once for all runs of this process."""
    global _worker
    torch.set_num_threads(1)
    for each in held:
        plugins.take(each)
    _worker = load_teacher(name, device, out=out), Path(out), deadline


def _run(task: Task) -> tuple[float, str] | None:
    """Execute one run; return its seconds and its note, None if the time limit was reached."""
    teacher, out, deadline = _worker
    seeds = task.recipe.train, task.recipe.validation
    if seeds not in _pairs:
        _pairs[seeds] = training.prepare(teacher, task.recipe, out)

    def progress(iteration: int, total: int, loss: float, validation: float | None) -> None:
        if time.time() > deadline:
            raise _Deadline

    begun = time.perf_counter()
    try:
        trained = training.train(
            task.solver, task.nfe, teacher, task.recipe, seed=task.seed, out=out, device=teacher.device,
            progress=progress, data=_pairs[seeds],
        )  # fmt: skip
    except _Deadline:
        return None
    return time.perf_counter() - begun, str(trained.record["runs"][0]["note"])


def make(tasks: Sequence[Task], teacher: Teacher, out: Path, *, jobs: int, seconds: float) -> Iterator[str]:
    """Execute the missing runs, `jobs` at a time, for at most `seconds`; yield a line for each run that ends."""
    missing = sorted((t for t in tasks if t.result(teacher, out) is None), key=lambda t: -t.weight)
    if not missing:
        return
    deadline, begun = time.time() + seconds, time.perf_counter()
    # The teacher's images are made here, so that workers only read them.
    for recipe in {(t.recipe.train, t.recipe.validation): t.recipe for t in missing}.values():
        training.prepare(teacher, recipe, out)
    os.environ["OMP_NUM_THREADS"] = "1"
    pool = ProcessPoolExecutor(
        min(jobs, len(missing)),
        mp_context=multiprocessing.get_context("spawn"),
        initializer=_start,
        initargs=(teacher.spec, teacher.device, str(out), deadline, plugins.loaded()),
    )
    with pool:
        running = {pool.submit(_run, task): task for task in missing}
        for count, future in enumerate(as_completed(running), start=1):
            task = running[future]
            label = f"[{count}/{len(missing)}, {time.perf_counter() - begun:.0f} s] {task.solver} nfe={task.nfe}"
            try:
                took = future.result()
            except UserError as error:
                yield f"{label} seed={task.seed}: FAILED: {error}"
                continue
            rate = "stopped: the time limit is reached" if took is None else f"{took[0]:.0f} s"
            rate += f"; note: {took[1]}" if took is not None and took[1] else ""
            yield f"{label} seed={task.seed}: {rate}"


def collect(tasks: Sequence[Task], teacher: Teacher, out: Path) -> list[str]:
    """Write OUT/zoo from the finished runs; return the missing runs, in words.

    For each solver and number of calls with all training seeds: the file of the best run by validation error, and
    curves/<solver>-nfe<N>.csv. For all finished runs: runs.csv, in which lines of other solvers are kept.
    """
    place = out / "zoo" / teacher.name
    groups: dict[tuple[str, int], list[Task]] = {}
    for task in tasks:
        groups.setdefault((task.solver, task.nfe), []).append(task)
    summaries, missing = [], []
    for (solver, nfe), group in groups.items():
        results = [task.result(teacher, out) for task in group]
        done = [result for result in results if result is not None]
        missing += [
            f"{solver} nfe={nfe} seed={task.seed}"
            for task, result in zip(group, results, strict=True)
            if result is None
        ]
        best = training.best_of(done) if len(done) == len(group) else None
        summaries += [_summary(solver, nfe, result, best) for result in done]
        if best is not None:
            name = trained_files.file_name(solver, nfe)
            trained_files.save(best, place / name)
            chosen = next(task for task in group if task.seed == best.record["seed"])
            _write_curve(
                chosen.job(teacher).folder(out) / "history.csv", place / "curves" / Path(name).with_suffix(".csv")
            )
    header = ("solver", "nfe", "seed", "kept", *RUN_COLUMNS, "seconds", "device")
    kept = [dict(line) for line in lines(place / "runs.csv") if (line["solver"], int(line["nfe"])) not in groups]
    ordered: list[Mapping[str, object]] = sorted([*kept, *summaries], key=_place)
    files.write_bytes(place / "runs.csv", files.csv_bytes(header, ordered))
    return missing


def _place(line: Mapping[str, object]) -> tuple[str, int, int]:
    return str(line["solver"]), int(str(line["nfe"])), int(str(line["seed"]))


def lines(path: Path) -> list[dict[str, str]]:
    """Return the rows of a CSV file; none if there is no file."""
    if not path.is_file():
        return []
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def _summary(solver: str, nfe: int, trained: Trained, best: Trained | None) -> dict[str, object]:
    run = trained.record["runs"][0]
    kept = best is not None and best.record["seed"] == run["seed"]
    shown = {name: _short(run[name]) for name in RUN_COLUMNS}
    cost = {"seconds": run["cost"]["seconds"], "device": run["cost"]["device"]}
    return {"solver": solver, "nfe": nfe, "seed": run["seed"], "kept": str(kept).lower(), **shown, **cost}


def _write_curve(history: Path, target: Path) -> None:
    """Reduce a run's history to at most 100 rows: means over equal windows, last iteration and validation of each."""
    with history.open(newline="") as file:
        rows = [{k: float(v) for k, v in row.items() if v} for row in csv.DictReader(file)]
    width = math.ceil(len(rows) / CURVE_ROWS)
    windows = [rows[k : k + width] for k in range(0, len(rows), width)]
    files.write_bytes(target, files.csv_bytes(COLUMNS, [_thinned(window) for window in windows]))


def _thinned(window: Sequence[Mapping[str, float]]) -> dict[str, object]:
    row: dict[str, object] = {"iteration": int(window[-1]["iteration"])}
    for name in COLUMNS[1:]:
        values = [each[name] for each in window if name in each]
        if values:
            row[name] = _short(values[-1] if name == "validation" else sum(values) / len(values))
    return row


def _short(value: float) -> float | int:
    return value if isinstance(value, int) else float(f"{value:.6g}")


def pack(out: Path, target: Path) -> None:
    """Write OUT/zoo as one tar file."""
    with tarfile.open(target, "w") as archive:
        archive.add(out / "zoo", "zoo")


@click.command()
@click.option(
    "--out",
    required=True,
    type=click.Path(path_type=Path),
    help="Folder for the training runs, the teacher's images and zoo/.",
)
@click.option("--teacher", "name", default="digits", show_default=True)
@click.option("--solvers", default="gs,gas", show_default=True)
@click.option("--nfe", default="1-10", show_default=True)
@click.option("--training-seeds", type=click.IntRange(1), help="Replaces the setting in the recipes.")
@click.option(
    "--set",
    "settings",
    multiple=True,
    metavar="[SOLVER.]KEY=VALUE",
    help="Change a setting of the recipes; repeatable.",
)
@click.option("--device", default="cpu", show_default=True)
@click.option("--jobs", type=click.IntRange(1), default=os.cpu_count() or 1, show_default=True, help="Processes.")
@click.option("--seconds", type=click.FloatRange(0), default=math.inf, help="Stop cleanly after this many seconds.")
@click.option("--list", "listing", is_flag=True, help="List the missing trainings and train nothing.")
@plugin_option
@click.option("--pack", "archive", type=click.Path(path_type=Path), help="Also write zoo/ as this tar file.")
def main(
    out: Path,
    name: str,
    solvers: str,
    nfe: str,
    training_seeds: int | None,
    settings: tuple[str, ...],
    device: str,
    jobs: int,
    seconds: float,
    listing: bool,
    archive: Path | None,
) -> None:
    """Train the solvers of a teacher, several runs at a time, and write the best of each to OUT/zoo."""
    torch.set_num_threads(1)
    try:
        tasks = plan(solvers, nfe, training_seeds, settings, name)
        teacher = load_teacher(name, device)
        tasks = [replace(task, recipe=recipes.fitted(task.recipe, teacher)) for task in tasks]
        if not listing:
            for line in make(tasks, teacher, out, jobs=jobs, seconds=seconds):
                print(line, flush=True)
        missing = collect(tasks, teacher, out)
    except UserError as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(error.exit_code)
    if archive is not None:
        pack(out, archive)
    print(f"{len(tasks) - len(missing)} of {len(tasks)} runs finished, in {out / 'zoo'}")
    for run in missing:
        print(f"missing: {run}")
    sys.exit(1 if missing else 0)


if __name__ == "__main__":
    try:
        main()
    except UserError as error:  # from a plugin's file, which is loaded while options are parsed
        click.echo(f"error: {error}", err=True)
        sys.exit(error.exit_code)
