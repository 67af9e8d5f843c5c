"""Training without iterations: parameters that are estimated from the teacher in one pass over the training noises."""

from __future__ import annotations

from solverbench.errors import TrainingError
from solverbench.learned.estimated import EstimatedSolver
from solverbench.learned.recipes import chosen
from solverbench.learned.training.run import TrainingRun
from solverbench.learned.training.trainer import Trainer

USED = frozenset(
    ("train_first", "train_size", "validation_first", "validation_size", "batch", "training_seeds", "loss",
     "allow_metric_loss")
)  # fmt: skip
"""Settings of a recipe that act on an estimate."""


def check(job: TrainingRun) -> None:
    """Raise TrainingError if the job's recipe changes a setting that does nothing here."""
    usual, asked = chosen(job.solver, job.teacher).as_dict(), job.recipe.as_dict()
    changed = [name for name, value in asked.items() if value != usual[name] and name not in USED]
    if changed:
        raise TrainingError(
            asked=f"{job.label}, {', '.join(f'{name}={asked[name]}' for name in changed)}",
            wrong="its parameters are estimated from the teacher in one pass, so this would change nothing",
            remedy=f"leave it out, or set one of {', '.join(sorted(USED))}",
        )


def estimate(student: Trainer, solver: EstimatedSolver) -> dict[str, float]:
    """Give the student the parameters estimated on the training noises; return the row of its history."""
    job, pairs = student.job, student.data.train
    found = solver.estimate(job.teacher, pairs.noise, pairs.seeds.tolist(), batch=job.recipe.batch, seed=job.seed)
    return student.adopt(solver.parameters_of(found), found.calls)
