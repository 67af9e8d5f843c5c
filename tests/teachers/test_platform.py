"""Teachers as data: specs, TOML descriptions, recognition, conditions by seed, guidance, decoding, keys."""

import dataclasses
import json
from pathlib import Path

import gaussians
import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import load_file

import solverbench as sb
from solverbench import seeds
from solverbench.bench import resolve, run
from solverbench.bench.protocol import Protocol
from solverbench.bench.run_options import RunOptions
from solverbench.cli.main import main
from solverbench.errors import MissingError, RecordError, SpecError, UnknownNameError, UserError
from solverbench.sampling import sample
from solverbench.teachers.arithmetic import Arithmetic
from solverbench.teachers.conditions import Condition, Guided
from solverbench.teachers.families.description import Description

pytestmark = pytest.mark.usefixtures("unrendered", "few_compared")

SMALL = {"samples": 20, "replicates": 1, "batch": 7}


@pytest.fixture(autouse=True)
def family(monkeypatch, tmp_path):
    gaussians.register()
    monkeypatch.setenv("SOLVERBENCH_DATA", str(tmp_path / "data"))


@pytest.fixture
def checkpoint(tmp_path):
    means = torch.randn(3, 1, 4, 4, generator=torch.Generator().manual_seed(0)) / 2
    return gaussians.write(tmp_path / "three.safetensors", means)


def invoke(*arguments):
    return CliRunner().invoke(main, list(map(str, arguments)), catch_exceptions=False)


def describe(folder: Path, **table):
    path = folder / "mine.toml"
    path.write_text("".join(f"{key} = {json.dumps(value)}\n" for key, value in table.items()))
    return path


def test_a_checkpoint_file_runs_through_the_command_line(checkpoint, tmp_path):
    out = tmp_path / "runs"
    done = invoke("run", "--teachers", f"{checkpoint}:guidance=2", "--solvers", "dpm,unipc", "--nfe", "4-6",
                  "--samples", 20, "--replicates", 1, "--out", out)  # fmt: skip
    assert done.exit_code == 0, done.output
    folder = next((out / "reports").iterdir())
    text = (folder / "report.md").read_text()
    assert "class seed mod 3, guidance 2; the same for every solver" in text
    rows = (folder / "results.csv").read_text().splitlines()[1:]
    assert len(rows) == 6
    again = json.loads((folder / "bundle.json").read_text())["selection"]["teachers"]
    assert again == ["three-guidance=2"]


def test_guidance_doubles_the_passes_and_nothing_else(checkpoint, tmp_path):
    passes = {}
    for weight in ("1", "2.5"):
        frame = run.run(
            RunOptions(solvers="dpm", nfe="4", teachers=f"{checkpoint}:guidance={weight}", out=tmp_path, **SMALL)
        ).frame
        passes[weight] = (frame.nfe.tolist(), frame.net_passes.tolist())
    assert passes == {"1": ([4], [4]), "2.5": ([4], [8])}


def test_options_win_over_the_toml_file_and_its_paths_are_its_own(checkpoint, tmp_path, monkeypatch):
    (tmp_path / "elsewhere").mkdir()
    path = describe(tmp_path, checkpoint=checkpoint.name, guidance=2.0, classes="fixed:1", sampler_nfe=6)
    monkeypatch.chdir(tmp_path / "elsewhere")
    teacher = sb.load_teacher(f"{path}:guidance=3:variance=0.1")
    assert (teacher.condition.guidance, teacher.condition.classes, teacher.sampler_nfe) == (3.0, "fixed:1", 6)
    assert teacher.identity != sb.load_teacher(str(path)).identity
    assert sb.load_teacher(teacher.spec).condition == teacher.condition


def test_a_policy_with_a_colon_is_read_whole(checkpoint):
    assert sb.load_teacher(f"{checkpoint}:classes=fixed:2:guidance=2").condition == Condition(
        "fixed:2", 3, guidance=2.0
    )


