"""What a training holds and calls: recomputed calls give the same gradient, kept first calls the same images."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

import solverbench as sb
from solverbench.learned.recipes import Recipe
from solverbench.learned.trained_files import learned
from solverbench.learned.training.data import Data
from solverbench.learned.training.run import TrainingRun
from solverbench.learned.training.trainer import Trainer
from solverbench.method.execution import recomputed, unrounded
from solverbench.teachers.teacher import Teacher


def leaves(nfe: int) -> tuple[Tensor, Tensor, Tensor, sb.Tableau]:
    tableau = sb.tableau("unipc", nfe=nfe)
    weights = tableau.weights.clone().requires_grad_(True)
    sigmas = tableau.sigmas.clone().requires_grad_(True)
    x = 80 * torch.randn(3, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    return weights, sigmas, x.requires_grad_(True), replace(tableau, weights=weights, sigmas=sigmas)


@pytest.mark.parametrize("known", [False, True])
def test_recomputed_calls_give_the_same_images_and_gradients(known: bool, teacher: Teacher) -> None:
    found = []
    for run in (unrounded, recomputed):
        weights, sigmas, x, tableau = leaves(5)
        first = teacher.denoise(x, sigmas[0]).detach() if known else None
        images = run(tableau, teacher.denoise, x, first=first)
        loss = (images * torch.linspace(-1, 1, images.numel()).reshape(images.shape)).sum()
        found.append([images.detach(), *torch.autograd.grad(loss, [weights, sigmas, x])])
    for plain, again in zip(*found, strict=True):
        scale = plain.abs().max()
        assert scale > 0
        torch.testing.assert_close(again / scale, plain / scale, rtol=0, atol=2e-6)


def test_recomputed_calls_hold_one_graph_at_a_time(teacher: Teacher) -> None:
    """What autograd keeps of the denoiser is counted: with each call while the trajectory runs, or of one at a time."""
    kept = {"now": 0, "most": 0}

    class Counted(torch.autograd.Function):
        @staticmethod
        def forward(ctx: object, x: Tensor) -> Tensor:
            return x.clone()

        @staticmethod
        def backward(ctx: object, *slopes: Tensor) -> Tensor:
            kept["now"] -= 1
            return slopes[0]

    def denoise(x: Tensor, sigma: Tensor) -> Tensor:
        if torch.is_grad_enabled():
            kept["now"] += 1
            kept["most"] = max(kept["most"], kept["now"])
        return Counted.apply(teacher.denoise(x, sigma))  # type: ignore[no-any-return, no-untyped-call]

    most = {}
    for run in (unrounded, recomputed):
        for nfe in (3, 9):
            kept.update(now=0, most=0)
            run(leaves(nfe)[3], denoise, leaves(nfe)[2]).sum().backward()
            most[run.__name__, nfe] = kept["most"]
    assert most == {("unrounded", 3): 3, ("unrounded", 9): 9, ("recomputed", 3): 1, ("recomputed", 9): 1}


@pytest.mark.parametrize("solver", ["gs", "ld3"])
def test_memory_mode_trains_the_same(solver: str, teacher: Teacher, recipe: Recipe, data: Data) -> None:
    vectors = []
    for memory in ("store", "recompute"):
        moving = Trainer(TrainingRun(learned(solver), 3, teacher, replace(recipe, memory=memory), 0), data)
        for _ in range(5):
            moving.step()
        vectors.append(moving.vector.detach())
    torch.testing.assert_close(vectors[0], vectors[1], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(("solver", "kept"), [("ld3", True), ("gs", False)])
def test_a_first_call_that_nothing_changes_is_made_once(
    solver: str, kept: bool, teacher: Teacher, recipe: Recipe, data: Data
) -> None:
    calls: list[int] = []

    def denoise(x: Tensor, sigma: Tensor) -> Tensor:
        calls.append(len(x))
        return teacher.denoise(x, sigma)

    moving = Trainer(TrainingRun(learned(solver), 4, replace(teacher, denoise=denoise), recipe, 0), data)
    made = sum(calls)
    assert made == (80 + 40) * kept
    moving.step()
    assert sum(calls) - made == recipe.batch * (4 - kept)
    assert moving.calls == {"with_gradient": recipe.batch * (4 - kept), "without": made}
    plain = Trainer(TrainingRun(learned(solver), 4, teacher, recipe, 0), data)
    plain.first = None
    plain.step()
    torch.testing.assert_close(moving.vector, plain.vector, rtol=1e-6, atol=1e-9)


def test_where_noises_move_the_first_call_is_made_again(teacher: Teacher, recipe: Recipe, data: Data) -> None:
    assert Trainer(TrainingRun(learned("ld3"), 4, teacher, replace(recipe, radius=1e-3), 0), data).first is None
