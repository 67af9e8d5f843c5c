"""The loss network: a classifier with another architecture than the metric's; its features define a perceptual loss."""

from __future__ import annotations

from pathlib import Path

import torch

from solverbench.teachers.embedded import artifacts as weights
from solverbench.teachers.embedded.fashion.images import CLASSES, FOLDER, SHAPE
from solverbench.teachers.embedded.networks import PatchNet


class LossNet(PatchNet):
    """A classifier of clean and noisy images [B, 1, 28, 28]; see `PatchNet`."""

    def __init__(self, *, width: int = 72) -> None:
        super().__init__(SHAPE[0], CLASSES, width)


def load(folder: Path = FOLDER, *, device: torch.device | str = "cpu") -> LossNet:
    """Return the trained loss network of `folder`, frozen, on `device`: gradient flows to its input only.

    Raises:
        MissingError, RecordError: the weights don't exist or differ from the recorded ones.
    """
    return weights.frozen(LossNet, folder / "loss.safetensors", device)
