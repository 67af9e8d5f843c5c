"""Diffusers folders: trajectories equal upstream's own, conditions reach every call, nothing foreign is run."""

import dataclasses
import json
import shutil

import pytest
import tiny
import torch
from click.testing import CliRunner
from golden import relative

from solverbench.bench import run
from solverbench.bench.run_options import RunOptions
from solverbench.cli.main import main
from solverbench.errors import MissingError, RecordError, SpecError, UserError
from solverbench.sampling import convergence
from solverbench.teachers.loading import load_teacher

pytest.importorskip("diffusers")
pytest.importorskip("transformers")

import diffusers
import tiny_folders as folders

pytestmark = pytest.mark.usefixtures("unrendered", "few_compared")


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"prediction_type": "v_prediction"},
        {"prediction_type": "sample"},
        {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012},
        {"beta_schedule": "squaredcos_cap_v2"},
        {"trained_betas": [0.0005 + 0.00002 * n for n in range(1000)]},
    ],
    ids=lambda changes: "-".join(map(str, changes.values()))[:40] or "epsilon",
)
def test_a_ddpm_folder_follows_ddim(tmp_path, changes):
    folder = folders.ddpm(tmp_path / "ddpm", **changes)
    teacher = folders.load(folder)
    scheduler, sigmas = folders.ddim(teacher, json.loads((folder / "scheduler" / "scheduler_config.json").read_text()))
    noise, network = tiny.random(2, 3, 8, 8), folders.unet()
    expected = folders.upstream(scheduler, lambda x, t: network(x, t).sample, noise)
    end = teacher.schedule.alpha(teacher.schedule.time(torch.tensor(sigmas[-1], dtype=torch.float64)))
    assert relative(folders.ours(teacher, sigmas, noise).double() * end, expected.double()) < 1e-5


def test_a_schedule_that_ends_without_signal_follows_ddim(tmp_path):
    changes = {"prediction_type": "v_prediction", "rescale_betas_zero_snr": True}
    folder = folders.ddpm(tmp_path / "ddpm", **changes)
    teacher = folders.load(folder)
    scheduler, sigmas = folders.ddim(teacher, json.loads((folder / "scheduler" / "scheduler_config.json").read_text()))
    assert float(scheduler.alphas_cumprod[-1]) == 0
    assert sigmas[0] == teacher.schedule.sigma_max == pytest.approx(1e6)
    noise, network = tiny.random(2, 3, 8, 8), folders.unet()
    expected = folders.upstream(scheduler, lambda x, t: network(x, t).sample, noise)
    end = teacher.schedule.alpha(teacher.schedule.time(torch.tensor(sigmas[-1], dtype=torch.float64)))
    assert relative(folders.ours(teacher, sigmas, noise).double() * end, expected.double()) < 1e-5


def test_its_schedule_is_that_of_upstreams_tables(tmp_path):
    """In float64 where upstream's tables are float32."""
    from solverbench.teachers.families import schedulers

    rules = [{"beta_schedule": name} for name in ("linear", "scaled_linear", "squaredcos_cap_v2", "sigmoid")]
    for config in [*rules, {"beta_start": 0.001, "beta_end": 0.03}, {"num_train_timesteps": 50}]:
        for rescaled in (False, True):
            told = {"prediction_type": "v_prediction", "rescale_betas_zero_snr": rescaled}
            made = diffusers.DDPMScheduler(**config, **told)
            found = schedulers.alphas_cumprod(schedulers.settled({**made.config, "_class_name": "DDPMScheduler"}))
            assert torch.allclose(found.float(), made.alphas_cumprod, rtol=2e-4, atol=1e-7), config


def dit_pipeline(folder, scheduler=None, learned_variance=True):
    scheduler = scheduler or diffusers.DDIMScheduler(**folders.VP)
    return folders.save(folder, "DiTPipeline", scheduler, transformer=folders.dit(learned_variance), vae=folders.vae())


