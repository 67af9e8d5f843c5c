"""A solver is N noise levels and one triangular matrix: identities, invariants, and what is refused."""

import math

import pytest
import torch
from golden import golden, relative
from hypothesis import given, settings
from hypothesis import strategies as st

import solverbench as sb
from solverbench.errors import NotLinearError
from solverbench.method.execution import unrounded
from solverbench.method.grids import explicit

LEVELS = [80.0, 9.7, 2.4, 0.8, 0.1, 0.002]
CLASSICAL = ["euler", "heun", "dpm:order=1", "dpm:order=2", "dpm:order=3", "dpm:lower_order_final=false"]


def test_ddim_is_first_order_dpm():
    assert sb.tableau("ddim", grid=LEVELS).equals(sb.tableau("dpm:order=1", grid=LEVELS))


def test_equality_notices_one_changed_weight():
    tableau = sb.tableau("euler", grid=LEVELS)
    weights = tableau.weights.clone()
    weights[2, 1] += 1e-9
    assert not tableau.equals(sb.Tableau(tableau.sigmas, weights, tableau.levels, tableau.start))


@pytest.mark.parametrize("nfe", [1, 2, 3, 4, 7])
def test_gs_without_corrections_is_third_order_dpm(nfe):
    gs = sb.make("gs")
    gs = gs.with_parameters(gs.initial(sb.EDM(), nfe))
    grid = gs.grid(sb.EDM(), nfe)
    ours = sb.trace(gs, grid)
    assert ours.equals(sb.trace(sb.make("dpm:lower_order_final=false"), grid))
    assert ours.inconsistency() < 1e-12


def test_gs_starts_and_ends_at_the_teachers_own_levels():
    gs = sb.make("gs")
    grid = gs.with_parameters(gs.initial(sb.EDM(0.01, 50), 5)).grid(sb.EDM(0.01, 50), 5)
    assert grid.sigmas[[0, -1]].tolist() == pytest.approx([50, 0.01], rel=1e-12)


def test_published_clamp_ends_at_the_standard_schedule():
    gs = sb.make("gas:t_eps=0.001")
    grid = gs.with_parameters(gs.initial(sb.EDM(), 4)).grid(sb.EDM(), 4)
    assert grid.sigmas[[0, -1]].tolist() == pytest.approx([80, 0.010486], rel=1e-4)
    assert (grid.schedule.beta_d, grid.schedule.beta_min) == pytest.approx((17.32584, 0.101287), rel=1e-5)


def test_every_gs_parameter_of_a_used_step_gets_gradient():
    gs = sb.make("gs")
    parameters = {k: v.requires_grad_() for k, v in gs.initial(sb.EDM(), 4).items()}
    gs = gs.with_parameters(parameters)
    tableau = sb.trace(gs, gs.grid(sb.EDM(), 4), check=False)
    x = torch.randn(2, 3, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1)) * 80
    sb.execute(tableau, golden("solvers_edm_frame").denoise, x).square().mean().backward()
    used = sum(int((p.grad != 0).sum()) for p in parameters.values())
    assert used == 4 * 5 + 2 * 4 - 1  # N(N+1) + 2N - 1


@pytest.mark.parametrize("spec", CLASSICAL)
@given(
    logs=st.lists(st.floats(-5, 4), min_size=2, max_size=9, unique_by=lambda v: round(v, 1)),
    scale=st.floats(0.5, 100),
)
@settings(max_examples=20, deadline=None)
def test_classical_rows_keep_a_constant_image(spec, logs, scale):
    levels = sorted((scale * math.exp(v) for v in logs), reverse=True)
    tableau = sb.tableau(spec, grid=levels)
    assert tableau.inconsistency() < 1e-9 * float(tableau.weights.abs().max().clamp(min=1))


@pytest.mark.parametrize("spec", CLASSICAL)
def test_running_the_tableau_is_running_the_loop(spec):
    denoise = golden("solvers_edm_frame").denoise
    x = golden("solvers_edm_frame").arrays["latents"] * LEVELS[0]
    solver, grid = sb.make(spec), explicit(LEVELS, sb.EDM())
    by_loop = solver.integrate(lambda x, sigma, *, level=None: denoise(x, sigma), x, grid)
    tableau = sb.trace(solver, grid)
    assert relative(unrounded(tableau, denoise, x), by_loop) < 1e-12
    assert relative(sb.execute(tableau, denoise, x), by_loop) < 1e-9
    single = sb.execute(tableau, lambda x, s: denoise(x.double(), s).float(), x.float())
    assert single.dtype == torch.float32
    assert relative(single, by_loop) < 1e-5


