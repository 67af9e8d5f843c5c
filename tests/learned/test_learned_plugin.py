"""A learned solver from one file, as docs/plugins-learned.md shows it: trainer, recipes, memory mode, zoo, keys."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner, Result

import solverbench as sb
from solverbench import plugins, registries
from solverbench.cli import production
from solverbench.cli.main import main
from solverbench.errors import MissingError, RecordError, TrainingError
from solverbench.export import export
from solverbench.learned import recipes, trained_files
from solverbench.learned.recipes import Recipe
from solverbench.learned.training import train as training
from solverbench.learned.training.run import TrainingRun
from solverbench.learned.training.trainer import Data
from solverbench.sampling.endpoints import sampler_plan
from solverbench.teachers.loading import load_teacher
from solverbench.teachers.teacher import Teacher

pytestmark = pytest.mark.usefixtures("unrendered", "remembered")

PAGE = (Path(__file__).parents[2] / "docs" / "plugins-learned.md").read_text(encoding="utf-8")
HEAVY = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)[0]
SHORT = [
    *("--set", "iterations=8", "--set", "batch=16", "--set", "train_size=48", "--set", "validation_size=16"),
    *("--set", "validate_every=4"),
]
SMALL = ("--samples", "100", "--replicates", "1")


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, unregistered: None) -> None:
    """heavy.py in an empty folder, a zoo of one's own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SOLVERBENCH_DATA", str(tmp_path / "own"))
    Path("heavy.py").write_text(HEAVY, encoding="utf-8")


@pytest.fixture
def call() -> Callable[..., Result]:
    """Run the command line with the plugin; fails on another exit code than `code`."""

    def run(*words: str, code: int = 0, plugin: bool = True) -> Result:
        loaded = ("--plugin", "heavy.py") if plugin else ()
        result = CliRunner().invoke(main, [*words, *loaded])
        assert result.exit_code == code, (result.output, result.stderr, result.exception)
        return result

    return run


def edited(*changes: tuple[str, str]) -> None:
    text = HEAVY
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    Path("heavy.py").write_text(text, encoding="utf-8")


def loaded(*changes: tuple[str, str]) -> None:
    edited(*changes)
    plugins.load("heavy.py")


def statuses(nfe: int) -> dict[str, str]:
    """Of a run of the plugin as its file is now, and of Euler."""
    plugins.load("heavy.py")
    frame = sb.run(solvers="heavy,euler", nfe=nfe, teachers="digits", out="runs", samples=100, replicates=1)
    return dict(zip(frame["solver"], frame["status"], strict=True))


def test_what_the_page_shows_is_trained_run_and_kept(call: Callable[..., Result], tmp_path: Path) -> None:
    assert f"solverbench train heavy --nfe 5 --plugin {'heavy.py'}" in PAGE
    told = call("train", "heavy", "--nfe", "5", *SHORT).output
    assert "heavy nfe=5: validation RMSE" in told
    assert "2 cells: 2 done" in call("run", "--solvers", "heavy,euler", "--nfe", "5", *SMALL).output
    assert statuses(5) == {"heavy": "cached", "euler": "cached"}

    trained = trained_files.load(Path("runs/trained/digits/heavy-nfe5.safetensors"))
    assert re.search(rf"heavy:\S+ +5 +digits .*run folder +{trained.identity[:12]}", call("zoo", "list").output)
    assert trained.identity in call("zoo", "show", "heavy", "--nfe", "5").output
    call("zoo", "export", "heavy", "--nfe", "5", "--to", "heavy5.json")
    assert export.from_json(Path("heavy5.json").read_text()).tableau.equals(trained.tableau, 0.0)
    call("zoo", "add", "runs/trained/digits/heavy-nfe5.safetensors")
    assert (
        trained_files.load(tmp_path / "own" / "zoo" / "digits" / "heavy-nfe5.safetensors").identity == trained.identity
    )

    again = call("train", "heavy", "--nfe", "5", *SHORT)
    assert "in place of" not in again.output
    assert trained_files.load(Path("runs/trained/digits/heavy-nfe5.safetensors")).identity == trained.identity


