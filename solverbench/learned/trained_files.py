"""TODO."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
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
"""How far a stored tableau may be from what today's code makes of its parameters: another machine's rounding."""


_TABLEAU = ("sigmas", "weights", "levels", "start")


@dataclass(frozen=True, eq=False)
class Trained:
    """A learned solver's parameters for one teacher and number of calls.

    Args:
        spec: the solver's canonical spec.
        nfe: calls.
        teacher: name of the teacher; `teacher_identity` is its `ode`.
        parameters: float64 on the CPU, as `LearnedSolver.initial` names them.
        tableau: what they come to on the teacher's schedule, unrounded: what is executed, on every machine.
        record: how they were made: recipe, data seeds, validation errors of each training seed, cost, versions.
    """

    spec: str
    nfe: int
    teacher: str
    teacher_identity: str
    parameters: Mapping[str, Tensor]
    tableau: Tableau
    record: Mapping[str, Any] = field(default_factory=dict)

    @property
    def identity(self) -> str:
        """The sha256 of solver, calls, teacher and parameters: equal for equal results, whatever they cost."""
        return _digest(self.parameters, [self.spec, self.nfe, self.teacher_identity])

    @property
    def solver(self) -> LearnedSolver:
        """The solver with these parameters."""
        return learned(self.spec).with_parameters(self.parameters)

    @property
    def seeds(self) -> dict[str, range]:
        """The noise seeds that training has seen, by purpose."""
        return {purpose: range(first, last + 1) for purpose, (first, last) in self.record.get("seeds", {}).items()}

    @property
    def validation(self) -> float | None:
        """The validation error of the kept training seed; None where none was measured, as of an imported one."""
        kept = [run for run in self.record.get("runs", []) if run.get("seed") == self.record.get("seed")]
        return kept[0].get("validation") if kept else None

    @property
    def spread(self) -> float | None:
        """The largest less the smallest validation error of the training seeds; None of a single one."""
        found = [run["validation"] for run in self.record.get("runs", []) if run.get("validation") is not None]
        return max(found) - min(found) if len(found) > 1 else None

    def still(self, tableau: Tableau) -> bool:
        """Return whether `tableau`, which today's code makes of the parameters, is the stored one within `SAME`."""
        return self.tableau.equals(tableau, SAME)

    @property
    def cost(self) -> dict[str, float] | None:
        """What all training seeds took together; their most memory; the teacher's samples, shared, count once."""
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
        """Whether it was trained on the features that a metric judges it by: such a result is never the best."""
        return bool(self.record.get("recipe", {}).get("allow_metric_loss", False))


def file_name(solver: str | LearnedSolver, nfe: int) -> str:
    """Return the name of a trained solver's file: `gas-nfe4.safetensors`, `ld3-mode=time-nfe4.safetensors`.

    Only options other than the default are named, so that an option that comes later renames no file; a hash stands for
    what is long, or no part of a file name.
    """
    solver = learned(solver)
    usual = type(solver)().spec.split(":")
    told = "-".join(part for part in solver.spec.split(":") if part not in usual)
    if not re.fullmatch(r"[a-z0-9_.=+-]{0,60}", told):
        told = hashlib.sha256(told.encode()).hexdigest()[:8]
    return f"{solver.name}{told and '-'}{told}-nfe{nfe}.safetensors"


def save(trained: Trained, path: Path) -> None:
    """Write `trained` to `path`; a reader sees the old file or the whole new one."""
    tensors = {f"parameters.{name}": tensor for name, tensor in trained.parameters.items()}
    tensors |= {f"tableau.{name}": getattr(trained.tableau, name) for name in _TABLEAU}
    metadata = {
        "spec": trained.spec,
        "nfe": trained.nfe,
        "teacher": trained.teacher,
        "teacher_identity": trained.teacher_identity,
        "identity": trained.identity,
        "record": trained.record,
    }
    write(path, tensors, metadata, FORMAT, VERSION)


def load(
    path: Path, *, teacher: Teacher | None = None, nfe: int | None = None, solver: LearnedSolver | None = None
) -> Trained:
    """Return the trained solver in `path`, checked against its own sha256.

    Args:
        teacher, nfe: what it must have been trained for, if given.
        solver: whose parameters they are; the one that its spec names if not given.

    Raises:
        RecordError: not there, damaged, not such a file, or made for another teacher or number of calls.
        UnknownNameError: its solver isn't here, such as that of a plugin that isn't loaded.
    """
    tensors, metadata = read(path, FORMAT, VERSION)
    try:
        # A file from before an option was there means that option's default.
        trained = _assembled(tensors, metadata, solver or learned(metadata["spec"]))
    except UnknownNameError as error:
        remedy = f"{error.remedy} If a plugin has it, load that, as in --plugin FILE.py."
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


def _assembled(tensors: Mapping[str, Tensor], metadata: Mapping[str, Any], solver: LearnedSolver) -> Trained:
    """The trained solver of a file's content; any exception means that something is missing or of the wrong shape."""
    nfe = int(metadata["nfe"])
    tableau = Tableau(**{name: tensors[f"tableau.{name}"] for name in _TABLEAU})
    parameters = {name.removeprefix("parameters."): t for name, t in tensors.items() if name.startswith("parameters.")}
    wanted = solver.shapes(nfe)
    shapes = {name: tuple(tensor.shape) for name, tensor in parameters.items()}
    if shapes != wanted or tableau.nfe != nfe:
        raise ValueError(f"parameters {shapes} for nfe={nfe}")
    if any(tensor.dtype != torch.float64 for tensor in tensors.values()):
        raise ValueError("numbers that aren't float64")
    return Trained(
        spec=solver.spec,
        nfe=nfe,
        teacher=str(metadata["teacher"]),
        teacher_identity=str(metadata["teacher_identity"]),
        parameters={name: parameters[name] for name in wanted},
        tableau=tableau,
        record=dict(metadata["record"]),
    )


def learned(solver: str | LearnedSolver) -> LearnedSolver:
    """Return the learned solver that a spec names.

    Raises:
        SpecError, UnknownNameError: it can't be read, or names a solver without parameters.
    """
    made = make(solver) if isinstance(solver, str) else solver
    if not isinstance(made, LearnedSolver):
        raise SpecError(asked=made.spec, wrong="has nothing to train", remedy="give a learned solver such as gs or gas")
    return made
