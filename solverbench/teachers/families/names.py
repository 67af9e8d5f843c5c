"""Recognition, by tensors' names and shapes, of files and folders that no family reads, for the error messages."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from solverbench.errors import RecordError
from solverbench.teachers.families import tensor_files

HUB = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
"""An id of a repository on the Hugging Face hub, as OWNER/NAME."""


def hub_id(text: str) -> str:
    """Return the id of a hub repository if a path that doesn't exist reads like one, else an empty text."""
    plain = re.sub(r"^(https:/+huggingface\.co/|hf:/+)", "", text)  # a path keeps one of two slashes
    if not HUB.fullmatch(plain) or re.search(r"\.(toml|pkl|pickle|ckpt|pt|pth|bin|safetensors|gguf)$", plain):
        return ""
    return plain


def download(hub: str) -> str:
    """Return how to get a snapshot of a hub repository, as a remedy."""
    name = hub.partition("/")[2]
    return (
        f"nothing is downloaded by itself: if it is a repository of the Hugging Face hub, run 'hf download {hub} "
        f"--local-dir {name}' and give the folder {name}"
    )


def of(path: Path) -> tuple[str, str]:
    """Return a description of a file or folder, and a remedy; empty texts if it isn't recognised.

    Raises:
        RecordError: the file is damaged or unsafe, with the reason.
    """
    if path.is_dir():
        return _folder(path)
    if path.suffix not in (".ckpt", ".pt", ".pth", ".bin", ".safetensors", ".gguf") and not _archive(path):
        return "", ""
    return tensors(tensor_files.read(path, mapped=True), path)


def tensors(state: Mapping[str, Tensor], path: Path) -> tuple[str, str]:
    """Return a description of a set of named tensors, and a remedy; empty texts if it isn't recognised."""
    keys = list(state)

    def has(pattern: str) -> bool:
        return any(re.search(pattern, key) for key in keys)

    if has(r"lora_(up|down|A|B|unet|te)|\.lora[._]|hada_w1|lokr_w1"):
        return "LoRA weights, which change a network but are none", _FUSE
    if has(r"\.absmax$|quant_state|bitsandbytes|\.SCB$|\.qweight$|scale_weight$") or _eight(state):
        return "quantised weights, which aren't read", "give the model that they were quantised from"
    if has(r"control_model\.|controlnet_|input_hint_block"):
        return "a ControlNet, which changes another network's output", "give the network itself"
    for pattern, name, pipeline in SINGLE:
        if has(pattern):
            return f"a {name} in a single file, which isn't read", _convert(pipeline, path)
    if has(r"^(down_blocks|conv_in|transformer_blocks|single_transformer_blocks|pos_embed)\."):
        return (
            "the weights of a diffusers network without its configuration",
            "give the folder of the network, with config.json beside the weights, or the whole pipeline's",
        )
    if has(r"^(encoder|decoder)\.|^first_stage_model\.") and not has("diffusion_model"):
        return "an autoencoder without a network that predicts", "give the whole model"
    if has(r"^input_blocks\.|^diffusion_model\."):
        return (
            "a U-Net without the first stage of its model, or with other names",
            "give the whole checkpoint, whose names begin with model.diffusion_model.",
        )
    if has(r"^(text_model|transformer\.text_model|encoder\.block)\."):
        return "a text encoder", "give the network's checkpoint or the whole pipeline's folder"
    return "", ""


_FUSE = (
    "fuse it upstream (pipeline.load_lora_weights(FILE), pipeline.fuse_lora(), pipeline.unload_lora_weights(), "
    "pipeline.save_pretrained(FOLDER)) and give that folder"
)

SINGLE = (
    (r"cond_stage_model\.model\.transformer\.resblocks\.", "Stable Diffusion 2", "StableDiffusionPipeline"),
    (r"conditioner\.embedders\.1\.|diffusion_model\.label_emb\.", "Stable Diffusion XL", "StableDiffusionXLPipeline"),
    (r"conditioner\.embedders\.0\.", "Stable Diffusion XL refiner", ""),
    (r"diffusion_model\.joint_blocks\.|^joint_blocks\.", "Stable Diffusion 3", "StableDiffusion3Pipeline"),
    (r"double_blocks\.\d+\.img_attn\.", "FLUX", "FluxPipeline"),
    (r"diffusion_model\.(cap_embedder|context_refiner)|^cap_embedder\.", "Lumina or Z-Image", ""),
    (r"^(blocks|diffusion_model\.blocks)\.\d+\.(cross_attn|self_attn|ffn)\.", "video transformer", ""),
)
"""Models in single files: a pattern of their tensors' names, what they are, and diffusers' pipeline if it is read."""


def _convert(pipeline: str, path: Path) -> str:
    if not pipeline:
        return "no family reads this model"
    return (
        f"convert it with diffusers ({pipeline}.from_single_file({str(path.name)!r}).save_pretrained(FOLDER)) and give "
        "that folder"
    )


def _eight(state: Mapping[str, Tensor]) -> bool:
    return any(str(value.dtype).startswith("torch.float8") for value in state.values())


def _archive(path: Path) -> bool:
    with path.open("rb") as file:
        start = file.read(4)
    return start == b"PK\x03\x04" or start in (b"vers", b"<!DO", b"<htm", b"GGUF")


def _folder(path: Path) -> tuple[str, str]:
    names = {each.name for each in path.iterdir()}
    if "adapter_config.json" in names or "pytorch_lora_weights.safetensors" in names:
        return "a folder of LoRA weights, which change a network but are none", _FUSE
    if "snapshots" in names:
        return (
            "a folder of the hub's cache, whose files lie deeper",
            f"give one of its snapshots, as in {path.name}/snapshots/REVISION",
        )
    if "model_index.json" not in names and {"unet", "transformer", "scheduler"} & names:
        return "a pipeline's folder without its model_index.json", "download the whole folder"
    found = sorted(name for name in names if re.search(r"\.(ckpt|pt|pth|safetensors|gguf|pkl)$", name))
    if found:
        return f"a folder of files ({', '.join(found[:3])})", f"name the file, as in {path / found[0]}"
    if "config.json" in names:
        return "a folder with a config.json that isn't of diffusers", "give a network's or a pipeline's folder"
    return "", ""


def unknown(path: Path) -> RecordError | None:
    """Return the error that says what a file or folder is, or None if that isn't known."""
    try:
        wrong, remedy = of(path)
    except RecordError as error:
        return error
    return RecordError(asked=path, wrong=wrong, remedy=remedy) if wrong else None
