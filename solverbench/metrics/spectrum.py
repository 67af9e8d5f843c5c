"""Fine detail: the power of images and of their errors by spatial frequency, in the basis of a cosine transform."""

from __future__ import annotations

import itertools
import math
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from solverbench.metrics.reduction import BLOCKS, Array

EDGES = (0.0, 0.25, 0.5, 1.0, math.inf)
"""Limits of the bands, in multiples of the highest frequency along a side (half a cycle per pixel).

A frequency (u, v) of an image of H x W pixels, 0 <= u < H, 0 <= v < W, lies at sqrt((u/H)^2 + (v/W)^2). A band holds
its lower limit and not its upper one. The constant (0, 0) is in none. The last band is the corners, which lie beyond
the highest frequency of a horizontal or a vertical pattern.
"""

FINE = 2
"""First of the bands that are fine detail: structures of less than four pixels a period."""

LEAST = 1e-12
"""Power per image below which detail isn't resolved: a deviation of 1e-6 in one of its frequencies."""


@lru_cache(maxsize=8)
def _basis(size: int, device: str) -> Tensor:
    """Return the orthonormal cosine transform DCT-II of a side, [size, size] float64: row u is frequency u."""
    place = (torch.arange(size, dtype=torch.float64) + 0.5) * math.pi / size
    rows = torch.cos(torch.arange(size, dtype=torch.float64)[:, None] * place) * math.sqrt(2 / size)
    rows[0] /= math.sqrt(2)
    return rows.to(device)


@lru_cache(maxsize=8)
def _members(height: int, width: int, device: str) -> Tensor:
    """Return which band each frequency is in, [H * W, bands] float64 of 0 and 1."""
    down, across = torch.arange(height) / height, torch.arange(width) / width
    radius = torch.hypot(down.double()[:, None], across.double()).flatten()
    inside = [(radius >= low) & (radius < high) for low, high in itertools.pairwise(EDGES)]
    found = torch.stack(inside, 1).double()
    found[0] = 0
    return found.to(device)


def powers(images: Tensor) -> Tensor:
    """Return the power of images [B, C, H, W] in each band, [B, bands] float64, in squared units of the pixels.

    It is the sum of the squared coefficients, over the pixels and channels: over all bands, the variance of the pixels
    within each channel, averaged over channels. The cosine transform continues an image by its mirror image, so edges
    of the image add no detail, as they would in a Fourier transform.
    """
    height, width = images.shape[2:]
    device = str(images.device)
    down, across = _basis(height, device), _basis(width, device)
    found = (down @ images.double() @ across.T).square().mean(1).flatten(1)
    return found @ _members(height, width, device) / (height * width)


def beside(network: None, images: Tensor, others: Tensor) -> Tensor:
    """Return the power of each image in the bands, then that of the image it is compared with, [B, 2 bands]."""
    return torch.cat([powers(images), powers(others)], 1)


def residual(network: None, images: Tensor, others: Tensor) -> Tensor:
    """Return the power of the difference of each pair in the bands, then that of the second image, [B, 2 bands]."""
    return torch.cat([powers(images.double() - others.double()), powers(others)], 1)


def decibels(rows: Array) -> tuple[Array, Array]:
    """Return 10 log10 of the ratio of fine detail of each replicate [R], and with a tenth left out [R, 10].

    Args:
        rows: [R, p, 2 bands] as `beside` and `residual` return them; p is a multiple of 10. The ratio is that of the
            sums over all images.
    """
    bands = len(EDGES) - 1
    fine = np.stack([rows[..., FINE:bands].sum(2), rows[..., bands + FINE :].sum(2)], 2) + LEAST
    sums = fine.reshape(len(rows), BLOCKS, -1, 2).sum(2)
    left = sums.sum(1, keepdims=True) - sums
    return _ratio(sums.sum(1)), _ratio(left)


def by_band(rows: Array) -> Array:
    """Return 10 log10 of the ratio of the sums over all images in each band, [bands].

    Args:
        rows: [p, 2 bands] as `beside` and `residual` return them.
    """
    sums = rows.reshape(len(rows), 2, -1).sum(0) + LEAST * len(rows)
    return _ratio(sums.T)


def _ratio(sums: Array) -> Array:
    found: Array = 10 * np.log10(sums[..., 0] / sums[..., 1])
    return found
