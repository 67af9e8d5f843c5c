"""EPD: DPM-Solver-2 and iPNDM as its start, its formula written out, points side by side, AdaSDE's numbers as steps."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

import solverbench as sb
from solverbench.errors import BudgetError, GridError, SpecError
from solverbench.learned import trained_files
from solverbench.method.solver import LearnedSolver


def untrained(spec: str, nfe: int, **changes: Tensor) -> LearnedSolver:
    solver = trained_files.learned(spec)
    return solver.with_parameters(solver.initial(sb.EDM(), nfe) | changes)


def moved(spec: str, nfe: int, by: float = 0.5) -> LearnedSolver:
    """The solver with its parameters moved at random."""
    solver, generator = untrained(spec, nfe), torch.Generator().manual_seed(nfe)
    return solver.with_parameters(
        {
            name: value + by * torch.randn(value.shape, generator=generator, dtype=torch.float64)
            for name, value in solver.trained.items()
        }
    )


def tableau(solver: LearnedSolver, nfe: int) -> sb.Tableau:
    return sb.trace(solver, solver.grid(sb.EDM(), solver.steps(nfe)))


def network(x: Tensor, sigma: Tensor) -> Tensor:
    return torch.asinh(1.3 * x / (1 + sigma**2).sqrt() + 0.2 * torch.atan(sigma))


@pytest.mark.parametrize("afs", ["", ":afs=true"])
@pytest.mark.parametrize("grid", ["time_uniform", "polynomial", "logsnr"])
def test_untrained_with_one_point_it_is_dpm2(grid: str, afs: str) -> None:
    for nfe in (4, 8):
        calls = nfe - bool(afs)
        found = tableau(untrained(f"epd:points=1:grid={grid}{afs}", calls), calls)
        assert found.equals(sb.tableau(f"dpm2:grid={grid}{afs}", nfe=calls), 1e-9)


@pytest.mark.parametrize("afs", ["", ":afs=true"])
def test_the_untrained_plugin_is_ipndm_with_the_inner_levels(afs: str) -> None:
    calls = 6 - bool(afs)
    found = tableau(untrained(f"epd:base=ipndm{afs}", calls), calls)
    grid = sb.make("ipndm").grid(sb.EDM(), 3).sigmas
    inner = (grid[1:] * grid[:-1]).sqrt()
    levels = torch.stack([grid[:-1], inner], 1).flatten().tolist() + grid[-1:].tolist()
    assert found.equals(sb.tableau(f"ipndm{afs}", grid=levels), 1e-9)


@pytest.mark.parametrize("points", [2, 3])
def test_all_weight_on_one_point_is_a_solver_of_one_point(points: int) -> None:
    steps = 3
    many, one = moved(f"epd:points={points}", steps * (1 + points)), moved("epd", 2 * steps)
    chosen = {name: many.trained[name][:, -1:] for name in ("r", "a", "o")}
    alone = one.with_parameters(chosen)
    onehot = torch.full((steps, points), -800.0, dtype=torch.float64)  # e^-800 is 0 in float64
    onehot[:, -1] = 0
    many = many.with_parameters(many.trained | {"w": onehot})
    x = 80 * torch.randn(4, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    samples = [
        sb.execute(tableau(each, n), network, x) for each, n in ((many, steps * (1 + points)), (alone, 2 * steps))
    ]
    torch.testing.assert_close(samples[0], samples[1], rtol=1e-11, atol=1e-11)


def test_points_at_one_place_are_one_row() -> None:
    found = tableau(untrained("epd:points=3", 8, r=torch.zeros(2, 3, dtype=torch.float64)), 8)
    for step in (0, 4):
        for k in (2, 3):
            assert torch.equal(found.weights[step + k], found.weights[step + 1])
            assert found.sigmas[step + k] == found.sigmas[step + 1]


def test_it_is_the_formula() -> None:
    """One call at the state, K beside one another, every number of the step in use."""
    solver = moved("epd:points=2:time_limit=0.3:direction_limit=0.1", 6)
    x = 80 * torch.randn(4, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    found = sb.execute(tableau(solver, 6), network, x)
    grid = solver.grid(sb.EDM(), 2).sigmas.tolist()
    for n, (s, t) in enumerate(itertools.pairwise(grid)):
        r, w, a, o = (solver.trained[name][n].tolist() for name in "rwao")
        shares = [math.exp(each) / sum(map(math.exp, w)) for each in w]
        e = (x - network(x, torch.tensor(s, dtype=torch.float64))) / s
        combined = torch.zeros_like(x)
        for k in range(2):
            place = 1 / (1 + math.exp(-r[k]))
            inner = t**place * s ** (1 - place)
            y = x + (inner - s) * e
            told = (1 - 0.3 + 0.6 / (1 + math.exp(-a[k] / 2))) * inner
            g = (y - network(y, torch.tensor(told, dtype=torch.float64))) / inner
            combined = combined + shares[k] * (1 - 0.1 + 0.2 / (1 + math.exp(-o[k] / 2))) * g
        x = x + (t - s) * combined
    torch.testing.assert_close(found, x, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    ("spec", "nfe", "serial"),
    [("epd", 8, 8), ("epd:points=2", 9, 6), ("epd:points=2:afs=true", 8, 5), ("epd:points=3", 8, 4),
     ("epd:base=ipndm", 8, 8)],
)  # fmt: skip
def test_points_run_side_by_side(spec: str, nfe: int, serial: int) -> None:
    found = tableau(moved(spec, nfe), nfe)
    assert (found.nfe, found.serial_calls, found.plan().serial_calls) == (nfe, serial, serial)


ADASDE = {
    3: ((0.227, 0.160), (0.804, 0.991), (0.998, 0.997)),
    5: ((0.248, 0.388, 0.156), (0.808, 0.961, 0.926), (0.999, 1.004, 1.001)),
    7: ((0.149, 0.533, 0.444, 0.147), (0.818, 0.986, 1.024, 0.898), (1.0,) * 4),
    9: ((0.149, 0.458, 0.555, 0.487, 0.166), (0.802, 1.005, 1.012, 0.971, 0.857), (1.0,) * 5),
}
"""(r, a, o) per step that AdaSDE learned for CIFAR-10 (arXiv:2510.23285): one point, analytic first step; o of 7 and 9
calls isn't known, 1 is used. Rounded to three digits."""


