"""Trains rows of recipe settings over several training seeds, measures them side by side, and writes one table.

python benchmarks/ablation.py benchmarks/ablation-shapes.toml --out FOLDER [--list] [--rows gs,gas] [--nfe 4]

The plan names the teacher, the metrics and the rows: a learned solver, numbers of calls, training seeds, and the
settings in which its recipe is changed. Trainings run one after another, the cheapest first; the same command resumes
at the iteration at which it was stopped. Started several times, its processes share the trainings, and the one that
ends last measures. FOLDER gets

    trainings.csv     validation error and cost of each training; written again after each
    table.md          per number of calls: validation error, each metric with its interval, and the paired difference
                      from the row `against`; intervals hold the images and the training seeds, and Holm's step-down
                      corrects the tests of a metric for the number of rows; then each training's own values
    table.csv         the same numbers, a line for each row and metric
    strip-nfeN.png    the same seeds by the teacher, the rows in `pictures` and the best classical solver
    variants/         each row with settings of its own, as a plugin that `solverbench run --plugin` reads

A training or a cell that fails is in the table with its reason, and the others continue. --keep copies the finished
trainings into the folder named like the plan, next to it; a training that is kept there isn't executed again.
"""

from __future__ import annotations

import argparse
import io
import math
import re
import sys
import time
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw

from solverbench import files, plugins
from solverbench.bench import run as runner
from solverbench.bench.bundle.trainings import pooled
from solverbench.bench.measure import p_value
from solverbench.bench.outcome import Outcome, paired
from solverbench.bench.plan import plan as planned
from solverbench.bench.run_options import RunOptions
from solverbench.cli import production
from solverbench.cli.production import Task
from solverbench.errors import RecordError, SpecError, StoreError, UserError
from solverbench.evaluation.reference_build import build
from solverbench.evaluation.references import folders
from solverbench.learned import recipes, trained_files
from solverbench.learned.trained_files import Trained
from solverbench.learned.training import train as training
from solverbench.learned.training.data import Data
from solverbench.method.spec import calls, expand
from solverbench.metrics import spectrum
from solverbench.metrics.plugin import described
from solverbench.metrics.quantise import quantise
from solverbench.metrics.table import ALWAYS, ordered
from solverbench.reports.paired import LEVEL, holm
from solverbench.sampling.endpoints import endpoints
from solverbench.store import leases
from solverbench.store.folder import Store
from solverbench.teachers.loading import load_teacher
from solverbench.teachers.teacher import Teacher
from solverbench.wording import bracketed

ENLARGED = 4
"""Pixels of the strip for each pixel of an image."""

BANDS = ("below 1/4", "1/4 to 1/2", "1/2 to 1", "corners")
"""Names of `spectrum.EDGES`' bands, in multiples of the highest frequency along a side."""

TRAININGS = ("row", "nfe", "seed", "validation", "validation_initial", "best_iteration", "iterations", "student_calls",
             "seconds", "cpu_seconds", "note")  # fmt: skip
"""Columns of trainings.csv; cpu_seconds is known if the training wasn't interrupted."""

TABLE = ("row", "nfe", "trainings", "metric", "value", "low", "high", "each", "against", "difference", "difference_low",
         "difference_high", "p", "p_holm", "reason")  # fmt: skip
"""Columns of table.csv."""

VARIANT = '''"""A row of an ablation, written by benchmarks/ablation.py."""

from {module} import {base}


class Variant({base}):
    {about!r}

    name = "{name}"
    trained_by = {recipe!r}
'''


class _Deadline(Exception):
    """The time limit is reached; raised between two iterations."""


@dataclass(frozen=True)
class Row:
    """A line of the table: a learned solver, trained by its recipe with some settings changed.

    Args:
        name: name in the table, one word; the solver's own if no setting is changed.
        solver: gs, gas or another learned solver, without options.
        nfe: numbers of calls.
        seeds: number of training seeds, from 0.
        settings: what is different from the solver's recipe for the teacher.
        about: what the row is for.
    """

    name: str
    solver: str
    nfe: tuple[int, ...]
    seeds: int
    settings: Mapping[str, Any] = field(default_factory=dict)
    about: str = ""


