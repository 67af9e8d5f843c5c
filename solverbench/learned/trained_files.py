"""Files of trained solvers: parameters, tableau and the record of how they were made."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from solverbench.errors import RecordError, SpecError, UnknownNameError
from solverbench.method.solver import LearnedSolver
from solverbench.method.spec import make
from solverbench.method.tableau import Tableau
from solverbench.teachers.teacher import Teacher
from solverbench.tensors import _digest, read, write

FORMAT = "solverbench-trained"


VERSION = 1


SAME = 1e-9
"""Tolerance between a stored tableau and the one recomputed from its parameters; allows for rounding elsewhere."""


_TABLEAU = ("sigmas", "weights", "levels", "start")


@dataclass(frozen=True, eq=False)
class Trained:
    """A learned solver's parameters for one teacher and number of calls.

    Args:
        spec: canonical spec of the solver.
        nfe: number of calls.
        teacher: name of the teacher; `teacher_identity` is its `ode`.
        parameters: float64 tensors on the CPU, named as in `LearnedSolver.initial`.
        tableau: unrounded tableau of the parameters on the teacher's schedule; every machine executes this one.
        record: how they were made: recipe, data seeds, validation errors of each training seed, cost, versions.
        others: the trainings with the other seeds, which the file keeps too.
        path: file that they were read from; None if there is none.
    """

    spec: str
    nfe: int
    teacher: str
    teacher_identity: str
    parameters: Mapping[str, Tensor]
    tableau: Tableau
    record: Mapping[str, Any] = field(default_factory=dict)
    others: tuple[Trained, ...] = ()
    path: Path | None = None

    def __repr__(self) -> str:
        """Return what it is and how good, on one line."""
        error = "" if self.validation is None else f", validation RMSE {self.validation:.4g}"
        return f"Trained({self.spec}, nfe={self.nfe}, teacher={self.teacher}{error}, identity={self.identity[:12]})"

    @property
    def identity(self) -> str:
        """The sha256 of solver, calls, teacher and parameters; equal for equal results, whatever their cost."""
        return _digest(self.parameters, [self.spec, self.nfe, self.teacher_identity])

    @property
    def solver(self) -> LearnedSolver:
        """The solver with these parameters."""
        return learned(self.spec).with_parameters(self.parameters)

    @property
    def seeds(self) -> dict[str, range]:
        """The noise seeds used by training, by purpose."""
        return {purpose: range(first, last + 1) for purpose, (first, last) in self.record.get("seeds", {}).items()}

    @property
    def validation(self) -> float | None:
        """The validation error of the kept training seed; None if none was measured, as for an imported solver."""
        kept = [run for run in self.record.get("runs", []) if run.get("seed") == self.record.get("seed")]
        return kept[0].get("validation") if kept else None

    @property
    def spread(self) -> float | None:
        """The largest minus the smallest validation error over the training seeds; None for fewer than two."""
        found = [run["validation"] for run in self.record.get("runs", []) if run.get("validation") is not None]
        return max(found) - min(found) if len(found) > 1 else None

    def training(self, seed: int) -> Trained | None:
        """Return the training with this seed, as the solver with the option `training`; None if it isn't kept here."""
        for each in (self, *self.others):
            if each.record.get("seed") == seed:
                runs = [run for run in each.record.get("runs", []) if run.get("seed") == seed]
                spec = replace(learned(self.spec), training=seed).spec
                return replace(each, spec=spec, record={**each.record, "runs": runs}, others=())
        return None

    def still(self, tableau: Tableau) -> bool:
        """Return whether `tableau`, recomputed from the parameters, equals the stored one within `SAME`."""
        return self.tableau.equals(tableau, SAME)

    @property
    def cost(self) -> dict[str, float] | None:
        """The summed cost of all training seeds; peak memory and the shared teacher calls are their maximum."""
        costs = [run["cost"] for run in self.record.get("runs", []) if "cost" in run]
        if not costs:
            return None
        student = ("student_calls_with_gradient", "student_calls_without")
        return {
            "training_seeds": len(costs),
            "seconds": round(sum(cost.get("seconds", 0) for cost in costs), 3),
            "teacher_calls": max(cost.get("teacher_calls", 0) for cost in costs),
            "student_calls": sum(cost.get(name, 0) for cost in costs for name in student),
            "peak_memory_bytes": max(cost.get("peak_memory_bytes", 0) for cost in costs),
        }

    @property
    def metric_loss(self) -> bool:
        """Whether it was trained on the features of a metric that judges it; such a result never counts as the best."""
        return bool(self.record.get("recipe", {}).get("allow_metric_loss", False))


def short(solver: LearnedSolver) -> str:
    """Return the solver's spec without options at their default."""
    usual = type(solver)().spec.split(":")
    return ":".join([solver.name, *(part for part in solver.spec.split(":")[1:] if part not in usual)])


def file_name(solver: str | LearnedSolver, nfe: int) -> str:
    """Return the name of a trained solver's file: `gas-nfe4.safetensors`, `ld3-mode=time-nfe4.safetensors`.

    Only non-default options are named, so a new option renames no file. A hash replaces options that are too long or
    unfit for a file name.
    """
    solver = learned(solver)
    told = "-".join(short(solver).split(":")[1:])
    if not re.fullmatch(r"[a-z0-9_.=+-]{0,60}", told):
        told = hashlib.sha256(told.encode()).hexdigest()[:8]
    return f"{solver.name}{told and '-'}{told}-nfe{nfe}.safetensors"


