"""Metrics by plugins: the mean over a replicate's images, its interval, its code in the key, and what fails."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import toys
from plugged import EXAMPLES

import solverbench as sb
from solverbench import plugins, registries
from solverbench.bench import run as runner
from solverbench.bench.run_options import RunOptions
from solverbench.evaluation.selection import MetricSelection
from solverbench.metrics import plugin
from solverbench.metrics.quantise import quantise
from solverbench.metrics.table import TABLE
from solverbench.sampling import sample

SMALL = {"nfe": "3", "samples": 20, "replicates": 2, "batch": 4}
CONTRAST = EXAMPLES["contrast.py"]


def run(out, metrics="contrast", **options):
    return runner.run(
        RunOptions(solvers="euler", teachers=toys.teacher(), out=out, metrics=metrics, **(SMALL | options))
    )


def test_the_value_is_the_mean_over_the_images_of_each_replicate(examples):
    plugins.load("contrast.py")
    result = run("runs", "contrast,frechet_data")
    [outcome] = result.cells
    found = outcome.measures["contrast"]
    teacher, protocol = outcome.cell.teacher, outcome.cell.protocol
    images = quantise(sample.sample(outcome.cell.plan, teacher, protocol.seeds, nfe=3), "edm-round")
    each = images.double().flatten(1).std(1).numpy().reshape(2, 20)
    assert found.replicates.tolist() == pytest.approx(each.mean(1).tolist(), abs=1e-9)
    without_third = np.delete(each[1], [4, 5]).mean()
    assert found.leave_one_out[1, 2] == pytest.approx(without_third, abs=1e-9)
    assert found.n == 20
    row = result.frame.set_index("metric").loc["contrast"]
    assert row.value == found.value
    assert not row.biased
    code = registries.fingerprint(registries.metrics.get("contrast"))[:16]
    assert row.extractor == f"contrast {code}"
    assert row.quantiser == "edm-round"
    assert row.metric_id.startswith(f"contrast:contrast@{code}|n=20x2|u8=edm-round|seeds=50000-50039")
    assert set(result.frame.metric) == {"contrast", "frechet_data", "rmse_teacher"}


def test_an_interval_ends_at_a_metrics_bounds_and_a_value_beyond_them_is_a_reason(examples):
    plugins.load("contrast.py")
    whole = run("runs").cells[0].measures["contrast"]
    for bounds, end in (
        (f"({whole.value - whole.half / 2}, 255.0)", whole.value - whole.half / 2),
        ("(0.0, 1.0)", None),
    ):
        plugins.load(examples("contrast.py", CONTRAST.replace("higher = True", f"bounds = {bounds}")))
        [outcome] = run("runs").cells
        if end is None:
            assert "is outside its bounds 0.0 to 1.0; correct `bounds`" in outcome.failed["contrast"]
        else:
            assert outcome.measures["contrast"].interval == pytest.approx((end, whole.value + whole.half))
            assert run("runs").cells[0].measures["contrast"].interval == outcome.measures["contrast"].interval


def test_the_report_describes_it(examples):
    plugins.load("contrast.py")
    record = json.loads((run("runs").folder / "bundle.json").read_text())
    assert record["metrics"]["contrast"] == {
        "label": "Contrast of an image, the deviation of its grey levels (plugin, higher is better)",
        "short": "Contrast of an image, the deviation of its grey levels",
        "log": False,
        "higher": True,
    }
    assert " --metrics contrast" in record["command"]
    assert list(record["environment"]["plugin metric contrast"].split(", "))[1] == "Contrast"


def test_workers_and_stored_blocks_change_nothing(examples):
    plugins.load("contrast.py")
    run("one", workers=1)
    run("two", workers=3)
    assert toys.files_of(Path("one")) == toys.files_of(Path("two"))
    next(Path("two").glob("cells/*/*/metrics.json")).unlink()
    run("two")
    assert toys.files_of(Path("one")) == toys.files_of(Path("two"))
    [cached] = run("two").cells
    assert cached.status == "cached"
    assert list(cached.measures) == ["contrast", "rmse_teacher"]


def test_a_changed_metric_or_identity_makes_another_cell(examples):
    plugins.load("contrast.py")
    addresses = [run("runs").cells[0].cell.address]
    for text in (CONTRAST.replace(".std(1)", ".mean(1)"), CONTRAST.replace("higher = True", 'identity = "v2"')):
        plugins.load(examples("contrast.py", text))
        [outcome] = run("runs").cells
        assert outcome.status == "done"
        addresses.append(outcome.cell.address)
    assert len(set(addresses)) == 3
    assert "scores" not in run("runs", None).cells[0].cell.key


def test_typed_code_without_a_source_needs_an_identity():
    names = {"__name__": "__main__x", "sb": sb}
    exec(CONTRAST, names)
    sb.register(names["Contrast"])
    found = MetricSelection.of("contrast").of_teacher(toys.teacher(), 20, 2, Path())
    assert found.lacking["contrast"].startswith("metric 'contrast': its source can't be read, so its results can't be")
    assert found.broken == {"contrast"}
    names["Contrast"].identity = "mine, of today"
    assert plugin.identity("contrast") == "contrast mine, of today"


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ("images.double().mean()", "metric contrast: returned () for 2 images; return [B]"),
        ("images.double().flatten(1)", "metric contrast: returned (2, 16) for 2 images"),
        ("images.double().flatten(1).mean(1) / 0 * 0", "metric contrast: returned values that are not finite"),
        ("{}['x']", "KeyError: 'x'"),
        ("None", "AttributeError"),
        ("images.numpy().mean((1, 2, 3))", "AttributeError"),
        ("exit(3)", "SystemExit: 3"),
        ("images.double().flatten(1).mean(1) * 0 + 1e308", "not finite, although what it is computed from is"),
    ],
)
def test_values_that_are_none_are_a_row_with_the_reason_and_the_other_metrics_have_values(examples, values, said):
    plugins.load(examples("contrast.py", CONTRAST.replace("images.double().flatten(1).std(1)", values)))
    result = run("runs", "contrast,frechet_data")
    rows = result.frame.set_index("metric")
    assert rows.status.tolist() == ["done"] * 3
    assert said in rows.loc["contrast", "reason"]
    assert rows.loc[["frechet_data", "rmse_teacher"], "value"].notna().all()
    assert result.exit_code == 1
    assert f"no contrast of euler nfe=3 on {toys.teacher().name}: " in result.summary()
    assert run("without", "frechet_data").cells[0].measures["frechet_data"].value == rows.loc["frechet_data", "value"]


def toy_images(outcome):
    """[R, 10, 2, 16] float32, the pixels of the images of a run's blocks."""
    teacher, protocol = outcome.cell.teacher, outcome.cell.protocol
    images = quantise(sample.sample(outcome.cell.plan, teacher, protocol.seeds, nfe=3), "edm-round")
    return images.flatten(1).float().reshape(2, 10, 2, 16)


