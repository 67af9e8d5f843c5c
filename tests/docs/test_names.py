"""The translated names of diffusers and ComfyUI: every spec runs, and what is called equal is equal."""

import math

import documents
import pytest
import torch
from click.testing import CliRunner
from scipy import stats

import solverbench as sb
from solverbench import registries
from solverbench.cli.main import main
from solverbench.errors import GridError

SCHEDULE = sb.VPDiscrete.scaled_linear(0.00085, 0.012)
SD = {"num_train_timesteps": 1000, "beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
CLASSES = {
    "DDIMScheduler": {"clip_sample": False},
    "DPMSolverMultistepScheduler": {},
    "DPMSolverSinglestepScheduler": {},
    "UniPCMultistepScheduler": {},
    "solver_type=heun": {"solver_type": "heun"},
}


def denoise(x, sigma):
    """A smooth nonlinear denoiser of 8x8 states."""
    sigma = torch.as_tensor(sigma, dtype=torch.float64)
    mixed = torch.tanh(x.roll(1, -1) / (1 + sigma**2).sqrt())
    return 0.3 + 0.25 * (x - 0.3) / (0.25 + sigma**2) + 0.2 * mixed


def test_the_page_shows_the_table():
    names = documents.tool("names")
    text = names.PAGE.read_text(encoding="utf-8")
    assert names.section(text) == text, "run python docs/tools/names.py"


def test_every_spec_is_a_solver_that_runs():
    flow = sb.RectifiedFlow(t_start=1.0)
    for each in registries.foreign():
        assert each.agrees in ("equal", "near", "none")
        assert each.differs or each.agrees == "equal", each.name
        if each.spec:
            on = flow if each.name.startswith("FlowMatch") or "flow" in each.spec else SCHEDULE
            teacher = sb.Teacher(denoise, "toy", (1, 8, 8), schedule=on, identity="toy")
            solver = sb.make(each.spec)
            budget = next(nfe for nfe in (6, 7) if _spends(solver, nfe, on))
            assert sb.tableau(solver, nfe=budget, teacher=teacher).nfe == budget


def _spends(solver, nfe, schedule):
    try:
        return solver.grid(schedule, solver.steps(nfe)).steps > 0
    except (sb.BudgetError, GridError):  # of ddim_uniform with 6 calls
        return False


def comfy(name, steps):
    """The levels of a scheduler of ComfyUI without the last 0, from its definition; SIGMAS ascend."""
    sigmas = SCHEDULE.sigma((torch.arange(1000, dtype=torch.float64) + 1) / 1000)
    low, high, part = sigmas[0], sigmas[-1], torch.linspace(0, 1, steps, dtype=torch.float64)
    if name == "karras":
        return (high ** (1 / 7) + part * (low ** (1 / 7) - high ** (1 / 7))) ** 7
    if name == "exponential":
        return torch.lerp(high.log(), low.log(), part).exp()
    if name == "kl_optimal":
        return torch.lerp(high.atan(), low.atan(), part).tan()
    if name == "simple":
        return torch.stack([sigmas[-(1 + int(k * 1000 / steps))] for k in range(steps)])
    if name == "ddim_uniform":
        return sigmas[torch.arange(1, 1000, 1000 // steps)].flip(0)
    if name == "beta":
        shares = [stats.beta.ppf(1 - k / steps, 0.6, 0.6) for k in range(steps)]
        return sigmas[[round(share * 999) for share in shares]]
    if name == "linear_quadratic":  # the quadratic part starts with the slope of the linear one, and would end at 0
        half, rest = steps // 2, steps - steps // 2
        straight = [1 - 0.025 * k / half for k in range(half)]
        bend = (0.975 - 0.025 * rest / half) / rest**2
        return high * torch.tensor(straight + [0.975 - 0.025 * k / half - bend * k**2 for k in range(rest)])
    times = torch.linspace(999, 0, steps + (name == "sgm_uniform"), dtype=torch.float64)[:steps]
    below = times.long().clamp(max=998)
    return torch.lerp(sigmas.log()[below], sigmas.log()[below + 1], times - below).exp()


@pytest.mark.parametrize("name", [each.name for each in registries.foreign() if each.group == "comfyui_schedulers"][:9])
def test_the_levels_of_a_comfyui_scheduler_are_those_of_its_grid(name):
    (found,) = [each for each in registries.foreign(name) if each.group == "comfyui_schedulers"]
    teacher = sb.Teacher(denoise, "toy", (1, 8, 8), schedule=SCHEDULE, identity="toy")
    assert found.agrees == ("near" if name == "ddim_uniform" else "equal")
    for steps in (4, 5, 6, 7, 10, 13):
        theirs = comfy(name, steps)
        if len(theirs) > steps and len(comfy(name, len(theirs))) == len(theirs):
            continue  # two numbers of steps make as many calls; the spec makes those of the larger one
        tableau = sb.tableau(found.spec, nfe=len(theirs), teacher=teacher)
        assert tableau.sigmas.tolist() == pytest.approx(theirs.tolist(), rel=1e-6)
        assert float(tableau.levels[-1]) == 0


def test_comfyui_makes_seven_calls_of_ddim_uniform_for_six_steps():
    assert len(comfy("ddim_uniform", 6)) == 7
    with pytest.raises(
        GridError, match="ComfyUI's 6 steps are 7 calls, and no number of its steps makes 6; use another"
    ):
        sb.make("euler:grid=ddim_uniform:end=zero").grid(SCHEDULE, 6)


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
@pytest.mark.parametrize("name", CLASSES)
@pytest.mark.parametrize("steps", [5, 6])
def test_what_is_called_equal_to_a_scheduler_of_diffusers_makes_its_samples(name, steps):
    diffusers = pytest.importorskip("diffusers")
    (found,) = registries.foreign(name)
    assert found.agrees == "equal"
    kind = name if hasattr(diffusers, name) else "DPMSolverMultistepScheduler"
    theirs = getattr(diffusers, kind)(**SD, **CLASSES[name])
    noise = torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    theirs.set_timesteps(steps)
    y = noise * theirs.init_noise_sigma
    for t in theirs.timesteps:
        sigma = SCHEDULE.sigma((t.double() + 1) / 1000)
        x = y.double() * (1 + sigma**2).sqrt()
        y = theirs.step(((x - denoise(x, sigma)) / sigma).to(y), t, y).prev_sample
    tableau = sb.tableau(found.spec, nfe=steps, teacher=sb.Teacher(denoise, "toy", (1, 8, 8), SCHEDULE, identity="toy"))
    ours = sb.execute(tableau, denoise, noise * math.sqrt(1 + float(tableau.start) ** 2))
    assert (ours - y).abs().max() < 5e-6 * y.abs().max()  # diffusers' tables are float32


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
@pytest.mark.parametrize(("predictor", "corrector"), [(1, 2), (2, 2), (2, 3), (3, 3), (3, 4)])
def test_without_noise_sa_solver_of_diffusers_is_adams(predictor, corrector):
    diffusers = pytest.importorskip("diffusers")
    orders = {"predictor_order": predictor, "corrector_order": corrector}
    theirs = diffusers.SASolverScheduler(**SD, **orders, tau_func=lambda t: 0.0)
    noise = torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    theirs.set_timesteps(6)
    y = noise * theirs.init_noise_sigma
    for t in theirs.timesteps:
        sigma = SCHEDULE.sigma((t.double() + 1) / 1000)
        x = y.double() * (1 + sigma**2).sqrt()
        y = theirs.step(((x - denoise(x, sigma)) / sigma).to(y), t, y).prev_sample
    spec = f"adams:predictor={predictor}:corrector={corrector}:simple=true:grid=dpm_linspace"
    tableau = sb.tableau(spec, nfe=6, teacher=sb.Teacher(denoise, "toy", (1, 8, 8), SCHEDULE, identity="toy"))
    ours = sb.execute(tableau, denoise, noise * math.sqrt(1 + float(tableau.start) ** 2))
    ours = ours / math.sqrt(1 + float(tableau.levels[-1]) ** 2)  # their last state keeps its factor alpha
    assert (ours - y).abs().max() < 5e-6 * y.abs().max()


def test_an_empty_name_is_no_name_of_another_program():
    assert registries.foreign("") == []
    assert len(registries.foreign()) > 60


def test_info_translates_a_name():
    said = CliRunner().invoke(main, ["info", "dpmpp_2m"]).stdout
    assert "spec     dpm:order=2:lower_order_final=false:end=zero" in said
    assert "Samplers of ComfyUI" in said
    assert "can't be run" in CliRunner().invoke(main, ["info", "LCMScheduler"]).stdout
    assert CliRunner().invoke(main, ["info", "euler"]).stdout.startswith("euler = ddim: Euler's method")


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("dpmpp_2m", "write dpm:order=2:lower_order_final=false:end=zero; see 'solverbench info dpmpp_2m'"),
        ("DPMSolverMultistepScheduler", "write dpm:order=2:grid=dpm_linspace"),
        ("euler_ancestral", "samplers of ComfyUI; see 'solverbench info euler_ancestral'"),
    ],
)
def test_a_name_of_another_program_is_answered_with_its_spec(name, told):
    with pytest.raises(sb.UserError, match=r"not a solver here") as error:
        sb.tableau(name, nfe=4)
    assert told in str(error.value)
