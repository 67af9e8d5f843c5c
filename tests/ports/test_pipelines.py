"""In diffusers' pipelines an exported scheduler makes our images, and on the same levels those of diffusers' own."""

import math

import pytest
import tiny
import torch
from golden import relative

import solverbench as sb

pytest.importorskip("diffusers")
pytest.importorskip("transformers")

import diffusers
import tiny_folders as folders

# Diffusers warns of its own configurations and of numpy's new copies.
pytestmark = [
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]

SOLVERS = {"euler:end=zero": 4, "heun": 4, "dpm:order=3": 4, "unipc:order=2:end=zero": 5, "dpm:threshold=true": 3}
CHANGES = {
    "epsilon": {},
    "v_prediction": {"prediction_type": "v_prediction"},
    "sample": {"prediction_type": "sample"},
    "zero_snr": {"prediction_type": "v_prediction", "rescale_betas_zero_snr": True},
}
NEAR = 1e-5
"""Of the largest value: single precision, over some calls of a random network."""

TWO_STAGES = 1e-4
"""Heun's stages nearly cancel at level 150, which multiplies the roundings of a noise prediction by as much."""


def final(pipe, **given):
    """What a pipeline's last step returns: its images before they are clipped, or decoded."""
    states, step = [], pipe.scheduler.step

    def recorded(*args, **more):
        found = step(*args, **more)
        states.append(found[0])
        return found

    pipe.scheduler.step = recorded
    pipe.set_progress_bar_config(disable=True)
    try:
        pipe(num_inference_steps=len(pipe.scheduler.config.timesteps), **given)
    finally:
        del pipe.scheduler.step
    return states[-1]


def seeded():
    return torch.Generator().manual_seed(3)


def noise(*shape):
    return torch.randn(*shape, generator=seeded())


@torch.no_grad()
def ours(solver, tableau, teacher, start, seeds=(0,)):
    plan = tableau.plan_from_noise(teacher.schedule)
    return sb.execute(plan, sb.make(solver).adapt(teacher.denoiser(list(seeds))), start)


@pytest.mark.parametrize("spec", SOLVERS)
@pytest.mark.parametrize("kind", CHANGES)
def test_a_ddpm_pipeline_makes_our_images(tmp_path, kind, spec):
    teacher = folders.load(folders.ddpm(tmp_path / "ddpm", **CHANGES[kind]))
    scheduler = sb.diffusers_scheduler(spec, nfe=SOLVERS[spec], teacher=teacher)
    pipe = diffusers.DDPMPipeline(folders.unet(), scheduler)
    tableau = sb.tableau(sb.make(spec), nfe=SOLVERS[spec], teacher=teacher)
    expected = ours(spec, tableau, teacher, noise(2, 3, 8, 8), (0, 1))
    for _ in range(2):  # the second run sees nothing of the first
        found = final(pipe, batch_size=2, generator=seeded())
        assert relative(found, expected) < (TWO_STAGES if spec == "heun" else NEAR)


@pytest.fixture
def stable(tmp_path):
    """A pipeline told by a prompt, with guidance, and its teacher."""
    folder = folders.stable_diffusion(tmp_path / "sd")
    teacher = folders.load(folder, guidance=3.0, prompts=tiny.prompts(tmp_path / "p.txt"))
    parts = {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}
    pipe = diffusers.StableDiffusionPipeline.from_pretrained(folder, local_files_only=True, **parts)
    return pipe, teacher


GUIDED = {"prompt": tiny.PROMPTS[0], "guidance_scale": 3.0, "height": 16, "width": 16}


@pytest.mark.parametrize("spec", [*SOLVERS, "dpm:afs=true"])
def test_a_guided_pipeline_makes_our_images(stable, spec):
    pipe, teacher = stable
    nfe = SOLVERS.get(spec, 4)
    pipe.scheduler = sb.diffusers_scheduler(spec, nfe=nfe, teacher=teacher)
    start = noise(1, 4, 8, 8)
    expected = ours(spec, sb.tableau(sb.make(spec), nfe=nfe, teacher=teacher), teacher, start)
    found = final(pipe, latents=start, output_type="latent", **GUIDED)
    assert relative(found, expected) < NEAR
    images = pipe(latents=start, output_type="pt", num_inference_steps=nfe, **GUIDED).images
    assert relative(images, (teacher.images(expected) / 2 + 0.5).clamp(0, 1)) < NEAR


