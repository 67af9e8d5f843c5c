"""The metric network: a small convolutional classifier whose features are used for distances.

For evaluation only. The training of a solver must not use it, or a lower distance could be mere leakage.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.functional import silu

from solverbench.teachers.embedded import artifacts as weights
from solverbench.teachers.embedded.networks import FeatureNet
from solverbench.teachers.embedded.shapes.data import ATTRIBUTES, CLASSES, FOLDER, GROUNDS

FEATURES = 64


class MetricNet(FeatureNet):
    """Predicts shape, background, position, size, tilt and colours, so that its features encode all of them.

    Args:
        width: channels at 16x16; twice as many at 8x8, three times at 4x4.
    """

    def __init__(self, *, width: int = 24) -> None:
        super().__init__()
        self.config = {"width": width}
        self.first = nn.Conv2d(3, width, 3, padding=1)
        self.second = nn.Conv2d(width, 2 * width, 3, stride=2, padding=1)
        self.third = nn.Conv2d(2 * width, 3 * width, 3, stride=2, padding=1)
        self.fourth = nn.Linear(3 * width * 16, FEATURES)
        self.classes = nn.Linear(FEATURES, CLASSES)
        self.grounds = nn.Linear(FEATURES, len(GROUNDS))
        self.attributes = nn.Linear(FEATURES, ATTRIBUTES)

    def forward(self, images: Tensor) -> Tensor:
        """Return features [B, 64] float32 of images [B, 3, 16, 16] uint8 (0-255, scaled here to v / 127.5 - 1)."""
        x = images.to(self.first.weight.dtype) / 127.5 - 1
        h = silu(self.third(silu(self.second(silu(self.first(x))))))
        return silu(self.fourth(h.flatten(1)))


def load(folder: Path = FOLDER, *, device: torch.device | str = "cpu") -> MetricNet:
    """Return the trained metric network of `folder`, frozen, on `device`: evaluation only.

    Raises:
        MissingError, RecordError: the weights don't exist or differ from the recorded ones.
    """
    return weights.frozen(MetricNet, folder / "metric.safetensors", device)
