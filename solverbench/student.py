"""One training as it moves: parameters and their average, both optimisers, the discriminator, the history.

An iteration is GAS's: student, discriminator, losses, one clipped Adam step, the average.
"""

from __future__ import annotations

import hashlib
import math
import platform
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from solverbench import __version__, files, losses, zoo
from solverbench.adversarial import Discriminator, discriminator_loss, generator_loss
from solverbench.errors import GridError, RecordError, TrainingError
from solverbench.execution import execute
from solverbench.recipes import Recipe
from solverbench.sampling import peak_memory
from solverbench.solver import LearnedSolver
from solverbench.tableaux import Tableau
from solverbench.teachers import Teacher
from solverbench.tracing import trace
from solverbench.zoo import Trained

COLUMNS = (
    "iteration",
    "loss",  # mean of distance + weight * adversarial, before the step
    "distance",  # mean of the distillation loss
    "adversarial",  # mean softplus(-(D(student) - D(teacher)))
    "discriminator",  # mean softplus(-(D(real) - D(fake))), of the discriminator's own step
    "d_real",
    "d_fake",
    "r1",
    "r2",
    "gradient",  # norm over all parameters, before clipping
    "validation",  # see `validation_error`; with the averaged parameters, after the step
)
"""Of a run's history; a number that an iteration doesn't have is NaN, and empty in the CSV file."""

FORMAT, VERSION = "solverbench-checkpoint", 1
DISTILLED = ("gs",)
"""Solvers whose name says that no discriminator trained them."""
_VALIDATION_CHUNK = 250


@dataclass(frozen=True, eq=False)
class Pairs:
    """Unit noise and the teacher's images of it, both [n, C, H, W] float32."""

    noise: Tensor
    images: Tensor

    def pick(self, chosen: Tensor) -> Pairs:
        """Return the pairs with these indices."""
        chosen = chosen.to(self.noise.device)
        return Pairs(self.noise[chosen], self.images[chosen])


@dataclass(frozen=True, eq=False)
class Data:
    """What a training is made from; the two share no seed."""

    train: Pairs
    validation: Pairs


@dataclass(frozen=True, eq=False)
class Job:
    """One training: a solver, its budget, its teacher, how it is trained and the training seed."""

    solver: LearnedSolver
    nfe: int
    teacher: Teacher
    recipe: Recipe
    seed: int

    def __post_init__(self) -> None:
        if self.recipe.adversarial and self.solver.name in DISTILLED:
            weight = f"adversarial_weight={self.recipe.adversarial_weight:g}"
            raise TrainingError(f"{self.label}: {weight}, but {self.solver.name} is trained without; train gas")

    @property
    def label(self) -> str:
        """The job in words."""
        return f"{self.solver.name} nfe={self.nfe} training seed {self.seed}"

    def folder(self, out: Path) -> Path:
        """Return the run's folder under `out`: its name ends in a hash of all that the result depends on."""
        settings = {k: v for k, v in self.recipe.as_dict().items() if k != "training_seeds"}
        body = [self.solver.spec, self.nfe, self.teacher.identity, settings, self.seed]
        name = f"{self.solver.name}-nfe{self.nfe}-seed{self.seed}-{files.digest(body)[:12]}"
        return out / "trained" / self.teacher.name / "runs" / name


