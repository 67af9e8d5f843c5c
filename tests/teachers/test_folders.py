"""Diffusers folders as they are found: further parts, variants, older class names, shards, names of wrappers.

Needs diffusers and transformers.
"""

import argparse
import json
import shutil

import numpy as np
import pytest
import tiny
import torch
from golden import relative

from solverbench.errors import MissingError, RecordError, SpecError

pytest.importorskip("diffusers")
pytest.importorskip("transformers")

import diffusers
import tiny_folders as folders

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of diffusers and numpy

LEVEL = torch.tensor(2.0, dtype=torch.float64)


@pytest.fixture(scope="module")
def stable(tmp_path_factory):
    """A Stable Diffusion folder and prompts; tests that change it copy it."""
    place = tmp_path_factory.mktemp("stable")
    return folders.stable_diffusion(place / "sd"), tiny.prompts(place / "p.txt")


@pytest.fixture
def copied(stable, tmp_path):
    return shutil.copytree(stable[0], tmp_path / "sd"), stable[1]


def edited(path, **changes):
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"_class_name": "StableDiffusionControlNetPipeline", "controlnet": ["diffusers", "ControlNetModel"]},
         "has no folder controlnet"),
        ({"_class_name": "StableDiffusionImg2ImgPipeline"},
         "StableDiffusionImg2ImgPipeline starts from an image, not from noise"),
        ({"controlnet": ["diffusers", "ControlNetModel"]},
         r"its StableDiffusionPipeline takes no part controlnet \(diffusers\.ControlNetModel\)"),
        ({"image_encoder": ["transformers", "CLIPVisionModelWithProjection"]}, "has no folder image_encoder"),
        ({"adapter": ["diffusers", "T2IAdapter"]}, "takes no part adapter"),
    ],
)  # fmt: skip
def test_a_pipeline_with_more_than_a_reader_knows_goes_to_its_own_call(copied, changes, text):
    folder, prompts = copied
    edited(folder / "model_index.json", **changes)
    with pytest.raises((RecordError, MissingError, SpecError), match=text) as caught:
        folders.load(folder, prompts=prompts)
    assert "\n" not in str(caught.value)
    with pytest.raises(RecordError, match=r"isn't a pipeline that is read|which isn't read and may change every image"):
        folders.load(folder, prompts=prompts, family="diffusers")


def test_guidance_by_perturbed_attention_is_never_silently_left_out(copied):
    folder, prompts = copied
    plain = folders.load(folder, prompts=prompts)
    edited(folder / "model_index.json", _class_name="StableDiffusionPAGPipeline", pag_applied_layers=["mid"])
    teacher = folders.load(folder, prompts=prompts, options={"height": 16, "width": 16, "guidance_scale": 2.0})
    assert "StableDiffusionPAGPipeline's own call" in teacher.notes[-1]
    assert (teacher.passes, plain.passes) == (3, 1)


def test_parts_that_look_at_finished_images_and_empty_places_are_no_matter(copied):
    folder, prompts = copied
    edited(
        folder / "model_index.json", safety_checker=["stable_diffusion", "StableDiffusionSafetyChecker"],
        feature_extractor=["transformers", "CLIPImageProcessor"], image_encoder=[None, None],
        requires_safety_checker=True,
    )  # fmt: skip
    assert folders.load(folder, prompts=prompts).condition.prompts


