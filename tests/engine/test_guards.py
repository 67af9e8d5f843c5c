"""What a tableau's own numbers show: no start at infinity that has no limit, no steps that are far too long."""

from __future__ import annotations

import math
from typing import ClassVar

import pytest
import torch
from torch import Tensor

import solverbench as sb
from solverbench.errors import GridError, NotLinearError, SpecError
from solverbench.method import grids, linearity, probe
from solverbench.method.spec import make

FLOW = sb.RectifiedFlow(t_start=1.0)


def zero_snr() -> sb.VPDiscrete:
    """Stable Diffusion's schedule, rescaled to alpha = 0 at its last step. Source: arXiv:2305.08891, algorithm 1."""
    alpha = torch.tensor(sb.VPDiscrete.stable_diffusion().log_alphas, dtype=torch.float64).exp()
    rescaled = (alpha - alpha[-1]) * alpha[0] / (alpha[0] - alpha[-1])
    return sb.VPDiscrete.from_alphas_cumprod(rescaled**2)


class Corrected(sb.Solver):
    """A plugin that averages two slopes, as Heun's method does, and says nothing of it."""

    name = "corrected"

    def integrate(self, denoise: sb.Denoise, x: Tensor, grid: sb.Grid) -> Tensor:
        s = grid.sigmas
        for n in range(grid.steps):
            slope = (x - denoise(x, s[n])) / s[n]
            trial = x + (s[n + 1] - s[n]) * slope
            x = x + (s[n + 1] - s[n]) * (slope + (trial - denoise(trial, s[n + 1])) / s[n + 1]) / 2
        return x

    def steps(self, nfe: int) -> int:
        return nfe // 2


@pytest.mark.parametrize("schedule", [FLOW, zero_snr()], ids=["flow", "zero SNR"])
@pytest.mark.parametrize("spec", ["heun", "heun:end=zero", "dpm2:r=1", "unipc:prediction=noise", Corrected])
def test_weights_that_grow_with_the_stand_in_are_refused(
    spec: str | type[sb.Solver], schedule: sb.NoiseSchedule
) -> None:
    solver = make(f"{spec}:grid=time_uniform") if isinstance(spec, str) else spec(levels="time_uniform")
    with pytest.raises(GridError, match="starts at 1e\\+06, which stands for an infinite level, and its weights grow"):
        sb.tableau(solver, nfe=5 if "end=zero" in str(spec) else 4, schedule=schedule)


@pytest.mark.parametrize("schedule", [FLOW, zero_snr()], ids=["flow", "zero SNR"])
@pytest.mark.parametrize("grid", ["time_uniform", "time_quadratic", "time_poly"])
@pytest.mark.parametrize(
    "spec", ["euler", "dpm", "dpm:prediction=noise", "dpm:singlestep=true", "unipc", "deis", "ipndm", "ipndm_v"]
)
def test_what_starts_there_is_right(spec: str, grid: str, schedule: sb.NoiseSchedule) -> None:
    found = sb.tableau(f"{spec}:grid={grid}", nfe=10, schedule=schedule)
    assert probe.gaussian_error(found, schedule) < 0.12


def test_the_error_on_gaussian_data_falls_as_the_order_says() -> None:
    errors = [probe.gaussian_error(sb.tableau("euler:grid=logsnr", nfe=n), sb.EDM()) for n in (100, 200, 400)]
    assert math.log2(errors[0] / errors[1]) == pytest.approx(1, abs=0.05)
    assert math.log2(errors[1] / errors[2]) == pytest.approx(1, abs=0.05)
    errors = [probe.gaussian_error(sb.tableau("heun:grid=logsnr", nfe=n), sb.EDM()) for n in (200, 400)]
    assert math.log2(errors[0] / errors[1]) == pytest.approx(2, abs=0.2)


@pytest.mark.parametrize(
    ("spec", "nfe", "flagged"),
    [("heun", 2, True), ("heun", 4, True), ("dpm2", 4, True), ("heun", 20, False), ("dpm", 3, False),
     ("euler", 1, False), ("ipndm", 10, False), ("unipc", 4, False), ("deis", 6, False)],
)  # fmt: skip
def test_steps_that_are_too_long_are_said(spec: str, nfe: int, flagged: bool) -> None:
    assert bool(probe.unstable(sb.tableau(spec, nfe=nfe), sb.EDM())) == flagged


def test_eulers_error_is_computed_once_for_a_schedule_and_a_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[int] = []
    compute = probe._euler_errors
    monkeypatch.setattr(probe, "_euler_errors", lambda schedule, steps: made.append(steps) or compute(schedule, steps))
    schedule = sb.EDM(sigma_max=79.0)
    for spec, nfe in (("dpm", 4), ("unipc", 4), ("ipndm", 4), ("dpm", 5)):
        probe.unstable(sb.tableau(spec, nfe=nfe, schedule=schedule), schedule)
    assert made == [4, 5]
    assert probe.euler_error(sb.EDM(sigma_max=79.0), 4) == probe.euler_error(schedule, 4)
    assert made == [4, 5]
    assert probe.euler_error(sb.EDM(sigma_max=20.0), 4) != probe.euler_error(schedule, 4)


@pytest.mark.parametrize(
    ("spec", "nfe"), [("deis:grid=logsnr", 20), ("deis:order=3:grid=polynomial", 10), ("deis:grid=polynomial", 20),
                    ("deis:grid=polynomial", 10)]
)  # fmt: skip
def test_large_weights_that_cancel_are_linear(spec: str, nfe: int) -> None:
    schedule = sb.RectifiedFlow()
    assert probe.gaussian_error(sb.tableau(spec, nfe=nfe, schedule=schedule), schedule) < 0.06