def test_a_guided_dit_follows_ddim(tmp_path):
    folder = dit_pipeline(tmp_path / "dit")
    teacher = folders.load(folder, guidance=3.0)
    assert (teacher.passes, teacher.condition.count) == (2, 10)
    scheduler, sigmas = folders.ddim(teacher, folders.VP)
    noise, network, classes = tiny.random(2, 4, 8, 8), folders.dit(), torch.tensor([4, 7, 10, 10])

    def guided(x, t):
        led, free = network(torch.cat((x, x)), timestep=t.expand(4), class_labels=classes).sample[:, :4].chunk(2)
        return free + 3.0 * (led - free)

    expected = folders.upstream(scheduler, guided, noise)
    end = teacher.schedule.alpha(teacher.schedule.time(torch.tensor(sigmas[-1], dtype=torch.float64)))
    found = folders.ours(teacher, sigmas, noise, seeds=[14, 27])
    assert relative(found.double() * end, expected.double()) < 1e-5
    with torch.no_grad():
        images = folders.vae().decode(found / 0.18215).sample
    assert relative(teacher.images(found), images) < 1e-5


@pytest.mark.parametrize("shift", [1.0, 3.0])
def test_a_flow_follows_upstreams_euler_from_pure_noise_to_the_image(tmp_path, shift):
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler(shift=shift)
    teacher = folders.load(dit_pipeline(tmp_path / "sit", scheduler, learned_variance=False))
    network, noise, classes = folders.dit(learned_variance=False), tiny.random(2, 4, 8, 8), torch.tensor([4, 7])
    expected = folders.upstream(
        scheduler, lambda x, t: network(x, timestep=t.expand(2), class_labels=classes).sample, noise
    )
    times = scheduler.sigmas.double()
    assert times[0] == 1
    sigmas = [teacher.schedule.sigma_max, *(times[1:] / (1 - times[1:])).tolist()]
    assert relative(folders.ours(teacher, sigmas, noise, seeds=[4, 7]), expected) < 1e-5
    assert teacher.schedule.t_first == pytest.approx(shift * 0.999 / (1 + (shift - 1) * 0.999))


@pytest.fixture
def every(tmp_path):
    """A folder of each kind, with what it needs."""
    flow = diffusers.FlowMatchEulerDiscreteScheduler()
    return {
        "ddpm": lambda: (folders.ddpm(tmp_path / "ddpm"), {}),
        "ldm": lambda: (
            folders.save(tmp_path / "ldm", "LDMPipeline", diffusers.DDIMScheduler(), unet=folders.unet(),
                         vqvae=folders.vq()),
            {},
        ),
        "dit": lambda: (dit_pipeline(tmp_path / "dit"), {"guidance": 1.5}),
        "flow": lambda: (dit_pipeline(tmp_path / "flow", flow, learned_variance=False), {"guidance": 1.5}),
        "sd": lambda: (
            folders.stable_diffusion(tmp_path / "sd"),
            {"guidance": 2.0, "prompts": tiny.prompts(tmp_path / "p.txt")},
        ),
    }  # fmt: skip