def logits(values: tuple[float, ...], limit: float) -> Tensor:
    """The theta of factors within `limit` of 1."""
    return 2 * torch.logit((torch.tensor(values, dtype=torch.float64)[:, None] - 1 + limit) / (2 * limit))


@pytest.mark.parametrize("nfe", ADASDE)
def test_with_adasdes_numbers_each_step_is_the_one_written_down(nfe: int) -> None:
    r, a, o = ADASDE[nfe]
    solver = untrained(
        "epd:afs=true", nfe, r=torch.logit(torch.tensor(r, dtype=torch.float64))[:, None],
        a=logits(a, 0.2), o=logits(o, 0.05),
    )  # fmt: skip
    found = tableau(solver, nfe)
    grid = solver.grid(sb.EDM(), len(r)).sigmas.tolist()
    # A row of weights of x, d_0 .. d_{N-1} for the state, moved as the step's formula says.
    unit = torch.eye(nfe + 1, dtype=torch.float64)
    state, call, rows, told = unit[0], 0, [], []
    for n, (s, t) in enumerate(itertools.pairwise(grid)):
        if n == 0:
            slope = state / math.sqrt(1 + s * s)
        else:
            rows, told, call = [*rows, state], [*told, s], call + 1
            slope = (state - unit[call]) / s
        inner = s * (t / s) ** r[n]
        middle = state - (s - inner) * slope
        rows, told, call = [*rows, middle], [*told, a[n] * inner], call + 1
        state = state - (s - t) * o[n] * (middle - unit[call]) / inner
    torch.testing.assert_close(found.weights, torch.stack([*rows, state]), rtol=1e-9, atol=1e-11)
    torch.testing.assert_close(found.sigmas, torch.tensor(told, dtype=torch.float64), rtol=1e-9, atol=0.0)


@pytest.mark.parametrize("size", [-40.0, 40.0])
def test_factors_and_places_keep_their_limits(size: float) -> None:
    solver = moved("epd:points=2", 6, by=0.0)
    found = tableau(solver.with_parameters({name: value + size for name, value in solver.trained.items()}), 6)
    ratios = found.sigmas / found.levels[:-1]
    factor = 1.2 if size > 0 else 0.8
    torch.testing.assert_close(ratios, torch.tensor([1, factor, factor] * 2, dtype=torch.float64), rtol=1e-6, atol=0.0)


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("epd:base=ipndm:points=2", "the plugin form has one point; leave points or base out"),
        ("epd:time_limit=1", "time_limit=1: allows a factor of 0; give less than 1"),
        ("epd:points=0", "points=0: 0 is out of range"),
    ],
)
def test_what_has_no_meaning_is_refused(spec: str, said: str) -> None:
    with pytest.raises(SpecError, match=said):
        sb.make(spec)


def test_on_a_flow_it_starts_at_a_finite_level() -> None:
    """From the level that stands for an infinite one, the first step's weights would grow with it."""
    flow = sb.RectifiedFlow(t_start=1.0, t_first=0.998)
    for spec in ("epd", "epd:base=ipndm"):
        solver = trained_files.learned(spec)
        grid = solver.with_parameters(solver.initial(flow, 6)).grid(flow, 3)
        assert float(grid.sigmas[0]) == pytest.approx(flow.sigma_first)


def test_budgets_and_foreign_parameters() -> None:
    assert [sb.make("epd:points=2:afs=true").steps(nfe) for nfe in (2, 5, 8)] == [1, 2, 3]
    with pytest.raises(BudgetError, match=r"epd with nfe=4: each step costs 3 evaluations; use nfe=3 or nfe=6"):
        sb.make("epd:points=2").steps(4)
    with pytest.raises(BudgetError, match=r"use nfe=2 or nfe=5"):
        sb.make("epd:points=2:afs=true").steps(3)
    with pytest.raises(GridError, match="parameters are for 2 steps, but 3 are requested"):
        untrained("epd", 4).grid(sb.EDM(), 3)


def test_training_lowers_its_error(briefly: Callable[[str, int], dict[str, float]]) -> None:
    run = briefly("epd:points=2", 6)
    assert run["validation"] < 0.6 * run["validation_initial"]
