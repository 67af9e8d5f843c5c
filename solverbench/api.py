"""Functions for scripts and notebooks: what the commands `run` and `train` do, with progress where somebody watches."""

from __future__ import annotations

import inspect
import sys
import warnings
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from solverbench import seeds as image_seeds
from solverbench.bench.cells import FAILED
from solverbench.bench.pilot.detect import POWER
from solverbench.bench.plan import RunPlan
from solverbench.bench.plan import plan as planned
from solverbench.bench.progress import Listener
from solverbench.bench.run import run_table
from solverbench.bench.run_options import RunOptions
from solverbench.choice.answer import Recommendation
from solverbench.choice.choose import choose
from solverbench.cli.progress import display, training_display
from solverbench.cli.terminal import in_notebook
from solverbench.errors import UserError
from solverbench.learned import recipes, trained_files
from solverbench.learned.trained_files import Trained
from solverbench.learned.training.train import Shared, train_range
from solverbench.method import spec
from solverbench.sampling.devices import check_device
from solverbench.store.folder import Store
from solverbench.teachers.loading import load_teacher
from solverbench.teachers.teacher import Teacher


def run(*, progress: Listener | bool | None = None, command: str | None = None, **options: Any) -> pd.DataFrame:
    """Sample and measure each solver at each NFE on each teacher; return one row per cell and metric.

    The same call resumes an interrupted run, and computes nothing that is stored. A failed cell is a row with its
    reason, and a warning. The frame's `attrs["record"]` is the record of the report: labels, protocol and verdicts.

    Raises:
        UserError: an invalid option, raised before anything is computed.
    """
    shown = progress if isinstance(progress, bool) else progress is None and _watched()
    with display() if shown else nullcontext(None if isinstance(progress, bool) else progress) as listener:
        frame = run_table(progress=listener, command=command, **options)
    failed = frame[(frame.status == FAILED) | (frame.value.isna() & (frame.status.isin(["done", "cached"])))]
    for row in failed.drop_duplicates(["teacher", "solver", "nfe", "reason"]).itertuples():
        what = "" if row.status == FAILED else f"no {row.metric}: "
        warnings.warn(f"{row.solver} nfe={row.nfe} on {row.teacher}: {what}{row.reason}", stacklevel=2)
    return frame


def plan(*, detect: str | float | None = None, power: float = POWER, **options: Any) -> RunPlan:
    """Return what `run` would compute with the same options, as the command `plan` does; nothing is written.

    `.cells` has the status and cost of each cell, `.summary()` the text that the command prints. With `detect`,
    `.detection.rows` says how many images tell two solvers apart, by metric and number of calls, and
    `.detection.lines()` is its text.

    Raises:
        UserError: an invalid option.

    Args:
        detect: relative difference of a metric, such as "5%", that two solvers are to be told apart by; the variances
            are those of paired differences of stored cells in `out`, on any seeds.
        power: probability that the difference is found by a test at a two-sided level of .05.
    """
    return planned(RunOptions(**options), detect=detect, power=power)


def train(
    solvers: str,
    nfe: str | int | Sequence[int],
    teacher: str | Teacher = "digits",
    *,
    recipe: str | Path | None = None,
    settings: Mapping[str, Any] | None = None,
    device: str = "cpu",
    out: str | Path = "runs",
    progress: bool | None = None,
) -> list[Trained]:
    """Train learned solvers, as the command `train` does, and return them: solver by solver, then by NFE.

    Each is trained from the recipe's number of training seeds; the parameters with the lowest validation error are kept
    in `out`, where `run` finds them. The same call resumes an interrupted training.

    Args:
        solvers: specs joined with commas, such as "gs,gas".
        nfe: numbers of denoiser calls: "4,6", 4 or [4, 6].
        teacher: a name, a checkpoint, a TOML file, or a teacher made in Python.
        recipe: TOML file of a recipe; what it doesn't set is as in the solver's own.
        settings: settings of the recipe to change, such as {"iterations": 500}; a list may be a list.
        device: cpu, cuda or cuda:N.
        out: results folder.
        progress: whether to show progress; if None, on a terminal and in a notebook.

    Raises:
        UserError: an unknown solver, setting or teacher, or a budget that a solver can't spend.
        TrainingError: a training that can't continue.
    """
    learned = [trained_files.learned(name) for name in spec.expand(solvers)]
    budgets = spec.calls(nfe)
    network = load_teacher(teacher, check_device(device), out=out) if isinstance(teacher, str) else teacher
    changes = [f"{name}={_setting(value)}" for name, value in (settings or {}).items()]
    chosen = [(solver, recipes.chosen(solver, network, changes, recipe)) for solver in learned]
    place = Path(out)
    Store.open(place)
    found, before = list[Trained](), torch.get_num_threads()
    torch.set_num_threads(1)  # more threads slow down steps as small as these
    pairs, shown = Shared(network, place), _watched() if progress is None else progress
    try:
        for solver, settled in chosen:
            about = solver, budgets, network, settled
            with training_display(f"{solver.name} nfe={nfe}") if shown else nullcontext(None) as told:
                done = train_range(*about, out=place, device=device, progress=told, data=pairs)
                found += [each.best for each in done]
    finally:
        torch.set_num_threads(before)
    return found


