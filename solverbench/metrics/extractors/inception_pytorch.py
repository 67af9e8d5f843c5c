"""pytorch-fid's Inception network, computed from the state dict in its weights file, without torchvision."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError

import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d, avg_pool2d, batch_norm, conv2d, max_pool2d

from solverbench.errors import RecordError
from solverbench.wording import one_line

STRIDES = {
    "Conv2d_1a_3x3": 2,
    "Conv2d_2a_3x3": 1,
    "Conv2d_4a_3x3": 1,
    "Mixed_6a.branch3x3": 2,
    "Mixed_6a.branch3x3dbl_3": 2,
    "Mixed_7a.branch3x3_2": 2,
    "Mixed_7a.branch7x7x3_4": 2,
}
"""Strides of the convolutions without padding; all others keep height and width."""

_THIN = (("branch1x1",), ("branch5x5_1", "branch5x5_2"), ("branch3x3dbl_1", "branch3x3dbl_2", "branch3x3dbl_3"))
_LONG = (
    ("branch1x1",),
    ("branch7x7_1", "branch7x7_2", "branch7x7_3"),
    tuple(f"branch7x7dbl_{number}" for number in range(1, 6)),
)
BRANCHES: dict[str, tuple[tuple[str, ...], ...]] = {
    **dict.fromkeys(("Mixed_5b", "Mixed_5c", "Mixed_5d"), (*_THIN, ("mean", "branch_pool"))),
    "Mixed_6a": (("branch3x3",), ("branch3x3dbl_1", "branch3x3dbl_2", "branch3x3dbl_3"), ("shrink",)),
    **dict.fromkeys(("Mixed_6b", "Mixed_6c", "Mixed_6d", "Mixed_6e"), (*_LONG, ("mean", "branch_pool"))),
    "Mixed_7a": (
        ("branch3x3_1", "branch3x3_2"),
        tuple(f"branch7x7x3_{number}" for number in range(1, 5)),
        ("shrink",),
    ),
    **{
        name: (
            ("branch1x1",),
            ("branch3x3_1", "branch3x3_2a"),
            ("branch3x3_1", "branch3x3_2b"),
            ("branch3x3dbl_1", "branch3x3dbl_2", "branch3x3dbl_3a"),
            ("branch3x3dbl_1", "branch3x3dbl_2", "branch3x3dbl_3b"),
            (pool, "branch_pool"),
        )
        for name, pool in (("Mixed_7b", "mean"), ("Mixed_7c", "max"))
    },
}
"""Block to its branches, whose outputs are joined in order; each branch is a chain of pools and convolutions."""

_POOLS = {
    "mean": lambda x: avg_pool2d(x, 3, stride=1, padding=1, count_include_pad=False),
    "max": lambda x: max_pool2d(x, 3, stride=1, padding=1),
    "shrink": lambda x: max_pool2d(x, 3, stride=2),
}


class PytorchInception:
    """The feature network of pytorch-fid and of clean-fid's legacy_pytorch mode.

    Args:
        state: weights, named as in the file `pt_inception-2015-12-05-6726825d.pth`.

    Raises:
        RecordError: a weight is missing.

    Source: Szegedy et al. 2016, arXiv:1512.00567, as in TensorFlow's graph of 2015-12-05: means exclude the padding,
    and the last block takes a maximum where the paper has a mean.
    """

    def __init__(self, state: Mapping[str, Tensor]) -> None:
        self.state = dict(state)
        plain = ("Conv2d_1a_3x3", "Conv2d_2a_3x3", "Conv2d_2b_3x3", "Conv2d_3b_1x1", "Conv2d_4a_3x3")
        layers = {f"{block}.{part}" for block, ways in BRANCHES.items() for way in ways for part in way}
        convolutions = {*plain, *(name for name in layers if name.rpartition(".")[2] not in _POOLS)}
        parts = ("conv.weight", "bn.weight", "bn.bias", "bn.running_mean", "bn.running_var")
        wanted = [f"{name}.{part}" for name in sorted(convolutions) for part in parts]
        for name in (*wanted, "fc.weight"):
            if not isinstance(self.state.get(name), Tensor):
                raise RecordError(asked="Inception weights", wrong=f"no {name}", remedy="download them again")

    @classmethod
    def read(cls, path: Path, device: str) -> PytorchInception:
        """Return the network of a file; nothing in it is executed.

        Raises:
            RecordError: the file does not hold these weights.
        """
        try:
            state = torch.load(path, map_location=device, weights_only=True)
        except (OSError, RuntimeError, EOFError, KeyError, ValueError, UnpicklingError, zipfile.BadZipFile) as error:
            raise RecordError(asked=path, wrong=one_line(error), remedy="download it again") from None
        if not isinstance(state, dict):
            raise RecordError(asked=path, wrong="holds no state dict", remedy="download it again")
        return cls(state)

    def __call__(self, x: Tensor) -> Tensor:
        """Return features [B, 2048] of images [B, 3, 299, 299] on [-1, 1]."""
        for name in ("Conv2d_1a_3x3", "Conv2d_2a_3x3", "Conv2d_2b_3x3"):
            x = self._convolved(x, name)
        x = max_pool2d(x, 3, stride=2)
        for name in ("Conv2d_3b_1x1", "Conv2d_4a_3x3"):
            x = self._convolved(x, name)
        x = max_pool2d(x, 3, stride=2)
        for block, ways in BRANCHES.items():
            x = torch.cat([self._along(x, block, way) for way in ways], dim=1)
        return adaptive_avg_pool2d(x, 1).flatten(1)

    @property
    def classes(self) -> Tensor:
        """The weights of the last layer, [1008, 2048]."""
        return self.state["fc.weight"]

    def _along(self, x: Tensor, block: str, way: tuple[str, ...]) -> Tensor:
        for part in way:
            x = _POOLS[part](x) if part in _POOLS else self._convolved(x, f"{block}.{part}")
        return x

    def _convolved(self, x: Tensor, name: str) -> Tensor:
        """Return the convolution of x, normalised by the running moments and rectified."""
        weight = self.state[f"{name}.conv.weight"]
        padding = (0, 0) if name in STRIDES else (weight.shape[2] // 2, weight.shape[3] // 2)
        mean, variance, scale, shift = (
            self.state[f"{name}.bn.{part}"] for part in ("running_mean", "running_var", "weight", "bias")
        )
        x = conv2d(x, weight, stride=STRIDES.get(name, 1), padding=padding)
        return batch_norm(x, mean, variance, scale, shift, eps=1e-3).relu_()
