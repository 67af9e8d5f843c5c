"""LD3's learned levels and learned evaluation levels, for any solver with one call per step."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from solverbench.errors import BudgetError, GridError
from solverbench.learned.growth import resampled
from solverbench.method import grids
from solverbench.method.declarations import read_levels
from solverbench.method.grids import ROUNDED, Grid
from solverbench.method.schedules import NoiseSchedule
from solverbench.method.solver import Denoise, Solver, check_steps, refuse_budget

WIN_RATE = 0.5
"""Largest shift of an evaluation level, in units of the grid's smallest gap. Source: the public code of LD3."""


@dataclass(frozen=True)
class Discretisation:
    """The map from two vectors of N+1 numbers to a grid and the levels that the network is told.

    With p = softmax(theta1) and u_i = (p_1 + .. + p_i)/(p_1 + .. + p_N), i = 0 .. N, the levels between `ends` are

        mode=lambda:  lam_i = lam_0 + u_i (lam_N - lam_0)
        mode=time:    t_i   = t_N + u_{N-i} (t_0 - t_N)

    Call i is told lam_i (or t_i) + delta_i, where delta_i is theta2_i clamped to half of the grid's smallest gap in the
    same variable; the first and last shifts are 0. Time is the model's own; on an EDM schedule it is that of the
    linear VP schedule with the same ends, as in the time_* grids. The limit carries no gradient.

    Args:
        mode: lambda or time.
        prior: name of the grid to start from, or its levels joined with +; equal intervals if None.
        limit: gaps: as above; logits: half of the smallest gap between logits; none: theta2 is not limited.

    Source: Tong et al. 2024, arXiv:2405.15506 (LD3), and its public code.
    """

    mode: str
    prior: str | None = None
    limit: str = "gaps"

    def shapes(self, nfe: int) -> dict[str, tuple[int, ...]]:
        """Return the shapes of theta1 and theta2."""
        return {"theta1": (nfe + 1,), "theta2": (nfe + 1,)}

    def initial(self, schedule: NoiseSchedule, nfe: int) -> dict[str, Tensor]:
        """Return the parameters of the levels of `prior`, or of equal intervals, without shifts.

        theta1[0], theta2[0] and theta2[N] have no effect. LD3's code fits theta1 to a prior by RMSprop until times
        agree to 1e-3; here theta1 is computed in closed form.

        Raises:
            GridError: the prior has no levels for `nfe` steps, or other ends than the schedule.
        """
        ones = torch.ones(nfe + 1, dtype=torch.float64)
        theta1 = ones if self.prior is None else self.logits(self._prior(self.prior, schedule, nfe))
        return {"theta1": theta1, "theta2": torch.zeros_like(ones)}

    def grown(self, parameters: Mapping[str, Tensor], schedule: NoiseSchedule, nfe: int) -> dict[str, Tensor]:
        """Return theta1 and theta2 for more steps: levels and shifts, in the variable of `mode`, between the old ones.

        Shifts beyond the limit count as the limit.
        """
        grid = self.grid(parameters["theta1"], schedule)
        places = self.places(grid.sigmas, schedule)
        moved = self.places(self.told(parameters, grid), schedule) - places[:-1]
        return {
            "theta1": self._logits(resampled(places, nfe + 1)),
            "theta2": torch.cat([resampled(moved, nfe), moved.new_zeros(1)]),
        }

    def logits(self, grid: Grid) -> Tensor:
        """Return the theta1 [N+1] of `grid`: 1 + log of each interval's length in units of the mean length."""
        return self._logits(self.places(grid.sigmas, grid.schedule))

    def _logits(self, places: Tensor) -> Tensor:
        gaps = places.diff().abs()
        gaps = gaps if self.mode == "lambda" else gaps.flip(0)
        return 1 + torch.cat([gaps.new_zeros(1), (gaps / gaps.mean()).log()])

    def ends(self, schedule: NoiseSchedule) -> Tensor:
        """Return the first and last level [2]; in lambda mode the first finite level, as in the named grids."""
        first = schedule.sigma_first if self.mode == "lambda" else schedule.sigma_max
        return torch.tensor([first, schedule.sigma_min], dtype=torch.float64)

    def grid(self, theta1: Tensor, schedule: NoiseSchedule) -> Grid:
        """Return the levels of theta1 [N+1], between `ends`."""
        sums = torch.softmax(theta1[1:], 0).cumsum(0)
        inner = sums[:-1] / sums[-1]
        ends = self.ends(schedule)
        if self.mode == "time":
            clock = schedule.clock
            levels = clock.sigma(clock.t_end + inner.flip(0) * (clock.t_start - clock.t_end))
        else:
            start, end = ends.log()
            levels = (start + inner * (end - start)).exp()
        return Grid(torch.cat([ends[:1], levels, ends[1:]]), schedule)

    def told(self, parameters: Mapping[str, Tensor], grid: Grid) -> Tensor:
        """Return the level that the network is told at each call, [N]."""
        places, shifts = self.places(grid.sigmas, grid.schedule), parameters["theta2"][1:-1]
        if self.limit != "none":
            gaps = (parameters["theta1"] if self.limit == "logits" else places).detach().diff().abs()
            limit = WIN_RATE * float(gaps.min())
            shifts = shifts.clamp(-limit, limit)
        shifted = places[1:-1] + shifts
        levels = (-shifted).exp() if self.mode == "lambda" else grid.schedule.clock.sigma(shifted)
        return torch.cat([grid.sigmas[:1], levels])

    def places(self, sigmas: Tensor, schedule: NoiseSchedule) -> Tensor:
        """Return levels in the variable of `mode`."""
        return -sigmas.log() if self.mode == "lambda" else schedule.clock.time(sigmas)

    def _prior(self, prior: str, schedule: NoiseSchedule, steps: int) -> Grid:
        """Return the grid that a prior names or lists, with `ends` as its ends.

        Raises:
            GridError: there are no such levels for `steps` steps, or a list's ends differ by more than ROUNDED
                (which allows for rounding).
        """
        levels, ends = read_levels(f"prior={prior}", prior), self.ends(schedule)
        if isinstance(levels, str):
            named = grids.named(levels, schedule, steps)
            return Grid(torch.cat([ends[:1], named.sigmas[1:-1], ends[1:]]), schedule)
        grid = grids.explicit(levels, schedule)
        asked = f"prior={prior} with {steps} steps"
        if grid.steps != steps:
            raise GridError(
                asked=asked, wrong=f"{len(levels)} levels make {grid.steps} steps", remedy=f"give {steps + 1} levels"
            )
        return with_ends(asked, grid, ends, ROUNDED)

    def check(self, asked: str, theta1: Tensor, steps: int) -> None:
        """Raise GridError unless `theta1` was made for `steps` steps."""
        check_steps(asked, len(theta1) - 1, steps)


