"""Training under conditions: each pair keeps its own, fakes have the batch's; guidance is part of what is learned."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from solverbench.errors import RecordError
from solverbench.learned import trained_files
from solverbench.learned.recipes import Recipe
from solverbench.learned.trained_files import learned
from solverbench.learned.training import train as training
from solverbench.learned.training.run import TrainingRun
from solverbench.learned.training.trainer import Trainer
from solverbench.teachers.conditions import Condition
from solverbench.teachers.teacher import Teacher


@pytest.fixture
def asked() -> list[list[int]]:
    return []


@pytest.fixture
def conditional(teacher: Teacher, asked: list[list[int]]) -> Teacher:
    """Three classes by seed: an image's class scales it."""

    def bind(seeds: list[int]):  # type: ignore[no-untyped-def]
        asked.append(list(seeds))
        scale = torch.tensor([0.5 + 0.25 * (seed % 3) for seed in seeds]).reshape(-1, 1, 1, 1)

        def denoise(x: Tensor, sigma: Tensor) -> Tensor:
            assert len(x) == len(seeds)
            return scale * teacher.denoise(x, sigma)

        return denoise

    condition = Condition(classes="seed", count=3)
    return replace(teacher, name="classes", bind=bind, condition=condition, sampler_nfe=6)


def test_every_batch_is_denoised_under_its_own_seeds(
    conditional: Teacher, adversarial: Recipe, asked: list[list[int]], tmp_path: Path
) -> None:
    data = training.prepare(conditional, adversarial, tmp_path)
    assert data.train.seeds.tolist() == list(adversarial.train)
    moving = Trainer(TrainingRun(learned("gas"), 2, conditional, adversarial, 0), data)
    asked.clear()
    moving.step()
    wanted = data.train.seeds[moving._chosen(1)].tolist()
    assert asked == [wanted, wanted]  # the student's images, and the fakes of fresh noise
    asked.clear()
    moving.start()
    assert [seed for seeds in asked for seed in seeds] == list(adversarial.validation)


def test_a_kept_first_call_is_of_the_pairs_own_condition(conditional: Teacher, recipe: Recipe, tmp_path: Path) -> None:
    data = training.prepare(conditional, recipe, tmp_path)
    moving = Trainer(TrainingRun(learned("ld3"), 3, conditional, recipe, 0), data)
    assert moving.first is not None
    expected = conditional.denoiser([4])(80 * data.train.noise[4:5], torch.tensor(80.0, dtype=torch.float64))
    torch.testing.assert_close(moving.first[0][4:5], expected)


def test_parameters_trained_with_another_guidance_are_another_teachers(
    conditional: Teacher, recipe: Recipe, tmp_path: Path
) -> None:
    trained = training.train("gs", 2, conditional, replace(recipe, iterations=2), seed=0, out=tmp_path)
    trained_files.save(trained, tmp_path / "gs.safetensors")
    other_classes = replace(conditional, condition=Condition(classes="uniform", count=3))
    assert trained_files.load(tmp_path / "gs.safetensors", teacher=other_classes).identity == trained.identity
    guided = replace(conditional, condition=Condition(classes="seed", count=3, guidance=2.0), passes=2)
    with pytest.raises(RecordError, match=r"trained for teacher classes .* train it for this teacher"):
        trained_files.load(tmp_path / "gs.safetensors", teacher=guided)
