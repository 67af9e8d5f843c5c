"""docs/how/own-data.md from its first to its last line, on a folder of images."""

import contextlib
import io
import json
import re
import runpy
import shlex
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

import solverbench as sb
from solverbench import registries
from solverbench.metrics.extractors import plugin
from solverbench.metrics.frechet import Moments, frechet
from solverbench.metrics.quantise import quantise

pytestmark = pytest.mark.usefixtures("unrendered", "remembered", "few_compared")

PAGE = (Path(__file__).parents[2] / "docs" / "how" / "own-data.md").read_text(encoding="utf-8")
FILES = dict(re.findall(r"`(\w+\.py)`[^`]*:\n\n```python\n(.*?)```", PAGE, re.DOTALL))
TRAINING, *COMMANDS = re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL)[0].splitlines()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with 400 photos, the page's files and the weights of its classifier."""
    folder = tmp_path_factory.mktemp("own")
    digits = sb.load_teacher("digits")
    for number, image in enumerate(quantise(digits.images_of(range(400)))):
        place = folder / "photos" / str(number % 4)
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image[0].numpy()).save(place / f"{number}.png")
    for name, text in FILES.items():
        (folder / name).write_text(text)
    said = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(said):
        patch.chdir(folder)
        patch.syspath_prepend(str(folder))
        runpy.run_path("train_looks.py", run_name="__main__")
        patch.delitem(sys.modules, "looks")
    assert int(re.match(r"(\d+)% of the last batch", said.getvalue())[1]) > 50, "chance is 25 %"
    return folder


@pytest.fixture
def here(folder, monkeypatch, tmp_path):
    monkeypatch.chdir(folder)
    monkeypatch.setenv("SOLVERBENCH_DATA", str(tmp_path / "data"))
    yield folder
    registries.extractors.withdraw("looks")


def test_the_story_is_told_in_under_thirty_lines():
    plain = [line for line in FILES["looks.py"].splitlines() if line.strip()]
    assert len(plain) + len(COMMANDS) < 30
    assert set(FILES) == {"looks.py", "train_looks.py"}
    assert TRAINING == "python train_looks.py"


def test_the_pages_commands_measure_both_distances_with_their_floors(here, invoke):
    for command in COMMANDS:
        result = invoke(*shlex.split(command)[1:])
        assert result.exit_code == 0, result.stderr
    [table] = Path("runs").rglob("results.csv")
    found = pd.read_csv(table)
    for metric in ("frechet_data", "frechet_teacher"):
        values = found[found.metric == metric]
        assert len(values) == 4
        assert (values.low < values.value).all()
        assert (values.value < values.high).all()
        assert values.extractor.str.startswith("looks@").all()
    record = json.loads(table.with_name("bundle.json").read_text())
    lines = {line["label"].split(",")[0]: line for line in record["lines"]}
    assert set(lines) == {"data floor", "teacher floor", "teacher"}
    assert {line["n"] for line in lines.values()} == {200}, "as many images as a replicate"
    assert lines["data floor"]["value"] < found[found.metric == "frechet_data"].value.min()
    assert "reported as FID" not in table.with_name("bundle.json").read_text()


def test_its_distance_rises_with_noise_as_the_page_asks_for(here):
    sb.load_plugin("looks.py")
    digits = sb.load_teacher("digits")
    extractor, real = plugin.load("looks", "cpu"), digits.images_of(range(1000, 1400))
    data = Moments.of(extractor(quantise(digits.images_of(range(400)))))
    noise = torch.from_numpy(np.random.default_rng(0).standard_normal(real.shape, dtype=np.float32))
    found = [frechet(Moments.of(extractor(quantise(real + size * noise))), data) for size in (0, 0.2, 0.4, 0.8)]
    assert found == sorted(found)
    assert found[-1] > 5 * found[0]
