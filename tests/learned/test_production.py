"""The command that makes the packaged solvers: what it plans, runs in parallel, resumes, chooses and packs."""

from __future__ import annotations

import csv
import tarfile
from dataclasses import replace
from pathlib import Path

import forks
import pytest
from click.testing import CliRunner

from solverbench.cli import production
from solverbench.cli.production import Task
from solverbench.errors import SpecError
from solverbench.learned import recipes, trained_files
from solverbench.learned.recipes import Recipe
from solverbench.learned.training import train as training
from solverbench.learned.training.data import Data
from solverbench.teachers.loading import load_teacher
from solverbench.teachers.teacher import Teacher

TINY = [
    "iterations=3", "train_size=20", "batch=10", "validation_size=10", "validate_every=2", "widths=4+4",
    "cardinalities=1+1", "blocks=1",
]  # fmt: skip


def test_a_setting_is_for_all_solvers_or_for_the_one_it_names() -> None:
    tasks = production.plan("gs,gas", "2-3", 2, ["iterations=7", "gas.adversarial_weight=0.5"])
    assert [(task.solver, task.nfe, task.seed) for task in tasks] == [
        (solver, nfe, seed) for solver in ("gs", "gas") for nfe in (2, 3) for seed in (0, 1)
    ]
    assert {task.recipe.iterations for task in tasks} == {7}
    assert {(task.solver, task.recipe.adversarial_weight) for task in tasks} == {("gs", 0.0), ("gas", 0.5)}
    with pytest.raises(SpecError, match="'unipc' isn't among gs, gas"):
        production.plan("gs,gas", "2", None, ["unipc.lr=1"])
    with pytest.raises(SpecError, match="gs with warm_start=true: every run is trained on its own here"):
        production.plan("gs", "2-3", None, ["warm_start=true"])


def test_gs_and_gas_get_the_same_number_of_iterations_and_the_same_training_seeds() -> None:
    tasks = production.plan("gs,gas", "1-10", None, [])
    settings = {
        solver: [(t.nfe, t.seed, t.recipe.iterations) for t in tasks if t.solver == solver] for solver in ("gs", "gas")
    }
    assert settings["gs"] == settings["gas"]
    assert len(tasks) == 60


def test_a_teachers_runs_are_by_its_own_recipes() -> None:
    tasks = production.plan("gs,gas", "4-6", None, [], "shapes:guidance=2")
    assert {(task.solver, task.nfe) for task in tasks} == {
        (solver, nfe) for solver in ("gs", "gas") for nfe in (4, 5, 6)
    }
    for task in tasks:
        expected = recipes.load(task.solver, "shapes")
        assert task.recipe == expected != recipes.load(task.solver, "digits")


