"""The result of a training: the parameters that the recipe chooses, with the record of how they were made."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from solverbench._version import __version__
from solverbench.learned.trained_files import Trained
from solverbench.learned.training.trainer import Trainer
from solverbench.sampling.devices import peak_memory
from solverbench.teachers.convergence import Convergence


def result(student: Trainer) -> Trained:
    """Return the trained solver with the last averaged parameters or the best ones, as the recipe says.

    A training that blew up has the best ones.
    """
    recipe, teacher = student.job.recipe, student.job.teacher
    measured = [row for row in student.history if "validation" in row]
    last = measured[-1]["validation"]
    kept_last = recipe.choose == "last" and not student.blown_up
    chosen = (last, student.average) if kept_last else (student.best.validation, student.best.vector)
    run = {
        "seed": student.job.seed,
        "validation": chosen[0],
        "validation_initial": measured[0]["validation"],
        "validation_last": last,
        "validation_best": student.best.validation,
        "best_iteration": student.best.iteration,
        "iterations": student.iteration,
        "loss_last": student.history[-1]["loss"],
        "note": _note(student, measured),
        "cost": _cost(student),
    }
    if student.blown_up:
        run["stopped"] = student.iteration
    with torch.no_grad():
        tableau = student.tableau(chosen[1])
    record = {
        "recipe": recipe.as_dict(),
        "seed": student.job.seed,
        "seeds": {
            "training": [recipe.train.start, recipe.train.stop - 1],
            "validation": [recipe.validation.start, recipe.validation.stop - 1],
        },
        "targets": {"sampler": teacher.sampler, "nfe": teacher.sampler_nfe, **_error(student.data.convergence)},
        "runs": [run],
        "versions": {"solverbench": __version__, "torch": torch.__version__, "python": platform.python_version()},
    }
    if (below := student.job.below) is not None:
        record["warm_start"] = {
            "nfe": below.nfe,
            "identity": below.identity,
            "student_calls": _spent(below),
            "taken": student.warm,
        }
    parameters = {name: part.clone() for name, part in student.descent.parameters(chosen[1]).items()}
    return Trained(student.job.solver.spec, student.job.nfe, teacher.name, teacher.ode, parameters, tableau, record)


def _spent(below: Trained) -> int:
    """Return the network calls x images of the trainings that led to a result, its own included."""
    [run] = below.record["runs"]
    own: int = run["cost"]["student_calls_with_gradient"] + run["cost"]["student_calls_without"]
    before: int = below.record.get("warm_start", {}).get("student_calls", 0)
    return own + before


def _error(found: Convergence | None) -> dict[str, Any]:
    """Return the error of the teacher's sampler for the record; empty if it wasn't measured."""
    return {} if found is None else {"error": found.error, "compared": found.text}


def _note(student: Trainer, measured: Sequence[Mapping[str, float]]) -> str:
    """Return a warning for users of the result; empty if there is none."""
    best = min(measured, key=lambda row: row["validation"])
    if student.blown_up:
        last, kept = measured[-1]["validation"], student.best
        return (
            f"stopped at iteration {student.iteration} of {student.job.recipe.iterations}: the validation error rose "
            f"to {last:.4g}, {last / kept.validation:.1f} times the best so far; the parameters of iteration "
            f"{kept.iteration} ({kept.validation:.4g}) are kept. Lower the learning rate, or set schedule=cosine"
        )
    if best is measured[0]:
        below = student.job.below
        began = f"start's, the result for {below.nfe} calls" if below and student.warm else "untrained solver's"
        return f"the validation error never fell below the {began}; lower the learning rate, or train longer"
    if best["iteration"] <= student.iteration / 2 and not student.job.recipe.patience:
        return (
            f"the validation error stopped falling at iteration {best['iteration']:.0f} of {student.iteration} "
            f"({best['validation']:.4g}, at the end {measured[-1]['validation']:.4g}); lower the learning "
            "rate, or set choose=best"
        )
    return ""


def _cost(student: Trainer) -> dict[str, Any]:
    """Return the cost: network calls x images, time, device and peak memory."""
    recipe, device = student.job.recipe, torch.device(student.job.teacher.device)
    return {
        "teacher_calls": (recipe.train_size + recipe.validation_size) * student.job.teacher.sampler_nfe,
        "student_calls_with_gradient": student.calls["with_gradient"],
        "student_calls_without": student.calls["without"],
        "seconds": round(student.elapsed, 3),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else f"cpu ({platform.machine()})",
        "peak_memory_bytes": peak_memory(device),
    }