@dataclass(frozen=True)
class Plan:
    """An ablation; see the file benchmarks/ablation-shapes.toml.

    Args:
        against: row that the others are compared with.
        classical: specs of untrained solvers to measure beside them.
        pictures: rows shown in the strip of images.
        reference: name of the real images' statistics, built from the teacher's own data if there are none of that
            name; the teacher's own if empty. Kernel distance, precision and recall need one with feature vectors.
        reference_images: number of images to build it from.
    """

    teacher: str
    rows: tuple[Row, ...]
    against: str
    metrics: str = ""
    classical: str = ""
    samples: int = 2000
    replicates: int = 3
    pictures: tuple[str, ...] = ()
    reference: str = ""
    reference_images: int = 10_000


def read(path: Path) -> Plan:
    """Return the plan in a TOML file.

    Raises:
        UserError: it can't be read, or has an unknown, missing or contradictory entry.
    """
    try:
        told = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise RecordError(asked=f"plan {path}", wrong=f"can't be read ({error})", remedy="give a TOML file") from None
    rows = tuple(_row(path, entry) for entry in told.pop("rows", []))
    told["pictures"] = tuple(told.get("pictures", ()))
    plan: Plan = _made(path, Plan, {**told, "rows": rows})
    trained = [(row.name, nfe) for row in rows for nfe in row.nfe]
    if twice := [each for each in trained if trained.count(each) > 1]:
        raise _wrong(path, f"row {twice[0][0]} has NFE {twice[0][1]} twice", "give it once")
    names = {row.name for row in rows}
    for name in (plan.against, *plan.pictures):
        if name not in names:
            raise _wrong(path, f"no row is called {name!r}", f"use {', '.join(sorted(names))}")
    return plan


def _row(path: Path, entry: Mapping[str, Any]) -> Row:
    given = {**entry, "nfe": tuple(calls(entry.get("nfe", ""))), "settings": entry.get("set", {})}
    given.pop("set", None)
    row: Row = _made(path, Row, given)
    if not row.settings and row.name != row.solver:
        raise _wrong(path, f"row {row.name} changes no setting of {row.solver}", f"call it {row.solver}")
    if not re.fullmatch(plugins.WORD, row.name):
        raise _wrong(path, f"row {row.name!r}", "use a word of a-z, 0-9 and _")
    if ":" in row.solver:
        raise _wrong(path, f"row {row.name}: {row.solver} has options", "name the solver alone")
    return row


def _made(path: Path, kind: type, given: Mapping[str, Any]) -> Any:
    known = {each.name for each in fields(kind)}
    for key in given:
        if key not in known:
            raise _wrong(path, f"there is no entry {key!r}", f"use {', '.join(sorted(known))}")
    try:
        return kind(**given)
    except TypeError as error:
        raise _wrong(path, str(error).partition(" ")[2], "give it") from None


def _wrong(path: Path, wrong: str, remedy: str) -> SpecError:
    return SpecError(asked=f"plan {path}", wrong=wrong, remedy=remedy)


def loaded(row: Row, out: Path) -> None:
    """Write and load the plugin of a row that changes settings; other rows are built-in solvers.

    Raises:
        UserError: an unknown solver, or a name that is taken.
    """
    base = type(trained_files.learned(row.solver))
    if not row.settings:
        return
    recipe = {"base": trained_files.learned(row.solver).recipe_name, **row.settings}
    about = row.about or f"{row.solver} with other settings."
    text = VARIANT.format(module=base.__module__, base=base.__name__, name=row.name, recipe=recipe, about=about)
    place = out / "variants" / f"{row.name}.py"
    if not place.is_file() or place.read_text(encoding="utf-8") != text:
        files.write_bytes(place, text.encode())
    plugins.load(place)


