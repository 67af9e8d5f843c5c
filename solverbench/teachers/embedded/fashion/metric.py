"""The metric network: a convolutional classifier whose features are used for distances.

For evaluation only. The training of a solver must not use it, or a lower distance could be mere leakage.
"""

from __future__ import annotations

import itertools
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.functional import dropout, max_pool2d, silu

from solverbench.teachers.embedded import artifacts as weights
from solverbench.teachers.embedded.fashion.images import CLASSES, FOLDER
from solverbench.teachers.embedded.networks import FeatureNet

FEATURES = 128
DROPPED = 0.3
"""Share of the features that training hides."""


class MetricNet(FeatureNet):
    """A classifier with two convolutions at 28x28, 14x14 and 7x7 positions.

    Args:
        width: channels at 28x28; twice as many at 14x14, three times at 7x7.
    """

    def __init__(self, *, width: int = 24) -> None:
        super().__init__()
        self.config = {"width": width}
        sizes = [1, width, width, 2 * width, 2 * width, 3 * width, 3 * width]
        self.convolutions = nn.ModuleList(
            nn.Conv2d(before, after, 3, padding=1) for before, after in itertools.pairwise(sizes)
        )
        self.last = nn.Linear(3 * width * 9, FEATURES)
        self.classes = nn.Linear(FEATURES, CLASSES)

    def forward(self, images: Tensor) -> Tensor:
        """Return features [B, 128] float32 of images [B, 1, 28, 28] uint8 (0-255, scaled here to v / 127.5 - 1)."""
        h = images.to(self.last.weight.dtype) / 127.5 - 1
        for number, convolution in enumerate(self.convolutions):
            h = silu(convolution(h))
            h = max_pool2d(h, 2) if number % 2 else h
        return silu(self.last(dropout(h.flatten(1), DROPPED, self.training)))


def load(folder: Path = FOLDER, *, device: torch.device | str = "cpu") -> MetricNet:
    """Return the trained metric network of `folder`, frozen, on `device`: evaluation only.

    Raises:
        MissingError, RecordError: the weights don't exist or differ from the recorded ones.
    """
    return weights.frozen(MetricNet, folder / "metric.safetensors", device)
