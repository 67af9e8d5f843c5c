"""The exported scheduler as diffusers saves, loads and calls it, and what it refuses, in one line."""

import json
import subprocess
import sys

import numpy as np
import pytest
import tiny
import torch
from golden import relative

import solverbench as sb
from solverbench.errors import BudgetError, RecordError
from solverbench.export import export

pytest.importorskip("diffusers")
pytest.importorskip("transformers")

import diffusers
import tiny_folders as folders

from solverbench.export.diffusers import TableauScheduler

SPEC, NFE = "unipc:order=2", 4

LOADED = """
import sys
sys.modules["solverbench"] = sys.modules["registries"] = None
import diffusers, torch
torch.set_num_threads(1)
pipe = diffusers.DDPMPipeline.from_pretrained(sys.argv[1], local_files_only=True, trust_remote_code=True)
pipe.set_progress_bar_config(disable=True)
images = pipe(2, generator=torch.Generator().manual_seed(3), num_inference_steps=4, output_type="pt").images
torch.save(images, sys.argv[2])
"""

USER = """
import importlib.util, sys
sys.modules["solverbench"] = sys.modules["registries"] = None
import diffusers, torch
torch.set_num_threads(1)
unet, to, place = sys.argv[1:4]
sys.path.insert(0, place)
if place.endswith("module"):
    import alone
    scheduler = alone.scheduler()
else:
    from tableau_scheduler import TableauScheduler
    scheduler = TableauScheduler.from_pretrained(place)
pipe = diffusers.DDPMPipeline(diffusers.UNet2DModel.from_pretrained(unet), scheduler)
pipe.set_progress_bar_config(disable=True)
images = pipe(2, generator=torch.Generator().manual_seed(3), num_inference_steps=4, output_type="pt").images
torch.save(images, to)
"""


@pytest.fixture
def teacher(tmp_path):
    return folders.load(folders.ddpm(tmp_path / "ddpm"))


@pytest.fixture
def scheduler(teacher):
    return sb.diffusers_scheduler(SPEC, nfe=NFE, teacher=teacher)


def pipeline(scheduler):
    pipe = diffusers.DDPMPipeline(folders.unet(), scheduler)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def images(pipe, steps=NFE):
    return pipe(2, generator=torch.Generator().manual_seed(3), num_inference_steps=steps, output_type="pt").images


@pytest.mark.parametrize("form", ["folder", "module"])
def test_an_exported_scheduler_runs_in_a_pipeline_without_solverbench(tmp_path, teacher, scheduler, form):
    expected = images(pipeline(scheduler))
    place = tmp_path / form
    to = place if form == "folder" else place / "alone.py"
    said = export.write(SPEC, NFE, str(tmp_path / "mine.toml"), "diffusers", to, tmp_path)
    assert said.endswith(f"nfe=4 for {tmp_path / 'mine.toml'} in {to}")
    assert len(list(place.iterdir())) == (2 if form == "folder" else 1)
    unet = str(tmp_path / "ddpm" / "unet")
    command = [sys.executable, "-c", USER, unet, str(tmp_path / "images.pt"), str(place)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert torch.equal(torch.load(tmp_path / "images.pt", weights_only=True), expected)


def test_as_a_pipelines_own_folder_it_is_loaded_with_its_code(tmp_path, scheduler, monkeypatch):
    """Where SolverBench isn't installed: the folder's module, by the pipeline's index, if its user trusts it."""
    expected = images(pipeline(scheduler))
    folder = tmp_path / "ddpm"
    export.write(SPEC, NFE, str(tmp_path / "mine.toml"), "diffusers", folder / "scheduler", tmp_path)
    index = json.loads((folder / "model_index.json").read_text())
    index["scheduler"] = ["tableau_scheduler", "TableauScheduler"]
    (folder / "model_index.json").write_text(json.dumps(index))
    monkeypatch.setenv("HF_MODULES_CACHE", str(tmp_path / "modules"))
    command = [sys.executable, "-c", LOADED, str(folder), str(tmp_path / "images.pt")]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert torch.equal(torch.load(tmp_path / "images.pt", weights_only=True), expected)


def test_numbers_come_back_from_a_folder_digit_for_digit(tmp_path, scheduler):
    scheduler.save_pretrained(tmp_path / "saved")
    back = TableauScheduler.from_pretrained(tmp_path / "saved")
    numbers = (
        "timesteps",
        "alphas",
        "sigmas",
        "weights",
        "prediction_type",
        "thresholding",
        "spec",
        "teacher_identity",
    )
    for name in numbers:
        assert back.config[name] == scheduler.config[name]
    assert torch.equal(images(pipeline(back)), images(pipeline(scheduler)))


def test_a_pipeline_is_saved_and_loaded_with_it(tmp_path, scheduler):
    expected = images(pipeline(scheduler))
    pipeline(scheduler).save_pretrained(tmp_path / "pipe")
    index = json.loads((tmp_path / "pipe" / "model_index.json").read_text())
    assert index["scheduler"] == ["solverbench.export.diffusers", "TableauScheduler"]
    back = diffusers.DDPMPipeline.from_pretrained(tmp_path / "pipe", local_files_only=True)
    back.set_progress_bar_config(disable=True)
    assert torch.equal(images(back), expected)
    given = diffusers.DDPMPipeline.from_pretrained(tmp_path / "ddpm", local_files_only=True, scheduler=scheduler)
    given.set_progress_bar_config(disable=True)
    assert torch.equal(images(given), expected)


def test_its_folder_is_no_teacher_as_it_knows_a_few_times_alone(tmp_path, scheduler):
    pipeline(scheduler).save_pretrained(tmp_path / "pipe")
    with pytest.raises(RecordError, match="TableauScheduler: its noise process isn't read"):
        folders.load(tmp_path / "pipe")


def test_learned_variances_are_left_out(tmp_path):
    folder = folders.save(
        tmp_path / "learned", "DDPMPipeline", diffusers.DDPMScheduler(**folders.VP), unet=folders.unet(out=6)
    )
    teacher = folders.load(folder)
    pipe = pipeline(sb.diffusers_scheduler("dpm", nfe=3, teacher=teacher))
    pipe.register_modules(unet=folders.unet(out=6))
    start = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        plan = sb.tableau("dpm", nfe=3, teacher=teacher).plan_from_noise(teacher.schedule)
        expected = sb.execute(plan, teacher.denoise, start)
    assert relative(images(pipe, 3), (expected / 2 + 0.5).clamp(0, 1)) < 1e-4


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_states_keep_the_pipelines_type_and_the_sums_are_at_least_single(scheduler, dtype):
    y = exact = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(3), dtype=torch.float64).to(dtype)
    exact = exact.double()
    beside = TableauScheduler.from_config(scheduler.config)
    scheduler.set_timesteps(NFE)
    beside.set_timesteps(NFE)
    for t in scheduler.timesteps:
        output = torch.sin(3 * y.double()).to(dtype)
        y, exact = scheduler.step(output, t, y).prev_sample, beside.step(output.double(), t, exact).prev_sample
        assert y.dtype == dtype
        exact = y.double() if t != scheduler.timesteps[-1] else exact
    assert relative(y.double(), exact) < torch.finfo(dtype).eps / 2 + 1e-5


