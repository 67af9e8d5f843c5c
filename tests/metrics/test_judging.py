"""Metrics of a teacher's own features and of pairs, through a run; none of it needs an optional package."""

import dataclasses
import json
import sys

import numpy as np
import pytest
import torch
import toys

import solverbench as sb
from solverbench import extras, files, seeds
from solverbench.bench import run
from solverbench.bench.run_options import RunOptions
from solverbench.errors import UserError
from solverbench.evaluation import selection
from solverbench.metrics import reduction
from solverbench.metrics import vectors as features
from solverbench.metrics.evaluation import Reference
from solverbench.metrics.frechet import Moments, frechet
from solverbench.metrics.quantise import quantise

pytestmark = pytest.mark.usefixtures("unrendered", "remembered")

SMALL = {"solvers": "euler", "nfe": 3, "samples": 200, "replicates": 2}


@pytest.fixture
def reference(tmp_path, monkeypatch):
    """Name of a stored reference with the feature vectors of 300 toy images."""
    monkeypatch.setenv("SOLVERBENCH_DATA", str(tmp_path / "data"))
    rows = toys.extractor(quantise(toys.data(300))).numpy()
    told = {"name": "real", "origin": "toys", "kind": "images", "extractor": "toy-projection", "n": 300, "split": "all"}
    arrays = {"mu": rows.mean(0).astype(float), "sigma": np.cov(rows.astype(float), rowvar=False), "features": rows}
    about = np.frombuffer(files.canonical(told).encode(), dtype=np.uint8)
    files.write_arrays(tmp_path / "references" / "real.npz", {**arrays, "about": about})
    return "real"


def made(replicate):
    """The features of a replicate's images, made again in one batch."""
    teacher = toys.teacher()
    plan = sb.tableau("euler", nfe=3, teacher=teacher).plan(teacher.schedule.prior_scale)
    images = sb.execute(plan, teacher.denoise, seeds.noise(replicate, toys.SHAPE))
    return toys.extractor(quantise(images)).double().numpy()


def test_each_metric_is_that_of_all_its_images(tmp_path, reference):
    names = "frechet_data,frechet_data_inf,kernel_data,precision_data,recall_data"
    options = SMALL | {"teachers": toys.teacher(), "out": tmp_path, "metrics": names, "reference": reference}
    [outcome] = run.run(RunOptions(**options)).cells
    measures = outcome.measures
    assert set(measures) == {*names.split(","), "rmse_teacher"}
    real = toys.extractor(quantise(toys.data(300))).double().numpy()
    for number, replicate in enumerate((range(50_000, 50_200), range(50_200, 50_400))):
        rows = made(replicate)
        blocks = np.split(rows, 10)
        assert measures["frechet_data"].replicates[number] == pytest.approx(
            frechet(Moments.of(rows), Moments.of(real)), rel=1e-5
        )
        manifold = features.manifold(blocks, real)
        assert measures["precision_data"].replicates[number] == pytest.approx(manifold["precision"][0], abs=0.01)
        assert measures["recall_data"].replicates[number] == pytest.approx(manifold["recall"][0], abs=0.01)
        kernel = features.kernel_blocks(blocks, real).mean()
        assert measures["kernel_data"].replicates[number] == pytest.approx(kernel, rel=1e-3)
    plain, left = measures["frechet_data"].replicates, measures["frechet_data"].leave_one_out
    assert measures["frechet_data_inf"].replicates == pytest.approx(10 * plain - 9 * left.mean(1))
    assert measures["precision_data"].n == 200 <= reduction.MANIFOLD


def test_another_metric_or_quantiser_is_another_cell_and_the_default_is_as_it_was(tmp_path):
    teacher = toys.teacher()
    keys = []
    for options in ({}, {"metrics": "frechet_data"}, {"quantiser": "adm-floor"}, {"metrics": "psnr_teacher"}):
        [outcome] = run.run(RunOptions(**SMALL, teachers=teacher, out=tmp_path, **options)).cells
        keys.append(outcome.cell.key)
    assert len({files.digest(key) for key in keys}) == 4
    assert set(keys[0]["evaluation"]) == {"quantiser", "extractor", "data", "teacher"}
    assert "pairs" not in keys[0]
    assert keys[2]["evaluation"]["quantiser"] == "adm-floor"