@pytest.mark.parametrize(
    ("norm", "kind"), [("ada_norm_single", "pixart"), ("ada_norm_zero", "dit"), ("layer_norm", "other")]
)
def test_a_network_under_its_older_class_is_the_one_that_its_norm_says(tmp_path, norm, kind):
    scheduler = diffusers.DDIMScheduler(**folders.VP)
    if kind == "pixart":
        parts = {"text_encoder": folders.t5(), "tokenizer": folders.t5_tokenizer()}
        folder = folders.save(tmp_path / "a", "PixArtAlphaPipeline", scheduler, transformer=folders.pixart(False),
                              vae=folders.vae(), **parts)  # fmt: skip
        told = {"prompts": tiny.prompts(tmp_path / "p.txt")}
    else:
        folder = folders.save(tmp_path / "a", "DiTPipeline", scheduler, transformer=folders.dit(), vae=folders.vae())
        told = {}
    before = folders.load(folder, **told)
    edited(folder / "model_index.json", transformer=["diffusers", "Transformer2DModel"])
    edited(folder / "transformer" / "config.json", _class_name="Transformer2DModel", norm_type=norm)
    if kind == "other":
        with pytest.raises(RecordError, match="a Transformer2DModel with norm_type = 'layer_norm' isn't read"):
            folders.load(folder, **told)
        return
    after = folders.load(folder, **told)
    x = tiny.random(1, 4, 8, 8)
    with torch.no_grad():
        assert relative(after.denoiser([1])(x, LEVEL), before.denoiser([1])(x, LEVEL)) < 1e-6


WEIGHTS = {"unet": "diffusion_pytorch_model", "vae": "diffusion_pytorch_model", "text_encoder": "model"}


def variant(folder, name, *, keep, factor=1.0, called="fp16"):
    """Write a part's weights of a variant, times `factor`; without its base unless `keep`."""
    from safetensors.torch import load_file, save_file

    base = folder / name / f"{WEIGHTS[name]}.safetensors"
    save_file(
        {key: value * factor if value.is_floating_point() else value for key, value in load_file(base).items()},
        folder / name / f"{WEIGHTS[name]}.{called}.safetensors", metadata={"format": "pt"},
    )  # fmt: skip
    if not keep:
        base.unlink()


def words(teacher):
    return teacher.denoiser([0])(tiny.random(1, 4, 8, 8), LEVEL)


def test_a_variant_reaches_every_part_and_falls_back_to_the_base_of_one(copied):
    folder, prompts = copied
    base = folders.load(folder, prompts=prompts)
    variant(folder, "unet", keep=False)
    variant(folder, "text_encoder", keep=False)
    read = folders.load(folder, prompts=prompts, options={"variant": "fp16"})
    assert read.identity == base.identity
    assert read.notes[1:] == ("vae: no weights of variant fp16; its base weights are read",)
    with pytest.raises(MissingError, match=r"unet: holds the weights of variant fp16 alone.*give variant=fp16"):
        folders.load(folder, prompts=prompts)
    with pytest.raises(MissingError, match="of variant fp16 alone, not of bf16"):
        folders.load(folder, prompts=prompts, options={"variant": "bf16"})


def test_of_two_files_of_a_text_encoder_the_variant_decides(copied):
    folder, prompts = copied
    variant(folder, "text_encoder", keep=True, factor=2.0, called="v2")
    base = folders.load(folder, prompts=prompts)
    other = folders.load(folder, prompts=prompts, options={"variant": "v2"})
    assert base.identity != other.identity
    with torch.no_grad():
        assert relative(words(other), words(base)) > 1e-3


def test_a_variant_of_no_part_is_refused(copied):
    folder, prompts = copied
    with pytest.raises(SpecError, match="variant=fp16, but no part has weights of this variant"):
        folders.load(folder, prompts=prompts, options={"variant": "fp16"})


def test_missing_parts_quantised_ones_and_adapters_are_named(copied):
    folder, prompts = copied
    shutil.rmtree(folder / "vae")
    with pytest.raises(MissingError, match=r"has no folder vae, which its model_index\.json names; .* files\.vae"):
        folders.load(folder, prompts=prompts)
    edited(folder / "unet" / "config.json", quantization_config={"quant_method": "bitsandbytes", "load_in_4bit": True})
    with pytest.raises(RecordError, match="its weights are quantised by bitsandbytes"):
        folders.load(folder, prompts=prompts)


def test_a_quantised_text_encoder_is_named(copied):
    folder, prompts = copied
    edited(folder / "text_encoder" / "config.json", quantization_config={"quant_method": "bitsandbytes"})
    with pytest.raises(RecordError, match="text_encoder: its weights are quantised by bitsandbytes"):
        folders.load(folder, prompts=prompts)


