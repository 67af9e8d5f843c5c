"""S4S: formulas against plain transcriptions in other frames, counts, starts, a grid that stays; no renamed GS."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

import solverbench as sb
from solverbench import conformance
from solverbench.learned.s4s import S4S, S4SAlt

VP = sb.VPLinear()
SCHEDULES = [sb.EDM(), VP, sb.VPDiscrete.stable_diffusion()]
STARTS = {
    "s4s": "dpm:lower_order_final=false",
    "s4s:order=1": "dpm:order=1",
    "s4s:order=2:grid=polynomial:rho=5": "dpm:order=2:lower_order_final=false:grid=polynomial:rho=5",
    "s4s:order=4": "dpm:lower_order_final=false",
    "s4s:prediction=noise": "ipndm:order=3:grid=logsnr",
    "s4s:prediction=noise:order=4:grid=polynomial": "ipndm",
    "s4s:form=pc": "unipc:lower_order_final=false",
    "s4s:form=pc:order=1": "unipc:order=1",
    "s4s:form=pc:order=2": "unipc:order=2:lower_order_final=false",
    "s4s:form=pc:order=4": "unipc:lower_order_final=false",
    "s4s:form=single": "dpm:singlestep=true",
    "s4s:form=single:order=2:grid=time_uniform": "dpm:singlestep=true:order=2:grid=time_uniform",
    "s4s_alt": "dpm:lower_order_final=false",
    "s4s_alt:prior=polynomial:form=pc": "unipc:lower_order_final=false:grid=polynomial",
    "s4s_joint:mode=time": "dpm:lower_order_final=false:grid=time_uniform",
    "s4s_joint:mode=time:prior=time_quadratic:prediction=noise": "ipndm:order=3:grid=time_quadratic",
}
"""Specs, and what each is before training."""
COUNTS = {
    ("s4s", 6): 1 + 2 + 4 * 3,
    ("s4s:order=2", 6): 1 + 5 * 2,
    ("s4s:prediction=noise:order=4", 6): 1 + 2 + 3 + 3 * 4,
    ("s4s", 2): 1 + 2,
    ("s4s:form=pc", 6): (1 + 2 + 4 * 3) + (2 + 3 + 3 * 4),
    ("s4s:form=pc", 1): 1,
    ("s4s:form=single", 8): (1 + 2 + 3) * 2 + (1 + 2),
    ("s4s:form=single", 6): (1 + 2 + 3) + (1 + 2) + 1,
    ("s4s:form=single:order=2", 5): (1 + 2) * 2 + 1,
    ("s4s_alt", 6): 7 + 7 + (1 + 2 + 4 * 3),
}

Network = Callable[[Tensor, Tensor], Tensor]


def untrained(spec: str, schedule: sb.NoiseSchedule, nfe: int) -> sb.LearnedSolver:
    solver = sb.make(spec)
    assert isinstance(solver, sb.LearnedSolver)
    return solver.with_parameters(solver.initial(schedule, nfe))


def moved(spec: str, schedule: sb.NoiseSchedule, nfe: int, by: float = 0.3) -> sb.LearnedSolver:
    """The solver with its parameters moved at random, by much."""
    solver = untrained(spec, schedule, nfe)
    generator = torch.Generator().manual_seed(nfe)
    noise = {n: torch.randn(v.shape, generator=generator, dtype=torch.float64) for n, v in solver.trained.items()}
    return solver.with_parameters({name: value + by * noise[name] for name, value in solver.trained.items()})


def network(x: Tensor, sigma: Tensor) -> Tensor:
    """A denoiser in the EDM frame that isn't linear, and that depends on its level by more than the state's scale."""
    return torch.asinh(1.3 * x / (1 + sigma**2).sqrt() + 0.2 * torch.atan(sigma))


def samples(solver: sb.Solver, grid: sb.Grid) -> tuple[Tensor, Tensor]:
    """(x, the sample of its tableau from it)."""
    x = torch.randn(4, 1, 2, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * grid.sigmas[0]
    return x, sb.execute(sb.trace(solver, grid), network, x)


@pytest.mark.parametrize("schedule", SCHEDULES, ids=repr)
@pytest.mark.parametrize("spec", STARTS)
def test_untrained_it_is_the_classical_solver_of_its_form(spec: str, schedule: sb.NoiseSchedule) -> None:
    base = sb.make(STARTS[spec])
    for nfe in (2, 3, 4, 6, 8):
        solver = untrained(spec, schedule, nfe)
        found, expected = (sb.trace(each, each.grid(schedule, nfe)) for each in (solver, base))
        assert found.equals(expected)


@pytest.mark.parametrize(("spec", "nfe"), COUNTS)
def test_it_has_exactly_the_parameters_of_the_formula_and_each_has_an_effect(spec: str, nfe: int) -> None:
    solver = moved(spec, VP, nfe, by=0.01)
    assert sum(part.numel() for part in solver.trained.values()) == COUNTS[spec, nfe]
    assert {name: tuple(part.shape) for name, part in solver.trained.items()} == solver.shapes(nfe)
    leaves = {name: part.requires_grad_() for name, part in solver.trained.items()}
    solver = solver.with_parameters(leaves)
    grid = solver.grid(VP, nfe)
    x = torch.randn(5, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1)) * grid.sigmas[0].detach()
    solver.sample(lambda x, sigma, *, level=None: network(x, sigma), x, grid).square().sum().backward()
    for name, part in leaves.items():
        dead = {"theta1": [0], "theta2": [0, nfe]}.get(name, [])
        assert part.grad is not None
        assert part.grad.isfinite().all()
        assert [n for n, each in enumerate(part.grad.tolist()) if each == 0] == dead, name


def test_lms_in_data_prediction_is_the_formula_in_the_vp_frame() -> None:
    """x' = (s'/s) x - a' expm1(-h) sum_i b_n[i] m_{n+1-i}: t, alpha, sigma and lambda of the VP model, written out."""
    solver = moved("s4s:grid=time_uniform", VP, 6)
    grid = solver.grid(VP, 6)
    x, found = samples(solver, grid)
    t = torch.linspace(1.0, VP.t_eps, 7, dtype=torch.float64)
    log_a = -(t**2) * (20 - 0.1) / 4 - t * 0.1 / 2
    a, s = log_a.exp(), (1 - (2 * log_a).exp()).sqrt()
    lam = log_a - s.log()
    state, past = a[0] * x, []
    for n in range(6):
        past.insert(0, network(state / a[n], s[n] / a[n]))
        drift = sum(solver.trained[f"b{n}"][i] * past[i] for i in range(min(3, n + 1)))
        state = s[n + 1] / s[n] * state - a[n + 1] * math.expm1(-(lam[n + 1] - lam[n])) * drift
    torch.testing.assert_close(found, state / a[6], rtol=1e-9, atol=1e-9)