def test_the_floor_rule_reaches_the_features(tmp_path):
    found = [
        run.run(RunOptions(**SMALL, teachers=toys.teacher(), out=tmp_path, quantiser=rule))
        .cells[0]
        .measures["frechet_data"]
        .value
        for rule in ("edm-round", "adm-floor")
    ]
    assert found[0] != found[1]
    assert found[0] == pytest.approx(found[1], rel=0.2)


def test_psnr_and_lpips_are_means_over_pairs(tmp_path, monkeypatch):
    """With a package of lpips's interface whose distance is the mean absolute difference."""
    (tmp_path / "packages").mkdir()
    (tmp_path / "packages" / "lpips.py").write_text(
        "import torch\n"
        "class LPIPS(torch.nn.Module):\n"
        "    def __init__(self, net, verbose):\n"
        "        super().__init__()\n"
        "        assert net == 'vgg'\n"
        "    def forward(self, a, b):\n"
        "        assert a.shape[1] == 3\n"
        "        return (a - b).abs().mean((1, 2, 3), keepdim=True)\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path / "packages"))
    monkeypatch.delitem(sys.modules, "lpips", raising=False)
    teacher = toys.teacher()
    [outcome] = run.run(
        RunOptions(**SMALL, teachers=teacher, out=tmp_path / "o", metrics="lpips_teacher,psnr_teacher")
    ).cells
    monkeypatch.delitem(sys.modules, "lpips")
    assert set(outcome.measures) == {"lpips_teacher", "psnr_teacher", "rmse_teacher"}
    images, goals = (
        sb.execute(
            sb.tableau(solver, nfe=nfe, teacher=teacher).plan(teacher.schedule.prior_scale),
            teacher.denoise,
            seeds.noise(range(50_000, 50_200), toys.SHAPE),
        ).double()
        for solver, nfe in (("euler", 3), (teacher.sampler, teacher.sampler_nfe))
    )
    mse = (images - goals).square().flatten(1).mean(1)
    assert outcome.measures["psnr_teacher"].replicates[0] == pytest.approx(
        float((10 * (4 / mse).log10()).mean()), rel=1e-4
    )
    expected = (images.clamp(-1, 1) - goals.clamp(-1, 1)).abs().mean()
    assert outcome.measures["lpips_teacher"].replicates[0] == pytest.approx(float(expected), rel=1e-4)


def test_without_lpips_the_rest_is_measured_and_its_rows_name_the_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "lpips", None)
    options = SMALL | {"teachers": toys.teacher(), "out": tmp_path, "metrics": "lpips_teacher,psnr_teacher"}
    result = run.run(RunOptions(**options))
    rows = result.frame.set_index("metric")
    assert np.isfinite(rows.loc[["psnr_teacher", "rmse_teacher"], "value"]).all()
    assert extras.install("lpips") in rows.loc["lpips_teacher", "reason"]
    assert result.exit_code == 0
    assert result.strict_exit_code == 5
    assert "no lpips_teacher of toy: metric lpips_teacher: the lpips package can't be" in result.summary()
    from solverbench import reports

    both = run.run(RunOptions(**options | {"solvers": "euler,dpm:order=2"}))
    reports.write(both.folder)
    for name in ("table-toy-lpips_teacher.md", "table-toy-lpips_teacher.tex"):
        text = (both.folder / name).read_text(encoding="utf-8")
        assert text.count("no value: every solver: metric lpips") == 1, name
        assert "No value." in text, name
    alone = run.run(RunOptions(**options | {"metrics": "psnr_teacher"})).cells[0]
    assert alone.cell.address == result.cells[0].cell.address, "what isn't measured is no part of the cell"