def test_what_is_known_of_gas_and_gs_is_in_the_folder(tmp_path):
    for name in ("gas", "gs"):
        said = export.write(name, 4, "digits", "diffusers", tmp_path / name, tmp_path)
        assert said.endswith("for a pipeline whose network takes sigma and predicts the image from x0 + sigma n")
        back = TableauScheduler.from_pretrained(tmp_path / name)
        digits, start = sb.load_teacher("digits"), torch.randn(2, 1, 8, 8)
        back.set_timesteps(4)
        y = start * back.init_noise_sigma
        with torch.no_grad():
            for t in back.timesteps:
                y = back.step(digits.denoise(y, t.double()), t, y, return_dict=False)[0]
            expected = sb.execute(
                sb.tableau(name, nfe=4, teacher=digits).plan_from_noise(digits.schedule), digits.denoise, start
            )
        assert relative(y, expected) < 1e-5


def test_noise_is_added_as_its_times_have_it(scheduler, teacher):
    image, added = torch.rand(2, 3, 8, 8), torch.randn(2, 3, 8, 8)
    found = scheduler.add_noise(image, added, scheduler.timesteps[[0, 2]])
    for n, k in enumerate((0, 2)):
        alpha, sigma = scheduler.config.alphas[k], scheduler.config.sigmas[k]
        assert alpha**2 * (1 + sigma**2) == pytest.approx(1)
        torch.testing.assert_close(found[n], alpha * image[n] + alpha * sigma * added[n])
    with pytest.raises(ValueError, match="add_noise at 17"):
        scheduler.add_noise(image, added, torch.tensor([17, 17]))


def one_line(caught):
    assert "\n" not in str(caught.value)


def test_another_number_of_steps_is_refused(scheduler):
    with pytest.raises(ValueError, match="50 steps are requested, but its numbers are for 4 calls; give") as caught:
        images(pipeline(scheduler), 50)
    one_line(caught)


def test_the_eta_of_pipelines_of_ddim_is_0(scheduler):
    expected = images(pipeline(scheduler))
    pipe = diffusers.DDIMPipeline(folders.unet(), diffusers.DDIMScheduler())
    pipe.scheduler = scheduler  # its own init makes a DDIMScheduler of any
    pipe.set_progress_bar_config(disable=True)
    assert torch.equal(images(pipe), expected)
    with pytest.raises(ValueError, match=r"eta=0.5: nothing is random in its steps; leave eta out"):
        pipe(eta=0.5, num_inference_steps=NFE)