def tasks(plan: Plan, teacher: Teacher) -> list[Task]:
    """Return the trainings, the cheapest first.

    Raises:
        UserError: a setting that the recipe doesn't have, or a recipe that doesn't fit the teacher.
    """
    found = []
    for row in plan.rows:
        recipe = recipes.chosen(trained_files.learned(row.name), teacher)
        training.check(teacher, recipe)
        found += [Task(row.name, nfe, seed, recipe) for nfe in row.nfe for seed in range(row.seeds)]
    return sorted(found, key=lambda task: (task.weight, task.solver, task.nfe, task.seed))


def train(wanted: Sequence[Task], teacher: Teacher, out: Path, seconds: float, kept: Path) -> Iterator[str]:
    """Execute the missing trainings one after another, and write trainings.csv after each; yield a line for each.

    A training that another process executes is skipped: several processes share a plan.

    Args:
        kept: folder whose trainings.csv is read too; see `keep`.
    """
    deadline, pairs = time.monotonic() + seconds, training.Shared(teacher, out)
    with leases.opened(out) as mine:
        for number, task in enumerate(wanted, start=1):
            label, unit = f"[{number}/{len(wanted)}] {task.solver} nfe={task.nfe} seed={task.seed}", _unit(task)
            if not mine.attempt(unit):
                yield f"{label}: another process trains it"
                continue
            try:
                cpu = {} if task.result(teacher, out) else _executed(task, teacher, out, deadline, pairs)
            except _Deadline:
                yield f"{label}: stopped, the time limit is reached"
                return
            except UserError as error:
                yield f"{label}: FAILED: {error}"
                continue
            finally:
                mine.release(unit)
            found = task.result(teacher, out)
            assert found is not None
            training.keep([found], trained_files.learned(f"{task.solver}:training={task.seed}"), out)
            with mine.claimed("trainings.csv"):
                cpu = _cpu_seconds(kept, out) | cpu
                rows = [_training(each, done, cpu.get(_named(each))) for each, done in _done(wanted, teacher, out)]
                files.write_bytes(out / "trainings.csv", files.csv_bytes(TRAININGS, rows))
            yield f"{label}: validation {found.validation:.4f}"


def keep(place: Path, wanted: Sequence[Task], teacher: Teacher, out: Path) -> None:
    """Copy the finished trainings and trainings.csv into `place`, where `take` looks for them."""
    for task, _ in _done(wanted, teacher, out):
        folder = task.job(teacher).folder(out)
        files.write_bytes(place / f"{folder.name}.safetensors", (folder / "trained.safetensors").read_bytes())
    known = {_named_line(line): line for folder in (place, out) for line in production.lines(folder / "trainings.csv")}
    files.write_bytes(place / "trainings.csv", files.csv_bytes(TRAININGS, list(known.values())))


def take(place: Path, wanted: Sequence[Task], teacher: Teacher, out: Path) -> None:
    """Copy the missing trainings that are kept in `place` into `out`."""
    for task in wanted:
        folder = task.job(teacher).folder(out)
        kept, target = place / f"{folder.name}.safetensors", folder / "trained.safetensors"
        if kept.is_file() and not target.is_file():
            files.write_bytes(target, kept.read_bytes())


def _unit(task: Task) -> str:
    return f"training-{task.solver}-{task.nfe}-{task.seed}"


def _executed(
    task: Task, teacher: Teacher, out: Path, deadline: float, pairs: training.Shared
) -> dict[tuple[str, str, str], float]:
    """Execute a training; return its CPU seconds, nothing if a part of it was executed before."""
    whole = not (task.job(teacher).folder(out) / "checkpoint.safetensors").is_file()
    data, begun = pairs.of(task.recipe), time.process_time()
    _trained(task, teacher, out, deadline, data)
    return {_named(task): time.process_time() - begun} if whole else {}


def _elsewhere(wanted: Sequence[Task], out: Path) -> list[Task]:
    """Return the trainings that living processes execute now."""
    with leases.opened(out) as mine:
        holders = [(task, mine.holder(_unit(task))) for task in wanted]
    return [task for task, holder in holders if holder is not None and not holder.dead]


