"""BNS: the paper's count of numbers, its two starts, and that other solvers' tableaus are members of it."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch

import solverbench as sb
from solverbench.errors import GridError
from solverbench.learned import trained_files
from solverbench.learned.training import losses
from solverbench.method.solver import LearnedSolver
from solverbench.teachers.teacher import Teacher


def equipped(spec: str, nfe: int, **changes: torch.Tensor) -> LearnedSolver:
    solver = trained_files.learned(spec)
    return solver.with_parameters(solver.initial(sb.EDM(), nfe) | changes)


def tableau(solver: LearnedSolver, nfe: int) -> sb.Tableau:
    return sb.trace(solver, solver.grid(sb.EDM(), nfe))


@pytest.mark.parametrize(("nfe", "count"), [(4, 18), (8, 52), (16, 168)])
def test_it_has_as_many_numbers_as_in_the_paper(nfe: int, count: int) -> None:
    shapes = trained_files.learned("bns").shapes(nfe)
    assert sum(map(math.prod, shapes.values())) == nfe * (nfe + 5) // 2 == count


@pytest.mark.parametrize("nfe", [1, 2, 5, 8])
def test_it_starts_at_euler_on_its_grid(nfe: int) -> None:
    found = tableau(equipped("bns:base=euler:grid=polynomial", nfe), nfe)
    assert found.equals(sb.tableau("euler:grid=polynomial", nfe=nfe), 1e-10)


@pytest.mark.parametrize("nfe", [2, 4, 8])
def test_it_starts_at_the_midpoint_method_which_is_dpm2_on_equal_steps_in_log_sigma(nfe: int) -> None:
    found = tableau(equipped("bns:grid=logsnr", nfe), nfe)
    assert found.equals(sb.tableau("dpm2:grid=logsnr", nfe=nfe), 1e-10)


def test_an_odd_last_call_is_an_euler_step() -> None:
    found = tableau(equipped("bns:grid=polynomial", 5), 5)
    last = found.weights[5] - found.weights[4]
    step = found.levels[5] / found.levels[4] - 1
    torch.testing.assert_close(last[:5], step * found.weights[4, :5], rtol=1e-9, atol=1e-12)
    assert float(last[5]) == pytest.approx(-float(step))


@pytest.mark.parametrize("base", ["euler", "midpoint"])
@pytest.mark.parametrize("spec", ["euler", "dpm:order=3", "dpm2", "s4s", "s4s:form=pc", "unipc", "deis"])
def test_the_tableau_of_another_solver_is_a_member_without_any_residual(spec: str, base: str) -> None:
    """Levels and corrections are read from the other tableau; every solver that tells its states' levels fits."""
    nfe = 6
    solver = sb.make(spec)
    if isinstance(solver, sb.LearnedSolver):
        start = solver.initial(sb.EDM(), nfe)
        dice = torch.Generator().manual_seed(0)
        solver = solver.with_parameters(
            {
                name: each + 0.1 * torch.randn(each.shape, generator=dice, dtype=each.dtype)
                for name, each in start.items()
            }
        )
    wanted = sb.trace(solver, solver.grid(sb.EDM(), solver.steps(nfe)))
    torch.testing.assert_close(wanted.sigmas, wanted.levels[:-1], rtol=1e-12, atol=0.0)
    gaps = {"gaps": wanted.levels.log().diff().neg().log()}
    based = tableau(equipped(f"bns:base={base}", nfe, **gaps), nfe).weights
    size = (1 + wanted.levels**2).sqrt()
    for k in range(1, nfe + 1):
        change = (wanted.weights - based)[k, : k + 1]
        gaps[f"r{k}"] = torch.cat([change[:1] * size[0] / size[k], (change[1:] / size[k]).cumsum(0)])
    found = tableau(equipped(f"bns:base={base}", nfe, **gaps), nfe)
    torch.testing.assert_close(found.weights, wanted.weights, rtol=1e-9, atol=1e-11)
    torch.testing.assert_close(found.sigmas, wanted.sigmas, rtol=1e-9, atol=0.0)


def test_every_number_has_an_effect_and_no_call_is_told_another_level() -> None:
    parameters = {name: each.requires_grad_() for name, each in equipped("bns", 5).trained.items()}
    solver = trained_files.learned("bns").with_parameters(parameters)
    found = sb.trace(solver, solver.grid(sb.EDM(), 5), check=False)
    dice = torch.Generator().manual_seed(0)
    loss = (found.weights * torch.rand(found.weights.shape, generator=dice, dtype=torch.float64)).sum()
    for name, slope in zip(parameters, torch.autograd.grad(loss, list(parameters.values())), strict=True):
        assert (slope != 0).all(), name
    assert torch.equal(found.sigmas, found.levels[:-1])


def test_what_it_cannot_start_from_is_refused() -> None:
    with pytest.raises(GridError, match="its last level is 0"):
        equipped("bns:grid=80+5+0.5+0", 3)
    with pytest.raises(GridError, match="parameters are for 4 steps, but 5 are requested"):
        equipped("bns", 4).grid(sb.EDM(), 5)


def test_its_loss_is_the_logarithm_of_l2_and_never_negative(teacher: Teacher) -> None:
    """A tenth of the difference is 20 dB more: ln(100) less. Equal images are 0, with a finite slope."""
    near, far = (torch.full((2, 1, 8, 8), size, dtype=torch.float64, requires_grad=True) for size in (0.01, 0.1))
    distance = losses.distance("log_l2", teacher)
    nought = torch.zeros(2, 1, 8, 8, dtype=torch.float64)
    torch.testing.assert_close(
        distance(far, nought) - distance(near, nought), torch.full((2,), math.log(100), dtype=torch.float64),
        rtol=1e-5, atol=0.0,
    )  # fmt: skip
    same = distance(near, near.detach())
    same.sum().backward()
    assert same.tolist() == [0.0, 0.0]
    assert near.grad is not None
    assert near.grad.isfinite().all()


def test_training_lowers_its_error(briefly: Callable[[str, int], dict[str, float]]) -> None:
    run = briefly("bns", 4)
    assert run["validation"] < 0.6 * run["validation_initial"]
