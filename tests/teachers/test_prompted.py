"""Networks that are told prompts: each folder gives what its pipeline gives, whatever tells it."""

import json
import shutil

import pytest
import tiny
import torch
from golden import relative

from solverbench.errors import MissingError, RecordError, SpecError

pytest.importorskip("diffusers")
pytest.importorskip("transformers")

import diffusers
import tiny_folders as folders

import solverbench as sb


def test_a_stable_diffusion_folder_follows_its_pipeline(tmp_path):
    folder = folders.stable_diffusion(tmp_path / "sd")
    teacher = folders.load(folder, prompts=tiny.prompts(tmp_path / "p.txt"), guidance=4.0, negative="rain")
    scheduler, sigmas = folders.ddim(teacher, folders.VP | {"beta_schedule": "scaled_linear"})
    parts = folders.text(tmp_path)
    pipeline = diffusers.StableDiffusionPipeline(
        vae=folders.vae(), unet=folders.text_unet(), scheduler=scheduler, safety_checker=None, feature_extractor=None,
        requires_safety_checker=False, **parts,
    )  # fmt: skip
    pipeline.set_progress_bar_config(disable=True)
    noise = tiny.random(2, 4, 8, 8)
    made = pipeline(
        [tiny.PROMPTS[1], tiny.PROMPTS[2]], negative_prompt=["rain"] * 2, height=16, width=16, guidance_scale=4.0,
        num_inference_steps=folders.STEPS, latents=noise, output_type="latent",
    ).images  # fmt: skip
    end = teacher.schedule.alpha(teacher.schedule.time(torch.tensor(sigmas[-1], dtype=torch.float64)))
    found = folders.ours(teacher, sigmas, noise, seeds=[1, 2])
    assert relative(found.double() * end, made.double()) < 1e-5


def xl_parts(folder, pooled=12):
    tokenizer = folders.text(folder)["tokenizer"]
    return {
        "unet": folders.xl_unet(pooled), "vae": folders.vae(), "text_encoder": tiny.clip(16), "tokenizer": tokenizer,
        "text_encoder_2": tiny.clip(16, projection=12, seed=1), "tokenizer_2": tokenizer,
    }  # fmt: skip


def noted(folder, **more):
    """Write further entries into a pipeline's index."""
    path = folder / "model_index.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **more}))
    return folder


@pytest.mark.parametrize(
    ("negative", "zeros", "rescale"),
    [("rain", True, 0.0), (None, True, 0.0), (None, False, 0.0), ("", True, 0.0), ("", True, 0.7)],
    ids=["negative", "zeros", "encoded", "empty", "rescaled"],
)
def test_a_stable_diffusion_xl_folder_follows_its_pipeline(tmp_path, negative, zeros, rescale):
    parts = xl_parts(tmp_path)
    folder = folders.save(
        tmp_path / "xl", "StableDiffusionXLPipeline", diffusers.DDIMScheduler(**folders.VP), **parts
    )  # fmt: skip
    noted(folder, force_zeros_for_empty_prompt=zeros)
    told = {"prompts": tiny.prompts(tmp_path / "p.txt"), "guidance": 4.0}
    told |= {} if negative is None else {"negative": negative}
    told |= {"guidance_rescale": rescale} if rescale else {}
    teacher = folders.load(folder, **told)
    assert teacher.passes == 2
    scheduler, sigmas = folders.ddim(teacher, folders.VP)
    pipeline = diffusers.StableDiffusionXLPipeline(
        **parts, scheduler=scheduler, force_zeros_for_empty_prompt=zeros, add_watermarker=False
    )
    pipeline.set_progress_bar_config(disable=True)
    noise = tiny.random(2, 4, 8, 8)
    made = pipeline(
        tiny.PROMPTS[1:], negative_prompt=None if negative is None else [negative] * 2, height=16, width=16,
        guidance_scale=4.0, guidance_rescale=rescale, num_inference_steps=folders.STEPS, latents=noise,
        output_type="latent",
    ).images  # fmt: skip
    end = teacher.schedule.alpha(teacher.schedule.time(torch.tensor(sigmas[-1], dtype=torch.float64)))
    found = folders.ours(teacher, sigmas, noise, seeds=[1, 2])
    assert relative(found.double() * end, made.double()) < 1e-5


