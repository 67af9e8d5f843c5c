"""The Adams family: what its members share with each other, with Euler and Heun, and with the textbook."""

import math

import numpy as np
import pytest
import torch
from golden import golden, relative

import solverbench as sb
from solverbench.baselines import deis, ipndm_v
from solverbench.method.execution import Counter, unrounded
from solverbench.method.grids import explicit

LEVELS = [80.0, 31.0, 9.7, 2.4, 0.8, 0.1, 0.002]
UNIFORM = [8.0, 7.0, 6.0, 5.0, 4.0, 3.0, 2.0]
TENTHS = [0.9, 0.8, 0.7, 0.6, 0.5, 0.4]
ADAMS = [
    "ge",
    "cab",
    "cab:order=3",
    "pfdiff",
    "ipndm",
    "ipndm_v",
    "ipndm_v:compat=true",
    "deis",
    "deis:form=rho",
    "deis:quadrature=compat",
]
EXACT = ["dpm2", "dpm2:r=0.3", "ipndm", "ipndm_v", "deis", "deis:form=rho"]


def carry(spec, levels, slope):
    """The sample from 0 where the slope is `slope(sigma)`, whatever the state."""
    tableau = sb.trace(sb.make(spec), explicit(levels, sb.EDM()))
    return float(unrounded(tableau, lambda x, s: x - s * slope(float(s)), torch.zeros(1, dtype=torch.float64)))


@pytest.mark.parametrize("levels", [LEVELS, UNIFORM, TENTHS, [1e6, 7.0, 1.0, 0.9, 0.001]])
@pytest.mark.parametrize(
    ("spec", "same"),
    [
        ("ge:gamma=1", "euler"),
        ("ge:gamma=1.5", "ipndm:order=2"),
        ("cab:order=2:theta=0", "ipndm_v:order=2"),
        ("cab:order=3:theta=0", "ipndm_v:order=3"),
        ("pfdiff:k=0:h=0", "euler"),
    ],
)
def test_the_one_loop_solvers_are_others_at_their_neutral_options(spec, same, levels):
    found, known = sb.tableau(spec, grid=levels), sb.tableau(same, grid=levels)
    torch.testing.assert_close(found.weights, known.weights, rtol=1e-9, atol=1e-9)
    assert torch.equal(found.levels, known.levels)


@pytest.mark.parametrize(("spec", "order"), [("cab", 2), ("cab:order=3", 3), ("cab:theta=0.5", 2)])
def test_cab_adds_a_multiple_of_the_second_difference_of_equal_steps(spec, order):
    theta = sb.make(spec).theta
    plain = ([3 / 2, -1 / 2, 0] if order == 2 else [23 / 12, -16 / 12, 5 / 12]) + [0, 0, 0]
    added = [theta, -2 * theta, theta, 0, 0, 0]
    expected = [a + b for a, b in zip(plain, added, strict=True)]
    assert slope_weights(spec, UNIFORM) == pytest.approx(expected, abs=1e-9)
    assert slope_weights(spec, UNIFORM[:3]) == pytest.approx([3 / 2, -1 / 2], abs=1e-9)  # of two slopes there is none


def test_cab_leaves_slopes_linear_in_sigma_alone():
    for spec in ("cab", "cab:order=3", "cab:theta=-1"):
        exact = (LEVELS[-1] ** 2 - LEVELS[-2] ** 2) / 2
        assert last_step(spec, LEVELS, lambda s: s) == pytest.approx(exact, rel=1e-7)  # left of terms up to 6400


def test_ge_weighs_the_last_two_slopes_alone():
    assert slope_weights("ge", LEVELS) == pytest.approx([2, -1, 0, 0, 0, 0], abs=1e-9)


@pytest.mark.parametrize(("k", "h"), [(1, 1), (2, 1), (2, 2), (3, 1), (3, 2), (3, 3)])
def test_pfdiff_jumps_along_the_slope_ahead(k, h):
    """Its calls are at the first level and h levels after the start of each round; its rounds end k + 1 levels on."""
    calls, solver = 4, sb.make(f"pfdiff:k={k}:h={h}")
    assert solver.steps(calls) == calls * (k + 1) - k
    grid = solver.grid(sb.EDM(), solver.steps(calls)).sigmas
    tableau = sb.trace(solver, sb.Grid(grid, sb.EDM()))
    starts = [1 + n * (k + 1) for n in range(calls - 1)]
    assert tableau.sigmas.tolist() == [float(grid[i]) for i in (0, *(i + h for i in starts))]
    assert tableau.nfe == calls

    def slope(level):
        return math.sin(float(level))

    expected = float(grid[1] - grid[0]) * slope(grid[0])
    expected += sum(float(grid[i + k + 1] - grid[i]) * slope(grid[i + h]) for i in starts)
    found = unrounded(tableau, lambda x, s: x - s * slope(s), torch.zeros(1, dtype=torch.float64))
    assert float(found) == pytest.approx(expected, rel=1e-12)


