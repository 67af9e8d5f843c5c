"""The ablation of benchmarks/ablation.py in small: it resumes, names failures, and its numbers are those of a run."""

import csv
import shutil
import types
from pathlib import Path

import alone
import numpy as np
import pytest
from PIL import Image

from solverbench.bench.measure import over_trainings, p_value
from solverbench.bench.outcome import paired
from solverbench.errors import UserError
from solverbench.learned.training.trainer import Trainer
from solverbench.reports.paired import holm
from solverbench.store.leases import Leases
from solverbench.teachers.loading import load_teacher

pytestmark = pytest.mark.usefixtures("unrendered", "remembered", "unregistered")

FOLDER = Path(__file__).parents[2] / "benchmarks"
BRIEF = "iterations = 4, batch = 4, train_size = 8, validation_size = 4, validate_every = 2, training_seeds = 1"
PLAN = f"""
teacher = "digits"
samples = 20
replicates = 1
metrics = "frechet_data,kernel_data,detail_teacher,residual_teacher"
reference = "drawn"
reference_images = 60
against = "brief_gs"
pictures = ["brief_gs", "brief_gas"]
classical = "euler,deis"

[[rows]]
name = "brief_gs"
solver = "gs"
nfe = "3"
seeds = 2
set = {{ {BRIEF} }}

[[rows]]
name = "brief_gas"
solver = "gas"
nfe = "3"
seeds = 2
about = "It's \\"alone\\" first."
set = {{ {BRIEF}, discriminator_pretrain = 2 }}
"""


@pytest.fixture(scope="module")
def ablation() -> types.ModuleType:
    return alone.load(FOLDER / "ablation.py")


def table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as lines:
        return list(csv.DictReader(lines))


def test_an_ablation_from_its_plan_to_its_table(
    ablation: types.ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "plan.toml").write_text(PLAN)
    out = tmp_path / "out"
    asked = [str(tmp_path / "plan.toml"), "--out", str(out)]
    assert ablation.main([*asked, "--list"]) == 1
    listed = capsys.readouterr().out
    assert listed.index("brief_gs nfe=3 seed=1: missing, 4 iter") < listed.index("brief_gas nfe=3 seed=0: missing, 6 i")
    step, steps = Trainer.step, list[str]()

    def stopped(self: Trainer) -> dict[str, float]:
        steps.append(f"{self.job.solver.name} {self.job.seed}")
        if len(steps) == 13:  # in the second training of GAS's discriminator alone
            raise KeyboardInterrupt
        return step(self)

    monkeypatch.setattr(Trainer, "step", stopped)
    with pytest.raises(KeyboardInterrupt):
        ablation.main(asked)
    assert steps[:9] == ["brief_gs 0"] * 4 + ["brief_gs 1"] * 4 + ["brief_gas 0"]
    assert [row["row"] for row in table(out / "trainings.csv")] == ["brief_gs"] * 2
    monkeypatch.setattr(Trainer, "step", step)
    assert ablation.main(asked) == 0
    said = capsys.readouterr().out
    assert "4 of 4 trainings finished" in said
    trainings = table(out / "trainings.csv")
    assert [(row["row"], row["seed"]) for row in trainings] == [
        ("brief_gs", "0"), ("brief_gs", "1"), ("brief_gas", "0"), ("brief_gas", "1"),
    ]  # fmt: skip
    assert all(float(row["validation"]) > 0 and int(row["student_calls"]) > 0 for row in trainings)
    assert all(row["cpu_seconds"] for row in trainings)

    plan = ablation.read(tmp_path / "plan.toml")
    teacher = load_teacher("digits")
    outcomes = ablation.measure(plan, ablation.tasks(plan, teacher), teacher, out, 3)
    assert [ablation.name_of(each) for each in outcomes] == ["brief_gs", "brief_gas", "euler", "deis"]
    gs, gas = outcomes[:2]
    assert gs.cell.trained.record["recipe"]["iterations"] == 4
    assert gas.cell.trained.record["recipe"]["discriminator_pretrain"] == 2
    assert gas.cell.trained.solver.__doc__ == 'It\'s "alone" first.'
    mean = over_trainings([each.measures["detail_teacher"] for each in gas.parts])
    lines = {(row["row"], row["metric"]): row for row in table(out / "table.csv")}
    found = lines["brief_gas", "detail_teacher"]
    assert (float(found["value"]), found["trainings"]) == (pytest.approx(mean.value), "2")
    assert (float(found["low"]), float(found["high"])) == pytest.approx(mean.interval)
    values = [each.measures["detail_teacher"] for each in gas.parts]
    assert found["each"] == "|".join(f"{each.value:.6g}" for each in values)
    difference = paired(gas, gs, "detail_teacher")
    told = [float(found[name]) for name in ("difference", "difference_low", "difference_high")]
    assert told == pytest.approx(difference)
    others = [each.measures["detail_teacher"] for each in outcomes if each is not gs]
    single = [p_value(each, gs.measures["detail_teacher"]) for each in others]
    assert float(found["p"]) == pytest.approx(single[0])
    assert float(found["p_holm"]) == pytest.approx(holm(single)[0])
    assert float(found["p_holm"]) >= float(found["p"])
    assert lines["brief_gs", "detail_teacher"]["difference"] == ""
    assert lines["euler", "rmse_teacher"]["trainings"] == "0"

    text = (out / "table.md").read_text(encoding="utf-8")
    errors = [float(row["validation"]) for row in trainings if row["row"] == "brief_gs"]
    assert f"| `brief_gs` | 2 | {np.mean(errors):.4f} ({min(errors):.4f}–{max(errors):.4f}) |" in text
    assert "Difference from `brief_gs`, paired" in text
    assert ", ".join(each.texts[0] for each in values) in text.partition("Each training, by its seed:")[2]
    assert "Power of the error over the teacher's, dB, by spatial frequency" in text
    with Image.open(out / "strip-nfe3.png") as sheet:
        assert sheet.height == 4 * 4 * 9  # teacher, two rows and the best classical solver, 8 pixels and a gap
    assert ablation.main(asked) == 0  # nothing is trained again


