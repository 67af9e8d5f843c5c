"""Inputs of solver checks: a network, states, the grid of every budget, and random grids."""

from __future__ import annotations

import contextlib
import itertools
import pickle
import random
import secrets
from collections.abc import Callable, Iterable, Iterator

import numpy as np
import torch
from torch import Tensor

from solverbench.errors import BudgetError, GridError
from solverbench.method.grids import Grid, explicit
from solverbench.method.loops import intervals, sampled
from solverbench.method.schedules import NoiseSchedule
from solverbench.method.solver import LearnedSolver, Solver

BUDGETS = range(1, 13)
"""Budgets, in calls, that solvers are checked at."""

SHAPE = (2, 2, 2)
"""Shape of one image."""


class Failed(Exception):
    """A failed check; the text is one line, `<finding>; <remedy>`."""


class Counter:
    """The network with the number of its calls."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, x: Tensor, sigma: Tensor, *, level: Tensor | None = None) -> Tensor:
        self.calls += 1
        return network(x, sigma)


class Recorder:
    """The network with a record of its inputs, and of its outputs together with copies of them."""

    def __init__(self) -> None:
        self.inputs: list[tuple[Tensor, Tensor]] = []
        self.outputs: list[tuple[Tensor, Tensor]] = []

    @property
    def calls(self) -> int:
        """The number of calls."""
        return len(self.inputs)

    def __call__(self, x: Tensor, sigma: Tensor, *, level: Tensor | None = None) -> Tensor:
        d = network(x, sigma)
        self.inputs.append((x, sigma))
        self.outputs.append((d, d.clone()))
        return d


_MATRIX = torch.randn(8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(1)) / 3


def network(x: Tensor, sigma: Tensor, *, level: Tensor | None = None) -> Tensor:
    """Return the output of a nonlinear denoiser that treats each image separately."""
    inside = (x / (1 + sigma**2).sqrt()).flatten(1) @ _MATRIX.to(x)
    return torch.asinh(inside).reshape(x.shape)  # nowhere flat, so that no gradient vanishes


def start(grid: Grid) -> Tensor:
    """Return [8, 2, 2, 2] noise at the grid's start."""
    noise = torch.randn(8, *SHAPE, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    return noise * float(grid.sigmas[0].detach())


Run = tuple[int, Solver, Grid]
"""(number of calls, solver with parameters, its grid)."""


def runs(solver: Solver, schedule: NoiseSchedule, budgets: Iterable[int] = BUDGETS) -> Iterator[Run]:
    """Yield a run for every budget that the solver accepts and has a grid for."""
    for budget in budgets:
        intervals = steps(solver, budget)
        if intervals is None:
            continue
        with contextlib.suppress(GridError):  # explicit or tabulated levels for another number of steps
            ready = with_parameters(solver, schedule, budget)
            yield budget, ready, ready.grid(schedule, intervals)


def typical(solver: Solver, schedule: NoiseSchedule) -> Run:
    """Return the run nearest to 6 calls."""
    for run in runs(solver, schedule, sorted(BUDGETS, key=lambda budget: abs(budget - 6))):
        return run
    raise Failed(f"has no grid for any budget from 1 to {BUDGETS[-1]}; check `steps` and `grid`")


def few(solver: Solver, schedule: NoiseSchedule) -> list[Run]:
    """Return the smallest, the typical and the largest run."""
    smallest, largest = (list(itertools.islice(runs(solver, schedule, way), 1)) for way in (BUDGETS, BUDGETS[::-1]))
    return [*smallest, typical(solver, schedule), *largest]


def steps(solver: Solver, budget: int) -> int | None:
    """Return the number of intervals of a budget; None if the budget is refused."""
    try:
        return intervals(solver, budget)
    except BudgetError:
        return None


def with_parameters(solver: Solver, schedule: NoiseSchedule, budget: int) -> Solver:
    """Return a learned solver with slightly perturbed initial parameters, so that every parameter has an effect."""
    if not isinstance(solver, LearnedSolver) or solver.parameters is not None:
        return solver
    generator = torch.Generator().manual_seed(budget)
    return solver.with_parameters(
        {
            name: value + 1e-4 * torch.randn(value.shape, dtype=value.dtype, generator=generator)
            for name, value in solver.initial(schedule, budget).items()
        }
    )


MIXES = (1.0, 0.3, 0.1)
"""Fractions of randomness in a grid; a learned solver, trained for its own grid, may refuse all but the last."""


def scrambled(ready: Solver, grid: Grid) -> Grid:
    """Return random levels between the ends of `grid`, no two within 2 % of the whole in log sigma."""
    logs = grid.sigmas[grid.sigmas > 0].detach().log()
    generator = torch.Generator().manual_seed(4)
    gaps = torch.rand(len(logs) - 1, dtype=torch.float64, generator=generator) ** 2 + 0.02
    places = torch.cat([gaps.new_zeros(1), gaps.cumsum(0) / gaps.sum()])
    other = logs[0] + places * (logs[-1] - logs[0])
    for mix in MIXES:
        levels = (logs + mix * (other - logs)).exp()
        found = explicit(torch.cat([levels, grid.sigmas[len(logs) :].detach()]), grid.schedule)
        try:
            sampled(ready, network, start(found), found)
        except GridError:
            if not ready.learned or mix == MIXES[-1]:
                raise
        else:
            return found
    raise AssertionError


def disturbed(run: Callable[[], object]) -> str:
    """Return the libraries whose global random state `run` changes, empty if none; restore the states afterwards.

    It starts from fresh random states, because a program that seeds with a constant would not change the state left by
    its own earlier run.
    """
    kept = torch.get_rng_state(), np.random.get_state(), random.getstate()  # noqa: NPY002 - the state to check
    try:
        torch.manual_seed(secrets.randbits(63))
        np.random.seed(secrets.randbits(32))  # noqa: NPY002
        random.seed(secrets.randbits(63))
        before = _random_states()
        run()
        after = _random_states()
    finally:
        torch.set_rng_state(kept[0])
        np.random.set_state(kept[1])  # noqa: NPY002
        random.setstate(kept[2])
    return " and ".join(name for name in before if before[name] != after[name])


def _random_states() -> dict[str, bytes]:
    return {
        "torch": torch.get_rng_state().numpy().tobytes(),
        "numpy": pickle.dumps(np.random.get_state()),  # noqa: NPY002
        "random": pickle.dumps(random.getstate()),
    }


def relative(a: Tensor, b: Tensor) -> float:
    """Return the largest absolute difference divided by the largest absolute value of `b`."""
    return float((a - b).abs().max() / b.abs().max())