def test_heunpp2_weighs_its_slopes_by_their_level_in_the_first():
    """Slopes 1, 2, 3, ... in the order of the calls: a step adds its length times their weighted mean."""
    levels = [10.0, 6.0, 3.0, 1.0]
    solver = sb.make("heunpp2")
    tableau = sb.trace(solver, explicit(levels, sb.EDM()))
    assert tableau.sigmas.tolist() == [10, 6, 3, 6, 3, 1, 3, 1]
    assert [n for n in range(1, 12) if solver._steps(n)] == [2, 5, 8, 11]
    assert [n for n in range(1, 13) if sb.make("heunpp2:end=zero")._steps(n)] == [1, 3, 6, 9, 12]
    numbers = iter(range(1, 9))
    found = unrounded(tableau, lambda x, s: x - s * next(numbers), torch.zeros(1, dtype=torch.float64))
    steps = [-4 * (0.7 * 1 + 0.2 * 2 + 0.1 * 3), -3 * ((1 - 4 / 30) * 4 + 0.1 * 5 + 6 / 30 / 6 * 6),
             -2 * (0.95 * 7 + 0.05 * 8)]  # fmt: skip
    assert float(found) == pytest.approx(sum(steps), rel=1e-9)


def test_the_last_round_of_pfdiff_ends_where_the_grid_does():
    assert [sb.tableau("pfdiff", grid=LEVELS[:n]).nfe for n in (2, 3, 4, 5, 6, 7)] == [1, 2, 2, 2, 3, 3]
    assert sb.tableau("pfdiff", grid=LEVELS).sigmas.tolist() == [80.0, 9.7, 0.1]


@pytest.mark.parametrize(
    ("spec", "told"),
    [
        ("pfdiff:k=1:h=2", "use h from 1 to 1"),
        ("pfdiff:k=0", "use h=0, or a larger k"),
        ("pfdiff:h=0", "h from 1 to 2"),
    ],
)
def test_a_slope_beyond_the_round_or_at_its_start_is_refused(spec, told):
    with pytest.raises(sb.SpecError, match=told):
        sb.make(spec)


def last_step(spec, levels, slope):
    return carry(spec, levels, slope) - carry(spec, levels[:-1], slope)


def slope_weights(spec, levels):
    """The weights of the slopes in the last step, newest first, in units of that step."""
    step = levels[-1] - levels[-2]
    return [last_step(spec, levels, lambda s, at=at: float(s == at)) / step for at in reversed(levels[:-1])]


@pytest.mark.parametrize("spec", ["ipndm", "ipndm_v", "deis"])
def test_order_one_is_euler(spec):
    assert sb.tableau(f"{spec}:order=1", grid=LEVELS).equals(sb.tableau("euler", grid=LEVELS))


@pytest.mark.parametrize("spec", ADAMS)
def test_one_step_is_euler(spec):
    assert sb.tableau(spec, grid=LEVELS[-2:]).equals(sb.tableau("euler", grid=LEVELS[-2:]))


@pytest.mark.parametrize("order", [1, 2, 3, 4])
def test_on_equal_steps_ipndm_is_ipndm_v(order):
    ipndm, variable = (sb.tableau(f"{name}:order={order}", grid=UNIFORM) for name in ("ipndm", "ipndm_v"))
    assert ipndm.equals(variable)


@pytest.mark.parametrize("order", [2, 3, 4])
def test_on_other_steps_ipndm_is_not_ipndm_v(order):
    ipndm, variable = (sb.tableau(f"{name}:order={order}", grid=LEVELS) for name in ("ipndm", "ipndm_v"))
    assert not ipndm.equals(variable)


@pytest.mark.parametrize("order", [2, 3, 4])
@pytest.mark.parametrize("levels", [LEVELS, UNIFORM, TENTHS])
def test_deis_in_sigma_is_ipndm_v(order, levels):
    deis = sb.tableau(f"deis:form=rho:order={order}", grid=levels)
    assert deis.equals(sb.tableau(f"ipndm_v:order={order}", grid=levels))


@pytest.mark.parametrize(
    ("order", "weights"),
    [
        (2, [3 / 2, -1 / 2]),
        (3, [23 / 12, -16 / 12, 5 / 12]),
        (4, [55 / 24, -59 / 24, 37 / 24, -9 / 24]),
    ],
)
@pytest.mark.parametrize("solver", ["ipndm", "ipndm_v", "deis:form=rho"])
def test_equal_steps_have_the_weights_of_adams_and_bashforth(solver, order, weights):
    found = slope_weights(f"{solver}:order={order}", UNIFORM)
    assert found == pytest.approx(weights + [0] * (6 - order), abs=1e-9)


