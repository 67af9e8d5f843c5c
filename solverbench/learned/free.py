"""The solver `free`: all weights and levels are trained, which estimates the bound for linear solvers of N calls."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from solverbench.errors import GridError, SpecError
from solverbench.method import Denoise, Grid, LearnedSolver, NoiseSchedule, make, option, trace
from solverbench.method.solver import check_steps

WITHIN = 0.99
"""Largest distance of s_0 below the start, in log sigma, as a share of the distance to s_1."""


class Free(LearnedSolver):
    """A tableau whose every entry is a parameter: the level of each call, and all weights of all rows.

    Let w be the tableau of `base` on the learned levels s_0 > .. > s_N, where s_0 is at or below the start and s_N is
    the end, and let v_k = sqrt(1 + s_k^2) be the size of a state at s_k. Then

        W[k,0]   = s_0/start (w[k,0] + v_k/v_0 r_k[0])          k = 0 .. N
        W[k,1+j] = w[k,1+j] + v_k (r_k[1+j] - r_k[j])            j < k; -r_k[j] from j = 1 on

    Call k is told s_k exp(offsets_k), mirrored at the start and the end. The corrections r_k are added to row k in
    units of its state's size: r_k[1+j] is the weight of d_j - d_{j+1}, because neighbouring outputs are alike.
    first [1] is log(start/s_0), mirrored at 0; gaps [N] are logits of the intervals in log sigma below s_0.

    All (N+1)(N+2)/2 weights and all N told levels are free; only the start is fixed, because the prior sets it.
    The levels are redundant with the weights but help Adam: one number moves what LD3 learns, and the corrections do
    the rest. Training starts from `base` on the named grid with the first call at start/`first`, because a call at the
    start itself carries almost no information and almost no gradient.

    The trained result is an estimate of the bound, found by an optimiser on finitely many images with one distance.

    Source: the family of Bespoke Non-Stationary solvers, Shaul et al. 2024, arXiv:2403.01329; the
    parametrisation is ours.
    """

    name: ClassVar[str] = "free"
    paper: ClassVar[str] = (
        "the family of arXiv:2403.01329 (Bespoke Non-Stationary solvers), with a parametrisation of our own"
    )
    trained_by: ClassVar[Mapping[str, Any] | None] = {
        "base": "gs",
        "choose": "best",
        "ema_decay": 0.99,
        "patience": 3,  # validations without improvement before the rate is halved
        "lr_decay": 0.5,
        "lr_min": 1e-4,
        "stop_after": 6,
        "digits": {
            "loss": "l2",
            "schedule": "constant",
            "warmup": 0.0,
            "lr": 2e-2,
            "iterations": 2000,
            "validate_every": 50,
        },
        "shapes": {"iterations": 1000, "validate_every": 50},
    }

    levels: str = option("time_uniform", key="grid", help="initial grid of the training")
    base: str = option("unipc", choices=("unipc", "dpm", "ipndm", "euler"), help="initial solver of the training")
    first: float = option(8.0, above=0.0, help="initial level of the first call is the start level divided by this")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.first < 1:
            raise SpecError(
                asked=f"free:first={self.first:g}",
                wrong="the first call would be above the start level",
                remedy="give 1 or more",
            )

    def group(self, name: str) -> str:
        """Return the group of a parameter."""
        return {"first": "times", "gaps": "times", "offsets": "offsets"}.get(name, "coefficients")

    def initial(self, schedule: NoiseSchedule, nfe: int) -> dict[str, Tensor]:
        """Return `base` on the grid, with the first call at start/`first` and without offsets or corrections."""
        named = super().grid(schedule, nfe).sigmas
        if named[-1] == 0:
            raise GridError(
                asked=f"free:grid={self.levels}",
                wrong="its last level is 0, where the network cannot be called",
                remedy="leave the 0 out",
            )
        gaps = named.clamp(max=schedule.sigma_first).log().diff().neg()
        beyond = math.log(schedule.sigma_max / schedule.sigma_first)  # above 0 if the start replaces an infinite level
        parameters = {
            "first": torch.tensor([math.log(self.first) + beyond], dtype=torch.float64),
            "gaps": (gaps / gaps.mean()).log(),
            "offsets": torch.zeros(nfe, dtype=torch.float64),
        }
        return parameters | {f"r{k}": torch.zeros(k + 1, dtype=torch.float64) for k in range(nfe + 1)}

    def grid(self, schedule: NoiseSchedule, steps: int) -> Grid:
        """Return the start and the learned levels s_1 .. s_N."""
        gaps = self.trained["gaps"]
        check_steps("free", len(gaps), steps)
        ends = super().grid(schedule, steps).sigmas[[0, -1]]
        first, last = ends[0].log() - self._skipped, ends[1].log()
        inner = first + torch.softmax(gaps, 0).cumsum(0)[:-1] * (last - first)
        return Grid(torch.cat([ends[:1], inner.exp(), ends[1:]]), schedule)

    def integrate(self, denoise: Denoise, x: Tensor, grid: Grid) -> Tensor:
        """Return the sample; N calls for N intervals."""
        start = grid.sigmas[0]
        room = WITHIN * (start.log() - grid.sigmas[1].log())  # binds only on a foreign grid
        levels = torch.cat([(start.log() - torch.minimum(self._skipped, room)).exp()[None], grid.sigmas[1:]])
        told = _mirrored(levels[:-1].log() + self.trained["offsets"], grid.sigmas[-1].log(), start.log()).exp()
        based = trace(make(self.base), Grid(levels, grid.schedule), check=False).weights
        corrections = [self.trained[f"r{k}"] for k in range(len(levels))]
        return corrected(based, corrections, denoise, levels[0] / start * x, levels, told)

    @property
    def _skipped(self) -> Tensor:
        """The value log(start/s_0), at least 0."""
        first = self.trained["first"][0]
        return torch.where(first < 0, -first, first)


def corrected(
    based: Tensor, corrections: Sequence[Tensor], denoise: Denoise, x: Tensor, levels: Tensor, told: Tensor
) -> Tensor:
    """Return the sample of the tableau `based` with corrections, in the units of `Free`.

    Args:
        based: [N+1, N+1], lower triangular.
        corrections: r_0 .. r_N; r_k has k+1 entries.
        x: state at levels[0].
        levels: [N+1], the level of each row's state.
        told: [N], the level that the network is told at each call.
    """
    size = (1 + levels**2).sqrt()
    outputs: list[Tensor] = []
    for k, free in enumerate(corrections):
        state = (based[k, 0] + size[k] / size[0] * free[0]) * x
        for j, d in enumerate(outputs):
            change = free[1 + j] - free[j] if j else free[1]
            state = state + (based[k, 1 + j] + size[k] * change) * d
        if k < len(told):
            outputs.append(denoise(state, told[k], level=levels[k]))
    return state


def _mirrored(places: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """Return the numbers mirrored into [low, high]; unlike clamped ones, they keep a gradient."""
    below = torch.where(places > high, 2 * high - places, places)
    return torch.where(below < low, 2 * low - below, below)