def test_an_image_is_changed_at_full_strength_alone(stable):
    """There its noise is added as the scheduler has it; a run can't begin in its middle."""
    base, teacher = stable
    pipe = diffusers.StableDiffusionImg2ImgPipeline(**base.components, requires_safety_checker=False)
    pipe.scheduler = scheduler = sb.diffusers_scheduler("dpm", nfe=3, teacher=teacher)
    pipe.set_progress_bar_config(disable=True)
    given = {"image": torch.zeros(1, 4, 8, 8), "guidance_scale": 3.0, "num_inference_steps": 3, "output_type": "latent"}
    found = pipe(tiny.PROMPTS[0], strength=1.0, generator=seeded(), **given).images
    # Of an image of zeros at the first time only the noise is left, a little less than all of it.
    start = scheduler.config.alphas[0] * scheduler.config.sigmas[0] * noise(1, 4, 8, 8)
    expected = ours("dpm", sb.tableau("dpm", nfe=3, teacher=teacher), teacher, start)
    assert relative(found, expected) < NEAR
    with pytest.raises(ValueError, match="begin at call 1: its weights hold only for whole runs; use strength=1"):
        pipe(tiny.PROMPTS[0], strength=0.7, **given)


def levels(teacher, scheduler, steps, end):
    """The levels of a discrete scheduler's own integer times, and the end."""
    scheduler.set_timesteps(steps)
    times = (scheduler.timesteps.double() + 1) / 1000
    return [*map(float, teacher.schedule.sigma(times)), end]


VP = {"num_train_timesteps": 1000, "beta_schedule": "scaled_linear", "timestep_spacing": "trailing"}
# Where the number of steps doesn't divide that of training, DDIM's own steps end beside its next time; and to level 0
# UniPC's bh1 isn't a number.
OWN = {
    "ddim": (lambda: diffusers.DDIMScheduler(**VP, clip_sample=False), "euler:end=zero"),
    "euler": (
        lambda: diffusers.EulerDiscreteScheduler(**{**VP, "timestep_spacing": "leading"}, steps_offset=1),
        "euler:end=zero",
    ),
    "dpm++ 1": (lambda: diffusers.DPMSolverMultistepScheduler(**VP, solver_order=1), "dpm:order=1:end=zero"),
    "dpm++ 2m": (
        lambda: diffusers.DPMSolverMultistepScheduler(**VP, solver_order=2),
        "dpm:order=2:lower_order_final=false:end=zero",
    ),
    "unipc bh2": (
        lambda: diffusers.UniPCMultistepScheduler(**VP, solver_order=2),
        "unipc:order=2:lower_order_final=false:end=zero",
    ),
}


@pytest.mark.parametrize("name", OWN)
def test_on_the_same_levels_a_guided_pipeline_makes_the_images_of_diffusers_own_scheduler(stable, name):
    pipe, teacher = stable
    make, spec = OWN[name]
    pipe.scheduler, start = make(), noise(1, 4, 8, 8)
    grid = levels(teacher, pipe.scheduler, 5, 0.0)
    pipe.set_progress_bar_config(disable=True)
    given = {"num_inference_steps": 5, "latents": start, "output_type": "latent", **GUIDED}
    expected = pipe(**given).images
    made = sb.tableau(spec, grid=grid, teacher=teacher)
    assert made.nfe == 5
    pipe.scheduler = sb.diffusers_scheduler(made, teacher=teacher)
    assert relative(pipe(**given).images, expected) < NEAR


MULTISTEP = {
    "dpm++ 3m": (diffusers.DPMSolverMultistepScheduler, {"solver_order": 3}, "dpm:order=3"),
    "dpm++ 2m": (diffusers.DPMSolverMultistepScheduler, {"solver_order": 2}, "dpm:order=2"),
    "unipc 3 bh2": (diffusers.UniPCMultistepScheduler, {"solver_order": 3}, "unipc:order=3"),
    "unipc 3 bh1": (
        diffusers.UniPCMultistepScheduler,
        {"solver_order": 3, "solver_type": "bh1"},
        "unipc:order=3:variant=bh1",
    ),
}


