"""The grids of ComfyUI and of Align Your Steps; tests/docs/test_names.py compares them on Stable Diffusion's levels."""

import itertools
import math
from typing import ClassVar

import numpy as np
import pytest
import torch
from scipy import stats

import solverbench as sb
from solverbench import registries
from solverbench.errors import GridError
from solverbench.method.execution import unrounded
from solverbench.method.grids import explicit

SD = sb.VPDiscrete.stable_diffusion()
FLOW = sb.RectifiedFlow(t_start=1.0)
SVD = sb.EDM(sigma_min=0.002, sigma_max=700.0)


def levels(grid, schedule, calls, end="zero"):
    """The levels of the calls."""
    solver = sb.make(f"euler:grid={grid}:end={end}")
    found = solver.grid(schedule, solver.steps(calls)).sigmas
    assert float(found[-1]) == (0 if end == "zero" else schedule.sigma_min)
    return found[:-1].tolist()


def divergence(width, sigmas):
    """KL(Euler's samples || exact end) on Gaussian data of that width, from an exact start."""
    tableau = sb.trace(sb.make("euler"), explicit(sigmas, sb.EDM()), check=False)
    one = unrounded(tableau, lambda x, s: x * width**2 / (width**2 + s**2), torch.ones(1, dtype=torch.float64))
    ratio = float(one) ** 2 * (width**2 + float(sigmas[0]) ** 2) / (width**2 + float(sigmas[-1]) ** 2)
    return (ratio - 1 - math.log(ratio)) / 2


@pytest.mark.parametrize("width", [0.25, 1.0, 3.0])
@pytest.mark.parametrize("steps", [2, 4, 7])
def test_arctan_is_the_best_grid_of_euler_on_gaussian_data(width, steps):
    grid = sb.make(f"euler:grid=arctan:c={width}").grid(sb.EDM(), steps).sigmas
    best = divergence(width, grid)
    for n in range(1, steps):
        for factor in (0.98, 1.02):
            moved = grid.clone()
            moved[n] *= factor
            assert divergence(width, moved) > best
    assert all(divergence(width, sb.make(f"euler:grid={g}").grid(sb.EDM(), steps).sigmas) > best
               for g in ("polynomial", "logsnr", "time_quadratic", f"arctan:c={2 * width}"))  # fmt: skip


@pytest.mark.parametrize("schedule", [sb.EDM(), sb.VPLinear(), SD, FLOW])
def test_arctan_has_equal_angles_between_the_ends(schedule):
    sigmas = sb.make("euler:grid=arctan:c=0.5").grid(schedule, 6).sigmas
    steps = (sigmas / 0.5).atan().diff()
    assert sigmas[[0, -1]].tolist() == [schedule.sigma_first, schedule.sigma_min]
    torch.testing.assert_close(steps, steps.mean().expand(6), rtol=1e-9, atol=0)
    assert sb.make("euler:grid=kl_optimal").spec == sb.make("euler:grid=arctan:c=1").spec


@pytest.mark.parametrize(
    ("name", "table", "schedule"), [("ays", "sd15", SD), ("ays_sdxl", "sdxl", SD), ("ays", "svd", SVD)]
)
def test_align_your_steps_is_its_table_at_ten_calls(name, table, schedule):
    published = registries.ays(table).levels
    for end in ("zero", "sigma_min"):
        found = levels(name, schedule, 10, end)
        assert found == pytest.approx(published, rel=1e-3)
        assert found[0] == schedule.sigma_max
        assert found[1:] == pytest.approx(published[1:], rel=1e-12)
    assert levels(name, schedule, 5) == pytest.approx(found[::2], rel=1e-12)
    doubled = levels(name, schedule, 20)
    assert doubled[::2] == pytest.approx(found, rel=1e-12)
    whole = [*found, schedule.sigma_min]
    assert doubled[1::2] == pytest.approx([math.sqrt(a * b) for a, b in itertools.pairwise(whole)], rel=1e-9)