def test_public_weights_of_ipndm_v_on_equal_steps():
    found = slope_weights("ipndm_v:compat=true", UNIFORM)
    assert found == pytest.approx([2.375, -2.7083333333, 1.7916666667, -0.4583333333, 0, 0], abs=1e-9)


@pytest.mark.parametrize("order", [1, 2])
def test_public_weights_of_ipndm_v_are_right_up_to_order_two(order):
    steps = [LEVELS[-1 - i] - LEVELS[-2 - i] for i in range(order)]
    exact = slope_weights(f"ipndm_v:order={order}", LEVELS)
    assert list(ipndm_v._public_weights(steps)) == pytest.approx(exact[:order], abs=1e-9)


def test_public_weights_of_fourth_order_do_not_sum_to_one():
    assert abs(sum(slope_weights("ipndm_v:compat=true", LEVELS)) - 1) > 1e-4
    assert sum(slope_weights("ipndm_v", LEVELS)) == pytest.approx(1, abs=1e-9)


@pytest.mark.parametrize(
    ("solver", "order"), [("ipndm_v", 1), *((name, n) for name in ("ipndm_v", "deis:form=rho") for n in (2, 3, 4))]
)
@pytest.mark.parametrize("levels", [TENTHS, [9.0, 8.5, 6.0, 5.8, 3.0, 1.0, 0.9]])
def test_a_step_integrates_polynomials_below_its_order(solver, order, levels):
    """The start-up is of lower order, so the last step alone is measured."""
    spec = f"{solver}:order={order}"
    for degree in range(order + 1):
        power = degree + 1
        step = last_step(spec, levels, lambda s, k=degree: s**k)
        exact = (levels[-1] ** power - levels[-2] ** power) / power
        error = abs(step - exact) / max(level**power for level in levels)
        assert error < 1e-12 if degree < order else error > 1e-7


@pytest.mark.parametrize("order", [2, 3, 4])
@pytest.mark.parametrize("schedule", [sb.EDM(), sb.VPLinear(), sb.RectifiedFlow(), sb.VPDiscrete.stable_diffusion()])
def test_a_step_of_deis_integrates_polynomials_in_time(order, schedule):
    """d = x - sigma t^k: the exact step is the integral of t(sigma)^k, here by Simpson's rule on 20000 points."""
    solver = sb.make(f"deis:order={order}")
    levels = torch.tensor([12.0, 7.0, 3.0, 1.0, 0.2, 0.05], dtype=torch.float64)
    clock = schedule.clock
    fine = torch.linspace(math.log(0.2), math.log(0.05), 20001, dtype=torch.float64).exp()
    simpson = torch.ones(20001, dtype=torch.float64)
    simpson[1:-1:2], simpson[2:-1:2] = 4, 2

    def sample(grid, power):
        tableau = sb.trace(solver, sb.Grid(grid, schedule))
        return unrounded(tableau, lambda x, s: x - s * clock.time(s) ** power, torch.zeros(1, dtype=torch.float64))

    for power in range(order + 1):
        step = float(sample(levels, power) - sample(levels[:-1], power))
        exact = float((simpson * fine * clock.time(fine) ** power).sum() * (fine[1] / fine[0]).log() / 3)
        error = abs(step / exact - 1)
        # Kinks of the discrete schedule cost the smooth rule some digits.
        assert error < (1e-5 if isinstance(schedule, sb.VPDiscrete) else 1e-9) if power < order else error > 1e-4


def test_exact_quadrature_of_deis_is_converged(monkeypatch):
    found = sb.tableau("deis", grid=[80.0, 0.002]), sb.tableau("deis", grid=[80.0, 60.0, 0.002])
    nodes, weights = map(torch.from_numpy, np.polynomial.legendre.leggauss(200))
    monkeypatch.setattr(deis, "GAUSS_NODES", nodes)
    monkeypatch.setattr(deis, "GAUSS_WEIGHTS", weights)
    again = sb.tableau("deis", grid=[80.0, 0.002]), sb.tableau("deis", grid=[80.0, 60.0, 0.002])
    assert all(a.equals(b) for a, b in zip(found, again, strict=True))


def test_public_quadrature_misses_by_the_published_amount():
    public, exact = (slope_weights(f"deis:quadrature={rule}", LEVELS) for rule in ("compat", "exact"))
    error = max(abs(p - e) for p, e in zip(public, exact, strict=True)) / max(map(abs, exact))
    assert 1e-6 < error < 1e-3


@pytest.mark.parametrize("spec", EXACT)
def test_rows_keep_a_constant_image(spec):
    assert sb.make(spec).consistent
    assert sb.tableau(spec, grid=LEVELS).inconsistency() < 1e-10


