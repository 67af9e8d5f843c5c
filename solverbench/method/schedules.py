"""Noise schedules: the map between a model's own time and the EDM-frame noise level, float64 and differentiable."""

from __future__ import annotations

import copy
import dataclasses
import hashlib
import itertools
import math
import struct
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, ClassVar, Self

import torch
from torch import Tensor

from solverbench import registries
from solverbench.errors import GridError

LATER = {"later": True}
"""Metadata of a field added to a schedule after its first release: keys leave it out at its default."""

STAND_IN = 1e6
"""The level used for infinity where a model's alpha reaches 0; there x = sigma n holds no data."""


class NoiseSchedule(ABC):
    """Maps a model's time t to its signal scale `alpha` and EDM-frame noise level `sigma` = (noise scale)/alpha."""

    version: ClassVar[int] = 1
    """Version of the formulas; bump when they give different numbers, so that old results are not reused."""

    _rule: dict[str, Any] | None = None
    _calls: Callable[[int], Tensor] | None = None

    @property
    def default_grid(self) -> str:
        """The name of the grid of solvers that are given none; empty if each solver has its own."""
        return ""

    @property
    def key(self) -> dict[str, Any]:
        """The request that made the schedule, as plain JSON values; the same on every processor.

        The key of a built-in schedule has the parameters it was made from, with the sha256 of a given array. The key of
        a user's schedule class has its dataclass fields and its source; without these, numbers that it computes, which
        may differ in the last bit on another processor.
        """
        kind = type(self)
        name = {"name": kind.__name__, "version": kind.version}
        if self._rule is not None:
            return name | self._rule
        fields = _plain_fields(self)
        if kind.__module__ == __name__:
            assert fields is not None
            return name | fields
        source = registries.source(kind)
        if fields is None or not source:
            return name | {"source": source, "numbers": array_digest(self._numbers())}
        return name | {"source": source, **fields}

    def asked_by(self, **rule: Any) -> Self:
        """Return this schedule with `rule`, plain JSON values, as its key instead of the numbers computed from it."""
        made = copy.copy(self)
        object.__setattr__(made, "_rule", rule)
        return made

    def with_calls(self, levels: Callable[[int], Tensor]) -> Self:
        """Return this schedule with a pipeline's own levels, for `grid=pipeline`; its key stays.

        Args:
            levels: number of calls N -> their levels [N], falling, float64. The teacher's identity must determine them.
        """
        made = copy.copy(self)
        object.__setattr__(made, "_calls", levels)
        return made

    def calls(self, steps: int) -> Tensor | None:
        """Return the pipeline's own levels of `steps` calls [steps]; None if the model is no pipeline."""
        return None if self._calls is None else self._calls(steps)

    def _numbers(self) -> list[float]:
        """Return numbers that distinguish this schedule from others of its class."""
        times = torch.linspace(self.t_end, self.t_start, 17, dtype=torch.float64)
        ends = [self.sigma_min, self.sigma_max, self.prior_scale]
        return [*ends, *self.sigma(times).tolist(), *self.alpha(times).tolist()]

    @property
    @abstractmethod
    def sigma_min(self) -> float:
        """The level at which sampling ends."""

    @property
    @abstractmethod
    def sigma_max(self) -> float:
        """The level at which sampling starts."""

    @abstractmethod
    def scale(self, start: float) -> float:
        """Return the factor that turns unit noise into the state at level `start`, in the EDM frame."""

    @property
    def prior_scale(self) -> float:
        """The scale at `sigma_max`."""
        return self.scale(self.sigma_max)

    @property
    def sigma_first(self) -> float:
        """The level at which grids in sigma or lambda start: `sigma_max`, unless that is the stand-in."""
        return self.sigma_max

    @property
    def stands_in(self) -> bool:
        """Whether `sigma_max` stands for an infinite level, at which the state holds no data."""
        return self.sigma_first < self.sigma_max

    @property
    def t_first(self) -> float:
        """The time of `sigma_first`: `t_start`, unless `sigma_max` is the stand-in."""
        return self.t_start

    @property
    def t_last(self) -> float:
        """The largest time that may be passed to a network; finite only where `sigma_max` may be the stand-in."""
        return math.inf

    @abstractmethod
    def alpha(self, t: Tensor) -> Tensor:
        """Return the scale of the clean image in the model's own state at time `t`."""

    @abstractmethod
    def sigma(self, t: Tensor) -> Tensor:
        """Return the EDM-frame noise level at time `t`."""

    @abstractmethod
    def time(self, sigma: Tensor) -> Tensor:
        """Return the time at which the level is `sigma`."""

    def rounded(self, sigmas: Tensor) -> Tensor:
        """Return a grid's levels [M+1], rounded to the nearest known level where the network knows only some."""
        return sigmas

    @property
    def t_start(self) -> float:
        """The time at which sampling starts."""
        return float(self.time(torch.tensor(self.sigma_max, dtype=torch.float64)))

    @property
    def t_end(self) -> float:
        """The time at which sampling ends."""
        return float(self.time(torch.tensor(self.sigma_min, dtype=torch.float64)))

    @property
    def clock(self) -> NoiseSchedule:
        """The schedule whose time grids and DEIS use: this one, or a VP one with the same ends if its time is sigma."""
        return self