def test_a_metric_of_sets_is_of_each_replicate_and_of_what_is_left_without_a_block(examples):
    np.save("real.npy", quantise(toys.data(150)).numpy())
    plugins.load("sliced.py")
    [outcome] = run("runs", "sliced").cells
    found, blocks = outcome.measures["sliced"], toy_images(outcome)
    metric = registries.metrics.get("sliced")("cpu")
    assert found.replicates.tolist() == [float(metric.of_set(part.flatten(0, 1))) for part in blocks]
    left = [[float(metric.of_set(part[torch.arange(10) != g].flatten(0, 1))) for g in range(10)] for part in blocks]
    assert found.leave_one_out.tolist() == left
    assert found.n == 20
    [cached] = run("runs", "sliced").cells
    assert (cached.status, cached.measures["sliced"].value) == ("cached", found.value)


def test_a_set_whose_number_is_none_leaves_the_other_metrics(examples):
    np.save("real.npy", quantise(toys.data(150)).numpy())
    plugins.load(examples("sliced.py", EXAMPLES["sliced.py"].replace(".abs().mean()", ".mean() / 0")))
    rows = run("runs", "sliced,frechet_data").frame.set_index("metric")
    assert rows.loc["sliced", "reason"] == "metric sliced: returned inf for a set of 20 images; return a finite number"
    assert rows.loc[["frechet_data", "rmse_teacher"], "value"].notna().all()
    blocks = {path: path.stat().st_ino for path in Path("runs").glob("cells/*/*/blocks/*")}
    run("runs", "sliced,frechet_data")
    assert {path: path.stat().st_ino for path in Path("runs").glob("cells/*/*/blocks/*")} == blocks


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("images.flatten(1).cpu()", "images.flatten(1)[:, : images.sum() % 3 + 1].cpu()", "ValueError"),
        ("images.flatten(1).cpu()", "images[:1].flatten(1).cpu()", "return [B, ...]"),
        (".abs().mean()", ".abs()", "converted to"),
        (".abs().mean()", ".abs().mean() + exit(3)", "SystemExit"),
        (".abs().mean()", ".missing()", "AttributeError"),
    ],
)
def test_a_metric_of_sets_that_breaks_leaves_the_other_metrics(examples, old, new, said):
    np.save("real.npy", quantise(toys.data(150)).numpy())
    plugins.load(examples("sliced.py", EXAMPLES["sliced.py"].replace(old, new)))
    result = run("runs", "sliced,frechet_data", samples=60, batch=4)
    rows = result.frame.set_index("metric")
    assert said in rows.loc["sliced", "reason"]
    assert rows.status.tolist() == ["done"] * 3
    assert rows.loc[["frechet_data", "rmse_teacher"], "value"].notna().all()
    assert result.exit_code == 1


