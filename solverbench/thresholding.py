"""Dynamic thresholding: a denoiser's outputs, each image kept within [-1, 1] by its own largest values."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

QUANTILE, FLOOR = 0.995, 1.0


def thresholded(denoise: Callable[[Tensor, Tensor], Tensor]) -> Callable[[Tensor, Tensor], Tensor]:
    """Return `denoise` with its output d [B, ...] replaced by clamp(d, -c, c) / c, for each image by its own c.

    c is the 0.995 quantile of |d| over the image (linear between neighbours), and at least 1. For models of images in
    [-1, 1]; a latent's values have no such bounds.

    Source: Saharia et al. 2022, arXiv:2205.11487, section 2.3; quantile and floor as the public codes of
    DPM-Solver++ and diff-sampler have them.
    """

    def evaluate(x: Tensor, sigma: Tensor) -> Tensor:
        d = denoise(x, sigma)
        c = _quantile(d.abs().flatten(1)).clamp(min=FLOOR).reshape(-1, *[1] * (d.dim() - 1))
        return torch.minimum(torch.maximum(d, -c), c) / c

    return evaluate


def _quantile(values: Tensor) -> Tensor:
    """The quantile [B] of each row of `values` [B, n]; torch.quantile takes no more than 16 million values."""
    place = QUANTILE * (values.shape[1] - 1)
    low = int(place)
    top = values.topk(values.shape[1] - low, dim=1).values
    return torch.lerp(top[:, -1], top[:, -2:][:, 0], place - low)
