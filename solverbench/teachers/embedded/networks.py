"""Common parts of the embedded teachers' networks: EDM preconditioning, perceptual features, metric features."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.backends import cudnn
from torch.nn.functional import gelu, normalize


def frequencies(count: int) -> Tensor:
    """Return [count] float32 angular frequencies for the embedding of ln(sigma)/4.

    ln(sigma)/4 spans 2.65 for sigma between 0.002 and 80; periods from 25 down to 0.5 keep the network smooth in sigma.
    """
    return torch.logspace(-2, 3.6, count, base=2, dtype=torch.float64).float()


def preconditioned(x: Tensor, sigma: Tensor, spread: float) -> tuple[Tensor, ...]:
    """Return c_skip, c_out, c_in and ln(sigma)/4, each [1 or B, 1, ...] with the ndim, dtype and device of x.

    Args:
        x: [B, ...].
        sigma: 0-d or [B].
        spread: standard deviation of the data.

    Source: Karras et al. 2022, arXiv:2206.00364, table 1.
    """
    level = sigma.double().reshape(-1, *[1] * (x.ndim - 1))
    norm = (level.square() + spread**2).sqrt()
    # Computed in float64 on sigma's device, then moved to x's device in one transfer.
    numbers = torch.cat(((spread / norm).square(), level * spread / norm, 1 / norm, level.log() / 4), 1)
    return numbers.to(x.device, x.dtype, non_blocking=True).chunk(4, 1)


class PerceptualNet(nn.Module):
    """A classifier whose activations define a perceptual loss; differentiable in its input.

    A subclass defines `layers`, and `classes`, the linear layer on the mean of the last activations.
    """

    classes: nn.Linear

    def layers(self, x: Tensor) -> tuple[Tensor, ...]:
        """Return the activations [B, C, h, w] at several depths for images x [B, C, H, W] in [-1, 1]."""
        raise NotImplementedError

    def logits(self, x: Tensor) -> Tensor:
        """Return class scores [B, classes] for images x [B, C, H, W] in [-1, 1]."""
        return self.classes(self.layers(x)[-1].mean((2, 3)))  # type: ignore[no-any-return]

    def forward(self, x: Tensor) -> Tensor:
        """Return feature vectors [B, D] for images x [B, C, H, W] in [-1, 1], float, with gradient.

        Each depth's activations are normalised over channels and divided by the root of the number of positions, so
        the squared distance of two vectors is the mean over positions, summed over depths, as in LPIPS without weights.

        Source: Zhang et al. 2018, arXiv:1801.03924, equation 1 with w = 1.
        """
        parts = [normalize(layer, dim=1, eps=1e-4).flatten(1) / layer[0, 0].numel() ** 0.5 for layer in self.layers(x)]
        return torch.cat(parts, 1)


class PatchNet(PerceptualNet):
    """A classifier of clean and noisy images on overlapping patches, at three sizes; differentiable in its input.

    Args:
        channels: channels of the images.
        classes: number of classes.
        width: channels at a quarter of the side; half as many at half of it, a third at the whole.
    """

    def __init__(self, channels: int, classes: int, width: int) -> None:
        super().__init__()
        self.config = {"width": width}
        self.fine = nn.Conv2d(channels, width // 3, 5, padding=2)
        self.middle = nn.Conv2d(width // 3, width // 2, 4, stride=2, padding=1)
        self.coarse = nn.Conv2d(width // 2, width, 4, stride=2, padding=1)
        self.mixed = nn.Conv2d(width, width, 3, padding=1)
        self.classes = nn.Linear(width, classes)

    def layers(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return the activations [B, C, h, w] at four depths for images x [B, channels, H, W] in [-1, 1]."""
        fine = gelu(self.fine(x), approximate="tanh")
        middle = gelu(self.middle(fine), approximate="tanh")
        coarse = gelu(self.coarse(middle), approximate="tanh")
        return fine, middle, coarse, coarse + gelu(self.mixed(coarse), approximate="tanh")


class FeatureNet(nn.Module):
    """A metric network: its `forward` takes images [B, C, H, W] of 0-255 and returns features [B, D].

    A subclass defines `classes`, the linear layer from features to class scores.
    """

    classes: nn.Linear

    def features(self, images: Tensor) -> Tensor:
        """Return `forward` without gradient and, on a GPU, in full float32 (cuDNN would use TF32)."""
        with torch.inference_mode(), cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False):
            features = self(images)
        assert isinstance(features, Tensor)
        return features

    def of_floats(self, images: Tensor) -> Tensor:
        """Return `forward` of float images in [-1, 1], with gradient."""
        features = self(127.5 * (images + 1))
        assert isinstance(features, Tensor)
        return features
