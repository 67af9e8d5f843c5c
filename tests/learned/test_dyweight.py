"""DyWeight: it starts as iPNDM, and equals its formula written out; unit sums keep its own level on the grid."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

import solverbench as sb
from solverbench.errors import GridError, SpecError
from solverbench.learned import recipes, trained_files
from solverbench.learned.training import train as training
from solverbench.learned.training.data import Data
from solverbench.method.rectified_flow import RectifiedFlow
from solverbench.method.solver import LearnedSolver
from solverbench.teachers.teacher import Teacher

GRIDS = ["polynomial", "logsnr", "time_uniform", "time_quadratic"]


def moved(spec: str, nfe: int, by: float = 0.2, schedule: sb.NoiseSchedule | None = None) -> LearnedSolver:
    """The solver with its parameters moved at random."""
    solver = trained_files.learned(spec)
    generator = torch.Generator().manual_seed(nfe)
    start = solver.initial(schedule or sb.EDM(), nfe)
    noise = {name: torch.randn(value.shape, generator=generator, dtype=torch.float64) for name, value in start.items()}
    return solver.with_parameters({name: value + by * noise[name] for name, value in start.items()})


def tableau(solver: LearnedSolver, nfe: int, schedule: sb.NoiseSchedule | None = None) -> sb.Tableau:
    schedule = schedule or sb.EDM()
    return sb.trace(solver, solver.grid(schedule, solver.steps(nfe)))


@pytest.mark.parametrize("schedule", [sb.EDM(), sb.VPLinear(), RectifiedFlow()], ids=lambda each: type(each).__name__)
@pytest.mark.parametrize("grid", GRIDS)
def test_untrained_it_is_ipndm_of_order_4_on_any_grid(grid: str, schedule: sb.NoiseSchedule) -> None:
    for nfe in (1, 2, 6):
        found = tableau(moved(f"dyweight:grid={grid}", nfe, 0.0, schedule), nfe, schedule)
        assert found.equals(sb.tableau(f"ipndm:order=4:grid={grid}", nfe=nfe, schedule=schedule), 1e-9)


@pytest.mark.parametrize(("history", "order"), [(1, 1), (2, 2), (3, 3), (7, 4)])
@pytest.mark.parametrize("afs", ["true", "false"])
def test_untrained_and_truncated_it_is_ipndm_of_that_order(history: int, order: int, afs: str) -> None:
    found = tableau(moved(f"dyweight:history={history}:afs={afs}", 6, 0.0), 6)
    assert found.equals(sb.tableau(f"ipndm:order={order}:afs={afs}", nfe=6), 1e-9)


def test_it_has_the_parameters_of_the_paper() -> None:
    """3N - 3 weights and N scales with a history of 3; the analytic first step adds a step without a scale."""
    for nfe in (3, 5, 9):
        plain, afs = (
            trained_files.learned(spec).shapes(nfe) for spec in ("dyweight:history=3", "dyweight:history=3:afs=true")
        )
        assert sum(math.prod(shape) for shape in plain.values()) == 3 * nfe - 3 + nfe
        assert sum(math.prod(shape) for shape in afs.values()) == 3 * (nfe + 1) - 3 + nfe


def network(x: Tensor, sigma: Tensor) -> Tensor:
    return torch.asinh(1.3 * x / (1 + sigma**2).sqrt() + 0.2 * torch.atan(sigma))


@pytest.mark.parametrize("afs", [False, True])
def test_it_is_the_formula(afs: bool) -> None:
    """State and its own level move by one combination; the network is told |a tau| and the slope divides by tau."""
    nfe = 5
    solver = moved(f"dyweight:history=3:afs={str(afs).lower()}", nfe)
    grid = solver.grid(sb.EDM(), solver.steps(nfe))
    x = 80 * torch.randn(4, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    found = sb.execute(sb.trace(solver, grid), network, x)
    sigma, tau, state, slopes = grid.sigmas.tolist(), 80.0, x, []
    scales = solver.trained["a"].tolist()
    for n in range(nfe + afs):
        if afs and n == 0:
            slopes.append(state / math.sqrt(1 + tau**2))
        else:
            told = torch.tensor(abs(scales[n - afs] * tau), dtype=torch.float64)
            slopes.append((state - network(state, told)) / tau)
        weights = solver.trained[f"w{n}"].tolist()
        combined = sum(w * slopes[n - i] for i, w in enumerate(weights))
        state = state + (sigma[n + 1] - tau) * combined
        tau += (sigma[n + 1] - tau) * sum(weights)
    torch.testing.assert_close(found, state, rtol=1e-9, atol=1e-9)
    traced = sb.trace(solver, grid)
    assert float(traced.levels[-1]) == pytest.approx(grid.sigmas[-1])  # the tableau's end is the grid's
    assert tau != pytest.approx(sigma[-1], rel=1e-3)


def test_with_unit_sums_its_level_stays_on_the_grid_and_a_constant_image_is_kept() -> None:
    solver = moved("dyweight", 6)
    unit = {
        name: torch.ones_like(value) if name == "a" else value / value.sum() for name, value in solver.trained.items()
    }
    found = tableau(solver.with_parameters(unit), 6)
    grid = sb.make("ipndm").grid(sb.EDM(), 6).sigmas
    torch.testing.assert_close(found.levels, grid, rtol=1e-12, atol=0.0)
    assert found.inconsistency() < 1e-12
    assert float((tableau(solver, 6).levels - grid).abs().max()) > 1


def test_what_it_cannot_do_is_refused() -> None:
    with pytest.raises(SpecError, match="history=0: 0 is out of range"):
        sb.make("dyweight:history=0")
    with pytest.raises(GridError, match="parameters are for 5 steps, but 6 are requested"):
        moved("dyweight", 5).grid(sb.EDM(), 6)


def test_training_lowers_its_error(teacher: Teacher, data: Data, tmp_path: Path) -> None:
    short = replace(
        recipes.load("dyweight", "digits"),
        start="",
        iterations=40,
        batch=16,
        train_size=80,
        validation_size=40,
        validate_every=10,
    )
    made = training.train("dyweight", 4, teacher, short, seed=0, out=tmp_path, data=data)
    run = made.record["runs"][0]
    assert run["validation"] < 0.6 * run["validation_initial"]