def test_an_explicit_empty_negative_prompt_and_zeros_are_two_teachers(tmp_path):
    folder = folders.save(
        tmp_path / "xl", "StableDiffusionXLPipeline", diffusers.DDIMScheduler(**folders.VP), **xl_parts(tmp_path)
    )
    told = {"prompts": tiny.prompts(tmp_path / "p.txt"), "guidance": 4.0}
    missing, empty = folders.load(folder, **told), folders.load(folder, **told, negative="")
    off = folders.load(folder, **told, options={"zeros": False})
    assert missing.identity != empty.identity == off.identity
    assert folders.load(folder, **told, options={"zeros": True}).identity == missing.identity
    x, sigma = tiny.random(1, 4, 8, 8), torch.tensor(2.0, dtype=torch.float64)
    with torch.no_grad():
        images = [each.denoiser([1])(x, sigma) for each in (missing, empty, off)]
    assert relative(images[1], images[0]) > 1e-3
    assert torch.equal(images[1], images[2])
    stable = folders.stable_diffusion(tmp_path / "sd")
    with pytest.raises(SpecError, match="zeros is Stable Diffusion XL's"):
        folders.load(stable, **told, options={"zeros": True})


def test_a_refiner_is_refused_by_what_it_is_told(tmp_path):
    folder = folders.save(
        tmp_path / "xl", "StableDiffusionXLPipeline", diffusers.DDIMScheduler(**folders.VP), **xl_parts(tmp_path, 4)
    )  # fmt: skip
    with pytest.raises(
        RecordError, match="takes pooled prompt embeddings of 4 numbers, but those of text_encoder_2 have"
    ):
        folders.load(folder, prompts=tiny.prompts(tmp_path / "p.txt"))
    folders.xl_unet().save_pretrained(tmp_path / "bare")
    with pytest.raises(MissingError, match="takes prompts, but tokenizer is missing"):
        folders.load(
            tmp_path / "bare", files={"scheduler": folder / "scheduler"}, prompts=tiny.prompts(tmp_path / "p.txt")
        )


@pytest.mark.parametrize(
    ("kind", "length", "sized"), [("Alpha", 120, True), ("Alpha", 120, False), ("Sigma", 300, False)]
)
def test_a_pixart_folder_follows_its_pipeline(tmp_path, monkeypatch, kind, length, sized):
    parts = {"vae": folders.vae(), "text_encoder": folders.t5(), "tokenizer": folders.t5_tokenizer()}
    network = folders.pixart(sized)
    folder = folders.save(
        tmp_path / "pixart", f"PixArt{kind}Pipeline", diffusers.DDIMScheduler(**folders.VP), transformer=network,
        **parts,
    )  # fmt: skip
    teacher = folders.load(folder, prompts=tiny.prompts(tmp_path / "p.txt", ["A Red bird", "two cats"]), guidance=3.0)
    scheduler, sigmas = folders.ddim(teacher, folders.VP)
    made = getattr(diffusers, f"PixArt{kind}Pipeline")(scheduler=scheduler, transformer=network, **parts)
    made.set_progress_bar_config(disable=True)
    call, seen = diffusers.PixArtTransformer2DModel.forward, []

    def watched(self, x, encoder_hidden_states=None, timestep=None, added_cond_kwargs=None, **more):
        if sized:  # its pipeline tells the size to networks of 1024 pixels, by a number in its code
            sizes = torch.full((len(x), 2), 16.0)
            added_cond_kwargs = {"resolution": sizes, "aspect_ratio": torch.ones(len(x), 1)}
        seen.append(encoder_hidden_states.shape[1])
        return call(self, x, encoder_hidden_states, timestep, added_cond_kwargs, **more)

    noise = tiny.random(2, 4, 8, 8)
    found = folders.ours(teacher, sigmas, noise, seeds=[0, 1])
    with monkeypatch.context() as patched:
        patched.setattr(diffusers.PixArtTransformer2DModel, "forward", watched)
        expected = made(
            ["A Red bird", "two cats"], negative_prompt="", height=16, width=16, guidance_scale=3.0,
            clean_caption=False, num_inference_steps=folders.STEPS, latents=noise, output_type="latent",
            use_resolution_binning=False,
        ).images  # fmt: skip
    assert set(seen) == {length}
    end = teacher.schedule.alpha(teacher.schedule.time(torch.tensor(sigmas[-1], dtype=torch.float64)))
    assert relative(found.double() * end, expected.double()) < 1e-5


