"""A range of budgets in which each training starts from the one below: what it starts from, its key and its record."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path
from unittest.mock import Mock

import pytest
import torch
from torch import Tensor

import solverbench as sb
from solverbench.bench import protocol, resolve, train_missing
from solverbench.bench.run_options import RunOptions
from solverbench.errors import TrainingError
from solverbench.learned import growth, recipes, trained_files
from solverbench.learned.recipes import Recipe
from solverbench.learned.trained_files import Trained, learned
from solverbench.learned.training import train as training
from solverbench.learned.training.data import Data
from solverbench.learned.training.run import TrainingRun
from solverbench.learned.training.trainer import Trainer
from solverbench.method.solver import LearnedSolver
from solverbench.teachers.teacher import Teacher

GROWING = [
    "gs", "gas", "gs:offsets=false", "gs:form=lms", "gs:form=pc", "gs:t_eps=0.001:authors=free", "ld3", "ld3:mode=time",
    "ld3:base=euler", "s4s", "s4s:form=pc", "s4s:prediction=noise", "s4s_alt", "s4s_alt:mode=time", "s4s_joint",
    "dyweight", "dyweight:afs=true",
]  # fmt: skip
STAYING = ["s4s:form=single", "s4s_alt:form=single", "gs:theory=false", "epd", "bns", "free", "s4s_gas_compat"]


class Killed(Exception):
    """Stands for the end of a process."""


def perturbed(spec: str, nfe: int, size: float = 0.02) -> LearnedSolver:
    """A solver as if trained: its initial parameters, each moved a little."""
    solver = learned(spec)
    generator = torch.Generator().manual_seed(nfe)
    initial = solver.initial(sb.EDM(), nfe)
    moved = {n: p + size * torch.randn(p.shape, generator=generator, dtype=torch.float64) for n, p in initial.items()}
    return solver.with_parameters(moved)


def numbers(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def test_numbers_between_steps_are_interpolated_and_the_ends_kept() -> None:
    assert growth.resampled(numbers(6.0, 0.0), 4).tolist() == pytest.approx([6, 4, 2, 0])
    assert growth.resampled(numbers(9.0, 3.0, 0.0), 4).tolist() == pytest.approx([9, 5, 2, 0])
    assert growth.resampled(numbers(5.0), 3).tolist() == [5, 5, 5]
    rows = growth.resampled_steps([numbers(1.0), numbers(3.0, 10.0), numbers(5.0, 20.0)], [1, 2, 3, 3])
    assert [row.tolist() for row in rows] == [
        pytest.approx([1.0]), pytest.approx([7 / 3, 10.0]), pytest.approx([11 / 3, 15.0, 0.0]),
        pytest.approx([5.0, 20.0, 0.0]),
    ]  # fmt: skip


@pytest.mark.parametrize("spec", GROWING)
def test_a_start_has_all_parameters_falling_levels_and_equal_ends(spec: str) -> None:
    small = perturbed(spec, 4)
    for nfe in (5, 8):
        grown = small.grown(sb.EDM(), nfe)
        assert {name: tuple(part.shape) for name, part in grown.items()} == small.shapes(nfe)
        assert all(part.dtype == torch.float64 for part in grown.values())
        larger = small.with_parameters(grown)
        before, after = small.grid(sb.EDM(), small.steps(4)).sigmas, larger.grid(sb.EDM(), small.steps(nfe)).sigmas
        torch.testing.assert_close(after[[0, -1]], before[[0, -1]], rtol=1e-12, atol=0)
        assert (after.diff() < 0).all()
        sb.trace(larger, larger.grid(sb.EDM(), small.steps(nfe)), check=False)


@pytest.mark.parametrize("spec", GROWING)
def test_an_untrained_solver_grows_to_an_untrained_one(spec: str) -> None:
    """For LD3's uniform levels and GS's uniform times this is exact, as is a change of 0 for every weight."""
    solver = learned(spec)
    small = solver.with_parameters(solver.initial(sb.EDM(), 4))
    wanted = solver.with_parameters(solver.initial(sb.EDM(), 6))
    grown = solver.with_parameters(small.grown(sb.EDM(), 6))
    tableaus = [sb.trace(each, each.grid(sb.EDM(), solver.steps(6)), check=False) for each in (grown, wanted)]
    assert tableaus[0].equals(tableaus[1], 1e-9)


def test_gs_has_times_offsets_and_corrections_between_those_of_fewer_steps() -> None:
    small = perturbed("gs", 3, 0.1)
    grown = small.grown(sb.EDM(), 5)
    assert grown["t_couple"].tolist() == pytest.approx(growth.resampled(small.trained["t_couple"], 5).tolist())
    a2 = small.trained["a2"].tolist()
    assert grown["a2"].tolist() == pytest.approx(
        [0.0, a2[1], 2 / 3 * a2[1] + a2[2] / 3, a2[1] / 3 + 2 / 3 * a2[2], a2[2]]
    )
    assert not grown["c4"].any()
    clock = small._clock(sb.EDM())  # type: ignore[attr-defined]
    old, new = (small._times(each["mu_logit"], clock) for each in (small.trained, grown))  # type: ignore[attr-defined]
    assert new.tolist() == pytest.approx(growth.resampled(old, 6).tolist(), abs=1e-12)


@pytest.mark.parametrize("spec", STAYING)
def test_a_method_without_a_rule_says_so(spec: str, teacher: Teacher, recipe: Recipe, tmp_path: Path) -> None:
    def called(x: Tensor, sigma: Tensor) -> Tensor:
        raise AssertionError("an image was begun")

    unused, warm = replace(teacher, denoise=called), replace(recipe, warm_start=True)
    nfe = [4, 6] if spec == "epd" else [3, 4]
    with pytest.raises(TrainingError, match=r"with warm_start=true: it has no rule .*; leave warm_start out"):
        next(training.train_range(spec, nfe, unused, warm, out=tmp_path))


@pytest.fixture(scope="module")
def warm(recipe: Recipe) -> Recipe:
    return replace(recipe, warm_start=True, iterations=10, validate_every=5, lr=5e-3)


def ranged(teacher: Teacher, warm: Recipe, data: Data, out: Path, **more: object) -> list[Trained]:
    done = training.train_range("gs", [4, 3, 2], teacher, warm, out=out, data=data, **more)  # type: ignore[arg-type]
    return [each.best for each in done]


@pytest.fixture(scope="module")
def whole(
    teacher: Teacher, warm: Recipe, data: Data, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, list[Trained]]:
    out = tmp_path_factory.mktemp("whole")
    return out, ranged(teacher, warm, data, out)


def runs_of(teacher: Teacher, warm: Recipe, data: Data, out: Path, nfe: int, starts: list[Trained]) -> list[Trained]:
    def none(*told: object) -> None:
        raise AssertionError("it was trained again")

    return training.train_seeds("gs", nfe, teacher, warm, starts, out=out, data=data, progress=none)


def test_each_budget_starts_from_the_same_training_seed_of_the_one_below(
    whole: tuple[Path, list[Trained]], teacher: Teacher, warm: Recipe, data: Data
) -> None:
    out, best = whole
    assert [each.nfe for each in best] == [2, 3, 4]
    starts: list[Trained] = []
    for trained in best:
        runs = runs_of(teacher, warm, data, out, trained.nfe, starts)
        assert min(run.validation or 0 for run in runs) == trained.validation
        for seed, run in enumerate(runs):
            if not starts:
                assert "warm_start" not in run.record
                continue
            start = starts[seed]
            spent = [start.record["runs"][0]["cost"][f"student_calls_{kind}"] for kind in ("with_gradient", "without")]
            spent.append(start.record.get("warm_start", {}).get("student_calls", 0))
            job = TrainingRun(learned("gs"), trained.nfe, teacher, warm, seed, start)
            errors = [Trainer(each, data)._validated()["validation"] for each in (job, replace(job, below=None))]
            assert run.record["warm_start"] == {
                "nfe": start.nfe,
                "identity": start.identity,
                "student_calls": sum(spent),
                "taken": errors[0] <= errors[1],
            }
            with (job.folder(out) / "history.csv").open(newline="") as lines:
                first = next(csv.DictReader(lines))
            assert float(first["validation"]) == pytest.approx(min(errors), rel=1e-6)
            assert job.folder(out) != replace(job, below=starts[1 - seed]).folder(out)
            assert job.folder(out) != replace(job, below=None).folder(out)
        starts = runs
    kept = trained_files.load(out / "trained" / "toy" / "gs-nfe4.safetensors")
    assert kept.identity == best[-1].identity
    assert kept.record["warm_start"]["nfe"] == 3
    assert kept.record["recipe"]["warm_start"]


def test_a_killed_range_resumes_exactly(
    whole: tuple[Path, list[Trained]], teacher: Teacher, warm: Recipe, data: Data, tmp_path: Path
) -> None:
    for moment in (7, 33, 34, 59):  # of 3 budgets, 2 training seeds and 10 iterations

        def progress(iteration: int, total: int, loss: float, validation: float | None, moment: int = moment) -> None:
            assert total == 60
            if iteration == moment:
                raise Killed

        with pytest.raises(Killed):
            ranged(teacher, warm, data, tmp_path, progress=progress)
    seen: list[int] = []
    again = ranged(teacher, warm, data, tmp_path, progress=lambda iteration, *_: seen.append(iteration))
    assert seen == [60]
    assert [each.identity for each in again] == [each.identity for each in whole[1]]
    [mine], [straight] = (list(place.glob("trained/toy/runs/gs-nfe2-4-*/range.csv")) for place in (tmp_path, whole[0]))
    assert mine.name == straight.name
    assert mine.read_text() == straight.read_text()
    rows = list(csv.DictReader(mine.read_text().splitlines()))
    assert [(row["nfe"], row["seed"], row["iteration"]) for row in rows] == [
        (nfe, seed, iteration) for nfe in "234" for seed in "01" for iteration in ("0", "5", "10")
    ]


def test_without_warm_start_a_range_is_as_each_budget_alone(
    teacher: Teacher, warm: Recipe, data: Data, tmp_path: Path
) -> None:
    cold = replace(warm, warm_start=False, training_seeds=1)
    done = list(training.train_range("gs", [3, 2], teacher, cold, out=tmp_path / "a", data=data))
    assert [each.best.nfe for each in done] == [3, 2]
    for each in done:
        alone = training.train_best("gs", each.best.nfe, teacher, cold, out=tmp_path / "b", data=data)
        assert alone.identity == each.best.identity
    assert not list(tmp_path.glob("b/trained/toy/runs/*/range.csv"))


def test_a_run_that_trains_what_is_missing_warm_starts_too(
    warm: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained: list[tuple[int, list[int]]] = []

    def seeds(
        solver: LearnedSolver, nfe: int, teacher: Teacher, recipe: Recipe, below: list[Mock], **_: object
    ) -> list[Mock]:
        trained.append((nfe, [each.nfe for each in below]))
        return [
            Mock(nfe=nfe, record={"runs": [{"seed": 0, "note": "stopped", **({"stopped": 3} if nfe > 11 else {})}]})
        ]

    recipe = replace(warm, training_seeds=1)
    monkeypatch.setattr(recipes, "chosen", lambda *_: recipe)
    monkeypatch.setattr(training, "train_seeds", seeds)
    monkeypatch.setattr(training, "keep", lambda *_: None)
    monkeypatch.setattr(train_missing.resolve, "resolved_again", lambda cell, out: cell)
    asked = RunOptions(solvers="gs,ld3:mode=time", nfe="11,12", samples=100, replicates=1, out=tmp_path)
    cells = resolve.resolve(asked, protocol.Protocol.of(asked))
    silent = Mock()
    assert train_missing.train_missing(cells[::-1], tmp_path, "cpu", silent) == cells[::-1]
    assert sorted(trained) == [(11, []), (11, []), (12, [11]), (12, [11])]
    assert [call.args for call in silent.note.call_args_list] == [
        (f"{cell}, training seed 0: stopped",) for cell in reversed(cells) if cell.nfe == 12
    ]
    trained.clear()
    recipe = replace(recipe, warm_start=False)
    train_missing.train_missing(cells, tmp_path, "cpu", silent)
    assert trained == [(11, []), (12, []), (11, []), (12, [])]