@pytest.mark.parametrize("name", ["ays", "ays_sdxl"])
@pytest.mark.parametrize("schedule", [sb.EDM(), sb.VPLinear(), FLOW, sb.VPDiscrete.latent_diffusion()])
def test_align_your_steps_is_refused_on_other_ends(name, schedule):
    with pytest.raises(GridError, match=r"goes from 14.615 to 0.0292, as Stable Diffusion (1.5|XL) does, but this"):
        levels(name, schedule, 10)


def test_beta_of_one_and_one_is_uniform():
    """Quantiles of Beta(1, 1) are the shares themselves; the last call is a step before the end."""
    for schedule in (sb.EDM(), sb.VPLinear()):
        uniform = sb.make("euler:grid=time_uniform").grid(schedule, 8).sigmas
        found = levels("beta:a=1:b=1", schedule, 8, "sigma_min")
        assert found == pytest.approx(uniform[:-1].tolist(), rel=1e-9)
    shares = [(round(share * 999) + 1) / 1000 for share in (0.75, 0.5, 0.25)]
    assert levels("beta:a=1:b=1", FLOW, 4)[1:] == pytest.approx([t / (1 - t) for t in shares], rel=1e-9)


@pytest.mark.parametrize(("a", "b"), [(0.6, 0.6), (0.5, 0.7)])
def test_beta_is_the_quantile_of_the_models_time(a, b):
    shares = stats.beta.ppf(1 - np.arange(6) / 6, a, b)
    for schedule in (sb.EDM(), sb.VPLinear()):
        clock = schedule.clock
        found = clock.time(torch.tensor(levels(f"beta:a={a}:b={b}", schedule, 6), dtype=torch.float64))
        expected = clock.t_end + (clock.t_start - clock.t_end) * shares
        assert found.tolist() == pytest.approx(expected.tolist(), rel=1e-9)
    steps = np.rint(shares * 999)
    assert (
        SD.time(torch.tensor(levels(f"beta:a={a}:b={b}", SD, 6), dtype=torch.float64)) * 1000 - 1
    ).tolist() == pytest.approx(steps.tolist(), abs=1e-6)


def test_two_calls_at_one_training_step_are_refused():
    with pytest.raises(GridError, match="two calls are at one training step; use fewer calls"):
        levels("beta", SD, 400)
    with pytest.raises(GridError, match="two calls are at one training step; use fewer calls"):
        levels("simple", FLOW, 1001)


