"""A mixture of diagonal Gaussians, with its exact denoiser at any noise level and exact samples by seed."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from solverbench.teachers.embedded import artifacts as weights
from solverbench.teachers.embedded.streams import as_tensor, uniforms

FOLDER = Path(__file__).parent / "data"
FILE = "mixture.safetensors"


@dataclass(frozen=True, eq=False)
class Mixture:
    """The density sum_k w_k N(m_k, diag v_k) of images, at any noise level.

    Everything is computed in float64 for any dtype of the images, as the squares below cancel too much for float32.

    Args:
        weights: [K] float64, positive, with sum 1.
        means: [K, D] float64.
        variances: [K, D] float64, positive.
        shape: (C, H, W) with C H W = D.
    """

    weights: Tensor
    means: Tensor
    variances: Tensor
    shape: tuple[int, int, int]

    def __call__(self, x: Tensor, sigma: Tensor) -> Tensor:
        """Return the posterior mean E[x0 | x0 + sigma n = x], of x's shape and dtype; differentiable in both.

        With component k's posterior probability r_k and s_k = v_k + sigma^2,

            D = sum_k r_k (sigma^2 m_k + v_k x) / s_k

        Args:
            x: [B, *shape].
            sigma: noise level > 0, 0-d.
        """
        rows, noise = x.flatten(1).double(), sigma.to(self.means, non_blocking=True).square()
        spread = self.variances + noise
        posterior = self._log_joint(rows, spread).softmax(1)
        found = posterior @ (noise * self.means / spread) + posterior @ (self.variances / spread) * rows
        return found.to(x.dtype).reshape(x.shape)

    def log_density(self, x: Tensor, sigma: Tensor | float = 0.0) -> Tensor:
        """Return [B] float64, the log density of x0 + sigma n at `x` [B, *shape], in nats."""
        noise = torch.as_tensor(sigma, dtype=torch.float64).to(self.means).square()
        joint = self._log_joint(x.flatten(1).double(), self.variances + noise)
        density: Tensor = joint.logsumexp(1)
        return density

    def posterior(self, x: Tensor) -> Tensor:
        """Return [B, K] float64, the probability of each component given the clean images `x` [B, *shape]."""
        return self._log_joint(x.flatten(1).double(), self.variances).softmax(1)

    def sample(self, seeds: Tensor | range) -> Tensor:
        """Return [B, *shape] float32, one exact sample per seed (int64 [B] or a range), a function of the seed only."""
        draws = uniforms(as_tensor(seeds, self.means.device), 1 + self.means.shape[1])
        bounds = self.weights.cumsum(0)[:-1].contiguous()
        component = torch.searchsorted(bounds, draws[:, 0].contiguous(), right=True)
        # Uniforms are multiples of 2^-53, including 0; a shift of half a step makes all of them positive.
        normal = torch.special.ndtri(draws[:, 1:] * (1 - 2.0**-53) + 2.0**-54)
        rows = self.means[component] + self.variances[component].sqrt() * normal
        images: Tensor = rows.float().reshape(len(rows), *self.shape)
        return images

    def to(self, device: torch.device | str) -> Mixture:
        """Return the mixture on `device`."""
        return Mixture(self.weights.to(device), self.means.to(device), self.variances.to(device), self.shape)

    def _log_joint(self, rows: Tensor, spread: Tensor) -> Tensor:
        """Return [B, K], the log of w_k N(row; m_k, diag spread_k), with (x - m)^2 / s as two matrix products."""
        scaled = self.means / spread
        squares = rows.square() @ (1 / spread).T - 2 * rows @ scaled.T + (self.means * scaled).sum(1)
        constant = self.weights.log() - 0.5 * (spread.log().sum(1) + math.log(2 * math.pi) * rows.shape[1])
        return constant - 0.5 * squares


def load(folder: Path = FOLDER, *, device: torch.device | str = "cpu") -> tuple[Mixture, dict[str, int | float]]:
    """Return the fitted mixture of `folder` on `device`, and its configuration.

    Raises:
        MissingError, RecordError: its file doesn't exist or differs from the recorded one.
    """
    tensors, config = weights.read(folder / FILE)
    chances, means, variances = (tensors[name].double() for name in ("weights", "means", "variances"))
    shape = (int(config["channels"]), int(config["height"]), int(config["width"]))
    return Mixture(chances / chances.sum(), means, variances, shape).to(device), config
