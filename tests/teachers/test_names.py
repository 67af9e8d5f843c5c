"""Single files and folders that no family reads are named for what they are; diffusers isn't needed."""

import json

import pytest
import torch
from safetensors.torch import save_file

import solverbench as sb
from solverbench.errors import MissingError, RecordError
from solverbench.teachers.families.conversion import UNET
from solverbench.teachers.families.description import recognise

ONE = torch.ones(1)
BLOCK = {f"{UNET}input_blocks.0.0.weight": torch.ones(320, 4, 3, 3)}


@pytest.mark.parametrize(
    ("state", "text"),
    [
        (BLOCK | {"conditioner.embedders.1.model.x": ONE + 1, f"{UNET}label_emb.0.0.weight": ONE},
         r"a Stable Diffusion XL in a single file.*StableDiffusionXLPipeline\.from_single_file\('a\.safetensors'\)"),
        (BLOCK | {"conditioner.embedders.0.model.x": ONE}, "a Stable Diffusion XL refiner"),
        ({f"{UNET}joint_blocks.0.x_block.attn.qkv.weight": ONE}, "a Stable Diffusion 3 in a single file"),
        ({"double_blocks.0.img_attn.qkv.weight": ONE}, "a FLUX in a single file"),
        ({f"{UNET}double_blocks.0.img_attn.qkv.weight": ONE}, "a FLUX in a single file"),
        (BLOCK | {"cond_stage_model.model.transformer.resblocks.0.x": ONE}, "a Stable Diffusion 2 in a single file"),
        ({"lora_unet_down_blocks_0.lora_up.weight": ONE}, "LoRA weights, .* fuse it upstream"),
        ({"unet.down_blocks.0.attn1.to_q.lora_A.weight": ONE}, "LoRA weights"),
        ({"double_blocks.0.img_attn.qkv.weight": ONE.to(torch.float8_e4m3fn)}, "quantised weights"),
        ({"transformer_blocks.0.attn.to_q.weight.absmax": ONE}, "quantised weights"),
        (BLOCK | {"control_model.input_hint_block.0.weight": ONE}, "a ControlNet"),
        ({"down_blocks.0.resnets.0.conv1.weight": ONE}, "a diffusers network without its configuration; .*config.json"),
        ({"decoder.conv_in.weight": ONE, "encoder.conv_in.weight": ONE + 1}, "an autoencoder without a network"),
        ({"text_model.embeddings.token_embedding.weight": ONE}, "a text encoder"),
        ({"input_blocks.0.0.weight": ONE}, "a U-Net without the first stage"),
    ],
)  # fmt: skip
def test_a_single_file_is_named_for_what_it_is(tmp_path, state, text):
    path = tmp_path / "a.safetensors"
    save_file(state, path)
    for asked in (path, f"{path}:family=compvis"):
        if asked != path and not any(key.startswith(UNET) for key in state):
            continue
        with pytest.raises((RecordError, MissingError), match=text) as caught:
            recognise(asked) if asked == path else compvis(path)
        assert "\n" not in str(caught.value)
        assert "download it again" not in str(caught.value)


def compvis(path):
    """The kind of checkpoint that the family itself sees."""
    from solverbench.teachers.families import compvis, tensor_files
    from solverbench.teachers.families.description import Description

    return compvis._kind(Description(path), tensor_files.read(path))


def made(folder, *files):
    folder.mkdir()
    for name in files:
        place = folder / name
        if place.suffix:
            place.write_text(json.dumps({}))
        else:
            place.mkdir()
    return folder


@pytest.mark.parametrize(
    ("files", "text"),
    [
        (["adapter_config.json", "adapter_model.safetensors"], "a folder of LoRA weights"),
        (["pytorch_lora_weights.safetensors"], "a folder of LoRA weights"),
        (["snapshots", "refs", "blobs"], "a folder of the hub's cache, .*/snapshots/REVISION"),
        (["unet", "vae", "scheduler"], r"without its model_index\.json"),
        (["a.ckpt", "b.ckpt"], r"a folder of files \(a\.ckpt, b\.ckpt\); name the file"),
        (["config.json", "words.txt"], "isn't of diffusers"),
    ],
)
def test_a_folder_is_named_for_what_it_is(tmp_path, files, text):
    with pytest.raises(RecordError, match=text):
        recognise(made(tmp_path / "folder", *files))


@pytest.mark.parametrize("text", ["stabilityai/sdxl-turbo", "https://huggingface.co/stabilityai/sdxl-turbo"])
def test_a_hub_id_is_told_from_a_path(text):
    with pytest.raises(MissingError, match="hf download stabilityai/sdxl-turbo --local-dir sdxl-turbo'") as caught:
        sb.load_teacher(text)
    assert "no such file or folder" in str(caught.value)


@pytest.mark.parametrize("text", ["models/a.pkl", "../here/there", "/tmp/nowhere/x", "a/b/c"])
def test_a_missing_path_is_no_hub_id(text):
    with pytest.raises(MissingError, match="give a checkpoint or a TOML file"):
        sb.load_teacher(text)


def test_a_hub_id_in_a_description_is_told_too(tmp_path):
    (tmp_path / "a.toml").write_text('checkpoint = "stabilityai/sdxl-turbo"\n')
    with pytest.raises(MissingError, match="hf download stabilityai/sdxl-turbo"):
        sb.load_teacher(str(tmp_path / "a.toml"))
