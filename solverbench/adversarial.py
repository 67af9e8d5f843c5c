"""The adversarial part of GAS: an R3GAN discriminator and the relativistic losses with both gradient penalties.

The discriminator is written from its structure (Huang et al. 2025, arXiv:2501.05441), for any image of side 4 * 2^k.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from solverbench.errors import TrainingError

EXPANSION = 2  # the inner width of a residual block, in multiples of the stage's width
SLOPE = 0.2  # of the leaky rectifier
LAST_SIDE = 4  # the side of the image in the last stage, and of its depthwise kernel


class Convolution(nn.Module):
    """A square convolution that knows its initial scale: weights N(0, gain^2 / fan_in), bias (where it has one) 0."""

    def __init__(
        self, inner: int, outer: int, side: int, *, groups: int = 1, gain: float = 1.0, bias: bool = False
    ) -> None:
        super().__init__()
        self.groups, self.gain, self.padding = groups, gain, 1 if side == 3 else 0
        self.weight = nn.Parameter(torch.empty(outer, inner // groups, side, side))
        self.bias = nn.Parameter(torch.empty(outer)) if bias else None

    def initialise(self, generator: torch.Generator) -> None:
        """Draw the weights anew from `generator` (a CPU one, whatever device the weights are on)."""
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
        self.w1 = Convolution(width, wide, 1, gain=gain, bias=True)
        self.w2 = Convolution(wide, wide, 3, groups=cardinality, gain=gain, bias=True)
        self.w3 = Convolution(wide, width, 1, gain=0.0)

    def forward(self, x: Tensor) -> Tensor:
        y = F.leaky_relu(self.w1(x), SLOPE)
        y = F.leaky_relu(self.w2(y), SLOPE)
        scaled: Tensor = self.w3(y)
        return x + scaled


class Halving(nn.Module):
    """Half the side: low-pass [1,3,3,1] x [1,3,3,1] / 64, pad 1, stride 2; then a 1x1 convolution if widths differ."""

    kernel: Tensor

    def __init__(self, width: int, following: int) -> None:
        super().__init__()
        taps = torch.tensor([1.0, 3.0, 3.0, 1.0])
        self.register_buffer("kernel", torch.outer(taps, taps)[None, None] / 64, persistent=False)
        self.widen = Convolution(width, following, 1) if width != following else None

    def forward(self, x: Tensor) -> Tensor:
        channels = x.shape[1]
        y = F.conv2d(x, self.kernel.expand(channels, 1, -1, -1), stride=2, padding=1, groups=channels)
        return y if self.widen is None else self.widen(y)


class Discriminator(nn.Module):
    """D(x) [B] for images [B, channels, side, side]: stages halve the side to 4, then depthwise 4x4 and linear.

    Args:
        channels: of the image (or latent).
        side: of the image in pixels, 4 * 2^(stages - 1).
        widths: channels of each stage, from the full side to side 4.
        cardinalities: groups of the 3x3 convolution of each stage; divides twice the width.
        blocks: residual blocks per stage.
        generator: CPU generator that draws the initial weights.

    Raises:
        TrainingError: a shape that does not fit.

    Source: R3GAN, arXiv:2501.05441; its FFHQ-64 network has widths 384, 768 x4, cardinalities 48, 96 x4 and 2 blocks.
    """

    def __init__(
        self,
        channels: int,
        side: int,
        *,
        widths: Sequence[int],
        cardinalities: Sequence[int],
        blocks: int,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        _check(side, widths, cardinalities)
        gain = math.sqrt(2 / (1 + SLOPE**2)) * (len(widths) * blocks) ** -0.25
        layers: list[nn.Module] = [Convolution(channels, widths[0], 1)]
        for stage, (width, cardinality) in enumerate(zip(widths, cardinalities, strict=True)):
            layers += [Residual(width, cardinality, gain) for _ in range(blocks)]
            if stage + 1 < len(widths):
                layers.append(Halving(width, widths[stage + 1]))
        layers += [Convolution(widths[-1], widths[-1], LAST_SIDE, groups=widths[-1]), Convolution(widths[-1], 1, 1)]
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


def _check(side: int, widths: Sequence[int], cardinalities: Sequence[int]) -> None:
    asked = f"discriminator for images of side {side}"
    stages = len(widths)
    fits = LAST_SIDE * 2 ** max(stages - 1, 0)
    if stages == 0 or side != fits:
        raise TrainingError(
            f"{asked}: {stages} stages need side {fits}; give one width for each side down to {LAST_SIDE}"
        )
    if len(cardinalities) != stages:
        raise TrainingError(f"{asked}: {len(cardinalities)} cardinalities for {stages} widths; give one for each width")
    for width, cardinality in zip(widths, cardinalities, strict=True):
        wide = EXPANSION * width
        if wide % cardinality:
            raise TrainingError(
                f"{asked}: cardinality {cardinality} does not divide {wide}, the inner width; change it"
            )


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
    discriminator: Callable[[Tensor], Tensor], real: Tensor, fake: Tensor, gamma: float
) -> DiscriminatorTerms:
    """The relativistic loss with both penalties: mean[softplus(-(D(R) - D(F)))] + gamma/2 mean[|dD/dR|^2 + |dD/dF|^2].

    Args:
        real, fake: [B, C, H, W], paired along the batch; both are detached here: no gradient leaves the discriminator.
        gamma: weight of the penalties (0.2 in GAS).

    Source: GAS, arXiv:2510.17699; R3GAN, arXiv:2501.05441. Both halves in one pass: D has no batch statistics.
    """
    images = torch.cat([real, fake]).detach().requires_grad_(True)
    scores = discriminator(images)
    (slopes,) = torch.autograd.grad(scores.sum(), images, create_graph=True)
    penalties = slopes.square().flatten(1).sum(1)
    count = len(real)
    d_real, d_fake = scores[:count], scores[count:]
    r1, r2 = penalties[:count].mean(), penalties[count:].mean()
    adversarial = F.softplus(-(d_real - d_fake)).mean()
    return DiscriminatorTerms(
        loss=adversarial + gamma / 2 * (r1 + r2),
        adversarial=adversarial.detach(),
        real=d_real.detach().mean(),
        fake=d_fake.detach().mean(),
        r1=r1.detach(),
        r2=r2.detach(),
    )


def generator_loss(discriminator: Callable[[Tensor], Tensor], fake: Tensor, real: Tensor) -> Tensor:
    """softplus(-(D(G) - D(R))) per sample, [B]; freeze the discriminator first, so that gradient goes to `fake` alone.

    Args:
        fake: [B, C, H, W], the student's images, carrying gradient.
        real: [B, C, H, W], the teacher's images of the same noise (GAS's code; the paper writes independent noises).
    """
    with torch.no_grad():
        d_real = discriminator(real)
    return F.softplus(-(discriminator(fake) - d_real))
