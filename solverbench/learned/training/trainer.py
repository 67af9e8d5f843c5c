"""The training loop's state: parameters and average, optimisers, moved noises, discriminator and history.

An iteration follows GAS (student, discriminator, losses, clipped step, average) or LD3, where noises move too.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from solverbench.errors import GridError, TrainingError
from solverbench.learned.stages import GROUPS, ends
from solverbench.learned.training import discriminators, losses
from solverbench.learned.training.adversarial import discriminator_loss, generator_loss
from solverbench.learned.training.data import Data, Pairs
from solverbench.learned.training.optimiser import GroupedOptimiser
from solverbench.learned.training.patience import Patience
from solverbench.learned.training.relaxation import Relaxation, radius
from solverbench.learned.training.run import TrainingRun
from solverbench.method.execution import recomputed, unrounded
from solverbench.method.tableau import Tableau
from solverbench.method.tracing import trace
from solverbench.seeds import generator

_VALIDATION_CHUNK = 250
_SLOWER = "lower the learning rate, as in --set lr=1e-3"


@dataclass(frozen=True, eq=False)
class Best:
    """The parameters with the lowest criterion so far, and the noises at that time."""

    criterion: float
    iteration: int
    vector: Tensor
    validation: float
    noises: tuple[Tensor, ...] = ()


class Trainer:
    """The state of one training.

    Batches and fresh noise are functions of (training seed, iteration), so no generator state needs to be saved.
    """

    def __init__(self, job: TrainingRun, data: Data) -> None:
        self.job, self.data = job, data
        recipe, teacher = job.recipe, job.teacher
        self.descent = GroupedOptimiser(job.solver, job.initial(), recipe, job.nfe)
        self.average = self.descent.vector.detach().clone()
        self.scale = self.tableau(self.average).noise_scale(teacher.schedule)
        self.stages = ends(recipe.stages, recipe.cycles, recipe.iterations)
        self.distance = losses.distance(recipe.loss, teacher, allow_metric_loss=recipe.allow_metric_loss)
        self.discriminator = discriminators.make(job) if recipe.adversarial else None
        if self.discriminator is not None:
            self.discriminator_adam = torch.optim.Adam(self.discriminator.parameters(), lr=recipe.discriminator_lr)
        self.relaxations = _relaxations(job, data)
        self.patience = Patience(recipe)
        self.calls = {"with_gradient": 0, "without": 0}
        if torch.device(teacher.device).type == "cuda":
            torch.cuda.reset_peak_memory_stats(teacher.device)
        self.iteration = 0
        self.pretrained = 0
        self.history: list[dict[str, float]] = []
        self.path: list[tuple[int, Tensor]] = []
        self.best = Best(math.inf, 0, self.average.clone(), math.inf)
        self.seconds, self.started = 0.0, time.perf_counter()
        self.order: tuple[str, int, Tensor] = ("", -1, torch.empty(0))
        self.first = self._first_calls() if job.solver.first_fixed and not recipe.radius else None

    @property
    def vector(self) -> Tensor:
        """The trained parameters as one vector."""
        return self.descent.vector

    @property
    def finished(self) -> bool:
        """Whether all iterations are done, or patience or a validation error far above the best ended the training."""
        return self.iteration >= self.job.recipe.iterations or self.patience.over or self.blown_up

    @property
    def done(self) -> int:
        """The iterations that were made, those of the discriminator alone included."""
        return self.pretrained + self.iteration

    @property
    def blown_up(self) -> bool:
        """Whether the last validation error is above the recipe's multiple of the best so far."""
        multiple, last = self.job.recipe.stop_above, self.history[-1] if self.history else {}
        return bool(multiple) and last.get("validation", 0.0) > multiple * self.best.validation

    @property
    def active(self) -> frozenset[str]:
        """The groups that the next iteration trains."""
        return next((groups for last, groups in self.stages if self.iteration < last), self.stages[-1][1])

    def start(self) -> None:
        """Measure the solver that training starts from; of two starts, take the one with the lower validation error.

        A warm start competes with the recipe's own start, which is the better one for few calls.
        """
        measured = self._validated()
        if self.job.below is not None:
            warm = self._start_at(self.descent.joined(replace(self.job, below=None).initial()))
            own = self._validated()
            if own["validation"] < measured["validation"] or math.isnan(measured["validation"]):
                measured = own
            else:
                self._start_at(warm)
        self.path = [(0, self.average.clone())]
        self.history.append({"iteration": 0, **measured})

    @property
    def warm(self) -> bool:
        """Whether training started from the result for fewer calls."""
        if self.job.below is None:
            return False
        return torch.allclose(self.path[0][1], self.descent.joined(self.job.initial()))

    def _start_at(self, vector: Tensor) -> Tensor:
        """Set the parameters; return those of before."""
        before = self.average.clone()
        self.descent.place(vector)
        self.average.copy_(vector)
        return before

    def step(self) -> dict[str, float]:
        """Make one iteration and return its row of the history.

        Sources: GAS, arXiv:2510.17699, Algorithm 1 and code; LD3, arXiv:2405.15506, public code.
        """
        if self.pretrained < self.job.recipe.pretraining:
            return self._pretrain()
        recipe, iteration = self.job.recipe, self.iteration + 1
        active = self.active
        self._begin_round(iteration)
        chosen = self._chosen(iteration)
        batch = self.data.train.pick(chosen)
        relaxation = self.relaxations[0] if self.relaxations else None
        noise = batch.noise if relaxation is None else relaxation.moved[chosen].requires_grad_(True)
        tableau = self.tableau(self.vector)
        student = self._run(tableau, batch, noise, self._known(0, chosen))
        loss = distance = self.distance(student, batch.images)
        shown = {"distance": distance.mean()}
        if self.discriminator is not None:
            shown |= self._discriminator_step(tableau, batch, iteration)
            judge = self._judge(batch)
            adversarial = generator_loss(judge, student, batch.images, recipe.adversarial_loss)
            shown["adversarial"] = adversarial.mean()
            loss = distance + recipe.adversarial_weight * adversarial
        shown["loss"] = loss.mean()
        shown["loss"].backward()  # type: ignore[no-untyped-call]
        numbers = torch.stack([value.detach() for value in shown.values()]).tolist()  # the only device sync
        row = {"iteration": iteration, **dict(zip(shown, numbers, strict=True)), "gradient": self.descent.clip(active)}
        _check_finite(row)
        self.descent.step(iteration)
        average(self.average, self.vector.detach(), recipe.ema_decay, iteration)
        if relaxation is not None:
            row["accepted"] = self._move(relaxation, self.data.train, chosen, noise, distance.detach())
        self.iteration = iteration
        if iteration % recipe.validate_every == 0 or iteration == recipe.iterations:
            row |= self._validated()
            self._weigh(row, active)
        self.history.append(row)
        return row

    def _pretrain(self) -> dict[str, float]:
        """Train the discriminator alone on images of the start, once; return the row of the history.

        These iterations are numbered -N to -1, and their rows precede the start's. Their batches and fresh noise are
        others than those of the iterations that follow.
        """
        number = self.pretrained + 1
        batch = self.data.train.pick(self._chosen(number, "order before"))
        with torch.no_grad():
            tableau = self.tableau(self.vector)
        shown = self._discriminator_step(tableau, batch, number, "fresh noise before")
        numbers = torch.stack([value.detach() for value in shown.values()]).tolist()
        row = {"iteration": number - 1 - self.job.recipe.pretraining, **dict(zip(shown, numbers, strict=True))}
        _check_finite(row)
        self.pretrained = number
        self.history.insert(len(self.history) - 1, row)
        return row

    def adopt(self, parameters: Mapping[str, Tensor], calls: int) -> dict[str, float]:
        """Take parameters that were estimated, as the only iteration; return its row of the history.

        Args:
            calls: network calls times images of the estimate, each with a gradient.
        """
        self.calls["with_gradient"] += calls
        vector = torch.cat([parameters[name].flatten() for name in self.descent.order])
        self.descent.place(vector)
        self.average.copy_(vector)
        chosen = self._chosen(1)
        batch = self.data.train.pick(chosen)
        with torch.no_grad():
            images = self._run(self.tableau(vector), batch, batch.noise, self._known(0, chosen))
            loss = float(self.distance(images, batch.images).mean())
        self.iteration = 1
        row = {"iteration": 1, "loss": loss, **self._validated()}
        _check_finite(row)
        self._weigh(row, frozenset())
        self.history.append(row)
        return row

    def _begin_round(self, iteration: int) -> None:
        """Start a round, a pass over the training pairs; LD3 starts all but the first from the best parameters."""
        epoch, place = self._place(iteration)
        if place or not epoch:
            return
        for relaxation in self.relaxations[:1]:
            if self.job.recipe.compat:  # LD3's code also moves the validation noises, once a round
                self._move_all(self.relaxations[1], self.data.validation)
                self.relaxations[1].end_round()
                relaxation.rate = self.relaxations[1].rate
            else:
                relaxation.end_round()
        if self.job.recipe.patience:
            self._take_up_best()  # parameters only; the noises keep their values

    def _weigh(self, row: Mapping[str, float], active: frozenset[str]) -> None:
        """Keep the parameters if they are the best so far; otherwise count against patience."""
        improved = self._criterion(row) < self.best.criterion
        if improved:
            noises = tuple(relaxation.moved.clone() for relaxation in self.relaxations)
            found = self._criterion(row), self.iteration, self.average.clone(), row["validation"], noises
            self.best = Best(*found)
        if not self.patience.exhausted(improved):
            return
        self._take_up_best()
        for relaxation, noise in zip(self.relaxations, self.best.noises, strict=True):
            relaxation.moved.copy_(noise)
        if self.patience.partial:  # from now on use all validation pairs, also for the best so far
            self.patience.partial = False
            again = self._validated()
            self.best = replace(self.best, criterion=self._criterion(again), validation=again["validation"])
        else:
            watched = max(self.stages[-1][1], key=GROUPS.index)
            self.patience.count(self.descent.decay(active, watched))

    def _criterion(self, row: Mapping[str, float]) -> float:
        return row["validation_loss" if self.job.recipe.validate_by == "loss" else "validation"]

    def _take_up_best(self) -> None:
        if math.isfinite(self.best.criterion):
            self.descent.place(self.best.vector)
            self.average.copy_(self.best.vector)

    def _move(self, relaxation: Relaxation, pairs: Pairs, chosen: Tensor, noise: Tensor, before: Tensor) -> float:
        """Move the noises where that lowers the loss of the student's new parameters; return their share.

        The public code of LD3 compares with the loss `before` the parameters changed (compat=true); by default both
        losses use the new parameters.
        """
        assert noise.grad is not None
        here = noise.detach()
        proposal = relaxation.proposal(chosen, here, noise.grad)
        batch = pairs.pick(chosen)
        with torch.no_grad():
            tableau = self.tableau(self.vector)
            if not self.job.recipe.compat:
                before = self.distance(self._run(tableau, batch, here), batch.images)
            after = self.distance(self._run(tableau, batch, proposal), batch.images)
        return relaxation.accept(chosen, proposal, after < before)

    def _move_all(self, relaxation: Relaxation, pairs: Pairs) -> None:
        """Move all noises of `pairs` once, with fixed parameters."""
        for chosen in torch.split(torch.arange(len(pairs.noise)), self.job.recipe.batch):
            noise = relaxation.moved[chosen].requires_grad_(True)
            batch = pairs.pick(chosen)
            with torch.no_grad():
                tableau = self.tableau(self.vector)
            distance = self.distance(self._run(tableau, batch, noise), batch.images)
            (noise.grad,) = torch.autograd.grad(distance.mean(), noise)
            self._move(relaxation, pairs, chosen, noise, distance.detach())

    def _judge(self, batch: Pairs) -> Callable[[Tensor], Tensor]:
        """Return the discriminator of images under the batch's classes: of the batch, or of several in a row."""
        discriminator, teacher = self.discriminator, self.job.teacher
        assert discriminator is not None
        if discriminator.embedding is None:
            return discriminator
        assert teacher.condition is not None
        labels = teacher.condition.labels(batch.seeds.tolist(), teacher.shape)
        classes = torch.tensor(labels, device=batch.images.device)

        def judge(images: Tensor) -> Tensor:
            scores: Tensor = discriminator(images, classes.repeat(len(images) // len(classes)))
            return scores

        return judge

    def _discriminator_step(
        self, tableau: Tableau, batch: Pairs, iteration: int, purpose: str = "fresh noise"
    ) -> dict[str, Tensor]:
        """Update the discriminator once, on the batch's teacher images and the student's images of fresh noise."""
        assert self.discriminator is not None
        recipe = self.job.recipe
        drawn = torch.randn(batch.noise.shape, generator=generator(self.job.seed, purpose, iteration))
        fresh = drawn.to(batch.noise.device)
        with torch.no_grad():
            fakes = self._run(tableau, batch, fresh)
        self.discriminator.requires_grad_(True)
        terms = discriminator_loss(
            self._judge(batch), batch.images, fakes, recipe.gamma, recipe.adversarial_loss,
            (recipe.r1_weight, recipe.r2_weight),
        )  # fmt: skip
        self.discriminator_adam.zero_grad()
        terms.loss.backward()  # type: ignore[no-untyped-call]
        self.discriminator_adam.step()
        self.discriminator.requires_grad_(False)
        shown = {"discriminator": terms.adversarial, "d_real": terms.real, "d_fake": terms.fake}
        return shown | {"r1": terms.r1, "r2": terms.r2}

    def tableau(self, vector: Tensor) -> Tableau:
        """Return the tableau with these parameters."""
        solver = self.job.solver.with_parameters(self.descent.parameters(vector))
        try:
            grid = solver.grid(self.job.teacher.schedule, solver.steps(self.job.nfe))
            return trace(solver, grid, check=False)
        except (GridError, ValueError) as error:  # coinciding times, overflowing coefficients
            wrong = error.finding("") if isinstance(error, GridError) else str(error)
            raise TrainingError(asked="its parameters", wrong=wrong, remedy=_SLOWER) from error

    def _run(self, tableau: Tableau, batch: Pairs, noise: Tensor, first: Tensor | None = None) -> Tensor:
        """Return the student's final states of `noise` [B, *shape] under the batch's conditions; count the calls."""
        denoise = self.job.teacher.denoiser(batch.seeds.tolist())
        grad = torch.is_grad_enabled()
        calls = len(noise) * (tableau.nfe - (first is not None))
        self.calls["with_gradient" if grad else "without"] += calls
        if grad and self.job.recipe.memory == "recompute":
            self.calls["without"] += calls
            return recomputed(tableau, denoise, self.scale * noise, first=first)
        return unrounded(tableau, denoise, self.scale * noise, first=first)

    def _first_calls(self) -> tuple[Tensor, Tensor]:
        """Return the first call's outputs for all pairs, computed once because training does not change them."""
        with torch.no_grad():
            tableau = self.tableau(self.vector)
            return self._outputs(tableau, self.data.train), self._outputs(tableau, self.data.validation)

    def _outputs(self, tableau: Tableau, pairs: Pairs) -> Tensor:
        made = []
        for chosen in torch.split(torch.arange(len(pairs.noise)), _VALIDATION_CHUNK):
            batch = pairs.pick(chosen)
            denoise = self.job.teacher.denoiser(batch.seeds.tolist())
            made.append(denoise(tableau.weights[0, 0].item() * self.scale * batch.noise, tableau.sigmas[0]))
            self.calls["without"] += len(chosen)
        return torch.cat(made)

    def _known(self, which: int, chosen: Tensor) -> Tensor | None:
        return None if self.first is None else self.first[which][chosen.to(self.first[which].device)]

    @torch.no_grad()
    def _validated(self) -> dict[str, float]:
        """Return the mean `validation_error` of the averaged parameters, and their loss with validate_by=loss."""
        recipe = self.job.recipe
        tableau = self.tableau(self.average)
        count = len(self.data.validation.noise)
        if self.patience.partial and recipe.validation_first_use:
            count = min(count, recipe.validation_first_use)
        errors, distances = [], []
        for chosen in torch.split(torch.arange(count), _VALIDATION_CHUNK):
            batch = self.data.validation.pick(chosen)
            images = self._run(tableau, batch, batch.noise, self._known(1, chosen))
            errors.append(validation_error(images, batch.images))
            if recipe.validate_by == "loss":
                if len(self.relaxations) > 1:
                    images = self._run(tableau, batch, self.relaxations[1].moved[chosen])
                distances.append(self.distance(images, batch.images))
        self.path.append((self.iteration, self.average.clone()))
        row = {"validation": float(torch.cat(errors).mean())}
        if distances:
            row["validation_loss"] = float(torch.cat(distances).mean())
        return row

    def _place(self, iteration: int) -> tuple[int, int]:
        """Return the epoch of an iteration and its index within the epoch, both from 0."""
        return divmod(iteration - 1, len(self.data.train.noise) // self.job.recipe.batch)

    def _chosen(self, iteration: int, purpose: str = "order") -> Tensor:
        """Return the indices of the iteration's pairs: a random order per epoch, without the incomplete last batch."""
        epoch, place = self._place(iteration)
        size = self.job.recipe.batch
        if self.order[:2] != (purpose, epoch):
            count = len(self.data.train.noise)
            self.order = purpose, epoch, torch.randperm(count, generator=generator(self.job.seed, purpose, epoch))
        return self.order[2][place * size : (place + 1) * size]

    @property
    def elapsed(self) -> float:
        """Seconds of training, over all sessions."""
        return self.seconds + time.perf_counter() - self.started


def average(shadow: Tensor, values: Tensor, decay: float, updates: int) -> None:
    """Move `shadow` towards `values`, keeping the share d = min(decay, (1 + k)/(10 + k)), k = `updates` from 1.

    Source: the torch-ema package, version 0.3, which GAS's code uses.
    """
    kept = min(decay, (1 + updates) / (10 + updates))
    shadow.sub_((1 - kept) * (shadow - values))


def validation_error(images: Tensor, targets: Tensor) -> Tensor:
    """Return the root mean squared difference over channels and pixels per image, [B], in units of [-1, 1]."""
    return (images - targets).square().flatten(1).mean(1).sqrt()


def _relaxations(job: TrainingRun, data: Data) -> list[Relaxation]:
    """Return the moving training noises; with compat=true also the validation noises, as in LD3's public code."""
    recipe = job.recipe
    if not recipe.radius:
        return []
    ball, rate = radius(recipe.radius, job.teacher.shape, job.nfe), round(recipe.noise_lr / job.nfe, 8)
    parts = [data.train, data.validation][: 1 + recipe.compat]
    return [Relaxation(pairs.noise, ball, rate) for pairs in parts]


def _check_finite(row: Mapping[str, float]) -> None:
    for name, value in row.items():
        if not math.isfinite(value):
            raise TrainingError(asked=name, wrong=f"{value} is not finite", remedy=_SLOWER)