def file_names(solver: str | LearnedSolver, nfe: int) -> list[str]:
    """Return the names of the files that may hold a trained solver: its own, then that of all training seeds."""
    solver = learned(solver)
    several = [] if solver.training is None else [file_name(replace(solver, training=None), nfe)]
    return [file_name(solver, nfe), *several]


def save(trained: Trained, path: Path) -> None:
    """Write `trained` to `path` atomically."""
    tensors = _named(trained, "")
    for other in trained.others:
        tensors |= _named(other, f"training.{other.record['seed']}.")
    metadata = {
        "spec": trained.spec,
        "nfe": trained.nfe,
        "teacher": trained.teacher,
        "teacher_identity": trained.teacher_identity,
        "identity": trained.identity,
        "record": trained.record,
    }
    write(path, tensors, metadata, FORMAT, VERSION)


def _named(trained: Trained, prefix: str) -> dict[str, Tensor]:
    """Return a training's tensors by their names in a file."""
    found = {f"{prefix}parameters.{name}": tensor for name, tensor in trained.parameters.items()}
    return found | {f"{prefix}tableau.{name}": getattr(trained.tableau, name) for name in _TABLEAU}


def load(
    path: Path, *, teacher: Teacher | None = None, nfe: int | None = None, solver: LearnedSolver | None = None
) -> Trained:
    """Return the trained solver in `path`, checked against its own sha256.

    Args:
        teacher, nfe: teacher and budget that it must have been trained for, if given.
        solver: solver of the parameters; the one named by the file's spec if None.

    Raises:
        RecordError: the file is missing, damaged, of another kind, or for another teacher or number of calls.
        UnknownNameError: its solver is not available, for example because its plugin is not loaded.
    """
    tensors, metadata = read(path, FORMAT, VERSION)
    try:
        # A file older than an option implies that option's default.
        trained = _assembled(tensors, metadata, solver or learned(metadata["spec"]), path)
    except UnknownNameError as error:
        remedy = f"{error.remedy} If a plugin defines it, load the plugin with --plugin FILE.py."
        raise UnknownNameError(asked=path, wrong=error.finding(""), remedy=remedy) from None
    except (KeyError, TypeError, ValueError) as error:
        wrong = f"an incomplete trained solver ({error})"
        raise RecordError(asked=path, wrong=wrong, remedy="train it again") from None
    if teacher is not None and trained.teacher_identity != teacher.ode:
        made, asked = (
            f"{trained.teacher} ({trained.teacher_identity[:12]})",
            f"{teacher.name} ({teacher.ode[:12]})",
        )
        wrong = f"trained for teacher {made}, not for {asked}"
        raise RecordError(asked=path, wrong=wrong, remedy="train it for this teacher")
    if nfe is not None and trained.nfe != nfe:
        wrong = f"trained for nfe={trained.nfe}, not for nfe={nfe}"
        raise RecordError(asked=path, wrong=wrong, remedy="train it for this budget")
    return trained


def _assembled(
    tensors: Mapping[str, Tensor], metadata: Mapping[str, Any], solver: LearnedSolver, path: Path
) -> Trained:
    """Return the trained solver in a file's content; any exception means a missing part or a wrong shape."""
    nfe = int(metadata["nfe"])
    if any(tensor.dtype != torch.float64 for tensor in tensors.values()):
        raise ValueError("numbers that aren't float64")
    record = dict(metadata["record"])
    kept = _training(tensors, metadata, solver, nfe, record, "")
    seeds = sorted({int(name.split(".")[1]) for name in tensors if name.startswith("training.")})
    others = [
        _training(tensors, metadata, solver, nfe, {**record, "seed": seed}, f"training.{seed}.") for seed in seeds
    ]
    return replace(kept, path=path, others=tuple(replace(each, path=path) for each in others))


def _training(
    tensors: Mapping[str, Tensor],
    metadata: Mapping[str, Any],
    solver: LearnedSolver,
    nfe: int,
    record: Mapping[str, Any],
    prefix: str,
) -> Trained:
    """Return one of a file's trainings: that of the tensors whose names begin with `prefix`."""
    tableau = Tableau(**{name: tensors[f"{prefix}tableau.{name}"] for name in _TABLEAU})
    start = f"{prefix}parameters."
    parameters = {name.removeprefix(start): tensor for name, tensor in tensors.items() if name.startswith(start)}
    wanted = solver.shapes(nfe)
    shapes = {name: tuple(tensor.shape) for name, tensor in parameters.items()}
    if shapes != wanted or tableau.nfe != nfe:
        raise ValueError(f"parameters {shapes} for nfe={nfe}")
    return Trained(
        spec=solver.spec,
        nfe=nfe,
        teacher=str(metadata["teacher"]),
        teacher_identity=str(metadata["teacher_identity"]),
        parameters={name: parameters[name] for name in wanted},
        tableau=tableau,
        record=record,
    )


def learned(solver: str | LearnedSolver) -> LearnedSolver:
    """Return the learned solver that a spec names.

    Raises:
        SpecError, UnknownNameError: the spec cannot be read, or names a solver without parameters.
    """
    made = make(solver) if isinstance(solver, str) else solver
    if not isinstance(made, LearnedSolver):
        raise SpecError(asked=made.spec, wrong="has nothing to train", remedy="give a learned solver such as gs or gas")
    return made
