"""Every published rule for the grid gives its published numbers, on the schedule that it is meant for."""

import math

import pytest
import torch

import solverbench as sb
from solverbench import registries

SD = sb.VPDiscrete.stable_diffusion()
LDM = sb.VPDiscrete.latent_diffusion()
FLOW = sb.RectifiedFlow()

CLASSICAL = [name for name in registries.solvers if not registries.solvers.get(name).learned]

GITS_TIMES = {
    4: [1, 0.6837, 0.3673, 0.1176, 0.001],
    5: [1, 0.7669, 0.4839, 0.2341, 0.0676, 0.001],
    6: [1, 0.7836, 0.5504, 0.3340, 0.1508, 0.0343, 0.001],
    7: [1, 0.8502, 0.6004, 0.4006, 0.2175, 0.0843, 0.0176, 0.001],
    8: [1, 0.8502, 0.6504, 0.4672, 0.3007, 0.1675, 0.0676, 0.0176, 0.001],
}
"""What the GAS paper prints for the GITS levels of Stable Diffusion."""


def levels(grid, schedule, steps):
    return sb.make(f"euler:grid={grid}").grid(schedule, steps).sigmas


def times(grid, schedule, steps):
    return schedule.time(levels(grid, schedule, steps)).tolist()


def between(start, end, steps):
    return [start + (end - start) * i / steps for i in range(steps + 1)]


@pytest.mark.parametrize("rho", [1, 3, 7])
@pytest.mark.parametrize("schedule", [sb.EDM(), SD, FLOW])
def test_polynomial_has_equal_steps_in_a_root_of_sigma(schedule, rho):
    expected = [v**rho for v in between(schedule.sigma_max ** (1 / rho), schedule.sigma_min ** (1 / rho), 6)]
    assert levels(f"polynomial:rho={rho}", schedule, 6).tolist() == pytest.approx(expected, rel=1e-11)


@pytest.mark.parametrize("schedule", [sb.EDM(), sb.VPLinear(), SD, FLOW])
def test_logsnr_has_equal_steps_in_lambda(schedule):
    expected = between(-math.log(schedule.sigma_max), -math.log(schedule.sigma_min), 6)
    assert (-levels("logsnr", schedule, 6).log()).tolist() == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(("schedule", "start"), [(sb.VPLinear(), 1.0), (SD, 1.0), (LDM, 1.0), (FLOW, 0.999)])
class TestModelTime:
    """Grids in the model's own time, from `start` to 1e-3."""

    def test_time_uniform_is_uniform(self, schedule, start):
        assert times("time_uniform", schedule, 5) == pytest.approx(between(start, 1e-3, 5), abs=1e-12)

    def test_time_quadratic_is_uniform_in_the_root(self, schedule, start):
        expected = [v**2 for v in between(math.sqrt(start), math.sqrt(1e-3), 5)]
        assert times("time_quadratic", schedule, 5) == pytest.approx(expected, abs=1e-12)

    @pytest.mark.parametrize("rho", [1, 2, 3])
    def test_time_poly_takes_no_root_of_the_ends(self, schedule, start, rho):
        expected = [1e-3 + (start - 1e-3) * (k / 5) ** rho for k in range(5, -1, -1)]
        assert times(f"time_poly:rho={rho}", schedule, 5) == pytest.approx(expected, abs=1e-12)

    def test_the_edm_rule_on_time_is_time_uniform_with_rho_7(self, schedule, start):
        expected = [v**7 for v in between(start ** (1 / 7), 1e-3 ** (1 / 7), 5)]
        assert times("time_uniform:rho=7", schedule, 5) == pytest.approx(expected, abs=1e-12)


def test_the_two_meanings_of_time_quadratic_differ_as_published():
    assert times("time_quadratic", sb.VPLinear(), 4)[1:-1] == pytest.approx([0.5744, 0.2661, 0.0749], abs=5e-5)
    assert times("time_poly", sb.VPLinear(), 4)[1:-1] == pytest.approx([0.5629, 0.2508, 0.0634], abs=6e-5)


