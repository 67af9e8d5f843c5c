"""A Fréchet distance of one's own features, offline: docs/metrics.md's example, and rows with their reasons."""

import dataclasses
import re
import shlex
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import toys
from PIL import Image

import solverbench as sb
from solverbench.bench import run as runner
from solverbench.bench.own_samples import Sampled
from solverbench.bench.run_options import RunOptions
from solverbench.errors import UserError
from solverbench.evaluation import reference_build, references
from solverbench.metrics.frechet import Moments, Rows, frechet

pytestmark = pytest.mark.usefixtures("unrendered", "remembered", "few_compared")

PAGE = (Path(__file__).parents[2] / "docs" / "metrics.md").read_text(encoding="utf-8")
[PLUGIN] = re.findall(r"`rings\.py`:\n\n```python\n(.*?)```", PAGE, re.DOTALL)
COMMANDS = next(each for each in re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL) if "rings" in each).splitlines()


@pytest.fixture
def example(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SOLVERBENCH_DATA", str(tmp_path / "data"))
    Path("rings.py").write_text(PLUGIN)
    Path("photos").mkdir()
    for number in range(30):
        levels = np.random.default_rng(number).integers(0, 256, (8, 8), dtype=np.uint8)
        Image.fromarray(levels).save(f"photos/{number}.png")


def test_the_pages_commands_give_both_distances(example, invoke):
    for command in COMMANDS:
        result = invoke(*shlex.split(command)[1:])
        assert result.exit_code == 0, result.stderr
    assert "frechet_data" in result.stdout + result.stderr
    [table] = Path("runs").rglob("results.csv")
    frame = pd.read_csv(table).set_index("metric")
    assert frame.loc[["frechet_data", "frechet_teacher"], "value"].notna().all()
    teacher = sb.load_teacher("rings")
    found = references.of_samples(teacher, Path("runs"), "means of 2x2 pixels, 1", 200)
    images = torch.cat(list(Sampled(teacher, 200).read(range(200))))
    rows = teacher.evaluation.extractor(images)
    assert frechet(Moments.of(rows), found.moments) == pytest.approx(0, abs=1e-4)


def test_without_its_references_each_metric_is_a_row_with_the_command(example, invoke):
    result = invoke(*shlex.split(COMMANDS[-1])[1:], "--json")
    assert result.exit_code == 0, result.stderr
    said = result.stdout + result.stderr
    assert "no frechet_data, frechet_teacher of rings" in said
    assert "solverbench refs build rings" in said


def without(**changes):
    return toys.teacher(evaluation=sb.Evaluation(toys.extractor, "toy-projection", **changes))


def run(out, teacher, metrics="frechet_data,frechet_teacher"):
    options = {"solvers": "euler", "nfe": 3, "samples": 40, "replicates": 1, "teachers": teacher, "out": out}
    return runner.run(RunOptions(**options, metrics=metrics))


def test_a_reference_of_vectors_is_the_moments_of_them(tmp_path):
    rows = toys.extractor(torch.from_numpy(np.random.default_rng(0).integers(0, 256, (90, *toys.SHAPE), np.uint8)))
    teacher = without(data=sb.Reference.of(rows, "mine"))
    result = run(tmp_path, teacher)
    found = result.frame.set_index("metric")
    assert found.loc["frechet_data", "value"] > 0
    assert found.loc["frechet_teacher", "value"] > 0
    assert found.loc["frechet_teacher", "reference"].startswith("toy-samples-")
    assert frechet(Moments.of(rows), teacher.evaluation.data.moments) == pytest.approx(0, abs=1e-6)
    assert sb.Reference.of(rows, "mine").sha == teacher.evaluation.data.sha
    assert isinstance(sb.Reference.of(rows[:2], "few").moments, Rows)
    for bad in (rows[:1], rows[0], rows / 0):
        with pytest.raises(UserError, match="reference 'bad': features"):
            sb.Reference.of(bad, "bad")


def test_a_teachers_own_samples_serve_that_teacher_alone(tmp_path, monkeypatch):
    monkeypatch.setenv("SOLVERBENCH_DATA", str(tmp_path / "data"))
    rows = toys.extractor(torch.zeros(90, *toys.SHAPE, dtype=torch.uint8))
    teacher = without(data=sb.Reference.of(rows, "mine"))
    made_by = references.Extractor(toys.extractor, "toy-projection", toys.SHAPE)
    monkeypatch.setattr(reference_build, "extractor", lambda name, device: made_by)
    reference_build.build("own", Sampled(teacher, 60), tmp_path, extractor_name="toy")
    assert run(tmp_path, teacher).frame.set_index("metric").loc["frechet_teacher", "value"] > 0
    assert references.of_samples(teacher, tmp_path, "another") is None
    for other in ({"identity": "other"}, {"sampler_nfe": 10}, {"sampler": "dpm"}):
        assert references.of_samples(dataclasses.replace(teacher, **other), tmp_path, "toy-projection") is None
