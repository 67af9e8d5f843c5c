"""The loss network: a classifier with another architecture than the metric's; its features define a perceptual loss."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu

from solverbench.teachers.embedded import artifacts as weights
from solverbench.teachers.embedded.fashion.images import CLASSES, FOLDER
from solverbench.teachers.embedded.networks import PerceptualNet


class LossNet(PerceptualNet):
    """A classifier of clean and noisy images on overlapping patches; differentiable in its input.

    Args:
        width: channels at 7x7; half as many at 14x14, a third at 28x28.
    """

    def __init__(self, *, width: int = 72) -> None:
        super().__init__()
        self.config = {"width": width}
        self.fine = nn.Conv2d(1, width // 3, 5, padding=2)
        self.middle = nn.Conv2d(width // 3, width // 2, 4, stride=2, padding=1)
        self.coarse = nn.Conv2d(width // 2, width, 4, stride=2, padding=1)
        self.mixed = nn.Conv2d(width, width, 3, padding=1)
        self.classes = nn.Linear(width, CLASSES)

    def layers(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return the activations [B, C, h, w] at four depths for images x [B, 1, 28, 28] in [-1, 1]."""
        fine = gelu(self.fine(x), approximate="tanh")
        middle = gelu(self.middle(fine), approximate="tanh")
        coarse = gelu(self.coarse(middle), approximate="tanh")
        return fine, middle, coarse, coarse + gelu(self.mixed(coarse), approximate="tanh")


def load(folder: Path = FOLDER, *, device: torch.device | str = "cpu") -> LossNet:
    """Return the trained loss network of `folder`, frozen, on `device`: gradient flows to its input only.

    Raises:
        MissingError, RecordError: the weights don't exist or differ from the recorded ones.
    """
    return weights.frozen(LossNet, folder / "loss.safetensors", device)