def loop(scheduler, network, y):
    """A pipeline's loop."""
    for t in scheduler.timesteps:
        y = scheduler.step(network(scheduler.scale_model_input(y, t), t), t, y).prev_sample
    return y


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample"])
@pytest.mark.parametrize("name", MULTISTEP)
@torch.no_grad()
def test_to_the_last_level_it_follows_diffusers_own_steps(tmp_path, name, prediction):
    """Whose last state, unlike ours, still has its scale."""
    cls, options, spec = MULTISTEP[name]
    teacher = folders.load(folders.ddpm(tmp_path / "ddpm", prediction_type=prediction, beta_schedule="scaled_linear"))
    own = cls(**VP, **options, prediction_type=prediction, final_sigmas_type="sigma_min")
    made = sb.tableau(spec, grid=levels(teacher, own, 7, teacher.schedule.sigma_min), teacher=teacher)
    scheduler = sb.diffusers_scheduler(made, teacher=teacher)
    scheduler.set_timesteps(7)
    assert torch.allclose(scheduler.timesteps, own.timesteps.float(), atol=1e-4)
    network, start = folders.unet(), noise(2, 3, 8, 8)
    found, expected = (loop(each, lambda y, t: network(y, t).sample, start) for each in (scheduler, own))
    assert relative(found / math.sqrt(1 + teacher.schedule.sigma_min**2), expected) < NEAR


def transformer():
    """A class-conditional network with the 1000 classes of which DiTPipeline takes the next for none."""
    return folders.seeded(
        lambda: diffusers.DiTTransformer2DModel(
            num_attention_heads=2, attention_head_dim=8, in_channels=4, out_channels=4, num_layers=2, sample_size=8,
            patch_size=2, num_embeds_ada_norm=1000,
        )
    )  # fmt: skip


def dit(folder, scheduler, **table):
    folder = folders.save(folder, "DiTPipeline", scheduler, transformer=transformer(), vae=folders.vae())
    return folders.load(folder, **table)


@pytest.mark.parametrize("shift", [1.0, 3.0])
@pytest.mark.parametrize("spec", ["euler:end=zero:grid=time_uniform", "heun", "unipc", "dpm:order=3"])
def test_a_flow_makes_our_latents_in_a_guided_dit_pipeline(tmp_path, spec, shift):
    """Solvers on grids that start below time 1 take noise times that: this pipeline gives it unscaled."""
    flow = diffusers.FlowMatchEulerDiscreteScheduler(shift=shift)
    teacher = dit(tmp_path / "dit", flow, guidance=3.0)
    scheduler = sb.diffusers_scheduler(spec, nfe=4, teacher=teacher)
    pipe = diffusers.DiTPipeline(transformer(), folders.vae(), scheduler)
    expected = ours(spec, sb.tableau(spec, nfe=4, teacher=teacher), teacher, noise(2, 4, 8, 8), (4, 7))
    found = final(pipe, class_labels=[4, 7], guidance_scale=3.0, generator=seeded())[:2]
    assert relative(found, expected) < (NEAR if "time_uniform" in spec else 2e-3)


@pytest.fixture
def three(tmp_path):
    """A Stable Diffusion 3 pipeline, and its teacher."""
    import transformers

    encoders = {f"text_encoder{n}": tiny.clip(width, width, seed=0) for n, width in (("", 8), ("_2", 16))}
    words = {f"tokenizer{n}": transformers.CLIPTokenizer.from_pretrained(
        tiny.tokenizer(tmp_path / "words"), model_max_length=77) for n in ("", "_2")}  # fmt: skip
    flow = diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0)
    parts = {"transformer": folders.sd3(), "vae": folders.vae(shift=0.1), **encoders, **words}
    folder = folders.save(tmp_path / "sd3", "StableDiffusion3Pipeline", flow, **parts)
    pipe = diffusers.StableDiffusion3Pipeline(scheduler=flow, text_encoder_3=None, tokenizer_3=None, **parts)
    prompts = tiny.prompts(tmp_path / "p.txt")
    return pipe, folders.load(folder, guidance=3.0, prompts=prompts, options={"text_length": 256})


