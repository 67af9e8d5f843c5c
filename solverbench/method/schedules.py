"""Noise schedules: the map between a model's own time and the EDM-frame noise level, float64 and differentiable."""

from __future__ import annotations

import copy
import dataclasses
import hashlib
import math
import struct
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from torch import Tensor

from solverbench import registries
from solverbench.errors import GridError

LATER = {"later": True}
"""Metadata of a field added to a schedule after its first release: keys leave it out at its default."""

STAND_IN = 1e6
"""The level used for infinity where a model's alpha reaches 0; there x = sigma n holds no data."""


@dataclass(frozen=True)
class Searched:
    """Levels that a search found on a teacher, and its cost.

    Args:
        levels: the M+1 levels, from the start to the end.
        calls: denoiser calls times images that the search spent.
        seconds: time that it took.
        seeds: seeds of the noise that it used; empty if it used none.
        path: file that holds them; None if none does.
    """

    levels: tuple[float, ...]
    calls: int
    seconds: float
    seeds: range
    path: Path | None = field(default=None, compare=False)


Search = Callable[[str, int, Mapping[str, Any]], Searched]
"""A source of searched grids: (name of the search, number of intervals, its parameters) -> the levels found."""


class NoiseSchedule(ABC):
    """Maps a model's time t to its signal scale `alpha` and EDM-frame noise level `sigma` = (noise scale)/alpha."""

    version: ClassVar[int] = 1
    """Version of the formulas; bump when they give different numbers, so that old results are not reused."""

    _rule: dict[str, Any] | None = None
    _calls: Callable[[int], Tensor] | None = None
    _calls_rule: Mapping[str, Any] | None = None
    _search: Search | None = None

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
        if kind.__module__.startswith("solverbench.method."):
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

    def with_calls(self, levels: Callable[[int], Tensor], rule: Mapping[str, Any] | None = None) -> Self:
        """Return this schedule with a pipeline's own levels, for `grid=pipeline`; its key stays.

        Args:
            levels: number of calls N -> their levels [N], falling, float64.
            rule: what they follow from, plain JSON values for the keys of cells on that grid. Without it, the teacher's
                identity must determine them.
        """
        made = copy.copy(self)
        object.__setattr__(made, "_calls", levels)
        object.__setattr__(made, "_calls_rule", rule)
        return made

    @property
    def calls_rule(self) -> Mapping[str, Any]:
        """What a pipeline's own levels follow from besides the teacher; empty if there are none, or nothing else."""
        return self._calls_rule or {}

    def calls(self, steps: int) -> Tensor | None:
        """Return the pipeline's own levels of `steps` calls [steps]; None if the model is no pipeline."""
        return None if self._calls is None else self._calls(steps)

    def with_search(self, search: Search) -> Self:
        """Return this schedule with a source of searched grids, such as `grid=gits`; its key stays."""
        made = copy.copy(self)
        object.__setattr__(made, "_search", search)
        return made

    def searched(self, name: str, steps: int, given: Mapping[str, Any]) -> Searched | None:
        """Return the levels that the search of this name found for `steps` intervals; None if there is no teacher.

        Args:
            given: parameters of the search.

        Raises:
            NeedsSearchError: the search has not been made for this teacher.
        """
        return None if self._search is None else self._search(name, steps, given)

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
        """The level at which grids in sigma or lambda start: `sigma_max`, unless it replaces an infinite level."""
        return self.sigma_max

    @property
    def stands_in(self) -> bool:
        """Whether `sigma_max` is `STAND_IN`, which replaces an infinite level, at which the state holds no data."""
        return self.sigma_first < self.sigma_max

    @property
    def t_first(self) -> float:
        """The time of `sigma_first`: `t_start`, unless `sigma_max` replaces an infinite level."""
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
