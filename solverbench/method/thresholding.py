"""Dynamic thresholding: scale each output image of a denoiser into [-1, 1] by a quantile of its own values."""

from __future__ import annotations

from collections.abc import Callable

import torch


def thresholded(
    denoise: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
) -> Callable[[torch.Tensor, torch.Tensor], torch.Tensor]:
    """Return `denoise` with its outputs passed through `threshold`."""
    return lambda x, sigma: threshold(denoise(x, sigma))


def threshold(d: torch.Tensor, quantile: float = 0.995, floor: float = 1.0) -> torch.Tensor:
    """Return images d [B, ...] as clamp(d, -c, c) / c, with one c per image.

    c is the 0.995 quantile of |d| over the image (linear between neighbours), and at least 1. For models of images in
    [-1, 1]; latents have no such bounds.

    Source: Saharia et al. 2022, arXiv:2205.11487, section 2.3; quantile and floor as in the public codes of
    DPM-Solver++ and diff-sampler.
    """
    # torch.quantile takes no more than 16 million values.
    values = d.abs().flatten(1)
    place = quantile * (values.shape[1] - 1)
    low = int(place)
    top = values.topk(values.shape[1] - low, dim=1).values
    c = torch.lerp(top[:, -1], top[:, -2:][:, 0], place - low).clamp(min=floor).reshape(-1, *[1] * (d.dim() - 1))
    return torch.minimum(torch.maximum(d, -c), c) / c
