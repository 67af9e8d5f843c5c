"""The trained vector: its groups, their optimisers, and the decay of their learning rates."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from solverbench.errors import TrainingError
from solverbench.learned.recipes import AS_ALL, Recipe
from solverbench.learned.stages import GROUPS, parse
from solverbench.method.solver import LearnedSolver

_Setting = tuple[str, float, float]
"""Optimiser name, learning rate, minimum rate."""


class GroupedOptimiser:
    """The trained vector: the float64 parameters, concatenated in the order of their groups.

    Groups with equal optimiser and rates share one optimiser, and their gradient is clipped jointly.

    Args:
        initial: initial parameters, as returned by `LearnedSolver.initial`.
        nfe: number of calls; divides SGD's rate on offsets. Source: the public code of LD3.

    Raises:
        TrainingError: the parameters cannot be trained, or a stage of the recipe would train none.
    """

    def __init__(self, solver: LearnedSolver, initial: Mapping[str, Tensor], recipe: Recipe, nfe: int) -> None:
        _check(solver, initial, recipe)
        self.recipe = recipe
        self.shapes = {name: tensor.shape for name, tensor in initial.items()}
        self.order = sorted(initial, key=lambda name: GROUPS.index(solver.group(name)))
        self.vector = self.joined(initial).requires_grad_(True)
        self.slices = self._sliced(solver)
        # Views, so that an optimiser's step changes the vector.
        self.parts = {group: self.vector.detach()[place].requires_grad_(True) for group, place in self.slices.items()}
        settings: dict[_Setting, list[str]] = {}
        for group in self.parts:
            settings.setdefault(_setting(recipe, group, nfe), []).append(group)
        self.shared = list(settings.items())
        self.optimisers = [
            _optimiser(name, [self.parts[group] for group in groups], rate) for (name, rate, _), groups in self.shared
        ]
        self.peaks = [rate for (_, rate, _), _ in self.shared]
        """The optimisers' rates before the recipe's schedule; patience lowers them."""

    def joined(self, parameters: Mapping[str, Tensor]) -> Tensor:
        """Return parameters as a vector, in the order of their groups."""
        return torch.cat([parameters[name].flatten() for name in self.order])

    def parameters(self, vector: Tensor) -> dict[str, Tensor]:
        """Return the parameters in `vector` by name, in the solver's own order."""
        parts = torch.split(vector, [self.shapes[name].numel() for name in self.order])
        named = {name: part.reshape(self.shapes[name]) for name, part in zip(self.order, parts, strict=True)}
        return {name: named[name] for name in self.shapes}

    def clip(self, active: frozenset[str]) -> float:
        """Copy the vector's gradient to the active groups and clip it. Return its norm over these before clipping."""
        gradient = self.vector.grad
        assert gradient is not None
        for group, part in self.parts.items():
            part.grad = gradient[self.slices[group]].clone() if group in active else None
        self.vector.grad = None
        norms = [
            float(torch.nn.utils.clip_grad_norm_([self.parts[group] for group in groups], self.recipe.clip))
            for _, groups in self.shared
        ]
        return math.hypot(*norms)

    def step(self, iteration: int) -> None:
        """Make one optimiser step on the groups that have a gradient; iterations are counted from 1."""
        for ((_, _, least), _), peak, optimiser in zip(self.shared, self.peaks, self.optimisers, strict=True):
            optimiser.param_groups[0]["lr"] = rate(self.recipe, iteration, peak, least)
            optimiser.step()

    def place(self, vector: Tensor) -> None:
        """Set the parameters."""
        self.vector.data.copy_(vector)

    def decay(self, active: frozenset[str], watched: str) -> bool:
        """Lower the rates of the active groups; return whether `watched` is active and was at its minimum rate."""
        at_least = False
        for number, ((_, _, least), groups) in enumerate(self.shared):
            if active & set(groups):
                at_least |= watched in active & set(groups) and self.peaks[number] <= least
                self.peaks[number] = max(self.recipe.lr_decay * self.peaks[number], least)
        return at_least

    def tensors(self) -> dict[str, Tensor]:
        """Return the vector and the optimisers' state as named tensors."""
        found = {"vector": self.vector}
        for number, optimiser in enumerate(self.optimisers):
            found |= optimiser_tensors(f"optimiser{number}", optimiser)
            found[f"rate{number}"] = torch.tensor(self.peaks[number], dtype=torch.float64)
        return found

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Restore from `tensors()`; KeyError if a tensor is missing."""
        self.place(tensors["vector"])
        for number, optimiser in enumerate(self.optimisers):
            restore_optimiser(f"optimiser{number}", optimiser, tensors)
            self.peaks[number] = float(tensors[f"rate{number}"])

    def _sliced(self, solver: LearnedSolver) -> dict[str, slice]:
        found: dict[str, slice] = {}
        begin = 0
        for name in self.order:
            group, end = solver.group(name), begin + self.shapes[name].numel()
            found[group] = slice(found[group].start if group in found else begin, end)
            begin = end
        return found


def _check(solver: LearnedSolver, initial: Mapping[str, Tensor], recipe: Recipe) -> None:
    groups = set()
    for name, tensor in initial.items():
        asked = f"{solver.name}'s parameter {name!r}"
        if tensor.dtype != torch.float64 or not tensor.isfinite().all():
            raise TrainingError(
                asked=asked, wrong=f"starts as {tensor.tolist()}, {tensor.dtype}", remedy="give finite float64 numbers"
            )
        if (group := solver.group(name)) not in GROUPS:
            raise TrainingError(asked=asked, wrong=f"is in group {group!r}", remedy=f"use {', '.join(GROUPS)}")
        groups.add(group)
    if not sum(tensor.numel() for tensor in initial.values()):
        raise TrainingError(asked=solver.name, wrong="has no parameters to train", remedy="return some from `initial`")
    for trained, _ in parse(recipe.stages):
        if not trained & groups:
            raise TrainingError(
                asked=solver.name,
                wrong=(
                    f"stages={recipe.stages}: a stage trains {'+'.join(sorted(trained))}, its parameters "
                    f"are {'+'.join(sorted(groups))}"
                ),
                remedy="use --set stages=all",
            )


def rate(recipe: Recipe, iteration: int, peak: float, least: float) -> float:
    """Return the learning rate of an iteration, counted from 1, by the recipe's schedule.

    Of N iterations the first W = round(warmup N) rise linearly to `peak`. The schedule starts there and ends with the
    last iteration at `least`, or at `peak` if that is lower:

        cosine:  least + (peak - least) (1 + cos(pi p)) / 2        linear:  least + (peak - least) (1 - p)

    with p = (k - W - 1) / (N - W - 1) at iteration k > W.

    Source: Loshchilov & Hutter 2017, arXiv:1608.03983, equation 5, without restarts.
    """
    warm = round(recipe.warmup * recipe.iterations)
    if iteration <= warm:
        return peak * iteration / warm
    if recipe.schedule == "constant" or least >= peak:
        return peak
    done = (iteration - warm - 1) / max(recipe.iterations - warm - 1, 1)
    left = (1 + math.cos(math.pi * done)) / 2 if recipe.schedule == "cosine" else 1 - done
    return least + (peak - least) * left


def optimiser_tensors(prefix: str, optimiser: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Return an optimiser's state as named tensors."""
    state = optimiser.state_dict()["state"]
    return {
        f"{prefix}.{index}.{name}": value
        for index, each in state.items()
        for name, value in each.items()
        if isinstance(value, Tensor)
    }