@dataclass(frozen=True)
class EDM(NoiseSchedule):
    """State x0 + sigma n, time = sigma. Source: Karras et al. 2022, arXiv:2206.00364, table 1.

    Args:
        levels: the only levels that the network knows; named grids are rounded to the nearest. Empty: any level.
    """

    sigma_min: float = 0.002
    sigma_max: float = 80.0
    levels: tuple[float, ...] = field(default=(), repr=False)

    def __post_init__(self) -> None:
        if not 0 < self.sigma_min < self.sigma_max < math.inf:
            raise GridError(
                asked=f"EDM({self.sigma_min}, {self.sigma_max})",
                wrong="the levels are not in order, or not finite",
                remedy="use finite 0 < sigma_min < sigma_max",
            )

    def scale(self, start: float) -> float:
        return start

    def rounded(self, sigmas: Tensor) -> Tensor:
        if not self.levels:
            return sigmas
        known = torch.tensor(self.levels, dtype=sigmas.dtype)
        return known[(sigmas[:, None] - known).abs().argmin(1)]

    @property
    def clock(self) -> NoiseSchedule:
        return VPLinear.refit(self.sigma_min, self.sigma_max)

    def alpha(self, t: Tensor) -> Tensor:
        return torch.ones_like(t)

    def sigma(self, t: Tensor) -> Tensor:
        return t

    def time(self, sigma: Tensor) -> Tensor:
        return sigma


class VariancePreserving(NoiseSchedule):
    """A state alpha x0 + sqrt(1 - alpha^2) n, sampled from t = 1 to `t_eps`; defined by log alpha(t)."""

    t_eps: float

    @abstractmethod
    def log_alpha(self, t: Tensor) -> Tensor:
        """Return log alpha at time `t`."""

    @cached_property
    def sigma_min(self) -> float:
        return float(self.sigma(torch.tensor(self.t_eps, dtype=torch.float64)))

    @cached_property
    def sigma_max(self) -> float:
        return float(self.sigma(torch.tensor(1.0, dtype=torch.float64)))

    @property
    def t_start(self) -> float:
        return 1.0

    @property
    def t_end(self) -> float:
        return self.t_eps

    def scale(self, start: float) -> float:
        return math.sqrt(1 + start**2)

    def alpha(self, t: Tensor) -> Tensor:
        return self.log_alpha(t).exp()

    def sigma(self, t: Tensor) -> Tensor:
        return torch.expm1(-2 * self.log_alpha(t)).sqrt()


