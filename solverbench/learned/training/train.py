"""Training of learned solvers: through its tableau, a student's images are fitted to its teacher's.

Methods differ only in their recipes. A run can be killed at any time and resumes with bit-identical results.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from solverbench import files, seeds
from solverbench.errors import TrainingError
from solverbench.learned import trained_files
from solverbench.learned.estimated import EstimatedSolver
from solverbench.learned.recipes import Recipe
from solverbench.learned.searches import search
from solverbench.learned.trained_files import Trained
from solverbench.learned.training import checkpoint, discriminators, estimation, losses
from solverbench.learned.training.data import Data, Pairs
from solverbench.learned.training.result import result
from solverbench.learned.training.run import TrainingRun
from solverbench.learned.training.tensorboard import writer as open_tensorboard
from solverbench.learned.training.trainer import Trainer
from solverbench.method.solver import LearnedSolver
from solverbench.sampling import convergence
from solverbench.sampling.endpoints import endpoints
from solverbench.sampling.sample import BATCH
from solverbench.teachers.teacher import Teacher

RANGE = ("nfe", "seed", "iteration", "validation")
"""Columns of range.csv."""

Progress = Callable[[int, int, float, float | None], None]
"""Callback after each iteration: (iteration, iterations, loss, validation error or None); may raise to interrupt.

Iterations that train the discriminator alone are counted; their loss is the discriminator's.
"""


def prepare(teacher: Teacher, recipe: Recipe, out: Path, *, batch: int = BATCH) -> Data:
    """Return the recipe's pairs on the teacher's device, with the error of the teacher's sampler.

    The teacher's images are made once and kept under `out`.

    Raises:
        TrainingError, MissingError, PluginError: the recipe's loss or discriminator doesn't fit the teacher.
    """
    check(teacher, recipe)  # what training needs besides the images, which can take hours

    def pairs(chosen: range) -> Pairs:
        images = endpoints(teacher, chosen, out, batch=batch)
        noise = seeds.noise(chosen, teacher.shape, teacher.device)
        return Pairs(noise, images.to(teacher.device), torch.tensor(chosen))

    return Data(pairs(recipe.train), pairs(recipe.validation), convergence.measure(teacher, out, batch=batch))


class Shared:
    """Pairs of several trainings: prepared once for each set of seeds, as `prepare` does.

    Args:
        out: results folder.
    """

    def __init__(self, teacher: Teacher, out: Path) -> None:
        self.teacher, self.out = teacher, out
        self.held: dict[tuple[range, range], Data] = {}

    def of(self, recipe: Recipe) -> Data:
        """Return the recipe's pairs; errors as for `prepare`."""
        used = recipe.train, recipe.validation
        if used in self.held:
            check(self.teacher, recipe)
        else:
            self.held[used] = prepare(self.teacher, recipe, self.out)
        return self.held[used]


def check(teacher: Teacher, recipe: Recipe) -> None:
    """Raise the error of a recipe whose loss or discriminator doesn't fit the teacher."""
    losses.distance(recipe.loss, teacher, allow_metric_loss=recipe.allow_metric_loss)
    if recipe.adversarial:
        discriminators.check(teacher, recipe)


def train(
    solver: str | LearnedSolver,
    nfe: int,
    teacher: Teacher,
    recipe: Recipe,
    *,
    seed: int,
    out: Path,
    device: str = "cpu",
    progress: Progress | None = None,
    data: Data | None = None,
    tensorboard: bool = False,
    checkpoint_every: int = 200,
    below: Trained | None = None,
) -> Trained:
    """Return the solver trained with one training seed; resumes from the run's checkpoint, if there is one.

    The run's folder (`TrainingRun.folder`) gets checkpoint.safetensors, then history.csv, path.csv and
    trained.safetensors.

    Args:
        solver: gs, gas or the spec of another learned solver.
        nfe: calls per image.
        seed: training seed of the batch order, the discriminator's initial weights and its fresh noise.
        out: results folder.
        device: device of the images; parameters stay float64 on the CPU.
        data: training and validation pairs, on `device`; made by `prepare` if None.
        tensorboard: whether to write the history for TensorBoard too, into the run's folder.
        checkpoint_every: iterations between checkpoints; does not change the result.
        below: result of the same training for fewer calls, to start from; None to start as the recipe says.

    Raises:
        TrainingError: training cannot continue from a loss, a gradient or a time; the last checkpoint is kept.
        RecordError: the checkpoint is damaged.
        BudgetError: the solver cannot spend exactly `nfe` calls.
    """
    teacher = search.searching(teacher.to(device), out / "trained")
    job = _job(solver, nfe, teacher, recipe, seed, below)
    place = job.folder(out)
    if (place / "trained.safetensors").is_file():
        return trained_files.load(place / "trained.safetensors", teacher=teacher, nfe=nfe)
    log = open_tensorboard(place / "tensorboard") if tensorboard else None
    student = Trainer(job, data or prepare(job.teacher, recipe, out))
    try:
        if (place / "checkpoint.safetensors").is_file():
            checkpoint.restore(student, place / "checkpoint.safetensors")
        else:
            student.start()
        if isinstance(job.solver, EstimatedSolver):
            row = estimation.estimate(student, job.solver)
            if log is not None:
                log(row)
            if interrupted := _report(progress, recipe, row):
                raise interrupted
        while not student.finished:
            row = student.step()
            if log is not None:
                log(row)
            interrupted = _report(progress, recipe, row)
            if interrupted or student.done % checkpoint_every == 0:
                checkpoint.save(student, place / "checkpoint.safetensors")
            if interrupted:
                raise interrupted
    except TrainingError as error:
        _write_course(place, student)
        alone = " of the discriminator alone" if student.pretrained < recipe.pretraining else ""
        where = f"{job.label}, iteration {(student.pretrained if alone else student.iteration) + 1}{alone}"
        raise TrainingError(asked=where, wrong=f"{error.finding('')} (kept in {place})", remedy=error.remedy) from error
    trained = result(student)
    _write_course(place, student)
    trained_files.save(trained, place / "trained.safetensors")
    (place / "checkpoint.safetensors").unlink(missing_ok=True)
    return trained


