"""The paper's ablations of GS as options: all start at the same solver, and each is its own formula after that."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

import solverbench as sb
from solverbench import conformance
from solverbench.errors import TrainingError
from solverbench.learned import recipes, zoo
from solverbench.method.grids import Grid
from solverbench.method.solver import LearnedSolver
from solverbench.method.tracing import own_grid
from solverbench.teachers.loading import load_teacher

VP = sb.VPLinear()
SCHEDULES = [sb.EDM(), VP, sb.VPDiscrete.stable_diffusion()]
FORMS = ["gs", "gs:form=lms", "gs:form=pc", "gs:theory=false", "gs:offsets=false", "gs:theory=false:offsets=false"]


def moved(spec: str, schedule: sb.NoiseSchedule, nfe: int, by: float) -> sb.LearnedSolver:
    solver = sb.make(spec)
    assert isinstance(solver, sb.LearnedSolver)
    generator = torch.Generator().manual_seed(nfe)
    start = solver.initial(schedule, nfe)
    noise = {name: torch.randn(part.shape, generator=generator, dtype=torch.float64) for name, part in start.items()}
    scale = {"offsets": 1e-3 * by}
    return solver.with_parameters({n: part + scale.get(solver.group(n), by) * noise[n] for n, part in start.items()})


@pytest.mark.parametrize("lowered", ["false", "true"])
@pytest.mark.parametrize("schedule", SCHEDULES, ids=repr)
@pytest.mark.parametrize("spec", FORMS)
def test_untrained_it_is_its_base_on_its_levels(spec: str, schedule: sb.NoiseSchedule, lowered: str) -> None:
    for nfe in (1, 2, 3, 4, 5, 8):
        solver = moved(f"{spec}:lower_order_final={lowered}", schedule, nfe, by=0.0)
        grid = solver.grid(schedule, nfe)
        base = sb.make(f"{'unipc' if 'pc' in spec else 'dpm'}:order=3:lower_order_final={lowered}")
        assert sb.trace(solver, grid).equals(sb.trace(base, grid))


@pytest.mark.parametrize("spec", [f"{spec}:lower_order_final={low}" for spec in FORMS for low in ("false", "true")])
def test_it_conforms_on_a_vp_schedule(spec: str) -> None:
    for check in conformance.checks(sb.make(spec), VP):
        if check.name != "cell_key":  # which takes another process each time
            check()


def network(x: Tensor, sigma: Tensor) -> Tensor:
    return torch.asinh(1.3 * x / (1 + sigma**2).sqrt() + 0.2)


def test_lms_has_free_weights_of_the_whole_history_at_offset_times() -> None:
    """In the VP frame: x' = A x - alpha' expm1(-h) sum_i b_n[i] m_{n+1-i}, m from the noise at t + offset."""
    solver = moved("gs:form=lms", VP, 5, by=0.1)
    grid = solver.grid(VP, 5)
    x = torch.randn(3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * grid.sigmas[0]
    found = sb.execute(sb.trace(solver, grid), network, x[:, None, None])[:, 0, 0]
    t = VP.time(grid.sigmas)
    a, s = VP.alpha(t), VP.alpha(t) * grid.sigmas
    state, past = a[0] * x, []
    for n in range(5):
        u = t[n] + solver.trained["t_couple"][n]
        e = (state - VP.alpha(u) * network(state / VP.alpha(u), VP.sigma(u))) / (VP.alpha(u) * VP.sigma(u))
        past.insert(0, (state - s[n] * e) / a[n])
        drift = sum(solver.trained[f"b{n}"][i] * past[i] for i in range(n + 1))
        state = s[n + 1] / s[n] * state + (a[n + 1] - s[n + 1] / s[n] * a[n]) * drift
    torch.testing.assert_close(found, state / a[5], rtol=1e-8, atol=1e-8)


def test_without_theory_its_numbers_are_theory_plus_corrections() -> None:
    """With the same times, GS with corrections equals the free form that holds their sum."""
    gs, free = moved("gs", VP, 5, by=0.02), moved("gs:theory=false", VP, 5, by=0.0)
    times = {name: gs.trained[name] for name in ("mu_logit", "t_couple")}
    grid = gs.grid(VP, 5)
    alpha, lam = VP.alpha(VP.time(grid.sigmas)), -grid.sigmas.log()
    numbers = {name: part.clone() for name, part in gs.trained.items()}
    for n in range(5):
        h = lam[n + 1] - lam[n]
        p1, p2, p3 = sb.phis(h)
        numbers["a1"][n] += alpha[n + 1] * grid.sigmas[n + 1] / (alpha[n] * grid.sigmas[n])
        numbers["c1"][n] += alpha[n + 1] * p1
        if n > 0:
            numbers["c2"][n] += alpha[n + 1] * (p1 / 2 if n == 1 else p2)
        if n > 1:
            numbers["c3"][n] += alpha[n + 1] * p3
    free = free.with_parameters(numbers | times)
    assert sb.trace(gs, grid).equals(sb.trace(free, grid), tolerance=1e-11)


def test_without_offsets_the_first_call_is_fixed_and_levels_are_told() -> None:
    solver = moved("gs:offsets=false", sb.EDM(), 4, by=0.1)
    tableau = sb.trace(solver, solver.grid(sb.EDM(), 4))
    assert "t_couple" not in solver.trained
    assert (solver.first_fixed, sb.make("gs").first_fixed) == (True, False)  # type: ignore[attr-defined]
    assert torch.equal(tableau.sigmas, tableau.levels[:-1])


def test_a_lowered_base_keeps_the_corrections() -> None:
    """What corrections add to the last step's outputs doesn't depend on the order of the base below them."""
    nfe = 5
    high, low = (moved(f"gs:lower_order_final={low}", VP, nfe, by=0.0) for low in ("false", "true"))

    def last_change(solver: sb.LearnedSolver) -> Tensor:
        bumped = {name: part.clone() for name, part in solver.trained.items()}
        for name in ("c1", "c2", "c3", "c4", "c5", "a1", "a3"):
            bumped[name][nfe - 1] = 0.1
        grid = solver.grid(VP, nfe)
        corrected = solver.with_parameters(bumped)
        return sb.trace(corrected, grid).weights[-1, -3:] - sb.trace(solver, grid).weights[-1, -3:]

    assert last_change(high)[-1] != 0
    torch.testing.assert_close(last_change(high)[-1], last_change(low)[-1], rtol=1e-9, atol=1e-12)


def test_a_free_form_has_no_theory_to_leave_out() -> None:
    with pytest.raises(sb.SpecError, match="form=lms:theory=false: its linear part is exact"):
        sb.make("gas:form=lms:theory=false")


@pytest.mark.parametrize("name", ["gs", "gas"])
@pytest.mark.isa
def test_a_file_from_before_an_option_means_its_default(name: str) -> None:
    """The packaged files were written as gs:grid=learned and gas:grid=learned: found, and the same tableau."""
    digits = load_teacher("digits")
    found = zoo.find(name, digits, 5)
    assert found is not None
    assert found.spec == sb.make(name).spec
    assert found.still(sb.trace(found.solver, found.solver.grid(digits.schedule, 5)))
    assert torch.equal(sb.tableau(name, nfe=5, teacher=digits).weights, found.tableau.weights)
    assert zoo.find(f"{name}:form=lms", digits, 5) is None


@pytest.mark.parametrize("start", ["unipc:grid=time_uniform", "dpm", "ipndm", "deis:grid=logsnr", "dpm2", "euler"])
@pytest.mark.parametrize("nfe", [2, 4, 6])
@pytest.mark.parametrize("schedule", [sb.EDM(), VP], ids=repr)
def test_its_corrections_give_every_tableau_so_training_can_start_at_any_solver(
    start: str, nfe: int, schedule: sb.NoiseSchedule
) -> None:
    solver = sb.make(start).on(schedule)
    wanted = sb.trace(solver, own_grid(solver, schedule, nfe))
    gs = sb.make("gs")
    assert isinstance(gs, LearnedSolver)
    parameters = gs.imitating(wanted, schedule)
    assert {name: tuple(part.shape) for name, part in parameters.items()} == gs.shapes(nfe)
    own = gs.with_parameters(parameters)
    found = sb.trace(own, own.grid(schedule, nfe), check=False)
    for name in ("weights", "levels", "sigmas"):
        torch.testing.assert_close(getattr(found, name), getattr(wanted, name), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("spec", ["gs:form=lms", "gs:theory=false", "ld3"])
def test_a_form_that_cannot_give_other_tableaus_has_its_own_start(spec: str) -> None:
    solver, gas = sb.make(spec), sb.make("gas")
    assert isinstance(solver, LearnedSolver)
    assert isinstance(gas, LearnedSolver)
    assert not solver.imitates
    schedule = sb.EDM()
    wanted = sb.trace(sb.make("dpm"), own_grid(sb.make("dpm"), schedule, 4))
    with pytest.raises(TrainingError, match="it can't start at another solver; leave start out"):
        solver.imitating(wanted, schedule)
    started = replace(recipes.load("gs", "digits"), start="dpm")
    assert recipes.suited(started, solver).start == ""
    assert recipes.suited(started, gas).start == "dpm"


def test_a_start_on_other_levels_than_the_teachers_is_refused() -> None:
    schedule = sb.EDM()
    short = sb.trace(sb.make("euler"), Grid(torch.tensor([40.0, 1.0, 0.002], dtype=torch.float64), schedule))
    gs = sb.make("gs")
    assert isinstance(gs, LearnedSolver)
    with pytest.raises(
        TrainingError, match=r"the start's levels run from 40 to 0\.002; give a start from 80 to 0\.002"
    ):
        gs.imitating(short, schedule)
