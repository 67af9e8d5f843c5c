"""The networks of EDM, VP and VE checkpoints: two U-Nets and four preconditionings, under upstream's parameter names.

Source: Karras et al. 2022, arXiv:2206.00364, table 1 and appendix F.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import (
    conv2d,
    conv_transpose2d,
    group_norm,
    scaled_dot_product_attention,
    silu,
)

FULL_PRECISION = ("map_noise", "map_label", "map_augment", "map_layer0", "map_layer1", "affine")
"""Modules that stay float32 in a half-precision network, because the noise level needs the precision."""


@dataclass(frozen=True)
class Style:
    """The settings shared by all blocks of an architecture.

    Args:
        embedding: width of the noise level's embedding.
        heads: number of attention heads as a function of the channels.
        scale: factor on a block's sum with its input.
        eps: epsilon of group normalisation.
        taps: resampling filter along one axis.
        projected: whether a resampled input also passes a 1x1 convolution.
        modulated: whether the embedding scales and shifts (true) or is added (false).
    """

    embedding: int
    heads: Callable[[int], int]
    scale: float
    eps: float
    taps: Sequence[float]
    projected: bool
    modulated: bool


class Norm(nn.Module):
    """Group normalisation with at most 32 groups of at least four channels."""

    def __init__(self, channels: int, eps: float) -> None:
        super().__init__()
        self.groups, self.eps = min(32, channels // 4), eps
        self.weight = nn.Parameter(torch.empty(channels))
        self.bias = nn.Parameter(torch.empty(channels))

    def forward(self, x: Tensor) -> Tensor:
        return group_norm(x, self.groups, self.weight, self.bias, self.eps)


class Conv(nn.Module):
    """A convolution after resampling by 2 with a fixed filter; either may be absent.

    Args:
        kernel: kernel size; 0 for no convolution.
        resample: "up", "down" or "" for none.
        taps: filter taps along one axis.
        last: whether to filter after the convolution instead of before.
    """

    weight: Tensor | None
    bias: Tensor | None
    resample_filter: Tensor | None

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int,
        resample: str = "",
        taps: Sequence[float] = (1, 1),
        last: bool = False,
    ) -> None:
        super().__init__()
        self.resample, self.last = resample, last
        for name, shape in (("weight", (outputs, inputs, kernel, kernel)), ("bias", (outputs,))):
            self.register_parameter(name, nn.Parameter(torch.empty(shape)) if kernel else None)
        line = torch.tensor(list(taps), dtype=torch.float32)
        plane = torch.outer(line, line)[None, None] / line.sum() ** 2
        self.register_buffer("resample_filter", plane if resample else None)

    def forward(self, x: Tensor) -> Tensor:
        if self.weight is None:
            return self._resampled(x)
        edge = self.weight.shape[-1] // 2
        if not self.last:
            return conv2d(self._resampled(x), self.weight, self.bias, padding=edge)
        # Pad once, in the convolution, for both the kernel and the filter.
        assert self.resample_filter is not None
        x = conv2d(x, self.weight, padding=edge + self._border)
        x = conv2d(x, self._filters(x), groups=x.shape[1], stride=2)
        return x if self.bias is None else x + self.bias[:, None, None]

    def _resampled(self, x: Tensor) -> Tensor:
        if not self.resample:
            return x
        if self.resample == "up":
            return conv_transpose2d(x, 4 * self._filters(x), groups=x.shape[1], stride=2, padding=self._border)
        return conv2d(x, self._filters(x), groups=x.shape[1], stride=2, padding=self._border)

    def _filters(self, x: Tensor) -> Tensor:
        assert self.resample_filter is not None
        return self.resample_filter.to(x.dtype).expand(x.shape[1], -1, -1, -1)

    @property
    def _border(self) -> int:
        assert self.resample_filter is not None
        return (self.resample_filter.shape[-1] - 1) // 2


class Block(nn.Module):
    """A residual block conditioned on the noise level, with optional resampling and self-attention."""

    def __init__(self, inputs: int, outputs: int, style: Style, resample: str = "", attentive: bool = False) -> None:
        super().__init__()
        self.inputs, self.outputs, self.style = inputs, outputs, style
        self.norm0 = Norm(inputs, style.eps)
        self.conv0 = Conv(inputs, outputs, 3, resample, style.taps)
        self.affine = nn.Linear(style.embedding, outputs * (2 if style.modulated else 1))
        self.norm1 = Norm(outputs, style.eps)
        self.conv1 = Conv(outputs, outputs, 3)
        self.skip: Conv | None = None
        if resample or inputs != outputs:
            kernel = 1 if style.projected or inputs != outputs else 0
            self.skip = Conv(inputs, outputs, kernel, resample, style.taps)
        self.heads = style.heads(outputs) if attentive else 0
        if self.heads:
            self.norm2 = Norm(outputs, style.eps)
            self.qkv = Conv(outputs, 3 * outputs, 1)
            self.proj = Conv(outputs, outputs, 1)

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        """Return [B, outputs, H', W'] from x [B, inputs, H, W] and embedding [B or 1, E]."""
        told = self.affine(embedding)[:, :, None, None].to(x.dtype)
        h = self.conv0(silu(self.norm0(x)))
        if self.style.modulated:
            scale, shift = told.chunk(2, 1)
            h = self.norm1(h) * (scale + 1) + shift
        else:
            h = self.norm1(h + told)
        h = self.conv1(silu(h)) + (x if self.skip is None else self.skip(x))
        made: Tensor = h * self.style.scale
        return (made + self._attended(made)) * self.style.scale if self.heads else made

    def _attended(self, x: Tensor) -> Tensor:
        batch, channels, *size = x.shape
        # Ordered by head, then by channel; each channel has its query, key and value side by side.
        parts = self.qkv(self.norm2(x)).reshape(batch, self.heads, channels // self.heads, 3, -1)
        query, key, value = (part.transpose(2, 3) for part in parts.unbind(3))
        found = scaled_dot_product_attention(query, key, value).transpose(2, 3)
        made: Tensor = self.proj(found.reshape(batch, channels, *size))
        return made


class Positional(nn.Module):
    """Cosines and sines of a number at geometric frequencies from 1 to 1/10000, inclusive only if `closed`."""

    def __init__(self, width: int, closed: bool) -> None:
        super().__init__()
        self.count, self.span = width // 2, width // 2 - (1 if closed else 0)

    def forward(self, noise: Tensor) -> Tensor:
        places = torch.arange(self.count, dtype=noise.dtype, device=noise.device) / self.span
        phase = noise[:, None] * (-math.log(10000.0) * places).exp()
        return torch.cat((phase.cos(), phase.sin()), 1)


class Fourier(nn.Module):
    """Cosines and sines of a number at random frequencies stored in the checkpoint."""

    freqs: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        self.register_buffer("freqs", torch.empty(width // 2))

    def forward(self, noise: Tensor) -> Tensor:
        phase = noise[:, None] * (2 * math.pi * self.freqs.to(noise.dtype))
        return torch.cat((phase.cos(), phase.sin()), 1)


class SongUNet(nn.Module):
    """DDPM++ (positional, standard, standard) and NCSN++ (fourier, residual, standard).

    Args:
        img_resolution, ..: arguments named as in a checkpoint.
    """

    def __init__(
        self,
        img_resolution: int,
        in_channels: int,
        out_channels: int,
        label_dim: int = 0,
        augment_dim: int = 0,
        model_channels: int = 128,
        channel_mult: Sequence[int] = (1, 2, 2, 2),
        channel_mult_emb: int = 4,
        num_blocks: int = 4,
        attn_resolutions: Sequence[int] = (16,),
        dropout: float = 0.1,
        label_dropout: float = 0.0,
        embedding_type: str = "positional",
        channel_mult_noise: int = 1,
        encoder_type: str = "standard",
        decoder_type: str = "standard",
        resample_filter: Sequence[float] = (1, 1),
    ) -> None:
        super().__init__()
        _check("embedding_type", embedding_type, ("positional", "fourier"))
        _check("encoder_type", encoder_type, ("standard", "skip", "residual"))
        _check("decoder_type", decoder_type, ("standard", "skip"))
        width, noise = model_channels * channel_mult_emb, model_channels * channel_mult_noise
        style = Style(width, lambda channels: 1, math.sqrt(0.5), 1e-6, resample_filter, projected=True, modulated=False)
        self.map_noise = Positional(noise, closed=True) if embedding_type == "positional" else Fourier(noise)
        self.map_label = nn.Linear(label_dim, noise) if label_dim else None
        self.map_augment = nn.Linear(augment_dim, noise, bias=False) if augment_dim else None
        self.map_layer0 = nn.Linear(noise, width)
        self.map_layer1 = nn.Linear(width, width)
        self.classes = label_dim

        sizes = [img_resolution >> level for level in range(len(channel_mult))]
        self.enc, self.dec = nn.ModuleDict(), nn.ModuleDict()
        channels, side, skips = model_channels, in_channels, [model_channels]
        self.enc[f"{sizes[0]}x{sizes[0]}_conv"] = Conv(in_channels, channels, 3)
        for level, (size, mult) in enumerate(zip(sizes, channel_mult, strict=True)):
            at = f"{size}x{size}"
            if level:
                self.enc[f"{at}_down"] = Block(channels, channels, style, "down")
                skips.append(channels)
                if encoder_type == "skip":
                    self.enc[f"{at}_aux_down"] = Conv(side, side, 0, "down", resample_filter)
                    self.enc[f"{at}_aux_skip"] = Conv(side, channels, 1)
                if encoder_type == "residual":
                    self.enc[f"{at}_aux_residual"] = Conv(side, channels, 3, "down", resample_filter, last=True)
                    side = channels
            for index in range(num_blocks):
                attentive = size in attn_resolutions
                self.enc[f"{at}_block{index}"] = Block(channels, model_channels * mult, style, attentive=attentive)
                channels = model_channels * mult
                skips.append(channels)
        for level, (size, mult) in reversed(list(enumerate(zip(sizes, channel_mult, strict=True)))):
            at, deepest = f"{size}x{size}", level == len(sizes) - 1
            for name, block in _entrance(at, channels, style, deepest):
                self.dec[name] = block
            for index in range(num_blocks + 1):
                attentive = index == num_blocks and size in attn_resolutions
                inputs, channels = channels + skips.pop(), model_channels * mult
                self.dec[f"{at}_block{index}"] = Block(inputs, channels, style, attentive=attentive)
            if decoder_type == "skip" or level == 0:
                if decoder_type == "skip" and not deepest:
                    self.dec[f"{at}_aux_up"] = Conv(out_channels, out_channels, 0, "up", resample_filter)
                self.dec[f"{at}_aux_norm"] = Norm(channels, 1e-6)
                self.dec[f"{at}_aux_conv"] = Conv(channels, out_channels, 3)

    def forward(self, x: Tensor, noise: Tensor, labels: Tensor | None) -> Tensor:
        """Return [B, out, H, W] from x [B, C, H, W], noise [B or 1] and labels [B or 1, classes]."""
        cosines, sines = self.map_noise(noise).chunk(2, 1)
        told = torch.cat((sines, cosines), 1)
        if self.map_label is not None and labels is not None:
            told = told + self.map_label(labels * math.sqrt(self.classes))
        told = silu(self.map_layer1(silu(self.map_layer0(told))))

        side = x
        states: list[Tensor] = []
        for name, layer in self.enc.items():
            if name.endswith("aux_down"):
                side = layer(side)
            elif name.endswith("aux_skip"):
                x = states[-1] = x + layer(side)
            elif name.endswith("aux_residual"):
                x = states[-1] = side = (x + layer(side)) * math.sqrt(0.5)
            else:
                x = layer(x, told) if isinstance(layer, Block) else layer(x)
                states.append(x)
        found: Tensor | None = None
        normed = x
        for name, layer in self.dec.items():
            if name.endswith("aux_up"):
                found = layer(found)
            elif name.endswith("aux_norm"):
                normed = layer(x)
            elif name.endswith("aux_conv"):
                made = layer(silu(normed))
                found = made if found is None else found + made
            else:
                x = _joined(layer, x, states, told)
        assert found is not None
        return found


class DhariwalUNet(nn.Module):
    """ADM. Source of the architecture: Dhariwal & Nichol 2021, arXiv:2105.05233.

    Args:
        img_resolution, ..: arguments named as in a checkpoint.
    """

    def __init__(
        self,
        img_resolution: int,
        in_channels: int,
        out_channels: int,
        label_dim: int = 0,
        augment_dim: int = 0,
        model_channels: int = 192,
        channel_mult: Sequence[int] = (1, 2, 3, 4),
        channel_mult_emb: int = 4,
        num_blocks: int = 3,
        attn_resolutions: Sequence[int] = (32, 16, 8),
        dropout: float = 0.1,
        label_dropout: float = 0.0,
    ) -> None:
        super().__init__()
        width = model_channels * channel_mult_emb
        style = Style(width, lambda channels: channels // 64, 1.0, 1e-5, (1, 1), projected=False, modulated=True)
        self.map_noise = Positional(model_channels, closed=False)
        self.map_augment = nn.Linear(augment_dim, model_channels, bias=False) if augment_dim else None
        self.map_layer0 = nn.Linear(model_channels, width)
        self.map_layer1 = nn.Linear(width, width)
        self.map_label = nn.Linear(label_dim, width, bias=False) if label_dim else None

        sizes = [img_resolution >> level for level in range(len(channel_mult))]
        self.enc, self.dec = nn.ModuleDict(), nn.ModuleDict()
        channels = model_channels * channel_mult[0]
        skips = [channels]
        self.enc[f"{sizes[0]}x{sizes[0]}_conv"] = Conv(in_channels, channels, 3)
        for level, (size, mult) in enumerate(zip(sizes, channel_mult, strict=True)):
            at, attentive = f"{size}x{size}", size in attn_resolutions
            if level:
                self.enc[f"{at}_down"] = Block(channels, channels, style, "down")
                skips.append(channels)
            for index in range(num_blocks):
                self.enc[f"{at}_block{index}"] = Block(channels, model_channels * mult, style, attentive=attentive)
                channels = model_channels * mult
                skips.append(channels)
        for level, (size, mult) in reversed(list(enumerate(zip(sizes, channel_mult, strict=True)))):
            at, attentive = f"{size}x{size}", size in attn_resolutions
            for name, block in _entrance(at, channels, style, level == len(sizes) - 1):
                self.dec[name] = block
            for index in range(num_blocks + 1):
                inputs, channels = channels + skips.pop(), model_channels * mult
                self.dec[f"{at}_block{index}"] = Block(inputs, channels, style, attentive=attentive)
        self.out_norm = Norm(channels, 1e-5)
        self.out_conv = Conv(channels, out_channels, 3)

    def forward(self, x: Tensor, noise: Tensor, labels: Tensor | None) -> Tensor:
        """Return [B, out, H, W] from x [B, C, H, W], noise [B or 1] and labels [B or 1, classes]."""
        told = self.map_layer1(silu(self.map_layer0(self.map_noise(noise))))
        if self.map_label is not None and labels is not None:
            told = told + self.map_label(labels)
        told = silu(told)
        states: list[Tensor] = []
        for layer in self.enc.values():
            x = layer(x, told) if isinstance(layer, Block) else layer(x)
            states.append(x)
        for layer in self.dec.values():
            x = _joined(layer, x, states, told)
        return self.out_conv(silu(self.out_norm(x)))  # type: ignore[no-any-return]


UNETS = {"SongUNet": SongUNet, "DhariwalUNet": DhariwalUNet}


class Preconditioned(nn.Module):
    """The data prediction of a U-Net: D = skip x + out F(scale x, noise); the four numbers depend on upstream's class.

        EDMPrecond     s^2/(sigma^2 + s^2), sigma s/norm, 1/norm, ln(sigma)/4;  s = sigma_data, norm^2 = sigma^2 + s^2
        VPPrecond      1, -sigma, 1/sqrt(1 + sigma^2), (M - 1) t(sigma)
        VEPrecond      1, sigma, 1, ln(sigma/2)
        iDDPMPrecond   1, -sigma, 1/sqrt(1 + sigma^2), the index of the nearest known level

    Args:
        class_name: name of upstream's class.
        init_kwargs: constructor arguments of upstream's class.

    Raises:
        ValueError, TypeError: an unknown class or invalid arguments.
    """

    u: Tensor

    def __init__(self, class_name: str, init_kwargs: Mapping[str, Any]) -> None:
        super().__init__()
        _check("class", class_name, tuple(_DEFAULTS))
        own = {name: init_kwargs.get(name, value) for name, value in _DEFAULTS[class_name].items()}
        rest = {name: value for name, value in init_kwargs.items() if name not in own}
        self.class_name, self.own = class_name, own
        self.shape = (int(own["img_channels"]), int(own["img_resolution"]), int(own["img_resolution"]))
        self.classes = int(own["label_dim"])
        self.droppable = float(rest.get("label_dropout", 0)) > 0
        _check("model_type", own["model_type"], tuple(UNETS))
        outputs = self.shape[0] * (2 if class_name == "iDDPMPrecond" else 1)
        self.model = UNETS[own["model_type"]](self.shape[1], self.shape[0], outputs, self.classes, **rest)
        if class_name == "iDDPMPrecond":
            known = list(_levels(int(own["M"]), float(own["C_1"]), float(own["C_2"])))
            self.register_buffer("u", torch.tensor(known, dtype=torch.float32))

    @cached_property
    def levels(self) -> tuple[float, ...]:
        """The only levels that the network knows, falling; empty if it takes any level.

        They are read from the checkpoint: upstream computes them in float32, up to 5e-4 from the formula's.
        """
        return tuple(self.u[:-1].tolist()) if self.class_name == "iDDPMPrecond" else ()

    @property
    def range(self) -> tuple[float, float]:
        """The lowest and highest level that the network knows."""
        own = self.own
        if self.class_name == "VPPrecond":
            return self._vp_sigma(float(own["epsilon_t"])), self._vp_sigma(1.0)
        if self.class_name == "iDDPMPrecond":
            return self.levels[-1], self.levels[0]
        return float(own["sigma_min"]), float(own["sigma_max"])

    def forward(self, x: Tensor, sigma: Tensor, labels: Tensor | None = None) -> Tensor:
        """Return the data prediction, of x's shape and dtype.

        Args:
            x: states [B, C, H, W], clean image + sigma times unit noise.
            sigma: noise level > 0, 0-d (for all images, embedded once) or [B]; may carry gradient.
            labels: one-hot classes [B or 1, classes], rows of 0 for no class; None for a network without classes.
        """
        numbers = torch.stack(self._numbers(sigma.double().reshape(-1)))
        skip, out, scale, noise = numbers.to(x.device, x.dtype, non_blocking=True)
        weight = next(self.model.enc.parameters())
        inputs = (scale[:, None, None, None] * x).to(weight.dtype)
        told = noise.to(self.model.map_layer0.weight.dtype)
        found = self.model(inputs, told, None if labels is None else labels.to(told.dtype))
        found = found[:, : self.shape[0]].to(x.dtype)
        made: Tensor = skip[:, None, None, None] * x + out[:, None, None, None] * found
        return made

    def _numbers(self, sigma: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return skip, out, scale and noise, [B or 1] each, in float64 on sigma's device."""
        one, own = torch.ones_like(sigma), self.own
        if self.class_name == "EDMPrecond":
            data = float(own["sigma_data"])
            norm = (sigma**2 + data**2).sqrt()
            return (data / norm) ** 2, sigma * data / norm, 1 / norm, sigma.log() / 4
        if self.class_name == "VEPrecond":
            return one, sigma, one, (sigma / 2).log()
        scale = 1 / (1 + sigma**2).sqrt()
        if self.class_name == "VPPrecond":
            beta, slope = float(own["beta_min"]), float(own["beta_d"])
            t = ((beta**2 + 2 * slope * torch.log1p(sigma**2)).sqrt() - beta) / slope
            return one, -sigma, scale, (own["M"] - 1) * t
        known = torch.tensor([*self.levels, 0.0], dtype=torch.float64, device=sigma.device)
        place = (sigma.detach()[:, None] - known).abs().argmin(1)
        return one, -sigma, scale, (own["M"] - 1 - place).to(sigma.dtype)

    def _vp_sigma(self, t: float) -> float:
        return math.sqrt(math.expm1(self.own["beta_d"] * t**2 / 2 + self.own["beta_min"] * t))


