"""Exponential integrators are each other where theory says so, and exact where it says so."""

import itertools
import math

import pytest
import torch
from golden import golden, relative

import solverbench as sb
from solverbench.method.exponential import adams as method_adams
from solverbench.method.grids import explicit

LEVELS = [80.0, 9.7, 2.4, 0.8, 0.1, 0.002]
PREDICTIONS = ["data", "noise"]
EXPONENTIAL = [
    "dpm:order=1",
    *(f"dpm:order={order}:prediction={kind}" for order in (2, 3) for kind in PREDICTIONS),
    "dpm:d2=full",
    "dpm:d2=full:prediction=noise:lower_order_final=false",
    *(f"dpm:singlestep=true:order={order}:prediction={kind}" for order in (2, 3) for kind in PREDICTIONS),
    *(f"unipc:order={o}:prediction={k}:variant={v}" for o in (1, 2, 3) for k in PREDICTIONS for v in ("bh1", "bh2")),
    *(f"dpm:order={order}:variant=taylor" for order in (2, 3)),
    *(
        f"dpm:singlestep=true:order={order}:variant=taylor:prediction={kind}"
        for order in (2, 3)
        for kind in PREDICTIONS
    ),
    *(f"adams:predictor={p}" for p in (1, 2, 3, 4)),
    *(f"adams:predictor={p}:corrector={c}" for p, c in ((1, 2), (2, 2), (2, 3), (3, 4), (4, 4))),
    "adams:corrector=4:pece=true",
    "adams:predictor=2:corrector=2:simple=true",
]
STAGED = ["exprk", "exprk:c2=1", "exprk:c2=0.3", "exprk:stages=3", "exprk:stages=3:final=1", "exprk:stages=3:final=2"]


class UniP(sb.Solver):
    """The predictor of UniPC alone."""

    name = "unip"
    order: int = sb.option(2)
    prediction: str = sb.option("data")
    variant: str = sb.option("bh2")

    def integrate(self, denoise, x, grid):
        unipc = sb.make(f"unipc:order={self.order}:prediction={self.prediction}:variant={self.variant}")
        past = []
        for n in range(grid.steps):
            past = [unipc.predict(denoise, x, grid.sigmas[n]), *past][: self.order]
            x = unipc.step(x, past[: unipc.order_at(n, grid.steps)], grid.sigmas, n)
        return x


def unip(**options):
    return sb.trace(UniP(**options), explicit(LEVELS, sb.EDM()))


@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_first_order_is_ddim_in_either_prediction(prediction):
    ddim = sb.tableau("ddim", grid=LEVELS)
    assert sb.tableau("dpm:order=1", grid=LEVELS).equals(ddim)
    assert unip(order=1, prediction=prediction).equals(ddim)
    assert not sb.tableau(f"unipc:order=1:prediction={prediction}", grid=LEVELS).equals(ddim)  # it is corrected


@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_second_order_unip_with_bh2_is_second_order_dpm(prediction):
    dpm = sb.tableau(f"dpm:order=2:prediction={prediction}", grid=LEVELS)
    assert unip(prediction=prediction).equals(dpm)
    assert not unip(prediction=prediction, variant="bh1").equals(dpm)


def test_one_call_is_ddim_for_every_exponential_integrator():
    ddim = sb.tableau("ddim", grid=[80.0, 0.002])
    assert all(sb.tableau(spec, grid=[80.0, 0.002]).equals(ddim) for spec in EXPONENTIAL if "full" not in spec)


def test_second_order_singlestep_in_noise_prediction_is_dpm_solver_2():
    ends = torch.tensor([80.0, 9.7, 0.8, 0.002], dtype=torch.float64)
    middles = (ends[1:] * ends[:-1]).sqrt()
    stages = [*itertools.chain.from_iterable(zip(ends.tolist(), middles.tolist(), strict=False)), 0.002]
    singlestep = sb.tableau("dpm:singlestep=true:order=2:prediction=noise", grid=stages)
    assert singlestep.equals(sb.tableau("dpm2:r=0.5", grid=ends.tolist()))