def test_shards_of_pickles_are_read(tmp_path):
    folder = folders.ddpm(tmp_path / "ddpm")
    before = folders.load(folder)
    (folder / "unet" / "diffusion_pytorch_model.safetensors").unlink()
    folders.unet().save_pretrained(folder / "unet", safe_serialization=False, max_shard_size="20KB")
    assert len(list((folder / "unet").glob("*.bin"))) > 1
    assert folders.load(folder).identity == before.identity
    next((folder / "unet").glob("*-00002-of-*.bin")).unlink()
    with pytest.raises(MissingError, match="no such file"):
        folders.load(folder)


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "ema_model."])
def test_a_wrappers_prefix_is_removed_and_said(tmp_path, prefix):
    from safetensors.torch import load_file, save_file

    folder = folders.ddpm(tmp_path / "ddpm")
    before = folders.load(folder)
    path = folder / "unet" / "diffusion_pytorch_model.safetensors"
    save_file({prefix + key: value for key, value in load_file(path).items()}, path, metadata={"format": "pt"})
    after = folders.load(folder)
    assert after.identity == before.identity
    assert f"diffusion_pytorch_model.safetensors: {prefix} removed from its tensors' names" in after.notes


@pytest.mark.parametrize("beside", [np.float64(1.5), argparse.Namespace(lr=1), torch.device("cpu")], ids=str)
def test_foreign_objects_beside_a_folders_tensors_are_skipped(tmp_path, beside):
    folder = folders.ddpm(tmp_path / "ddpm")
    before = folders.load(folder)
    (folder / "unet" / "diffusion_pytorch_model.safetensors").unlink()
    torch.save({**folders.unet().state_dict(), "best": beside}, folder / "unet" / "diffusion_pytorch_model.bin")
    after = folders.load(folder)
    assert after.identity == before.identity
    assert len(after.notes) == 1 + isinstance(beside, argparse.Namespace)


@pytest.mark.parametrize("prefix", ["", "module."])
def test_a_checkpoint_with_more_than_tensors_is_the_same_teacher(tmp_path, prefix):
    import solverbench as sb

    state = tiny.ldm()
    options = ":size=16:head_channels=32"
    plain = sb.load_teacher(f"{tiny.save(tmp_path / 'plain.ckpt', state)}{options}")
    wrapped = {prefix + key: value for key, value in state.items()}
    path = tiny.save(tmp_path / "more.ckpt", wrapped, best=np.float64(1), args=argparse.Namespace(a=1))
    found = sb.load_teacher(f"{path}{options}")
    assert found.identity == plain.identity
    assert found.notes[0] == "more.ckpt: skipped argparse.Namespace beside the tensors; nothing of them was run"
    assert found.notes[1:] == (("more.ckpt: module. removed from its tensors' names",) if prefix else ())


def test_a_tokenizer_of_pieces_alone_is_read(tmp_path):
    sentencepiece = pytest.importorskip("sentencepiece")
    pytest.importorskip("google.protobuf")
    (tmp_path / "text").write_text("a red bird\ntwo cats on a mat\nthe sea\n" * 20)
    sentencepiece.SentencePieceTrainer.train(
        input=str(tmp_path / "text"), model_prefix=str(tmp_path / "spiece"), vocab_size=20, pad_id=0, eos_id=1,
        unk_id=2, bos_id=-1, hard_vocab_limit=False, minloglevel=2,
    )  # fmt: skip
    parts = {"text_encoder": folders.t5(), "tokenizer": folders.t5_tokenizer()}
    folder = folders.save(tmp_path / "a", "PixArtAlphaPipeline", diffusers.DDIMScheduler(**folders.VP),
                          transformer=folders.pixart(False), vae=folders.vae(), **parts)  # fmt: skip
    shutil.rmtree(folder / "tokenizer")
    (folder / "tokenizer").mkdir()
    shutil.copy(tmp_path / "spiece.model", folder / "tokenizer")
    (folder / "tokenizer" / "tokenizer_config.json").write_text('{"tokenizer_class": "T5Tokenizer", "extra_ids": 0}')
    teacher = folders.load(folder, prompts=tiny.prompts(tmp_path / "p.txt"))
    assert words(teacher).isfinite().all()


