"""free: it starts as its base, can become any linear solver, and every number of it is trained."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

import solverbench as sb
from solverbench.errors import GridError, SpecError
from solverbench.learned import recipes, trained_files, zoo
from solverbench.learned.recipes import Recipe
from solverbench.learned.training import train as training
from solverbench.learned.training.trainer import Data
from solverbench.method.rectified_flow import RectifiedFlow
from solverbench.method.schedules import EDM, NoiseSchedule, VPLinear
from solverbench.method.solver import LearnedSolver
from solverbench.method.tableau import Tableau
from solverbench.teachers.teacher import Teacher

SCHEDULES = [EDM(), VPLinear(), RectifiedFlow()]
NFE = 4


def equipped(spec: str, schedule: NoiseSchedule, nfe: int, **changes: torch.Tensor) -> LearnedSolver:
    solver = trained_files.learned(spec)
    return solver.with_parameters(solver.initial(schedule, nfe) | changes)


def tableau(solver: LearnedSolver, schedule: NoiseSchedule, nfe: int) -> Tableau:
    return sb.trace(solver, solver.grid(schedule, solver.steps(nfe)))


@pytest.mark.parametrize("base", ["unipc", "dpm", "ipndm", "euler"])
@pytest.mark.parametrize("nfe", [1, 2, 5])
def test_without_corrections_it_is_its_base(base: str, nfe: int) -> None:
    found = tableau(equipped(f"free:base={base}:first=1:grid=logsnr", EDM(), nfe), EDM(), nfe)
    assert found.equals(sb.tableau(f"{base}:grid=logsnr", nfe=nfe, schedule=EDM()), 1e-10)


@pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda each: type(each).__name__)
def test_its_first_call_is_lower_and_the_rest_its_base_from_there(schedule: NoiseSchedule) -> None:
    found = tableau(equipped("free:first=4", schedule, NFE), schedule, NFE)
    first = float(found.levels[0])
    assert first == pytest.approx(schedule.sigma_first / 4)
    assert float(found.start) == pytest.approx(schedule.sigma_max)
    based = sb.tableau("unipc", grid=found.levels.tolist())
    scaled = based.weights.clone()
    scaled[:, 0] *= first / float(found.start)
    torch.testing.assert_close(found.weights, scaled, rtol=1e-9, atol=1e-12)


def test_a_gradient_reaches_every_number() -> None:
    solver = trained_files.learned("free")
    parameters = {name: tensor.requires_grad_(True) for name, tensor in solver.initial(EDM(), NFE).items()}
    ready = solver.with_parameters(parameters)
    found = sb.trace(ready, ready.grid(EDM(), NFE), check=False)
    dice = torch.Generator().manual_seed(0)
    loss = sum(
        (each * torch.rand(each.shape, generator=dice, dtype=torch.float64)).sum()
        for each in (found.weights, found.sigmas)
    )
    assert isinstance(loss, torch.Tensor)
    for name, slope in zip(parameters, torch.autograd.grad(loss, list(parameters.values())), strict=True):
        assert (slope != 0).all(), name
    count = sum(parameters[f"r{k}"].numel() for k in range(NFE + 1))
    assert count == len(torch.tril_indices(NFE + 1, NFE + 1)[0])


@pytest.mark.parametrize("spec", ["heun", "dpm2", "dpm:order=2", "unipc", "deis", "ipndm", "gs", "gas", "ld3"])
def test_it_can_become_any_linear_solver(spec: str) -> None:
    wanted = sb.tableau(spec, nfe=NFE, teacher="digits")
    levels = tableau(equipped("free:first=1", EDM(), NFE), EDM(), NFE).levels
    based = sb.tableau("unipc", grid=levels.tolist()).weights
    size = (1 + levels**2).sqrt()
    corrections = {"offsets": (wanted.sigmas / levels[:-1]).log()}
    for k in range(NFE + 1):
        change = (wanted.weights - based)[k, : k + 1]
        corrections[f"r{k}"] = torch.cat([change[:1] * size[0] / size[k], (change[1:] / size[k]).cumsum(0)])
    found = tableau(equipped("free:first=1", EDM(), NFE, **corrections), EDM(), NFE)
    torch.testing.assert_close(found.weights, wanted.weights, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(found.sigmas, wanted.sigmas, rtol=1e-9, atol=0.0)


@pytest.mark.parametrize("offset", [-8.0, -0.5, 0.0, 0.5, 8.0])
def test_no_call_is_told_a_level_outside_the_schedule(offset: float) -> None:
    found = tableau(equipped("free", EDM(), NFE, offsets=torch.full((NFE,), offset, dtype=torch.float64)), EDM(), NFE)
    assert (found.sigmas >= 0.002 * (1 - 1e-9)).all()
    assert (found.sigmas <= 80 * (1 + 1e-9)).all()


@pytest.mark.parametrize(
    ("spec", "error", "said"),
    [
        ("free:first=0.5", SpecError, "first=0.5: the first call would be above the start"),
        ("free:base=heun", SpecError, "heun isn't one of its values"),
        ("free:grid=80+5+0.5+0", GridError, "its last level is 0"),
    ],
)
def test_what_it_cannot_start_from_is_refused(spec: str, error: type[Exception], said: str) -> None:
    with pytest.raises(error, match=said):
        trained_files.learned(spec).initial(EDM(), 3)


def test_parameters_for_another_number_of_calls_are_refused() -> None:
    with pytest.raises(GridError, match="parameters are for 4 steps, but 5 are requested"):
        equipped("free", EDM(), NFE).grid(EDM(), 5)


def test_training_lowers_its_error_below_that_of_gs(
    teacher: Teacher, recipe: Recipe, data: Data, tmp_path: Path
) -> None:
    runs = {
        name: training.train(name, 3, teacher, replace(recipe, iterations=60), seed=0, out=tmp_path, data=data)
        for name in ("free", "gs")
    }
    errors = {name: run.record["runs"][0] for name, run in runs.items()}
    assert errors["free"]["validation"] < 0.5 * errors["free"]["validation_initial"]
    assert errors["free"]["validation"] < errors["gs"]["validation"]


def shipped() -> list[Path]:
    return sorted(zoo.packaged().glob("*/free-nfe*.safetensors"))


@pytest.mark.parametrize("path", shipped(), ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_what_is_shipped_bounds_the_other_shipped_solvers(path: Path) -> None:
    bound = trained_files.load(path)
    others = [trained_files.load(each) for each in path.parent.glob(f"*-nfe{bound.nfe}.safetensors") if each != path]
    assert len(others) >= 2
    assert all(other.record["seeds"]["validation"] == bound.record["seeds"]["validation"] for other in others)
    assert {other.spec for other in others if other.validation <= bound.validation} == set()


def test_its_recipe_stands_in_its_class() -> None:
    recipe, gs = recipes.load("free", "digits"), recipes.load("gs", "digits")
    assert (recipe.choose, recipe.iterations, recipe.patience) == ("best", 2000, 3)
    assert (recipe.train_size, recipe.training_seeds) == (gs.train_size, gs.training_seeds)
