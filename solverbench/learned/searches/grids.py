"""The grids `gits`, `oss` and `dmn`: levels that a search found on the teacher.

A schedule knows them through `NoiseSchedule.with_search`; see `search.equipped`.
"""

from __future__ import annotations

from typing import Any

import torch

from solverbench.errors import GridError
from solverbench.method.grids import Grid
from solverbench.method.schedules import NoiseSchedule


def gits(
    schedule: NoiseSchedule,
    steps: int,
    *,
    candidates: int = 61,
    warmup: int = 256,
    pilot: str = "ipndm",
    cost: str = "dev",
    discount: float = 1.15,
    rho: float | None = None,
    afs: bool = False,
) -> Grid:
    """Return the levels that GITS finds on the teacher: the cheapest path of Euler steps from its own states.

    Source: Chen et al. 2024, arXiv:2405.11326, algorithm 1; see `solverbench.learned.searches.gits`.

    Args:
        candidates: number of levels to choose from, ends included: `polynomial`, or `time_uniform` on discrete models
            and flows.
        warmup: number of noises.
        pilot: solver that makes the teacher's trajectories on the candidates.
        cost: cost of a step: dev, deviation from the straight line between the ends of a trajectory; l2 or l1, the
            distance to the trajectory.
        discount: factor on the cost of later steps, once for each step before them.
        rho: exponent of the candidates; their grid's own default if None.
        afs: whether the first step is the analytic one, which costs no call.

    Raises:
        GridError: no teacher is given, or there are fewer candidates than levels.
        NeedsSearchError: the search has not been made for this teacher.
    """
    given = {"candidates": candidates, "warmup": warmup, "pilot": pilot, "cost": cost, "discount": discount}
    return _found("gits", schedule, steps, given | {"rho": rho, "afs": afs or None})


def oss(
    schedule: NoiseSchedule,
    steps: int,
    *,
    candidates: int = 61,
    warmup: int = 32,
    pilot: str = "euler",
    rho: float | None = None,
) -> Grid:
    """Return the levels that OSS finds on the teacher: Euler steps from the student's own states, closest to it.

    Source: Pei et al. 2025, arXiv:2503.21774, algorithm 1; see `solverbench.learned.searches.oss`.

    Args:
        candidates, pilot, rho: as for `gits`.
        warmup: number of noises; a noise costs `steps` times as many calls as one of `gits`.

    Raises:
        GridError, NeedsSearchError: as for `gits`.
    """
    given = {"candidates": candidates, "warmup": warmup, "pilot": pilot}
    return _found("oss", schedule, steps, given | {"rho": rho})


def dmn(schedule: NoiseSchedule, steps: int, *, own: str | None = None) -> Grid:
    """Return the levels with the least bound on the error of the sample; no network calls are made.

    Source: Xue et al. 2024, arXiv:2402.17376; see `solverbench.learned.searches.dmn`.

    Args:
        own: spec of the solver whose weights are in the bound; those of a polynomial of order 3 if None.

    Raises:
        GridError, NeedsSearchError: as for `gits`.
    """
    return _found("dmn", schedule, steps, {"own": own})


def _found(name: str, schedule: NoiseSchedule, steps: int, given: dict[str, Any]) -> Grid:
    found = schedule.searched(name, steps, {key: value for key, value in given.items() if value is not None})
    if found is None:
        raise GridError(
            asked=f"grid={name}", wrong="it is searched on a teacher, and none is given", remedy="give a teacher"
        )
    sigmas = torch.tensor(found.levels, dtype=torch.float64)
    first = min(schedule.sigma_max, schedule.sigma_first, key=lambda level: abs(level - found.levels[0]))
    sigmas[0], sigmas[-1] = first, schedule.sigma_min
    return Grid(schedule.rounded(sigmas), schedule, found)