def test_it_starts_as_euler_and_training_helps(teacher: Teacher, recipe: Recipe, data: Data, tmp_path: Path) -> None:
    loaded()
    run = training.train("heavy", 4, teacher, recipe, seed=0, out=tmp_path, data=data).record["runs"][0]
    assert run["validation"] < 0.9 * run["validation_initial"]
    start = trained_files.learned("heavy").with_parameters(trained_files.learned("heavy").initial(teacher.schedule, 4))
    from solverbench.learned.equip import tableau
    from solverbench.method.tracing import trace

    assert trace(start, start.grid(teacher.schedule, 4)).equals(tableau("euler", nfe=4, teacher=teacher), 1e-9)


def test_stopped_it_goes_on_to_the_same_numbers(teacher: Teacher, recipe: Recipe, data: Data, tmp_path: Path) -> None:
    loaded()
    whole = training.train("heavy", 3, teacher, recipe, seed=0, out=tmp_path / "a", data=data)

    def stop(iteration: int, total: int, loss: float, validation: float | None) -> None:
        if iteration == 17:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        training.train("heavy", 3, teacher, recipe, seed=0, out=tmp_path / "b", data=data, progress=stop)
    assert len(list((tmp_path / "b").rglob("checkpoint.safetensors"))) == 1
    assert training.train("heavy", 3, teacher, recipe, seed=0, out=tmp_path / "b", data=data).identity == whole.identity


@pytest.mark.isa
def test_the_memory_mode_gives_the_same_solver(teacher: Teacher, recipe: Recipe, data: Data, tmp_path: Path) -> None:
    """Over a few iterations: Adam divides by the size of the gradient, so that over many, roundings grow."""
    loaded()
    few = {"iterations": 3, "validate_every": 3}
    runs = [
        training.train("heavy", 4, teacher, replace(recipe, **few, memory=mode), seed=0, out=tmp_path, data=data)
        for mode in ("store", "recompute")
    ]
    for name, tensor in runs[0].parameters.items():
        torch.testing.assert_close(tensor, runs[1].parameters[name], rtol=1e-4, atol=1e-6)
    costs = [run.record["runs"][0]["cost"]["student_calls_without"] for run in runs]
    assert costs[1] > costs[0]


def test_a_changed_file_is_trained_in_a_folder_of_its_own(teacher: Teacher, recipe: Recipe, tmp_path: Path) -> None:
    loaded()
    before = TrainingRun(trained_files.learned("heavy"), 4, teacher, recipe, 0).folder(tmp_path)
    loaded()
    assert TrainingRun(trained_files.learned("heavy"), 4, teacher, recipe, 0).folder(tmp_path) == before
    loaded(("    def group", "    # a comment\n    def group"))
    assert TrainingRun(trained_files.learned("heavy"), 4, teacher, recipe, 0).folder(tmp_path) != before


def test_a_file_by_a_changed_loop_is_out_of_date_and_trained_again(call: Callable[..., Result]) -> None:
    call("train", "heavy", "--nfe", "3", *SHORT)
    place = Path("runs/trained/digits/heavy-nfe3.safetensors")
    before = trained_files.load(place).identity
    edited(("    def group", "    # a comment\n    def group"))
    assert statuses(3)["heavy"] == "done"
    edited(('self.trained["momentum"][n] * step', '0.5 * self.trained["momentum"][n] * step'))
    assert statuses(3)["heavy"] == "needs-training"
    planned = call("plan", "--solvers", "heavy,euler", "--nfe", "3")
    assert "its code or the schedule has changed since it was trained" in planned.output
    sampled = call("zoo", "export", "heavy", "--nfe", "3", "--to", "h.json", code=2)
    assert "its code or the schedule has changed since it was trained" in sampled.stderr
    assert "replaces other parameters" in call("train", "heavy", "--nfe", "3", *SHORT).output
    assert trained_files.load(place).identity != before
    assert statuses(3)["heavy"] == "done"


def test_parameters_of_other_shapes_are_trained_again(call: Callable[..., Result]) -> None:
    call("train", "heavy", "--nfe", "3", *SHORT)
    edited(("torch.zeros(nfe, dtype", "torch.zeros(nfe + 1, dtype"))
    assert "train it again" in call("run", "--solvers", "heavy,euler", "--nfe", "3", *SMALL, code=2).stderr
    call("train", "heavy", "--nfe", "3", *SHORT)
    assert statuses(3)["heavy"] == "done"


