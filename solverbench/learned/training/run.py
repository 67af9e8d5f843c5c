"""The settings of one training: solver, number of calls, teacher, recipe and training seed."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from solverbench import files, plugins, registries
from solverbench.errors import TrainingError
from solverbench.learned.recipes import Recipe
from solverbench.learned.trained_files import Trained
from solverbench.method.schedules import NoiseSchedule
from solverbench.method.solver import LearnedSolver
from solverbench.method.spec import make
from solverbench.method.tracing import own_grid, trace
from solverbench.teachers.teacher import Teacher


@dataclass(frozen=True, eq=False)
class TrainingRun:
    """One training: solver, budget, teacher, recipe and training seed.

    Args:
        below: the same solver trained for fewer calls, from which this training starts; the untrained solver if None.
    """

    solver: LearnedSolver
    nfe: int
    teacher: Teacher
    recipe: Recipe
    seed: int
    below: Trained | None = None

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

    def initial(self) -> dict[str, Tensor]:
        """Return the parameters that training starts from.

        Raises:
            SpecError, BudgetError, GridError: the recipe's `start` can't be read, or spends other calls.
            TrainingError: the solver can't start there, has no rule to start from fewer calls, or its result doesn't
                fit.
        """
        schedule = self.teacher.schedule
        if self.below is not None:
            return self._grown(self.below, schedule)
        if not self.recipe.start:
            return self.solver.initial(schedule, self.nfe)
        start = make(self.recipe.start).on(schedule)
        return self.solver.imitating(trace(start, own_grid(start, schedule, self.nfe)), schedule)

    def _grown(self, below: Trained, schedule: NoiseSchedule) -> dict[str, Tensor]:
        found = self.solver.with_parameters(below.parameters).grown(schedule, self.nfe)
        wanted = self.solver.shapes(self.nfe)
        shapes = {name: tuple(part.shape) for name, part in found.items()}
        if shapes != wanted:
            raise TrainingError(
                asked=f"{self.label} with warm_start=true",
                wrong=f"`grown` returned parameters of the shapes {shapes}, `initial` has {wanted}",
                remedy="correct the solver's `grown`, or leave warm_start out",
            )
        return {name: found[name] for name in wanted}

    def folder(self, out: Path) -> Path:
        """Return the run's folder under `out`; its name ends in a hash of everything that the result depends on."""
        settings = {k: v for k, v in self.recipe.as_key().items() if k != "training_seeds"}
        body = [self.solver.key, self.nfe, self.teacher.ode, settings, self.seed, *self._code()]
        body += [] if self.below is None else [{"below": self.below.identity}]
        name = f"{self.solver.name}-nfe{self.nfe}-seed{self.seed}-{files.digest(body)[:12]}"
        return out / "trained" / self.teacher.name / "runs" / name

    def _code(self) -> list[str]:
        """Hashes of the source of a plugin's solver, loss or loss network, and of the discriminator's weights.

        These may change under the same name.
        """
        asked = [(registries.solvers, self.solver.name), (registries.losses, self.recipe.loss)]
        if self.teacher.features:
            asked.append((registries.teachers, self.teacher.base))
        found = [told["sha256"] for each in asked if (told := plugins.provenance(*each))]
        weights = Path(self.recipe.discriminator_weights)
        if self.recipe.discriminator_weights and weights.is_file():
            found.append(files.sha256(weights))
        return found