def decoupled(denoise: Denoise, schedule: NoiseSchedule, told: Tensor, *, by_data: bool) -> Denoise:
    """Return `denoise` with call k made at the level told[k], whatever the level of the state.

    The network sees the model's own state, alpha(t) x, at another time t'. A loop that extrapolates data predictions
    gets the network's D unchanged, (alpha(t) x - s(t') e)/alpha(t') with s = alpha sigma. A loop that follows slopes
    gets the data prediction x - sigma(t) e, with

        e = (alpha(t)/alpha(t') x - D)/sigma(t')

    Args:
        told: one level per call, above 0.
        by_data: whether the loop extrapolates data predictions.

    Source: arXiv:2405.15506 (LD3), public code, in the EDM frame (x/alpha).
    """
    left = iter(told)

    def shifted(x: Tensor, sigma: Tensor, *, level: Tensor | None = None) -> Tensor:
        seen = next(left)
        scale = schedule.alpha(schedule.time(sigma)) / schedule.alpha(schedule.time(seen))
        state = scale * x
        d = denoise(state, seen, level=sigma)
        return d if by_data else x - sigma * (state - d) / seen

    return shifted


def with_ends(asked: str, grid: Grid, own: Tensor, tolerance: float) -> Grid:
    """Return `grid` with its two ends set exactly to `own` [2].

    Raises:
        GridError: the ends differ by more than the relative `tolerance`.
    """
    if not torch.allclose(grid.sigmas[[0, -1]], own, rtol=tolerance, atol=0.0):
        raise GridError(
            asked=asked,
            wrong=(
                f"it goes from {float(grid.sigmas[0]):g} to {float(grid.sigmas[-1]):g}, but this "
                "schedule goes from "
                f"{own[0]:g} to {own[1]:g}"
            ),
            remedy="use levels with the teacher's ends",
        )
    return Grid(torch.cat([own[:1], grid.sigmas[1:-1], own[1:]]), grid.schedule)


def refuse_one_call(solver: Solver, nfe: int) -> BudgetError:
    """Return the error for a number of calls with no level to learn."""
    return refuse_budget(solver, nfe, "both ends are fixed, so one step has no level to learn", [2])
