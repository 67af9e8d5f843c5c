"""Schedules and grids: published constants, inverses, exact ends, and grids that are refused."""

import pytest
import torch

import solverbench as sb
from solverbench.errors import GridError
from solverbench.method.grids import explicit


def test_standard_vp_has_the_published_ends():
    assert (sb.VPLinear().sigma_max, sb.VPLinear().sigma_min) == pytest.approx((152.167, 0.010486), rel=1e-4)
    assert sb.VPLinear(t_eps=1e-4).sigma_min == pytest.approx(0.0031780, rel=1e-4)


def test_refit_has_the_published_constants():
    vp = sb.VPLinear.refit(0.002, 80.0)
    assert (vp.beta_d, vp.beta_min) == pytest.approx((17.53796, -0.004769), abs=5e-6)
    vp = sb.VPLinear.refit(0.002, 80.0, t_eps=1e-4)
    assert (vp.beta_d, vp.beta_min) == pytest.approx((17.45016, 0.039127), abs=5e-6)


def test_clamping_an_unbounded_network_changes_nothing():
    vp = sb.VPLinear.clamped(0.0, float("inf"), 1e-3)
    assert (vp.beta_d, vp.beta_min) == pytest.approx((19.9, 0.1), abs=1e-10)


@pytest.mark.parametrize("schedule", [sb.EDM(), sb.VPLinear(), sb.VPLinear.refit(0.002, 80.0)])
def test_time_inverts_sigma(schedule):
    sigmas = torch.logspace(-2.6, 1.9, 50, dtype=torch.float64)
    again = schedule.sigma(schedule.time(sigmas))
    assert ((again - sigmas).abs() / sigmas).max() < 1e-9


@pytest.mark.parametrize("schedule", [sb.EDM(0.01, 40.0), sb.VPLinear()])
@pytest.mark.parametrize("grid", ["polynomial", "logsnr", "time_uniform", "time_uniform:rho=2", "karras:rho=5"])
@pytest.mark.parametrize("steps", [1, 2, 5, 100])
def test_grids_fall_between_exact_ends(schedule, grid, steps):
    sigmas = sb.make(f"euler:grid={grid}").grid(schedule, steps).sigmas
    assert len(sigmas) == steps + 1
    assert (sigmas[0], sigmas[-1]) == (schedule.sigma_max, schedule.sigma_min)
    assert (sigmas.diff() < 0).all()


@pytest.mark.parametrize(
    ("levels", "what"),
    [
        ([1.0], "at least two"),
        ([1.0, 1.0, 0.1], "strictly decrease"),
        ([0.1, 1.0], "strictly decrease"),
        ([1.0, float("nan")], "finite"),
        ([1.0, 0.5, -0.1], "only the last may be 0"),
    ],
)
def test_levels_that_are_no_grid_are_refused(levels, what):
    with pytest.raises(GridError, match=what):
        explicit(levels, sb.EDM())


def test_the_last_step_to_zero_is_one_first_order_call():
    dpm, euler = (sb.tableau(name, grid=[1.0, 0.5, 0.0]) for name in ("dpm", "euler"))
    assert dpm.equals(euler)
    assert dpm.weights[-1].tolist() == [0, 0, 1]
    assert sb.tableau("heun", grid=[1.0, 0.5, 0.0]).nfe == 3


def test_a_learned_solver_does_not_step_to_zero():
    gs = sb.make("gs")
    with pytest.raises(GridError, match="level 0"):
        sb.trace(gs.with_parameters(gs.initial(sb.EDM(), 2)), explicit([1.0, 0.5, 0.0], sb.EDM()))
