"""Exponential integrators are each other where theory says so, and exact where it says so."""

import itertools

import pytest
import torch
from golden import golden, relative

import solverbench as sb
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
]


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


@pytest.mark.parametrize("spec", EXPONENTIAL)
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


@pytest.mark.parametrize("spec", EXPONENTIAL)
def test_the_tableau_is_differentiable_through_the_grid(spec):
    """Central differences along a random direction; UniPC's matrix of r_i is part of the gradient."""
    generator = torch.Generator().manual_seed(3)
    logs = torch.tensor(LEVELS, dtype=torch.float64).log()
    direction = torch.randn(len(logs), dtype=torch.float64, generator=generator) * 0.1
    mix = torch.randn(len(logs), len(logs), dtype=torch.float64, generator=generator)

    def value(logs):
        return (mix * sb.trace(sb.make(spec), sb.Grid(logs.exp(), sb.EDM()), check=False).weights).sum()

    leaf = logs.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(value(leaf), leaf)
    numeric = (value(logs + 1e-5 * direction) - value(logs - 1e-5 * direction)) / 2e-5
    assert float(gradient @ direction) == pytest.approx(float(numeric), rel=1e-6)
