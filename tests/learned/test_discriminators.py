"""A discriminator's weights from a file: taken as they are, refused by name if they are another network's."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from solverbench.errors import MissingError, RecordError
from solverbench.learned.recipes import Recipe
from solverbench.learned.trained_files import learned
from solverbench.learned.training import discriminators
from solverbench.learned.training.run import TrainingRun
from solverbench.teachers.teacher import Teacher


def job(teacher: Teacher, recipe: Recipe, weights: Path | str = "", seed: int = 0) -> TrainingRun:
    return TrainingRun(learned("gas"), 2, teacher, replace(recipe, discriminator_weights=str(weights)), seed)


def test_weights_of_a_file_take_the_place_of_random_ones(teacher: Teacher, adversarial: Recipe, tmp_path: Path) -> None:
    made = discriminators.make(job(teacher, adversarial, seed=7)).state_dict()
    halves = {name: tensor.half().contiguous() for name, tensor in made.items()}
    save_file(halves, tmp_path / "d.safetensors")
    taken = discriminators.make(job(teacher, adversarial, tmp_path / "d.safetensors")).state_dict()
    assert all(torch.equal(taken[name], halves[name].float()) for name in made)
    assert all(tensor.dtype == torch.float32 for tensor in taken.values())


def test_other_weights_under_the_same_name_are_another_training(
    teacher: Teacher, adversarial: Recipe, tmp_path: Path
) -> None:
    path = tmp_path / "d.safetensors"
    missing = job(teacher, adversarial, path).folder(tmp_path)
    folders = []
    for value in (0.0, 1.0):
        save_file({"layers.0.weight": torch.full((8, 1, 1, 1), value)}, path)
        folders.append(job(teacher, adversarial, path).folder(tmp_path))
    assert len({missing, *folders}) == 3


def test_weights_that_do_not_fit_are_refused_in_one_line(teacher: Teacher, adversarial: Recipe, tmp_path: Path) -> None:
    path = tmp_path / "d.safetensors"
    with pytest.raises(MissingError, match="there is no such file"):
        discriminators.make(job(teacher, adversarial, path))
    path.write_bytes(b"garbage")
    with pytest.raises(RecordError, match="not safetensors"):
        discriminators.make(job(teacher, adversarial, path))
    made = {k: v.contiguous() for k, v in discriminators.make(job(teacher, adversarial)).state_dict().items()}
    first, *rest = made
    save_file({name: made[name] for name in rest}, path)
    with pytest.raises(RecordError, match=f"{first} isn't there, needed"):
        discriminators.make(job(teacher, adversarial, path))
    save_file({**made, first: torch.zeros(3)}, path)
    with pytest.raises(RecordError, match=rf"{first} has shape \(3,\), needed"):
        discriminators.make(job(teacher, adversarial, path))
    save_file({**made, "embedding.weight": torch.zeros(3)}, path)
    with pytest.raises(RecordError, match=r"embedding\.weight isn't of this architecture"):
        discriminators.make(job(teacher, adversarial, path))
