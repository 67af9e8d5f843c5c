"""The metric network: a small convolutional classifier whose features are used for distances.

For evaluation only. The training of a solver must not use it, or a lower distance could be mere leakage.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.functional import silu

from solverbench.teachers.embedded import artifacts as weights
from solverbench.teachers.embedded.digits.data import CLASSES, FOLDER, POSE
from solverbench.teachers.embedded.networks import FeatureNet

FEATURES = 64


class MetricNet(FeatureNet):
    """Predicts the digit and its pose, so that its features encode which digit it is and how it is drawn.

    Args:
        width: channels of the first convolution; the second has twice as many.
    """

    def __init__(self, *, width: int = 16) -> None:
        super().__init__()
        self.config = {"width": width}
        self.first = nn.Conv2d(1, width, 3, padding=1)
        self.second = nn.Conv2d(width, 2 * width, 3, stride=2, padding=1)
        self.third = nn.Linear(32 * width, FEATURES)
        self.classes = nn.Linear(FEATURES, CLASSES)
        self.pose = nn.Linear(FEATURES, POSE)

    def forward(self, images: Tensor) -> Tensor:
        """Return features [B, 64] float32 of images [B, 1, 8, 8] uint8 (0-255, scaled here to v / 127.5 - 1)."""
        x = images.to(self.first.weight.dtype) / 127.5 - 1
        h = silu(self.second(silu(self.first(x))))
        return silu(self.third(h.flatten(1)))


def load(folder: Path = FOLDER, *, device: torch.device | str = "cpu") -> MetricNet:
    """Return the trained metric network of `folder`, frozen, on `device`: evaluation only.

    Raises:
        MissingError, RecordError: the weights don't exist or differ from the recorded ones.
    """
    return weights.frozen(MetricNet, folder / "metric.safetensors", device)