def test_results_are_collected_when_all_training_seeds_are_there(
    teacher: Teacher, recipe: Recipe, data: Data, tmp_path: Path
) -> None:
    tasks = [Task("gs", nfe, seed, recipe) for nfe in (1, 2) for seed in (0, 1)]
    for task in tasks[:3]:
        training.train("gs", task.nfe, teacher, recipe, seed=task.seed, out=tmp_path, data=data)
    assert production.collect(tasks, teacher, tmp_path) == ["gs nfe=2 seed=1"]
    place = tmp_path / "zoo" / "toy"
    assert sorted(path.name for path in place.rglob("*.*")) == ["gs-nfe1.csv", "gs-nfe1.safetensors", "runs.csv"]
    best = trained_files.load(place / "gs-nfe1.safetensors", teacher=teacher, nfe=1)
    assert [run["seed"] for run in best.record["runs"]] == [0, 1]
    with (place / "runs.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["nfe"], row["seed"]) for row in rows] == [("1", "0"), ("1", "1"), ("2", "0")]
    kept = [int(row["seed"]) for row in rows if row["kept"] == "true"]
    assert kept == [best.record["seed"]]
    lowest = min(rows[:2], key=lambda row: float(row["validation"]))
    assert int(lowest["seed"]) == best.record["seed"]


def test_a_curve_is_thinned_to_means_that_keep_the_last_iteration(tmp_path: Path) -> None:
    header = "iteration,loss,validation\n0,,1.0\n"
    rows = "".join(f"{k},{k},{k / 2 if k % 250 == 0 else ''}\n" for k in range(1, 2001))
    (tmp_path / "history.csv").write_text(header + rows)
    production._write_curve(tmp_path / "history.csv", tmp_path / "curve.csv")
    with (tmp_path / "curve.csv").open(newline="") as file:
        thin = list(csv.DictReader(file))
    assert len(thin) <= 100
    assert (thin[0]["iteration"], thin[0]["loss"], thin[0]["validation"]) == ("20", "10.5", "1.0")
    assert thin[-1]["iteration"] == "2000"
    assert [row["validation"] for row in thin if row["validation"]][-1] == "1000.0"


@pytest.mark.usefixtures("forked_workers")
def test_runs_in_parallel_processes_equal_a_run_here_and_stop_and_resume(tmp_path: Path) -> None:
    arguments = ["--out", str(tmp_path / "out"), "--nfe", "1", "--training-seeds", "1", "--jobs", "2"]
    arguments += [part for setting in TINY for part in ("--set", setting)]
    listed = CliRunner().invoke(production.main, [*arguments, "--list"])
    assert (listed.exit_code, "missing: gas nfe=1 seed=0" in listed.output) == (1, True)
    task = production.plan("gas", "1", 1, TINY)[0]
    production._start("digits", "cpu", str(tmp_path / "out"), deadline=0.0)
    assert production._run(task) is None  # stopped after its first iteration
    assert list((tmp_path / "out").rglob("gas-nfe1-*/checkpoint.safetensors"))
    done = CliRunner().invoke(production.main, [*arguments, "--pack", str(tmp_path / "zoo.tar")])
    assert done.exit_code == 0, done.output
    assert "2 of 2 runs finished" in done.output
    with tarfile.open(tmp_path / "zoo.tar") as archive:
        names = archive.getnames()
    assert {"zoo/digits/gs-nfe1.safetensors", "zoo/digits/curves/gas-nfe1.csv", "zoo/digits/runs.csv"} <= set(names)
    teacher = load_teacher("digits")
    here = training.train("gas", 1, teacher, task.recipe, seed=0, out=tmp_path / "here")
    assert trained_files.load(tmp_path / "out/zoo/digits/gas-nfe1.safetensors").identity == here.identity


def test_a_wrong_setting_is_one_line_and_no_run(tmp_path: Path) -> None:
    result = CliRunner().invoke(production.main, ["--out", str(tmp_path), "--set", "lrr=1"])
    assert result.exit_code == 2
    assert result.stderr.startswith("error: recipe setting 'lrr=1'")
    assert not list(tmp_path.iterdir())


def test_the_longest_runs_start_first(recipe: Recipe) -> None:
    gas = replace(recipe, adversarial_weight=1.0)
    assert Task("gas", 10, 0, gas).weight > Task("gs", 10, 0, recipe).weight > Task("gs", 2, 0, recipe).weight


def test_a_second_collection_keeps_the_lines_of_other_solvers(
    teacher: Teacher, recipe: Recipe, data: Data, tmp_path: Path
) -> None:
    short = replace(recipe, iterations=2, training_seeds=1)
    for solver in ("gs", "ld3", "ld3"):
        training.train(solver, 2, teacher, short, seed=0, out=tmp_path, data=data)
        assert production.collect([Task(solver, 2, 0, short)], teacher, tmp_path) == []
    with (tmp_path / "zoo" / "toy" / "runs.csv").open(newline="") as file:
        assert [row["solver"] for row in csv.DictReader(file)] == ["gs", "ld3"]


def test_a_plugin_that_is_not_there_is_one_line(tmp_path):
    ended = forks.run(["-m", "solverbench.cli.production", "--out", tmp_path, "--plugin", "absent.py"])
    assert ended.returncode == 3
    assert (
        ended.stderr
        == "error: plugin absent.py: can't be read (No such file or directory); give the path of a Python file\n"
    )