def _trained(task: Task, teacher: Teacher, out: Path, deadline: float, data: Data) -> None:
    def progress(iteration: int, total: int, loss: float, validation: float | None) -> None:
        if time.monotonic() > deadline:
            raise _Deadline

    training.train(
        task.solver, task.nfe, teacher, task.recipe, seed=task.seed, out=out, device=teacher.device, progress=progress,
        data=data,
    )  # fmt: skip


def _named(task: Task) -> tuple[str, str, str]:
    return task.solver, str(task.nfe), str(task.seed)


def _done(wanted: Sequence[Task], teacher: Teacher, out: Path) -> list[tuple[Task, Trained]]:
    found = [(task, task.result(teacher, out)) for task in wanted]
    return [(task, result) for task, result in found if result is not None]


def _cpu_seconds(*folders: Path) -> dict[tuple[str, str, str], float]:
    """Return what the files trainings.csv of earlier calls know."""
    known = [line for folder in folders for line in production.lines(folder / "trainings.csv")]
    return {_named_line(line): float(line["cpu_seconds"]) for line in known if line.get("cpu_seconds")}


def _named_line(line: Mapping[str, str]) -> tuple[str, str, str]:
    return line["row"], line["nfe"], line["seed"]


def _training(task: Task, trained: Trained, cpu: float | None) -> dict[str, object]:
    [run] = trained.record["runs"]
    cost = run["cost"]
    return {
        "row": task.solver, "nfe": task.nfe, "seed": task.seed, "seconds": cost["seconds"], "note": run["note"],
        "student_calls": cost["student_calls_with_gradient"] + cost["student_calls_without"],
        "cpu_seconds": "" if cpu is None else round(cpu, 1),
        **{name: run[name] for name in ("validation", "validation_initial", "best_iteration", "iterations")},
    }  # fmt: skip


def options(plan: Plan, specs: Sequence[str], nfe: int, device: str, out: Path) -> RunOptions:
    """Return the options of a run of solvers at one number of calls."""
    return RunOptions(
        solvers=specs, nfe=nfe, teachers=plan.teacher, samples=plan.samples, replicates=plan.replicates,
        metrics=plan.metrics or None, reference=plan.reference or None, out=str(out), device=device,
    )  # fmt: skip


def prepare(plan: Plan, device: str, out: Path) -> None:
    """Build the reference, if there is none of that name, and check what is to be measured, before any training.

    Raises:
        UserError: a metric, a solver or a number that can't be measured.
    """
    if plan.reference and not (folders(out)[0] / f"{plan.reference}.npz").is_file():
        drawn: dict[str, Any] = {"extractor_name": plan.teacher, "count": plan.reference_images, "device": device}
        build(plan.reference, plan.teacher, out, **drawn)
    for nfe in sorted({nfe for row in plan.rows for nfe in row.nfe}):
        planned(options(plan, expand(plan.classical) if plan.classical else ["euler"], nfe, device, out))


def measure(plan: Plan, wanted: Sequence[Task], teacher: Teacher, out: Path, nfe: int) -> list[Outcome]:
    """Return the outcomes at one number of calls, trainings of one row as their mean; classical solvers come last."""
    done = [task for task, _ in _done([task for task in wanted if task.nfe == nfe], teacher, out)]
    rows = dict.fromkeys(row.name for row in plan.rows)
    specs = [f"{task.solver}:training={task.seed}" for name in rows for task in done if task.solver == name]
    specs += expand(plan.classical) if plan.classical else []
    if not done:
        return []
    return pooled(runner.run(options(plan, specs, nfe, teacher.device, out)).cells)


def name_of(outcome: Outcome) -> str:
    """Return the row of an outcome: the solver without its training seeds."""
    return re.sub(r":training=[\d|]+", "", outcome.cell.solver)


def _base(plan: Plan, outcomes: Sequence[Outcome]) -> Outcome | None:
    """Return the outcome that the others are compared with; None if it isn't trained."""
    return next((each for each in outcomes if name_of(each) == plan.against), None)