def test_without_the_weights_of_lpips_its_rows_say_where_they_go(tmp_path, monkeypatch):
    (tmp_path / "lpips.py").write_text("def LPIPS(net, verbose):\n    raise OSError('no route to host')\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "lpips", raising=False)
    result = run.run(RunOptions(**SMALL, teachers=toys.teacher(), out=tmp_path / "o", metrics="lpips_teacher"))
    monkeypatch.delitem(sys.modules, "lpips")
    reason = result.frame.set_index("metric").loc["lpips_teacher", "reason"]
    assert "no route to host" in reason
    assert "vgg16-397923af.pth" in reason
    assert result.counts["done"] == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"metrics": "kernel_data"}, "holds only moments, no feature vectors"),
        ({"metrics": "kernel_data", "reference": "real", "samples": 10}, "10 samples are too few, one a block"),
        ({"metrics": "recall_data", "reference": "nowhere"}, "reference 'nowhere': neither a file nor stored"),
        ({"protocol": "papers"}, "protocol 'papers': not known; use smoke, quick, paper"),
    ],
)
def test_what_can_not_be_judged_is_refused_before_anything_is_written(tmp_path, reference, options, message):
    with pytest.raises(UserError, match=message) as caught:
        run.run(RunOptions(**SMALL | {"teachers": toys.teacher(), "out": tmp_path / "o"} | _placed(options, tmp_path)))
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "o").exists()


def _placed(options, tmp_path):
    """The stored reference by its path, since the results go elsewhere."""
    if options.get("reference") == "real":
        (tmp_path / "data" / "references").mkdir(parents=True)
        (tmp_path / "references" / "real.npz").rename(tmp_path / "data" / "references" / "real.npz")
    return options


def test_protocols_set_images_and_replicates_unless_the_user_does():
    assert selection.protocol("paper", None, None, 10_000) == (50_000, 1)
    assert selection.protocol("quick", None, 2, 10_000) == (5_000, 2)
    assert selection.protocol("smoke", 40, None, 10_000) == (40, 1)
    assert selection.protocol(None, None, None, 10_000) == (10_000, None)


def test_fewer_images_than_the_metric_needs_are_called_biased_everywhere(tmp_path):
    result = run.run(RunOptions(**SMALL, teachers=toys.teacher(), out=tmp_path))
    rows = result.frame.set_index("metric")
    assert rows.loc["frechet_data", "biased"]
    assert not rows.loc["rmse_teacher", "biased"]
    assert rows.loc["frechet_data", "metric_id"].startswith("frechet_data:toy-projection|n=200x2|ref=toy-data@")
    assert "(biased, n=200)" in result.cells[0].summary
    from solverbench import reports

    reports.write(result.folder)
    for name in ("table-toy-frechet_data.md", "report.md", "table-toy-frechet_data.tex"):
        assert "biased: fewer than 10 000" in (result.folder / name).read_text(), name
    assert "biased" not in (result.folder / "table-toy-rmse_teacher.md").read_text()


def test_features_of_few_images_are_kept_and_many_stored_as_a_triangle(tmp_path):
    from solverbench.store.folder import LARGE, BlockResult, Store

    rows = torch.randn(5, LARGE).double().numpy()
    folder = Store(tmp_path).cell({"a": 1})
    folder.write_block(range(5), BlockResult(Moments.of(rows), 3, np.empty((0, 1, 4, 4), np.uint8), {}))
    again = folder.read_block(range(5)).moments
    assert again is not None
    assert np.array_equal(again.outer, Moments.of(rows).outer)
    assert next(tmp_path.glob("**/*.npz")).stat().st_size < 0.6 * LARGE**2 * 8