@pytest.mark.parametrize(
    ("options", "line"),
    [
        (":guidence=2", "no option 'guidence'; did you mean 'guidance'"),
        (":guidance=two", "guidance=two isn't a finite number"),
        (":guidance=-1", "guidance -1: not a finite number of at least 0"),
        (":classes=fixed:3", "the network has 3; use 0 to 2"),
        (":classes=random", "classes 'random': not a policy"),
        (":prompts=x.txt", "takes no text"),
        (":dtype=int8", "dtype=int8: not a number format"),
        (":guidance=", "isn't key=value"),
        (":guidance=1:guidance=2", "is given twice"),
        (":variance=x", "variance=x isn't a finite number"),
        (":family=none", "family 'none' isn't known"),
    ],
)
def test_a_mistaken_option_is_one_line(checkpoint, options, line):
    with pytest.raises(UserError, match=line):
        sb.load_teacher(f"{checkpoint}{options}")
    told = invoke("run", "--teachers", f"{checkpoint}{options}")
    assert told.exit_code in (2, 3)
    assert told.stderr.count("\n") == 1


def test_files_that_are_no_teacher_are_told_apart(tmp_path):
    with pytest.raises(MissingError, match=r"no such file or folder"):
        sb.load_teacher(str(tmp_path / "absent.pkl"))
    (tmp_path / "notes.txt").write_text("words")
    with pytest.raises(
        RecordError, match=r"no family recognises this checkpoint; give its family, as in \S*notes\.txt:family=edm\. "
    ):
        sb.load_teacher(str(tmp_path / "notes.txt"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(RecordError, match="an empty folder; give a checkpoint's file"):
        sb.load_teacher(str(tmp_path / "empty"))
    with pytest.raises(UnknownNameError, match="did you mean 'digits'"):
        sb.load_teacher("digit")
    with pytest.raises(SpecError, match="has no checkpoint"):
        sb.load_teacher(str(describe(tmp_path, name="x")))
    with pytest.raises(MissingError, match=r"its checkpoint .*gone\.pkl isn't there"):
        sb.load_teacher(str(describe(tmp_path, checkpoint="gone.pkl")))
    with pytest.raises(SpecError, match="no option 'guidnce'; did you mean 'guidance'"):
        sb.load_teacher(str(describe(tmp_path, checkpoint="gone.pkl", guidnce=2)))


def test_rescaled_guidance_has_the_conditional_predictions_deviation():
    """Lin et al. 2023, section 3.4: all of it has that deviation, a share lies between, none is plain guidance."""
    x = torch.randn(3, 1, 4, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    t, labels = torch.tensor(1.0), torch.tensor([1.0, 2.0, 3.0])[:, None, None, None].double()

    def predict(x, t, told):
        return x * told[0] + told[0] ** 2 * x.flip(-1)

    def guided(rescale):
        return Guided(predict, (labels,), (0 * labels + 0.5,), 4.0, rescale)(x, t)

    led, axes = predict(x, t, (labels,)), (1, 2, 3)
    assert torch.allclose(guided(1.0).std(axes), led.std(axes))
    assert torch.allclose(guided(0.25), 0.75 * guided(0.0) + 0.25 * guided(1.0))
    assert float((guided(0.0) - guided(1.0)).abs().max()) > 1


def test_rescaling_is_a_part_of_the_key_unless_there_is_none():
    plain = Condition("seed", 10, guidance=2.0)
    assert "guidance_rescale" not in plain.key
    assert Condition("seed", 10, guidance=2.0, rescale=0.7).key == {**plain.key, "guidance_rescale": 0.7}
    assert "rescaled by 0.7" in str(Condition("seed", 10, guidance=2.0, rescale=0.7))
    with pytest.raises(UserError, match="there is no guidance to rescale; give guidance"):
        Condition("seed", 10, rescale=0.7)
    with pytest.raises(UserError, match=r"guidance_rescale 1\.5: not a share"):
        Condition("seed", 10, guidance=2.0, rescale=1.5)


def test_an_option_of_a_registered_loader_is_typed():
    with pytest.raises(SpecError, match="digits: no option 'guidance'"):
        sb.load_teacher("digits:guidance=2")


def test_an_imported_teacher_is_found_by_its_name(checkpoint, tmp_path):
    folder = tmp_path / "data" / "teachers"
    folder.mkdir(parents=True)
    (folder / "mine.toml").write_text(f'checkpoint = "{checkpoint}"\nname = "mine"\n')
    assert sb.load_teacher("mine").shape == (1, 4, 4)
    with pytest.raises(UnknownNameError, match=r"Imported: mine\."):
        sb.load_teacher("mini")


def test_classes_follow_from_the_seed():
    chosen, shape = range(50_000, 50_100), (1, 4, 4)
    assert Condition("seed", 7).labels(chosen, shape) == [seed % 7 for seed in chosen]
    assert set(Condition("fixed:3", 7).labels(chosen, shape)) == {3}
    drawn = Condition("uniform", 7).labels(chosen, shape)
    assert set(drawn) == set(range(7))
    assert drawn[40:] == Condition("uniform", 7).labels(chosen[40:], shape)
    generator = torch.Generator().manual_seed(50_003)
    noise = torch.randn(shape, generator=generator)
    assert torch.equal(noise, seeds.noise([50_003], shape)[0])
    assert drawn[3] == int(torch.randint(7, (), generator=generator))


def test_prompts_follow_from_the_seed():
    condition = Condition(prompts=("a", "b", "c"), negative="d", guidance=7.5)
    assert condition.lines(range(4, 9)) == ["b", "c", "a", "b", "c"]
    assert condition.key["lines"] == 3
    assert condition.key != Condition(prompts=("a", "b", "d"), negative="d", guidance=7.5).key
    assert condition.key != Condition(prompts=("a", "b", "c"), guidance=7.5).key


def test_guidance_is_one_doubled_batch_with_the_unconditional_rows_first():
    met = []

    def predict(x, t, told):
        met.append((len(x), told[0].flatten().tolist()))
        return x * told[0]

    x, given, absent = torch.ones(2, 1), torch.full((2, 1), 3.0), torch.full((2, 1), 1.0)
    assert Guided(predict, (given,), (absent,), 2.0)(x, torch.tensor(1.0)).tolist() == [[5.0], [5.0]]
    assert met == [(4, [1.0, 1.0, 3.0, 3.0])]
    met.clear()
    for alone in (Guided(predict, (given,), (absent,), 1.0), Guided(predict, (given,), None, 2.0)):
        assert alone(x, torch.tensor(1.0)).tolist() == [[3.0], [3.0]]
    assert met == [(2, [3.0, 3.0])] * 2


def test_the_condition_reaches_every_call_whatever_the_batch(checkpoint):
    teacher = sb.load_teacher(f"{checkpoint}:guidance=2")
    plan = sb.tableau("unipc", nfe=5, teacher=teacher).plan(80.0)
    whole = sample.sample(plan, teacher, range(50_000, 50_012), nfe=5)
    parts = [sample.sample(plan, teacher, part, nfe=5) for part in (range(50_000, 50_005), range(50_005, 50_012))]
    torch.testing.assert_close(whole, torch.cat(parts), atol=1e-5, rtol=0)
    nearest = torch.cdist(whole.flatten(1), load_file(checkpoint)["means"].flatten(1))
    assert nearest.argmin(1).tolist() == [seed % 3 for seed in range(50_000, 50_012)]


def test_the_condition_and_the_arithmetic_are_part_of_the_key(checkpoint, tmp_path):
    def addresses(options):
        asked = RunOptions(solvers="dpm", nfe=4, teachers=f"{checkpoint}{options}", out=tmp_path, **SMALL)
        return resolve.resolve(asked, Protocol.of(asked))[0].address

    found = {addresses(options) for options in ("", ":guidance=2", ":classes=uniform", ":channels_last=true")}
    assert len(found) == 4
    assert addresses("") == addresses(":classes=seed")


def test_a_teacher_without_a_condition_keeps_its_keys():
    asked = RunOptions(solvers="dpm", nfe=4, **SMALL)
    key = resolve.resolve(asked, Protocol.of(asked))[0].key
    assert "condition" not in key
    assert key["dtype"] == "float32"


def test_images_are_what_is_measured_and_pictured(checkpoint, tmp_path):
    def result(options):
        return run.run(
            RunOptions(solvers="dpm", nfe="4", teachers=f"{checkpoint}{options}", out=tmp_path, exact=True, **SMALL)
        )

    plain, doubled = result(""), result(":doubled=true")
    assert plain.cells[0].pictures.shape == (2, 1, 4, 4)
    assert doubled.cells[0].pictures.shape == (2, 1, 8, 8)
    record = json.loads((plain.folder / "bundle.json").read_text())
    assert list(record["conditions"].values()) == [["class 2", "class 0"]]  # seeds 50000 and 50001, mod 3
    for metric in ("rmse_teacher", "rmse_exact"):
        values = [each.cells[0].measures[metric].value for each in (plain, doubled)]
        assert values[0] == pytest.approx(values[1], rel=1e-6)


def test_memory_that_runs_out_halves_the_batch_and_keeps_the_images(checkpoint, tmp_path):
    teacher = sb.load_teacher(str(checkpoint))
    plan = sb.tableau("dpm", nfe=4, teacher=teacher).plan(80.0)
    whole = sample.sample(plan, teacher, range(50_000, 50_010), nfe=4)
    sizes = []

    def tight(denoise):
        def call(x, sigma):
            sizes.append(len(x))
            if len(x) > 3:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate")
            return denoise(x, sigma)

        return call

    fit = sample.BatchLimit(10)
    small = sample.sample(plan, teacher, range(50_000, 50_010), nfe=4, watch=tight, fit=fit)
    assert fit.most == 2
    assert sizes[:2] == [10, 5]
    torch.testing.assert_close(small, whole, atol=1e-5, rtol=0)

    def none(denoise):
        def call(x, sigma):
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate")

        return call

    with pytest.raises(sample.SampleError, match=r"memory is too small \(CUDA out of memory\)"):
        sample.sample(plan, teacher, range(2), nfe=4, watch=none)


def test_a_moved_teacher_keeps_its_name(checkpoint):
    teacher = sb.load_teacher(f"{checkpoint}:guidance=2")
    moved = dataclasses.replace(teacher, device="elsewhere").to("cpu")
    assert (moved.name, moved.spec, moved.device) == (teacher.name, teacher.spec, "cpu")
    assert teacher.name == "three-guidance=2"


def text_model(prompts, **changes):
    """The condition of a description whose network takes text."""
    return Description(Path("x"), name="sd", family="any", prompts=prompts, **changes).condition(text=True, absent=True)


def test_prompts_are_the_lines_of_a_file(tmp_path):
    path = tmp_path / "captions.txt"
    path.write_text("a cat\n\n  a dog  \n", encoding="utf-8")
    condition = text_model(path, guidance=7.5, negative="blurry", prompt_count=2)
    assert (condition.prompts, condition.guidance, condition.negative) == (("a cat", "a dog"), 7.5, "blurry")
    with pytest.raises(UserError, match="has 2 prompts, but 30000 are asked for; give more, or another prompt_count"):
        text_model(path, prompt_count=30_000)
    with pytest.raises(UserError, match="needs prompts; add :prompts=FILE"):
        text_model(None)
    with pytest.raises(MissingError, match=r"sd:prompts=\S*none\.txt: can't be read"):
        text_model(tmp_path / "none.txt")
    path.write_text("\n")
    with pytest.raises(UserError, match="has 0 prompts"):
        text_model(path)


def test_fewer_prompts_than_images_are_said_in_the_report(checkpoint, tmp_path):
    teacher = sb.load_teacher(str(checkpoint))
    spoken = dataclasses.replace(teacher, condition=Condition(prompts=("a", "b")))
    result = run.run(RunOptions(solvers="dpm", nfe="4", teachers=spoken, out=tmp_path, **SMALL))
    notes = json.loads((result.folder / "bundle.json").read_text())["notes"]
    assert any("has 2 prompts for 20 images a replicate" in note for note in notes)


def test_the_training_command_names_the_file_with_its_options(checkpoint, tmp_path):
    planned = invoke(
        "plan", "--teachers", f"{checkpoint}:guidance=2", "--solvers", "gs", "--nfe", "3", "--out", tmp_path
    )
    assert f"--teacher {checkpoint}:guidance=2" in planned.stdout


def test_compilation_is_recorded_and_asked_for_once(monkeypatch):
    met = []
    monkeypatch.setattr(torch, "compile", lambda network: met.append(network) or network)
    chosen = Arithmetic(compile=True, channels_last=True)
    network = chosen.prepare(torch.nn.Conv2d(2, 2, 3), "cpu")
    assert met == [network]
    assert chosen.label == "float32 channels_last compiled"
    assert network.weight.is_contiguous(memory_format=torch.channels_last)
    assert not network.weight.requires_grad
    assert Arithmetic().label == "float32"