def test_a_pixart_network_alone_is_told_what_to_say(tmp_path):
    folders.pixart(False).save_pretrained(tmp_path / "net")
    diffusers.DDIMScheduler(**folders.VP).save_pretrained(tmp_path / "net")
    folders.t5().save_pretrained(tmp_path / "t5")
    folders.t5_tokenizer().save_pretrained(tmp_path / "words")
    files = {"text_encoder": tmp_path / "t5", "tokenizer": tmp_path / "words"}
    prompts = tiny.prompts(tmp_path / "p.txt")
    with pytest.raises(SpecError, match="give text_length=120 for alpha or 300 for sigma"):
        folders.load(tmp_path / "net", files=files, prompts=prompts)
    assert folders.load(tmp_path / "net", files=files, prompts=prompts, options={"text_length": 120}).shape == (4, 8, 8)


def sd3_parts(folder, third):
    tokenizer = folders.text(folder)["tokenizer"]
    parts = {
        "transformer": folders.sd3(), "vae": folders.vae(shift=0.1),
        "text_encoder": tiny.clip(16, projection=12), "tokenizer": tokenizer,
        "text_encoder_2": tiny.clip(16, projection=12, seed=1), "tokenizer_2": tokenizer,
    }  # fmt: skip
    return parts | ({"text_encoder_3": folders.t5(), "tokenizer_3": folders.t5_tokenizer()} if third else {})


def called_by_name(teacher):
    """The levels of grid=pipeline, for which no shift is typed."""
    return sb.tableau("euler:grid=pipeline:end=zero", nfe=folders.STEPS, teacher=teacher).sigmas.tolist()


@pytest.mark.parametrize("third", [True, False], ids=["t5", "no-t5"])
def test_a_stable_diffusion_3_folder_follows_its_pipeline(tmp_path, third):
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0)
    parts = sd3_parts(tmp_path, third)
    folder = folders.save(tmp_path / "sd3", "StableDiffusion3Pipeline", scheduler, **parts)
    teacher = folders.load(folder, prompts=tiny.prompts(tmp_path / "p.txt"), guidance=4.0)
    nothing = {} if third else {"text_encoder_3": None, "tokenizer_3": None}
    pipeline = diffusers.StableDiffusion3Pipeline(scheduler=scheduler, **parts, **nothing)
    pipeline.set_progress_bar_config(disable=True)
    noise = tiny.random(2, 4, 8, 8)
    made = pipeline(
        tiny.PROMPTS[1:], negative_prompt=[""] * 2, height=16, width=16, guidance_scale=4.0,
        num_inference_steps=folders.STEPS, latents=noise, output_type="latent",
    ).images  # fmt: skip
    times = scheduler.sigmas.double()
    sigmas = [teacher.schedule.sigma_max, *(times[1:] / (1 - times[1:])).tolist()]
    assert relative(folders.ours(teacher, sigmas, noise, seeds=[1, 2]), made) < 1e-5
    assert called_by_name(teacher) == pytest.approx(sigmas[:-1], rel=1e-5)  # the scheduler's levels are float32
    with torch.no_grad():
        images = folders.vae().decode(made / 0.18215 + 0.1).sample
        assert relative(teacher.images(made), images) < 1e-5


@pytest.mark.parametrize("distilled", [True, False], ids=["distilled", "plain"])
def test_a_flux_folder_follows_its_pipeline(tmp_path, distilled):
    shift = {"use_dynamic_shifting": True, "shift_terminal": 0.1} if distilled else {"shift": 3.0}
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler(**shift)
    parts = {
        "transformer": folders.flux(distilled), "vae": folders.vae(shift=0.1), **folders.text(tmp_path),
        "text_encoder_2": folders.t5(), "tokenizer_2": folders.t5_tokenizer(),
    }  # fmt: skip
    folder = folders.save(tmp_path / "flux", "FluxPipeline", scheduler, **parts)
    options = {"size": 8, "text_length": 16, "distilled": 2.5}
    teacher = folders.load(folder, prompts=tiny.prompts(tmp_path / "p.txt"), options=options)
    pipeline = diffusers.FluxPipeline(scheduler=scheduler, **parts)
    pipeline.set_progress_bar_config(disable=True)
    noise = tiny.random(2, 4, 8, 8)
    packed = pipeline._pack_latents(noise, 2, 4, 8, 8)
    made = pipeline(
        tiny.PROMPTS[1:], height=16, width=16, guidance_scale=2.5, num_inference_steps=folders.STEPS, latents=packed,
        output_type="latent", max_sequence_length=16,
    ).images  # fmt: skip
    expected = pipeline._unpack_latents(made, 16, 16, pipeline.vae_scale_factor)
    times = scheduler.sigmas.double()
    sigmas = [teacher.schedule.sigma_max, *(times[1:] / (1 - times[1:])).tolist()]
    assert relative(folders.ours(teacher, sigmas, noise, seeds=[1, 2]), expected) < 1e-5
    assert called_by_name(teacher) == pytest.approx(sigmas[:-1], rel=1e-5)  # by the same mu, which no one typed


