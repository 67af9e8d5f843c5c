"""Your own network: whatever it predicts, on whatever schedule, it is the same denoiser; alpha may reach 0."""

import math

import pytest
import torch

import solverbench as sb
from solverbench.bench import run
from solverbench.bench.run_options import RunOptions
from solverbench.errors import GridError, SpecError
from solverbench.method.schedules import STAND_IN
from solverbench.sampling import sample

MEAN, VARIANCE = 0.3, 0.2
BETAS = torch.linspace(math.sqrt(0.0015), math.sqrt(0.0195), 1000, dtype=torch.float64) ** 2
ALPHAS = torch.cumprod(1 - BETAS, 0)
ZERO = (ALPHAS.sqrt() - ALPHAS[-1].sqrt()) ** 2 / (ALPHAS[0].sqrt() - ALPHAS[-1].sqrt()) ** 2 * ALPHAS[0]
SCHEDULES = {
    "vp": sb.VPLinear(),
    "discrete": sb.VPDiscrete.from_alphas_cumprod(ALPHAS),
    "zero terminal": sb.VPDiscrete.from_alphas_cumprod(ZERO),
    "flow": sb.RectifiedFlow(),
    "flow to 1": sb.RectifiedFlow(t_start=1.0),
    "edm": sb.EDM(),
}


def gaussian(schedule, predicts):
    """The exact network of N(MEAN, VARIANCE): from the state y at time t, in float64."""

    def network(y, t):
        alpha, sigma = schedule.alpha(t.double()), schedule.sigma(t.double())
        s = alpha * sigma
        x0 = MEAN + alpha * VARIANCE / (alpha**2 * VARIANCE + s**2) * (y - alpha * MEAN)
        n = s / (alpha**2 * VARIANCE + s**2) * (y - alpha * MEAN)
        return {"eps": n, "v": alpha * n - s * x0, "x0": x0, "flow": n - x0}[predicts]

    return network


def exact(x, sigma):
    return MEAN + VARIANCE / (VARIANCE + sigma**2) * (x - MEAN)


@pytest.mark.parametrize(
    ("name", "predicts"),
    [
        (name, predicts)
        for name, schedule in SCHEDULES.items()
        for predicts in ("eps", "v", "x0", "flow")
        if predicts != "eps" or not schedule.stands_in
    ],
)
def test_every_parametrisation_is_the_same_denoiser(name, predicts):
    schedule = SCHEDULES[name]
    denoise = sb.Adapted(gaussian(schedule, predicts), schedule, predicts)
    for level in torch.logspace(math.log10(schedule.sigma_first), math.log10(schedule.sigma_min), 7).double():
        x = MEAN + (VARIANCE + level**2).sqrt() * torch.randn(50, generator=torch.Generator().manual_seed(1)).double()
        torch.testing.assert_close(denoise(x, level), exact(x, level), rtol=1e-6, atol=1e-9 * max(1, float(level)))


@pytest.mark.parametrize(
    ("name", "remedy"), [("zero terminal", "leave out the last of alphas_cumprod"), ("flow to 1", r"t_start=0\.999")]
)
def test_noise_predicted_from_no_signal_is_refused(name, remedy):
    """With errors of a thousandth, 10 calls by Euler's method end 4.03 off with eps, .129 off with v."""
    schedule = SCHEDULES[name]
    with pytest.raises(SpecError, match=f"predicts=eps on .* 1e\\+06 eps multiplies an error of the network.*{remedy}"):
        sb.Adapted(gaussian(schedule, "eps"), schedule)
    assert sb.Adapted(gaussian(schedule, "v"), schedule, "v").predicts == "v"


