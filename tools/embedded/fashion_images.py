"""Reads the four files of Fashion-MNIST, as published by Zalando and in the Debian package dataset-fashion-mnist."""

from __future__ import annotations

import gzip
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from solverbench.errors import MissingError, RecordError
from solverbench.teachers.embedded.fashion.images import CLASSES, SHAPE

USUAL = Path("/usr/share/datasets/fashion-mnist")
"""Where the Debian package puts them."""
_NAMES = {True: "t10k", False: "train"}


@dataclass(frozen=True, eq=False)
class Labelled:
    """Images [n, 1, 28, 28] float32 in [-1, 1] and labels [n] int64."""

    images: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def pick(self, chosen: Tensor) -> Labelled:
        """Return the images with these indices."""
        return Labelled(self.images[chosen], self.labels[chosen])


def read(folder: Path, *, held_out: bool, device: torch.device | str = "cpu") -> Labelled:
    """Return the 60 000 images for training, or the 10 000 others.

    Raises:
        MissingError, RecordError: a file isn't there, or is no such file.
    """
    name = _NAMES[held_out]
    pixels = _numbers(folder / f"{name}-images-idx3-ubyte.gz", (-1, *SHAPE))
    labels = _numbers(folder / f"{name}-labels-idx1-ubyte.gz", (-1,))
    if len(pixels) != len(labels) or labels.max() >= CLASSES:
        raise RecordError(asked=folder, wrong="images and labels don't fit", remedy="install the data set again")
    images = torch.from_numpy(pixels).to(device).float() / 127.5 - 1
    return Labelled(images, torch.from_numpy(labels).to(device).long())


def _numbers(path: Path, shape: tuple[int, ...]) -> np.ndarray:
    """Return the bytes of an IDX file: magic number 0, 0, 8, dimensions, their sizes as 32-bit big-endian numbers."""
    if not path.is_file():
        raise MissingError(
            asked=path, wrong="there is no such file", remedy="install dataset-fashion-mnist, or give --data FOLDER"
        )
    content = gzip.decompress(path.read_bytes())
    dimensions = content[3]
    sizes = np.frombuffer(content, ">u4", dimensions, 4).tolist()
    numbers = np.frombuffer(content, np.uint8, offset=4 + 4 * dimensions)
    if content[:3] != b"\0\0\x08" or numbers.size != np.prod(sizes):
        raise RecordError(asked=path, wrong="isn't an IDX file of bytes", remedy="install the data set again")
    return numbers.reshape(shape).copy()
