"""Real images for the checks of a teacher's predictions, read from a folder or a zip."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from solverbench.conformance.accuracy import one_condition
from solverbench.conformance.one_step import IMAGES
from solverbench.errors import UserError
from solverbench.evaluation import image_sources
from solverbench.evaluation.image_sources import Crop
from solverbench.teachers.teacher import Teacher

FEWEST = 8
"""Smallest number of images whose error is meaningful."""

LUMA = (0.299, 0.587, 0.114)
"""Weights of red, green and blue in grey. Source: ITU-R BT.601."""


def read_for(subjects: Sequence[object], source: str, crop: str | None) -> dict[int, Tensor]:
    """Return the images of `source` for each teacher among the subjects, by its id, see `read`.

    Raises:
        UserError: there is no teacher, and see `read`.
    """
    teachers = [subject for subject in subjects if isinstance(subject, Teacher)]
    if not teachers:
        raise UserError(
            asked=f"--images {source}", wrong="no teacher is checked", remedy="name one, or leave --images out"
        )
    return {id(teacher): read(teacher, source, crop) for teacher in teachers}


def read(teacher: Teacher, source: str, crop: str | None = None) -> Tensor:
    """Return up to 64 images, evenly spread over `source`, [n, *shape] float32 on [-1, 1].

    Args:
        source: a folder or a zip.
        crop: crop rule, RULE:SIZE; None to take images as they are.

    Raises:
        UserError: the teacher denoises latents or has several conditions, or the images are too few or of other sizes.
        RecordError: a file is not an image.
    """
    asked = f"--images {source} for {teacher.name}"
    if teacher.decode is not None:
        raise UserError(
            asked=asked,
            wrong="it denoises latents, and no encoder from images to latents is loaded",
            remedy="leave --images out",
        )
    if not one_condition(teacher.condition):
        raise UserError(
            asked=asked,
            wrong=f"which image has which condition ({teacher.condition}) isn't known",
            remedy="fix one class or one prompt, and give a folder of its images",
        )
    found = image_sources.of(source, None, None if crop is None else Crop.parse(crop))
    if len(found) < FEWEST:
        raise UserError(asked=asked, wrong=f"holds {len(found)} images", remedy=f"give at least {FEWEST}")
    places = sorted({n * len(found) // IMAGES for n in range(IMAGES)})
    images = [image for n in places for image in next(iter(found.read(range(n, n + 1))))]
    channels, *sides = teacher.shape
    wrong = next((image for image in images if list(image.shape[1:]) != sides), None)
    if wrong is not None:
        high, wide = wrong.shape[1:]
        raise UserError(
            asked=asked,
            wrong=f"an image has {wide}x{high} pixels, its own have {sides[1]}x{sides[0]}",
            remedy=f"scale them, as by --crop edm:{sides[0]}",
        )
    levels = torch.stack(images).float() / 127.5 - 1
    if channels == 1 and levels.shape[1] == 3:
        levels = (levels * torch.tensor(LUMA)[:, None, None]).sum(1, keepdim=True)
    if levels.shape[1] != channels:
        raise UserError(
            asked=asked,
            wrong=f"images have {levels.shape[1]} channels, its own {channels}",
            remedy="give images with its channels",
        )
    return levels
