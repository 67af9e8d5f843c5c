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
        return F.conv2d(x, self.weight, self.bias, padding=self.padding, groups=self.groups)


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
        y = F.conv2d(x, self.kernel.expand(channels, 1, -1, -1), stride=2, padding=1, groups=channels)
        return y if self.widen is None else self.widen(y)


class Discriminator(nn.Module):
    """D(x) [B] for images [B, channels, *size]: stages that halve the sides, a depthwise layer, a linear layer.

    Args:
        channels: channels of the image (or latent).
        size: height and width in pixels.
        widths: channels of each stage, from the full size down; the last stage should be about 4x4.
        cardinalities: groups of the 3x3 convolutions of each stage; each divides twice the width.
        blocks: residual blocks per stage.
        generator: CPU generator for the initial weights.

    Raises:
        TrainingError: the shapes do not fit.

    Source: R3GAN, arXiv:2501.05441; its FFHQ-64 network has widths 384, 768 x4, cardinalities 48, 96 x4 and 2 blocks.
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
    ) -> None:
        super().__init__()
        left = _left(size, widths, cardinalities)
        gain = math.sqrt(2 / (1 + SLOPE**2)) * (len(widths) * blocks) ** -0.25
        layers: list[nn.Module] = [Convolution(channels, widths[0], 1, 1)]
        for stage, (width, cardinality) in enumerate(zip(widths, cardinalities, strict=True)):
            layers += [Residual(width, cardinality, gain) for _ in range(blocks)]
            if stage + 1 < len(widths):
                layers.append(Halving(width, widths[stage + 1]))
        layers += [Convolution(widths[-1], widths[-1], *left, groups=widths[-1]), Convolution(widths[-1], 1, 1, 1)]
        self.layers = nn.Sequential(*layers)
        for module in self.modules():
            if isinstance(module, Convolution) and not module.weight.is_meta:
                module.initialise(generator)

    @property
    def first(self) -> nn.Parameter:
        """The weights of the first 1x1 convolution, [w0, channels, 1, 1]."""
        layer = self.layers[0]
        assert isinstance(layer, Convolution)
        return layer.weight

    def forward(self, x: Tensor) -> Tensor:
        scores: Tensor = self.layers(x)
        return scores.flatten()


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

    loss: Tensor  # adversarial + gamma / 2 * (r1 + r2); carries gradient
    adversarial: Tensor  # mean softplus(-(D(real) - D(fake)))
    real: Tensor  # mean D(real)
    fake: Tensor  # mean D(fake)
    r1: Tensor  # mean |grad D(real)|^2, summed over pixels
    r2: Tensor  # mean |grad D(fake)|^2, summed over pixels


def discriminator_loss(
    discriminator: Callable[[Tensor], Tensor], real: Tensor, fake: Tensor, gamma: float, kind: str = "relativistic"
) -> DiscriminatorTerms:
    """Return the discriminator's loss with both penalties, mean[l] + gamma/2 mean[|dD/dR|^2 + |dD/dF|^2].

        relativistic:  l = softplus(-(D(R) - D(F)))            classic:  l = softplus(-D(R)) + softplus(D(F))

    Args:
        real, fake: images [B, C, H, W], paired along the batch; both are detached, so no gradient leaves the
            discriminator.
        gamma: weight of the penalties (0.2 in GAS).

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
        loss=adversarial + gamma / 2 * (r1 + r2),
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