class Student:
    """The moving parts of one training: parameters and their average, both optimisers, the discriminator, the history.

    Batches and fresh noise are functions of (training seed, iteration), so no generator's state needs to be kept.
    """

    def __init__(self, job: Job, data: Data) -> None:
        self.job, self.data = job, data
        self.scale = job.teacher.schedule.prior_scale  # every solver starts where the teacher does
        recipe, teacher = job.recipe, job.teacher
        initial = job.solver.initial(teacher.schedule, job.nfe)
        self.shapes = {name: tensor.shape for name, tensor in initial.items()}
        # One vector: Adam, clipping and averaging act entry by entry or on the norm of all, so nothing changes.
        self.vector = torch.cat([tensor.flatten() for tensor in initial.values()]).requires_grad_(True)
        self.average = self.vector.detach().clone()
        self.adam = torch.optim.Adam([self.vector], lr=recipe.lr, betas=(0.9, 0.999), eps=1e-8)
        self.distance = losses.distance(recipe.loss, teacher.name, teacher.device)
        self.discriminator = _discriminator(job) if recipe.adversarial else None
        if self.discriminator is not None:
            self.discriminator_adam = torch.optim.Adam(self.discriminator.parameters(), lr=recipe.discriminator_lr)
        if torch.device(teacher.device).type == "cuda":
            torch.cuda.reset_peak_memory_stats(teacher.device)
        self.iteration = 0
        self.history: list[dict[str, float]] = []
        self.best = (math.inf, 0, self.average.clone())
        self.seconds, self.started = 0.0, time.perf_counter()
        self.order: tuple[int, Tensor] = (-1, torch.empty(0))

    def start(self, checkpoint: Path) -> None:
        """Go on from the checkpoint; without one, measure the untrained solver."""
        if checkpoint.is_file():
            self.restore(checkpoint)
        else:
            self.history.append({"iteration": 0, "validation": self.validate()})

    def step(self) -> dict[str, float]:
        """Make one iteration and return its row of the history. Source: GAS, arXiv:2510.17699, Algorithm 1 and code."""
        recipe, iteration = self.job.recipe, self.iteration + 1
        batch = self._batch(iteration)
        tableau = self.tableau(self.vector)
        student = execute(tableau, self.job.teacher.denoise, self.scale * batch.noise)
        loss = distance = self.distance(student, batch.images)
        shown = {"distance": distance.mean()}
        if self.discriminator is not None:
            shown |= self._discriminator_step(tableau, batch, iteration)
            adversarial = generator_loss(self.discriminator, student, batch.images)
            shown["adversarial"] = adversarial.mean()
            loss = distance + recipe.adversarial_weight * adversarial
        shown["loss"] = loss.mean()
        self.adam.zero_grad()
        shown["loss"].backward()  # type: ignore[no-untyped-call]
        norm = torch.nn.utils.clip_grad_norm_([self.vector], recipe.clip)
        numbers = torch.stack([value.detach() for value in shown.values()]).tolist()  # the only wait for the device
        row = {"iteration": iteration, **dict(zip(shown, numbers, strict=True)), "gradient": float(norm)}
        _check_finite(row)
        self.adam.step()
        average(self.average, self.vector.detach(), recipe.ema_decay, iteration)
        if iteration % recipe.validate_every == 0 or iteration == recipe.iterations:
            row["validation"] = error = self.validate()
            if error < self.best[0]:
                self.best = (error, iteration, self.average.clone())
        self.iteration = iteration
        self.history.append(row)
        return row

    def _discriminator_step(self, tableau: Tableau, batch: Pairs, iteration: int) -> dict[str, Tensor]:
        """Update the discriminator once: the batch's teacher images against the student's images of fresh noise."""
        assert self.discriminator is not None
        generator = _generator(self.job.seed, "fresh noise", iteration)
        fresh = torch.randn(batch.noise.shape, generator=generator).to(batch.noise.device)
        with torch.no_grad():
            fakes = execute(tableau, self.job.teacher.denoise, self.scale * fresh)
        self.discriminator.requires_grad_(True)
        terms = discriminator_loss(self.discriminator, batch.images, fakes, self.job.recipe.gamma)
        self.discriminator_adam.zero_grad()
        terms.loss.backward()  # type: ignore[no-untyped-call]
        self.discriminator_adam.step()
        self.discriminator.requires_grad_(False)
        shown = {"discriminator": terms.adversarial, "d_real": terms.real, "d_fake": terms.fake}
        return shown | {"r1": terms.r1, "r2": terms.r2}

    def tableau(self, vector: Tensor) -> Tableau:
        """Return the tableau with these parameters."""
        solver = self.job.solver.with_parameters(self.parameters(vector))
        try:
            grid = solver.grid(self.job.teacher.schedule, solver.steps(self.job.nfe))
            return trace(solver, grid, check=False)
        except (GridError, ValueError) as error:  # times that coincide, coefficients that overflow
            raise TrainingError(f"{error}: lower the learning rate, as in --set lr=1e-3") from error

    def parameters(self, vector: Tensor) -> dict[str, Tensor]:
        """Return the named parameters that are joined in `vector`."""
        parts = torch.split(vector, [shape.numel() for shape in self.shapes.values()])
        return {name: part.reshape(shape) for (name, shape), part in zip(self.shapes.items(), parts, strict=True)}

    @torch.no_grad()
    def validate(self) -> float:
        """Return the mean of `validation_error` over the validation pairs, with the averaged parameters."""
        tableau = self.tableau(self.average)
        pairs, denoise = self.data.validation, self.job.teacher.denoise
        chunks = zip(*(torch.split(part, _VALIDATION_CHUNK) for part in (pairs.noise, pairs.images)), strict=True)
        errors = [validation_error(execute(tableau, denoise, self.scale * noise), images) for noise, images in chunks]
        return float(torch.cat(errors).mean())

    def _batch(self, iteration: int) -> Pairs:
        """Return the iteration's pairs: in a new random order per epoch, an incomplete last batch dropped."""
        size, count = self.job.recipe.batch, len(self.data.train.noise)
        epoch, place = divmod(iteration - 1, count // size)
        if self.order[0] != epoch:
            self.order = epoch, torch.randperm(count, generator=_generator(self.job.seed, "order", epoch))
        return self.data.train.pick(self.order[1][place * size : (place + 1) * size])

    def save(self, path: Path) -> None:
        """Write everything that the rest of the run depends on."""
        tensors = {"vector": self.vector, "average": self.average, "best": self.best[2]}
        tensors["history"] = torch.tensor([_values(row) for row in self.history], dtype=torch.float64)
        tensors |= _optimiser_tensors("adam", self.adam)
        if self.discriminator is not None:
            tensors |= {f"discriminator.{name}": tensor for name, tensor in self.discriminator.state_dict().items()}
            tensors |= _optimiser_tensors("discriminator_adam", self.discriminator_adam)
        best = self.best[:2] if math.isfinite(self.best[0]) else None
        metadata = {"iteration": self.iteration, "best": best, "seconds": self._elapsed()}
        zoo.write(path, tensors, metadata, FORMAT, VERSION)

    def restore(self, path: Path) -> None:
        """Take up what `save` wrote."""
        tensors, metadata = zoo.read(path, FORMAT, VERSION)
        try:
            self.vector.data.copy_(tensors["vector"])
            self.average.copy_(tensors["average"])
            self.best = (*(metadata["best"] or (math.inf, 0)), tensors["best"])
            self.history = [_row(values) for values in tensors["history"].tolist()]
            _restore_optimiser("adam", self.adam, tensors)
            if self.discriminator is not None:
                names = self.discriminator.state_dict()
                self.discriminator.load_state_dict({name: tensors[f"discriminator.{name}"] for name in names})
                _restore_optimiser("discriminator_adam", self.discriminator_adam, tensors)
            self.iteration, self.seconds = int(metadata["iteration"]), float(metadata["seconds"])
        except (KeyError, TypeError, RuntimeError) as error:
            raise RecordError(f"{path}: an incomplete checkpoint ({error}); delete it to start the run again") from None

    def result(self) -> Trained:
        """Return the trained solver: the last averaged parameters or the best ones, as the recipe says."""
        recipe, teacher = self.job.recipe, self.job.teacher
        last = self.history[-1]["validation"]
        best, best_iteration, best_vector = self.best
        chosen = (last, self.average) if recipe.choose == "last" else (best, best_vector)
        run = {
            "seed": self.job.seed,
            "validation": chosen[0],
            "validation_initial": self.history[0]["validation"],
            "validation_last": last,
            "validation_best": best,
            "best_iteration": best_iteration,
            "loss_last": self.history[-1]["loss"],
            "cost": self._cost(),
        }
        with torch.no_grad():
            tableau = self.tableau(chosen[1])
        record = {
            "recipe": recipe.as_dict(),
            "seed": self.job.seed,
            "seeds": {
                "training": [recipe.train.start, recipe.train.stop - 1],
                "validation": [recipe.validation.start, recipe.validation.stop - 1],
            },
            "targets": {"sampler": teacher.sampler, "nfe": teacher.sampler_nfe},
            "runs": [run],
            "versions": {"solverbench": __version__, "torch": torch.__version__, "python": platform.python_version()},
        }
        parameters = {name: part.clone() for name, part in self.parameters(chosen[1]).items()}
        return Trained(self.job.solver.spec, self.job.nfe, teacher.name, teacher.identity, parameters, tableau, record)

    def _elapsed(self) -> float:
        return self.seconds + time.perf_counter() - self.started

    def _cost(self) -> dict[str, Any]:
        """Image-calls of the network (calls times images), and what they took."""
        recipe, nfe, device = self.job.recipe, self.job.nfe, torch.device(self.job.teacher.device)
        images = recipe.iterations * recipe.batch
        validations = sum("validation" in row for row in self.history) * recipe.validation_size
        return {
            "teacher_calls": (recipe.train_size + recipe.validation_size) * self.job.teacher.sampler_nfe,
            "student_calls_with_gradient": images * nfe,
            "student_calls_without": (images * recipe.adversarial + validations) * nfe,
            "seconds": round(self._elapsed(), 3),
            "device": torch.cuda.get_device_name(device) if device.type == "cuda" else f"cpu ({platform.machine()})",
            "peak_memory_bytes": peak_memory(device),
        }


def average(shadow: Tensor, values: Tensor, decay: float, updates: int) -> None:
    """Move `shadow` towards `values`: d = min(decay, (1 + k)/(10 + k)) is kept, k = `updates`, 1 at the first.

    Source: the torch-ema package, version 0.3, which GAS's code uses.
    """
    kept = min(decay, (1 + updates) / (10 + updates))
    shadow.sub_((1 - kept) * (shadow - values))


def validation_error(images: Tensor, targets: Tensor) -> Tensor:
    """Return per image the root of the mean squared difference over channels and pixels, [B], in units of [-1, 1]."""
    return (images - targets).square().flatten(1).mean(1).sqrt()


def _discriminator(job: Job) -> Discriminator:
    channels, height, width = job.teacher.shape
    if height != width:
        raise TrainingError(f"{job.label}: images are {height} x {width}; the discriminator needs square ones: use gs")
    recipe = job.recipe
    discriminator = Discriminator(
        channels,
        width,
        widths=recipe.widths,
        cardinalities=recipe.cardinalities,
        blocks=recipe.blocks,
        generator=_generator(job.seed, "discriminator", 0),
    )
    return discriminator.to(job.teacher.device).requires_grad_(False)


def _generator(seed: int, purpose: str, number: int) -> torch.Generator:
    """A CPU generator of its own for each use; hashed, so that it repeats no image's noise."""
    digest = hashlib.sha256(f"{purpose} {number} of training seed {seed}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)


def _check_finite(row: Mapping[str, float]) -> None:
    for name, value in row.items():
        if not math.isfinite(value):
            raise TrainingError(f"{name} is {value}; lower the learning rate, as in --set lr=1e-3")


def _values(row: Mapping[str, float]) -> list[float]:
    return [row.get(name, math.nan) for name in COLUMNS]


def _row(values: Sequence[float]) -> dict[str, float]:
    return {name: value for name, value in zip(COLUMNS, values, strict=True) if not math.isnan(value)}


def _optimiser_tensors(prefix: str, optimiser: torch.optim.Optimizer) -> dict[str, Tensor]:
    state = optimiser.state_dict()["state"]
    return {f"{prefix}.{index}.{name}": value for index, each in state.items() for name, value in each.items()}


def _restore_optimiser(prefix: str, optimiser: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        if key.startswith(f"{prefix}."):
            _, index, name = key.split(".")
            state.setdefault(int(index), {})[name] = value
    optimiser.load_state_dict({"state": state, "param_groups": optimiser.state_dict()["param_groups"]})