@pytest.mark.parametrize(("grid", "rho"), [("time_uniform", 1), ("time_uniform:rho=2", 2), ("time_quadratic", 2)])
def test_on_an_edm_schedule_time_is_that_of_the_vp_schedule_with_its_ends(grid, rho):
    expected = []
    for tau in [v**rho for v in between(1.0, 1e-3 ** (1 / rho), 6)]:
        expected.append(math.sqrt(math.expm1(17.53796 * tau**2 / 2 - 0.004769 * tau)))
    found = levels(grid, sb.EDM(), 6).tolist()
    assert found[:-1] == pytest.approx(expected[:-1], rel=1e-5)
    assert found[-1] == 0.002


@pytest.mark.parametrize("schedule", [SD, LDM])
@pytest.mark.parametrize("rho", [1, 2])
def test_discrete_has_equal_steps_in_a_root_of_the_models_time(schedule, rho):
    expected = [v**rho for v in between(1.0, 1e-3 ** (1 / rho), 6)]
    assert times(f"discrete:rho={rho}", schedule, 6) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("schedule", [sb.EDM(), sb.VPLinear(), FLOW])
def test_discrete_wants_a_discrete_schedule(schedule):
    with pytest.raises(sb.GridError, match="use time_uniform"):
        levels("discrete", schedule, 4)


@pytest.mark.parametrize("steps", GITS_TIMES)
def test_gits_levels_lie_at_the_published_times(steps):
    assert times("gits_ipndm", SD, steps) == pytest.approx(GITS_TIMES[steps], abs=5e-5)


@pytest.mark.parametrize(("grid", "able"), [("gits_ipndm", range(3, 11)), ("gits_dpm", [3, 5, 6, 7, 8, 10])])
def test_gits_has_the_published_lists_and_names_them(grid, able):
    for steps in able:
        found = levels(grid, SD, steps)
        assert len(found) == steps + 1
        assert (found[0], found[-1]) == (SD.sigma_max, SD.sigma_min)
    with pytest.raises(sb.GridError, match=", ".join(map(str, able))):
        levels(grid, SD, 12)


def test_gits_for_ipndm_and_for_dpm_differ():
    assert levels("gits_ipndm", SD, 6)[2] == 1.9132
    assert levels("gits_dpm", SD, 6)[2] == 1.8073


def test_gits_is_refused_on_a_schedule_with_other_ends():
    with pytest.raises(sb.GridError, match=r"14\.6146 to 0\.0292.*80 to 0\.002"):
        levels("gits_ipndm", sb.EDM(), 5)


def test_published_lists_fall_and_none_is_given_twice():
    for lists in registries.gits().values():
        assert len({len(row) for row in lists}) == len(lists)
        assert all(row == sorted(row, reverse=True) for row in lists)


def test_stable_diffusion_has_the_published_ends():
    assert (SD.sigma_max, SD.sigma_min) == pytest.approx((14.6146, 0.02917), abs=5e-5)
    lam = [-math.log(SD.sigma_max), -math.log(SD.sigma_min)]
    assert lam == pytest.approx([-2.6820, 3.5347], abs=5e-5)
    assert SD.prior_scale == pytest.approx(math.hypot(1, SD.sigma_max))


@pytest.mark.parametrize(("schedule", "start", "end"), [(SD, 0.00085, 0.012), (LDM, 0.0015, 0.0195)])
def test_a_discrete_schedule_goes_through_its_steps(schedule, start, end):
    betas = [v**2 for v in between(math.sqrt(start), math.sqrt(end), 999)]
    product, products = 1.0, []
    for beta in betas:
        product *= 1 - beta
        products.append(product)
    t = torch.arange(1, 1001, dtype=torch.float64) / 1000
    assert (schedule.alpha(t) ** 2).tolist() == pytest.approx(products, rel=1e-10)
    again = sb.VPDiscrete.from_alphas_cumprod(products)
    assert again.log_alpha(t).tolist() == pytest.approx(schedule.log_alpha(t).tolist(), rel=1e-9)


def test_between_and_beyond_its_steps_a_discrete_schedule_is_linear_in_log_alpha():
    schedule = sb.VPDiscrete((-0.1, -0.4, -1.0), t_eps=0.25)
    t = torch.tensor([0.25, 0.5, 5 / 6, 1.2], dtype=torch.float64)
    assert schedule.log_alpha(t).tolist() == pytest.approx([-0.025, -0.25, -0.7, -1.36], abs=1e-12)
    assert schedule.time(schedule.sigma(t)).tolist() == pytest.approx(t.tolist(), abs=1e-12)


