"""Export of any solver: as JSON, a Python file, a diffusers scheduler or a k-diffusion sampler."""

from __future__ import annotations

import importlib.util
import json
import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from solverbench import extras, files
from solverbench._version import __version__
from solverbench.errors import BudgetError, MissingError, RecordError, SpecError, UserError
from solverbench.export import texts
from solverbench.export.frames import frame
from solverbench.learned.equip import tableau
from solverbench.method.classical import Classical
from solverbench.method.solver import Solver
from solverbench.method.spec import make
from solverbench.method.tableau import Tableau
from solverbench.teachers.loading import load_teacher
from solverbench.teachers.teacher import Teacher

if TYPE_CHECKING:
    from solverbench.export.diffusers import TableauScheduler
    from solverbench.export.k_diffusion import Sampler

FORMAT = "solverbench-tableau"
VERSION = 1
KINDS = ("json", "py", "diffusers", "k-diffusion")
CONFIG, MODULE = "scheduler_config.json", "tableau_scheduler.py"
"""File names in a scheduler's folder."""


@dataclass(frozen=True, eq=False)
class Exported:
    """A solver's numbers for one teacher and number of calls.

    Args:
        spec: canonical spec of the solver.
        teacher: name of the teacher; `teacher_identity` is its sha256.
        prior_scale: factor from unit noise to the start of `tableau`.
        threshold: whether the network's outputs are thresholded dynamically; the linear tableau cannot express this.
    """

    spec: str
    teacher: str
    teacher_identity: str
    prior_scale: float
    threshold: bool
    tableau: Tableau


def write(solver: str, nfe: int, teacher: str, kind: str, path: Path, out: Path) -> str:
    """Write the solver named by a spec to `path` as one of `KINDS`; return a one-line report.

    Args:
        path: output file; for diffusers a file ending in .py, or a folder for a configuration and its module.
        out: results folder, searched for trained solvers.

    Raises:
        UserError: a bad spec, budget or path, an untrained solver, or one that adapts the network in its own way.
    """
    if nfe < 1:
        raise BudgetError(asked=f"--nfe {nfe}", wrong="below 1", remedy="give a positive number")
    folder = kind == "diffusers" and path.suffix != ".py"
    if path.is_dir() and not folder:
        name = f"solver.{'json' if kind == 'json' else 'py'}"
        raise UserError(
            asked=f"--to {path}", wrong="is a folder", remedy=f"give the file to write, as in {path / name}"
        )
    if folder and path.is_file():
        raise UserError(
            asked=f"--to {path}", wrong="is a file", remedy="give the folder of a scheduler, or a file ending in .py"
        )
    loaded = load_teacher(teacher)
    exported = collect(make(solver), nfe, loaded, out)
    said = ""
    if kind == "diffusers":
        config, own = _config(exported, loaded)
        said = "" if own else ", for a pipeline whose network takes sigma and predicts the image from x0 + sigma n"
        if folder:
            made = {path / CONFIG: texts.scheduler_config(config), path / MODULE: texts.scheduler()}
        else:
            made = {path: texts.scheduler(config)}
    else:
        made = {path: {"json": as_json, "py": as_python, "k-diffusion": as_k_diffusion}[kind](exported)}
    for place, text in made.items():
        files.write_bytes(place, text.encode())
    return f"{exported.spec} nfe={nfe} for {teacher} in {path}{said}"


def diffusers_scheduler(
    solver: str | Solver | Tableau, *, teacher: str | Teacher, nfe: int | None = None, out: Path | None = None
) -> TableauScheduler:
    """Return the solver as a scheduler for pipelines of the teacher's network: `pipe.scheduler = ...`.

    Args:
        solver: spec, Solver, or Tableau on the teacher's own levels.
        nfe: number of calls; not needed for a Tableau.
        out: results folder, searched for trained solvers.

    Raises:
        MissingError: diffusers is not installed.
        SpecError, BudgetError, NeedsTrainingError: see `collect`.
    """
    if importlib.util.find_spec("diffusers") is None:
        raise MissingError(
            asked="diffusers_scheduler",
            wrong="diffusers isn't installed",
            remedy=f"run {extras.install('diffusers')}",
        )
    from solverbench.export.diffusers import TableauScheduler

    loaded = load_teacher(teacher) if isinstance(teacher, str) else teacher
    scheduler: TableauScheduler = TableauScheduler(**_config(_exported(solver, nfe, loaded, out), loaded)[0])
    return scheduler


