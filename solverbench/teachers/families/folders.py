"""Checks by name of a diffusers folder: its pipeline, its parts, and the files of weights of each part."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from solverbench.errors import MissingError, RecordError

_CLIP, _TWO, _THREE = (
    {f"{part}{n}" for n in numbers for part in ("tokenizer", "text_encoder")}
    for numbers in (("",), ("", "_2"), ("", "_2", "_3"))
)

PIPELINES: dict[str, set[str]] = {
    "DDPMPipeline": {"unet"},
    "DDIMPipeline": {"unet"},
    "PNDMPipeline": {"unet"},
    "LDMPipeline": {"unet", "vqvae"},
    "DiTPipeline": {"transformer", "vae"},
    "StableDiffusionPipeline": {"unet", "vae", "safety_checker", "feature_extractor", *_CLIP},
    "StableDiffusionXLPipeline": {"unet", "vae", "feature_extractor", *_TWO},
    "StableDiffusion3Pipeline": {"transformer", "vae", "feature_extractor", *_THREE},
    "FluxPipeline": {"transformer", "vae", "feature_extractor", *_TWO},
    "FluxKontextPipeline": {"transformer", "vae", "feature_extractor", *_TWO},
    "PixArtAlphaPipeline": {"transformer", "vae", *_CLIP},
    "PixArtSigmaPipeline": {"transformer", "vae", *_CLIP},
}
"""Supported pipelines -> the parts that their index may list besides the scheduler.

`safety_checker` and `feature_extractor`, which look at finished images, are not loaded.
"""

SETTINGS = {"requires_safety_checker", "force_zeros_for_empty_prompt", "add_watermarker", "id2label"}
"""Entries of an index that are no parts; `force_zeros_for_empty_prompt` is read, the others don't affect images."""

GUIDED = re.compile(r"ControlNet|PAG|Adapter|IPAdapter|GLIGEN|SAG|AttendAndExcite|Semantic")
EDITS = re.compile(r"Img2Img|Inpaint|Pix2Pix|Upscale|Depth2Img|Fill|Redux|Variation|Control")
MOVES = re.compile(r"Video|AnimateDiff|Wan|LTX|CogVideoX|Mochi|SVD")


def check(path: Path, index: Mapping[str, Any]) -> None:
    """Check a pipeline's index against `PIPELINES`.

    Raises:
        RecordError: an unknown pipeline, part or setting, which is named.
    """
    kind = index.get("_class_name")
    if not isinstance(kind, str):
        raise RecordError(
            asked=path, wrong=f"pipeline {kind} is custom code, which is not run", remedy="use sb.Teacher around it"
        )
    if kind not in PIPELINES:
        raise RecordError(
            asked=path, wrong=f"{kind} isn't a pipeline that is read{_why(kind)}",
            remedy=f"give a folder of {', '.join(sorted(PIPELINES))}, or use sb.Teacher around its network",
        )  # fmt: skip
    for name, entry in index.items():
        if name.startswith("_") or name in SETTINGS or name == "scheduler" or not _used(entry):
            continue
        if name not in PIPELINES[kind]:
            what = ".".join(map(str, entry)) if isinstance(entry, list) else f"{name} = {entry!r}"
            raise RecordError(
                asked=path, wrong=f"its {kind} has {name} ({what}), which isn't read and may change every image",
                remedy=f"take it out of model_index.json if the network does without it; {kind} may have "
                f"{', '.join(sorted(PIPELINES[kind]))}",
            )  # fmt: skip


def known(index: Mapping[str, Any]) -> bool:
    """Return whether a pipeline of `PIPELINES` wrote an index, with no part or setting but those that are read."""
    try:
        check(Path(), index)
    except RecordError:
        return False
    return True


def _used(entry: Any) -> bool:
    """Return whether an entry of an index names a part or a setting; parts that are left out are null."""
    return entry is not None and entry != [None, None]


def _why(kind: str) -> str:
    for pattern, reason in (
        (GUIDED, ": it changes the network's output by further parts"),
        (EDITS, ": it starts from an image"),
        (MOVES, ": it makes videos"),
    ):
        if pattern.search(kind):
            return reason
    return ""


