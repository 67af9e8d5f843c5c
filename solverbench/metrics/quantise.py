"""Quantisation of float images to uint8."""

from __future__ import annotations

import numpy as np
import torch

QUANTISERS = {"edm-round": (127.5, 128.0), "adm-floor": (127.5, 127.5)}
"""Rule to (scale, offset): uint8 = clip(scale x + offset, 0, 255), truncated."""


PIECE = 2**17
"""Number of pixel values quantised at a time on a CPU."""


def quantise(images: torch.Tensor, rule: str = "edm-round") -> torch.Tensor:
    """Return `images` (float, [-1, 1]) as uint8; half precision is converted to single first.

    Args:
        rule: edm-round, clip(127.5 x + 128) truncated, rounds half up to the nearest level; adm-floor,
            clip(127.5 (x + 1)) truncated, is half a level darker on average.

    Source: Karras et al. 2022, arXiv:2206.00364, the public code's generate.py; for adm-floor the public code of ADM
    (arXiv:2105.05233) and of latent diffusion (arXiv:2112.10752), whose published numbers include the half level.
    """
    scale, offset = QUANTISERS[rule]
    exact = images.detach() if images.dtype == torch.float64 else images.detach().float()
    if images.device.type != "cpu":
        return exact.mul(scale).add_(offset).clamp_(0, 255).to(torch.uint8)
    levels = torch.empty(images.shape, dtype=torch.uint8)
    # A few images at a time, so that intermediate values stay in the cache. NumPy's cast is faster than torch's.
    few = max(PIECE // max(images[:1].numel(), 1), 1)
    for begin in range(0, len(images), few):
        part = slice(begin, begin + few)
        rounded = exact[part].mul(scale).add_(offset).clamp_(0, 255)
        np.copyto(levels[part].numpy(), rounded.numpy(), casting="unsafe")
    return levels
