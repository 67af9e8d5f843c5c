"""The adversarial part of GAS: an R3GAN discriminator and the relativistic losses with both gradient penalties.

The discriminator is reimplemented from its published structure (Huang et al. 2025, arXiv:2501.05441), for any image
size.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from solverbench.errors import TrainingError
from solverbench.learned.discriminator_sizes import LEAST, MOST, fits, fitting, halved

EXPANSION = 2  # the inner width of a residual block, in multiples of the stage's width
SLOPE = 0.2  # negative slope of the leaky rectifier


class Convolution(nn.Module):
    """A convolution with its own initial scale: weights N(0, gain^2 / fan_in), bias (if any) 0."""

    def __init__(
        self,
        inner: int,
        outer: int,
        *sides: int,
        groups: int = 1,
        gain: float = 1.0,
        padding: int = 0,
        bias: bool = False,
    ) -> None:
        super().__init__()
        self.groups, self.gain, self.padding = groups, gain, padding
        self.weight = nn.Parameter(torch.empty(outer, inner // groups, *sides))
        self.bias = nn.Parameter(torch.empty(outer)) if bias else None

    def initialise(self, generator: torch.Generator) -> None:
        """Draw new weights from `generator`, a CPU generator whatever the device of the weights."""
        fan_in = self.weight[0].numel()
        drawn = torch.randn(self.weight.shape, generator=generator) * (self.gain / math.sqrt(fan_in))
        with torch.no_grad():
            self.weight.copy_(drawn)
            if self.bias is not None:
                self.bias.zero_()

    def forward(self, x: Tensor) -> Tensor:
        if x.dtype == self.weight.dtype:
            return F.conv2d(x, self.weight, self.bias, padding=self.padding, groups=self.groups)
        # In low precision the result is rounded before the bias is added, as in R3GAN, which has it in its activation.
        y = _rounded_convolution(x, self.weight.to(x.dtype), padding=self.padding, groups=self.groups)
        return y if self.bias is None else y + self.bias.to(x.dtype)[:, None, None]


def _rounded_convolution(x: Tensor, weight: Tensor, *, stride: int = 1, padding: int = 0, groups: int = 1) -> Tensor:
    """Return a convolution of tensors in low precision, accumulated in float32.

    Devices with such arithmetic accumulate so. torch's own on a CPU is off by half in second derivatives of grouped
    convolutions (2.13.0, batches of 8), so it computes in float32 there and rounds the result.
    """
    if x.device.type != "cpu":
        return F.conv2d(x, weight, stride=stride, padding=padding, groups=groups)
    return F.conv2d(x.float(), weight.float(), stride=stride, padding=padding, groups=groups).to(x.dtype)


class Residual(nn.Module):
    """y = x + W3 lrelu(b2 + W2 lrelu(b1 + W1 x)): 1x1 to twice the width, grouped 3x3, 1x1 back; W3 starts at 0."""

    def __init__(self, width: int, cardinality: int, gain: float) -> None:
        super().__init__()
        wide = EXPANSION * width
        self.w1 = Convolution(width, wide, 1, 1, gain=gain, bias=True)
        self.w2 = Convolution(wide, wide, 3, 3, groups=cardinality, gain=gain, padding=1, bias=True)
        self.w3 = Convolution(wide, width, 1, 1, gain=0.0)

    def forward(self, x: Tensor) -> Tensor:
        y = F.leaky_relu(self.w1(x), SLOPE)
        y = F.leaky_relu(self.w2(y), SLOPE)
        scaled: Tensor = self.w3(y)
        return x + scaled


class Halving(nn.Module):
    """Halve the side: low-pass [1,3,3,1] x [1,3,3,1] / 64, pad 1, stride 2; then a 1x1 convolution if widths differ."""

    kernel: Tensor

    def __init__(self, width: int, following: int) -> None:
        super().__init__()
        taps = torch.tensor([1.0, 3.0, 3.0, 1.0])
        self.register_buffer("kernel", torch.outer(taps, taps)[None, None] / 64, persistent=False)
        self.widen = Convolution(width, following, 1, 1) if width != following else None

    def forward(self, x: Tensor) -> Tensor:
        channels = x.shape[1]
        kernel = self.kernel.expand(channels, 1, -1, -1)
        if x.dtype == kernel.dtype:
            y = F.conv2d(x, kernel, stride=2, padding=1, groups=channels)
        else:
            y = _rounded_convolution(x, kernel.to(x.dtype), stride=2, padding=1, groups=channels)
        return y if self.widen is None else self.widen(y)


class Discriminator(nn.Module):
    """D(x) [B] for images [B, channels, *size]: stages that halve the sides, a depthwise layer, a linear layer.

    With classes, the linear layer has E outputs, as many as the last width, and D(x, c) is their inner product with the
    class's embedding, a column of `embedding` [E, classes].

    In the first `low_stages` stages, and the 1x1 convolution before them, weights and activations are rounded to
    bfloat16. Each stage converts its input. Parameters, gradients of parameters and the score stay float32.

    Args:
        channels: channels of the image (or latent).
        size: height and width in pixels.
        widths: channels of each stage, from the full size down; the last stage should be about 4x4.
        cardinalities: groups of the 3x3 convolutions of each stage; each divides twice the width.
        blocks: residual blocks per stage.
        generator: CPU generator for the initial weights.
        classes: number of classes; 0 for a discriminator that is told none.
        low_stages: number of stages in bfloat16, from the full size down; the last stage never is.

    Raises:
        TrainingError: the shapes do not fit.

    Source: R3GAN, arXiv:2501.05441, and its public code; its FFHQ-64 network has widths 384, 768 x4, cardinalities 48,
    96 x4, 2 blocks, and all stages but the last in bfloat16; its ImageNet networks are told the class.
    """

    def __init__(
        self,
        channels: int,
        size: tuple[int, int],
        *,
        widths: Sequence[int],
        cardinalities: Sequence[int],
        blocks: int,
        generator: torch.Generator,
        classes: int = 0,
        low_stages: int = 0,
    ) -> None:
        super().__init__()
        left = _left(size, widths, cardinalities)
        _check_low(size, low_stages, len(widths))
        gain = math.sqrt(2 / (1 + SLOPE**2)) * (len(widths) * blocks) ** -0.25
        layers: list[nn.Module] = [Convolution(channels, widths[0], 1, 1)]
        for stage, (width, cardinality) in enumerate(zip(widths, cardinalities, strict=True)):
            layers += [Residual(width, cardinality, gain) for _ in range(blocks)]
            if stage + 1 < len(widths):
                layers.append(Halving(width, widths[stage + 1]))
        outputs = widths[-1] if classes else 1
        layers += [
            Convolution(widths[-1], widths[-1], *left, groups=widths[-1]),
            Convolution(widths[-1], outputs, 1, 1),
        ]
        self.layers = nn.Sequential(*layers)
        self.low_layers = 1 + low_stages * (blocks + 1) if low_stages else 0
        self.embedding = nn.Parameter(torch.empty(outputs, classes)) if classes else None
        for module in self.modules():
            if isinstance(module, Convolution) and not module.weight.is_meta:
                module.initialise(generator)
        if self.embedding is not None and not self.embedding.is_meta:
            drawn = torch.randn(self.embedding.shape, generator=generator)
            self.embedding.data.copy_(drawn / math.sqrt(outputs * classes))

    @property
    def first(self) -> nn.Parameter:
        """The weights of the first 1x1 convolution, [w0, channels, 1, 1]."""
        layer = self.layers[0]
        assert isinstance(layer, Convolution)
        return layer.weight

    def forward(self, x: Tensor, classes: Tensor | None = None) -> Tensor:
        """Return the scores [B] of images under their `classes` [B], int64; None if it is told none."""
        precise = x.dtype
        for number, layer in enumerate(self.layers):
            x = layer(x.to(torch.bfloat16 if number < self.low_layers else precise))
        if self.embedding is None:
            return x.flatten()
        assert classes is not None
        return (x.flatten(1) * self.embedding.T[classes]).sum(1)


def _check_low(size: tuple[int, int], low_stages: int, stages: int) -> None:
    """Raise TrainingError if the last stage, whose outputs are the score, is to be in low precision."""
    if low_stages >= stages:
        raise TrainingError(
            asked=f"bf16_stages={low_stages} of a discriminator for images of {size[0]} x {size[1]}",
            wrong=f"it has {stages} stages, and the last one computes the score, in float32",
            remedy=f"set bf16_stages to at most {stages - 1}",
        )


def _left(size: tuple[int, int], widths: Sequence[int], cardinalities: Sequence[int]) -> tuple[int, int]:
    """Return the height and width in the last stage."""
    asked = f"discriminator for images of {size[0]} x {size[1]}"
    stages = len(widths)
    height, width = halved(size, stages)
    if not fits(size, stages):
        best = fitting(size)
        if best is None:
            raise TrainingError(
                asked=asked,
                wrong=f"no number of widths leaves {LEAST} to {MOST} on both sides in the last stage",
                remedy="states that aren't laid out as an image have none; train a solver without it, such as gs",
            )
        raise TrainingError(
            asked=asked,
            wrong=f"{stages} widths leave {height} x {width} in the last stage, where {LEAST} to {MOST} are needed",
            remedy=f"give {best} widths and as many cardinalities",
        )
    if len(cardinalities) != stages:
        raise TrainingError(
            asked=asked,
            wrong=f"{len(cardinalities)} cardinalities for {stages} widths",
            remedy="give one for each width",
        )
    for inner, cardinality in zip((EXPANSION * each for each in widths), cardinalities, strict=True):
        if inner % cardinality:
            raise TrainingError(
                asked=asked,
                wrong=f"cardinality {cardinality} does not divide {inner}, the inner width",
                remedy="change it",
            )
    return height, width


@dataclass(frozen=True)
class DiscriminatorTerms:
    """The discriminator's loss and its parts, each a mean over the batch (0-d tensors on the images' device)."""

    loss: Tensor  # adversarial + gamma / 2 * (a r1 + b r2); carries gradient
    adversarial: Tensor  # mean softplus(-(D(real) - D(fake)))
    real: Tensor  # mean D(real)
    fake: Tensor  # mean D(fake)
    r1: Tensor  # mean |grad D(real)|^2, summed over pixels
    r2: Tensor  # mean |grad D(fake)|^2, summed over pixels


def discriminator_loss(
    discriminator: Callable[[Tensor], Tensor],
    real: Tensor,
    fake: Tensor,
    gamma: float,
    kind: str = "relativistic",
    shares: tuple[float, float] = (1.0, 1.0),
) -> DiscriminatorTerms:
    """Return the discriminator's loss with both penalties, mean[l] + gamma/2 mean[a |dD/dR|^2 + b |dD/dF|^2].

        relativistic:  l = softplus(-(D(R) - D(F)))            classic:  l = softplus(-D(R)) + softplus(D(F))

    Args:
        real, fake: images [B, C, H, W], paired along the batch; both are detached, so no gradient leaves the
            discriminator.
        gamma: weight of the penalties (0.2 in GAS).
        shares: a and b; both 1 in GAS and R3GAN.

    Source: GAS, arXiv:2510.17699 (classic: its table 6); R3GAN, arXiv:2501.05441; Goodfellow et al. 2014,
    arXiv:1406.2661, the non-saturating form. D has no batch statistics, so both halves share one pass.
    """
    images = torch.cat([real, fake]).detach().requires_grad_(True)
    scores = discriminator(images)
    (slopes,) = torch.autograd.grad(scores.sum(), images, create_graph=True)
    penalties = slopes.square().flatten(1).sum(1)
    count = len(real)
    d_real, d_fake = scores[:count], scores[count:]
    r1, r2 = penalties[:count].mean(), penalties[count:].mean()
    if kind == "classic":
        adversarial = (F.softplus(-d_real) + F.softplus(d_fake)).mean()
    else:
        adversarial = F.softplus(-(d_real - d_fake)).mean()
    return DiscriminatorTerms(
        loss=adversarial + gamma / 2 * (shares[0] * r1 + shares[1] * r2),
        adversarial=adversarial.detach(),
        real=d_real.detach().mean(),
        fake=d_fake.detach().mean(),
        r1=r1.detach(),
        r2=r2.detach(),
    )


def generator_loss(
    discriminator: Callable[[Tensor], Tensor], fake: Tensor, real: Tensor, kind: str = "relativistic"
) -> Tensor:
    """Return softplus(-(D(G) - D(R))) per sample, [B], or softplus(-D(G)) if `kind` is classic.

    Freeze the discriminator first, so that only `fake` receives a gradient.

    Args:
        fake: the student's images [B, C, H, W], carrying gradient.
        real: the teacher's images [B, C, H, W] of the same noise (as in GAS's code; the paper has independent noises).
    """
    if kind == "classic":
        return F.softplus(-discriminator(fake))
    with torch.no_grad():
        d_real = discriminator(real)
    return F.softplus(-(discriminator(fake) - d_real))
