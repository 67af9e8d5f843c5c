"""The teacher's trajectories on the candidate levels, from which `gits` and `oss` choose."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from solverbench import seeds
from solverbench.errors import TrainingError
from solverbench.method import grids
from solverbench.method.grids import Grid
from solverbench.method.schedules import NoiseSchedule
from solverbench.method.spec import make
from solverbench.method.tracing import tableau
from solverbench.method.vp_discrete import VPDiscrete
from solverbench.teachers.teacher import Teacher

SEEDS = range(10_000_000, 10_100_000)
"""Noise seeds of searches; disjoint from those of training, validation, evaluation and references."""

BATCH = 64
"""Images per call of the denoiser."""

PILOTS = {"ipndm": "ipndm:order=4", "dpm": "dpm:order=2", "euler": "euler"}
"""Solvers that make the trajectories, by the name in a spec."""


@dataclass(frozen=True, eq=False)
class Trajectories:
    """Trajectories of a batch of noises, in the EDM frame, float32.

    Args:
        levels: [M+1] float64, falling: the candidates.
        states: [M+1, B, D], the states there.
        outputs: [M, B, D], the data predictions at the first M of them.
        denoise: (states [B, D], level) -> data predictions [B, D]; counts as B calls.
    """

    levels: Tensor
    states: Tensor
    outputs: Tensor
    denoise: Callable[[Tensor, float], Tensor]

    @property
    def slopes(self) -> Tensor:
        """dx/dsigma at the first M levels, [M, B, D]."""
        return (self.states[:-1] - self.outputs) / _column(self.levels[:-1], self.states)


def candidates(schedule: NoiseSchedule, count: int, rho: float | None = None) -> Grid:
    """Return the levels that a search chooses from, `count` with both ends.

    They are `polynomial`, on a discrete model or a flow `time_uniform`.
    Source: the public code of GITS (arXiv:2405.11326): rho = 7 for EDM's networks, uniform time for latent models.

    Raises:
        GridError: the schedule knows too few levels.
    """
    named = schedule.default_grid or ("time_uniform" if isinstance(schedule, VPDiscrete) else "polynomial")
    return grids.named(named, schedule, count - 1, rho=rho)


@torch.no_grad()
def trajectories(
    teacher: Teacher, levels: Grid, pilot: str, chosen: range, advance: Callable[[int], None]
) -> Iterator[Trajectories]:
    """Yield the trajectories of these seeds in batches.

    Args:
        teacher: the network.
        levels: the candidates.
        pilot: a key of `PILOTS`.
        chosen: seeds of the noise and, for a teacher with conditions, of these.
        advance: told the number of calls times images after each call.

    Raises:
        TrainingError: a state isn't finite.
    """
    plan = tableau(make(PILOTS[pilot]), grid=levels.sigmas.tolist()).plan_from_noise(levels.schedule)
    for begin in range(0, len(chosen), BATCH):
        part = chosen[begin : begin + BATCH]
        denoise = _flat(teacher, part, advance)
        x = seeds.noise(part, teacher.shape, teacher.device).flatten(1)
        states, outputs = [], list[Tensor]()
        for k, row in enumerate(plan.rows):
            states.append(sum((weight * d for weight, d in zip(row[1:], outputs, strict=True)), row[0] * x))
            if k < plan.nfe:
                outputs.append(denoise(states[k], plan.sigmas[k]))
        found = Trajectories(levels.sigmas, torch.stack(states), torch.stack(outputs), denoise)
        if not found.states.isfinite().all():
            raise TrainingError(
                asked=f"search on {teacher.name}",
                wrong=f"a trajectory of {PILOTS[pilot]} isn't finite",
                remedy="give another pilot, as in pilot=euler, or check the teacher with 'solverbench check'",
            )
        yield found


def _flat(teacher: Teacher, part: range, advance: Callable[[int], None]) -> Callable[[Tensor, float], Tensor]:
    """Return the teacher's denoiser of these seeds on flat states."""
    denoise = teacher.denoiser(part)

    def called(x: Tensor, level: float) -> Tensor:
        found = denoise(x.reshape(len(x), *teacher.shape), torch.tensor(level, dtype=torch.float64)).flatten(1)
        advance(len(x))
        return found

    return called


def _column(levels: Tensor, states: Tensor) -> Tensor:
    return levels.to(states.device, states.dtype)[:, None, None]
