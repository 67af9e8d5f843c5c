"""Feature extractors of plugins: in references, runs, the audit and Python, and the checks of `solverbench check`."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import toys
from plugged import EXAMPLES

import solverbench as sb
from solverbench import plugins, registries, seeds
from solverbench.bench import run as runner
from solverbench.bench.own_samples import Sampled
from solverbench.bench.run_options import RunOptions
from solverbench.conformance.suite import FAIL, run_all
from solverbench.errors import FeatureError, PluginError, UserError
from solverbench.evaluation import floors, references
from solverbench.evaluation.selection import MetricSelection
from solverbench.metrics.extractors import plugin
from solverbench.metrics.frechet import Moments, frechet
from solverbench.metrics.quantise import quantise

pytestmark = pytest.mark.usefixtures("unrendered", "remembered", "few_compared")

CLASS = """
import torch
import solverbench as sb


class Mine(sb.Extractor):
    \"\"\"Means of 2x2 pixels.\"\"\"

    name = "mine"
    channels = 1
{more}
    def features(self, images):
        rows = torch.nn.functional.avg_pool2d(images.float(), 2).flatten(1)
        {body}
"""


@pytest.fixture
def mine(tmp_path, monkeypatch):
    """Write and load mine.py; returns its path."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SOLVERBENCH_DATA", str(tmp_path / "data"))

    def write(body="return rows", more=""):
        Path("mine.py").write_text(CLASS.format(body=body, more=more))
        registries.extractors.withdraw("mine")
        sb.load_plugin("mine.py")
        return "mine.py"

    yield write
    registries.extractors.withdraw("mine")


def rows_of(images):
    return torch.nn.functional.avg_pool2d(images.float(), 2).flatten(1).double().numpy()


def run(out, teacher=None, **options):
    small = {"solvers": "euler", "nfe": 3, "samples": 60, "replicates": 1, "teachers": teacher or toys.teacher()}
    return runner.run(RunOptions(**{**small, "out": out, **options}))


def images_of(teacher, solver="euler", nfe=3, of=range(50_000, 50_060)):
    plan = sb.tableau(solver, nfe=nfe, teacher=teacher).plan(teacher.schedule.prior_scale)
    return quantise(sb.execute(plan, teacher.denoise, seeds.noise(of, toys.SHAPE)))


def photos(count=200, seed=3):
    """Toy images in an array, as a user has them."""
    levels = quantise(toys.data(count, seed=seed))
    np.save("photos.npy", levels.numpy())
    return levels


def test_it_measures_a_teacher_that_has_no_features(mine, tmp_path, invoke):
    file, real = mine(), photos()
    words = ["--extractor", "mine", "--plugin", file, "--out", tmp_path / "runs"]
    assert invoke("refs", "build", "toy", "photos.npy", *words).exit_code == 0
    teacher = toys.teacher(evaluation=None)
    result = run(tmp_path / "runs", teacher, extractor="mine")
    found = result.frame.set_index("metric")
    samples = Moments.of(rows_of(images_of(teacher)))
    assert found.loc["frechet_data", "value"] == pytest.approx(frechet(samples, Moments.of(rows_of(real))), rel=1e-4)
    own = torch.cat(list(Sampled(teacher, 120).read(range(120))))
    own_value = frechet(samples, Moments.of(rows_of(own)))
    assert found.loc["frechet_teacher", "value"] == pytest.approx(own_value, rel=1e-4), "twice a replicate's images"
    identity = plugin.load("mine", "cpu").identity
    assert found.loc["frechet_data", "extractor"] == identity
    assert identity.startswith("mine@")
    assert result.cells[0].cell.key["evaluation"]["extractor"] == identity
    assert "extractor mine" in result.cells[0].cell.plugins
    again = run(tmp_path / "runs", teacher, extractor="mine")
    assert again.counts["cached"] == 1
    names = [name for name, _ in references.listed(tmp_path / "runs")]
    assert len(names) == 2, "the teacher's own samples are made once"


