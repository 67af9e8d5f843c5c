"""The golden cases and the denoiser that they were made with."""

import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

DATA = Path(__file__).parent / "data"


class Golden:
    """One file of golden cases."""

    def __init__(self, name: str) -> None:
        self.cases: list[dict[str, Any]] = json.loads((DATA / f"{name}.json").read_text())
        with np.load(DATA / f"{name}.npz") as arrays:
            self.arrays = {key: torch.as_tensor(np.asarray(arrays[key], dtype=np.float64)) for key in arrays}

    def __call__(self, key: str, case: dict[str, Any]) -> Tensor:
        return self.arrays[f"{key}{case['id']}"]

    def denoise(self, x: Tensor, sigma: Tensor) -> Tensor:
        """The posterior mean of the mixture."""
        means, var = self.arrays["means"].flatten(1), self.arrays["var"]
        flat, v = x.flatten(1), var + sigma**2
        gaps = flat[:, None] - means
        weights = torch.softmax(
            self.arrays["logits"] - means.shape[1] / 2 * v.log() - (gaps**2).sum(-1) / (2 * v), dim=1
        )
        return (weights[..., None] * (means + (var / v)[:, None] * gaps)).sum(1).reshape(x.shape)


@cache
def golden(name: str) -> Golden:
    return Golden(name)


def relative(found: Tensor, expected: Tensor) -> float:
    """The largest difference over the largest expected value."""
    return float((found - expected).abs().max() / expected.abs().max())
