"""Recipes: what the packaged ones say, and how wrong ones are refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from solverbench import files, registries, seeds
from solverbench.errors import MissingError, RecordError, SpecError, TrainingError
from solverbench.learned import recipes, trained_files
from solverbench.learned.recipes import Recipe
from solverbench.learned.training import discriminators
from solverbench.learned.training.run import TrainingRun
from solverbench.teachers.teacher import Teacher

TOY = Teacher(lambda x, sigma: x, "someone-elses", (1, 8, 8))
TEACHERS = ("digits", "someone-elses")


@pytest.fixture
def gas() -> Recipe:
    return recipes.load("gas", "digits")


@pytest.mark.parametrize("teacher", TEACHERS)
def test_gas_is_trained_as_gs_but_for_its_adversarial_part(teacher: str) -> None:
    gs, gas = (recipes.load(name, teacher) for name in ("gs", "gas"))
    assert gas.adversarial
    assert not gs.adversarial
    plain = replace(
        gas,
        adversarial_weight=gs.adversarial_weight,
        gamma=gs.gamma,
        discriminator_lr=gs.discriminator_lr,
        widths=gs.widths,
        cardinalities=gs.cardinalities,
        blocks=gs.blocks,
    )
    assert plain == gs


@pytest.mark.parametrize("teacher", TEACHERS)
@pytest.mark.parametrize(
    "solver", ["gs", "gas", "gas_classic", "ld3", "s4s", "s4s_alt", "s4s_joint", "dyweight", "epd", "bns", "dpmv3"]
)
def test_packaged_recipes_use_no_evaluation_seed(solver: str, teacher: str) -> None:
    recipe = recipes.load(solver, teacher)
    assert recipe.train.stop <= recipe.validation.start
    assert recipe.validation.stop <= seeds.EVALUATION_START


def test_a_list_is_read_as_the_recipe_prints_it(gas: Recipe) -> None:
    assert gas.override(["widths=[16, 32]"]).widths == gas.override(["widths=16+32"]).widths == (16, 32)
    with pytest.raises(SpecError, match=r"whole numbers joined with \+"):
        gas.override(["widths=[8, x]"])


def test_settings_override_by_type(gas: Recipe) -> None:
    other = gas.override(["iterations=7", "lr=1e-3", "loss=huber", "widths=16+32", "adversarial_weight=2"])
    assert (other.iterations, other.lr, other.loss, other.widths, other.adversarial_weight) == (
        7, 1e-3, "huber", (16, 32), 2.0,
    )  # fmt: skip
    assert other.batch == gas.batch
    assert gas.start
    assert not gas.override(["start="]).start


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("lrr=3", r"no setting 'lrr'; did you mean 'lr'\?"),
        ("lr", "isn't key=value"),
        ("lr=", "isn't key=value"),
        ("lr=-1", "lr=-1.0: out of range; give a finite number above 0 and at most 1"),
        ("lr=0", "out of range"),
        ("lr=nan", "out of range"),
        ("lr=inf", "out of range"),
        ("lr=fast", "isn't a number"),
        ("batch=2.5", "isn't a whole number"),
        ("iterations=0", "at least 1"),
        ("ema_decay=1.5", "at most 1"),
        ("schedule=sine", "schedule=sine: isn't one of its values; use constant, cosine, linear"),
        ("warmup=1.5", "at most 1"),
        ("loss=l3", "use features, huber, l1, l2"),
        ("widths=8+x", r"whole numbers joined with \+"),
        ("widths=8+0", "widths=0: out of range"),
        ("train_size=50000", "stay within 0-39999"),
        ("train_first=39999", "^train_first=39999, train_size=20000: seeds up to"),
        ("train_size=10", "^batch=32, train_size=10: the batch is larger than train_size; lower batch or raise"),
        ("validation_first=3", "at least 40000"),
        ("validation_size=20000", "stay within 40000-49999"),
        ("batch=30000", "larger than train_size"),
    ],
)
def test_a_wrong_setting_is_refused_in_one_line(gas: Recipe, setting: str, said: str) -> None:
    with pytest.raises(SpecError, match=said) as caught:
        gas.override([setting])
    assert "\n" not in str(caught.value)


def test_a_setting_given_twice_is_refused(gas: Recipe) -> None:
    with pytest.raises(SpecError, match="'lr' is given twice"):
        gas.override(["lr=1e-3", "lr=2e-3"])


def test_a_recipe_survives_json_and_toml(gas: Recipe, tmp_path: Path) -> None:
    assert recipes.of(json.loads(gas.as_json())) == gas
    for changed in (gas, gas.override(["lr=5e-5", "widths=8", "cardinalities=2", "start=", "warm_start=true"])):
        (tmp_path / "mine.toml").write_text(changed.as_toml())
        assert recipes.load("gs", "digits", file=tmp_path / "mine.toml") == changed


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"speed": 1}, "no setting 'speed'"),
        ({"lr": True}, "lr=True: needs float"),
        ({"widths": 8}, "needs a list of int"),
    ],
)
def test_a_stored_recipe_with_a_wrong_entry_is_refused(gas: Recipe, change: dict[str, object], said: str) -> None:
    with pytest.raises(SpecError, match=said):
        recipes.of({**gas.as_dict(), **change})


def test_a_stored_recipe_with_a_missing_entry_is_refused(gas: Recipe) -> None:
    with pytest.raises(SpecError, match="recipe: lr missing"):
        recipes.of({name: value for name, value in gas.as_dict().items() if name != "lr"})


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[any]\nlrr = 1.0", r"\[any\]: there is no setting 'lrr'; did you mean 'lr'"),
        ("[elsewhere]\nspeed = 1", r"\[elsewhere\]: there is no setting 'speed'"),
        ("lr = 1.0", "'lr' outside a table"),
        ("[any", "not TOML"),
        ("[any]\nlr = 1.0", "missing; give every setting"),
        ('base = "mine"', "form a circle"),
    ],
)
def test_a_wrong_recipe_file_is_refused_by_name(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "mine.toml").write_text(text)
    with pytest.raises(RecordError, match=f"mine.*{said}"):
        recipes.load("mine", "digits", tmp_path)


def test_a_solver_without_a_recipe_is_named() -> None:
    with pytest.raises(MissingError, match="recipe of dpm: there is no"):
        recipes.load("dpm", "digits")


def test_what_is_said_for_the_teacher_wins_over_what_is_said_for_any(tmp_path: Path, gas: Recipe) -> None:
    table = "\n".join(f"{name} = {json.dumps(value)}" for name, value in gas.as_dict().items())
    (tmp_path / "old.toml").write_text(f"[any]\n{table}\n[t]\nbatch = 11\nlr = 0.5\n")
    (tmp_path / "new.toml").write_text('base = "old"\n[any]\nbatch = 12\niterations = 13\n[t]\nlr = 0.25\n')
    recipe = recipes.load("new", "t", tmp_path)
    assert (recipe.batch, recipe.iterations, recipe.lr) == (11, 13, 0.25)
    assert recipes.load("new", "u", tmp_path).batch == 12


@pytest.mark.parametrize("solver", ["gs", "gas", "ld3", "s4s", "s4s_alt", "s4s_joint"])
@pytest.mark.parametrize("family", ["pixel", "latent", "stable_diffusion"])
def test_every_method_has_a_recipe_for_every_family_of_teachers(solver: str, family: str) -> None:
    recipe = recipes.load(solver, "someone-elses", family=family)
    assert (recipe.adversarial_weight > 0) == (solver == "gas")
    assert (recipe.radius > 0) == (solver not in ("gs", "gas"))
    assert recipe.batch == {("gs", "pixel"): 24, ("gas", "latent"): 8, ("ld3", "pixel"): 2, ("s4s", "latent"): 1}.get(
        (solver, family), recipe.batch
    )


def test_a_recipe_of_another_name_is_an_option_of_the_solver_and_a_file_of_its_own() -> None:
    classic, usual = trained_files.learned("gas:recipe=gas_classic"), trained_files.learned("gas")
    assert (recipes.chosen(classic, TOY).adversarial_loss, recipes.chosen(usual, TOY).adversarial_loss) == (
        "classic", "relativistic",
    )  # fmt: skip
    assert trained_files.file_name(classic, 4) != trained_files.file_name(usual, 4)
    assert replace(recipes.chosen(classic, TOY), adversarial_loss="relativistic") == recipes.chosen(usual, TOY)


def test_a_recipe_that_is_not_there_is_refused_with_those_that_are() -> None:
    with pytest.raises(SpecError, match=r"gas:recipe=typo: there is no such recipe; use .*gas, gas_classic, gs, ld3"):
        trained_files.learned("gas:recipe=typo")


def test_what_changed_since_is_what_both_have(gas: Recipe) -> None:
    gas = replace(gas, start="", schedule="constant", warmup=0.0)
    made = gas.as_dict() | {"lr": 0.5, "something_of_old": 1, "training_seeds": 7}
    del made["memory"]
    assert recipes.changes(made, gas) == f"lr 0.5, now {gas.lr}"
    assert recipes.changes({}, gas) == ""
    del made["schedule"]  # it was added later, and without it the rate was constant
    falling = replace(gas, schedule="cosine", lr=0.5)
    assert recipes.changes(made, falling) == "schedule constant, now cosine"


def test_a_setting_that_was_added_later_moves_no_training_and_reads_older_records(gas: Recipe) -> None:
    later = (
        "start", "schedule", "warmup", "stop_above", "warm_start",
        "r1_weight", "r2_weight", "discriminator_pretrain", "conditional", "bf16_stages",
    )  # fmt: skip
    gas = replace(gas, start="", schedule="constant", warmup=0.0)
    old = {name: value for name, value in gas.as_dict().items() if name not in later}
    assert gas.as_key() == old
    assert recipes.of(old) == gas
    assert replace(gas, warmup=0.1).as_key() == old | {"warmup": 0.1}
    solver = trained_files.learned("gas")
    folder = TrainingRun(solver, 4, TOY, gas, 0).folder(Path("runs"))
    settings = {name: value for name, value in old.items() if name != "training_seeds"}
    assert folder.name.endswith(files.digest([solver.key, 4, TOY.ode, settings, 0])[:12])
    assert folder != TrainingRun(solver, 4, TOY, replace(gas, schedule="linear"), 0).folder(Path("runs"))


def test_training_on_the_metrics_own_features_needs_a_word(gas: Recipe) -> None:
    with pytest.raises(
        SpecError, match=r"that metrics use, .* or set allow_metric_loss=true, which marks the results in every report"
    ):
        gas.override(["loss=metric_features"])
    assert gas.override(["loss=metric_features", "allow_metric_loss=true"]).loss == "metric_features"
    with pytest.raises(SpecError, match="'yes' isn't true or false"):
        gas.override(["allow_metric_loss=yes"])


def test_a_teacher_that_decodes_is_a_latent_one() -> None:
    assert recipes.chosen(trained_files.learned("gs"), replace(TOY, decode=lambda x: x)).loss == "l1"


FILE = """
[any]
iterations = 77
lr = 5e-3
[digits]
lr = 4e-3
schedule = "cosine"
"""


def test_an_own_file_changes_the_solvers_recipe_on_every_teacher(tmp_path: Path, gas: Recipe) -> None:
    """Its [any] holds also where the recipe beneath has a table for the teacher."""
    (tmp_path / "mine.toml").write_text(FILE)
    digits = replace(TOY, name="digits")
    solver = trained_files.learned("gas")
    mine = recipes.chosen(solver, digits, file=tmp_path / "mine.toml")
    assert mine == replace(gas, iterations=77, lr=4e-3, schedule="cosine")
    other = recipes.chosen(solver, TOY, ["batch=3"], str(tmp_path / "mine.toml"))
    assert other == replace(recipes.chosen(solver, TOY), iterations=77, lr=5e-3, batch=3)
    (tmp_path / "based.toml").write_text('base = "ld3"\n[any]\nadversarial_weight = 0.0\n')
    assert recipes.chosen(solver, digits, file=tmp_path / "based.toml") == recipes.load("ld3", "digits")
    packaged = Path(registries.__file__).parent / "recipes" / "gas.toml"
    assert recipes.chosen(solver, digits, file=packaged) == gas


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[any]\nlrr = 1.0", r"mine.toml \[any\]: there is no setting 'lrr'; did you mean 'lr'"),
        ("lr = 1.0", "'lr' outside a table"),
        ("[any", "mine.toml: not TOML"),
        ("[any]\nlr = 'x'", r"mine.toml for someone-elses: lr='x': needs float"),
        ("base = 'nowhere'", "recipe of nowhere: there is no"),
        (None, "mine.toml: there is no such file; give a TOML file of a recipe"),
    ],
)
def test_a_wrong_own_file_is_refused_in_one_line(tmp_path: Path, text: str | None, said: str) -> None:
    if text is not None:
        (tmp_path / "mine.toml").write_text(text)
    with pytest.raises((RecordError, MissingError), match=said) as caught:
        recipes.chosen(trained_files.learned("gs"), TOY, file=tmp_path / "mine.toml")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("side", "widths"),
    [
        (8, (192, 192)), (16, (384, 384, 384)), (64, (384, 768, 768, 768, 768)), (32, (384, 768, 768, 768, 768)),
        (128, (384, 768, 768, 768, 768)), (256, (96, 192, 384, 768, 768, 768, 768)),
    ],
)  # fmt: skip
def test_a_discriminator_without_sizes_fits_the_images(side: int, widths: tuple[int, ...]) -> None:
    """The default is kept where it fits: at 64 x 64, for which it was published, and at 32 and 128."""
    teacher = replace(TOY, shape=(3, side, side))
    found = recipes.chosen(trained_files.learned("gas"), teacher)
    assert found.widths == widths
    assert found.cardinalities == tuple(width // 8 for width in widths)
    discriminators.check(teacher, found)
    assert recipes.chosen(trained_files.learned("gs"), teacher) == recipes.load("gs", TOY.name)


def test_sizes_that_are_given_are_never_replaced() -> None:
    small = replace(TOY, shape=(1, 16, 16))
    given = recipes.chosen(trained_files.learned("gas"), small, ["widths=8+8+8+8+8"])
    assert given.widths == (8,) * 5
    with pytest.raises(TrainingError, match="5 widths leave 1 x 1 in the last stage"):
        discriminators.check(small, given)
    oblong = recipes.chosen(trained_files.learned("gas"), replace(TOY, shape=(1, 12, 24)))
    discriminators.check(replace(TOY, shape=(1, 12, 24)), oblong)
    assert oblong.widths == (576, 576, 576)