def test_its_floors_are_lines_of_the_report(mine, tmp_path, invoke):
    file, real = mine(), photos()
    invoke("refs", "build", "toy", "photos.npy", "--extractor", "mine", "--plugin", file, "--out", tmp_path / "runs")
    folder = run(tmp_path / "runs", toys.teacher(evaluation=None), extractor="mine").folder
    lines = {each["label"].split(",")[0]: each for each in json.loads((folder / "bundle.json").read_text())["lines"]}
    assert set(lines) == {"data floor", "teacher floor", "teacher"}
    assert lines["data floor"]["n"] == lines["teacher floor"]["n"] == 60
    order = np.random.default_rng(0).permutation(200)
    features = rows_of(real)[order]
    expected = frechet(Moments.of(features[:60]), Moments.of(features[60:]))
    assert lines["data floor"]["value"] == pytest.approx(expected, rel=1e-4)
    assert lines["data floor"]["low"] < expected < lines["data floor"]["high"]
    assert lines["teacher"]["metric"] == lines["data floor"]["metric"] == "frechet_data"


def test_a_floor_is_the_mean_of_disjoint_sets_and_needs_vectors():
    rows = np.random.default_rng(1).standard_normal((1200, 4))
    made = sb.Reference.of(rows, "normal")
    found = floors.distance(made, None, 100)
    mixed = rows[np.random.default_rng(0).permutation(1200)]
    parts = [mixed[100 * k : 100 * (k + 1)] for k in range(5)]
    rests = [np.concatenate([mixed[: 100 * k], mixed[100 * (k + 1) :]]) for k in range(5)]
    each = [frechet(Moments.of(part), Moments.of(rest)) for part, rest in zip(parts, rests, strict=True)]
    assert found["mean"] == pytest.approx(np.mean(each), rel=1e-6)
    assert found["sets"] == 5
    few = floors.distance(sb.Reference.of(rows[:6], "few"), None, 100)
    assert few is None
    wide = sb.Reference.of(np.random.default_rng(2).standard_normal((60, 100)), "wide")
    assert floors.distance(wide, None, 100)["n"] == 30, "half of the images, fewer than features"
    bare = dataclasses.replace(made, features=None)
    assert floors.distance(bare, None, 100) is None
    assert floors.distance(made, bare, 100)["n"] == 100


def test_the_teachers_own_samples_are_those_of_the_smallest_sufficient_set(mine, tmp_path):
    mine()
    photos()
    teacher = toys.teacher(evaluation=sb.Evaluation.of("photos.npy", "mine"))
    first = run(tmp_path / "runs", teacher, metrics="frechet_teacher")
    larger = run(tmp_path / "runs", teacher, metrics="frechet_teacher", samples=200)
    again = run(tmp_path / "runs", teacher, metrics="frechet_teacher")
    assert again.cells[0].cell.address == first.cells[0].cell.address
    names = [each.cells[0].measures["frechet_teacher"].reference for each in (first, larger)]
    assert "120 images" in names[0]
    assert "400 images" in names[1]


def test_own_samples_that_fail_are_a_row_with_the_reason(mine, tmp_path, monkeypatch):
    mine()
    photos()
    teacher = toys.teacher(evaluation=sb.Evaluation.of("photos.npy", "mine"))

    def broken(*_):
        raise PluginError(asked="teacher", wrong="too hot", remedy="cool it")

    monkeypatch.setattr(Sampled, "_made", broken)
    result = run(tmp_path / "runs", teacher, metrics="frechet_data,frechet_teacher")
    found = result.frame.set_index("metric")
    assert found.loc["frechet_data", "value"] > 0
    assert "too hot" in found.loc["frechet_teacher", "reason"]
    assert result.exit_code == 1