def test_what_a_schedulers_sampler_does_to_samples_is_said(tmp_path):
    read = folders.load(folders.ddpm(tmp_path / "a", clip_sample=True))
    assert read.notes[0].startswith("clip_sample of the DDPMScheduler: not applied")
    assert folders.load(folders.ddpm(tmp_path / "b", clip_sample=False)).notes == ()


def test_a_clipped_teacher_follows_upstreams_clipped_sampler(tmp_path):
    folder = folders.ddpm(tmp_path / "a", clip_sample=True)
    teacher = folders.load(folder, options={"clip": 1.0})
    assert teacher.notes == ()
    assert teacher.identity != folders.load(folder).identity
    config = json.loads((folder / "scheduler" / "scheduler_config.json").read_text())
    scheduler, sigmas = folders.ddim(teacher, config)
    scheduler.register_to_config(clip_sample=True)
    noise, network = tiny.random(2, 3, 8, 8), folders.unet()
    found = folders.ours(teacher, sigmas, noise)

    x = noise
    with torch.no_grad():
        for t in scheduler.timesteps:
            x = scheduler.step(network(x, t).sample, t, x, eta=0.0, use_clipped_model_output=True).prev_sample
    end = teacher.schedule.alpha(teacher.schedule.time(torch.tensor(sigmas[-1], dtype=torch.float64)))
    # Upstream computes the noise from the clipped prediction in float32: 1e-7 over the last s of 0.01, in each step.
    assert relative(found.double() * end, x.double()) < 2e-4
    with pytest.raises(SpecError, match="clip=0: not a bound above 0"):
        folders.load(folder, options={"clip": 0.0})


def test_notes_are_logged_once_and_kept_by_an_import(tmp_path, logged, monkeypatch):
    import solverbench as sb
    from solverbench.teachers import catalogue

    monkeypatch.setenv("SOLVERBENCH_DATA", str(tmp_path / "data"))
    folder = folders.ddpm(tmp_path / "a", clip_sample=True)
    teacher = sb.load_teacher(str(folder))
    assert logged == [f"a: {note}" for note in teacher.notes]
    catalogue.take(folder, "mine", {})
    assert "# clip_sample of the DDPMScheduler: not applied" in catalogue.info("mine")


def test_a_tokenizer_of_pieces_alone_says_which_package_it_needs(tmp_path, monkeypatch):
    from solverbench.teachers.families import folders as checked

    (tmp_path / "spiece.model").write_bytes(b"pieces")
    monkeypatch.setattr(checked, "_installed", lambda name: name != "sentencepiece")
    with pytest.raises(MissingError, match="needs sentencepiece, which isn't installed; pip install sentencepiece"):
        checked.check_words(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{}")
    checked.check_words(tmp_path)


def test_continuous_time_begins_at_its_own_levels_and_may_be_narrowed(tmp_path):
    """Stable Video Diffusion's scheduler on a network of images."""
    scheduler = diffusers.EulerDiscreteScheduler(
        prediction_type="v_prediction", timestep_type="continuous", use_karras_sigmas=True, sigma_min=0.002,
        sigma_max=700.0,
    )  # fmt: skip
    folder = folders.save(tmp_path / "a", "DDPMPipeline", scheduler, unet=folders.unet())
    teacher, network = folders.load(folder), folders.unet()
    scheduler.set_timesteps(folders.STEPS)
    x = noise = tiny.random(2, 3, 8, 8) * scheduler.init_noise_sigma
    with torch.no_grad():
        for t in scheduler.timesteps:
            x = scheduler.step(network(scheduler.scale_model_input(x, t), t).sample, t, x).prev_sample
        found = folders.ours(teacher, scheduler.sigmas.double().tolist(), noise / teacher.schedule.scale(700.0))
    assert relative(found, x) < 1e-5
    assert folders.load(folder, sigma_max=80.0).schedule.sigma_max == pytest.approx(80.0)
    with pytest.raises(SpecError, match=r"the network knows 0\.002 to 700"):
        folders.load(folder, sigma_max=800.0)
