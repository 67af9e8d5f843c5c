"""A pick on a tiny pipeline: the command finds it, its files make the images of `sample` in the pipeline itself."""

import json
import runpy
import sys
from pathlib import Path

import numpy as np
import pytest
import tiny
import torch
from click.testing import CliRunner

pytest.importorskip("diffusers")
pytest.importorskip("transformers")
pytest.importorskip("PIL")

import diffusers
import tiny_folders as folders
from PIL import Image

from solverbench.choice import choose, fresh, race
from solverbench.cli.main import main

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning", "ignore::UserWarning")

NEAR = 1e-4
"""Of images on [0, 1]: single precision, over some calls of a random network."""

SEED = 50000


def stable_diffusion(place):
    """The spec of a teacher that is told prompts, with guidance."""
    folder = folders.stable_diffusion(place / "sd")
    return f"{folder}:prompts={tiny.prompts(place / 'p.txt')}:guidance=3"


def unconditional(place):
    """The spec of a teacher whose random network is smooth enough for a converged reference, as it predicts images."""
    network = folders.unet()
    with torch.no_grad():
        network.conv_out.weight.mul_(0.1)
    scheduler = diffusers.DDIMScheduler(**folders.VP | {"prediction_type": "sample", "clip_sample": False})
    return f"{folders.save(place / 'ddim', 'DDIMPipeline', scheduler, unet=network)}:sampler_nfe=40"


CASES = {"stable diffusion": stable_diffusion, "unconditional": unconditional}


@pytest.fixture(scope="module", params=CASES)
def chosen(request, tmp_path_factory):
    """The place, the teacher's spec and what the command printed as JSON."""
    place = tmp_path_factory.mktemp("pipeline")
    spec = CASES[request.param](place)
    kinds = [word for kind in ("diffusers", "k-diffusion", "sigmas", "py") for word in ("--export", kind)]
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(race, "MOST", 8)
        patched.setattr(fresh, "FEWEST", 10)
        patched.setattr(fresh, "IMAGES", 10)
        patched.setattr(choose, "FEWEST", 2)
        asked = ["recommend", "--teacher", spec, "--nfe", "3", "--solvers", "dpm:grid=polynomial,euler", "--calls",
                 "4000", "--out", place / "out", *kinds, "--json"]  # fmt: skip
        done = CliRunner().invoke(main, list(map(str, asked)))
    assert done.exit_code == 0, done.output
    return place, spec, json.loads(done.stdout.splitlines()[-1])


def test_the_script_makes_the_image_of_sample(chosen, monkeypatch):
    """Through a PNG of 8 bits, whose values may round to the neighbour; nothing of SolverBench is imported."""
    place, spec, told = chosen
    pick = told["pick"]
    done = CliRunner().invoke(
        main, ["sample", pick["spec"], "--nfe", "3", "--seeds", str(SEED), "--teacher", spec, "--out",
               str(place / "out"), "--to", str(place / "own")],
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    [own] = (place / "own").glob("*.png")
    script = f"{told['folder']}/nfe3/use.py"
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.delitem(sys.modules, "tableau_scheduler", raising=False)
    monkeypatch.chdir(place)
    runpy.run_path(script)
    monkeypatch.delitem(sys.modules, "tableau_scheduler")
    with Image.open(place / "image.png") as one, Image.open(own) as other:
        apart = np.abs(np.asarray(one).astype(int) - np.asarray(other))
    assert apart.max() <= 1
    assert "solverbench" not in Path(script).read_text()