@dataclass(frozen=True)
class VPLinear(VariancePreserving):
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

        Source: the EDM code's rule for wrapping VP networks (arXiv:2206.00364, public code, VPPrecond).
        """
        low, high = math.log1p(sigma_min**2), math.log1p(sigma_max**2)
        beta_d = 2 * (low / t_eps - high) / (t_eps - 1)
        return cls(beta_d, high - beta_d / 2, t_eps).asked_by(
            sigma_min=float(sigma_min), sigma_max=float(sigma_max), t_eps=float(t_eps)
        )

    @classmethod
    def clamped(cls, sigma_min: float, sigma_max: float, t_eps: float) -> VPLinear:
        """Return the refit to the standard schedule's own ends, clamped to the network's range.

        Source: the GAS code (arXiv:2510.17699): it starts from (19.9, 0.1), so that sampling ends at sigma(t_eps) if
        that is above sigma_min. For parity with published numbers; `refit` ends where the teacher ends.

        Raises:
            GridError: t_eps is not between 0 and 1, or the level there is not below the start.
        """
        standard = cls(t_eps=t_eps)
        if not 0 < t_eps < 1 or max(standard.sigma_min, sigma_min) >= min(standard.sigma_max, sigma_max):
            raise GridError(
                asked=f"t_eps={t_eps:g}",
                wrong="sampling goes from time 1 down to it",
                remedy="use a small one, as in 1e-3",
            )
        refitted = cls.refit(max(standard.sigma_min, sigma_min), min(standard.sigma_max, sigma_max), t_eps)
        return refitted.asked_by(clamped=[float(sigma_min), float(sigma_max)], t_eps=float(t_eps))

    def log_alpha(self, t: Tensor) -> Tensor:
        return -self.beta_d * t**2 / 4 - self.beta_min * t / 2

    def time(self, sigma: Tensor) -> Tensor:
        # The root of beta_d t^2/2 + beta_min t = log(1 + sigma^2), in the form without cancellation.
        q = torch.log1p(sigma**2)
        return 2 * q / ((self.beta_min**2 + 2 * self.beta_d * q).sqrt() + self.beta_min)


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


@dataclass(frozen=True)
class RectifiedFlow(NoiseSchedule):
    """State (1 - t) x0 + t n on the straight line from data to noise, so sigma = t/(1 - t).

    At t = 1 the state holds no data and sigma is infinite. There are two ways to start:
    With t_start < 1, the initial state is t n in the model's frame, sigma_max n in the EDM frame; the term (1 - t) x0
    is dropped. The default drops a thousandth of the data, as the first of a thousand training times does.
    With t_start = 1, sigma_max = 1e6 stands for infinity, also at times beyond 1. Grids in sigma or lambda then start
    at t_first; otherwise they would spend their steps between 1e6 and the first real level.
    Source: Liu et al. 2022, arXiv:2209.03003, equation 1.

    Args:
        t_first: the model's first time below 1; set to t_start if that is below 1.
        shift: s of the map t = s u/(1 + (s - 1) u) by which the model's pipeline moves its equally spaced times u
            towards noise (Esser et al. 2024, arXiv:2403.03206, equation 23). It multiplies sigma by s. It leaves the
            model's own time t unchanged, so only the grids flow_shift, trailing and linspace use it.
    """

    t_start: float = 0.999
    t_end: float = 1e-3
    t_first: float = 0.999
    shift: float = field(default=1.0, metadata=LATER)

    @staticmethod
    def dynamic_shift(
        mu: float | None = None,
        *,
        tokens: int | None = None,
        form: str = "exponential",
        low: tuple[int, float] = (256, 0.5),
        high: tuple[int, float] = (4096, 1.15),
    ) -> float:
        """Return the shift that a pipeline chooses by resolution, as diffusers' use_dynamic_shifting does.

        Args:
            mu: parameter of the shift; computed from `tokens` if None.
            tokens: number of the network's image tokens, (height/16)(width/16) for FLUX.1 and SD3.
            form: time_shift_type: exponential, with shift = e^mu, or linear, with shift = mu.
            low: tokens and mu at one end of the line on which mu lies (base_image_seq_len, base_shift).
            high: tokens and mu at the other end (max_image_seq_len, max_shift).

        Raises:
            GridError: neither or both of `mu` and `tokens`, an unknown form, or a linear shift that is not above 0.
        """
        asked = f"RectifiedFlow.dynamic_shift(mu={mu}, tokens={tokens}, form={form!r})"
        if (mu is None) == (tokens is None):
            raise GridError(asked=asked, wrong="mu follows from tokens", remedy="give one of them")
        if form not in ("exponential", "linear"):
            raise GridError(asked=asked, wrong="unknown form", remedy="use exponential or linear")
        if mu is None:
            assert tokens is not None
            mu = low[1] + (high[1] - low[1]) * (tokens - low[0]) / (high[0] - low[0])
        if form == "exponential":
            return math.exp(mu)
        if mu <= 0:
            raise GridError(asked=asked, wrong=f"a linear shift of {mu:g}", remedy="it must be above 0")
        return mu

    def __post_init__(self) -> None:
        if not 0 < self.shift < math.inf:
            raise GridError(
                asked=f"RectifiedFlow(shift={self.shift:g})",
                wrong="sigma is multiplied by it",
                remedy="use a finite number above 0, such as 3; 1 is no shift",
            )
        if not 0 < self.t_end < self.t_start <= 1 or not self.t_end < self.t_first < 1:
            raise GridError(
                asked=f"RectifiedFlow({self.t_start:g}, {self.t_end:g}, {self.t_first:g})",
                wrong="these are not times of sigma = t/(1 - t) in order",
                remedy="use 0 < t_end < t_start <= 1, and t_first between t_end and 1",
            )
        if self.t_start < 1:
            object.__setattr__(self, "t_first", self.t_start)

    @property
    def default_grid(self) -> str:
        return "time_uniform" if self.shift == 1 else "flow_shift"

    @property
    def sigma_min(self) -> float:
        return self.t_end / (1 - self.t_end)

    @property
    def sigma_max(self) -> float:
        return self.t_start / (1 - self.t_start) if self.t_start < 1 else STAND_IN

    @property
    def sigma_first(self) -> float:
        return self.t_first / (1 - self.t_first)

    @property
    def t_last(self) -> float:
        return 1.0

    def scale(self, start: float) -> float:
        return start

    def alpha(self, t: Tensor) -> Tensor:
        return 1 - t.clamp(max=_STAND_IN_TIME)

    def sigma(self, t: Tensor) -> Tensor:
        t = t.clamp(max=_STAND_IN_TIME)
        return t / (1 - t)

    def time(self, sigma: Tensor) -> Tensor:
        return torch.where(sigma < STAND_IN, sigma / (1 + sigma), 1.0)


_STAND_IN_TIME = STAND_IN / (1 + STAND_IN)
"""The time at which a rectified flow's level is the stand-in."""


