"""The discriminator of a training: sizes from the recipe, weights drawn from the training seed or read from a file."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from solverbench.errors import MissingError, RecordError, TrainingError
from solverbench.learned.recipes import Recipe
from solverbench.learned.training import r3gan
from solverbench.learned.training.adversarial import Discriminator
from solverbench.learned.training.run import TrainingRun
from solverbench.seeds import generator
from solverbench.teachers.families import tensor_files
from solverbench.teachers.teacher import Teacher


def make(job: TrainingRun) -> Discriminator:
    """Return the discriminator on the teacher's device, frozen.

    Raises:
        TrainingError: its sizes do not fit the teacher's images.
        MissingError, RecordError: the file of weights is missing, or is for another network.
    """
    recipe = job.recipe
    made = _drawn(job.teacher, recipe, job.seed)
    if recipe.discriminator_weights:
        load(made, Path(recipe.discriminator_weights))
    return made.to(job.teacher.device).requires_grad_(False)


def check(teacher: Teacher, recipe: Recipe) -> None:
    """Raise what `make` would raise for any training seed; no weights are drawn."""
    with torch.device("meta"):
        made = _drawn(teacher, recipe, 0)
    if recipe.discriminator_weights:
        _tensors(made, Path(recipe.discriminator_weights))


def _drawn(teacher: Teacher, recipe: Recipe, seed: int) -> Discriminator:
    channels, height, width = teacher.shape
    told = teacher.condition
    if recipe.conditional and (told is None or told.classes is None):
        raise TrainingError(
            asked="conditional=true",
            wrong=f"teacher {teacher.name!r} has no classes",
            remedy="leave it out; the discriminator is then told none",
        )
    return Discriminator(
        channels,
        (height, width),
        widths=recipe.widths,
        cardinalities=recipe.cardinalities,
        blocks=recipe.blocks,
        generator=generator(seed, "discriminator", 0),
        classes=told.count if recipe.conditional and told is not None else 0,
        low_stages=recipe.bf16_stages,
    )


def load(discriminator: Discriminator, path: Path) -> None:
    """Load the weights of a file into `discriminator`.

    It is a safetensors file, or one of torch's that `weights_only` reads, with the names of `state_dict` or those of
    R3GAN's code, see `r3gan`.

    Raises:
        MissingError, RecordError: the file is missing, holds no tensors, or has other names or shapes.
    """
    discriminator.load_state_dict(_tensors(discriminator, path))


def _tensors(discriminator: Discriminator, path: Path) -> dict[str, Tensor]:
    asked, remedy = f"discriminator_weights={path}", "give weights of this architecture, or change {}"
    tensors, settings = _read(path), "widths, cardinalities and blocks"
    if r3gan.recognised(tensors):
        tensors, sizes = r3gan.converted(tensors, path, conditional=discriminator.embedding is not None)
        settings = f"its sizes: {sizes.settings}"
    wanted = discriminator.state_dict()
    for name, tensor in wanted.items():
        found = tensors.get(name)
        if found is None or found.shape != tensor.shape:
            has = "isn't there" if found is None else f"has shape {tuple(found.shape)}"
            wrong = f"{name} {has}, needed {tuple(tensor.shape)}"
            raise RecordError(asked=asked, wrong=wrong, remedy=remedy.format(settings))
    extra = sorted(set(tensors) - set(wanted))
    if extra:
        wrong = f"{extra[0]} isn't of this architecture"
        raise RecordError(asked=asked, wrong=wrong, remedy=remedy.format(settings))
    return {name: tensors[name].to(torch.float32) for name in wanted}


def _read(path: Path) -> dict[str, Tensor]:
    asked = f"discriminator_weights={path}"
    if not path.is_file():
        raise MissingError(asked=asked, wrong="there is no such file", remedy="give a safetensors file")
    try:
        return load_file(path) if path.suffix == ".safetensors" else tensor_files.read(path)
    except (SafetensorError, ValueError) as error:
        raise RecordError(asked=asked, wrong=f"not safetensors ({error})", remedy="convert the state dict") from None
    except RecordError as error:
        remedy = "save its state_dict() with R3GAN's code, see docs/learned.md"
        raise RecordError(asked=asked, wrong=error.wrong, remedy=remedy) from None