def tested(plan: Plan, outcomes: Sequence[Outcome]) -> dict[tuple[str, str], tuple[float, float]]:
    """Return p of each row's difference from `against` and p corrected for the rows, by row and metric."""
    base = _base(plan, outcomes)
    found: dict[tuple[str, str], tuple[float, float]] = {}
    if base is None:
        return found
    for metric, usual in base.measures.items():
        others = [each for each in outcomes if each is not base and metric in each.measures]
        single = [p_value(each.measures[metric], usual) for each in others]
        both = zip(single, holm(single), strict=True)
        found |= {(name_of(each), metric): pair for each, pair in zip(others, both, strict=True)}
    return found


def lines(plan: Plan, outcomes: Sequence[Outcome]) -> Iterator[dict[str, object]]:
    """Yield the lines of table.csv."""
    base = _base(plan, outcomes)
    tests = tested(plan, outcomes)
    for outcome in outcomes:
        shared = {"row": name_of(outcome), "nfe": outcome.cell.nfe, "trainings": len(outcome.parts) or 1}
        if not outcome.cell.learned:
            shared["trainings"] = 0
        if not outcome.measures:
            yield {**shared, "reason": outcome.reason}
        for metric in ordered(outcome.measures):
            found = outcome.measures[metric]
            line = {**shared, "metric": metric, "value": found.value, "low": found.interval[0],
                    "high": found.interval[1],
                    "each": "|".join(f"{each.measures[metric].value:.6g}" for each in outcome.parts)}  # fmt: skip
            if base is not None and base is not outcome and metric in base.measures:
                difference, low, high = paired(outcome, base, metric)
                line |= {"against": plan.against, "difference": difference, "difference_low": low,
                         "difference_high": high}  # fmt: skip
                line |= dict(zip(("p", "p_holm"), tests[name_of(outcome), metric], strict=True))
            yield line


def markdown(plan: Plan, outcomes: Sequence[Outcome], trained: Sequence[tuple[Task, Trained]], out: Path) -> str:
    """Return the tables of one number of calls."""
    nfe = outcomes[0].cell.nfe
    metrics = ordered({metric for each in outcomes for metric in each.measures})
    base = _base(plan, outcomes)
    heads = [described(metric).short for metric in metrics]
    text = [f"## {nfe} calls", "", _cells(["row", "trainings", "validation RMSE", *heads])]
    text.append("|" + "---|" * (len(heads) + 3))
    for each in outcomes:
        own = [done.validation for task, done in trained if (task.solver, task.nfe) == (name_of(each), nfe)]
        errors = [error for error in own if error is not None]
        told = "" if not errors else f"{np.mean(errors):.4f} ({min(errors):.4f}–{max(errors):.4f})"
        shown = [_value(each, metric) for metric in metrics] if each.measures else [each.reason]
        text.append(_cells([f"`{name_of(each)}`", str(len(errors) or "–"), told, *shown]))
    if base is not None:
        told = "**bold** where the test, corrected for the number of rows, tells it apart from 0"
        text += ["", f"Difference from `{plan.against}`, paired, with its 95 % interval; {told}:", ""]
        tests = tested(plan, outcomes)
        text += [_cells(["row", *heads]), "|" + "---|" * (len(heads) + 1)]
        others = [each for each in outcomes if each is not base and each.measures]
        for other in others:
            shown = [_difference(other, base, metric, tests) for metric in metrics]
            text.append(_cells([f"`{name_of(other)}`", *shown]))
    if several := [each for each in outcomes if len(each.parts) > 1]:
        text += ["", "Each training, by its seed:", "", _cells(["row", *heads]), "|" + "---|" * (len(heads) + 1)]
        text += [_cells([f"`{name_of(each)}`", *(_each(each, metric) for metric in metrics)]) for each in several]
    for array, what in (("spectrum", "Power"), ("residual", "Power of the error")):
        if spectra := [(name_of(each), found) for each in outcomes if (found := _bands(each, array, out)) is not None]:
            text += ["", f"{what} over the teacher's, dB, by spatial frequency:", ""]
            text += [_cells(["row", *BANDS]), "|" + "---|" * (len(BANDS) + 1)]
            text += [_cells([f"`{name}`", *(f"{each:.2f}" for each in found)]) for name, found in spectra]
    return "\n".join([*text, ""])


