"""A toy teacher with a closed-form denoiser, a short recipe for it, and its training pairs."""

from __future__ import annotations

import multiprocessing
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from solverbench import plugins, registries, seeds
from solverbench.cli import production
from solverbench.learned import recipes, trained_files
from solverbench.learned.recipes import Recipe
from solverbench.learned.training import train as training
from solverbench.learned.training.adversarial import discriminator_loss
from solverbench.learned.training.data import Data, Pairs
from solverbench.method.execution import execute
from solverbench.sampling.endpoints import sampler_plan
from solverbench.teachers.teacher import Teacher

SHAPE = (1, 8, 8)
VARIANCE = 0.02
CENTRES = torch.randn(5, 64, generator=torch.Generator().manual_seed(11)).tanh()


def mixture(x: Tensor, sigma: Tensor) -> Tensor:
    """The exact denoiser of five equal Gaussians of variance 0.02 in 64 pixels."""
    level = sigma.to(x.device, x.dtype) ** 2
    flat, centres = x.flatten(1), CENTRES.to(x.dtype)
    gaps = (flat[:, None] - centres).square().sum(2)
    share = torch.softmax(-gaps / (2 * (VARIANCE + level)), 1)
    return ((VARIANCE * flat + level * (share @ centres)) / (VARIANCE + level)).reshape(x.shape)


@pytest.fixture(scope="session")
def teacher() -> Teacher:
    return Teacher(mixture, "toy", SHAPE, identity="ab" * 32, sampler="heun", sampler_nfe=20)


@pytest.fixture(scope="session")
def recipe() -> Recipe:
    short = recipes.load("gs", "digits")
    return replace(
        short, start="", schedule="constant", warmup=0.0, loss="l2", choose="last", lr=2e-2, iterations=30, batch=16,
        train_size=80, validation_size=40, validate_every=10, ema_decay=0.9,
        widths=(8, 8), cardinalities=(2, 2), blocks=1, training_seeds=2,
    )  # fmt: skip


@pytest.fixture(scope="session")
def adversarial(recipe: Recipe) -> Recipe:
    return replace(recipe, adversarial_weight=0.5, discriminator_lr=1e-3)


@pytest.fixture(scope="session")
def data(teacher: Teacher, recipe: Recipe) -> Data:
    plan = sampler_plan(teacher)

    def pairs(chosen: range) -> Pairs:
        noise = seeds.noise(chosen, SHAPE)
        return Pairs(noise, execute(plan, teacher.denoise, noise))

    return Data(pairs(recipe.train), pairs(recipe.validation))


@pytest.fixture
def forked_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    """The processes of a production are forked from one that has torch, so that it is imported once for all.

    They get what processes get that start from nothing: what is pickled, and nothing of the tests' own process.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["torch", "torch._dynamo"])
    monkeypatch.setattr(production, "multiprocessing", SimpleNamespace(get_context=lambda method: context))


@pytest.fixture
def briefly(teacher: Teacher, data: Data, tmp_path: Path) -> Callable[[str, int], dict[str, float]]:
    """Trains a solver for 40 iterations by its recipe for digits, and returns the record of its run."""

    def trained(spec: str, nfe: int) -> dict[str, float]:
        short = replace(
            recipes.suited(recipes.load(spec.partition(":")[0], "digits"), trained_files.learned(spec)),
            iterations=40, batch=16, train_size=80, validation_size=40, validate_every=10,
        )  # fmt: skip
        made = training.train(spec, nfe, teacher, short, seed=0, out=tmp_path, data=data)
        run: dict[str, float] = made.record["runs"][0]
        return run

    return trained


@pytest.fixture
def unregistered() -> Iterator[None]:
    """What a test registers is gone after it."""
    tables, held, registered = dict(registries.solvers._registered), dict(plugins._held), list(plugins._registered)
    modules = set(sys.modules)
    yield
    registries.solvers._registered = tables
    plugins._held, plugins._registered = held, registered
    for name in set(sys.modules) - modules:
        if name.startswith("solverbench_plugin_"):
            del sys.modules[name]


@pytest.fixture
def judged(monkeypatch: pytest.MonkeyPatch) -> list[Tensor]:
    """The images that the discriminator is shown in a training: the teacher's and the student's in turns."""
    seen: list[Tensor] = []

    def spy(discriminator: object, real: Tensor, fake: Tensor, *settings: object) -> object:
        seen.extend([real, fake])
        return discriminator_loss(discriminator, real, fake, *settings)  # type: ignore[arg-type]

    monkeypatch.setattr("solverbench.learned.training.trainer.discriminator_loss", spy)
    return seen