@pytest.mark.parametrize("spec", ["ipndm_v:compat=true", "deis:quadrature=compat", "deis:afs=true"])
def test_what_does_not_keep_a_constant_image_says_so(spec):
    assert not sb.make(spec).consistent
    assert sb.tableau(spec, grid=LEVELS).inconsistency() > 1e-7


def test_heun_is_dpm2_with_its_inner_level_at_the_end():
    heun = sb.tableau("heun", grid=LEVELS)
    assert sb.tableau("dpm2:r=1", grid=LEVELS).equals(heun)
    assert not sb.tableau("dpm2", grid=LEVELS).equals(heun)


def test_the_rows_of_heun():
    """One step from 2 to 1: the trial point is (x + d)/2, and d' is met at half the step's weight."""
    heun = sb.tableau("heun", grid=[2.0, 1.0])
    assert heun.sigmas.tolist() == [2, 1]
    assert heun.weights.tolist() == [[1, 0, 0], [0.5, 0.5, 0], [0.5, 0, 0.5]]


def test_the_rows_of_dpm2():
    """One step from 4 to 1 with its inner level at 2, where the slope is taken."""
    dpm2 = sb.tableau("dpm2", grid=[4.0, 1.0])
    assert dpm2.sigmas.tolist() == pytest.approx([4, 2])
    # x + (1 - 4)(trial - d')/2 with trial = (x + d)/2
    assert dpm2.weights.flatten().tolist() == pytest.approx([1, 0, 0, 0.5, 0.5, 0, 0.25, -0.75, 1.5])


@pytest.mark.parametrize("r", [0.0, -0.5, 1.5])
def test_dpm2_refuses_an_inner_level_outside_the_step(r):
    with pytest.raises(sb.SpecError, match="r="):
        sb.make(f"dpm2:r={r}")


def test_deis_in_sigma_has_no_public_quadrature():
    with pytest.raises(sb.SpecError, match="leave it out"):
        sb.make("deis:form=rho:quadrature=compat")


@pytest.mark.parametrize("spec", ["euler", "heun", "dpm2", *ADAMS])
def test_an_analytic_first_step_saves_one_call(spec):
    plain, analytic = (sb.make(f"{spec}:afs={afs}") for afs in ("false", "true"))
    with_it, without = sb.trace(analytic, explicit(LEVELS, sb.EDM())), sb.trace(plain, explicit(LEVELS, sb.EDM()))
    assert with_it.nfe == without.nfe - 1
    assert with_it.sigmas.tolist() == without.sigmas.tolist()[1:]
    denoise = Counter(golden("solvers_edm_frame").denoise)
    sb.execute(with_it, denoise, golden("solvers_edm_frame").arrays["latents"] * LEVELS[0])
    assert denoise.calls == with_it.nfe


@pytest.mark.parametrize("spec", ADAMS)
def test_the_analytic_slope_enters_the_history(spec):
    """As if the network had answered first with the posterior mean under unit Gaussian data."""
    toy = golden("solvers_edm_frame")
    start = explicit(LEVELS, sb.EDM()).sigmas[0]

    def denoise(x, sigma):
        return x - sigma * x / (1 + sigma**2).sqrt() if sigma == start else toy.denoise(x, sigma)

    x = toy.arrays["latents"] * start
    plain, analytic = (sb.tableau(f"{spec}:afs={afs}", grid=LEVELS) for afs in ("false", "true"))
    assert relative(unrounded(analytic, toy.denoise, x), unrounded(plain, denoise, x)) < 1e-11


@pytest.mark.parametrize("spec", ["dpm2", *ADAMS])
def test_a_last_step_to_zero_returns_the_last_prediction(spec):
    tableau = sb.tableau(spec, grid=[*LEVELS, 0.0])
    shorter = sb.tableau(spec, grid=LEVELS)
    assert tableau.nfe == shorter.nfe + 1
    assert tableau.weights[-1].tolist() == [0] * tableau.nfe + [1]
    assert torch.equal(tableau.weights[-2][:-1], shorter.weights[-1])


@pytest.mark.parametrize("spec", ["dpm2", "ipndm", "ipndm_v", "ipndm_v:compat=true", "deis", "deis:form=rho"])
def test_weights_carry_the_gradient_of_the_grid(spec):
    logs = torch.tensor(LEVELS[1:-1], dtype=torch.float64).log().requires_grad_()

    def weights(logs):
        ends = torch.tensor([LEVELS[0]], dtype=torch.float64), torch.tensor([LEVELS[-1]], dtype=torch.float64)
        sigmas = torch.cat([ends[0], logs.exp(), ends[1]])
        return sb.trace(sb.make(spec), sb.Grid(sigmas, sb.EDM()), check=False).weights[-1]

    assert torch.autograd.gradcheck(weights, logs, atol=1e-6)
