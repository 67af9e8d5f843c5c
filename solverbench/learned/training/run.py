"""The settings of one training: solver, number of calls, teacher, recipe and training seed."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from solverbench import files, plugins, registries
from solverbench.errors import TrainingError
from solverbench.learned.recipes import Recipe
from solverbench.method.solver import LearnedSolver
from solverbench.teachers.teacher import Teacher


@dataclass(frozen=True, eq=False)
class TrainingRun:
    """One training: solver, budget, teacher, recipe and training seed."""

    solver: LearnedSolver
    nfe: int
    teacher: Teacher
    recipe: Recipe
    seed: int

    def __post_init__(self) -> None:
        if self.recipe.adversarial and self.solver.distilled:
            weight = f"adversarial_weight={self.recipe.adversarial_weight:g}"
            raise TrainingError(
                asked=self.label,
                wrong=f"{weight}, but {self.solver.name} has no adversarial training",
                remedy="leave it out or train gas",
            )

    @property
    def label(self) -> str:
        """The run as human-readable text."""
        return f"{self.solver.name} nfe={self.nfe} training seed {self.seed}"

    def folder(self, out: Path) -> Path:
        """Return the run's folder under `out`; its name ends in a hash of everything that the result depends on."""
        settings = {k: v for k, v in self.recipe.as_key().items() if k != "training_seeds"}
        body = [self.solver.key, self.nfe, self.teacher.ode, settings, self.seed, *self._code()]
        name = f"{self.solver.name}-nfe{self.nfe}-seed{self.seed}-{files.digest(body)[:12]}"
        return out / "trained" / self.teacher.name / "runs" / name

    def _code(self) -> list[str]:
        """Hashes of the source of a plugin's solver, loss or loss network, which may change under the same name."""
        asked = [(registries.solvers, self.solver.name), (registries.losses, self.recipe.loss)]
        if self.teacher.features:
            asked.append((registries.teachers, self.teacher.base))
        return [told["sha256"] for each in asked if (told := plugins.provenance(*each))]
