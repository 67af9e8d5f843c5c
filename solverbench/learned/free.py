"""free: every weight and every level is trained, so that it bounds what a linear solver can reach in N calls."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor

from solverbench.errors import GridError, SpecError
from solverbench.method import Denoise, Grid, LearnedSolver, NoiseSchedule, make, option, trace

WITHIN = 0.99
"""How far below the start, in log sigma, s_0 may be at most: a share of the way to s_1."""


class Free(LearnedSolver):
    """A tableau of which everything is a parameter: the level of each call, and all weights of all rows.

    With w the tableau of `base` on the learned levels s_0 > .. > s_N, from the start or below it to the end, and with
    v_k = sqrt(1 + s_k^2), which is the size of a state at s_k,

        W[k,0]   = s_0/start (w[k,0] + v_k/v_0 r_k[0])          k = 0 .. N
        W[k,1+j] = w[k,1+j] + v_k (r_k[1+j] - r_k[j])            j < k; -r_k[j] from j = 1 on

    call k is told s_k exp(offsets_k), mirrored at the start and the end. The corrections r_k are what row k's output
    gains in units of its state's size: r_k[1+j] is the weight of d_j - d_{j+1}, because neighbouring outputs are alike.
    first [1] is log(start/s_0), mirrored at 0; gaps [N] are logits of the intervals in log sigma below s_0.

    All (N+1)(N+2)/2 weights are free, and so are all N told levels; only the start, which is the prior's, is not.
    The levels, which the weights would make up for, are there for Adam: one number moves what LD3 learns, and
    corrections do the rest. Training starts from `base` on the named grid, its first call at start/`first`, because a
    call at the start itself says next to nothing and has next to no gradient.

    Trained, it is an estimate of the bound: an optimiser found it, on finitely many images, by one distance.

    Source: the family is that of Bespoke Non-Stationary solvers, Shaul et al. 2024, arXiv:2403.01329; the
    parametrisation is ours.
    """

    name: ClassVar[str] = "free"
    paper: ClassVar[str] = "the family is that of arXiv:2403.01329 (Bespoke Non-Stationary solvers), the rest ours"
    trained_by: ClassVar[Mapping[str, Any] | None] = {
        "base": "gs",
        "choose": "best",
        "ema_decay": 0.99,
        "patience": 3,  # validations without improvement, after which the rate is halved
        "lr_decay": 0.5,
        "lr_min": 1e-4,
        "stop_after": 6,
        "digits": {"iterations": 2000, "validate_every": 50},
        "shapes": {"iterations": 1000, "validate_every": 50},
    }

    levels: str = option("time_uniform", key="grid", help="the grid that training starts from")
    base: str = option("unipc", choices=("unipc", "dpm", "ipndm", "euler"), help="the solver that it starts from")
    first: float = option(8.0, above=0.0, help="training starts with the first call at the start level over this")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.first < 1:
            raise SpecError(f"free:first={self.first:g}: a call above the start; give 1 or more")

    def group(self, name: str) -> str:
        """Return the group of a parameter."""
        return {"first": "times", "gaps": "times", "offsets": "offsets"}.get(name, "coefficients")

    def initial(self, schedule: NoiseSchedule, nfe: int) -> dict[str, Tensor]:
        """Return `base` on the grid, its first call at start/`first`: no offsets and no corrections."""
        named = super().grid(schedule, nfe).sigmas
        if named[-1] == 0:
            raise GridError(f"free:grid={self.levels}: ends in 0, where no call can be made; leave the 0 out")
        gaps = named.clamp(max=schedule.sigma_first).log().diff().neg()
        beyond = math.log(schedule.sigma_max / schedule.sigma_first)  # above 0 where the start stands in for infinity
        parameters = {
            "first": torch.tensor([math.log(self.first) + beyond], dtype=torch.float64),
            "gaps": (gaps / gaps.mean()).log(),
            "offsets": torch.zeros(nfe, dtype=torch.float64),
        }
        return parameters | {f"r{k}": torch.zeros(k + 1, dtype=torch.float64) for k in range(nfe + 1)}

    def grid(self, schedule: NoiseSchedule, steps: int) -> Grid:
        """Return the start and the learned levels s_1 .. s_N."""
        gaps = self.trained["gaps"]
        if len(gaps) != steps:
            raise GridError(
                f"free: parameters for {len(gaps)} steps, {steps} asked for; use those trained for this number of calls"
            )
        ends = super().grid(schedule, steps).sigmas[[0, -1]]
        first, last = ends[0].log() - self._skipped, ends[1].log()
        inner = first + torch.softmax(gaps, 0).cumsum(0)[:-1] * (last - first)
        return Grid(torch.cat([ends[:1], inner.exp(), ends[1:]]), schedule)

    def integrate(self, denoise: Denoise, x: Tensor, grid: Grid) -> Tensor:
        """Return the sample; N calls for N intervals."""
        start = grid.sigmas[0]
        room = WITHIN * (start.log() - grid.sigmas[1].log())  # less only on levels that aren't its own
        levels = torch.cat([(start.log() - torch.minimum(self._skipped, room)).exp()[None], grid.sigmas[1:]])
        told = _mirrored(levels[:-1].log() + self.trained["offsets"], grid.sigmas[-1].log(), start.log()).exp()
        based = trace(make(self.base), Grid(levels, grid.schedule), check=False).weights
        size = (1 + levels**2).sqrt()
        x = levels[0] / start * x
        outputs: list[Tensor] = []
        for k in range(len(levels)):
            free = self.trained[f"r{k}"]
            state = (based[k, 0] + size[k] / size[0] * free[0]) * x
            for j, d in enumerate(outputs):
                change = free[1 + j] - free[j] if j else free[1]
                state = state + (based[k, 1 + j] + size[k] * change) * d
            if k < grid.steps:
                outputs.append(denoise(state, told[k], level=levels[k]))
        return state

    @property
    def _skipped(self) -> Tensor:
        """log(start/s_0), at least 0."""
        first = self.trained["first"][0]
        return torch.where(first < 0, -first, first)


def _mirrored(places: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """Numbers brought between two bounds; one beyond comes back, so that it keeps a gradient."""
    below = torch.where(places > high, 2 * high - places, places)
    return torch.where(below < low, 2 * low - below, below)