def test_an_evaluation_of_images_takes_a_file_an_array_a_class_and_an_instance(mine, tmp_path):
    mine()
    real = photos()
    cls = registries.extractors.get("mine")
    made = [
        sb.Evaluation.of("photos.npy", "mine"),
        sb.Evaluation.of(real, "mine"),
        sb.Evaluation.of(real.numpy(), cls),
        sb.Evaluation.of(real, cls()),
    ]
    assert len({each.extractor_id for each in made}) == 1
    assert len({each.data.sha for each in made[1:]}) == 1
    for each in made:
        assert frechet(each.data.moments, Moments.of(rows_of(real))) == pytest.approx(0, abs=1e-4)
    assert len(list((tmp_path / "data" / "references").glob("photos-*.npz"))) == 1
    for bad in (real.float(), real[0], real[:1]):
        with pytest.raises(UserError, match="two or more uint8 images"):
            sb.Evaluation.of(bad, "mine")
    with pytest.raises(UserError, match="no such file or folder"):
        sb.Evaluation.of("nowhere", "mine")
    with pytest.raises(UserError, match="did you mean 'mine'"):
        sb.Evaluation.of(real, "mien")


def test_changed_images_and_a_changed_extractor_are_other_references(mine, tmp_path):
    mine()
    photos()
    first = sb.Evaluation.of("photos.npy", "mine")
    photos(seed=4)
    second = sb.Evaluation.of("photos.npy", "mine")
    assert first.data.sha != second.data.sha
    mine(body="return 2 * rows")
    third = sb.Evaluation.of("photos.npy", "mine")
    assert third.extractor_id != second.extractor_id
    assert third.data.sha != second.data.sha
    assert sb.load_plugin("mine.py").Mine().identity == ""
    mine(more="    identity = 'weights of May'\n")
    assert plugin.load("mine", "cpu").identity not in (first.extractor_id, third.extractor_id)


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("return rows[0]", r"returned \(4,\) for 2 images; return a tensor \[B, D\]"),
        ("return rows.numpy()", "returned ndarray for 2 images"),
        ("return rows - rows.mean(0)", r"an image alone has other features than in a batch of 2 \(.*% apart\)"),
        ("return rows + 30 * torch.randn(rows.shape)", "an image alone has other features"),
        ("raise ValueError('no weights')", r"mine\.py:14: ValueError: no weights"),
    ],
)
def test_features_that_are_none_are_refused_with_the_reason(mine, body, said):
    mine(body)
    with pytest.raises((FeatureError, PluginError), match=said):
        plugin.load("mine", "cpu")(quantise(toys.data(2)))


def test_a_failing_extractor_is_a_row_with_the_reason(mine, tmp_path, invoke):
    """The reference is built; on the samples, which are another kind of images, it fails."""
    file = mine("assert images.float().std() > 1, 'blank'\n        return rows")
    photos()
    invoke("refs", "build", "toy", "photos.npy", "--extractor", "mine", "--plugin", file, "--out", tmp_path / "runs")
    blank = toys.teacher(lambda x, sigma: 0 * x, evaluation=None)
    result = run(tmp_path / "runs", blank, extractor="mine", metrics="frechet_data")
    found = result.frame.set_index("metric")
    assert "blank" in found.loc["frechet_data", "reason"]
    assert np.isfinite(found.loc["rmse_teacher", "value"])
    assert result.exit_code == 1


def test_grey_and_coloured_images_reach_it_as_it_declares():
    grey, colour = quantise(toys.data(3)), torch.arange(24).reshape(2, 3, 2, 2).to(torch.uint8)
    assert plugin.coloured(grey, 3, "mine").equal(grey.expand(-1, 3, -1, -1))
    assert plugin.coloured(grey.expand(-1, 3, -1, -1), 1, "mine").equal(grey)
    with pytest.raises(FeatureError, match=r"takes grey images, but these are coloured; .*`channels` in its class"):
        plugin.coloured(colour, 1, "mine")
    with pytest.raises(FeatureError, match="takes 3 channels, not 4"):
        plugin.coloured(torch.zeros(1, 4, 2, 2, dtype=torch.uint8), 3, "mine")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"metrics": "fid", "extractor": "mine"}, "extractor 'mine': not one of legacy_tensorflow"),
        (
            {"metrics": "fdd", "extractor": "mine"},
            "extractor mine: no metric asked for uses it; add --metrics frechet",
        ),
        ({"metrics": "psnr_teacher", "extractor": "mine"}, "no metric asked for uses it"),
        ({"metrics": "frechet_data", "extractor": "clean"}, "no metric asked for uses it; add --metrics fid"),
        ({"metrics": None, "extractor": "clean"}, "no metric asked for uses it; add --metrics fid"),
        ({"metrics": None, "extractor": "mien"}, "extractor 'mien': not known; did you mean 'mine'"),
        ({"metrics": None, "reference": "real"}, "no metric asked for uses it"),
    ],
)
def test_a_selection_that_no_metric_uses_is_refused(mine, options, said):
    mine()
    with pytest.raises(UserError, match=said):
        MetricSelection.of(**options)


