"""docs/how/prompts.md: its plugin runs on a stand-in for open_clip, and gets the prompt of each image."""

import dataclasses
import re
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import torch
import toys

import solverbench as sb
from solverbench import plugins, registries
from solverbench.bench import run as runner
from solverbench.bench.run_options import RunOptions
from solverbench.errors import UserError
from solverbench.metrics.quantise import quantise
from solverbench.sampling import sample
from solverbench.teachers.conditions import Condition

pytestmark = pytest.mark.usefixtures("unrendered")

PAGE = (Path(__file__).parents[2] / "docs" / "how" / "prompts.md").read_text(encoding="utf-8")
FILES = dict(re.findall(r"`(\w+\.py)`[^`]*:\n\n```python\n(.*?)```", PAGE, re.DOTALL))
PROMPTS = ("one", "three", "a house")


class Tiny(torch.nn.Module):
    """A network of the interface of open_clip's."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(3))

    def encode_image(self, pixels, normalize):
        assert normalize
        return torch.nn.functional.normalize(pixels.mean((2, 3)) * self.weight, dim=1)

    def encode_text(self, words, normalize):
        assert normalize
        return torch.nn.functional.normalize(torch.stack([words, words.clone().fill_(1), words * 0], 1), dim=1)


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, text in FILES.items():
        (tmp_path / name).write_text(text)
    module = types.ModuleType("open_clip")

    def prepare(image):
        assert image.mode == "RGB"
        return torch.from_numpy(np.array(image)).permute(2, 0, 1).float() / 255

    module.create_model_and_transforms = lambda name, device: (Tiny().to(device), None, prepare)
    module.get_tokenizer = lambda name: lambda texts: torch.tensor([float(len(text)) for text in texts])
    monkeypatch.setitem(sys.modules, "open_clip", module)
    torch.save({"state_dict": {"weight": torch.tensor([1.0, 2.0, 3.0])}}, "HPS_v2.1_compressed.pt")
    yield tmp_path
    registries.metrics.withdraw("hpsv2")


def run():
    def denoise(x, sigma):
        return x / (1 + sigma**2).to(x)

    told = Condition(prompts=PROMPTS)
    made = sb.Teacher(denoise, "painter", (3, 8, 8), identity="gaussian", condition=told, sampler_nfe=10)
    return runner.run(
        RunOptions(solvers="euler", nfe="3", teachers=made, out="runs", metrics="hpsv2", samples=20, replicates=1)
    )


def test_the_plugin_is_about_twenty_lines():
    code = [line for line in FILES["hpsv2.py"].splitlines() if line.strip() and '"""' not in line]
    assert len(code) <= 28


def test_the_plugins_value_is_the_mean_over_images_and_their_own_prompts(here):
    plugins.load("hpsv2.py")
    result = run()
    [outcome] = result.cells
    cell = outcome.cell
    images = quantise(sample.sample(cell.plan, cell.teacher, cell.protocol.seeds, nfe=3), "edm-round").double() / 255
    seen = torch.nn.functional.normalize(images.mean((2, 3)) * torch.tensor([1.0, 2.0, 3.0]), dim=1)
    lengths = torch.tensor([float(len(PROMPTS[seed % 3])) for seed in cell.protocol.seeds]).double()
    read = torch.nn.functional.normalize(torch.stack([lengths, torch.ones(20), torch.zeros(20)], 1), dim=1)
    assert outcome.measures["hpsv2"].value == pytest.approx(float((seen * read).sum(1).mean()), rel=1e-5)
    assert outcome.measures["hpsv2"].reference == "each image's own prompt"
    assert cell.key["scores"]["hpsv2"]["metric"].startswith("hpsv2 HPS_v2.1_compressed.pt ")
    assert "hpsv2" not in cell.key


def test_what_the_plugin_lacks_is_a_row_with_the_command_that_fetches_it(here, monkeypatch):
    plugins.load("hpsv2.py")
    Path("HPS_v2.1_compressed.pt").unlink()
    reason = run().frame.set_index("metric").loc["hpsv2", "reason"]
    assert "hf download xswu/HPSv2 HPS_v2.1_compressed.pt" in reason
    monkeypatch.setitem(sys.modules, "open_clip", None)
    assert "open_clip" in run().frame.set_index("metric").loc["hpsv2", "reason"]


def test_a_teacher_without_prompts_refuses_a_plugin_of_prompts(here):
    plugins.load("hpsv2.py")
    made = dataclasses.replace(toys.teacher(), condition=None)
    with pytest.raises(UserError, match="metric hpsv2: teacher 'toy' has no prompts"):
        sb.run(solvers="euler", nfe=3, teachers=made, out="runs", metrics="hpsv2", samples=20)
