"""A pick on a tiny pipeline: the command finds it, its files make the images of `sample` in the pipeline itself."""

import json
import re
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

import solverbench as sb
from solverbench import seeds
from solverbench.choice import choose, fresh, native, race, usage
from solverbench.cli.main import main
from solverbench.sampling.sample import sample
from solverbench.teachers.loading import load_teacher

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


def own_images(place, spec, pick):
    """What `sample` writes for the pick: uint8 images NHWC of two seeds."""
    asked = ["sample", pick["spec"], "--nfe", pick["nfe"], "--seeds", f"{SEED}-{SEED + 1}", "--teacher", spec, "--out",
             place / "out", "--format", "npz", "--to", place / "own"]  # fmt: skip
    done = CliRunner().invoke(main, list(map(str, asked)))
    assert done.exit_code == 0, done.output
    [path] = (place / "own").glob("*.npz")
    return np.load(path)["images"]


@pytest.fixture
def exports(chosen, monkeypatch):
    """The folder of the pick's files, on the path of imports for this test alone."""
    place = Path(chosen[2]["folder"]) / "nfe3"
    monkeypatch.setattr(sys, "path", [str(place), str(place / "scheduler"), *sys.path])
    for name in ("tableau_scheduler", "k_diffusion_sampler", "solver"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    yield place
    for name in ("tableau_scheduler", "k_diffusion_sampler", "solver"):
        sys.modules.pop(name, None)


def test_the_script_makes_the_image_of_sample(chosen, exports, monkeypatch):
    """Through a PNG of 8 bits, whose values may round to the neighbour; nothing of SolverBench is imported."""
    place, spec, told = chosen
    script = exports / "use.py"
    monkeypatch.chdir(place)
    runpy.run_path(str(script))
    with Image.open(place / "image.png") as made:
        apart = np.abs(np.asarray(made).astype(int) - own_images(place, spec, told["pick"])[0])
    assert apart.max() <= 1
    assert "solverbench" not in script.read_text()


@torch.no_grad()
def test_every_export_makes_the_final_state_of_sample(chosen, exports):
    """The scheduler in the pipeline's own call, k-diffusion's sampler and the plain module around the denoiser."""
    place, spec, told = chosen
    pick, teacher = told["pick"], load_teacher(spec)
    noise = seeds.noise([SEED], teacher.shape)
    plan = sb.tableau(pick["spec"], nfe=3, teacher=teacher, out=place / "out").plan_from_noise(teacher.schedule)
    own = sample(plan, teacher, range(SEED, SEED + 1), nfe=3)
    wanted = teacher.images(own) / 2 + 0.5
    from k_diffusion_sampler import SCALE, SIGMAS
    from solver import sample as alone
    from tableau_scheduler import TableauScheduler

    denoise = teacher.denoiser([SEED])
    torch.testing.assert_close(alone(denoise, noise), own, atol=NEAR, rtol=NEAR)
    [name] = re.findall(r"^def (sample_\w+)", (exports / "k_diffusion_sampler.py").read_text(), re.MULTILINE)
    k_diffusion = getattr(sys.modules["k_diffusion_sampler"], name)
    found = k_diffusion(lambda x, sigma: denoise(x, sigma[0].double()), noise * SCALE)
    torch.testing.assert_close(found, own, atol=NEAR, rtol=NEAR)
    levels = [float(each) for each in (exports / "sigmas.txt").read_text().split(",")]
    np.testing.assert_allclose(levels, [*SIGMAS[:-1], 0.0], rtol=1e-5)
    pipe = diffusers.DiffusionPipeline.from_pretrained(spec.partition(":")[0], local_files_only=True)
    pipe.scheduler = TableauScheduler.from_pretrained(exports / "scheduler")
    call = {"prompt": tiny.PROMPTS[SEED % 3], "guidance_scale": 3.0} if "prompts" in spec else {}
    generator = torch.Generator().manual_seed(SEED)
    made = pipe(**call, num_inference_steps=3, generator=generator, output_type="np")[0]
    torch.testing.assert_close(torch.tensor(made).movedim(-1, 1), wanted.clamp(0, 1), atol=NEAR, rtol=0)


def test_what_it_prints_is_there_and_the_pick_runs_again(chosen):
    place, spec, told = chosen
    assert told["pick"]["spec"] in ("dpm:grid=polynomial", "euler")
    assert [each["nfe"] for each in told["picks"]] == [3]
    roles = {role for each in told["pick"]["comparisons"] for role in each["role"].split(", ")}
    roles |= {*told["pick"]["itself"].split(", ")} - {""}
    assert {"plain default", "the pipeline's own scheduler"} <= roles
    page = Path(told["page"]).read_text()
    assert told["pick"]["spec"] in page
    assert "DiffusionPipeline.from_pretrained" in page
    assert page.count('<img src="data:image/') >= 3
    images = own_images(place, spec, told["pick"])
    assert images.shape[0] == 2
    assert images.std() > 0


def test_a_pick_that_diffusers_has_is_a_configuration_and_makes_the_same_image(chosen, tmp_path, monkeypatch):
    """The script with the configuration, and the one with the exported class."""
    teacher = load_teacher(chosen[1])
    made = []
    for spec in ("dpm:order=2:grid=dpm_linspace", "euler:grid=leading"):
        for config in (native.config, lambda tableau, teacher: None):
            with monkeypatch.context() as patched:
                patched.setattr(native, "config", config)
                texts = usage.texts(spec, 3, teacher, ["diffusers"], tmp_path)
            for name, text in texts.items():
                (tmp_path / name).parent.mkdir(exist_ok=True)
                (tmp_path / name).write_text(text)
            assert ("TableauScheduler" in texts["use.py"]) == ("native/scheduler_config.json" not in texts)
            assert ("native/scheduler_config.json" in texts) == (
                config is native.config and ("prompts" in chosen[1] or spec.startswith("euler"))
            )
            monkeypatch.setattr(sys, "path", [str(tmp_path / "scheduler"), *sys.path])
            monkeypatch.chdir(tmp_path)
            sys.modules.pop("tableau_scheduler", None)
            runpy.run_path(str(tmp_path / "use.py"))
            with Image.open("image.png") as image:
                made.append(np.asarray(image).astype(int))
    assert np.abs(made[0] - made[1]).max() <= 1
    assert np.abs(made[2] - made[3]).max() <= 1
    assert np.abs(made[0] - made[2]).max() > 1