def cosine() -> sb.VPDiscrete:
    """The cosine schedule, whose levels reach from 20000 to 0.006. Source: arXiv:2102.09672, equation 17."""
    squares = ((torch.arange(1001, dtype=torch.float64) / 1000 + 0.008) / 1.008 * math.pi / 2).cos() ** 2
    return sb.VPDiscrete.from_alphas_cumprod((squares[1:] / squares[:-1]).clamp(min=0.001).cumprod(0))


@pytest.mark.parametrize("spec", ["dpm2:grid=time_quadratic", "deis:grid=logsnr", "dpm2:grid=time_poly"])
def test_terms_that_cancel_between_two_steps_are_linear(spec: str) -> None:
    """No weight of the tableau is as large as the terms that it is the sum of."""
    assert sb.tableau(spec, nfe=10, schedule=cosine()).nfe == 10


class Bent(sb.Solver):
    """Euler's method with a small nonlinear term that tracing, on unit vectors, does not see."""

    name = "bent"

    def integrate(self, denoise: sb.Denoise, x: Tensor, grid: sb.Grid) -> Tensor:
        s = grid.sigmas
        for n in range(grid.steps):
            d = denoise(x, s[n])
            d = d * (1 + (1e-8 if d.dim() > 1 else 0))
            x = d + s[n + 1] / s[n] * (x - d)
        return x


@pytest.mark.parametrize("levels", ["polynomial", "time_uniform", "logsnr"])
@pytest.mark.parametrize("schedule", [sb.EDM(), sb.VPLinear(), sb.RectifiedFlow(), FLOW])
def test_a_nonlinearity_of_1e_8_is_found(schedule: sb.NoiseSchedule, levels: str) -> None:
    with pytest.raises(NotLinearError, match="loop and tableau differ"):
        sb.tableau(Bent(levels=levels), nfe=10, schedule=schedule)


class Noisy(sb.Solver):
    """Euler's method with another small factor in each run, which torch does not see."""

    name = "noisy"
    runs: ClassVar[list[None]] = []

    def integrate(self, denoise: sb.Denoise, x: Tensor, grid: sb.Grid) -> Tensor:
        s = grid.sigmas
        self.runs.append(None)
        for n in range(grid.steps):
            d = denoise(x, s[n])
            x = (d + s[n + 1] / s[n] * (x - d)) * (1 + 1e-3 * math.sin(len(self.runs)))
        return x


def test_no_rounding_excuses_a_loop_that_differs_from_run_to_run() -> None:
    with pytest.raises(NotLinearError, match="two runs of the loop from one state differ"):
        sb.tableau(Noisy(), nfe=10)


@pytest.mark.parametrize(
    ("levels", "schedule", "message"),
    [
        ("1000+5+1+0.05+0", sb.VPDiscrete.stable_diffusion(), "its start 1000 is outside the model's 14.6146 to 0.029"),
        ("14.6+5+1+0.002", sb.VPDiscrete.stable_diffusion(), "its end 0.002 is outside the model's"),
        ("100+1+0.002", sb.EDM(), "its start 100 is outside the model's 80 to 0.002"),
        ("1+0.75+0.5+0.25+0.001", FLOW, "look like a flow's times t.*give grid=1e\\+06\\+3\\+1\\+0.333333\\+0.001001"),
    ],
)
def test_levels_outside_the_model_are_refused(levels: str, schedule: sb.NoiseSchedule, message: str) -> None:
    with pytest.raises(GridError, match=message):
        sb.tableau(f"euler:grid={levels}", nfe=levels.count("+"), schedule=schedule)
    with pytest.raises(GridError, match=message):
        sb.tableau("euler", grid=[float(level) for level in levels.split("+")], schedule=schedule)


def test_typed_digits_of_the_ends_are_the_ends() -> None:
    schedule = sb.VPDiscrete.stable_diffusion()
    grid = sb.make("euler:grid=14.6+1+0.0292").grid(schedule, 2)
    assert not grids.inner_ends(grid)
    assert "starts at 10" in grids.inner_ends(sb.make("euler:grid=10+1+0.0292").grid(schedule, 2))
    assert "ends at 0.1" in grids.inner_ends(sb.make("euler:grid=14.6+1+0.1").grid(schedule, 2))
    assert not grids.inner_ends(sb.make("euler:grid=14.6+1+0").grid(schedule, 2))
    for name in ("polynomial", "logsnr", "time_uniform"):
        for each in (schedule, FLOW, zero_snr(), sb.EDM(), sb.VPLinear()):
            assert not grids.inner_ends(grids.named(name, each, 5))


def test_an_option_that_does_not_act_is_an_error() -> None:
    with pytest.raises(SpecError, match=r"these levels end at 0\.002; end them in 0"):
        sb.tableau("euler:end=zero", grid=[80.0, 5.0, 1.0, 0.002])
    with pytest.raises(SpecError, match="it changes the denoiser, which a tableau can't hold"):
        sb.tableau("dpm:threshold=true", nfe=4)


def test_a_grid_that_overflows_is_one_line() -> None:
    with pytest.raises(
        GridError, match=r"grid=polynomial:rho=0\.001: its levels are too large for float64; use a larger"
    ):
        sb.tableau("dpm:grid=polynomial:rho=0.001", nfe=4)


def test_the_start_is_checked_where_there_is_a_stand_in_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(linearity, "GROWTH", 0.0)
    assert sb.tableau("heun", nfe=4).nfe == 4
    with pytest.raises(GridError):
        sb.tableau("euler:grid=time_uniform", nfe=4, schedule=FLOW)