def k_diffusion_sampler(
    solver: str | Solver | Tableau, *, teacher: str | Teacher, nfe: int | None = None, out: Path | None = None
) -> Sampler:
    """Return the solver as a sampling function (model, x, sigmas=None, extra_args=None, callback=None, disable=None).

    Args:
        solver, teacher, nfe, out: as in `diffusers_scheduler`.

    Raises:
        SpecError, BudgetError, NeedsTrainingError: see `collect`.
    """
    from solverbench.export.k_diffusion import Sampler

    loaded = load_teacher(teacher) if isinstance(teacher, str) else teacher
    return Sampler(**_sampler(_exported(solver, nfe, loaded, out)))


def _exported(solver: str | Solver | Tableau, nfe: int | None, teacher: Teacher, out: Path | None) -> Exported:
    """Return the numbers of a solver given as spec, Solver or Tableau."""
    if isinstance(solver, Tableau):
        if nfe not in (None, solver.nfe):
            raise BudgetError(asked=f"nfe={nfe}", wrong=f"the tableau has {solver.nfe} calls", remedy="leave nfe out")
        scale = solver.noise_scale(teacher.schedule)
        return Exported("tableau", teacher.name, teacher.identity, scale, False, solver)
    made = make(solver) if isinstance(solver, str) else solver
    if nfe is None:
        raise BudgetError(asked=made.spec, wrong="nfe isn't given", remedy="give it, as in nfe=6")
    return collect(made, nfe, teacher, out)


def collect(solver: Solver, nfe: int, teacher: Teacher, out: Path | None = None) -> Exported:
    """Return the solver's numbers for `teacher` and `nfe` calls.

    Raises:
        SpecError: it adapts the network in its own way.
        BudgetError, NeedsTrainingError: see `solverbench.tableau`.
    """
    if type(solver).adapt not in (Solver.adapt, Classical.adapt):
        raise SpecError(
            asked=solver.spec,
            wrong="changes the network's outputs by its own code, which numbers can't express",
            remedy="export another solver",
        )
    numbers = tableau(solver, nfe=nfe, teacher=teacher, out=out)
    return Exported(
        spec=solver.spec,
        teacher=teacher.name,
        teacher_identity=teacher.identity,
        prior_scale=numbers.noise_scale(teacher.schedule),
        threshold=isinstance(solver, Classical) and solver.threshold,
        tableau=numbers,
    )


def as_json(exported: Exported) -> str:
    """Return `exported` as JSON, with the exact numbers of the unrounded tableau.

    The start is prior_scale times unit noise, at noise level `start`; see `Tableau` for the rest.
    """
    tab = exported.tableau
    facts: dict[str, Any] = {
        "format": FORMAT,
        "version": VERSION,
        "solverbench": __version__,
        "spec": exported.spec,
        "nfe": tab.nfe,
        "teacher": exported.teacher,
        "teacher_identity": exported.teacher_identity,
        "prior_scale": exported.prior_scale,
        "threshold": exported.threshold,
        "start": float(tab.start),
        "sigmas": tab.sigmas.tolist(),
        "levels": tab.levels.tolist(),
    }
    lines = [f" {json.dumps(key)}: {json.dumps(value, allow_nan=False)}," for key, value in facts.items()]
    rows = ",\n".join(f"  {json.dumps(row, allow_nan=False)}" for row in tab.weights.tolist())
    return "\n".join(["{", *lines, ' "weights": [', rows, " ]", "}", ""])