def test_a_training_that_fails_leaves_the_others(
    ablation: types.ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "plan.toml").write_text(PLAN)
    step = Trainer.step

    def failing(self: Trainer) -> dict[str, float]:
        if (self.job.solver.name, self.job.seed) == ("brief_gs", 1):
            raise ablation.RecordError(asked="it", wrong="broke", remedy="mend it")
        return step(self)

    monkeypatch.setattr(Trainer, "step", failing)
    assert ablation.main([str(tmp_path / "plan.toml"), "--out", str(tmp_path / "out"), "--rows", "brief_gs"]) == 1
    said = capsys.readouterr().out
    assert "brief_gs nfe=3 seed=1: FAILED: it: broke" in said
    assert "1 of 2 trainings finished" in said
    assert "| `brief_gs` | 1 |" in (tmp_path / "out" / "table.md").read_text(encoding="utf-8")


def test_finished_trainings_are_kept_next_to_the_plan(
    ablation: types.ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "plan.toml").write_text(PLAN)
    out = tmp_path / "out"
    asked = [str(tmp_path / "plan.toml"), "--rows", "brief_gs", "--out", str(out)]
    assert ablation.main([*asked, "--keep"]) == 0
    kept = sorted(path.name for path in (tmp_path / "plan").iterdir())
    assert [name[:19] for name in kept] == ["brief_gs-nfe3-seed0", "brief_gs-nfe3-seed1", "trainings.csv"]
    before = table(out / "trainings.csv"), table(out / "table.csv")
    shutil.rmtree(out / "trained")
    (out / "trainings.csv").unlink()
    monkeypatch.setattr(Trainer, "step", lambda self: pytest.fail("it was trained again"))
    capsys.readouterr()
    assert ablation.main([*asked, "--list"]) == 0
    assert "brief_gs nfe=3 seed=1: done" in capsys.readouterr().out
    assert ablation.main(asked) == 0
    assert (table(out / "trainings.csv"), table(out / "table.csv")) == before


