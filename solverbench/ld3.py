"""LD3: a classical solver on learned levels, whose network is told learned levels of its own."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from solverbench.errors import GridError, SpecError
from solverbench.exponential import ExponentialIntegrator
from solverbench.grids import Grid
from solverbench.schedules import NoiseSchedule
from solverbench.solver import Denoise, LearnedSolver, Solver, option, refuse_budget
from solverbench.spec import make

WIN_RATE = 0.5
"""The most that an evaluation may be shifted, in units of the grid's smallest gap. Source: the public code."""

VARIANTS = {"lambda": "bh1", "time": "bh2"}
"""UniPC's B(h) by mode: the public configurations take bh1 on pixel models, bh2 on latent ones."""


class LD3(LearnedSolver):
    """A base solver, unchanged, with learned levels and learned evaluation levels.

    With p = softmax(theta1) and u_i = (p_1 + .. + p_i)/(p_1 + .. + p_N), i = 0 .. N, between the schedule's own ends

        mode=lambda:  lam_i = lam_0 + u_i (lam_N - lam_0)
        mode=time:    t_i   = t_N + u_{N-i} (t_0 - t_N)

    and call i is told lam_i (or t_i) + delta_i, delta_i = theta2_i clamped to half of the grid's smallest gap, in the
    same variable; the first and the last are 0. The time is the model's own, and on an EDM schedule that of the
    linear VP schedule with the same ends, as in the grids of that name. The limit is a constant to the gradient.

    Source: Tong et al. 2024, arXiv:2405.15506 (LD3), and its public code, which in lambda mode takes the gaps between
    the logits theta1 instead of those in lambda: all shifts are 0 until the logits differ, and have no gradient beyond
    (compat=true). It makes a call at the last level and discards it; here it isn't made. Gradients pass through
    UniPC's matrix, which is a constant there.
    """

    name: ClassVar[str] = "ld3"
    paper: ClassVar[str] = "LD3, arXiv:2405.15506"

    levels: str = option("learned", key="grid", choices=("learned",), help="always the learned one")
    base: str = option("unipc", choices=("unipc", "dpm", "ipndm", "euler"), help="the solver whose levels are learned")
    order: int | None = option(None, help="the base's order; its own default if not given")
    variant: str | None = option(None, help="unipc's B(h); bh1 with mode=lambda, bh2 with mode=time if not given")
    mode: str = option("lambda", choices=("lambda", "time"), help="the variable in which levels and shifts are learned")
    compat: bool = option(False, help="shifts limited by the gaps between logits, as in the public code")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.compat and self.mode == "time":
            raise SpecError("ld3:compat=true:mode=time: the public code's limit is the same here; leave compat out")
        try:
            self._base()
        except SpecError as error:
            raise SpecError(f"ld3:base={self.base}: {error}") from None

    @property
    def first_fixed(self) -> bool:
        """Both ends of the grid are fixed, and so is what the first call is told."""
        return True

    def group(self, name: str) -> str:
        """Return the group of a parameter."""
        return {"theta1": "times", "theta2": "offsets"}[name]

    def initial(self, schedule: NoiseSchedule, nfe: int) -> dict[str, Tensor]:
        """Return equal intervals and no shifts; theta1[0], theta2[0] and theta2[N] have no effect."""
        return {
            "theta1": torch.ones(nfe + 1, dtype=torch.float64),
            "theta2": torch.zeros(nfe + 1, dtype=torch.float64),
        }

    def steps(self, nfe: int) -> int:
        """Return M = nfe; at least 2, because both ends are fixed and so is the first call."""
        if nfe < 2:
            raise refuse_budget(self, nfe, "both ends are fixed, so that one step leaves nothing to learn", ["nfe=2"])
        return nfe

    def grid(self, schedule: NoiseSchedule, steps: int) -> Grid:
        """Return the learned levels between the schedule's own ends."""
        theta = self.trained["theta1"]
        if len(theta) != steps + 1:
            raise GridError(
                f"{self.name}: parameters for {len(theta) - 1} steps, {steps} asked for; "
                "use those trained for this number of calls"
            )
        sums = torch.softmax(theta[1:], 0).cumsum(0)
        inner = sums[:-1] / sums[-1]
        ends = torch.tensor([schedule.sigma_max, schedule.sigma_min], dtype=torch.float64)
        if self.mode == "time":
            clock = schedule.clock
            levels = clock.sigma(clock.t_end + inner.flip(0) * (clock.t_start - clock.t_end))
        else:
            start, end = ends.log()
            levels = (start + inner * (end - start)).exp()
        return Grid(torch.cat([ends[:1], levels, ends[1:]]), schedule)

    def integrate(self, denoise: Denoise, x: Tensor, grid: Grid) -> Tensor:
        """Return the base's sample; M calls for M intervals."""
        return integrate_decoupled(self._base(), denoise, x, grid, self.told(grid))

    def told(self, grid: Grid) -> Tensor:
        """Return [M], the level that the network is told at each call."""
        clock = grid.schedule.clock
        places = -grid.sigmas.log() if self.mode == "lambda" else clock.time(grid.sigmas)
        gaps = (self.trained["theta1"] if self.compat else places).detach().diff().abs()
        limit = WIN_RATE * float(gaps.min())
        shifted = places[1:-1] + self.trained["theta2"][1:-1].clamp(-limit, limit)
        levels = (-shifted).exp() if self.mode == "lambda" else clock.sigma(shifted)
        return torch.cat([grid.sigmas[:1], levels])

    def _base(self) -> Solver:
        options = {"order": self.order, "variant": self.variant}
        if self.base == "unipc" and self.variant is None:
            options["variant"] = VARIANTS[self.mode]
        return make(":".join([self.base, *(f"{key}={value}" for key, value in options.items() if value is not None)]))


def integrate_decoupled(base: Solver, denoise: Denoise, x: Tensor, grid: Grid, told: Tensor) -> Tensor:
    """Return the sample of `base`, whose loop sees `grid` alone while call k is made at the level told[k].

    The network sees the model's own state, alpha(t) x, at another time t'. A base that extrapolates data predictions
    gets the network's D as it is, (alpha(t) x - s(t') e)/alpha(t') with s = alpha sigma; one that follows slopes gets

        e = (alpha(t)/alpha(t') x - D)/sigma(t')        as the data prediction x - sigma(t) e.

    Args:
        base: a solver that makes one call per interval, the k-th at grid.sigmas[k].
        told: [M], above 0.

    Source: arXiv:2405.15506 (LD3), public code, in the EDM frame (x/alpha).
    """
    schedule = grid.schedule
    by_data = isinstance(base, ExponentialIntegrator) and base.prediction == "data"
    left = iter(told)

    def shifted(x: Tensor, sigma: Tensor, *, level: Tensor | None = None) -> Tensor:
        seen = next(left)
        scale = schedule.alpha(schedule.time(sigma)) / schedule.alpha(schedule.time(seen))
        state = scale * x
        d = denoise(state, seen, level=sigma)
        return d if by_data else x - sigma * (state - d) / seen

    return base.integrate(shifted, x, grid)