NAMED = {"sd3": "StableDiffusion3Pipeline", "flux": "FluxPipeline"}


@pytest.mark.parametrize("kind", ["sd3", "flux"])
def test_a_network_alone_takes_its_encoders_from_files(tmp_path, kind):
    """The same as from the pipeline's folder, which lies in pieces."""
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0)
    parts = sd3_parts(tmp_path, True)
    if kind == "flux":
        names = ("vae", "text_encoder", "tokenizer", "text_encoder_2", "tokenizer_2")
        parts = {"transformer": folders.flux(), **{name: parts[name] for name in names}}
        parts |= {**folders.text(tmp_path), "text_encoder_2": folders.t5(), "tokenizer_2": folders.t5_tokenizer()}
    whole = folders.save(tmp_path / "whole", NAMED[kind], scheduler, **parts)
    options = {"text_length": 16} | ({"size": 8} if kind == "flux" else {})
    told = {"prompts": tiny.prompts(tmp_path / "p.txt"), "options": options}
    together = folders.load(whole, **told)
    files = {name: whole / name for name in parts if name != "transformer"} | {"scheduler": whole / "scheduler"}
    pieces = shutil.copytree(whole / "transformer", tmp_path / "pieces" / "net")
    apart = folders.load(pieces, files=files, **told)
    assert apart.identity == together.identity
    x, sigma = tiny.random(2, 4, 8, 8), torch.tensor(2.0, dtype=torch.float64)
    with torch.no_grad():
        assert torch.equal(apart.denoiser([1, 2])(x, sigma), together.denoiser([1, 2])(x, sigma))
    missing = {name: path for name, path in files.items() if name != "text_encoder_2"}
    with pytest.raises(MissingError, match=r"text_encoder_2 is missing; .* or files\.text_encoder_2") as caught:
        folders.load(pieces, files=missing, **told)
    assert "\n" not in str(caught.value)


def test_each_prompt_is_encoded_once(tmp_path, monkeypatch):
    import transformers

    calls = []
    forward = transformers.CLIPTextModel.forward

    def counted(self, input_ids, **more):
        calls.append(len(input_ids))
        return forward(self, input_ids, **more)

    monkeypatch.setattr(transformers.CLIPTextModel, "forward", counted)
    told = {"prompts": tiny.prompts(tmp_path / "p.txt"), "guidance": 2.0}
    teacher = folders.load(folders.stable_diffusion(tmp_path / "sd"), **told)
    x, sigma = tiny.random(7, 4, 8, 8), torch.tensor(1.0, dtype=torch.float64)
    with torch.no_grad():
        first = teacher.denoiser(range(7))(x, sigma)
        for chosen in (range(3), range(3, 7), range(7)):
            again = teacher.denoiser(chosen)(x[list(chosen)], sigma)
            assert relative(again, first[list(chosen)]) < 1e-5
    assert calls == [1] * (len(tiny.PROMPTS) + 1)  # and the empty one


def test_what_is_remembered_is_bounded_and_the_same_whatever_came_before():
    from solverbench.teachers.families.text import Remembered

    asked = []

    def encode(prompts):
        asked.extend(prompts)
        return torch.tensor([[float(len(prompt))] * 4 for prompt in prompts]), torch.ones(len(prompts), 2)

    remembered = Remembered(encode, kept=3 * 24)
    words, pooled = remembered(["a", "bb", "a", "ccc"])
    assert (words[:, 0].tolist(), pooled.shape) == ([1.0, 2.0, 1.0, 3.0], (4, 2))
    assert asked == ["a", "bb", "ccc"]
    remembered(["dddd"])  # "bb" was used least recently
    asked.clear()
    remembered(["a", "ccc", "dddd"])
    assert asked == []
    remembered(["bb"])
    assert asked == ["bb"]
    assert (len(remembered.found), remembered.size) == (3, 3 * 24)