def test_without_its_plugin_a_file_is_listed_with_what_to_load(call: Callable[..., Result]) -> None:
    call("train", "heavy", "--nfe", "3", *SHORT)
    registries.solvers.withdraw("heavy")
    told = call("zoo", "list", plugin=False).output
    assert re.search(r"unreadable: .*heavy-nfe3\.safetensors: solver 'heavy': not registered.*--plugin FILE\.py", told)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (('return "times" if', 'return "levels" if'), "'gaps': is in group 'levels'; use times, offsets"),
        (("dtype=torch.float64", "dtype=torch.float32"), "'momentum': starts as .*torch.float32; give finite float64"),
        (('return {"gaps"', 'return {} and {"gaps"'), "has no parameters to train"),
        (('"iterations": 400', '"stages": "offsets"'), "a stage trains offsets, its parameters are coefficients"),
    ],
)
def test_parameters_that_cannot_be_trained_are_refused(
    change: tuple[str, str], said: str, teacher: Teacher, data: Data, tmp_path: Path
) -> None:
    loaded(change)
    recipe = replace(recipes.load("heavy", "digits"), start="", train_size=80, validation_size=40)
    with pytest.raises(TrainingError, match=f"heavy.*{said}"):
        training.train("heavy", 3, teacher, recipe, seed=0, out=tmp_path, data=data)
    assert not list(tmp_path.rglob("*.safetensors"))


def test_what_its_class_says_wins_over_what_the_base_says_of_a_teacher() -> None:
    loaded()
    gs, heavy = recipes.load("gs", "digits"), recipes.load("heavy", "digits")
    assert gs.iterations == 3000
    assert heavy == replace(gs, iterations=400, training_seeds=1)
    loaded(('"training_seeds": 1', '"digits": {"iterations": 7}, "latent": {"iterations": 8}'))
    budgets = [recipes.load("heavy", name, family=family).iterations for name, family in
               (("digits", ""), ("other", "latent"), ("other", "pixel"))]  # fmt: skip
    assert budgets == [7, 8, 400]


def test_without_a_recipe_it_is_trained_as_gs_and_its_own_serves_others() -> None:
    loaded()
    assert recipes.chosen(trained_files.learned("gs:recipe=heavy"), load_teacher("digits")).iterations == 400
    loaded(('    trained_by = {"base": "gs", "iterations": 400, "training_seeds": 1}\n', ""))
    assert recipes.load("heavy", "shapes") == recipes.load("gs", "shapes")
    loaded(('{"base": "gs", "iterations": 400, "training_seeds": 1}', "None"))
    with pytest.raises(MissingError, match="recipe of heavy"):
        recipes.load("heavy", "digits")


@pytest.mark.parametrize(
    ("recipe", "said"),
    [
        ('{"base": "gs", "iteration": 4}', "in its class: there is no setting 'iteration'; did you mean 'iterations'"),
        ('{"base": "gs", "digits": {"speed": 4}}', r"in its class \[digits\]: there is no setting 'speed'"),
        ('{"base": "heavy"}', "form a circle"),
        ('{"iterations": 4}', "missing; give every setting"),
        ('{"base": "gs", "iterations": "many"}', "iterations='many'"),
    ],
)
def test_a_wrong_recipe_in_a_class_is_refused_by_name(recipe: str, said: str) -> None:
    loaded(('{"base": "gs", "iterations": 400, "training_seeds": 1}', recipe))
    with pytest.raises(RecordError, match=f"recipe of heavy.*{said}"):
        recipes.load("heavy", "digits")


@pytest.mark.usefixtures("forked_workers")
def test_the_zoos_own_production_takes_it_along(tmp_path: Path) -> None:
    loaded()
    settings = [word for word in SHORT if word != "--set"]
    tasks, teacher = production.plan("heavy", "3", 1, settings), load_teacher("digits")
    lines = list(production.make(tasks, teacher, tmp_path, jobs=1, seconds=600))
    assert [line.partition("heavy")[2].partition(":")[0] for line in lines] == [" nfe=3 seed=0"]
    assert production.collect(tasks, teacher, tmp_path) == []
    assert (tmp_path / "zoo" / "digits" / "heavy-nfe3.safetensors").is_file()
    assert sampler_plan(teacher)