def _cells(parts: Sequence[str]) -> str:
    return f"| {' | '.join(part.replace('|', '/') for part in parts)} |"


def _value(outcome: Outcome, metric: str) -> str:
    if metric not in outcome.measures:
        return "–"
    value, half = outcome.measures[metric].texts
    return f"{value} ± {half}"


def _each(outcome: Outcome, metric: str) -> str:
    return ", ".join(each.measures[metric].texts[0] if metric in each.measures else "–" for each in outcome.parts)


def _difference(
    outcome: Outcome, base: Outcome, metric: str, tests: Mapping[tuple[str, str], tuple[float, float]]
) -> str:
    if metric not in outcome.measures or metric not in base.measures:
        return "–"
    told = bracketed(*paired(outcome, base, metric))
    return f"**{told}**" if tests[name_of(outcome), metric][1] <= LEVEL else told


def _bands(outcome: Outcome, array: str, out: Path) -> np.ndarray[Any, Any] | None:
    """Return the ratios in each band over the images of all trainings; None if they aren't stored."""
    rows = []
    try:
        for each in outcome.parts or (outcome,):
            folder = Store(out).at(each.cell.address)
            rows += [files.read_array(folder.place(block), array) for block in each.cell.protocol.blocks]
        found = np.concatenate([row for row in rows if row.ndim == 2])
    except (RecordError, StoreError, ValueError):
        return None
    return spectrum.by_band(found.astype(np.float64))


