"""DPM-Solver-v3 with scalar statistics: exact on Gaussians, exponential Adams at known statistics, their estimate."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

import solverbench as sb
from solverbench.errors import GridError, TrainingError
from solverbench.learned import recipes, trained_files
from solverbench.learned.dpmv3 import DPMSolverV3, _weights
from solverbench.learned.recipes import Recipe
from solverbench.learned.training import train as training
from solverbench.learned.training.data import Data
from solverbench.teachers.teacher import Teacher


def places(intervals: int) -> Tensor:
    return torch.linspace(-math.log(80), -math.log(0.002), intervals + 1, dtype=torch.float64)


def with_statistics(spec: str, l: Tensor | float, s: Tensor | float) -> sb.LearnedSolver:  # noqa: E741
    solver = trained_files.learned(spec)
    count = solver.shapes(1)["l"][0]
    filled = {name: torch.zeros(count, dtype=torch.float64) + value for name, value in (("l", l), ("s", s))}
    return solver.with_parameters(filled)


def tableau(solver: sb.LearnedSolver, nfe: int) -> sb.Tableau:
    return sb.trace(solver, solver.grid(sb.EDM(), nfe))


@pytest.mark.parametrize("width", [0.3, 1.0, 3.0])
@pytest.mark.parametrize("nfe", [1, 2, 6])
def test_one_step_is_exact_on_gaussian_data(width: float, nfe: int) -> None:
    level = (-places(120)).exp()
    solver = with_statistics("dpmv3", level**2 / (width**2 + level**2), 0.0)
    x = 80 * torch.randn(4, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    found = sb.execute(tableau(solver, nfe), lambda x, sigma: x * width**2 / (width**2 + sigma**2), x)
    exact = x * math.sqrt((width**2 + 0.002**2) / (width**2 + 80**2))
    torch.testing.assert_close(found, exact, rtol=1e-6, atol=0.0)


def exact_step(x: Tensor, a: float, z: float, nodes: Sequence[tuple[float, Tensor]], l: float, s: float) -> Tensor:  # noqa: E741
    """The step at constant statistics, its integrals by quadrature of Lagrange polynomials."""
    points, weights = np.polynomial.legendre.leggauss(40)
    at = a + (z - a) * (points + 1) / 2
    kernel = np.exp((l + s) * (at - a)) * weights * (z - a) / 2
    for place, value in nodes:
        others = [other for other, _ in nodes if other != place]
        shape = math.prod([(at - other) / (place - other) for other in others], start=np.ones_like(at))
        x = x - float(kernel @ shape) * math.exp(s * (a - place)) * value
    return math.exp(-l * (z - a)) * x


def network(x: Tensor, sigma: Tensor) -> Tensor:
    return torch.asinh(1.3 * x / (1 + sigma**2).sqrt() + 0.2 * torch.atan(sigma))


def exact_sample(x: Tensor, sigmas: Sequence[float], order: int, l: float, s: float, *, corrected: bool) -> Tensor:  # noqa: E741
    lam, steps = [-math.log(sigma) for sigma in sigmas], len(sigmas) - 1
    call = [torch.tensor(sigma, dtype=torch.float64) for sigma in sigmas]
    past = [(lam[0], (1 - l) * x - network(x, call[0]))]
    for n in range(steps):
        used = min(n + 1, order) if n + 1 < order else min(order, steps - n)
        guess = exact_step(x, lam[n], lam[n + 1], past[:used], l, s)
        if n + 1 == steps:
            return guess
        new = (lam[n + 1], (1 - l) * guess - network(guess, call[n + 1]))
        nodes = [past[0], new, *past[1:]][:order]
        x = exact_step(x, lam[n], lam[n + 1], nodes, l, s) if corrected else guess
        past = [new, *past]
    raise AssertionError


@pytest.mark.parametrize("corrected", [False, True])
@pytest.mark.parametrize("order", [1, 2, 3])
@pytest.mark.parametrize(("l", "s"), [(1.0, 0.0), (0.0, -1.0), (0.0, 0.0), (0.6, -0.3)])
def test_at_constant_statistics_it_is_the_exponential_adams_method(
    l: float,  # noqa: E741
    s: float,
    order: int,
    corrected: bool,
) -> None:
    """On D (1, 0), on the noise (0, -1), and plain Adams in lambda (0, 0): the rest is the trapezoids' error."""
    if order == 1 and corrected:
        return
    sigmas = [80.0, 21.0, 6.0, 1.9, 0.4, 0.05, 0.002]
    x = 80 * torch.randn(4, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    expected = exact_sample(x, sigmas, order, l, s, corrected=corrected)
    gaps = []
    for intervals in (30, 60):
        levels = "+".join(map(repr, sigmas))
        given = {2: f":corrector={corrected}", 3: f":corrector={corrected}:pseudo=false"}.get(order, "").lower()
        solver = with_statistics(f"dpmv3:order={order}{given}:intervals={intervals}:grid={levels}", l, s)
        gap = (sb.execute(tableau(solver, 6), network, x) - expected).abs().max()
        gaps.append(float(gap / expected.abs().max()))
    assert gaps[1] < 0.01
    if gaps[0] > 1e-9:  # trapezoids of lines have no error but rounding
        assert gaps[0] / gaps[1] == pytest.approx(4, rel=0.1)


@pytest.mark.parametrize(("l", "s"), [(1.0, 0.0), (0.0, -1.0)])
def test_at_order_one_it_is_euler(l: float, s: float) -> None:  # noqa: E741
    found = tableau(with_statistics("dpmv3:order=1:intervals=1200", l, s), 6)
    assert found.equals(sb.tableau("dpm:order=1", nfe=6), 1e-6)


@pytest.mark.parametrize(
    ("options", "same"),
    [
        ("order=2:corrector=false", "adams:predictor=2"),
        ("order=2:corrector=false", "dpm:order=2:variant=taylor"),
        ("order=3:corrector=false:pseudo=false", "adams:predictor=3"),
        ("order=2:corrector=true", "adams:predictor=2:corrector=2"),
        ("order=3:corrector=true:pseudo=false", "adams:predictor=3:corrector=3"),
        ("order=3:corrector=false:pseudo=false:lower_order_final=false", "adams:predictor=3:lower_order_final=false"),
    ],
)
@pytest.mark.parametrize("nfe", [2, 3, 7])
def test_on_the_data_it_is_a_solver_that_is_here_already(options: str, same: str, nfe: int) -> None:
    found = tableau(with_statistics(f"dpmv3:intervals=1200:{options}", 1.0, 0.0), nfe)
    assert found.equals(sb.tableau(same, nfe=nfe), 1e-6)  # trapezoids of 1/1200 of the range: 1e-8


def test_order_two_on_the_data_is_the_taylor_form() -> None:
    """x' = (t/s) x + (1 - e^-h) m + (1 - (1 - e^-h)/h) h/h' (m - m'), written down; at the ends Euler."""
    sigmas = sb.make("dpm").grid(sb.EDM(), 6).sigmas.tolist()
    unit = list(torch.eye(7, dtype=torch.float64))
    state, rows = unit[0], []
    for n in range(6):
        rows.append(state)
        s, t = sigmas[n], sigmas[n + 1]
        h = math.log(s / t)
        b = 1 - math.exp(-h)
        change = torch.zeros(7, dtype=torch.float64)
        if 0 < n < 5:
            change = (1 - b / h) * h / math.log(sigmas[n - 1] / s) * (unit[n + 1] - unit[n])
        state = t / s * state + b * unit[n + 1] + change
    found = tableau(with_statistics("dpmv3:corrector=false:order=2:intervals=1200", 1.0, 0.0), 6)
    torch.testing.assert_close(found.weights, torch.stack([*rows, state]), rtol=1e-6, atol=1e-6)


def test_pseudo_derivatives_are_divided_differences_at_the_steps_start() -> None:
    moments, apart = torch.tensor([0.7, 0.3, 0.2]), torch.tensor([0.0, -0.5, -1.3])
    value = torch.tensor([1.1, -0.4, 2.0])
    first, second = (value[0] - value[1]) / 0.5, (value[1] - value[2]) / 0.8
    twice = (first - second) / 1.3
    found = _weights(moments, apart, pseudo=True) @ value
    assert float(found) == pytest.approx(float(0.7 * value[0] + 0.3 * first + 0.2 * 2 * twice))
    exact = _weights(moments, apart, pseudo=False) @ value
    assert float(exact) == pytest.approx(float(0.7 * value[0] + 0.3 * (first + 0.5 * twice) + 0.2 * 2 * twice))
    same = [_weights(moments[:2], apart[:2], pseudo=pseudo) for pseudo in (True, False)]
    torch.testing.assert_close(same[0], same[1])


def test_the_defaults_follow_the_number_of_steps() -> None:
    level = (-places(120)).exp()
    statistics = level**2 / (0.25 + level**2), -0.2 * torch.ones_like(level)
    for nfe, same in ((5, "pseudo=true:corrector=true"), (6, "pseudo=false:corrector=true"),
                      (7, "pseudo=false:corrector=false")):  # fmt: skip
        given, named = (tableau(with_statistics(spec, *statistics), nfe) for spec in ("dpmv3", f"dpmv3:{same}"))
        assert torch.equal(given.weights, named.weights)


def teacher_of(denoise) -> Teacher:
    return Teacher(denoise, "toy", (4,), identity="cd" * 32, sampler="heun", sampler_nfe=20)


def test_statistics_of_a_gaussian_are_its_own() -> None:
    solver = trained_files.learned("dpmv3:intervals=60")
    assert isinstance(solver, DPMSolverV3)
    noise = torch.randn(20, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    found = solver.estimate(
        teacher_of(lambda x, sigma: 0.25 * x / (0.25 + sigma**2)), noise, range(20), batch=8, seed=0
    )
    statistics = solver.parameters_of(found)
    level = (-places(60)).exp()
    torch.testing.assert_close(statistics["l"], level**2 / (0.25 + level**2), rtol=1e-9, atol=1e-12)
    assert float(statistics["s"].abs().max()) < 0.1  # F is 0 but for rounding
    assert found.calls == 20 * 61


def test_statistics_of_two_widths_are_those_of_the_pooled_regression() -> None:
    """Two numbers per image of widths 1/2 and 2: l is the mean of both; s regresses F' on F, known in closed form."""
    widths = torch.tensor([0.5, 2.0], dtype=torch.float64)
    solver = trained_files.learned("dpmv3:intervals=240")
    assert isinstance(solver, DPMSolverV3)
    noise = torch.randn(4000, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    found = solver.estimate(
        teacher_of(lambda x, sigma: x * widths**2 / (widths**2 + sigma**2)), noise, range(4000), batch=1000, seed=0
    )
    statistics = solver.parameters_of(found)
    lam = places(240)
    level = (-lam).exp()[:, None]
    own = level**2 / (widths**2 + level**2)
    mean = own.mean(1, keepdim=True)
    torch.testing.assert_close(statistics["l"], mean[:, 0], rtol=1e-9, atol=1e-12)
    # x moves as sqrt(width^2 + level^2), F = (own - mean) x, and d own/dlambda = -2 own (1 - own).
    x = (widths**2 + level**2).sqrt() * 80 / (widths**2 + 80**2).sqrt()
    rest = (own - mean) * x
    falls = -2 * own * (1 - own)
    change = (falls - falls.mean(1, keepdim=True)) * x - (own - mean) * own * x
    inside = slice(20, -20)
    expected = (change * rest).sum(1) / rest.square().sum(1)
    torch.testing.assert_close(statistics["s"][inside], expected[inside], rtol=0.05, atol=0.05)


def test_train_estimates_it_and_its_file_is_that_of_any_learned_solver(
    teacher: Teacher, data: Data, recipe: Recipe, tmp_path: Path
) -> None:
    short = replace(
        recipes.load("dpmv3", "toy"), train_size=recipe.train_size, validation_size=recipe.validation_size, batch=40
    )
    told: list[tuple[int, int]] = []
    made = training.train(
        "dpmv3:intervals=30", 5, teacher, short, seed=0, out=tmp_path, data=data,
        progress=lambda iteration, iterations, *_: told.append((iteration, iterations)),
    )  # fmt: skip
    run = made.record["runs"][0]
    assert told == [(1, 1)]
    assert run["validation"] < 0.7 * run["validation_initial"]
    assert run["cost"]["student_calls_with_gradient"] == recipe.train_size * 31
    [path] = tmp_path.rglob("trained.safetensors")
    assert torch.equal(trained_files.load(path, teacher=teacher, nfe=5).parameters["s"], made.parameters["s"])
    again = training.train("dpmv3:intervals=30", 5, teacher, short, seed=0, out=tmp_path / "2", data=data)
    assert again.identity == made.identity


def test_a_setting_that_would_do_nothing_is_refused_before_any_image_is_made(teacher: Teacher, tmp_path: Path) -> None:
    recipe = recipes.load("dpmv3", "toy").override(["lr=0.5", "train_size=64"])
    for train in (partial(training.train, seed=0), training.train_best):
        with pytest.raises(
            TrainingError, match=r"lr=0\.5: its parameters are estimated .*; leave it out, or set one of"
        ):
            train("dpmv3", 4, replace(teacher, denoise=lambda x, sigma: 1 / 0), recipe, out=tmp_path)


def test_a_level_without_statistics_is_refused() -> None:
    flow = sb.RectifiedFlow(t_start=1.0)
    solver = trained_files.learned("dpmv3:grid=time_uniform")
    with pytest.raises(GridError, match=r"statistics are from level .* use grid=logsnr"):
        solver.with_parameters(solver.initial(flow, 4)).grid(flow, 4)