def test_a_metric_that_failed_is_tried_again(examples):
    text = CONTRAST.replace(
        "        return", "        if Path('broken').exists():\n            raise OSError('broken')\n        return"
    )
    plugins.load(examples("contrast.py", "from pathlib import Path\n\n" + text))
    run("whole")
    Path("broken").touch()
    [failed] = run("runs").cells
    assert "OSError: broken" in failed.failed["contrast"]
    assert list(failed.measures) == ["rmse_teacher"]
    assert run("runs").cells[0].failed == failed.failed
    Path("broken").unlink()
    [outcome] = run("runs").cells
    assert (outcome.status, outcome.failed, list(outcome.measures)) == ("done", {}, ["contrast", "rmse_teacher"])
    for path in Path("runs").glob("cells/*/*/blocks/*.damaged*"):
        path.unlink()
    assert toys.files_of(Path("runs")) == toys.files_of(Path("whole"))


def test_a_metric_that_lacks_something_is_left_out_with_the_reason(examples):
    error = "sb.MissingError(asked='contrast', wrong='no weights', remedy='fetch them')"
    lack = f"    def __init__(self, device):\n        raise {error}\n\n    def values"
    plugins.load(examples("contrast.py", CONTRAST.replace("    def values", lack)))
    result = run("runs")
    row = result.frame.set_index("metric").loc["contrast"]
    assert (row.status, row.reason) == ("done", "contrast: no weights; fetch them")
    assert row.value != row.value
    assert result.frame.set_index("metric").loc["rmse_teacher"].value > 0


def test_a_metric_that_cannot_be_constructed_leaves_the_other_metrics(examples, invoke):
    broken = "    def __init__(self, device):\n        import nowhere\n\n    def values"
    examples("contrast.py", CONTRAST.replace("    def values", broken))
    np.save("real.npy", quantise(toys.data(150)).numpy())
    examples("sliced.py", EXAMPLES["sliced.py"])
    plugins.load("contrast.py")
    plugins.load("sliced.py")
    result = run("runs", "contrast,sliced", samples=60, batch=4)
    rows = result.frame.set_index("metric")
    assert (
        "contrast.py:11: ModuleNotFoundError: No module named 'nowhere'; correct it" in rows.loc["contrast", "reason"]
    )
    assert rows.loc[["sliced", "rmse_teacher"], "value"].notna().all()
    assert (result.counts["done"], result.exit_code) == (1, 1)
    plugins.load(examples("contrast.py", CONTRAST))
    whole = run("runs", "contrast,sliced", samples=60, batch=4)
    assert whole.frame.set_index("metric").loc["contrast", "value"] > 0
    assert whole.exit_code == 0


def test_a_metric_whose_package_is_missing_is_a_row_too(examples, monkeypatch):
    """An entry point that doesn't load is known by its name alone."""
    plugins.load("contrast.py")
    find = registries.metrics.get

    def get(name):
        if name == "contrast":
            raise registries.Unavailable(asked="metric contrast", wrong="needs a package", remedy="install it")
        return find(name)

    monkeypatch.setattr(registries.metrics, "get", get)
    result = run("runs", "contrast")
    row = result.frame.set_index("metric").loc["contrast"]
    assert "needs a package" in row.reason
    assert result.frame.set_index("metric").loc["rmse_teacher", "value"] > 0


def test_an_unknown_metric_is_refused_with_plugins_among_those_known(examples, invoke):
    result = invoke("plan", "--plugin", "contrast.py", "--metrics", "kontrast")
    assert result.exit_code == 2
    assert "metric 'kontrast': not known; did you mean 'contrast'?" in result.line


def test_every_built_in_metric_is_listed(invoke):
    assert registries.metrics.builtin == tuple(sorted(TABLE))
    assert all(registries.metrics.get(name) is not None for name in registries.metrics.builtin)
    assert all(registries.losses.get(name) is not None for name in registries.losses.builtin)
    assert len(invoke("list", "metrics").stdout.splitlines()) == len(TABLE)
    assert len(invoke("list", "losses").stdout.splitlines()) == len(registries.losses.builtin)
