"""The embedded teachers' U-Net with attention, given noise level and class, preconditioned as in EDM."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.functional import group_norm, interpolate, pixel_shuffle, pixel_unshuffle, silu

from solverbench.teachers.embedded.networks import frequencies, preconditioned

_GROUP = 16
_HEAD = 32


class Norm(nn.Module):
    """Group normalisation with 16 channels per group, without weights, as the next layer scales."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.groups = max(width // _GROUP, 1)

    def forward(self, h: Tensor) -> Tensor:
        return group_norm(h, self.groups, eps=1e-5)


class Block(nn.Module):
    """h + conv(silu(norm(conv(silu(norm(h)))) (1 + scale) + shift)), then optional attention; the identity at first."""

    def __init__(self, width: int, *, attention: bool) -> None:
        super().__init__()
        self.width = width
        self.norm = Norm(width)
        self.inner = nn.Conv2d(width, width, 3, padding=1)
        self.outer = nn.Conv2d(width, width, 3, padding=1)
        self.tokens = nn.Conv2d(width, 3 * width, 1) if attention else None
        self.mixed = nn.Conv2d(width, width, 1) if attention else None
        for layer in (self.outer, self.mixed):
            if layer is not None:
                nn.init.zeros_(layer.weight)
                nn.init.zeros_(layer.bias)  # type: ignore[arg-type]

    def forward(self, h: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
        """Return [B, width, s, s] from h of that shape and scale, shift [1 or B, width, 1, 1]."""
        inner = self.norm(self.inner(silu(self.norm(h))))
        h = h + self.outer(silu(torch.addcmul(shift, inner, 1 + scale)))
        if self.tokens is None or self.mixed is None:
            return h
        mixed: Tensor = self.mixed(_attended(self.tokens(self.norm(h))).reshape(h.shape))
        return h + mixed


def _attended(tokens: Tensor) -> Tensor:
    """Return values [B, heads, 32, s*s] mixed by softmax(q.k / sqrt(32)); `tokens` [B, 3 heads 32, s, s] is q, k, v.

    Written out because the backward pass of torch's own attention takes longer on a CPU than the rest of the network.
    """
    query, key, value = tokens.reshape(len(tokens), 3, -1, _HEAD, tokens[0, 0].numel()).unbind(1)
    shares = torch.softmax(query.transpose(-1, -2) @ key * _HEAD**-0.5, -1)
    mixed: Tensor = value @ shares.transpose(-1, -2)
    return mixed


class UNet(nn.Module):
    """Estimates the clean image: D = c_skip x + c_out F(c_in x, ln(sigma)/4, class).

    The label `classes` is that of the unconditional estimate.

    Args:
        channels: channels of the images.
        classes: number of classes.
        patch: side of the patches that are the first level's positions; 1: the pixels.
        widths: channels of each level; each level has half the positions a side of the one before.
        blocks: residual blocks of each level, on the way down and again on the way up.
        attention: whether the blocks of each level have attention.
        embedding: width of the embedding of noise level and class, even.
        sigma_data: standard deviation of the data.

    Source: Karras et al. 2022, arXiv:2206.00364, table 1 (preconditioning); Ho et al. 2020, arXiv:2006.11239,
    appendix B (U-Net).
    """

    frequencies: Tensor

    def __init__(
        self,
        channels: int,
        classes: int,
        *,
        patch: int = 1,
        widths: Sequence[int],
        blocks: Sequence[int],
        attention: Sequence[bool],
        embedding: int,
        sigma_data: float,
    ) -> None:
        super().__init__()
        self.classes, self.patch = classes, patch
        self.config: dict[str, Any] = {
            "widths": list(widths),
            "blocks": list(blocks),
            "attention": list(attention),
            "embedding": embedding,
            "sigma_data": sigma_data,
        }
        self.sigma_data = sigma_data
        self.register_buffer("frequencies", frequencies(embedding // 4), persistent=False)
        self.level = nn.Linear(2 * (embedding // 4), embedding)
        self.label = nn.Embedding(classes + 1, embedding)
        self.embed = nn.Sequential(nn.SiLU(), nn.Linear(embedding, embedding), nn.SiLU())
        self.enter = nn.Conv2d(channels * patch**2, widths[0], 3, padding=1)
        levels = list(zip(widths, blocks, attention, strict=True))
        self.down = nn.ModuleList(
            nn.ModuleList(Block(width, attention=attends) for _ in range(count)) for width, count, attends in levels
        )
        self.up = nn.ModuleList(
            nn.ModuleList(Block(width, attention=attends) for _ in range(count)) for width, count, attends in levels
        )
        self.merge = nn.ModuleList(
            nn.ModuleList(nn.Conv2d(2 * width, width, 1) for _ in range(count)) for width, count, _ in levels
        )
        pairs = list(itertools.pairwise(widths))
        self.shrink = nn.ModuleList(nn.Conv2d(a, b, 3, stride=2, padding=1) for a, b in pairs)
        self.grow = nn.ModuleList(nn.Conv2d(b, a, 1) for a, b in pairs)
        self.norm = Norm(widths[0])
        self.leave = nn.Conv2d(widths[0], channels * patch**2, 3, padding=1)
        self.film = nn.Linear(embedding, sum(4 * width * count for width, count, _ in levels))
        nn.init.zeros_(self.film.weight)
        nn.init.zeros_(self.film.bias)
        nn.init.zeros_(self.leave.weight)
        nn.init.zeros_(self.leave.bias)  # type: ignore[arg-type]
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, x: Tensor, sigma: Tensor, classes: Tensor | None = None) -> Tensor:
        """Return the estimate of the clean image, with x's shape, dtype and device.

        Args:
            x: [B, channels, H, W], clean image + sigma times unit noise.
            sigma: noise level > 0, 0-d (one for all) or [B]; may carry gradient.
            classes: [B] int64, up to `self.classes`, which all have if it is None.
        """
        skip, out, scale, noise = preconditioned(x, sigma, self.sigma_data)
        dtype = self.enter.weight.dtype
        if classes is None:
            classes = torch.full((1,), self.classes, device=x.device)
        network = self._network((scale * x).to(dtype), noise.to(dtype).flatten(1), classes.to(x.device))
        return skip * x + out * network.to(x.dtype)

    def _network(self, h: Tensor, noise: Tensor, classes: Tensor) -> Tensor:
        with torch.autocast(h.device.type, enabled=False):  # noise levels differ by less than bfloat16 resolves
            phase = noise * self.frequencies
            embedded = self.embed(self.level(torch.cat((phase.cos(), phase.sin()), 1)) + self.label(classes))
            films = self._films(embedded)
        h = self.enter(pixel_unshuffle(h, self.patch).contiguous(memory_format=torch.channels_last))
        skips = []
        for k, stage in enumerate(self.down):
            h = self.shrink[k - 1](h) if k else h
            for block in _modules(stage):
                h = block(h, *next(films))
                skips.append(h)
        for k in reversed(range(len(self.up))):
            for block, merge in zip(_modules(self.up[k]), _modules(self.merge[k]), strict=True):
                h = block(merge(torch.cat((h, skips.pop()), 1)), *next(films))
            h = interpolate(self.grow[k - 1](h), scale_factor=2.0) if k else h
        return pixel_shuffle(self.leave(silu(self.norm(h))), self.patch)

    def _films(self, embedded: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """Return scale and shift of each block, in the order of execution."""
        stages = [*self.down, *reversed(list(self.up))]
        widths = [cast(Block, block).width for stage in stages for block in _modules(stage)]
        parts = torch.split(self.film(embedded)[:, :, None, None], [w for width in widths for w in (width, width)], 1)
        return zip(parts[::2], parts[1::2], strict=True)


def _modules(stage: nn.Module) -> list[nn.Module]:
    return list(cast(nn.ModuleList, stage))
