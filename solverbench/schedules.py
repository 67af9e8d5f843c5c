"""Noise schedules: a model's own time to and from the EDM frame's noise level, in float64 and differentiable."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from solverbench.errors import GridError


class NoiseSchedule(ABC):
    """Maps a model's time t to its signal scale `alpha` and EDM-frame noise level `sigma` = (noise scale)/alpha."""

    @property
    @abstractmethod
    def sigma_min(self) -> float:
        """The level at which sampling ends."""

    @property
    @abstractmethod
    def sigma_max(self) -> float:
        """The level at which sampling starts."""

    @property
    @abstractmethod
    def prior_scale(self) -> float:
        """What unit noise is multiplied by to make the start, in the EDM frame."""

    @abstractmethod
    def alpha(self, t: Tensor) -> Tensor:
        """Return the scale of the clean image in the model's own state at time `t`."""

    @abstractmethod
    def sigma(self, t: Tensor) -> Tensor:
        """Return the EDM-frame noise level at time `t`."""

    @abstractmethod
    def time(self, sigma: Tensor) -> Tensor:
        """Return the time at which the level is `sigma`."""


@dataclass(frozen=True)
class EDM(NoiseSchedule):
    """State x0 + sigma n, time = sigma. Source: Karras et al. 2022, arXiv:2206.00364, table 1."""

    sigma_min: float = 0.002
    sigma_max: float = 80.0

    def __post_init__(self) -> None:
        if not 0 < self.sigma_min < self.sigma_max < math.inf:
            raise GridError(f"EDM({self.sigma_min}, {self.sigma_max}): needs 0 < sigma_min < sigma_max, both finite")

    @property
    def prior_scale(self) -> float:
        return self.sigma_max

    def alpha(self, t: Tensor) -> Tensor:
        return torch.ones_like(t)

    def sigma(self, t: Tensor) -> Tensor:
        return t

    def time(self, sigma: Tensor) -> Tensor:
        return sigma


@dataclass(frozen=True)
class VPLinear(NoiseSchedule):
    """Variance preserving with linear beta(t) = beta_min + beta_d t, t in [t_eps, 1].

    log alpha = -beta_d t^2/4 - beta_min t/2, sigma = sqrt(1/alpha^2 - 1).
    Source: Song et al. 2021, arXiv:2011.13456, appendix C.
    """

    beta_d: float = 19.9
    beta_min: float = 0.1
    t_eps: float = 1e-3

    @classmethod
    def refit(cls, sigma_min: float, sigma_max: float, t_eps: float = 1e-3) -> VPLinear:
        """Return the schedule with sigma(t_eps) = sigma_min and sigma(1) = sigma_max; its beta_min may be negative.

        Source: the rule by which the EDM code wraps VP networks (arXiv:2206.00364, public code, VPPrecond).
        """
        low, high = math.log1p(sigma_min**2), math.log1p(sigma_max**2)
        beta_d = 2 * (low / t_eps - high) / (t_eps - 1)
        return cls(beta_d, high - beta_d / 2, t_eps)

    @classmethod
    def clamped(cls, sigma_min: float, sigma_max: float, t_eps: float) -> VPLinear:
        """Return the refit of the standard schedule's own ends clamped to the network's range.

        Source: the GAS code (arXiv:2510.17699): starts from (19.9, 0.1), so that it ends at sigma(t_eps) if that is
        above sigma_min. For parity with published numbers; `refit` is what ends where the teacher ends.
        """
        standard = cls(t_eps=t_eps)
        return cls.refit(max(standard.sigma_min, sigma_min), min(standard.sigma_max, sigma_max), t_eps)

    @property
    def sigma_min(self) -> float:
        return float(self.sigma(torch.tensor(self.t_eps, dtype=torch.float64)))

    @property
    def sigma_max(self) -> float:
        return float(self.sigma(torch.tensor(1.0, dtype=torch.float64)))

    @property
    def prior_scale(self) -> float:
        return math.sqrt(1 + self.sigma_max**2)

    def log_alpha(self, t: Tensor) -> Tensor:
        """Return log alpha at time `t`."""
        return -self.beta_d * t**2 / 4 - self.beta_min * t / 2

    def alpha(self, t: Tensor) -> Tensor:
        return self.log_alpha(t).exp()

    def sigma(self, t: Tensor) -> Tensor:
        return torch.expm1(-2 * self.log_alpha(t)).sqrt()

    def time(self, sigma: Tensor) -> Tensor:
        # The root of beta_d t^2/2 + beta_min t = log(1 + sigma^2), in the form that doesn't cancel.
        q = torch.log1p(sigma**2)
        return 2 * q / ((self.beta_min**2 + 2 * self.beta_d * q).sqrt() + self.beta_min)