@pytest.mark.parametrize("spec", [*EXPONENTIAL, *STAGED])
def test_a_constant_denoiser_is_solved_exactly(spec):
    x = torch.randn(2, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * LEVELS[0]
    image = torch.tensor([0.3, -0.7, 0.1], dtype=torch.float64)
    seen = []

    def denoise(x, sigma):
        seen.append((x, sigma))
        return image.expand_as(x)

    tableau = sb.tableau(spec, grid=LEVELS)
    seen.append((sb.execute(tableau, denoise, x), LEVELS[-1]))
    assert tableau.inconsistency() < 1e-10
    for state, level in seen:
        assert relative(state, image + level / LEVELS[0] * (x - image)) < 1e-9


ANY = [LEVELS, [80.0, 31.0, 9.7, 2.4, 0.8, 0.1, 0.002], [1.0, 0.9, 0.5, 0.49, 0.2], [1e6, 7.0, 1.0, 0.9, 0.001]]
"""Grids of even and uneven steps, one of them from the level that stands for an infinite one."""


@pytest.mark.parametrize("levels", ANY)
@pytest.mark.parametrize(
    ("adams", "same"),
    [
        ("predictor=1", "ddim"),
        ("predictor=2", "dpm:order=2:variant=taylor"),
        ("predictor=2:lower_order_final=false", "dpm:order=2:variant=taylor:lower_order_final=false"),
        ("predictor=3", "dpm:d2=full:variant=taylor"),
        ("predictor=3:lower_order_final=false", "dpm:d2=full:variant=taylor:lower_order_final=false"),
    ],
)
def test_adams_without_a_corrector_is_dpm_with_the_weights_of_taylor(adams, same, levels):
    found, known = (sb.tableau(spec, grid=levels) for spec in (f"adams:{adams}", same))
    torch.testing.assert_close(found.weights, known.weights, rtol=1e-9, atol=1e-9)
    assert torch.equal(found.levels, known.levels)


def test_only_the_steps_of_order_two_part_adams_from_dpm_with_the_full_difference():
    grid = explicit([80.0, 31.0, 9.7, 2.4, 0.8, 0.1, 0.002], sb.EDM())
    whole, half = (sb.trace(sb.make(f"dpm:d2=full:variant={v}"), grid) for v in ("taylor", "midpoint"))
    steps = [t.weights[1:] - grid.sigmas[1:, None] / grid.sigmas[:-1, None] * t.weights[:-1] for t in (whole, half)]
    apart = [(steps[0][n] - steps[1][n]).abs().max() > 1e-6 for n in range(6)]
    assert apart == [False, True, False, False, True, False]


@pytest.mark.parametrize("final", ["", ":lower_order_final=false"])
def test_the_weights_of_taylor_are_not_those_of_the_midpoint(final):
    taylor, midpoint = (sb.tableau(f"dpm:order=2:variant={v}{final}", grid=LEVELS) for v in ("taylor", "midpoint"))
    assert not taylor.equals(midpoint)
    assert sb.tableau(f"dpm:order=2{final}", grid=LEVELS).equals(midpoint)


@pytest.mark.parametrize("order", [1, 2, 3, 4])
@pytest.mark.parametrize("corrected", [False, True])
def test_a_step_of_adams_integrates_polynomials_in_lambda_below_its_order(order, corrected):
    """Exactly: the integral of exp(lambda) lambda^q by its antiderivative. Only the step itself, from exact history."""
    sigmas = torch.tensor([9.0, 6.0, 5.0, 3.5, 2.0, 1.4], dtype=torch.float64)
    lam = -sigmas.log()
    newest = 5 if corrected else 4
    weights = method_adams(lam, [lam[newest - i] for i in range(order)], 4)
    for q in range(order + 1):
        antiderivative = lam.exp() * sum((-1) ** j * math.perm(q, j) * lam ** (q - j) for j in range(q + 1))
        exact = float((antiderivative[5] - antiderivative[4]) * sigmas[5])
        found = float(sum(w * lam[newest - i] ** q for i, w in enumerate(weights)))
        assert abs(found - exact) < 1e-13 if q < order else abs(found - exact) > 1e-4


def test_the_quadrature_of_adams_is_exact_on_long_steps():
    for h in (1e-8, 0.1, 3.0, 10.6, 15.0):
        lam = torch.tensor([0.0, h], dtype=torch.float64)
        (alone,) = method_adams(lam, [lam[0]], 0)
        assert float(alone) == pytest.approx(-math.expm1(-h), rel=1e-13)


def test_exprk_of_two_stages_is_singlestep_dpm_with_the_weights_of_taylor():
    ends = torch.tensor([80.0, 9.7, 0.8, 0.002], dtype=torch.float64)
    for c2 in (0.5, 0.3):
        middles = ends[1:] ** c2 * ends[:-1] ** (1 - c2)
        stages = [*itertools.chain.from_iterable(zip(ends.tolist(), middles.tolist(), strict=False)), 0.002]
        singlestep = sb.tableau("dpm:singlestep=true:order=2:variant=taylor", grid=stages)
        exprk = sb.tableau(f"exprk:c2={c2}", grid=ends.tolist())
        torch.testing.assert_close(exprk.weights, singlestep.weights, rtol=1e-9, atol=1e-9)


def test_a_step_of_exprk_integrates_predictions_linear_in_lambda_exactly():
    """The integral of exp(lambda) lambda^q by its antiderivative."""
    ends = torch.tensor([2.0, 1.4], dtype=torch.float64)
    lam = -ends.log()
    for spec in ("exprk", "exprk:c2=1", "exprk:stages=3", "exprk:stages=3:c2=0.4"):
        tableau = sb.tableau(spec, grid=ends.tolist())
        for q in (0, 1):
            values = (-tableau.sigmas.log()) ** q
            antiderivative = lam.exp() * (lam**q - q * lam ** max(q - 1, 0))
            exact = float((antiderivative[1] - antiderivative[0]) * ends[1])
            assert float(tableau.weights[-1, 1:] @ values) == pytest.approx(exact, abs=1e-13)


def test_a_shorter_last_interval_of_exprk_is_a_step_of_ddim_or_of_two_stages():
    ends = [80.0, 9.7, 0.8, 0.002]
    whole, one, two = (sb.tableau(f"exprk:stages=3{final}", grid=ends) for final in ("", ":final=1", ":final=2"))
    assert [each.nfe for each in (whole, one, two)] == [9, 7, 8]
    state, row = one.weights[-2], one.weights[-1]
    expected = ends[3] / ends[2] * state
    expected[-1] += 1 - ends[3] / ends[2]
    torch.testing.assert_close(row, expected, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(whole.weights[:7, :7], two.weights[:7, :7], rtol=0, atol=0)


@pytest.mark.parametrize(
    ("spec", "nfe", "told"),
    [
        ("exprk", 5, "each step costs 2 evaluations; use nfe=4 or nfe=6 or exprk:end=zero or exprk:final=1"),
        ("exprk:stages=3", 5, "use nfe=3 or nfe=6 or exprk:final=2"),
        ("exprk:final=1", 4, "use nfe=3 or nfe=5 or exprk:end=zero"),
        ("adams:corrector=4:pece=true", 4, "two evaluations, but the last one; use nfe=3 or nfe=5 or adams:end=zero"),
    ],
)
def test_a_budget_between_names_the_option_that_spends_it(spec, nfe, told):
    with pytest.raises(sb.UserError) as error:
        sb.make(spec).steps(nfe)
    assert told in str(error.value)


@pytest.mark.parametrize(("spec", "steps"), [("adams:corrector=2", 5), ("adams:corrector=4:pece=true", 3)])
def test_a_correction_moves_every_state_but_the_last_of_a_single_step(spec, steps):
    """The calls are at the predicted points, with PECE also at the corrected ones; one step alone isn't corrected."""
    solver = sb.make(spec)
    assert solver.steps(5) == steps
    told = sb.tableau(solver, nfe=5).sigmas.tolist()
    grid = solver.grid(sb.EDM(), steps).sigmas[:-1].tolist()
    assert told == (grid if steps == 5 else [level for level in grid for _ in range(2)][1:])
    plain = sb.tableau("adams", grid=[80.0, 9.7, 0.8, 0.002])
    corrected = sb.tableau("adams:corrector=2", grid=[80.0, 9.7, 0.8, 0.002])
    assert torch.equal(plain.weights[1], corrected.weights[1])
    assert not torch.equal(plain.weights[2], corrected.weights[2])


@pytest.mark.parametrize("simple", [False, True])
def test_the_corrector_of_order_two_is_the_trapezium_rule_of_its_weight(simple):
    """m_{n+1} - m_n has the weight I_1/h, and h/2 with simple=true."""
    sigmas = [3.0, 1.0, 0.5]
    tableau = sb.tableau(f"adams:predictor=1:corrector=2:simple={str(simple).lower()}", grid=sigmas)
    h = math.log(3)
    weight = h / 2 if simple else 1 + math.expm1(-h) / h
    # The state of the second call is predicted; the last one begins at the corrected one.
    state = torch.tensor([1 / 3, 1 - 1 / 3 - weight, weight], dtype=torch.float64)
    last = 0.5 * state
    last[2] += 0.5
    torch.testing.assert_close(tableau.weights[-1], last, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_the_vp_view_is_the_edm_view(prediction):
    """DPM-Solver(++)(2M) as printed, on a model whose state is alpha x0 + s n; order 3 and UniPC have golden cases."""
    vp, source = sb.VPLinear(), golden("solvers_vp_frame")
    grid = sb.make("dpm").grid(vp, 6)
    t = vp.time(grid.sigmas)
    alpha, s, lam = vp.alpha(t), vp.alpha(t) * grid.sigmas, -grid.sigmas.log()
    x, past = source.arrays["noise"], []
    for n in range(6):
        d = source.denoise(x / alpha[n], grid.sigmas[n])
        past = [d if prediction == "data" else (x - alpha[n] * d) / s[n], *past]
        h = lam[n + 1] - lam[n]
        m = past[0]
        if 0 < n < 5:
            m = m + h / (2 * (lam[n] - lam[n - 1])) * (past[0] - past[1])
        if prediction == "data":
            x = s[n + 1] / s[n] * x - alpha[n + 1] * torch.expm1(-h) * m
        else:
            x = alpha[n + 1] / alpha[n] * x - s[n + 1] * torch.expm1(h) * m
    tableau = sb.trace(sb.make(f"dpm:order=2:prediction={prediction}"), grid)
    ours = sb.execute(tableau, source.denoise, source.arrays["noise"] * vp.prior_scale)
    assert relative(ours * alpha[-1], x) < 1e-9


def third_step(solver):
    """q -> errors of the predicted and the corrected state, in a third step on d = lambda^q from exact history."""
    sigmas = torch.tensor([5.0, 3.5, 2.0, 1.4], dtype=torch.float64)
    lam = -sigmas.log()

    def exact(q):
        """sigma_t int exp(lambda) lambda^q over the step; q = 2, 3."""
        antiderivative = {2: lam**2 - 2 * lam + 2, 3: lam**3 - 3 * lam**2 + 6 * lam - 6}[q] / sigmas
        return float(sigmas[3] * (antiderivative[3] - antiderivative[2]))

    def errors(q):
        past = [value**q for value in (lam[2], lam[1], lam[0])]
        zero = torch.zeros_like(lam[0])
        predicted = solver.step(zero, past, sigmas, 2)
        corrected = solver.step(zero, past, sigmas, 2, new=lam[3] ** q)
        return abs(float(predicted) - exact(q)), abs(float(corrected) - exact(q))

    return errors


@pytest.mark.parametrize("variant", ["bh1", "bh2"])
def test_third_order_unipc_predicts_quadratics_and_corrects_cubics_exactly(variant):
    errors = third_step(sb.make(f"unipc:variant={variant}"))
    assert max(errors(2)) < 1e-12
    assert errors(3)[0] > 1e-4
    assert errors(3)[1] < 1e-12


@pytest.mark.parametrize(("d2", "exact"), [("full", True), ("half", False)])
def test_third_order_dpm_integrates_quadratics_with_the_full_second_difference_alone(d2, exact):
    sigmas = [5.0, 3.5, 2.0, 1.4]
    tableau = sb.tableau(f"dpm:d2={d2}:lower_order_final=false", grid=sigmas)
    lam = -torch.tensor(sigmas, dtype=torch.float64).log()
    step = tableau.weights[3] - sigmas[3] / sigmas[2] * tableau.weights[2]
    found = (step[1:] * lam[:3] ** 2).sum()
    antiderivative = (lam**2 - 2 * lam + 2) * lam.exp()
    error = float((found - sigmas[3] * (antiderivative[3] - antiderivative[2])).abs())
    assert error < 1e-12 if exact else error > 1e-3


@pytest.mark.parametrize("spec", [*EXPONENTIAL, *STAGED])
def test_the_tableau_is_differentiable_through_the_grid(spec):
    """Central differences along a random direction; UniPC's matrix of r_i is part of the gradient."""
    generator = torch.Generator().manual_seed(3)
    logs = torch.tensor(LEVELS, dtype=torch.float64).log()
    direction = torch.randn(len(logs), dtype=torch.float64, generator=generator) * 0.1
    mix = torch.randn(16, 16, dtype=torch.float64, generator=generator)

    def value(logs):
        weights = sb.trace(sb.make(spec), sb.Grid(logs.exp(), sb.EDM()), check=False).weights
        return (mix[: len(weights), : len(weights)] * weights).sum()

    leaf = logs.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(value(leaf), leaf)
    numeric = (value(logs + 1e-5 * direction) - value(logs - 1e-5 * direction)) / 2e-5
    assert float(gradient @ direction) == pytest.approx(float(numeric), rel=1e-6)
