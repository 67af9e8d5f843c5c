"""The variance-preserving schedule of a model that was trained at discrete steps."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor

from solverbench.errors import GridError
from solverbench.method.schedules import STAND_IN, VariancePreserving, array_digest


@dataclass(frozen=True)
class VPDiscrete(VariancePreserving):
    """Variance preserving, given at M discrete steps; log alpha is linear in t between and beyond them.

    The n-th step (from 0) lies at t = (n+1)/M; sampling goes from t = 1 to t_eps. A network that counts steps gets
    M t - 1, unrounded. Source: Lu et al. 2022, arXiv:2206.00927, appendix (discrete-time models), and its public code.

    Args:
        log_alphas: log alpha at the M steps, strictly decreasing, below 0.
        t_eps: time at which sampling ends, in (0, 1).

    Raises:
        GridError: fewer than two steps, or log_alphas that are not finite, below 0 and strictly decreasing.
    """

    log_alphas: tuple[float, ...] = field(repr=False)
    t_eps: float = 1e-3

    def __post_init__(self) -> None:
        falling = all(a > b for a, b in itertools.pairwise((0.0, *self.log_alphas)))
        if len(self.log_alphas) < 2 or not falling or not math.isfinite(self.log_alphas[-1]):
            raise GridError(
                asked=f"VPDiscrete of {len(self.log_alphas)} steps",
                wrong="its alphas don't strictly decrease from below 1 to above 0",
                remedy="leave out the steps with alpha = 0",
            )
        if not 0 < self.t_eps < 1:
            raise GridError(
                asked=f"VPDiscrete(t_eps={self.t_eps:g})",
                wrong="sampling goes from 1 to t_eps",
                remedy="use 0 < t_eps < 1",
            )
        if not self.log_alpha(torch.tensor(self.t_eps, dtype=torch.float64)) < 0:
            raise GridError(
                asked=f"VPDiscrete(t_eps={self.t_eps:g})",
                wrong=f"no noise is left there, before the first of {len(self.log_alphas)} steps",
                remedy=f"use t_eps={1 / len(self.log_alphas):g}",
            )

    @classmethod
    def from_alphas_cumprod(cls, alphas_cumprod: Sequence[float] | Tensor, t_eps: float | None = None) -> VPDiscrete:
        """Return the schedule with alpha^2 = `alphas_cumprod` [M], in the order of training steps.

        It ends at the first step, t = 1/M, unless `t_eps` is given. A last value of 0 (zero terminal SNR; Lin et al.
        2023, arXiv:2305.08891) becomes the stand-in level 1e6.
        """
        values = torch.as_tensor(alphas_cumprod, dtype=torch.float64).clone()
        given = array_digest(values.tolist())
        if len(values) > 2 and values[-1] == 0:
            values[-1] = 1 / (1 + STAND_IN**2)
        end = float(t_eps or 1 / len(values))
        return cls(tuple((values.log() / 2).tolist()), end).asked_by(alphas_cumprod=given, t_eps=end)

    @classmethod
    def scaled_linear(cls, start: float, end: float, steps: int = 1000, t_eps: float = 1e-3) -> VPDiscrete:
        """Return the schedule whose betas have equally spaced square roots, from `start` to `end`."""
        betas = torch.linspace(math.sqrt(start), math.sqrt(end), steps, dtype=torch.float64) ** 2
        rule = {"scaled_linear": [float(start), float(end)], "steps": steps, "t_eps": float(t_eps)}
        return cls(tuple((torch.log1p(-betas).cumsum(0) / 2).tolist()), t_eps).asked_by(**rule)

    @classmethod
    def latent_diffusion(cls) -> VPDiscrete:
        """Return the schedule of the latent models of Rombach et al. 2022, arXiv:2112.10752 (ImageNet-256, LSUN)."""
        return cls.scaled_linear(0.0015, 0.0195)

    @classmethod
    def stable_diffusion(cls) -> VPDiscrete:
        """Return the schedule of Stable Diffusion 1.x."""
        return cls.scaled_linear(0.00085, 0.012)

    @property
    def sigma_first(self) -> float:
        if not self._stands_in:
            return self.sigma_max
        return float(self.sigma(torch.tensor(1 - 1 / len(self.log_alphas), dtype=torch.float64)))

    @property
    def t_first(self) -> float:
        return 1 - 1 / len(self.log_alphas) if self._stands_in else 1.0

    @property
    def t_last(self) -> float:
        return 1.0 if self._stands_in else math.inf

    @property
    def _stands_in(self) -> bool:
        """Whether the last step is the stand-in for alpha = 0."""
        return self.log_alphas[-1] <= -math.log(STAND_IN) + 1e-9

    def log_alpha(self, t: Tensor) -> Tensor:
        times, values = self._knots
        return _interpolate(t.clamp(max=self.t_last), times, values)

    def time(self, sigma: Tensor) -> Tensor:
        times, values = self._knots
        return _interpolate(torch.log1p(sigma**2) / -2, values.flip(0), times.flip(0))

    @cached_property
    def _knots(self) -> tuple[Tensor, Tensor]:
        steps = len(self.log_alphas)
        times = torch.arange(1, steps + 1, dtype=torch.float64) / steps
        return times, torch.tensor(self.log_alphas, dtype=torch.float64)


def _interpolate(at: Tensor, knots: Tensor, values: Tensor) -> Tensor:
    """Return the piecewise-linear function through (knots, values) at `at`, extrapolated linearly at both ends."""
    right = torch.searchsorted(knots, at.detach().contiguous()).clamp(1, len(knots) - 1)
    left = right - 1
    slope = (values[right] - values[left]) / (knots[right] - knots[left])
    return values[left] + slope * (at - knots[left])