@pytest.mark.parametrize("schedule", [SD, FLOW])
def test_time_inverts_sigma_beyond_both_ends(schedule):
    sigmas = torch.logspace(math.log10(schedule.sigma_min / 1.2), math.log10(schedule.sigma_max * 1.2), 101).double()
    assert ((schedule.sigma(schedule.time(sigmas)) - sigmas).abs() / sigmas).max() < 1e-11


@pytest.mark.parametrize("schedule", [SD, FLOW, sb.VPLinear()])
def test_sigma_has_the_gradient_of_its_formula(schedule):
    t = torch.tensor([0.0034567, 0.12345, 0.6789], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(schedule.sigma, t)
    assert torch.autograd.gradcheck(schedule.time, schedule.sigma(t.detach()).requires_grad_())


@pytest.mark.parametrize("alphas", [(0.9,), (0.9, 0.95), (0.9, 0.9), (1.0, 0.9), (0.9, 0.0), (0.9, float("nan"))])
def test_alphas_that_do_not_fall_are_refused(alphas):
    with pytest.raises(sb.GridError, match="strictly decrease"):
        sb.VPDiscrete.from_alphas_cumprod(alphas)


def test_a_discrete_schedule_ends_at_its_first_step():
    """Whatever their number: log alpha extended below the first of them would soon be above 0."""
    few = sb.VPDiscrete.from_alphas_cumprod((0.99, 0.8, 0.4, 0.1))
    assert few.t_eps == 0.25
    assert few.sigma_min == pytest.approx(math.sqrt(1 / 0.99 - 1))
    with pytest.raises(sb.GridError, match=r"no noise is left there, before the first of 4 steps; use t_eps=0\.25"):
        sb.VPDiscrete.from_alphas_cumprod((0.99, 0.8, 0.4, 0.1), t_eps=1e-3)


@pytest.mark.parametrize("make", [lambda: sb.VPDiscrete((-0.1, -0.2), t_eps=1.0), lambda: sb.RectifiedFlow(1.1)])
def test_ends_that_no_grid_can_have_are_refused(make):
    with pytest.raises(sb.GridError, match="use 0 <"):
        make()


def test_euler_on_a_rectified_flow_is_a_straight_step_of_its_velocity():
    """In the model's frame, x' = x + (t' - t)(x - D)/t."""
    t = torch.tensor([0.9, 0.5, 0.1], dtype=torch.float64)
    x, d = 2.0, [0.3, -0.4]
    for n in range(2):
        x = x + (t[n + 1] - t[n]) * (x - d[n]) / t[n]
    row = sb.tableau("euler", grid=FLOW.sigma(t).tolist()).weights[-1]
    known = torch.tensor([2.0 / float(FLOW.alpha(t[0])), *d], dtype=torch.float64)
    assert float(FLOW.alpha(t[-1]) * (row @ known)) == pytest.approx(float(x), rel=1e-12)


def test_a_rectified_flow_starts_from_its_noise():
    assert FLOW.prior_scale * float(FLOW.alpha(torch.tensor(0.999, dtype=torch.float64))) == pytest.approx(0.999)


@pytest.mark.parametrize("name", CLASSICAL)
def test_every_recommendation_is_a_spec_with_a_source(name):
    found = registries.recommended(name)
    assert "pixel" in found
    for family, entry in found.items():
        assert family in ("pixel", "latent", "stable_diffusion")
        assert "arXiv:" in entry["source"]
        assert sb.make(f"{name}:{entry['options']}").name == name


@pytest.mark.parametrize("name", CLASSICAL)
def test_by_default_a_solver_is_what_is_recommended_for_pixels(name):
    recommended, default = sb.make(f"{name}:{registries.recommended(name)['pixel']['options']}"), sb.make(name)
    calls = 5 if name == "heunpp2" else 6
    found = sb.trace(default, default.grid(sb.EDM(), default.steps(calls)))
    assert found.equals(sb.trace(recommended, recommended.grid(sb.EDM(), recommended.steps(calls))))
