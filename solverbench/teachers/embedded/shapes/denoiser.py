"""The teacher's network: a small U-Net with attention, given noise level and class, preconditioned as in EDM."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from solverbench.teachers.embedded import artifacts as weights
from solverbench.teachers.embedded.shapes.data import CLASSES, FOLDER, SHAPE
from solverbench.teachers.embedded.unet import UNet

NULL = CLASSES
"""Label of the unconditional estimate."""


class Denoiser(UNet):
    """The U-Net of 16x16 colour images; see `UNet` for its settings."""

    def __init__(
        self,
        *,
        widths: Sequence[int] = (32, 64, 128),
        blocks: Sequence[int] = (1, 1, 1),
        attention: Sequence[bool] = (False, True, True),
        embedding: int = 128,
        sigma_data: float = 0.54,
    ) -> None:
        super().__init__(
            SHAPE[0], CLASSES, widths=widths, blocks=blocks, attention=attention, embedding=embedding,
            sigma_data=sigma_data,
        )  # fmt: skip


def load(folder: Path = FOLDER, *, device: torch.device | str = "cpu") -> Denoiser:
    """Return the trained denoiser of `folder` in float32, frozen, on `device`.

    Raises:
        MissingError, RecordError: the weights don't exist or differ from the recorded ones.
    """
    return weights.frozen(Denoiser, folder / "teacher.safetensors", device)