def strip(plan: Plan, outcomes: Sequence[Outcome], teacher: Teacher, out: Path) -> Image.Image | None:
    """Return the same seeds by the teacher, the rows in `pictures` and the best classical solver, labelled."""
    classical = [each for each in outcomes if not each.cell.learned and ALWAYS in each.measures]
    best = sorted(classical, key=lambda each: each.measures[ALWAYS].value)[:1]
    chosen = [each for each in outcomes if name_of(each) in plan.pictures and each.pictures is not None]
    shown = [*chosen, *(each for each in best if each.pictures is not None)]
    if not shown:
        return None
    count = min(len(each.pictures) for each in shown if each.pictures is not None)
    first = shown[0].cell.protocol.seeds.start
    own = quantise(teacher.images(endpoints(teacher, range(first, first + count), out).to(teacher.device)))
    rows = [
        ("teacher", own.cpu().numpy()),
        *((name_of(e), e.pictures[:count]) for e in shown if e.pictures is not None),
    ]
    _, height, width = rows[0][1].shape[1:]
    side, margin = ENLARGED * (height + 1), 8 * max(len(name) for name, _ in rows)
    sheet = Image.new("RGB", (margin + count * ENLARGED * (width + 1), len(rows) * side), "white")
    draw = ImageDraw.Draw(sheet)
    for line, (name, images) in enumerate(rows):
        draw.text((2, line * side + side // 3), name, fill="black")
        for place, image in enumerate(images):
            pixels = np.broadcast_to(image, (3, height, width)).transpose(1, 2, 0)
            tile = Image.fromarray(np.ascontiguousarray(pixels)).resize(
                (ENLARGED * width, ENLARGED * height), Image.Resampling.NEAREST
            )
            sheet.paste(tile, (margin + place * ENLARGED * (width + 1), line * side))
    return sheet


def write(plan: Plan, wanted: Sequence[Task], teacher: Teacher, out: Path) -> str:
    """Measure what is trained, write the tables and strips into `out`, and return table.md."""
    trained, table, text = _done(wanted, teacher, out), list[Mapping[str, object]](), list[str]()
    for nfe in sorted({task.nfe for task in wanted}):
        outcomes = measure(plan, wanted, teacher, out, nfe)
        if not outcomes:
            continue
        table += lines(plan, outcomes)
        text.append(markdown(plan, outcomes, trained, out))
        if (sheet := strip(plan, outcomes, teacher, out)) is not None:
            file = io.BytesIO()
            sheet.save(file, "png")
            files.write_bytes(out / f"strip-nfe{nfe}.png", file.getvalue())
    files.write_bytes(out / "table.csv", files.csv_bytes(TABLE, table))
    files.write_bytes(out / "table.md", "\n".join(text).encode())
    return "\n".join(text)


def main(arguments: Sequence[str] | None = None) -> int:
    """Train, measure and write; return 0 if everything that was asked for is trained."""
    about, _, rest = (__doc__ or "").partition("\n")
    parser = argparse.ArgumentParser(
        prog="python benchmarks/ablation.py", description=about, epilog=rest,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("plan", type=Path, help="TOML file of the rows")
    parser.add_argument("--out", type=Path, required=True, help="results folder")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--rows", default="", help="only these rows, joined with commas; `against` is kept")
    parser.add_argument("--nfe", default="", help="only these numbers of calls, as 4 or 6,8")
    parser.add_argument("--seconds", type=float, default=math.inf, help="stop training cleanly after this time")
    parser.add_argument("--keep", action="store_true", help="keep finished trainings in a folder next to the plan")
    parser.add_argument("--list", action="store_true", help="list the trainings and those that are done; train nothing")
    given = parser.parse_args(arguments)
    torch.set_num_threads(1)
    try:
        plan = read(given.plan)
        if given.rows:
            plan = _only(plan, given.plan, given.rows.split(","))
        if given.nfe:
            plan = _budgets(plan, given.plan, calls(given.nfe))
        Store.open(given.out)
        for row in plan.rows:
            loaded(row, given.out)
        teacher = load_teacher(plan.teacher, given.device, out=given.out)
        wanted, kept = tasks(plan, teacher), given.plan.with_suffix("")
        take(kept, wanted, teacher, given.out)
        if given.list:
            for task in wanted:
                state = "missing" if task.result(teacher, given.out) is None else "done"
                print(f"{task.solver} nfe={task.nfe} seed={task.seed}: {state}, {task.recipe.length} iterations")
        else:
            prepare(plan, teacher.device, given.out)
            for line in train(wanted, teacher, given.out, given.seconds, kept):
                print(line, flush=True)
            if given.keep:
                keep(kept, wanted, teacher, given.out)
            if elsewhere := _elsewhere(wanted, given.out):
                print(f"other processes train {len(elsewhere)} more; the one that ends last measures")
            else:
                print(write(plan, wanted, teacher, given.out))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    done = len(_done(wanted, teacher, given.out))
    print(f"{done} of {len(wanted)} trainings finished, in {given.out}")
    return 0 if done == len(wanted) else 1


def _only(plan: Plan, path: Path, names: Sequence[str]) -> Plan:
    known = {row.name for row in plan.rows}
    if unknown := [name for name in names if name not in known]:
        raise _wrong(path, f"no row is called {unknown[0]!r}", f"use {', '.join(sorted(known))}")
    return _of(plan, [row for row in plan.rows if row.name in {plan.against, *names}])


def _budgets(plan: Plan, path: Path, wanted: Sequence[int]) -> Plan:
    cut = [replace(row, nfe=tuple(nfe for nfe in row.nfe if nfe in wanted)) for row in plan.rows]
    rows = [row for row in cut if row.nfe]
    if missing := set(wanted) - {nfe for row in rows for nfe in row.nfe}:
        raise _wrong(path, f"no row has {min(missing)} calls", "name numbers of calls that a row has")
    if plan.against not in [row.name for row in rows]:
        raise _wrong(path, f"{plan.against} has none of these calls", "rows are compared with it: add one that it has")
    return _of(plan, rows)


def _of(plan: Plan, rows: Sequence[Row]) -> Plan:
    """Return the plan with these rows alone, in its pictures too."""
    names = {row.name for row in rows}
    return replace(plan, rows=tuple(rows), pictures=tuple(name for name in plan.pictures if name in names))


if __name__ == "__main__":
    sys.exit(main())