def test_times_that_a_pipeline_makes_by_itself_are_left_aside_and_chosen_ones_refused(scheduler):
    scheduler.set_timesteps(sigmas=np.linspace(1.0, 1 / NFE, NFE), mu=0.7)
    assert scheduler.timesteps.tolist() == pytest.approx(scheduler.config.timesteps)
    with pytest.raises(ValueError, match="5 steps are requested"):
        scheduler.set_timesteps(sigmas=np.linspace(1.0, 1 / 5, 5))
    with pytest.raises(ValueError, match=r"sigmas \[1\.0, 0\.9, 0\.5, 0\.1\]: its levels are fixed") as caught:
        scheduler.set_timesteps(sigmas=[1.0, 0.9, 0.5, 0.1])
    one_line(caught)


def test_calls_out_of_turn_are_refused(scheduler):
    y = torch.randn(2, 3, 8, 8)
    scheduler.set_timesteps(NFE)
    with pytest.raises(ValueError, match=r"call 1 is at timestep .*, but its weights are for 999; use") as caught:
        scheduler.step(y, scheduler.timesteps[1], y)
    one_line(caught)
    for t in scheduler.timesteps:
        scheduler.step(y, t, y)
    with pytest.raises(ValueError, match="all 4 calls are made; call set_timesteps"):
        scheduler.step(y, scheduler.timesteps[0], y)
    with pytest.raises(ValueError, match="begin at call 2: its weights hold only for whole runs; use strength=1"):
        scheduler.set_begin_index(2)
    scheduler.set_timesteps(NFE)
    with pytest.raises(ValueError, match=r"the output has the shape .*, but the sample"):
        scheduler.step(y[:, :2], scheduler.timesteps[0], y)


def test_a_run_that_was_broken_off_is_forgotten(scheduler):
    expected = images(pipeline(scheduler))
    scheduler.set_timesteps(NFE)
    scheduler.step(torch.ones(2, 3, 8, 8), scheduler.timesteps[0], torch.ones(2, 3, 8, 8))
    assert scheduler.step_index == 1
    assert torch.equal(images(pipeline(scheduler)), expected)


def test_a_start_that_the_pipeline_does_not_scale_is_refused():
    """DDPMPipeline gives the network unit noise, whatever its scheduler asks for."""
    with pytest.raises(ValueError, match=r"its first input must be 80 times unit noise, but this pipeline") as caught:
        images(pipeline(sb.diffusers_scheduler("euler", nfe=NFE, teacher="digits")))
    one_line(caught)


def test_a_start_that_is_a_little_off_is_said(teacher, logged):
    """After an analytic first step the first call isn't at the start."""
    scheduler = sb.diffusers_scheduler("dpm:afs=true", nfe=NFE, teacher=teacher)
    diffusers.utils.logging.enable_propagation()
    try:
        images(pipeline(scheduler))
        assert any("its first input must be 0.999" in text for text in logged)
        logged.clear()
        assert scheduler.init_noise_sigma == pytest.approx(1, abs=1e-2)
        images(pipeline(scheduler))
        assert not logged
    finally:
        diffusers.utils.logging.disable_propagation()


def test_other_configurations_and_numbers_that_do_not_fit_are_refused(scheduler):
    with pytest.raises(ValueError, match=r"0 timesteps, .*; load an exported scheduler_config"):
        TableauScheduler.from_config(diffusers.DDIMScheduler().config)
    config = {key: value for key, value in scheduler.config.items() if not key.startswith("_")}
    for change in ({"alphas": [1.0]}, {"weights": [[1.0]] * 5}, {"prediction_type": "flow"}):
        with pytest.raises(ValueError, match="TableauScheduler: "):
            TableauScheduler(**{**config, **change})


def test_a_solver_is_taken_as_a_spec_a_solver_or_a_tableau(teacher, scheduler):
    made = sb.tableau(SPEC, nfe=NFE, teacher=teacher)
    for solver, nfe in ((sb.make(SPEC), NFE), (made, None), (made, NFE)):
        assert sb.diffusers_scheduler(solver, nfe=nfe, teacher=teacher).config.weights == scheduler.config.weights
    with pytest.raises(BudgetError, match="nfe=5: the tableau has 4 calls"):
        sb.diffusers_scheduler(made, nfe=5, teacher=teacher)
    with pytest.raises(BudgetError, match="nfe isn't given"):
        sb.diffusers_scheduler(SPEC, teacher=teacher)


def test_a_text_pipelines_prompt_does_not_matter_to_its_numbers(tmp_path):
    """They are the same whatever the network is told beside its time."""
    folder, prompts = folders.stable_diffusion(tmp_path / "sd"), tiny.prompts(tmp_path / "p.txt")
    configs = [
        sb.diffusers_scheduler(SPEC, nfe=NFE, teacher=folders.load(folder, prompts=prompts, guidance=g)).config
        for g in (1.0, 7.5)
    ]
    assert configs[0] == configs[1]
