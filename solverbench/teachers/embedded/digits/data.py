"""Handwritten 8x8 digits and their random affine copies: a copy is a pure function of one integer seed.

The copy's random numbers are a hash of the seed, so they depend neither on the batch nor on the order of the copies.
"""

from __future__ import annotations

import functools
import hashlib
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, grid_sample

from solverbench.errors import MissingError, RecordError
from solverbench.teachers.embedded.streams import as_tensor, uniforms

FOLDER = Path(__file__).parent / "data"
SHAPE = (1, 8, 8)
CLASSES = 10
CONTENT_SHA256 = "87ff0c9e40dc7e2c0e34e7257799c2e3f3aec1a016363bb11cad869ec428a826"

REFERENCE_SEEDS = range(1_000_000, 1_400_000)
"""Seeds of the copies whose moments are the data reference."""
FLOOR_SEEDS = range(2_000_000, 2_200_000)
"""Seeds of the copies that measure the distance of fresh data from the reference."""
VALIDATION_SEEDS = range(3_000_000, 3_100_000)
"""Seeds of the copies for tests and for the nearest-neighbour check."""

ROTATION = 0.2
SCALE = 0.1
SHIFT = 0.5
SHEAR = 0.15
"""Half ranges of the copies' poses: ROTATION in radians, SCALE relative, SHIFT in source pixels, SHEAR as tangent."""
POSE = 5
_DRAWS = POSE + 1
_RENDER = 24


@dataclass(frozen=True, eq=False)
class Copies:
    """Random affine copies: images [B, 1, 8, 8] float32 in [-1, 1], labels [B] int64, pose [B, 5] float64 in [-1, 1].

    The pose is rotation, log scale, shift in x and y, and shear, each divided by its half range.
    """

    images: Tensor
    labels: Tensor
    pose: Tensor


@dataclass(frozen=True, eq=False)
class Digits:
    """The source digits: images [S, 1, 8, 8] float32 in [0, 1] (1 is ink), labels [S] int64."""

    images: Tensor
    labels: Tensor

    def to(self, device: torch.device | str) -> Digits:
        """Return these digits on `device`; their copies are made there too."""
        return Digits(self.images.to(device), self.labels.to(device))

    def fold(self, *, held_out: bool) -> Digits:
        """Return every fifth digit if `held_out`, to test classifiers, or all the others, to train them."""
        chosen = (torch.arange(len(self.labels), device=self.labels.device) % 5 == 0) == held_out
        return Digits(self.images[chosen], self.labels[chosen])

    def copies(self, seeds: Tensor | range) -> Copies:
        """Return one random affine copy per seed ([B] int64 or a range), with a digit drawn uniformly for each.

        The inverse map is A p + shift with A = scale^-1 R(rotation) [[1, shear], [0, 1]] on [-1, 1]^2. The copy is
        rendered at 24x24 by bicubic interpolation padded with 0 (no ink), averaged to 8x8 and clipped to [0, 1].
        """
        draws = uniforms(as_tensor(seeds, self.images.device), _DRAWS)
        source = (draws[:, 0] * len(self.labels)).long()
        pose = 2 * draws[:, 1:] - 1
        images = grid_sample(
            self.images[source], _grid(pose), mode="bicubic", padding_mode="zeros", align_corners=False
        )
        return Copies(avg_pool2d(images, _RENDER // SHAPE[-1]).clamp(0, 1) * 2 - 1, self.labels[source], pose)


def _grid(pose: Tensor) -> Tensor:
    """Return the source coordinates of each of the 24x24 points of a copy, [B, 24, 24, 2] float32."""
    angle, log_scale, across, down, slant = pose.T
    zoom = torch.exp(-log_scale * math.log1p(SCALE))
    cos, sin, shear = zoom * torch.cos(angle * ROTATION), zoom * torch.sin(angle * ROTATION), slant * SHEAR
    shift = SHIFT * 2 / SHAPE[-1]
    affine = torch.stack((cos, cos * shear - sin, across * shift, sin, sin * shear + cos, down * shift), 1)
    a, b, c, d, e, f = affine.float()[:, :, None, None].unbind(1)
    centres = (torch.arange(_RENDER, device=pose.device) * 2 + 1) / _RENDER - 1
    x, y = centres[None, None, :], centres[None, :, None]
    return torch.stack((a * x + (b * y + c), d * x + (e * y + f)), -1)


@functools.cache
def load() -> Digits:
    """Return the 1797 source digits of the package, on the CPU; see DATA.md for their origin.

    Raises:
        MissingError: the file doesn't exist.
        RecordError: its content differs from the recorded one.
    """
    path = FOLDER / "digits.npz"
    if not path.is_file():
        raise MissingError(asked="digits", wrong=f"{path} isn't there", remedy="install solverbench again")
    with np.load(path) as file:
        images, labels = file["images"], file["labels"]
    if hashlib.sha256(images.tobytes() + labels.tobytes()).hexdigest() != CONTENT_SHA256:
        raise RecordError(
            asked="digits", wrong=f"{path} doesn't hold the recorded images", remedy="install solverbench again"
        )
    return Digits(torch.from_numpy(images[:, None]).float() / 16, torch.from_numpy(labels).long())
