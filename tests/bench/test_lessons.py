"""Learned cells trained as part of a run: what is trained, what a failure leaves, and that a stop costs nothing."""

import json
import math
from dataclasses import replace

import pytest
import toys

from solverbench.bench import plan
from solverbench.bench import run as runner
from solverbench.bench.progress import Silent
from solverbench.bench.run_options import RunOptions
from solverbench.errors import MissingError, UserError
from solverbench.learned import recipes, trained_files

SMALL = {"samples": 40, "replicates": 1, "batch": 20}


@pytest.fixture(autouse=True)
def recipe(monkeypatch):
    """Every solver's: two trainings of six iterations."""
    short = replace(
        recipes.load("gs", "digits"), iterations=6, batch=4, train_size=20, validation_size=10, validate_every=3,
        training_seeds=2,
    )  # fmt: skip
    monkeypatch.setattr(recipes, "load", lambda solver, teacher, folder=None, *, family="", file=None: short)
    return short


def run(out, teacher=None, *, solvers="dpm,gs", nfe="3", train="missing", progress=None, **options):
    return runner.run(
        RunOptions(
            solvers=solvers, nfe=nfe, teachers=teacher or toys.teacher(), out=out, train=train, **(SMALL | options)
        ),
        progress=progress,
    )


def test_what_is_missing_is_trained_and_then_measured(tmp_path):
    result = run(tmp_path)
    assert [each.status for each in result.cells] == ["done", "done"]
    trained = trained_files.load(tmp_path / "trained" / "toy" / "gs-nfe3.safetensors")
    assert result.cells[1].cell.trained.identity == trained.identity
    rows = result.frame[result.frame.solver == "gs"]
    assert set(rows.cost_training_seeds) == {2}
    # Two seeds: six batches of four with gradient, and ten pairs validated at first, after three and after six.
    assert set(rows.cost_training_student_calls) == {2 * 3 * (6 * 4 + 3 * 10)}
    assert set(rows.cost_training_teacher_calls) == {30 * 8}
    errors = [each["validation"] for each in trained.record["runs"]]
    assert set(rows.validation) == {min(errors)}
    assert set(rows.validation_spread) == {max(errors) - min(errors)}
    assert result.frame[result.frame.solver == "dpm"].cost_training_seeds.isna().all()
    record = json.loads((result.folder / "bundle.json").read_text())
    assert record["protocol"]["parameters of gs for toy"] == f"NFE 3 run folder {trained.identity[:12]}"
    assert "--train missing" in record["command"]


def test_a_training_far_below_its_recipe_is_flagged(tmp_path, recipe, monkeypatch):
    result = run(tmp_path, solvers="gs")
    assert "short-training" not in result.cells[0].cell.flags
    longer = replace(recipe, iterations=13)
    monkeypatch.setattr(recipes, "load", lambda solver, teacher, folder=None, *, family="", file=None: longer)
    flags = run(tmp_path, solvers="gs", train=None).cells[0].cell.flags
    assert flags["short-training"] == "trained for 6 iterations, where its recipe has 13"


def test_without_it_the_cell_needs_training(tmp_path):
    result = run(tmp_path, train=None)
    assert [each.status for each in result.cells] == ["done", "needs-training"]
    assert (result.exit_code, result.strict_exit_code) == (0, 5)
    assert not (tmp_path / "trained").exists()


def test_strict_asks_for_every_cell(tmp_path):
    assert run(tmp_path, solvers="dpm").strict_exit_code == 0
    with pytest.raises(MissingError, match="heun nfe=3 on toy: unsupported, so there is nothing to measure: ") as no:
        run(tmp_path, solvers="heun")
    assert no.value.exit_code == 3
    assert run(tmp_path, solvers="dpm,heun").strict_exit_code == 5


def test_a_training_that_fails_is_a_failed_cell_and_the_others_go_on(tmp_path):
    def breaks(x, sigma):
        return toys.denoise(x, sigma) * (float("nan") if x.requires_grad or x.grad_fn is not None else 1.0)

    result = run(tmp_path, toys.teacher(breaks), solvers="gs,dpm", nfe="3,4")
    assert [each.status for each in result.cells] == ["failed", "failed", "done", "done"]
    assert result.cells[0].reason.startswith("training: ")
    assert "nan is not finite" in result.cells[0].reason
    assert result.exit_code == 1
    assert run(tmp_path).counts["done"] == 1


