"""LD3: its levels, its shifts and what its base solver is handed; the published form of GAS's "S4S" beside it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

import solverbench as sb
from solverbench import conformance
from solverbench.learned.ld3 import LD3, integrate_decoupled
from solverbench.learned.recipes import Recipe
from solverbench.learned.training import train as training
from solverbench.learned.training.trainer import Data
from solverbench.teachers.teacher import Teacher

VP = sb.VPLinear()
SCHEDULES = [sb.EDM(), VP, sb.VPDiscrete.latent_diffusion()]
ALIKE = {
    "ld3": "unipc:variant=bh1",
    "ld3:mode=time": "unipc:variant=bh2:grid=time_uniform",
    "ld3:variant=bh2": "unipc:variant=bh2",
    "ld3:base=dpm:order=2": "dpm:order=2",
    "ld3:base=ipndm:order=3": "ipndm:order=3:grid=logsnr",
    "ld3:base=euler:mode=time": "euler:grid=time_uniform",
}
"""LD3's specs, and what each is before training."""


def ld3(spec: str, **parameters: list[float]) -> LD3:
    made = sb.make(spec)
    assert isinstance(made, LD3)
    return made.with_parameters(
        {name: torch.tensor(values, dtype=torch.float64) for name, values in parameters.items()}
    )


def rounded(tensor: Tensor) -> list[float]:
    return [round(value, 12) for value in tensor.tolist()]


@pytest.mark.parametrize("schedule", SCHEDULES, ids=repr)
@pytest.mark.parametrize("spec", ALIKE)
def test_untrained_it_is_its_base_on_equal_intervals(spec: str, schedule: sb.NoiseSchedule) -> None:
    solver, base = sb.make(spec), sb.make(ALIKE[spec])
    assert isinstance(solver, sb.LearnedSolver)
    solver = solver.with_parameters(solver.initial(schedule, 5))
    found, expected = (sb.trace(each, each.grid(schedule, 5)) for each in (solver, base))
    assert torch.allclose(found.sigmas, expected.sigmas, rtol=1e-12, atol=0)
    assert torch.allclose(found.levels, expected.levels, rtol=1e-12, atol=0)
    assert torch.allclose(found.weights, expected.weights, rtol=0, atol=1e-9)


def test_in_lambda_mode_the_logits_are_the_intervals_in_order() -> None:
    solver = ld3("ld3", theta1=[9.0, 0.0, 1.0, 2.0], theta2=[0.0] * 4)
    lam = -solver.grid(VP, 3).sigmas.log()
    assert torch.allclose(
        lam.diff() / lam.diff()[0], torch.tensor([0.0, 1.0, 2.0], dtype=torch.float64).exp(), rtol=1e-12
    )


def test_in_time_mode_the_last_logit_is_the_first_interval() -> None:
    solver = ld3("ld3:mode=time", theta1=[9.0, 0.0, 1.0, 2.0], theta2=[0.0] * 4)
    t = VP.time(solver.grid(VP, 3).sigmas)
    assert torch.allclose(t.diff() / t.diff()[2], torch.tensor([2.0, 1.0, 0.0], dtype=torch.float64).exp(), rtol=1e-9)


@pytest.mark.parametrize("mode", ["lambda", "time"])
def test_shifts_are_clamped_to_half_the_smallest_gap_and_the_first_call_is_not_shifted(mode: str) -> None:
    solver = ld3(f"ld3:mode={mode}", theta1=[1.0, 1.0, 2.0, 1.5], theta2=[5.0, 50.0, -50.0, 5.0])
    grid = solver.grid(VP, 3)
    told = solver.told(grid)
    places, shifted = (-s.log() if mode == "lambda" else VP.time(s) for s in (grid.sigmas, told))
    half = float(places.diff().abs().min()) / 2
    assert len(told) == 3
    assert rounded(shifted - places[:3]) == pytest.approx([0.0, half, -half], abs=1e-9)


def test_a_shift_within_the_limit_is_taken_as_it_is() -> None:
    solver = ld3("ld3", theta1=[1.0] * 4, theta2=[0.0, 0.01, -0.02, 0.0])
    grid = solver.grid(sb.EDM(), 3)
    assert rounded(-(solver.told(grid) / grid.sigmas[:3]).log()) == [0.0, 0.01, -0.02]