_DEFAULTS: dict[str, dict[str, Any]] = {
    "EDMPrecond": {"sigma_min": 0.0, "sigma_max": math.inf, "sigma_data": 0.5, "model_type": "DhariwalUNet"},
    "VPPrecond": {"beta_d": 19.9, "beta_min": 0.1, "M": 1000, "epsilon_t": 1e-5, "model_type": "SongUNet"},
    "VEPrecond": {"sigma_min": 0.02, "sigma_max": 100.0, "model_type": "SongUNet"},
    "iDDPMPrecond": {"C_1": 0.001, "C_2": 0.008, "M": 1000, "model_type": "DhariwalUNet"},
}
for _each in _DEFAULTS.values():
    _each |= {"img_resolution": 0, "img_channels": 0, "label_dim": 0, "use_fp16": False}


def _levels(count: int, low: float, high: float) -> Iterator[float]:
    """Return the levels of an iDDPM network from the highest to 0. Source: the paper's table 1, row "time steps"."""

    def alpha_bar(j: int) -> float:
        return math.sin(math.pi / 2 * j / count / (high + 1)) ** 2

    found = [0.0]
    for j in range(count, 0, -1):
        ratio = max(alpha_bar(j - 1) / alpha_bar(j), low)
        found.append(math.sqrt((found[-1] ** 2 + 1) / ratio - 1))
    return reversed(found)


def _entrance(at: str, channels: int, style: Style, deepest: bool) -> Iterator[tuple[str, Block]]:
    """Yield the decoder's first blocks at a resolution, by name."""
    if deepest:
        yield f"{at}_in0", Block(channels, channels, style, attentive=True)
        yield f"{at}_in1", Block(channels, channels, style)
    else:
        yield f"{at}_up", Block(channels, channels, style, "up")


def _joined(layer: nn.Module, x: Tensor, states: list[Tensor], told: Tensor) -> Tensor:
    """Return a decoder block's output for x, joined with the encoder's latest state if the block is wider than x."""
    assert isinstance(layer, Block)
    if x.shape[1] != layer.inputs:
        x = torch.cat((x, states.pop()), 1)
    return layer(x, told)  # type: ignore[no-any-return]


def _check(what: str, value: Any, known: Sequence[str]) -> None:
    if value not in known:
        raise ValueError(f"{what} {value!r} isn't one of {', '.join(known)}")