def train_best(
    solver: str | LearnedSolver,
    nfe: int,
    teacher: Teacher,
    recipe: Recipe,
    *,
    out: Path,
    device: str = "cpu",
    progress: Progress | None = None,
    data: Data | None = None,
    tensorboard: bool = False,
) -> Trained:
    """Return the best of the recipe's training seeds by validation error; write it where `zoo.find` looks.

    The file keeps the others too, and the record the validation errors and costs of all. A solver with the option
    `training` is trained with that seed alone. Arguments and errors as for `train`.
    """
    asked = teacher, recipe
    [done] = train_range(
        solver, [nfe], *asked, out=out, device=device, progress=progress, data=data, tensorboard=tensorboard
    )
    return done.best


@dataclass(frozen=True, eq=False)
class Done:
    """A finished budget of a range.

    Args:
        best: the best of the training seeds.
        folders: folders with the tables of each training, then of the range so far, if it has several budgets.
    """

    best: Trained
    folders: Sequence[Path]


def train_range(
    solver: str | LearnedSolver,
    budgets: Sequence[int],
    teacher: Teacher,
    recipe: Recipe,
    *,
    out: Path,
    device: str = "cpu",
    progress: Progress | None = None,
    data: Data | Shared | None = None,
    tensorboard: bool = False,
) -> Iterator[Done]:
    """Yield `train_best` of each number of calls, with the same pairs; progress counts over all of them.

    With the recipe's `warm_start` the budgets are trained in rising order, and each starts from the one below with the
    same training seed. A finished training is read back, so the same call resumes where the last one ended. The
    validation errors of several budgets are written to range.csv in `range_folder`.

    Args:
        data: pairs, or those of several calls, made when they are needed; made by `prepare` if None.

    Raises:
        TrainingError: also a solver without a rule to start from fewer calls, before anything is trained.
    """
    teacher = teacher.to(device)
    budgets = sorted(budgets) if recipe.warm_start else budgets
    for nfe in budgets:  # refuses what can't be trained before any image is made
        job = _job(solver, nfe, teacher, recipe, 0)
        if recipe.warm_start and nfe != max(budgets):
            schedule = search.searching(teacher, out / "trained").schedule
            job.solver.with_parameters(job.solver.initial(schedule, nfe)).grown(schedule, nfe + 1)
    pairs = data if isinstance(data, Data) else (data or Shared(teacher, out)).of(recipe)
    chosen, courses, runs = _seeds(solver, recipe), list[dict[str, object]](), list[Trained]()
    step = len(chosen) * recipe.length
    for number, nfe in enumerate(budgets):
        shown = _shifted(progress, number * step, len(budgets) * step)
        about = solver, nfe, teacher, recipe
        below = runs if recipe.warm_start else []
        runs = train_seeds(*about, below, out=out, device=device, progress=shown, data=pairs, tensorboard=tensorboard)
        begun: Sequence[Trained | None] = below or [None] * len(chosen)
        folders = [_job(*about, seed, each).folder(out) for seed, each in zip(chosen, begun, strict=True)]
        for seed, folder in zip(chosen, folders, strict=True):
            courses += ({"nfe": nfe, "seed": seed, **row} for row in _validations(folder / "history.csv"))
        if len(budgets) > 1:
            folders.append(range_folder(solver, budgets, teacher, recipe, out))
            files.write_bytes(folders[-1] / "range.csv", files.csv_bytes(RANGE, courses))
        yield Done(keep(runs, trained_files.learned(solver), out), folders)