@pytest.mark.parametrize("kind", ["ddpm", "ldm", "dit", "flow", "sd"])
def test_every_kind_runs_through_the_command_line(every, tmp_path, kind):
    folder, table = every[kind]()
    path = tiny.describe(tmp_path / "mine.toml", checkpoint=folder.name, **folders.FAST | table)
    out = tmp_path / "runs"
    done = CliRunner().invoke(
        main,
        ["run", "--teachers", str(path), "--solvers", "dpm,unipc", "--nfe", "4-6", "--samples", "10",
         "--replicates", "1", "--out", str(out)],
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    bundle = json.loads(next((out / "reports").iterdir()).joinpath("bundle.json").read_text())
    assert bundle["selection"]["teachers"] == ["mine"]


def test_with_guidance_a_call_passes_two_rows_and_each_holds_its_class(tmp_path, monkeypatch):
    seen = []
    call = diffusers.DiTTransformer2DModel.forward

    def watched(self, sample, timestep, class_labels):
        seen.append(class_labels.tolist())
        return call(self, sample, timestep=timestep, class_labels=class_labels)

    monkeypatch.setattr(diffusers.DiTTransformer2DModel, "forward", watched)
    path = tiny.describe(
        tmp_path / "mine.toml", checkpoint=dit_pipeline(tmp_path / "dit"), guidance=2.0, **folders.FAST
    )
    convergence.measure(load_teacher(str(path)), tmp_path)  # so that the run makes no calls for it
    seen.clear()
    frame = run.run(RunOptions(
        solvers="unipc", nfe="5", teachers=str(path), out=tmp_path, samples=10, replicates=1, seeds="50000-50009",
        workers=1,
    )).frame  # fmt: skip
    assert set(frame.net_passes) == {10}
    assert len(seen) == 10 * (5 + 6)
    assert {each[0] for each in seen} == {10}
    assert sorted(each[1] for each in seen) == sorted(list(range(10)) * 11)


def test_a_network_alone_takes_its_scheduler_from_a_file(tmp_path):
    folders.unet().save_pretrained(tmp_path / "net")
    diffusers.DDPMScheduler(**folders.VP).save_pretrained(tmp_path / "sched")
    with pytest.raises(MissingError, match=r"give its scheduler_config\.json as files\.scheduler"):
        folders.load(tmp_path / "net")
    given = folders.load(tmp_path / "net", files={"scheduler": tmp_path / "sched" / "scheduler_config.json"})
    shutil.copy(tmp_path / "sched" / "scheduler_config.json", tmp_path / "net")
    beside = folders.load(tmp_path / "net")
    assert given.identity == beside.identity == folders.load(folders.ddpm(tmp_path / "ddpm")).identity


def test_weights_in_bin_files_are_read_as_tensors_alone(tmp_path):
    folder = folders.ddpm(tmp_path / "ddpm")
    before = folders.load(folder).identity
    (folder / "unet" / "diffusion_pytorch_model.safetensors").unlink()
    folders.unet().save_pretrained(folder / "unet", safe_serialization=False)
    assert folders.load(folder).identity == before

    class Attack:
        def __reduce__(self):
            return (open, (str(tmp_path / "ran"), "w"))

    torch.save({"conv_in.weight": Attack()}, folder / "unet" / "diffusion_pytorch_model.bin")
    with pytest.raises(RecordError, match="not a plain checkpoint of tensors") as caught:
        folders.load(folder)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "ran").exists()


def test_an_unconditional_class_of_a_unet_is_named(tmp_path):
    scheduler = diffusers.DDPMScheduler(**folders.VP)
    folder = folders.save(tmp_path / "classes", "DDPMPipeline", scheduler, unet=folders.unet(classes=4))
    assert folders.load(folder).condition.count == 4
    guided = folders.load(folder, options={"null_class": 3}, guidance=2.0)
    assert (guided.condition.count, guided.passes) == (3, 2)
    with pytest.raises(UserError, match="no unconditional input"):
        folders.load(folder, guidance=2.0)


def test_a_learned_variance_is_left_out(tmp_path):
    scheduler = diffusers.DDPMScheduler(**folders.VP)
    folder = folders.save(tmp_path / "learned", "DDPMPipeline", scheduler, unet=folders.unet(out=6))
    x, sigma = tiny.random(1, 3, 8, 8), torch.tensor(1.0, dtype=torch.float64)
    assert folders.load(folder).denoise(x, sigma).shape == (1, 3, 8, 8)


def test_recomputing_changes_no_gradient(tmp_path):
    folder, gradients = dit_pipeline(tmp_path / "dit"), []
    for checkpointing in (False, True):
        teacher = folders.load(folder, options={"checkpointing": checkpointing}, guidance=2.0)
        x = tiny.random(1, 4, 8, 8).requires_grad_()
        teacher.images(teacher.denoiser([4])(x, torch.tensor(1.0, dtype=torch.float64))).square().sum().backward()
        gradients.append(x.grad)
    assert relative(gradients[1], gradients[0]) < 1e-5