def test_the_public_limit_forbids_every_shift_until_the_logits_differ() -> None:
    parameters = {"theta1": [1.0] * 4, "theta2": [0.0, 0.01, -0.02, 0.0]}
    public = ld3("ld3:compat=true", **parameters)
    grid = public.grid(VP, 3)
    assert torch.allclose(public.told(grid), grid.sigmas[:3], rtol=1e-12)
    public = ld3("ld3:compat=true", **{**parameters, "theta1": [1.0, 1.01, 1.02, 1.03]})
    grid = public.grid(VP, 3)
    assert rounded(-(public.told(grid) / grid.sigmas[:3]).log()) == pytest.approx([0.0, 0.005, -0.005])


@pytest.mark.parametrize("spec", ["dpm:order=1", "dpm:prediction=noise", "unipc:order=1", "ipndm", "euler"])
@pytest.mark.parametrize("schedule", SCHEDULES, ids=repr)
def test_a_base_gets_the_prediction_that_it_extrapolates(spec: str, schedule: sb.NoiseSchedule) -> None:
    """One step from s to t in the model's own frame, from a network told another time: data or noise, as LD3's code."""
    s, t, told = (torch.tensor(v, dtype=torch.float64) for v in (2.0, 0.5, 1.7))
    alpha, alpha_told = (schedule.alpha(schedule.time(level)) for level in (s, told))
    x = torch.randn(2, 1, 2, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    asked: list[tuple[Tensor, Tensor, Tensor | None]] = []

    def denoise(state: Tensor, sigma: Tensor, *, level: Tensor | None = None) -> Tensor:
        asked.append((state, sigma, level))
        return state.tanh()

    grid = sb.Grid(torch.stack([s, t]), schedule)
    found = integrate_decoupled(sb.make(spec), denoise, x, grid, told.reshape(1))
    ((state, sigma, level),) = asked
    assert torch.allclose(alpha_told * state, alpha * x)  # the model's own state, unchanged
    assert (sigma, level) == (told, s)
    noise = (alpha * x - alpha_told * state.tanh()) / (alpha_told * told)
    slopes = x + (t - s) * noise
    data = (t / s) * x + (1 - t / s) * (alpha * x - alpha_told * told * noise) / alpha_told
    by_data = spec in ("dpm:order=1", "unipc:order=1")
    assert torch.allclose(found, data if by_data else slopes, rtol=1e-12, atol=1e-12)
    assert not torch.allclose(data, slopes, rtol=1e-3)


@pytest.mark.parametrize("schedule", SCHEDULES, ids=repr)
@pytest.mark.parametrize("spec", [*ALIKE, "s4s_gas_compat"])
def test_it_conforms_on_every_schedule(spec: str, schedule: sb.NoiseSchedule) -> None:
    for check in conformance.checks(sb.make(spec), schedule):
        if check.name != "cell_key":  # which takes another process each time
            check()


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("ld3:base=euler:order=2", "ld3:base=euler: .*euler has no option 'order'"),
        ("ld3:base=ipndm:variant=bh1", "ipndm has no option 'variant'"),
        ("ld3:base=dpm:variant=bh1", "bh1 isn't one of its values; use midpoint or taylor"),
        ("ld3:order=7", "unipc:order=7: 7 isn't one of its values"),
        ("ld3:base=heun", "use unipc or dpm or ipndm or euler"),
        ("ld3:mode=time:compat=true", "leave compat out"),
        ("ld3:compat=true:limited=false", "leave one of them out"),
        ("ld3:prior=polynomail", "did you mean 'polynomial'"),
    ],
)
def test_a_wrong_option_is_refused(spec: str, said: str) -> None:
    with pytest.raises(sb.SpecError, match=said):
        sb.make(spec)


def test_one_call_leaves_nothing_to_learn() -> None:
    with pytest.raises(sb.BudgetError, match="use nfe=2"):
        sb.make("ld3").steps(1)