def test_a_plan_can_be_cut_to_some_numbers_of_calls(ablation: types.ModuleType, tmp_path: Path) -> None:
    path = tmp_path / "plan.toml"
    path.write_text(PLAN.replace('nfe = "3"', 'nfe = "3,4"', 1))
    plan = ablation.read(path)
    assert [(row.name, row.nfe) for row in ablation._budgets(plan, path, [3]).rows] == [
        ("brief_gs", (3,)), ("brief_gas", (3,)),
    ]  # fmt: skip
    only = ablation._budgets(plan, path, [4])
    assert ([row.name for row in only.rows], only.pictures) == (["brief_gs"], ("brief_gs",))
    with pytest.raises(UserError, match="no row has 5 calls"):
        ablation._budgets(plan, path, [3, 5])
    path.write_text(PLAN.replace('nfe = "3"', 'nfe = "4"', 1))
    with pytest.raises(UserError, match="brief_gs has none of these calls"):
        ablation._budgets(ablation.read(path), path, [3])


def test_processes_share_the_trainings(
    ablation: types.ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "plan.toml").write_text(PLAN)
    asked = [str(tmp_path / "plan.toml"), "--out", str(tmp_path / "out"), "--rows", "brief_gs"]
    other = Leases(tmp_path / "out")
    assert other.attempt("training-brief_gs-3-0")
    assert ablation.main(asked) == 1
    said = capsys.readouterr().out
    assert "[1/2] brief_gs nfe=3 seed=0: another process trains it" in said
    assert "other processes train 1 more" in said
    assert not (tmp_path / "out" / "table.md").exists()
    assert [row["seed"] for row in table(tmp_path / "out" / "trainings.csv")] == ["1"]
    other.close()
    assert ablation.main(asked) == 0
    trainings = table(tmp_path / "out" / "trainings.csv")
    assert [row["seed"] for row in trainings] == ["0", "1"]
    assert all(row["cpu_seconds"] for row in trainings)


def test_a_metric_that_cannot_be_measured_is_refused_before_any_training(
    ablation: types.ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(Trainer, "step", lambda self: pytest.fail("it was trained"))
    for was, now in (('"drawn"', '""'), ("samples = 20", "samples = 10")):
        (tmp_path / "plan.toml").write_text(PLAN.replace(was, now))
        assert ablation.main([str(tmp_path / "plan.toml"), "--out", str(tmp_path / "out")]) > 1
        assert "error: metric kernel_data: " in capsys.readouterr().err


@pytest.mark.parametrize(
    ("was", "now", "said"),
    [
        ('against = "brief_gs"', 'against = "gs"', "no row is called 'gs'"),
        ("seeds = 2", "seed = 2", "there is no entry 'seed'"),
        ('solver = "gs"', 'solver = "gs:offsets=false"', "gs:offsets=false has options"),
        ('name = "brief_gas"', 'name = "brief_gs"', "row brief_gs has NFE 3 twice"),
        (f"set = {{ {BRIEF} }}", "", "row brief_gs changes no setting of gs; call it gs"),
        ('teacher = "digits"', "", "'teacher'"),
        ("[[rows]]", "[[rows", "can't be read"),
    ],
)
def test_a_wrong_plan_is_refused_in_one_line(
    ablation: types.ModuleType, tmp_path: Path, was: str, now: str, said: str
) -> None:
    (tmp_path / "plan.toml").write_text(PLAN.replace(was, now, 1))
    with pytest.raises(UserError) as caught:
        ablation.read(tmp_path / "plan.toml")
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_plan_for_shapes_can_be_trained(ablation: types.ModuleType, tmp_path: Path) -> None:
    """Every setting is one of a recipe, and every recipe fits the teacher."""
    plan = ablation.read(FOLDER / "ablation-shapes.toml")
    for row in plan.rows:
        ablation.loaded(row, tmp_path)
    tasks = ablation.tasks(plan, load_teacher("shapes"))
    assert len(tasks) == sum(row.seeds * len(row.nfe) for row in plan.rows)
    usual = {task.solver: task.recipe for task in tasks}
    for row in plan.rows:
        for name, value in row.settings.items():
            now, before = getattr(usual[row.name], name), getattr(usual[row.solver], name)
            assert (list(now) if isinstance(now, tuple) else now) == value
            assert now != before, f"{row.name} changes nothing"
    assert usual["gs_twice"].iterations == 2 * usual["gs"].iterations