@pytest.mark.parametrize("predicts", ["v", "x0", "flow"])
@pytest.mark.parametrize("name", ["zero terminal", "flow to 1"])
def test_a_start_without_data_stays_float32_and_exact(name, predicts):
    schedule = SCHEDULES[name]
    met = []

    def network(y, t):
        met.append((y.dtype, float(y.std()), float(t)))
        assert float(t) <= 1
        return gaussian(schedule, predicts)(y.double(), t.clamp(max=1 - 1e-7)).float()

    noise = torch.randn(4000, generator=torch.Generator().manual_seed(2))
    x = noise * schedule.scale(STAND_IN)
    d = sb.Adapted(network, schedule, predicts)(x, torch.tensor(STAND_IN, dtype=torch.float64))
    assert met[0][0] == d.dtype == torch.float32
    assert met[0][1] == pytest.approx(float(noise.std()), rel=1e-5)
    assert d.mean() == pytest.approx(MEAN, abs=1e-4)
    assert d.std() < 1e-3


@pytest.mark.parametrize("name", ["zero terminal", "flow to 1"])
@pytest.mark.parametrize("solver", ["dpm", "unipc", "ipndm", "euler:grid=logsnr"])
@pytest.mark.parametrize("grid", ["", "time_uniform"])
def test_sampling_from_a_stand_in_reaches_the_data(name, solver, grid):
    schedule = SCHEDULES[name]
    teacher = sb.Teacher(
        lambda x, sigma: sb.Adapted(
            lambda y, t: gaussian(schedule, "v")(y.double(), t.double().clamp(max=1 - 1e-9)).float(), schedule, "v"
        )(x, sigma),
        "mine",
        (1, 20, 20),
        schedule=schedule,
    )
    spec = solver if not grid else f"{solver.split(':')[0]}:grid={grid}"
    plan = sb.tableau(spec, nfe=60, teacher=teacher).plan_from_noise(schedule)
    images = sample.sample(plan, teacher, range(50_000, 50_010), nfe=60)
    assert images.mean() == pytest.approx(MEAN, abs=0.05)
    assert images.std() == pytest.approx(math.sqrt(VARIANCE), rel=0.1)


def test_lambda_grids_start_at_the_first_time_below_1_and_time_grids_at_1():
    flow = SCHEDULES["flow to 1"]
    for grid in ("logsnr", "polynomial"):
        assert sb.make(f"euler:grid={grid}").grid(flow, 5).sigmas[0] == pytest.approx(999.0)
    assert sb.make("euler:grid=time_uniform").grid(flow, 5).sigmas[0] == STAND_IN
    zero = SCHEDULES["zero terminal"]
    assert sb.make("euler:grid=logsnr").grid(zero, 5).sigmas[0] == pytest.approx(
        float((1 / ZERO[-2] - 1).sqrt()), rel=1e-6
    )
    assert sb.make("euler:grid=time_uniform").grid(zero, 5).sigmas[0] == pytest.approx(STAND_IN, rel=1e-9)


def test_a_grid_that_starts_lower_starts_with_less_noise():
    low = sb.tableau("euler:grid=20+1+0.002", nfe=2)
    assert low.noise_scale(sb.EDM()) == 20
    assert low.noise_scale(sb.VPLinear()) == pytest.approx(math.hypot(1, 20))
    assert sb.tableau("euler:grid=80+1+0.002", nfe=2).noise_scale(sb.EDM()) == sb.EDM().prior_scale


def test_what_the_network_is_told():
    met = []

    def network(y, t):
        met.append(t)
        return y

    denoise = sb.Adapted(sb.per_image(network), sb.VPDiscrete.latent_diffusion(), "eps", told=lambda t: 1000 * t - 1)
    denoise(torch.zeros(3, 1, 2, 2), torch.tensor(denoise.schedule.sigma_max, dtype=torch.float64))
    assert met[0].tolist() == pytest.approx([999.0] * 3)
    assert met[0].dtype == torch.float32


def test_gradient_reaches_the_level():
    schedule = sb.VPLinear()
    sigma = torch.tensor(2.0, dtype=torch.float64, requires_grad=True)
    sb.Adapted(gaussian(schedule, "eps"), schedule)(torch.ones(3).double(), sigma).sum().backward()
    small = 1e-5
    ends = [exact(torch.ones(3).double(), torch.tensor(2.0 + h, dtype=torch.float64)).sum() for h in (-small, small)]
    assert float(sigma.grad) == pytest.approx(float(ends[1] - ends[0]) / (2 * small), rel=1e-3)


