"""BNS: Bespoke Non-Stationary solvers, every weight and level of a solver whose calls are told their states' levels."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from solverbench.errors import GridError
from solverbench.learned.free import corrected
from solverbench.method import Denoise, Grid, LearnedSolver, NoiseSchedule, Solver, make, option, trace
from solverbench.method.solver import check_steps


class BNS(LearnedSolver):
    """A solver whose every step has its own weights of the start and of all earlier slopes, on trained levels.

    In the paper, with the velocity u_j = u(x_j, t_j),

        x_{i+1} = a_i x_0 + sum_{j<=i} b_ij u_j            i = 0 .. n-1

    and a, b and t are trained: n(n+5)/2 numbers, and the two fixed ends of t. A velocity is a linear combination of
    its state and of the network's output there, so these are the tableaus whose calls are told the level of their
    state, with free weights: `free` without its offsets and without a first call below the start. The parameters are
    those of `free`: gaps [n], the logits of the intervals in log sigma, and for each row after the first its
    corrections r_k [k+1] to the tableau of `base` on the trained levels, n(n+5)/2 numbers, too.

    Training starts at Euler's method, or at the midpoint method: calls 2i and 2i+1 make one step, whose second slope
    is taken at the level in between. An odd last call is an Euler step.

    Inferred: the units of the parameters, which decide how Adam moves, and the initial grid.

    Source: Shaul et al. 2024, arXiv:2403.01329. It has no public code.
    """

    name: ClassVar[str] = "bns"
    distilled: ClassVar[bool] = True
    paper: ClassVar[str] = "Bespoke Non-Stationary solvers, arXiv:2403.01329"
    inferred: ClassVar[str] = "BNS has no public code: the scale of its parameters and its initial grid are inferred"

    levels: str = option("time_uniform", key="grid", help="initial grid of the training")
    base: str = option("midpoint", choices=("midpoint", "euler"), help="initial solver of the training")

    def default_grid(self, schedule: NoiseSchedule) -> str:
        """Return the name of the grid if none is named: one with a finite first level where the schedule's isn't."""
        return "logsnr" if schedule.stands_in else self.levels

    @property
    def first_fixed(self) -> bool:
        """Whether the first call is fixed: yes, it is made at the start."""
        return True

    def group(self, name: str) -> str:
        """Return the group of a parameter."""
        return "times" if name == "gaps" else "coefficients"

    def shapes(self, nfe: int) -> dict[str, tuple[int, ...]]:
        """Return the shapes of the intervals and of each row's corrections."""
        return {"gaps": (nfe,), **{f"r{k}": (k + 1,) for k in range(1, nfe + 1)}}

    def initial(self, schedule: NoiseSchedule, nfe: int) -> dict[str, Tensor]:
        """Return `base` on the initial grid.

        Raises:
            GridError: the grid ends in level 0.
        """
        named = self._named(schedule, nfe)
        if named[-1] == 0:
            raise GridError(
                asked=f"bns:grid={self.levels}",
                wrong="its last level is 0, where the network cannot be called",
                remedy="leave the 0 out",
            )
        parameters = {name: torch.zeros(shape, dtype=torch.float64) for name, shape in self.shapes(nfe).items()}
        gaps = named.log().diff().neg()
        return {**parameters, "gaps": (gaps / gaps.mean()).log()}

    def grid(self, schedule: NoiseSchedule, steps: int) -> Grid:
        """Return the trained levels between the ends of the initial grid."""
        gaps = self.trained["gaps"]
        check_steps(self.name, len(gaps), steps)
        ends = self._named(schedule, steps)[[0, -1]]
        first, last = ends.log()
        inner = first + torch.softmax(gaps, 0).cumsum(0)[:-1] * (last - first)
        return Grid(torch.cat([ends[:1], inner.exp(), ends[1:]]), schedule)

    def _named(self, schedule: NoiseSchedule, steps: int) -> Tensor:
        """Return the levels [n+1] of the initial grid."""
        return super(BNS, self.on(schedule)).grid(schedule, steps).sigmas

    def integrate(self, denoise: Denoise, x: Tensor, grid: Grid) -> Tensor:
        """Return the sample; n calls for n intervals."""
        base = _Midpoint() if self.base == "midpoint" else make(self.base)
        based = trace(base, grid, check=False).weights
        fixed = torch.zeros(1, dtype=torch.float64)  # the first call is made at the start itself
        corrections = [fixed, *(self.trained[f"r{k}"] for k in range(1, grid.steps + 1))]
        return corrected(based, corrections, denoise, x, grid.sigmas, grid.sigmas[:-1])


class _Midpoint(Solver):
    """The midpoint method on the slopes, with the midpoint of each step at every second level of the grid."""

    name: ClassVar[str] = "midpoint"

    def integrate(self, denoise: Denoise, x: Tensor, grid: Grid) -> Tensor:
        """Return the sample; M calls for M intervals."""
        sigmas, begin, origin = grid.sigmas, x, grid.sigmas[0]
        for n in range(grid.steps):
            if n % 2 == 0:
                begin, origin = x, sigmas[n]
            x = begin + (sigmas[n + 1] - origin) * (x - denoise(x, sigmas[n])) / sigmas[n]
        return x
