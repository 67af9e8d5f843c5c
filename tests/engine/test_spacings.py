"""Grids of diffusers' pipelines: their calls are diffusers' own; shifts, refusals, and a flow's default grid."""

import json
import math
from pathlib import Path

import pytest
import torch

import solverbench as sb
from solverbench.errors import GridError

SPACINGS = json.loads((Path(__file__).parent.parent / "data" / "spacings.json").read_text())
SD = sb.VPDiscrete.stable_diffusion()


def shifted(t: float, shift: float) -> float:
    return shift * t / (1 + (shift - 1) * t)


def flow(shift: float) -> sb.RectifiedFlow:
    """The schedule of a flow whose thousand training times are shifted, as SD3's are."""
    first, last = (shifted(t, shift) for t in (0.999, 0.001))
    return sb.RectifiedFlow(t_start=1.0, t_end=last, t_first=first)


@pytest.mark.parametrize("end", ["zero", "sigma_min"])
@pytest.mark.parametrize("case", SPACINGS["steps"])
def test_calls_are_at_the_training_steps_of_diffusers(case: str, end: str) -> None:
    grid, calls = case.split()
    steps, solver = SPACINGS["steps"][case], sb.make(f"euler:grid={grid}:end={end}")
    if end == "sigma_min" and steps[-1] == 0:
        with pytest.raises(GridError, match=r"its last call is at 0\.0291672, and the model's levels end at 0.0291672"):
            solver.grid(SD, int(calls))
        return
    sigmas = solver.grid(SD, int(calls)).sigmas
    alpha = torch.tensor(SD.log_alphas, dtype=torch.float64)[steps].exp()
    torch.testing.assert_close(sigmas[:-1], (1 - alpha**2).sqrt() / alpha, rtol=1e-9, atol=0)
    assert float(sigmas[-1]) == (0 if end == "zero" else SD.sigma_min)
    assert solver.steps(int(calls)) == int(calls) == sb.tableau(solver, nfe=int(calls), schedule=SD).nfe


@pytest.mark.parametrize("case", SPACINGS["times"])
def test_calls_are_at_the_times_of_diffusers_flows(case: str) -> None:
    grid, calls = case.split()
    shift = float(grid.partition("=")[2])
    schedule = flow(shift if grid.startswith("linspace") else 1.0)
    sigmas = sb.make(f"euler:grid={grid}:end=zero").grid(schedule, int(calls)).sigmas
    # diffusers computes in float32
    torch.testing.assert_close((sigmas / (1 + sigmas)).tolist(), SPACINGS["times"][case], rtol=0, atol=1e-6)
    own = sb.make(f"euler:grid={grid.partition(':')[0]}:end=zero").grid(replaced(schedule, shift), int(calls))
    assert torch.equal(own.sigmas, sigmas)


def replaced(schedule: sb.RectifiedFlow, shift: float) -> sb.RectifiedFlow:
    return sb.RectifiedFlow(schedule.t_start, schedule.t_end, schedule.t_first, shift)


@pytest.mark.parametrize("shift", [0.5, 1.0, 3.0, 1e300])
def test_flow_shift_multiplies_the_levels_of_equal_times(shift: float) -> None:
    """The levels are s u/(1 - u) at equal u; from the ends of the schedule itself, whatever the shift."""
    schedule = sb.RectifiedFlow(t_start=0.99, t_end=0.01)
    sigmas = sb.make(f"euler:grid=flow_shift:shift={shift}").grid(schedule, 5).sigmas
    u = sigmas / shift / (1 + sigmas / shift)
    assert sigmas[[0, -1]].tolist() == [schedule.sigma_max, schedule.sigma_min]
    torch.testing.assert_close(u, torch.linspace(float(u[0]), float(u[-1]), 6, dtype=torch.float64), rtol=1e-9, atol=0)
    same = sb.make("euler:grid=time_uniform").grid(schedule, 5).sigmas
    assert torch.allclose(sigmas, same, rtol=1e-9) == (shift == 1)


def test_a_dynamic_shift_is_that_of_diffusers() -> None:
    """FLUX.1's at 1024 x 1024 has 4096 tokens and mu = 1.15, at 256 x 256 it has 256 and mu = 0.5."""
    dynamic = sb.RectifiedFlow.dynamic_shift
    assert dynamic(1.15) == dynamic(tokens=4096) == math.exp(1.15)
    assert dynamic(tokens=256) == math.exp(0.5)
    assert dynamic(1.15, form="linear") == 1.15
    assert dynamic(tokens=2176, form="linear") == pytest.approx(0.825)


