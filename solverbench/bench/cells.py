"""Cells: one per teacher, solver and number of calls, each with the key of its results."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from torch import Tensor

from solverbench import files, plugins, registries
from solverbench.bench.protocol import Protocol
from solverbench.errors import UserError
from solverbench.evaluation import selection
from solverbench.evaluation.selection import Measurement
from solverbench.learned.trained_files import Trained
from solverbench.method import tableau
from solverbench.method.schedules import Searched
from solverbench.method.solver import Solver
from solverbench.method.tableau import Plan
from solverbench.metrics import plugin, table
from solverbench.metrics.evaluation import OWN, Evaluation
from solverbench.metrics.table import MetricDefinition, Takes
from solverbench.sampling import endpoints
from solverbench.sampling import exact as solutions
from solverbench.sampling.endpoints import Goal
from solverbench.teachers.teacher import Teacher

FORMAT = 2
"""Result format version; bump when equal keys would give different numbers."""


DONE, CACHED, FAILED, UNSUPPORTED, NEEDS_TRAINING = STATUSES = (
    "done",
    "cached",
    "failed",
    "unsupported",
    "needs-training",
)


@dataclass(frozen=True, eq=False)
class Need:
    """A search of a grid that a cell needs.

    Args:
        solver: the cell's solver.
        name: name of the search; `steps` the number of intervals, `given` its parameters.
    """

    solver: Solver
    name: str
    steps: int
    given: Mapping[str, Any]


@dataclass(frozen=True, eq=False)
class Cell:
    """One teacher, solver and number of calls under a protocol.

    Args:
        solver: name as requested.
        spec: canonical spec.
        method: the solver's part of the key, `Solver.key`.
        nfe: number of denoiser calls.
        learned: whether the solver is a learned one.
        adapt: the solver's adaptor of the teacher's denoiser; the spec names it.
        measurement: metrics, networks and reference for the images.
        targets: plan of the teacher's own sampler.
        plan: plan to execute; None if the cell can't be run.
        obstacle: status and reason if the cell can't be run.
        trained: file of the learned solver's parameters; None if they were given in Python.
        inferred: settings that the learned solver's paper leaves unknown, see `LearnedSolver.inferred`.
        flags: what a reader of its numbers should know: code, one word, to sentence.
        search: the search that found its grid; None if its grid isn't searched.
        needs: the search that has to be made first; None if there is none.
    """

    teacher: Teacher
    solver: str
    spec: str
    method: Mapping[str, Any]
    nfe: int
    learned: bool
    adapt: Callable[[Callable[[Tensor, Tensor], Tensor]], Callable[[Tensor, Tensor], Tensor]]
    protocol: Protocol
    measurement: Measurement
    targets: Goal
    plan: Plan | None = None
    obstacle: tuple[str, str] | None = None
    trained: Trained | None = None
    inferred: str = ""
    flags: Mapping[str, str] = field(default_factory=dict)
    search: Searched | None = None
    needs: Need | None = None

    @cached_property
    def key(self) -> dict[str, Any]:
        """Everything that the cell's numbers depend on, as plain JSON values; documented in docs/store.md."""
        assert self.plan is not None
        evaluation = self.evaluation
        exact = {"exact": {"n": self.protocol.solved, **solutions.key(self.teacher)}} if self.exact else {}
        return {
            "format": FORMAT,
            "solver": tableau.asked(self.method, self.plan, self.teacher.schedule),
            "schedule": self.teacher.schedule.key,
            **endpoints.key(self.teacher, self.targets, self.protocol.batch),
            **self.protocol.key,
            **exact,
            **self.measurement.key,
            **({"adapt": registries.fingerprint(self.adapt)} if self._adapted_by_plugin else {}),
            "evaluation": evaluation
            and {
                "quantiser": evaluation.quantiser,
                "extractor": evaluation.extractor_id,
                "data": evaluation.data.sha,
                "teacher": evaluation.teacher and evaluation.teacher.sha,
                **({} if evaluation.metrics == OWN else {"metrics": list(evaluation.metrics)}),
            },
        }

    @cached_property
    def address(self) -> str:
        """The sha256 of the key; empty if the cell can't be run."""
        return "" if self.plan is None else files.digest(self.key)

    @property
    def exact(self) -> bool:
        """Whether some images are compared with the exact solution: as requested, else by the teacher's default."""
        asked = self.protocol.options.exact
        return self.teacher.exact if asked is None else asked

    @property
    def names(self) -> dict[str, Any]:
        """Human-readable names, stored next to the key but not part of it."""
        trained = self.trained and self.trained.identity
        plugged = {"plugins": self.plugins} if self.plugins else {}
        told = {"teacher": self.teacher.name, "solver": self.solver, "spec": self.spec, "nfe": self.nfe}
        return {**told, "trained": trained, **plugged}

    @cached_property
    def plugins(self) -> dict[str, dict[str, str]]:
        """The plugins it uses: kind and name to origin and sha256 of the source."""
        grid = re.search(r":grid=([a-z]\w*)", self.spec)
        trained = self.trained.record.get("recipe", {}) if self.trained else {}
        asked = {
            "solver": [self.spec.partition(":")[0]],
            "grid": [grid[1]] if grid else [],
            "teacher": [self.teacher.base] if self.teacher.spec else [],
            "metric": list(self.measurement.plugged),
            "extractor": list(filter(None, [self.measurement.extractor])),
            "loss": [trained["loss"]] if "loss" in trained else [],
        }
        told = {
            f"{kind} {name}": plugins.provenance(registries.extensible[kind], name)
            for kind, names in asked.items()
            for name in names
        }
        return {what: each for what, each in told.items() if each}

    @property
    def _adapted_by_plugin(self) -> bool:
        """Whether a plugin's code adapts the teacher's denoiser."""
        module = getattr(self.adapt, "__module__", "") or ""
        return module.partition(".")[0] != "solverbench"

    @property
    def evaluation(self) -> Evaluation | None:
        """The evaluation of its features; None if no features are measured."""
        return self.measurement.evaluation

    @property
    def lacking(self) -> Mapping[str, str]:
        """Requested metrics that can't be measured here, each with the reason."""
        return self.measurement.lacking

    @property
    def metrics(self) -> tuple[MetricDefinition, ...]:
        """The metrics of its images: built-in ones first, then those of plugins."""
        judged, always = self.evaluation, [table.TABLE[table.ALWAYS]]
        exact = [each for each in table.TABLE.values() if self.exact and each.takes is Takes.EXACT]
        features = [plugin.find(name) for name in judged.metrics] if judged is not None else []
        return *always, *exact, *features, *self.measurement.of_images

    @property
    def metric_loss(self) -> bool:
        """Whether its solver was trained on the features that a metric uses."""
        return self.trained is not None and self.trained.metric_loss

    def __str__(self) -> str:
        return f"{self.solver} nfe={self.nfe} on {self.teacher.shown}"


def reason(error: BaseException, asked: str = "") -> str:
    """Return an error as one line: the text of a user error, or the type, place and text of any other exception.

    The place is the plugin's line that raised it, if a plugin did.

    Args:
        asked: subject that is already named next to the line, and so is left out of a user error about it.
    """
    if isinstance(error, UserError):
        return " ".join(error.without(asked).split())
    text = " ".join(str(error).split())
    return ": ".join(filter(None, (plugins.place(error), type(error).__name__, text)))


def teachers_of(cells: Iterable[Cell]) -> list[Teacher]:
    """Return the distinct teachers of the cells, in order."""
    return list({cell.teacher.name: cell.teacher for cell in cells}.values())


def each_teacher(cells: Iterable[Cell]) -> list[Cell]:
    """Return one cell of each teacher, in order; all cells of a teacher share its measurement."""
    return list({cell.teacher.name: cell for cell in cells}.values())


def lacking(cells: Iterable[Cell]) -> list[str]:
    """Return one line per requested metric that can't be measured; see `selection.lacking`."""
    return selection.lacking({cell.teacher.shown: cell.measurement for cell in cells})