def test_the_published_s4s_multiplies_the_state_by_a_twice() -> None:
    """On one step, with no weight on the network's output, what is left of the state is A squared in the VP frame."""
    gs = sb.make("s4s_gas_compat")
    assert isinstance(gs, sb.LearnedSolver)
    zero = {name: torch.zeros_like(value) for name, value in gs.initial(VP, 1).items()}
    solver = gs.with_parameters(zero)
    tableau = sb.trace(solver, solver.grid(VP, 1))
    ends = torch.tensor([1.0, VP.t_eps], dtype=torch.float64)
    alpha, noise = VP.alpha(ends), VP.alpha(ends) * VP.sigma(ends)
    left = tableau.weights[1, 0] * alpha[1] / alpha[0]
    assert float(left) == pytest.approx(float(noise[1] / noise[0]) ** 2, rel=1e-9)


@pytest.mark.parametrize("spec", ["ld3", "ld3:base=ipndm:mode=time"])
def test_training_moves_levels_and_shifts_and_lowers_the_validation_error(
    spec: str, teacher: Teacher, recipe: Recipe, data: Data, tmp_path: Path
) -> None:
    trained = training.train(spec, 4, teacher, replace(recipe, training_seeds=1), seed=0, out=tmp_path, data=data)
    run = trained.record["runs"][0]
    assert run["validation_last"] < 0.95 * run["validation_initial"]
    assert trained.parameters["theta1"].diff().abs().max() > 0.01
    assert trained.parameters["theta2"].abs().max() > 0.001
    assert (trained.tableau.sigmas[1:] != trained.tableau.levels[1:-1]).all()


PRIORS = [
    ("ld3:prior=polynomial", "polynomial", sb.EDM()),
    ("ld3:prior=polynomial:mode=time", "polynomial", sb.EDM()),
    ("ld3:prior=gits_ipndm:mode=time", "gits_ipndm", sb.VPDiscrete.stable_diffusion()),
    ("ld3:prior=gits_ipndm", "gits_ipndm", sb.VPDiscrete.stable_diffusion()),
    ("s4s_alt:prior=80+9.7+3+0.8+0.1+0.002", "80+9.7+3+0.8+0.1+0.002", sb.EDM()),
    ("ld3:prior=80.3+9.7+3+0.8+0.1+0.002", "80+9.7+3+0.8+0.1+0.002", sb.EDM()),
]


@pytest.mark.parametrize(("spec", "grid", "schedule"), PRIORS)
def test_it_starts_exactly_from_a_prior(spec: str, grid: str, schedule: sb.NoiseSchedule) -> None:
    solver = sb.make(spec)
    assert isinstance(solver, sb.LearnedSolver)
    found = solver.with_parameters(solver.initial(schedule, 5)).grid(schedule, 5)
    expected = sb.make(f"euler:grid={grid}").grid(schedule, 5)
    torch.testing.assert_close(found.sigmas, expected.sigmas, rtol=1e-11, atol=0)
    assert found.sigmas[0] == schedule.sigma_max


def test_a_prior_may_lie_in_a_file_and_must_fit_the_schedule(tmp_path: Path) -> None:
    (tmp_path / "levels.txt").write_text("80, 9.7\n0.8 0.002\n")
    read = sb.make(f"ld3:prior=@{tmp_path}/levels.txt")
    assert "prior=80.0+9.7+0.8+0.002" in read.spec
    assert isinstance(read, LD3)
    with pytest.raises(sb.GridError, match="4 levels make 3 steps; give 6 levels"):
        read.initial(sb.EDM(), 5)
    with pytest.raises(sb.GridError, match=r"goes from 80 to 0\.002, but this schedule goes from 14\.6"):
        read.initial(sb.VPDiscrete.stable_diffusion(), 3)
    with pytest.raises(sb.GridError, match="as Stable Diffusion does"):
        sb.make("ld3:prior=gits_ipndm").initial(sb.EDM(), 5)  # type: ignore[attr-defined]


def test_unlimited_shifts_are_taken_as_they_are() -> None:
    solver = ld3("ld3:limited=false", theta1=[1.0] * 4, theta2=[0.0, 3.0, -5.0, 0.0])
    grid = solver.grid(sb.EDM(), 3)
    assert rounded(-(solver.told(grid) / grid.sigmas[:3]).log()) == [0.0, 3.0, -5.0]