def test_the_metrics_of_own_features_take_a_public_network_too():
    assert MetricSelection.of("kernel_data", extractor="dinov2").extractor == "dinov2"


def test_the_audit_computes_its_metrics_again_where_the_plugin_is_known(mine, tmp_path, invoke):
    file = mine()
    words = ["--plugin", file, "--out", tmp_path / "runs"]
    assert invoke("refs", "build", "digits", "digits", "--count", 100, "--extractor", "mine", *words).exit_code == 0
    run(tmp_path / "runs", "digits", samples=20, extractor="mine", metrics="frechet_data")
    assert "1 of 1 cells: metrics recomputed" in invoke("store", "verify", *words).stdout
    registries.extractors.withdraw("mine")
    said = invoke("store", "verify", "--out", tmp_path / "runs").stdout
    assert "its extractor 'mine' isn't known here; give --plugin for it" in said


def failures(cls):
    return {each.name: each.finding for each in run_all(cls) if each.status == FAIL}


def test_the_checks_pass_an_extractor_and_find_what_is_wrong(mine):
    good = mine() and registries.extractors.get("mine")
    assert failures(good) == {}
    bad = {
        "return rows.sum(1)": {"vectors", "batch", "repeatable", "inputs", "distinguishes"},
        "return rows / 0": {"vectors"},
        "return rows - rows.mean(0)": {"batch"},
        "return rows + 30 * torch.randn(rows.shape)": {"batch", "repeatable"},
        "images //= 2; return rows": {"inputs"},
        "return 0 * rows": {"distinguishes"},
    }
    for body, names in bad.items():
        mine(body)
        assert names <= set(failures(registries.extractors.get("mine"))), body
    mine(more="    def __init__(self, device='cpu'):\n        self.device, self.identity = device, str(id(self))\n")
    assert set(failures(registries.extractors.get("mine"))) == {"identity"}


def test_check_finds_an_extractor_by_file_and_by_name(mine, invoke):
    file = mine()
    by_file = invoke("check", file)
    assert by_file.exit_code == 0
    assert by_file.stdout.count("pass") == 8
    assert invoke("check", "mine", "--plugin", file).exit_code == 0
    assert "is a built-in extractor; only solvers, teachers and extractors" in invoke("check", "clip").stderr
    listed = invoke("list", "extractors", "--plugin", file)
    assert "Means of 2x2 pixels" in listed.stdout
    assert "dinov2" in listed.stdout
    assert "kind     extractor" in invoke("info", "mine", "--plugin", file).stdout


def test_one_that_is_typed_in_a_notebook_needs_an_identity():
    class Typed(sb.Extractor):
        name = "typed"

        def features(self, images):
            return images.flatten(1).float()

    made = Typed()
    registries.extractors.withdraw("typed")
    sb.register(Typed)
    try:
        assert plugin.Plugged(made).identity.startswith("typed@")
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(plugins, "provenance", lambda registry, name: {})
            with pytest.raises(PluginError, match="define it in a file, or give it an `identity`"):
                plugin.Plugged(made)
    finally:
        registries.extractors.withdraw("typed")


def test_every_builtin_extractor_is_registered():
    from solverbench.metrics import extractors

    assert set(extractors.NAMES) == set(registries.extractors.builtin)
    assert all(registries.extractors.get(name) for name in extractors.NAMES)
    assert "patches.py" in EXAMPLES
    assert pd.notna(registries.extractors.about("clip"))