def test_precision_and_recall_are_of_ten_thousand_images_and_biased_below_that_alone(tmp_path):
    from solverbench.teachers.loading import load_teacher

    digits = load_teacher("digits")
    judged = dataclasses.replace(digits.evaluation, full=selection.FULL)
    papers, own = (
        selection.Measurement(selection.MetricSelection(), "cpu", each) for each in (judged, digits.evaluation)
    )
    assert papers.full("fid") == 50_000
    assert papers.full("precision") == papers.full("recall") == 10_000
    assert own.full("precision_data") == 10_000
    assert not any(papers.full(metric) for metric in ("kid", "rmse_teacher", "psnr_teacher"))
    assert own.full("frechet_data_inf") == 640, "ten images for each of 64 features"


def test_lines_of_the_teacher_and_the_data_stand_beside_numbers_of_the_same_reference_and_quantiser_alone(tmp_path):
    from solverbench.evaluation import reference_build

    reference_build.build("real", "digits", tmp_path, extractor_name="digits", count=100)
    options = {"solvers": "euler", "nfe": 3, "teachers": "digits", "samples": 20, "replicates": 1, "out": tmp_path}

    def lines(**judged):
        folder = run.run(RunOptions(**options, **judged)).folder
        record = json.loads((folder / "bundle.json").read_text(encoding="utf-8"))
        floors[:] = [line["value"] for line in record["lines"] if line["label"] == "data floor"]
        return {line["label"] for line in record["lines"]}

    floors: list[float] = []
    assert {label.split(",")[0] for label in lines()} == {"teacher", "data floor", "teacher floor"}
    shipped = floors[0]
    assert lines(metrics="frechet_data,frechet_teacher", reference="real") == {"data floor", "teacher floor"}
    assert floors != [shipped], "that reference's own"
    assert lines(quantiser="adm-floor") == set()
    rows = run.run(RunOptions(**options, quantiser="adm-floor")).frame.set_index("metric")
    assert rows.loc["frechet_teacher", "reference"].endswith(", by edm-round")
    assert rows.loc["frechet_teacher", "quantiser"] == "adm-floor"
    assert lines(quantiser="edm-round") == lines()


def test_each_distance_is_to_its_own_reference(tmp_path):
    toy = toys.teacher()
    rows = {name: toys.extractor(quantise(scale * toys.data(150))).double() for name, scale in (("a", 0.9), ("b", 0.5))}
    judged = dataclasses.replace(
        toy.evaluation,
        data=Reference(Moments.of(rows["a"]), "toy data", "d" * 64),
        teacher=Reference(Moments.of(rows["b"]), "toy samples", "e" * 64),
    )
    options = SMALL | {"teachers": dataclasses.replace(toy, evaluation=judged), "out": tmp_path, "replicates": 1}
    measures = run.run(RunOptions(**options)).cells[0].measures
    own = Moments.of(made(range(50_000, 50_200)))
    assert measures["frechet_data"].value == pytest.approx(frechet(own, Moments.of(rows["a"])), rel=1e-5)
    assert measures["frechet_teacher"].value == pytest.approx(frechet(own, Moments.of(rows["b"])), rel=1e-5)
    assert (measures["frechet_data"].reference, measures["frechet_teacher"].reference) == ("toy data", "toy samples")


def test_precision_and_recall_take_the_first_images_of_every_block(tmp_path, reference, monkeypatch):
    monkeypatch.setattr(reduction, "MANIFOLD", 120)
    options = SMALL | {"teachers": toys.teacher(), "out": tmp_path, "replicates": 1, "reference": reference}
    found = run.run(RunOptions(**options, metrics="precision_data,recall_data")).cells[0].measures
    real = toys.extractor(quantise(toys.data(300))).double().numpy()
    blocks = [block[:12] for block in np.split(made(range(50_000, 50_200)), 10)]
    expected = features.manifold(blocks, real)
    assert found["precision_data"].n == found["recall_data"].n == 120
    assert found["precision_data"].value == pytest.approx(expected["precision"][0], abs=1e-9)
    assert found["recall_data"].value == pytest.approx(expected["recall"][0], abs=1e-9)