def test_an_interrupted_training_goes_on_to_the_same_bytes(tmp_path):
    class Impatient(Silent):
        def __init__(self, after):
            self.after, self.seen = after, []

        def learn(self, cell, iteration, iterations, loss, validation):
            self.seen.append((iteration, iterations, math.isfinite(loss), validation is None))
            if len(self.seen) == self.after:
                raise KeyboardInterrupt

    whole = run(tmp_path / "whole")
    first = Impatient(8)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "broken", progress=first)
    second = Impatient(0)
    again = run(tmp_path / "broken", progress=second)
    assert [each[0] for each in first.seen] == [1, 2, 3, 4, 5, 6, 7, 8]
    assert [each[0] for each in second.seen] == [9, 10, 11, 12]
    assert {each[1] for each in first.seen} == {12}
    assert whole.cells[1].cell.trained.identity == again.cells[1].cell.trained.identity
    assert whole.cells[1].cell.address == again.cells[1].cell.address


def test_a_plan_says_what_would_be_trained_and_writes_nothing(tmp_path):
    out = tmp_path / "runs"
    options = {"solvers": "dpm,gs", "nfe": "3,4", "teachers": toys.teacher(), "out": out, "train": "missing"} | SMALL
    planned = plan.plan(RunOptions(**options))
    assert [each.status for each in planned.cells] == ["new", "new", "to-train", "to-train"]
    assert planned.cells[2].reason.startswith("2 trainings of 6 iterations, about ")
    # A call with gradient counts as three; the teacher's thirty images, eight calls each, are made for the first.
    steps = [2 * nfe * (6 * 4 * 3 + 3 * 10) + 40 * nfe for nfe in (3, 4)]
    assert [each.calls for each in planned.cells[2:]] == [steps[0] + 30 * 8, steps[1]]
    assert all(each.seconds > 0 for each in planned.cells)
    assert "to-train" in planned.summary()
    assert not out.exists()
    run(out)
    assert [each.status for each in plan.plan(RunOptions(**options)).cells] == ["cached", "new", "cached", "to-train"]


def test_a_budget_that_a_learned_solver_cannot_spend_is_not_trained_for(tmp_path):
    from solverbench.errors import BudgetError
    from solverbench.learned.gs import GS

    def refuse(solver, nfe):
        raise BudgetError(asked=f"gs with nfe={nfe}", wrong="no", remedy="use nfe=4")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(GS, "steps", refuse)
        assert [each.status for each in run(tmp_path, solvers="gs,dpm").cells] == ["unsupported", "done"]
    assert not (tmp_path / "trained").exists()


def test_a_run_of_nothing_is_one_line_and_no_report(tmp_path):
    with pytest.raises(
        MissingError, match=r"gs nfe=3 on toy: needs-training, .*; see 'solverbench plan' for all 2 cells"
    ):
        run(tmp_path, solvers="gs", nfe="3,4", train=None)
    assert not (tmp_path / "reports").exists()


def test_a_recipe_that_has_changed_since_is_said_in_the_report(tmp_path, monkeypatch, recipe):
    run(tmp_path, solvers="gs")
    told = []
    for now in (recipe, replace(recipe, iterations=9)):
        monkeypatch.setattr(recipes, "load", lambda *_, now=now, **__: now)
        folder = run(tmp_path, solvers="gs", train=None).folder
        told.append(json.loads((folder / "bundle.json").read_text())["protocol"]["parameters of gs for toy"])
    assert "an earlier recipe" not in told[0]
    assert told[1] == f"{told[0]} (trained by an earlier recipe: iterations 6, now 9)"


def test_evaluation_seeds_that_a_training_would_see_are_refused_before_it(tmp_path):
    with pytest.raises(UserError, match="are training seeds of gs nfe=3"):
        run(tmp_path, seeds="0-39")
    assert not (tmp_path / "trained").exists()


def test_only_what_is_missing_can_be_trained(tmp_path):
    with pytest.raises(UserError, match="train 'all': not a choice; use missing"):
        run(tmp_path / "runs", train="all")
    assert not (tmp_path / "runs").exists()