@pytest.mark.parametrize("calls", [1, 2, 3, 4, 10, 11])
def test_linear_quadratic_joins_a_line_and_a_parabola_smoothly(calls):
    found = torch.tensor(levels("linear_quadratic", FLOW, calls), dtype=torch.float64)
    fallen = 1 - found / (1 + found)
    assert float(found[0]) == FLOW.sigma_max
    half, rest = max(calls // 2, 1), calls - max(calls // 2, 1)
    fallen = [*fallen.tolist(), 1.0]
    fallen[0] = 0.0
    assert fallen[: half + 1] == pytest.approx(
        [0.025 * k / half for k in range(half + 1)] if calls > 1 else [0, 1], abs=1e-6
    )
    if rest > 1:  # equal second differences from the join on, and the slope of the line at it
        second = np.diff(fallen[half:], n=2)
        assert second == pytest.approx([second[0]] * len(second), abs=1e-9)
        assert fallen[half + 1] - fallen[half] - second[0] / 2 == pytest.approx(0.025 / half, abs=1e-9)
    assert levels("linear_quadratic", sb.EDM(), calls) == pytest.approx([80 * (1 - f) for f in fallen[:-1]], rel=1e-5)


@pytest.mark.parametrize("shift", [1.0, 3.0])
@pytest.mark.parametrize("calls", [1, 4, 5, 8])
def test_on_a_flow_they_are_the_spacings_of_its_pipelines(shift, calls):
    last = shift * 0.001 / (1 + (shift - 1) * 0.001)
    schedule = sb.RectifiedFlow(t_start=1.0, t_end=last, shift=shift)
    assert levels("simple", schedule, calls) == pytest.approx(levels("trailing", schedule, calls), rel=1e-9)
    assert levels(f"simple:shift={shift}", FLOW, calls) == pytest.approx(levels("simple", schedule, calls), rel=1e-9)
    assert levels("normal", schedule, calls) == pytest.approx(levels("linspace", schedule, calls), rel=1e-9)
    whole = levels("linspace", schedule, calls + 1)
    assert levels("sgm_uniform", schedule, calls) == pytest.approx(whole[:-1], rel=1e-9)


@pytest.mark.parametrize("grid", ["simple", "normal", "sgm_uniform", "ddim_uniform"])
def test_a_schedule_without_training_steps_is_refused_in_one_line(grid):
    with pytest.raises(
        GridError, match=f"grid={grid} on EDM: it needs a discrete schedule or a flow; use time_uniform"
    ):
        levels(grid, sb.EDM(), 4)


@pytest.mark.parametrize("grid", ["simple:shift=3", "beta:shift=3"])
def test_a_shift_is_a_flows_alone(grid):
    for schedule in (SD, sb.VPLinear()):
        with pytest.raises(GridError, match="only a flow has a shift; leave shift out"):
            levels(grid, schedule, 4)


def test_the_last_call_of_normal_is_at_the_end():
    with pytest.raises(
        GridError, match=r"its last call is at 0.0291672, and the model's levels end at 0.0291672; give"
    ):
        levels("normal", SD, 4, "sigma_min")


@pytest.mark.parametrize(
    ("spec", "told"), [("euler:c=2", "no c"), ("euler:grid=arctan:a=2", "no a"), ("dpm:b=1", "no b")]
)
def test_a_parameter_of_another_grid_is_refused(spec, told):
    with pytest.raises(sb.SpecError, match=f"this grid has {told}; leave it out"):
        sb.make(spec)


def test_parameters_are_in_the_key_and_the_spec():
    made = sb.make("dpm:grid=beta:b=0.7")
    assert made.key["grid"] == {"name": "beta", "version": 1, "a": 0.6, "b": 0.7}
    assert ":a=0.6:" in made.spec
    assert sb.make(made.spec) == made
    assert sb.make("euler:grid=arctan").key["grid"] == {"name": "arctan", "version": 1, "c": 1.0}


class Own(sb.Classical):
    """A solver with attributes and an option that have names of grid parameters."""

    name = "own"
    paper = "none"
    a = -1.5
    warmup = "none"
    b: ClassVar[list[float]] = [1.0, 2.0]
    c: float = sb.option(0.25, help="a weight")

    def integrate(self, denoise, x, grid):
        for n in range(grid.steps):
            d = denoise(x, grid.sigmas[n])
            x = d + grid.sigmas[n + 1] / grid.sigmas[n] * (x - d) * (self.c - self.a - self.b[0]) / 0.75
        return x


class Method(Own):
    """One whose methods have them."""

    name = "method"

    def a(self):
        return -1.5

    @property
    def b(self):
        return [1.0]

    def integrate(self, denoise, x, grid):
        return x * self.a() * self.b[0]


def test_a_class_keeps_its_own_attributes_of_those_names():
    assert Own().spec == "own:afs=false:c=0.25:end=sigma_min:grid=polynomial:rho=7:threshold=false"
    assert Own(c=0.5, levels="arctan").key["options"] == {"c": 0.5}
    assert Own(levels="arctan").key["grid"] == {"name": "arctan", "version": 1}  # which can't be given another c
    assert (
        Own(levels="arctan").grid(sb.EDM(), 3).sigmas.tolist()
        == sb.make("euler:grid=arctan").grid(sb.EDM(), 3).sigmas.tolist()
    )
    assert Own().on(FLOW).levels == "time_uniform"
    assert (Own.a, Own().b, Own().c, Own().warmup) == (-1.5, [1.0, 2.0], 0.25, "none")
    assert Method().a() * Method().b[0] == -1.5
    assert sb.trace(Own(), Own().grid(sb.EDM(), 3)).equals(sb.tableau("euler", nfe=3))
