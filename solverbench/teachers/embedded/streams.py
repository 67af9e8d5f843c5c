"""Random numbers by seed: an image is a pure function of one integer, independent of its batch."""

from __future__ import annotations

import torch
from torch import Tensor

TEACHER_STREAM, METRIC_STREAM, LOSS_STREAM = 1 << 40, 2 << 40, 3 << 40
"""First training seed of each network; step n with batch size B uses the B seeds from stream + n·B."""


def as_tensor(seeds: Tensor | range, device: torch.device | str | None = None) -> Tensor:
    """Return seeds as int64 [B], on `device` if one is given."""
    if isinstance(seeds, range):
        seeds = torch.arange(seeds.start, seeds.stop, seeds.step)
    return seeds if device is None else seeds.to(device)


def _signed(value: int) -> int:
    return value - (1 << 64) if value >= 1 << 63 else value


_GOLDEN = _signed(0x9E3779B97F4A7C15)
_FIRST = _signed(0xBF58476D1CE4E5B9)
_SECOND = _signed(0x94D049BB133111EB)


def _shifted(z: Tensor, bits: int) -> Tensor:
    """Return z shifted right without sign extension, unlike torch's shift of int64."""
    return (z >> bits) & ((1 << (64 - bits)) - 1)


def _mixed(z: Tensor) -> Tensor:
    """Return splitmix64's finaliser of int64 z, which wraps as uint64 does."""
    z = (z ^ _shifted(z, 30)) * _FIRST
    z = (z ^ _shifted(z, 27)) * _SECOND
    return z ^ _shifted(z, 31)


def uniforms(seeds: Tensor, count: int) -> Tensor:
    """Return [B, count] float64 numbers in [0, 1); each row is a function of one int64 seed of `seeds` [B].

    Row s is the splitmix64 sequence that starts from the mixed seed, with the upper 53 bits kept.

    Source: Steele, Lea & Flood 2014, "Fast splittable pseudorandom number generators", figure 16 and Mix13.
    """
    steps = torch.arange(1, count + 1, device=seeds.device) * _GOLDEN
    bits = _mixed(_mixed(seeds + _GOLDEN)[:, None] + steps)
    return _shifted(bits, 11).double() * 2.0**-53