def edited(path, **changes):
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


@pytest.mark.parametrize(
    ("place", "changes", "kind", "text"),
    [
        ("model_index.json", {"_class_name": ["pipeline_mine", "Mine"]}, RecordError, "is custom code"),
        ("model_index.json", {"unet": ["mine", "UNet2DModel"]}, RecordError, r"unet is mine\.UNet2DModel"),
        (
            "model_index.json",
            {"unet": ["diffusers", "Kandinsky3UNet"]},
            RecordError,
            "Kandinsky3UNet, which isn't supported",
        ),
        ("model_index.json", {"unet": None}, RecordError, "doesn't have exactly one unet or transformer"),
        ("unet/config.json", {"_class_name": "Mine"}, RecordError, "Mine, which isn't supported"),
        ("unet/config.json", {"sample_size": None}, SpecError, "give size=N"),
        ("unet/config.json", {"block_out_channels": [16, 48]}, RecordError, "can't be loaded .*size mismatch"),
        ("unet/config.json", {"layers_per_block": 2}, RecordError, "size mismatch"),
        ("scheduler/scheduler_config.json", {"prediction_type": "score"}, RecordError, "prediction_type 'score'"),
        ("scheduler/scheduler_config.json", {"beta_schedule": "mine"}, RecordError, "beta_schedule 'mine'"),
        (
            "scheduler/scheduler_config.json",
            {"_class_name": "ScoreSdeVeScheduler"},
            RecordError,
            "process isn't read",
        ),
    ],
)
def test_what_is_not_read_is_refused_by_name(tmp_path, place, changes, kind, text):
    folder = folders.ddpm(tmp_path / "ddpm")
    edited(folder / place, **changes)
    with pytest.raises(kind, match=text) as caught:
        folders.load(folder)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "text"), [("drop", "missing tensors.* conv_in.bias"), ("add", "unexpected .* extra")]
)
def test_tensors_too_few_or_too_many_are_refused(tmp_path, change, text):
    from safetensors.torch import load_file, save_file

    folder = folders.ddpm(tmp_path / "ddpm")
    path = folder / "unet" / "diffusion_pytorch_model.safetensors"
    found = load_file(path)
    if change == "drop":
        found.pop("conv_in.bias")
    else:
        found["extra"] = torch.ones(1)
    save_file(found, path)
    with pytest.raises(RecordError, match=text):
        folders.load(folder)


def test_damaged_and_missing_files_are_one_clear_line(tmp_path):
    folder = folders.ddpm(tmp_path / "ddpm")
    weights = folder / "unet" / "diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(RecordError, match="can't be loaded") as caught:
        folders.load(folder)
    assert "\n" not in str(caught.value)
    weights.unlink()
    with pytest.raises(MissingError, match=r"unet: holds no weights \(diffusion_pytorch_model\.safetensors\)"):
        folders.load(folder)
    (folder / "scheduler" / "scheduler_config.json").unlink()
    with pytest.raises(MissingError, match=r"files\.scheduler"):
        folders.load(folder)


def test_levels_of_a_flow_may_be_chosen(tmp_path):
    flow = diffusers.FlowMatchEulerDiscreteScheduler()
    folder = dit_pipeline(tmp_path / "flow", flow, learned_variance=False)
    teacher = folders.load(folder, sigma_max=99.0, sigma_min=0.01)
    assert (teacher.schedule.sigma_max, teacher.schedule.sigma_min) == (pytest.approx(99.0), pytest.approx(0.01))


def test_another_scheduler_is_another_teacher_and_a_sampler_setting_is_not(tmp_path):
    first = folders.load(folders.ddpm(tmp_path / "a"))
    assert first.identity == folders.load(folders.ddpm(tmp_path / "b", clip_sample=False)).identity
    assert first.identity != folders.load(folders.ddpm(tmp_path / "c", beta_end=0.03)).identity
    assert dataclasses.replace(first).to("cpu") is not None
