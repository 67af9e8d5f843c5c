"""Any solver as numbers for others: plain JSON, or a Python file that needs torch alone."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from solverbench import __version__, files
from solverbench.errors import BudgetError, RecordError, SpecError, UserError
from solverbench.solver import Classical, Solver
from solverbench.spec import make
from solverbench.tableaux import Plan, Tableau
from solverbench.teachers import Teacher, load_teacher
from solverbench.tracing import tableau

FORMAT = "solverbench-tableau"
VERSION = 1
KINDS = ("json", "py")


@dataclass(frozen=True, eq=False)
class Exported:
    """A solver's numbers for one teacher and number of calls.

    Args:
        spec: canonical.
        teacher: name of the teacher; `teacher_identity` its sha256.
        prior_scale: what unit noise is multiplied by to make the start of `tableau`.
        threshold: the network's outputs are thresholded dynamically, which a tableau, linear, can't hold.
    """

    spec: str
    teacher: str
    teacher_identity: str
    prior_scale: float
    threshold: bool
    tableau: Tableau


def write(solver: str, nfe: int, teacher: str, kind: str, path: Path, out: Path) -> str:
    """Write the solver named by a spec to `path` as `kind`, "json" or "py", and return a line that says so.

    Args:
        out: results folder, where a learned solver's own training is looked for.

    Raises:
        UserError: a bad spec, budget or path, a solver that isn't trained, or one that adapts the network by itself.
    """
    if nfe < 1:
        raise BudgetError(f"--nfe {nfe}: below 1; give a positive number")
    if path.is_dir():
        raise UserError(f"--to {path}: is a folder; give the file to write, as in {path / f'solver.{kind}'}")
    exported = collect(make(solver), nfe, load_teacher(teacher), out)
    text = {"json": as_json, "py": as_python}[kind](exported)
    files.write_bytes(path, text.encode())
    return f"{exported.spec} nfe={nfe} for {teacher} in {path}"


def collect(solver: Solver, nfe: int, teacher: Teacher, out: Path | None = None) -> Exported:
    """Return the solver's numbers for `teacher` and `nfe` calls.

    Raises:
        SpecError: it adapts the network in a way of its own.
        BudgetError, NeedsTrainingError: see `solverbench.tableau`.
    """
    if type(solver).adapt not in (Solver.adapt, Classical.adapt):
        raise SpecError(f"{solver.spec}: changes the network's outputs by code of its own; a file of numbers can't")
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
    """Return it as JSON; the numbers are those of the unrounded tableau, digit for digit.

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
    """Return what `as_json` wrote.

    Args:
        source: what to call it in an error, such as its path.

    Raises:
        RecordError: not such a text, of another version, or with numbers that are no tableau.
    """
    try:
        body = json.loads(text)
        form, version = body["format"], body["version"]
    except (ValueError, KeyError, TypeError, RecursionError):
        raise RecordError(f"{source}: isn't a {FORMAT} text; give what 'zoo export --format json' wrote") from None
    if (form, version) != (FORMAT, VERSION):
        raise RecordError(f"{source}: {form} version {version}, this reads {FORMAT} version {VERSION}; export it again")
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
        raise RecordError(f"{source}: an incomplete tableau ({error}); export it again") from None
    return exported


def as_python(exported: Exported) -> str:
    """Return the source of a module with `sample(denoise, noise)`, by the numbers that `run` executes.

    They are rounded to 12 digits and their first column counts unit noise.
    """
    plan = exported.tableau.plan(exported.prior_scale)
    return _MODULE.format(
        version=__version__,
        spec=exported.spec,
        teacher=exported.teacher,
        identity=exported.teacher_identity,
        sigmas=_listed(plan.sigmas, ""),
        rows=_rows(plan),
        threshold=_THRESHOLD if exported.threshold else "",
        output=f"threshold({_CALL})" if exported.threshold else _CALL,
    )


def _rows(plan: Plan) -> str:
    return "".join(f"    {_listed(row, '    ')},\n" for row in plan.rows)


def _listed(values: Sequence[float], indent: str) -> str:
    """The numbers in brackets, on as few lines as 120 columns allow."""
    text = f"[{', '.join(map(repr, values))}]"
    if len(text) + len(indent) < 100:
        return text
    inner = textwrap.fill(text[1:-1], 110, initial_indent=f"{indent}    ", subsequent_indent=f"{indent}    ")
    return f"[\n{inner},\n{indent}]"


_CALL = "denoise(x, torch.tensor(sigma, dtype=torch.float64))"

_THRESHOLD = '''

def threshold(d):
    """Dynamic thresholding: each image clipped at the 0.995 quantile of its absolute values, if that is above 1."""
    values = d.abs().flatten(1)
    place = 0.995 * (values.shape[1] - 1)
    top = values.topk(values.shape[1] - int(place), dim=1).values
    c = torch.lerp(top[:, -1], top[:, -2:][:, 0], place - int(place)).clamp(min=1).reshape(-1, *[1] * (d.dim() - 1))
    return torch.minimum(torch.maximum(d, -c), c) / c
'''

_MODULE = '''"""A few-step diffusion solver as numbers; needs torch alone. Written by SolverBench {version}."""

import torch

SPEC = {spec!r}
TEACHER = {teacher!r}
TEACHER_IDENTITY = {identity!r}

# The noise level (EDM frame: x = x0 + sigma n) that the network is told at each call.
SIGMAS = {sigmas}

# Row k: the weights of the unit noise and of the first k outputs, in the k-th input; the last row makes the sample.
WEIGHTS = [
{rows}]
{threshold}

@torch.no_grad()
def sample(denoise, noise):
    """Return samples from unit Gaussian `noise` [B, C, H, W].

    denoise(x, sigma) returns the network's estimate of the clean images from x = x0 + sigma n; sigma is 0-d, float64.
    """
    history = [noise]
    for sigma, row in zip(SIGMAS, WEIGHTS):
        x = combine(row, history)
        history.append({output})
    return combine(WEIGHTS[-1], history)


def combine(row, history):
    x = history[0] * row[0]
    for weight, past in zip(row[1:], history[1:]):
        if weight:
            x.add_(past, alpha=weight)
    return x
'''