@pytest.mark.parametrize("spec", ["euler:end=zero:grid=time_uniform", "unipc", "dpm:order=3:end=zero"])
def test_a_prompted_flow_pipeline_makes_our_latents(three, spec):
    pipe, teacher = three
    nfe = 4
    pipe.scheduler = sb.diffusers_scheduler(spec, nfe=nfe, teacher=teacher)
    start = noise(1, 4, 8, 8)
    expected = ours(spec, sb.tableau(spec, nfe=nfe, teacher=teacher), teacher, start)
    scaled = start * pipe.scheduler.init_noise_sigma
    assert relative(final(pipe, latents=scaled, output_type="latent", **GUIDED), expected) < NEAR


def test_a_prompted_flow_pipeline_makes_the_latents_of_its_own_euler(three):
    pipe, teacher = three
    pipe.set_progress_bar_config(disable=True)
    given = {"num_inference_steps": 5, "latents": noise(1, 4, 8, 8), "output_type": "latent", **GUIDED}
    expected, times = pipe(**given).images, pipe.scheduler.sigmas.double()
    grid = [teacher.schedule.sigma_max, *(times[1:] / (1 - times[1:])).tolist()]
    made = sb.tableau("euler:end=zero", grid=grid, teacher=teacher)
    pipe.scheduler = sb.diffusers_scheduler(made, teacher=teacher)
    assert relative(pipe(**given).images, expected) < NEAR


@pytest.mark.parametrize("spec", ["euler:end=zero:grid=time_uniform", "dpm:order=2"])
def test_a_flux_pipeline_makes_our_latents(tmp_path, spec):
    """It gives its schedulers levels and a shift of its own, unless they say that they have them."""
    flow = diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0)
    parts = {
        "transformer": folders.flux(), "vae": folders.vae(shift=0.1), **folders.text(tmp_path),
        "text_encoder_2": folders.t5(), "tokenizer_2": folders.t5_tokenizer(),
    }  # fmt: skip
    folder = folders.save(tmp_path / "flux", "FluxPipeline", flow, **parts)
    options = {"size": 8, "text_length": 16, "distilled": 2.5}
    teacher = folders.load(folder, prompts=tiny.prompts(tmp_path / "p.txt"), options=options)
    pipe = diffusers.FluxPipeline(scheduler=sb.diffusers_scheduler(spec, nfe=4, teacher=teacher), **parts)
    start = noise(1, 4, 8, 8)
    expected = ours(spec, sb.tableau(spec, nfe=4, teacher=teacher), teacher, start)
    packed = pipe._pack_latents(start * pipe.scheduler.init_noise_sigma, 1, 4, 8, 8)
    given = {"prompt": tiny.PROMPTS[0], "height": 16, "width": 16, "guidance_scale": 2.5, "max_sequence_length": 16}
    found = final(pipe, latents=packed, output_type="latent", **given)
    assert relative(pipe._unpack_latents(found, 16, 16, pipe.vae_scale_factor), expected) < NEAR


@torch.no_grad()
def test_on_the_same_times_a_flow_follows_diffusers_unipc(tmp_path):
    flow = diffusers.FlowMatchEulerDiscreteScheduler()
    teacher = dit(tmp_path / "dit", flow, guidance=1.0)
    own = diffusers.UniPCMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True, solver_order=2)
    times = [0.9, 0.7, 0.45, 0.2]
    own.set_timesteps(4, sigmas=torch.tensor(times, dtype=torch.float64).numpy())
    assert own.timesteps.tolist() == [900, 700, 450, 200]
    grid = [*(t / (1 - t) for t in times), 0.0]
    made = sb.tableau("unipc:order=2:lower_order_final=false:end=zero", grid=grid, teacher=teacher)
    scheduler = sb.diffusers_scheduler(made, teacher=teacher)
    assert scheduler.init_noise_sigma == pytest.approx(0.9)
    scheduler.set_timesteps(4)
    network, start, classes = transformer(), noise(2, 4, 8, 8), torch.tensor([4, 7])

    def predict(y, t):
        return network(y, timestep=t.expand(2), class_labels=classes).sample

    assert relative(loop(scheduler, predict, 0.9 * start), loop(own, predict, 0.9 * start)) < NEAR