def restore_optimiser(prefix: str, optimiser: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Restore an optimiser from `optimiser_tensors()`."""
    state: dict[int, dict[str, Any]] = {}
    for key, value in tensors.items():
        if key.startswith(f"{prefix}."):
            _, index, name = key.split(".")
            state.setdefault(int(index), {})[name] = value
    optimiser.load_state_dict({"state": state, "param_groups": optimiser.state_dict()["param_groups"]})


def _setting(recipe: Recipe, group: str, nfe: int) -> _Setting:
    names = {"offsets": recipe.offsets_optimiser, "coefficients": recipe.coefficients_optimiser}
    rates = {"offsets": recipe.offsets_lr, "coefficients": recipe.coefficients_lr}
    name = names.get(group, AS_ALL)
    name = recipe.optimiser if name == AS_ALL else name
    rate = rates.get(group, 0.0) or recipe.lr
    if group == "offsets" and name == "sgd":
        rate /= nfe
    return name, rate, recipe.offsets_lr_min if group == "offsets" and name != recipe.optimiser else recipe.lr_min


def _optimiser(name: str, parts: list[Tensor], rate: float) -> torch.optim.Optimizer:
    if name == "rmsprop":
        return torch.optim.RMSprop(parts, lr=rate, momentum=0.9, alpha=0.99, eps=1e-8)
    if name == "sgd":
        return torch.optim.SGD(parts, lr=rate)
    return torch.optim.Adam(parts, lr=rate, betas=(0.9, 0.999), eps=1e-8)