def test_lms_in_noise_prediction_is_the_formula_in_the_vp_frame() -> None:
    """x' = (a'/a) x - s' expm1(h) sum_i b_n[i] e_{n+1-i}."""
    solver = moved("s4s:grid=time_uniform:prediction=noise:order=4", VP, 6, by=0.1)
    grid = solver.grid(VP, 6)
    x, found = samples(solver, grid)
    t = VP.time(grid.sigmas)
    a, s, lam = VP.alpha(t), VP.alpha(t) * grid.sigmas, -grid.sigmas.log()
    state, past = a[0] * x, []
    for n in range(6):
        past.insert(0, (state - a[n] * network(state / a[n], s[n] / a[n])) / s[n])
        drift = sum(solver.trained[f"b{n}"][i] * past[i] for i in range(min(4, n + 1)))
        state = a[n + 1] / a[n] * state - s[n + 1] * math.expm1(lam[n + 1] - lam[n]) * drift
    torch.testing.assert_close(found, state / a[6], rtol=1e-9, atol=1e-9)


def test_pc_corrects_the_state_that_it_came_from_and_keeps_the_call_at_the_predicted_point() -> None:
    solver = moved("s4s:form=pc", sb.EDM(), 5)
    grid = solver.grid(sb.EDM(), 5)
    x, found = samples(solver, grid)
    levels = torch.logspace(math.log10(80), math.log10(0.002), 6, dtype=torch.float64)
    calls = 1
    past = [network(x, levels[0])]
    for n in range(5):
        s, t = levels[n], levels[n + 1]
        q = min(3, n + 1)
        b = solver.trained[f"b{n}"]
        point = t / s * x + (1 - t / s) * sum(b[i] * past[i] for i in range(q))
        if n == 4:
            x = point
            continue
        new, calls = network(point, t), calls + 1
        c = solver.trained[f"c{n}"]
        x = t / s * x + (1 - t / s) * (c[0] * new + sum(c[1 + i] * past[i] for i in range(q)))
        past.insert(0, new)
    assert calls == 5
    torch.testing.assert_close(found, x, rtol=1e-9, atol=1e-9)


