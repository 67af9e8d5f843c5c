"""EPD: K evaluations inside each step that don't depend on one another, at trained levels and with trained weights."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from solverbench.errors import SpecError
from solverbench.method import (
    ADAMS_BASHFORTH,
    Denoise,
    Grid,
    LearnedSolver,
    NoiseSchedule,
    option,
    refuse_budget,
)
from solverbench.method.declarations import Unnamed
from solverbench.method.solver import check_steps

PLUGIN_GRID = "polynomial"
"""The grid that the plugin form starts from. Source: arXiv:2507.14797."""


class EPD(LearnedSolver):
    """A call at the state, then K calls inside the step, side by side; a step along their weighted slopes.

    From level s to t, with w_1 + .. + w_K = 1:

        e   = (x - D(x, s))/s                          with `afs`, on the first step x/sqrt(1 + s^2) and no call
        m_k = t^r_k s^(1-r_k)                          0 < r_k < 1
        y_k = x + (m_k - s) e
        g_k = (y_k - D(y_k, a_k m_k))/m_k              the network is told a_k m_k
        x'  = x + (t - s) sum_k w_k o_k g_k

    The K calls of a step depend on `e` alone, so a machine that runs them at once waits for two calls per step
    (`Tableau.serial_calls`). Trained for each step and point are r (its logit), w (a softmax over the points; none
    with one point), a and o (1 - S + 2 S sigmoid(theta/2), within `time_limit` and `direction_limit` of 1). Training
    starts at r_k = k/(K+1), equal weights and a = o = 1. With one point this is DPM-Solver-2 at the midpoint in
    log sigma, `dpm2`. Points at one r would have equal gradients and stay together.

    With `base=ipndm`, the plugin form of one point, both moves follow iPNDM's combination of all slopes so far, the
    inner ones included; the second move is multiplied by o. Untrained, it is iPNDM on a grid with the inner levels.

    With one point, this is AMED-Solver (arXiv:2312.00094) with numbers that are the same for all images in place of
    those that a network predicts for each, and AdaSDE (arXiv:2510.23285) without its noise.

    Source: EPD-Solver, arXiv:2507.14797.
    """

    name: ClassVar[str] = "epd"
    distilled: ClassVar[bool] = True
    paper: ClassVar[str] = "EPD-Solver, arXiv:2507.14797"

    levels: str = option("time_uniform", key="grid", help="grid name, or M+1 noise levels joined with +; not learned")
    points: int = option(1, above=0, help="calls inside a step, side by side; published: 2")
    base: str = option("dpm2", choices=("dpm2", "ipndm"), help="ipndm: the plugin form, of one point")
    afs: bool = option(False, help="replace the first evaluation by the score of a Gaussian, which saves a call")
    time_limit: float = option(0.2, above=0.0, help="largest relative change of a told level; published: 0.2 to 0.5")
    direction_limit: float = option(0.05, above=0.0, help="largest relative change of a slope's length")

    def __post_init__(self) -> None:
        if self.base == "ipndm" and isinstance(self.levels, Unnamed) and self.rho is None:
            object.__setattr__(self, "levels", Unnamed(PLUGIN_GRID))
        super().__post_init__()
        if self.base == "ipndm" and self.points != 1:
            raise SpecError(
                asked=f"epd:base=ipndm:points={self.points}",
                wrong="the plugin form has one point",
                remedy="leave points or base out",
            )
        for key in ("time_limit", "direction_limit"):
            if (limit := getattr(self, key)) >= 1:
                raise SpecError(asked=f"epd:{key}={limit:g}", wrong="allows a factor of 0", remedy="give less than 1")

    def default_grid(self, schedule: NoiseSchedule) -> str:
        """Return the name of the grid if none is named: one with a finite first level where the schedule's isn't."""
        return "logsnr" if schedule.stands_in else self.levels

    @property
    def first_fixed(self) -> bool:
        """Whether the first call is fixed: without `afs`, it is made at the start."""
        return not self.afs

    def group(self, name: str) -> str:
        """Return the group of a parameter."""
        return {"r": "times", "a": "offsets"}.get(name, "coefficients")

    def steps(self, nfe: int) -> int:
        """Return M: 1 + K calls per step, one less in total with `afs`."""
        cost = 1 + self.points
        steps, left = divmod(nfe + self.afs, cost)
        if left or not steps:
            near = [n for m in (steps, steps + 1) if (n := m * cost - self.afs) > 0]
            less = ", one less with afs" if self.afs else ""
            raise refuse_budget(self, nfe, f"each step costs {cost} evaluations{less}", near)
        return steps

    def shapes(self, nfe: int) -> dict[str, tuple[int, ...]]:
        """Return the shapes: a number for each step and point; no w with one point."""
        names = ("r", "w", "a", "o") if self.points > 1 else ("r", "a", "o")
        return dict.fromkeys(names, (self.steps(nfe), self.points))

    def initial(self, schedule: NoiseSchedule, nfe: int) -> dict[str, Tensor]:
        """Return r_k = k/(K+1), equal weights, and factors of 1."""
        parameters = {name: torch.zeros(shape, dtype=torch.float64) for name, shape in self.shapes(nfe).items()}
        places = torch.arange(1, self.points + 1, dtype=torch.float64) / (self.points + 1)
        parameters["r"] += torch.logit(places)
        return parameters

    def grid(self, schedule: NoiseSchedule, steps: int) -> Grid:
        """Return the fixed grid."""
        check_steps(self.name, len(self.trained["r"]), steps)
        return super().grid(schedule, steps)

    def integrate(self, denoise: Denoise, x: Tensor, grid: Grid) -> Tensor:
        """Return the sample; (1 + K) M calls for M intervals, one less with `afs`."""
        past: list[Tensor] = []
        for n in range(grid.steps):
            s, t = grid.sigmas[n], grid.sigmas[n + 1]
            places, weights, told, lengths = self._numbers(n)
            slope = x / (1 + s**2).sqrt() if self.afs and n == 0 else (x - denoise(x, s)) / s
            past = [slope, *past]
            slopes = []
            for k in range(self.points):
                inner = t ** places[k] * s ** (1 - places[k])
                y = x + (inner - s) * self._direction(past)
                slopes.append((y - denoise(y, told[k] * inner, level=inner)) / inner)
            if self.base == "ipndm":
                past = [slopes[0], *past]
                x = y + lengths[0] * (t - inner) * self._direction(past)
                continue
            for k, inside in enumerate(slopes):
                x = x + (t - s) * weights[k] * lengths[k] * inside
        return x

    def _numbers(self, n: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return (r, w, a, o) of step n, [K] each."""
        own = {name: value[n] for name, value in self.trained.items()}
        weights = torch.softmax(own["w"], 0) if self.points > 1 else torch.ones_like(own["r"])
        told, lengths = _near_one(own["a"], self.time_limit), _near_one(own["o"], self.direction_limit)
        return torch.sigmoid(own["r"]), weights, told, lengths

    def _direction(self, past: list[Tensor]) -> Tensor:
        """Return the slope that a move follows: the newest, or with base=ipndm its combination of the last four."""
        if self.base == "dpm2":
            return past[0]
        weights = ADAMS_BASHFORTH[min(len(past), max(ADAMS_BASHFORTH))]
        found = weights[0] * past[0]
        for weight, slope in zip(weights[1:], past[1:], strict=False):
            found = found + weight * slope
        return found


def _near_one(theta: Tensor, limit: float) -> Tensor:
    """Return factors within `limit` of 1; 1 at theta = 0."""
    return 1 - limit + 2 * limit * torch.sigmoid(theta / 2)
