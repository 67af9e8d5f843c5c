"""Several training seeds of one solver: kept in one file, found one by one, and one row in a report."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
import torch

from solverbench import reports
from solverbench.bench import run as runner
from solverbench.bench.bundle.trainings import pooled
from solverbench.bench.run import RunResult
from solverbench.bench.run_options import RunOptions
from solverbench.errors import RecordError
from solverbench.learned import trained_files, zoo
from solverbench.learned.recipes import Recipe
from solverbench.learned.trained_files import Trained
from solverbench.learned.training import train as training
from solverbench.learned.training.trainer import Data
from solverbench.reports import paired
from solverbench.teachers.teacher import Teacher


@pytest.fixture(scope="module")
def short(recipe: Recipe) -> Recipe:
    return replace(recipe, iterations=4, validate_every=2, training_seeds=3)


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def best(teacher: Teacher, short: Recipe, data: Data, out: Path) -> Trained:
    return training.train_best("gs", 3, teacher, short, out=out, data=data)


def same(one: Trained, other: Trained) -> bool:
    return all(torch.equal(one.parameters[name], other.parameters[name]) for name in one.parameters)


def test_a_file_keeps_the_trainings_with_all_seeds(best: Trained, teacher: Teacher, short: Recipe, out: Path) -> None:
    read = trained_files.load(out / "trained" / "toy" / "gs-nfe3.safetensors", teacher=teacher, nfe=3)
    assert read.identity == best.identity
    assert {each.record["seed"] for each in (read, *read.others)} == {0, 1, 2}
    for seed in range(3):
        alone = training.train("gs", 3, teacher, short, seed=seed, out=out)  # the finished run
        found = read.training(seed)
        assert found is not None
        assert same(found, alone)
        assert found.tableau.equals(alone.tableau, 0)
        assert found.validation == alone.validation
        assert found.spec.endswith(f":training={seed}")
        assert found.spread is None
    assert read.training(3) is None
    assert not same(*[each for each in (read.training(0), read.training(1)) if each is not None])


def test_a_training_is_found_in_its_own_file_first_and_else_in_that_of_all(
    best: Trained, teacher: Teacher, short: Recipe, data: Data, out: Path, tmp_path: Path
) -> None:
    folder = out / "trained"
    found = [zoo.find(f"gs:training={seed}", teacher, 3, [folder]) for seed in range(3)]
    assert [each.record["seed"] for each in found if each is not None] == [0, 1, 2]
    assert zoo.find("gs:training=3", teacher, 3, [folder]) is None
    alone = training.train_best("gs:training=5", 3, teacher, short, out=tmp_path, data=data)
    assert (tmp_path / "trained/toy/gs-training=5-nfe3.safetensors").is_file()
    assert [run["seed"] for run in alone.record["runs"]] == [5]
    again = zoo.find("gs:training=5", teacher, 3, [tmp_path / "trained", folder])
    assert again is not None
    assert same(again, alone)
    shadowed = [tmp_path / "none", folder, tmp_path / "trained"]
    assert zoo.find("gs:training=3", teacher, 3, shadowed) is None
    several = trained_files.load(folder / "toy" / "gs-nfe3.safetensors")
    trained_files.save(replace(several, others=()), tmp_path / "first" / "toy" / "gs-nfe3.safetensors")
    kept = several.record["seed"]
    missing = next(seed for seed in range(3) if seed != kept)  # the second folder's file could be of another recipe
    assert zoo.find(f"gs:training={missing}", teacher, 3, [tmp_path / "first", folder]) is None
    assert trained_files.file_names("gs:training=5", 3) == ["gs-training=5-nfe3.safetensors", "gs-nfe3.safetensors"]
    assert trained_files.file_names("gs", 3) == ["gs-nfe3.safetensors"]


def test_a_file_without_a_part_of_another_training_is_incomplete(best: Trained, tmp_path: Path) -> None:
    other = best.others[0]
    cut = {name: tensor for name, tensor in other.parameters.items() if name != "t_couple"}
    trained_files.save(replace(best, others=(replace(other, parameters=cut),)), tmp_path / "a.safetensors")
    with pytest.raises(RecordError, match="incomplete"):
        trained_files.load(tmp_path / "a.safetensors")


@pytest.fixture(scope="module")
def result(best: Trained, teacher: Teacher, out: Path) -> RunResult:
    asked = "gs:training=0|1|2,dpm"
    return runner.run(RunOptions(solvers=asked, teachers=teacher, nfe="3", samples=40, replicates=2, out=str(out)))


@pytest.mark.usefixtures("unrendered")
def test_a_report_shows_the_mean_over_trainings_and_keeps_each(result: RunResult) -> None:
    named = [f"gs:training={seed}" for seed in range(3)]
    assert list(result.frame["solver"]) == [*named, "dpm"]
    bundle = reports.load(result.folder)
    assert list(bundle.frame["solver"]) == ["gs:training=0|1|2", "dpm"]
    each = result.frame.set_index("solver")["value"]
    row = bundle.frame.iloc[0]
    assert row["value"] == pytest.approx(each[named].mean(), rel=1e-12)
    kept = pd.read_csv(result.folder / "trainings.csv")
    assert kept.set_index("solver")["value"][named].to_list() == pytest.approx(each[named].to_list())
    assert row["cost_training_seeds"] == 3
    # Wider than the images alone make it: three trainings of four iterations differ.
    alone = result.frame.set_index("solver").loc[named]
    assert row["high"] - row["low"] > (alone["high"] - alone["low"]).max()
    assert "gs:training=0|1|2" in result.numbers().replace("\\|", "|")


@pytest.mark.usefixtures("unrendered")
def test_its_verdict_and_paired_difference_hold_the_spread_between_trainings(result: RunResult) -> None:
    record = json.loads((result.folder / "bundle.json").read_text())
    [verdict] = record["verdicts"]
    assert verdict["claim"].startswith("gs:training=0|1|2 NFE 3 ahead of dpm NFE 3")
    assert "caution" not in verdict
    cells = reports.load(result.folder).cells
    (ours, values), (theirs, _) = [(cell["measures"]["rmse_teacher"], key) for key, cell in cells.items()]
    assert values.count("+") == 2
    found = paired.of_measures(ours, theirs)
    assert (found.value, found.low, found.high) == pytest.approx(
        (verdict["difference"], verdict["low"], verdict["high"]), rel=1e-9
    )
    images = paired.of_measures({k: v for k, v in ours.items() if k != "trainings"}, theirs)
    assert images.high - images.low < found.high - found.low


def test_trainings_by_different_recipes_are_not_averaged(result: RunResult) -> None:
    done = [outcome for outcome in result.cells if outcome.cell.trained is not None]
    assert len(pooled(done)) == 1
    trained = done[0].cell.trained
    assert trained is not None
    recipe = {**trained.record["recipe"], "lr": 0.5}
    other = replace(done[0].cell, trained=replace(trained, record={**trained.record, "recipe": recipe}))
    assert len(pooled([replace(done[0], cell=other), *done[1:]])) == 2
