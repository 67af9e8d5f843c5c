"""The schedule of rectified flows: straight lines from data to noise, with the shifts of their pipelines."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor

from solverbench.errors import GridError
from solverbench.method.schedules import LATER, STAND_IN, NoiseSchedule


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
"""The time at which a rectified flow's level is `STAND_IN`."""