def test_single_starts_each_block_from_one_state() -> None:
    """Five calls of order 3 are a block of three and one of two, on equally long blocks in lambda."""
    solver = moved("s4s:form=single", sb.EDM(), 5)
    x, found = samples(solver, solver.grid(sb.EDM(), 5))
    low, high = -math.log(80), -math.log(0.002)
    lam = [low + share * (high - low) for share in (0, 1 / 6, 2 / 6, 3 / 6, 3 / 4, 1)]
    levels = [torch.tensor(math.exp(-each), dtype=torch.float64) for each in lam]
    w = solver.trained

    def state(start: Tensor, s: Tensor, t: Tensor, *terms: tuple[Tensor, Tensor]) -> Tensor:
        return t / s * start + (1 - t / s) * sum(weight * m for weight, m in terms)

    m0 = network(x, levels[0])
    m1 = network(state(x, levels[0], levels[1], (w["b0"][0], m0)), levels[1])
    m2 = network(state(x, levels[0], levels[2], (w["b1"][0], m0), (w["b1"][1], m1)), levels[2])
    x = state(x, levels[0], levels[3], (w["b2"][0], m0), (w["b2"][1], m1), (w["b2"][2], m2))
    m3 = network(x, levels[3])
    m4 = network(state(x, levels[3], levels[4], (w["b3"][0], m3)), levels[4])
    x = state(x, levels[3], levels[5], (w["b4"][0], m3), (w["b4"][1], m4))
    torch.testing.assert_close(found, x, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("prediction", ["data", "noise"])
@pytest.mark.parametrize("schedule", SCHEDULES, ids=repr)
def test_alt_tells_the_network_other_times_and_lets_the_linear_part_follow_the_levels(
    schedule: sb.NoiseSchedule, prediction: str
) -> None:
    """In the model's own frame: the state unchanged, the network at t', weights that are plain numbers."""
    solver = moved(f"s4s_alt:prediction={prediction}", schedule, 4, by=0.1)
    assert isinstance(solver, S4SAlt)
    grid = solver.grid(schedule, 4)
    told = solver.discretisation.told(solver.trained, grid)
    assert (told[1:] != grid.sigmas[1:-1]).all()
    x, found = samples(solver, grid)
    levels = grid.sigmas
    alpha, alpha_told = schedule.alpha(schedule.time(levels)), schedule.alpha(schedule.time(told))
    s = alpha * levels
    state, past = alpha[0] * x, []
    for n in range(4):
        d = network(state / alpha_told[n], told[n])
        past.insert(0, d if prediction == "data" else (state - alpha_told[n] * d) / (alpha_told[n] * told[n]))
        drift = sum(solver.trained[f"b{n}"][i] * past[i] for i in range(min(3, n + 1)))
        h = -(levels[n + 1] / levels[n]).log()
        if prediction == "data":
            state = s[n + 1] / s[n] * state - alpha[n + 1] * torch.expm1(-h) * drift
        else:
            state = alpha[n + 1] / alpha[n] * state - s[n + 1] * torch.expm1(h) * drift
    torch.testing.assert_close(found, state / alpha[4], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("form", ["lms", "pc", "single"])
@pytest.mark.parametrize("grid", ["logsnr", "polynomial:rho=5", "80.0+9.7+3.0+0.8+0.1+0.01+0.002"])
def test_no_parameter_of_s4s_moves_its_grid(form: str, grid: str) -> None:
    spec = f"s4s:form={form}:grid={grid}"
    like = "dpm:singlestep=true" if form == "single" else "dpm"
    fixed = sb.make(f"{like}:grid={grid}").grid(sb.EDM(), 6)
    solver = moved(spec, sb.EDM(), 6, by=10.0)
    tableau = sb.trace(solver, solver.grid(sb.EDM(), 6))
    assert torch.equal(tableau.levels, fixed.sigmas)
    assert torch.equal(tableau.sigmas, fixed.sigmas[:-1])
    assert {solver.group(name) for name in solver.trained} == {"coefficients"}
    assert solver.first_fixed


def test_alts_levels_move_with_its_times_alone() -> None:
    solver = untrained("s4s_alt", sb.EDM(), 4)
    before = sb.trace(solver, solver.grid(sb.EDM(), 4))
    groups = {name: solver.group(name) for name in solver.trained}
    assert (groups["theta1"], groups["theta2"]) == ("times", "offsets")
    assert {group for name, group in groups.items() if not name.startswith("theta")} == {"coefficients"}
    weights = {name: part + (groups[name] == "coefficients") for name, part in solver.trained.items()}
    after = sb.trace(solver.with_parameters(weights), solver.with_parameters(weights).grid(sb.EDM(), 4))
    assert torch.equal(before.levels, after.levels)
    assert torch.equal(before.sigmas, after.sigmas)


def test_s4s_is_no_renamed_gs() -> None:
    """Its next state is A times its last one plus outputs: GS adds earlier states too, and moves its levels."""
    s4s, gs = moved("s4s", sb.EDM(), 4), moved("gs", sb.EDM(), 4, by=0.05)

    def residue(solver: sb.LearnedSolver) -> Tensor:
        """What of x isn't the exact linear part of the step before, by row."""
        tableau = sb.trace(solver, solver.grid(sb.EDM(), 4))
        column, levels = tableau.weights[:, 0], torch.cat([tableau.start[None], tableau.levels[1:]])
        return (column[1:] - levels[1:] / levels[:-1] * column[:-1]).abs()

    assert residue(s4s).max() < 1e-12
    assert residue(gs).min() > 1e-4
    assert not set(s4s.trained) & set(gs.trained)


def test_a_grid_of_one_schedule_needs_no_other_to_be_read() -> None:
    """A file's shapes are known without its teacher's schedule, which alone may have the grid."""
    solver = sb.make("s4s:grid=gits_ipndm")
    assert isinstance(solver, S4S)
    with pytest.raises(sb.GridError, match="as Stable Diffusion does"):
        solver.initial(sb.EDM(), 5)
    found = solver.initial(sb.VPDiscrete.stable_diffusion(), 5)
    assert {name: tuple(part.shape) for name, part in found.items()} == solver.shapes(5)


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("s4s:grid=learned", "its grid is fixed; use s4s_alt or s4s_joint"),
        ("s4s_alt:grid=logsnr", "grid=logsnr: 'logsnr' isn't one of its values|grid=logsnr"),
        ("s4s:form=pc:prediction=noise", "this form is defined only for data"),
        (
            "s4s_joint:form=single:prediction=noise",
            "s4s_joint:form=single:prediction=noise: this form is defined only for data",
        ),
        ("s4s:form=single:order=4", "blocks of at most 3 calls"),
        ("s4s_alt:prior=polynomail", "did you mean 'polynomial'"),
    ],
)
def test_a_combination_that_is_not_defined_is_refused(spec: str, said: str) -> None:
    with pytest.raises(sb.SpecError, match=said):
        sb.make(spec)


def test_parameters_for_another_number_of_calls_are_refused() -> None:
    for spec in ("s4s", "s4s:form=pc", "s4s:form=single", "s4s_alt"):
        with pytest.raises(sb.GridError, match="parameters are for 4 steps, but 5 are requested"):
            untrained(spec, VP, 4).grid(VP, 5)
    with pytest.raises(sb.BudgetError, match="use nfe=2"):
        sb.make("s4s_joint").steps(1)


@pytest.mark.parametrize("schedule", SCHEDULES[1:], ids=repr)
@pytest.mark.parametrize("spec", ["s4s", "s4s:form=pc", "s4s:form=single", "s4s_alt:mode=time", "s4s:grid=gits_ipndm"])
def test_it_conforms_on_vp_schedules(spec: str, schedule: sb.NoiseSchedule) -> None:
    if "gits" in spec and schedule is VP:
        pytest.skip("a grid of Stable Diffusion's")
    for check in conformance.checks(sb.make(spec), schedule):
        if check.name != "cell_key":  # which takes another process each time
            check()