def actual(path: Path, config: Mapping[str, Any]) -> str:
    """Return the class of a network's configuration; older folders name PixArt and DiT by a class they shared.

    Raises:
        RecordError: a Transformer2DModel that is neither, or quantised weights.
    """
    kind = str(config.get("_class_name", ""))
    if (how := config.get("quantization_config")) is not None:
        method = how.get("quant_method", "unknown") if isinstance(how, dict) else how
        raise RecordError(
            asked=path, wrong=f"its weights are quantised by {method}, which isn't read",
            remedy="give the folder of the model that it was quantised from",
        )  # fmt: skip
    if kind != "Transformer2DModel":
        return kind
    norm = config.get("norm_type")
    if norm not in SHARED:
        raise RecordError(
            asked=path, wrong=f"a Transformer2DModel with norm_type = {norm!r} isn't read",
            remedy="DiT's ada_norm_zero and PixArt's ada_norm_single are",
        )  # fmt: skip
    return SHARED[norm]


SHARED = {"ada_norm_zero": "DiTTransformer2DModel", "ada_norm_single": "PixArtTransformer2DModel"}
"""Networks that were one class before diffusers 0.29, by `norm_type`."""


def variants(path: Path, stem: str) -> set[str]:
    """Return the variants of the weights in a part's folder, by the names that upstream gives; "" is the base.

    Args:
        stem: `diffusion_pytorch_model` of diffusers, `model` or `pytorch_model` of transformers.
    """
    found = set()
    for each in path.iterdir() if path.is_dir() else ():
        for pattern in (
            rf"{stem}(?:\.([\w-]+))?\.(?:safetensors|bin)",
            rf"{stem}\.(?:safetensors|bin)\.index(?:\.([\w-]+))?\.json",
        ):
            if match := re.fullmatch(pattern, each.name):
                found.add(match[1] or "")
    return found


STEMS = {"diffusers": ("diffusion_pytorch_model",), "transformers": ("model", "pytorch_model")}
"""Stems of the weights' files by package."""


def chosen(path: Path, library: str, asked: str | None) -> str | None:
    """Return the variant to read of a part: the one asked for, or the base (None) if the part lacks it.

    Upstream's names decide, never the order of files: STEM.VARIANT.safetensors or STEM.safetensors, then .bin.

    Raises:
        MissingError: the folder holds no weights, or only those of a variant that isn't asked for.
    """
    found = set().union(*(variants(path, stem) for stem in STEMS[library]))
    if asked and asked in found:
        return asked
    if "" in found:
        return None
    if found:
        only = sorted(found)
        raise MissingError(
            asked=path, wrong=f"holds the weights of variant {', '.join(only)} alone, "
            + (f"not of {asked}" if asked else "and no variant is asked for"),
            remedy=f"give variant={only[0]} behind the folder, as in FOLDER:variant={only[0]}",
        )  # fmt: skip
    if (path / "adapter_config.json").is_file():
        raise MissingError(
            asked=path, wrong="holds an adapter (LoRA), not a network", remedy="fuse it upstream and save the pipeline"
        )
    raise MissingError(
        asked=path, wrong=f"holds no weights ({' or '.join(f'{stem}.safetensors' for stem in STEMS[library])})",
        remedy="download it again",
    )  # fmt: skip


def pickled_shards(path: Path, variant: str | None) -> Path | None:
    """Return the index of a diffusers network in several .bin files, which upstream does not load; None if not so."""
    stem = STEMS["diffusers"][0]
    beside = f".{variant}" if variant else ""
    index = path / f"{stem}.bin.index{beside}.json"
    others = [f"{stem}{beside}.safetensors", f"{stem}.safetensors.index{beside}.json", f"{stem}{beside}.bin"]
    return index if index.is_file() and not any((path / each).is_file() for each in others) else None


def single(path: Path, variant: str | None) -> Path | None:
    """Return the one file of a diffusers network's weights, as upstream chooses it; None if there are several."""
    stem, beside = STEMS["diffusers"][0], f".{variant}" if variant else ""
    files = [path / f"{stem}{beside}.{ending}" for ending in ("safetensors", "bin")]
    return next((each for each in files if each.is_file()), None)


def check_words(path: Path) -> None:
    """Raise `MissingError` for a tokenizer of sentence pieces alone without the package that reads them."""
    if not (path / "spiece.model").is_file() or (path / "tokenizer.json").is_file():
        return
    missing = [name for name in ("sentencepiece", "google.protobuf") if not _installed(name)]
    if missing:
        package = missing[0].replace("google.", "")
        raise MissingError(
            asked=path, wrong=f"spiece.model without a tokenizer.json needs {package}, which isn't installed",
            remedy="pip install sentencepiece protobuf",
        )  # fmt: skip


def _installed(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:
        return False