def test_an_unknown_parametrisation_is_refused():
    with pytest.raises(SpecError, match="predicts='epsilon': not a parametrisation; use eps, v, x0, flow"):
        sb.Adapted(lambda y, t: y, sb.VPLinear(), "epsilon")
    with pytest.raises(GridError, match="t_first between t_end and 1"):
        sb.RectifiedFlow(t_start=1.0, t_first=1.0)


def test_the_documented_example_runs(tmp_path):
    """The ten lines of docs/teachers.md, with a network that costs nothing."""
    network = torch.nn.Conv2d(1, 1, 3, padding=1)
    schedule = sb.VPLinear()
    denoise = sb.Adapted(sb.per_image(lambda y, t: network(y) * t[:, None, None, None]), schedule, predicts="v")
    teacher = sb.Teacher(denoise, "mine", (1, 8, 8), schedule=schedule, identity=sb.fingerprint(network),
                         sampler="dpm", sampler_nfe=10)  # fmt: skip
    frame = sb.run(solvers="dpm,unipc", nfe="4", teachers=teacher, out=tmp_path, samples=20, replicates=1)
    assert frame.status.tolist() == ["done", "done"]
    assert frame.metric.tolist() == ["rmse_teacher"] * 2


def test_a_fingerprint_is_of_the_weights():
    a, b = torch.nn.Linear(2, 2), torch.nn.Linear(2, 2)
    assert sb.fingerprint(a) == sb.fingerprint(a.state_dict()) != sb.fingerprint(b)
    b.load_state_dict(a.state_dict())
    assert sb.fingerprint(a) == sb.fingerprint(b) != sb.fingerprint(b.double())


@pytest.mark.usefixtures("few_compared")
def test_the_vp_and_the_edm_view_of_one_network_give_the_same_images(tmp_path):
    edm, vp = sb.EDM(), sb.VPLinear.refit(0.002, 80.0)

    def network(y, t):
        """An eps network of the VP state, nonlinear; the EDM view undoes the scale."""
        return torch.tanh(y * (1.5 - t)) + 0.1 * y.roll(1, -1)

    def edm_eps(x, sigma):
        t = vp.time(sigma.double())
        return network(x * vp.alpha(t).to(x), t.to(x))

    views = {
        "vp": sb.Teacher(sb.Adapted(network, vp, "eps"), "vp", (1, 4, 4), schedule=vp, identity="vp"),
        "edm": sb.Teacher(sb.Adapted(edm_eps, edm, "eps"), "edm", (1, 4, 4), schedule=edm, identity="edm"),
    }
    noise = torch.randn(5, 1, 4, 4, generator=torch.Generator().manual_seed(3)).double() * 80
    for spec in ("dpm", "unipc", "heun", "ipndm", "deis", "dpm:order=2:grid=time_uniform"):
        images = [sb.execute(sb.tableau(spec, nfe=6, teacher=t), t.denoise, noise) for t in views.values()]
        torch.testing.assert_close(*images, rtol=1e-9, atol=1e-9)
    asked = {"solvers": "dpm", "nfe": 6, "out": tmp_path, "samples": 20, "replicates": 1, "exact": False, "batch": 20}
    cells = [run.run(RunOptions(teachers=each, **asked)).cells[0] for each in views.values()]
    results = [cell.pictures.astype(int) for cell in cells]
    assert abs(results[0] - results[1]).max() <= 1


def test_a_clipped_prediction_stays_within_its_bound_and_is_the_same_inside():
    denoise = sb.Clipped(lambda x, sigma: x * 2, 1.0)
    x = torch.tensor([-2.0, -0.3, 0.1, 0.9])
    assert denoise(x, torch.tensor(1.0)).tolist() == pytest.approx([-1.0, -0.6, 0.2, 1.0])
    for bound in (0.0, -1.0, math.inf):
        with pytest.raises(SpecError, match="not a bound above 0"):
            sb.Clipped(denoise, bound)