@pytest.mark.parametrize(
    ("given", "message"),
    [({}, "give one of them"), ({"mu": 1.0, "tokens": 9}, "give one of them"), ({"mu": 1.0, "form": "x"}, "unknown"),
     ({"mu": -1.0, "form": "linear"}, "above 0")],
)  # fmt: skip
def test_a_bad_dynamic_shift_is_one_line(given: dict, message: str) -> None:
    with pytest.raises(GridError, match=message):
        sb.RectifiedFlow.dynamic_shift(**given)


@pytest.mark.parametrize("shift", [0.0, -1.0, math.inf, math.nan])
def test_a_bad_shift_is_refused(shift: float) -> None:
    with pytest.raises(GridError, match="a finite number above 0"):
        sb.RectifiedFlow(shift=shift)


def test_no_shift_is_in_no_key() -> None:
    assert "shift" not in sb.RectifiedFlow().key
    assert sb.RectifiedFlow(shift=3.0).key == {**sb.RectifiedFlow().key, "shift": 3.0}


@pytest.mark.parametrize(
    ("spec", "schedule", "message"),
    [
        ("leading", sb.EDM(), "needs a discrete schedule"),
        ("dpm_linspace", sb.RectifiedFlow(), "needs a discrete schedule"),
        ("trailing", sb.VPLinear(), "needs a discrete schedule or a flow"),
        ("flow_shift", SD, "only a flow has a shift"),
        ("trailing:shift=3", SD, "only a flow has a shift; leave shift out"),
        ("leading:offset=999", SD, "calls from training step 1749 to 999 of 0 to 999; use fewer calls or another"),
        ("linspace", flow(1.0), "and the model's levels end at 0.001001; give end=zero, or a shift above 1"),
    ],
)
def test_a_grid_that_does_not_fit_is_one_line(spec: str, schedule: sb.NoiseSchedule, message: str) -> None:
    with pytest.raises(GridError, match=message):
        sb.make(f"euler:grid={spec}").grid(schedule, 4)


def test_one_call_at_the_last_level_is_refused() -> None:
    with pytest.raises(GridError, match="it would be at the last level; use trailing"):
        sb.make("euler:grid=linspace:end=zero").grid(SD, 1)


@pytest.mark.parametrize(
    ("spec", "named"),
    [("euler", "time_uniform"), ("dpm", "time_uniform"), ("dpm:singlestep=true", "time_uniform"),
     ("deis", "time_uniform"), ("unipc:end=zero", "time_uniform"), ("heun", "logsnr"), ("dpm2", "logsnr")],
)  # fmt: skip
def test_a_flow_has_a_default_grid_of_its_own(spec: str, named: str) -> None:
    solver, schedule = sb.make(spec), sb.RectifiedFlow(t_start=1.0)
    given = sb.make(f"{spec}:grid={named}")
    assert solver.on(schedule).spec == given.spec
    assert solver.on(schedule).key == given.key
    assert torch.equal(solver.grid(schedule, 6).sigmas, given.grid(schedule, 6).sigmas)
    assert sb.tableau(solver, nfe=6, schedule=schedule).equals(sb.tableau(given, nfe=6, schedule=schedule))
    for other in (sb.EDM(), sb.VPLinear(), SD):
        assert solver.on(other) is solver


def test_a_named_grid_is_kept_on_a_flow() -> None:
    for spec in ("euler:grid=polynomial", "euler:rho=5", "dpm:grid=logsnr", "euler:grid=1e6+1+0.002"):
        assert sb.make(spec).on(sb.RectifiedFlow()).spec == sb.make(spec).spec


def test_a_shift_of_the_schedule_acts_on_the_default_grid() -> None:
    schedule = replaced(flow(3.0), 3.0)
    assert ":grid=flow_shift:" in sb.make("euler").on(schedule).spec
    assert sb.make("euler").grid(schedule, 4).sigmas[1] == pytest.approx(9.0, rel=0.01)


def test_ddim_steps_equally_in_the_models_time() -> None:
    for schedule in (SD, sb.VPLinear(), sb.RectifiedFlow()):
        grid = sb.make("ddim").grid(schedule, 4)
        times = schedule.time(grid.sigmas)
        torch.testing.assert_close(times.diff(), times.diff()[:1].expand(4), rtol=1e-9, atol=0)
    assert sb.make("ddim:grid=leading").spec == sb.make("euler:grid=leading").spec