def train_seeds(
    solver: str | LearnedSolver,
    nfe: int,
    teacher: Teacher,
    recipe: Recipe,
    below: Sequence[Trained] = (),
    *,
    out: Path,
    device: str = "cpu",
    progress: Progress | None = None,
    data: Data | None = None,
    tensorboard: bool = False,
) -> list[Trained]:
    """Return the results of the recipe's training seeds, or of the solver's own; progress counts over all of them.

    Args:
        below: results for fewer calls, one for each training seed, to start from; empty to start as the recipe says.
    """
    runs, chosen = list[Trained](), _seeds(solver, recipe)
    for place, seed in enumerate(chosen):
        shown = _shifted(progress, place * recipe.length, len(chosen) * recipe.length)
        runs.append(
            train(
                solver, nfe, teacher, recipe, seed=seed, out=out, device=device, progress=shown, data=data,
                tensorboard=tensorboard, below=below[place] if below else None,
            )
        )  # fmt: skip
    return runs


def _seeds(solver: str | LearnedSolver, recipe: Recipe) -> Sequence[int]:
    """Return the training seeds: the recipe's, or the one of the solver's option `training`."""
    own = trained_files.learned(solver).training
    return range(recipe.training_seeds) if own is None else [own]


def keep(runs: Sequence[Trained], solver: LearnedSolver, out: Path) -> Trained:
    """Return the best of several training seeds under the name of `solver`, and write it where `zoo.find` looks."""
    best = replace(best_of(runs), spec=solver.spec)
    trained_files.save(best, out / "trained" / best.teacher / trained_files.file_name(solver, best.nfe))
    return best


def range_folder(
    solver: str | LearnedSolver, budgets: Sequence[int], teacher: Teacher, recipe: Recipe, out: Path
) -> Path:
    """Return the folder of a range's table of validation errors, range.csv."""
    method = trained_files.learned(solver)
    body = [method.key, sorted(budgets), teacher.ode, recipe.as_key()]
    name = f"{method.name}-nfe{min(budgets)}-{max(budgets)}-{files.digest(body)[:12]}"
    return out / "trained" / teacher.name / "runs" / name


def _validations(path: Path) -> Iterator[dict[str, str]]:
    """Yield iteration and validation error of a history; none if the file has been removed."""
    if path.is_file():
        with path.open(newline="", encoding="utf-8") as lines:
            for row in csv.DictReader(lines):
                if row["validation"]:
                    yield {"iteration": row["iteration"], "validation": row["validation"]}


def best_of(runs: Sequence[Trained]) -> Trained:
    """Return the run with the lowest validation error, with the records and parameters of all runs."""
    best = min(runs, key=lambda run: run.record["runs"][0]["validation"])
    everything = [run.record["runs"][0] for run in runs]
    others = tuple(run for run in runs if run is not best)
    return replace(best, record={**best.record, "runs": everything}, others=others)


def _job(
    solver: str | LearnedSolver, nfe: int, teacher: Teacher, recipe: Recipe, seed: int, below: Trained | None = None
) -> TrainingRun:
    """Return the run of these settings.

    Raises:
        TrainingError: the recipe asks for what this solver can't be given.
    """
    job = TrainingRun(replace(trained_files.learned(solver), training=None), nfe, teacher, recipe, seed, below)
    if isinstance(job.solver, EstimatedSolver):
        estimation.check(job)
    return job


def _report(progress: Progress | None, recipe: Recipe, row: Mapping[str, float]) -> BaseException | None:
    """Call `progress`; return its exception instead of raising it, so that the finished iteration is saved first."""
    if progress is None:
        return None
    try:
        number, alone = int(row["iteration"]), row["iteration"] < 0
        made = recipe.pretraining + number + alone
        progress(made, recipe.length, row["discriminator" if alone else "loss"], row.get("validation"))
    except BaseException as error:
        return error
    return None


def _shifted(progress: Progress | None, done: int, total: int) -> Progress | None:
    """Return a progress callback for one of several runs that counts over all of them."""
    if progress is None:
        return None
    return lambda iteration, _, loss, validation: progress(done + iteration, total, loss, validation)


def _write_course(place: Path, student: Trainer) -> None:
    """Write history.csv, and path.csv: levels, told levels and parameters at each validation."""
    rows = ({**row, "iteration": int(row["iteration"])} for row in student.history)
    files.write_bytes(place / "history.csv", files.csv_bytes(checkpoint.COLUMNS, rows))
    points: list[dict[str, object]] = []
    for iteration, vector in student.path:
        tableau = student.tableau(vector)
        series = {"level": tableau.levels, "told": tableau.sigmas, **student.descent.parameters(vector)}
        points += [
            {"iteration": iteration, "name": name, "index": index, "value": f"{value:.6g}"}
            for name, values in series.items()
            for index, value in enumerate(values.detach().flatten().tolist())
        ]
    files.write_bytes(place / "path.csv", files.csv_bytes(("iteration", "name", "index", "value"), points))