def _setting(value: Any) -> str:
    """Return the value of a recipe's setting as on the command line."""
    if isinstance(value, list | tuple):
        return "+".join(map(str, value))
    return str(value).lower() if isinstance(value, bool) else str(value)


def recommend(
    teacher: str | Teacher,
    nfe: str | int | Sequence[int] = "4-8",
    *,
    calls: int | None = None,
    seconds: float | None = None,
    by: str = "rmse_teacher",
    solvers: str | None = None,
    train: bool = False,
    export: Sequence[str] = ("py",),
    device: str = "cpu",
    out: str | Path = "runs",
    progress: bool | None = None,
) -> Recommendation:
    """Return the best solver for a model at each number of calls, as the command `recommend` does.

    Solvers on all grids race on validation seeds by paired errors; what is beaten drops out. The leaders are measured
    again on fresh seeds, beside Euler's method and the pipeline's own scheduler. The same call resumes.

    Args:
        teacher: a name, a checkpoint, a TOML file, or a teacher made in Python.
        nfe: numbers of denoiser calls: "4-8", 6 or [4, 6].
        calls: network calls times images that all of it may spend; None for no limit.
        seconds: time that it may take; None for no limit.
        by: metric that chooses between the leaders of the race.
        solvers: specs to choose from; if None, the built-in solvers on all grids, and trained ones at hand.
        train: whether the rest of `seconds` goes to training learned solvers.
        export: kinds of files of each pick: json, py, k-diffusion, sigmas, diffusers.
        device: cpu, cuda or cuda:N.
        out: results folder.
        progress: whether to show progress; if None, on a terminal and in a notebook.

    Returns:
        `.pick` (`.spec`, `.nfe`, `.value`, `.low`, `.high`, `.comparisons`), `.picks` by calls, `.candidates` with
        their errors, `.cost`, `.folder` of the files and `.report`, the folder of the run on fresh seeds.

    Raises:
        UserError: bad arguments, a limit that is too low, or a reference that diverges or isn't converged.
    """
    network = load_teacher(teacher, check_device(device), out=out) if isinstance(teacher, str) else teacher
    shown = _watched() if progress is None else progress
    with display() if shown else nullcontext(None) as listener:
        return choose(
            network, nfe, out=Path(out), calls=calls, seconds=seconds, by=by, solvers=solvers, train=train,
            exports=export, tell=listener,
        )  # fmt: skip


def noise(seeds: str | int | Sequence[int], teacher: str | Teacher = "digits", *, device: str = "cpu") -> Tensor:
    """Return the unit normal noise [B, *shape] float32 that the images of these seeds start from.

    A solver's start is this noise times its first level (and the schedule's alpha there).

    Args:
        seeds: "50000-50063", 50000 or a sequence of whole numbers.
        teacher: the teacher, or its name.

    Raises:
        UserError: text that is no range of seeds, or an unknown teacher.
    """
    if isinstance(seeds, str):
        seeds = image_seeds.parse(seeds)
    network = load_teacher(teacher, check_device(device)) if isinstance(teacher, str) else teacher
    numbers = [seeds] if isinstance(seeds, int) else list(seeds)
    if not all(type(seed) is int and 0 <= seed < 1 << 63 for seed in numbers):
        raise UserError(asked=f"seeds {seeds!r}", wrong="not whole numbers from 0", remedy="write 50000-50063")
    return image_seeds.noise(numbers, network.shape, device)


def _watched() -> bool:
    """Return whether somebody watches: in a notebook, or on a terminal."""
    return in_notebook() or sys.stderr.isatty()


def _sign() -> None:
    """Give `run` the signature and the list of arguments of `run_table`."""
    told = inspect.signature(run_table).parameters.values()
    own = inspect.signature(run).parameters["progress"]
    named = [own if each.name == "progress" else each for each in told]
    run.__signature__ = inspect.Signature(named, return_annotation="pd.DataFrame")  # type: ignore[attr-defined]
    _, _, arguments = inspect.getdoc(run_table).partition("Args:\n")  # type: ignore[union-attr]
    arguments = arguments.replace(
        "progress: a `Listener`, told what happens.",
        "progress: whether to show progress, if not given on a terminal and in a notebook; or a `Listener`.",
    )
    doc, _, errors = inspect.cleandoc(run.__doc__ or "").partition("Raises:\n")
    _sign_plan(named[:-2])
    run.__doc__ = f"{doc}Args:\n{arguments}\n\nRaises:\n{errors}"


def _sign_plan(options: Sequence[inspect.Parameter]) -> None:
    """Give `plan` the signature of its options besides its own arguments."""
    own = list(inspect.signature(plan).parameters.values())[:2]
    parameters = [*options, *own]
    plan.__signature__ = inspect.Signature(parameters, return_annotation="RunPlan")  # type: ignore[attr-defined]


_sign()
