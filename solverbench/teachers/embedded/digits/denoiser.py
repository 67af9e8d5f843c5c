"""The teacher's network: a residual MLP on 64 pixels, modulated by the noise level, preconditioned as in EDM."""

from __future__ import annotations

import copy
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.functional import layer_norm, silu

from solverbench.teachers.embedded import artifacts as weights
from solverbench.teachers.embedded.digits.data import FOLDER, SHAPE
from solverbench.teachers.embedded.networks import frequencies, preconditioned

_PIXELS = SHAPE[0] * SHAPE[1] * SHAPE[2]


class Block(nn.Module):
    """h + W2 silu(W1 (norm(h) (1 + scale) + shift)); starts as the identity."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width
        self.inner = nn.Linear(width, width)
        self.outer = nn.Linear(width, width)
        nn.init.zeros_(self.outer.weight)
        nn.init.zeros_(self.outer.bias)

    def forward(self, h: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
        """Return [B, width] from h [B, width] and scale, shift [1 or B, width]."""
        modulated = torch.addcmul(shift, layer_norm(h, (self.width,)), 1 + scale)
        return h + self.outer(silu(self.inner(modulated)))  # type: ignore[no-any-return]


class Denoiser(nn.Module):
    """Estimates the clean image: D = c_skip x + c_out F(c_in x, ln(sigma)/4).

    Args:
        width: width of every layer.
        blocks: residual blocks of two layers each.
        embedding: width of the noise level's embedding, even.
        sigma_data: standard deviation of the data.

    Source: Karras et al. 2022, arXiv:2206.00364, table 1 (preconditioning); Peebles & Xie 2023, arXiv:2212.09748,
    section 3.2 (modulation).
    """

    frequencies: Tensor

    def __init__(self, *, width: int = 256, blocks: int = 4, embedding: int = 64, sigma_data: float = 0.66) -> None:
        super().__init__()
        self.config = {"width": width, "blocks": blocks, "embedding": embedding, "sigma_data": sigma_data}
        self.register_buffer("frequencies", frequencies(embedding // 2), persistent=False)
        self.embed = nn.Sequential(
            nn.Linear(embedding, embedding), nn.SiLU(), nn.Linear(embedding, embedding), nn.SiLU()
        )
        self.film = nn.Linear(embedding, 2 * blocks * width)
        self.enter = nn.Linear(_PIXELS, width)
        self.blocks = nn.ModuleList(Block(width) for _ in range(blocks))
        self.leave = nn.Linear(width, _PIXELS)
        for layer in (self.film, self.leave):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor, sigma: Tensor) -> Tensor:
        """Return the estimate of the clean image, with x's shape, dtype and device.

        Args:
            x: [B, 1, 8, 8], clean image + sigma times unit noise.
            sigma: noise level > 0, 0-d (one for all: embedded once) or [B]; may carry gradient.
        """
        flat = x.flatten(1)
        skip, out, scale, noise = preconditioned(flat, sigma, self.config["sigma_data"])
        dtype = self.enter.weight.dtype
        network = self._network((scale * flat).to(dtype), noise.to(dtype))
        return (skip * flat + out * network.to(x.dtype)).reshape(x.shape)

    def _network(self, h: Tensor, noise: Tensor) -> Tensor:
        phase = noise * self.frequencies
        films = self.film(self.embed(torch.cat((phase.cos(), phase.sin()), 1))).chunk(2 * len(self.blocks), 1)
        h = self.enter(h)
        for k, block in enumerate(self.blocks):
            h = block(h, films[2 * k], films[2 * k + 1])
        return self.leave(layer_norm(h, h.shape[-1:]))  # type: ignore[no-any-return]


class Double:
    """A denoiser with float64 weights, for float64 images; created at the first call, as few runs need it.

    Args:
        network: denoiser of any dtype; its weights are copied.
    """

    def __init__(self, network: Denoiser) -> None:
        self.network = network

    @cached_property
    def double(self) -> Denoiser:
        """The network in float64, with equal weights."""
        return copy.deepcopy(self.network).double()

    def __call__(self, x: Tensor, sigma: Tensor) -> Tensor:
        """Return the denoiser's estimate, computed in float64."""
        found: Tensor = self.double(x, sigma)
        return found


def load(folder: Path = FOLDER, *, device: torch.device | str = "cpu") -> Denoiser:
    """Return the trained denoiser of `folder` in float32, frozen, on `device`.

    Raises:
        MissingError, RecordError: the weights don't exist or differ from the recorded ones.
    """
    return weights.frozen(Denoiser, folder / "teacher.safetensors", device)