def test_a_plan_starts_from_unit_noise():
    tableau = sb.tableau("dpm", grid=LEVELS)
    denoise = golden("solvers_edm_frame").denoise
    noise = golden("solvers_edm_frame").arrays["latents"]
    from_noise = sb.execute(tableau.plan(scale=80.0), denoise, noise)
    assert relative(from_noise, sb.execute(tableau, denoise, 80 * noise)) < 1e-9


def test_a_plans_numbers_have_twelve_digits_and_name_it():
    plan = sb.tableau("dpm", grid=LEVELS).plan()
    assert all(float(f"{w:.11e}") == w for row in plan.rows for w in row)
    assert plan.key == sb.tableau("dpm:order=3", grid=LEVELS).plan().key != sb.tableau("euler", grid=LEVELS).plan().key


class Clipping(sb.Solver):
    """Euler that clips the data prediction."""

    name = "clipping"

    def integrate(self, denoise, x, grid):
        for n in range(grid.steps):
            d = denoise(x, grid.sigmas[n]).clamp(-1, 1)
            x = d + grid.sigmas[n + 1] / grid.sigmas[n] * (x - d)
        return x


class Impatient(sb.Solver):
    """Euler that leaves out a call where the state is small."""

    name = "impatient"

    def integrate(self, denoise, x, grid):
        for n in range(grid.steps):
            d = denoise(x, grid.sigmas[n]) if n == 0 or x.abs().max() < 5 else d  # noqa: F821
            x = d + grid.sigmas[n + 1] / grid.sigmas[n] * (x - d)
        return x


class Shaped(sb.Solver):
    """Reads the channel axis."""

    name = "shaped"

    def integrate(self, denoise, x, grid):
        return denoise(x, grid.sigmas[0]) * x.shape[1]


@pytest.mark.parametrize("cls", [Clipping, Impatient, Shaped])
def test_a_loop_that_is_not_linear_is_refused_by_name(cls):
    with pytest.raises(NotLinearError, match=cls.name):
        sb.trace(cls(), explicit(LEVELS, sb.EDM()))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s, w, e: (s[:-1], w, e), "shapes"),
        (lambda s, w, e: (s, w + torch.full_like(w, 1e-3).triu(1), e), "above the diagonal"),
        (lambda s, w, e: (s, w * math.nan, e), "finite"),
        (lambda s, w, e: (-s, w, e), "positive"),
    ],
)
def test_a_malformed_tableau_is_refused(change, message):
    tableau = sb.tableau("euler", grid=LEVELS)
    with pytest.raises(ValueError, match=message):
        sb.Tableau(*change(tableau.sigmas, tableau.weights, tableau.levels), tableau.start)


def test_a_denoiser_of_another_shape_is_refused():
    with pytest.raises(ValueError, match="returned"):
        sb.execute(sb.tableau("euler", grid=LEVELS), lambda x, s: x[:, :1], torch.zeros(2, 3, 4, 4))


@pytest.mark.parametrize("schedule", [sb.VPDiscrete.stable_diffusion(), sb.RectifiedFlow(), sb.VPLinear()])
def test_gs_steps_in_the_models_own_time(schedule):
    gs = sb.make("gs")
    grid = gs.with_parameters(gs.initial(schedule, 5)).grid(schedule, 5)
    times = schedule.time(grid.sigmas)
    assert grid.schedule is schedule
    assert times.diff().tolist() == pytest.approx([(schedule.t_end - schedule.t_start) / 5] * 5, rel=1e-6)


@pytest.mark.parametrize("spec", ["euler", "heun", "dpm", "dpm:singlestep=true", "unipc", "deis", "ipndm_v", "gas"])
def test_every_call_of_a_usual_solver_waits_for_the_one_before(spec):
    found = sb.tableau(spec, nfe=6, teacher="digits")
    assert found.serial_calls == found.plan().serial_calls == 6


@pytest.mark.parametrize(
    ("used", "serial"),
    [
        ({}, 1),  # all calls at once
        ({3: [0], 2: [0], 1: [0]}, 2),
        ({1: [0], 2: [0], 3: [1, 2]}, 3),
        ({2: [0], 3: [1]}, 2),  # two chains side by side
        ({1: [0], 2: [1], 3: [2]}, 4),
    ],
)
def test_serial_calls_are_the_longest_chain_of_weights_that_are_not_zero(used, serial):
    weights = torch.zeros(5, 5, dtype=torch.float64)
    weights[:, 0] = 1
    weights[4, 1:] = 0.25  # the sample is no call
    for call, before in used.items():
        weights[call, [1 + each for each in before]] = -1e-30
    levels = torch.ones(5, dtype=torch.float64)
    found = sb.Tableau(levels[1:], weights, levels, levels[0])
    assert found.serial_calls == found.plan().serial_calls == serial