def array_digest(values: Sequence[float]) -> str:
    """Return the sha256 of float64 values, little-endian."""
    return hashlib.sha256(struct.pack(f"<{len(values)}d", *values)).hexdigest()


def _plain_fields(schedule: NoiseSchedule) -> dict[str, Any] | None:
    """Return the dataclass fields as plain JSON, arrays as digests; None if no dataclass or if a field is not plain."""
    if not dataclasses.is_dataclass(schedule):
        return None
    found: dict[str, Any] = {}
    for each in dataclasses.fields(schedule):
        value = getattr(schedule, each.name)
        if "later" in each.metadata and value == each.default:
            continue
        if isinstance(value, (tuple, list)) and all(isinstance(item, (int, float)) for item in value):
            if value:
                found[each.name] = array_digest([float(item) for item in value])
        elif isinstance(value, (str, bool)) or value is None:
            found[each.name] = value
        elif isinstance(value, (int, float)):
            found[each.name] = float(value)
        else:
            return None
    return found


def _interpolate(at: Tensor, knots: Tensor, values: Tensor) -> Tensor:
    """Return the piecewise-linear function through (knots, values) at `at`, extrapolated linearly at both ends."""
    right = torch.searchsorted(knots, at.detach().contiguous()).clamp(1, len(knots) - 1)
    left = right - 1
    slope = (values[right] - values[left]) / (knots[right] - knots[left])
    return values[left] + slope * (at - knots[left])