def from_json(text: str, source: str = "tableau") -> Exported:
    """Return the solver in a text written by `as_json`.

    Args:
        source: name of the text in errors, such as its path.

    Raises:
        RecordError: not such a text, of another version, or without a valid tableau.
    """
    try:
        body = json.loads(text)
        form, version = body["format"], body["version"]
    except (ValueError, KeyError, TypeError, RecursionError):
        raise RecordError(
            asked=source, wrong=f"isn't a {FORMAT} file", remedy="give a file that 'zoo export --format json' wrote"
        ) from None
    if (form, version) != (FORMAT, VERSION):
        raise RecordError(
            asked=source,
            wrong=f"{form} version {version}, but this SolverBench reads {FORMAT} version {VERSION}",
            remedy="export it again",
        )
    try:
        numbers = {
            name: torch.tensor(body[name], dtype=torch.float64) for name in ("sigmas", "weights", "levels", "start")
        }
        exported = Exported(
            spec=str(body["spec"]),
            teacher=str(body["teacher"]),
            teacher_identity=str(body["teacher_identity"]),
            prior_scale=float(body["prior_scale"]),
            threshold=bool(body["threshold"]),
            tableau=Tableau(**numbers),
        )
        if exported.tableau.nfe != body["nfe"]:
            raise ValueError(f"{exported.tableau.nfe} calls, nfe is {body['nfe']}")
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise RecordError(asked=source, wrong=f"an incomplete tableau ({error})", remedy="export it again") from None
    return exported


def as_python(exported: Exported) -> str:
    """Return the source of a module with `sample(denoise, noise)`, with the numbers that `run` executes.

    They are rounded to 12 digits; their first column is the weight of unit noise.
    """
    plan = exported.tableau.plan(exported.prior_scale)
    return texts.plain(plan, exported.spec, exported.teacher, exported.teacher_identity, exported.threshold)


def as_k_diffusion(exported: Exported) -> str:
    """Return the source of a module with `sample_NAME_NFE`, in the form of k-diffusion's samplers."""
    return texts.sampler(_sampler(exported), exported.spec, exported.teacher, exported.teacher_identity)


def as_scheduler(exported: Exported, teacher: Teacher) -> str:
    """Return the source of a module with the diffusers scheduler and `scheduler()`, which returns it.

    Args:
        teacher: teacher that `exported` was collected for.
    """
    return texts.scheduler(_config(exported, teacher)[0])


def as_scheduler_folder(exported: Exported, teacher: Teacher) -> dict[str, str]:
    """Return the files of a scheduler's folder, name to text: `from_pretrained` reads the configuration.

    Args:
        teacher: teacher that `exported` was collected for.
    """
    return {CONFIG: texts.scheduler_config(_config(exported, teacher)[0]), MODULE: texts.scheduler()}


def _sampler(exported: Exported) -> dict[str, Any]:
    """Return the fields of a `Sampler`."""
    tab = exported.tableau
    plan, levels = tab.plan(), [float(tab.start), *tab.levels.tolist()]
    name = re.sub(r"\W+", "_", exported.spec.partition(":")[0], flags=re.ASCII)
    return {
        "name": f"sample_{name}_{tab.nfe}",
        "told": list(plan.sigmas),
        "weights": [list(row) for row in plan.rows],
        # The first state is the start itself, except after an analytic first step.
        "sigmas": levels[1:] if math.isclose(levels[0], levels[1], rel_tol=1e-9) else levels,
        "scale": exported.prior_scale,
        "thresholding": exported.threshold,
    }


def _config(exported: Exported, teacher: Teacher) -> tuple[dict[str, Any], bool]:
    """Return the configuration of a `TableauScheduler`, and whether it is for the teacher's own network."""
    plan = exported.tableau.plan(exported.prior_scale)
    seen = frame(teacher, plan)
    return {
        "spec": exported.spec,
        "teacher": exported.teacher,
        "teacher_identity": exported.teacher_identity,
        "prediction_type": seen.prediction,
        "thresholding": exported.threshold,
        "num_train_timesteps": seen.steps,
        "timesteps": list(seen.timesteps),
        "alphas": list(seen.alphas),
        "sigmas": list(plan.sigmas),
        "weights": [list(row) for row in plan.rows],
    }, seen.own
