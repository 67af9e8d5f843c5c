"""Latent diffusion and Stable Diffusion 1.x from their authors' checkpoints, run with diffusers' networks."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from solverbench.errors import MissingError, RecordError, SpecError
from solverbench.method.schedules import array_digest
from solverbench.method.vp_discrete import VPDiscrete
from solverbench.teachers import adaptors
from solverbench.teachers.families import assembly, conversion, names, networks, text
from solverbench.teachers.families import tensor_files as checkpoints
from solverbench.wording import concerning

if TYPE_CHECKING:
    from solverbench.teachers.families.description import Description
    from solverbench.teachers.teacher import Teacher


@dataclass(frozen=True)
class Published:
    """The facts of a model's published configuration that its tensors do not show.

    Args:
        heads, head_channels: see `conversion.unet`.
        size: side of the latent.
        beta_start, beta_end: first and last variance; the roots of the variances are equally spaced.
        scale: factor on the latents in training.
        averaged: whether upstream samples with the moving average of the weights.
    """

    heads: int | None
    head_channels: int | None
    size: int
    beta_start: float
    beta_end: float
    scale: float
    averaged: bool


UNCONDITIONAL, CLASSES, TEXT = "unconditional", "class-conditional", "Stable Diffusion"
"""Kinds of checkpoint, distinguished by the tensors below `cond_stage_model`."""

PUBLISHED = {
    (UNCONDITIONAL, 224): Published(None, 32, 64, 0.0015, 0.0195, 1.0, True),
    (CLASSES, 192): Published(1, None, 64, 0.0015, 0.0195, 1.0, False),
    (TEXT, 320): Published(8, None, 64, 0.00085, 0.012, 0.18215, False),
}
"""Published configurations by kind and the U-Net's first width.

In order: LSUN-Bedroom, CelebA-HQ and FFHQ-256; ImageNet-256 (cin256-v2); SD v1.x.
Source: the configurations of the checkpoints (CompVis latent-diffusion and stable-diffusion repositories).
"""


@dataclass(frozen=True)
class Settings:
    """The family's own options; None means the published model's value.

    Args:
        heads, head_channels: heads of the U-Net's attention: upstream's num_heads, or num_head_channels.
        size: side of the latent: upstream's image_size.
        beta_start, beta_end: upstream's linear_start and linear_end.
        scale: upstream's scale_factor.
        average: whether to use the moving average of the U-Net's weights; as upstream if None.
        null_class: class for no condition; if None the last class, or none for 1000 classes.
        quantise: whether to quantise latents to the first stage's codebook before decoding, as upstream does.
        text_heads: heads of the text encoder's attention.
        checkpointing: whether to use gradient checkpointing.
    """

    heads: int | None = None
    head_channels: int | None = None
    size: int | None = None
    beta_start: float | None = None
    beta_end: float | None = None
    scale: float | None = None
    average: bool | None = None
    null_class: int | None = None
    quantise: bool = True
    text_heads: int | None = None
    checkpointing: bool = False


def recognises(path: Path) -> bool:
    """Return whether `path` is a file with a latent diffusion model's U-Net."""
    if not path.is_file() or path.suffix == ".toml":
        return False
    try:
        state, _ = checkpoints.unwrapped(checkpoints.read(path, mapped=True), conversion.UNET)
    except RecordError:
        return False
    return f"{conversion.UNET}input_blocks.0.0.weight" in state and not names.tensors(state, path)[0]


def load(description: Description, device: str = "cpu") -> Teacher:
    """Return the teacher of a CompVis checkpoint, .ckpt or .safetensors.

    Raises:
        MissingError: the file, diffusers, or the tokenizer of a text model is missing.
        RecordError: the checkpoint is damaged, unsafe, or of another architecture.
        SpecError: an option is missing or does not fit.
        UserError: see `Description.condition`.
    """
    given, name = description.settings(Settings), description.name
    assembly.require(name)
    read = checkpoints.contents(description.checkpoint)
    state, removed = checkpoints.unwrapped(read.tensors, conversion.UNET)
    kind = _kind(description, state)
    told = _settled(description, given, kind, state)
    tokenizer = _tokenizer(description) if kind == TEXT else None
    condition = conversion.part(state, conversion.CONDITION)
    rows, absent = _classes(description, given, len(condition["embedding.weight"])) if kind == CLASSES else (0, None)
    # Conditions are checked before the networks are built, which takes long.
    description.condition(count=rows, text=kind == TEXT, absent=kind == TEXT or absent is not None, rescaled=True)
    with concerning(description.checkpoint):
        source = conversion.averaged(state) if told.averaged else state
        parts = conversion.part(source, conversion.UNET), conversion.part(state, conversion.FIRST_STAGE)
        found = {
            "unet": conversion.unet(parts[0], heads=told.heads, head_channels=told.head_channels),
            "first stage": conversion.first_stage(parts[1]),
        }
        if kind == TEXT:
            found["text encoder"] = conversion.text_encoder(condition, given.text_heads)
    weights = {part: adaptors.fingerprint(each.state) for part, each in found.items()}
    facts: dict[str, Any] = {"scale": told.scale, "heads": [told.heads, told.head_channels, given.text_heads]}
    with concerning(description.checkpoint):
        models = {part: assembly.build(each) for part, each in found.items()}
        schedule = _schedule(state, told)
    if given.checkpointing:
        assembly.checkpointed(models["unet"])
    frozen = {part: assembly.prepare(model, device) for part, model in models.items() if part != "unet"}
    network = networks.read(assembly.prepare(models["unet"], device, description.arithmetic))
    decode = assembly.first_stage(frozen["first stage"], scale=told.scale, quantise=given.quantise)
    embed = encode = None
    if kind == CLASSES:
        table = condition["embedding.weight"].float()
        weights["classes"] = adaptors.fingerprint({"rows": table})
        network = dataclasses.replace(network, text=False, classes=rows, absent=absent)
        embed = assembly.table(table.to(device))
    if kind == TEXT:
        encode = text.stable_diffusion({"tokenizer": tokenizer, "text_encoder": frozen["text encoder"]})
        facts["tokenizer"] = text.fingerprint(tokenizer)
    facts |= {"quantise": given.quantise, "schedule": schedule.key}
    made = assembly.Parts(
        network=network,
        prediction="eps",
        schedule=schedule,
        told=assembly.counted(len(schedule.log_alphas)),
        size=told.size,
        weights=weights,
        embed=embed,
        encode=encode,
        decode=assembly.recomputed(decode) if given.checkpointing else decode,
        facts=facts,
        notes=(*read.notes, *_said(description.checkpoint, removed)),
    )
    return assembly.teacher(description, device, made, load)


def _said(path: Path, removed: tuple[str, ...]) -> tuple[str, ...]:
    return (f"{path.name}: {' and '.join(removed)} removed from its tensors' names",) if removed else ()


def _kind(description: Description, state: Mapping[str, Tensor]) -> str:
    """Return the kind of checkpoint.

    Raises:
        RecordError: none of the three kinds.
    """
    path = description.checkpoint
    wrong, remedy = names.tensors(state, path)
    if wrong:
        raise RecordError(asked=path, wrong=wrong, remedy=remedy)
    if not any(key.startswith(conversion.UNET) for key in state):
        raise RecordError(
            asked=path,
            wrong=f"has no {conversion.UNET}* tensors, so it isn't a CompVis checkpoint",
            remedy="leave family out to have its family recognised",
        )
    if f"{conversion.UNET}input_blocks.0.0.weight" not in state:
        raise RecordError(
            asked=path, wrong=f"has no tensor {conversion.UNET}input_blocks.0.0.weight", remedy="download it again"
        )
    condition = conversion.part(state, conversion.CONDITION)
    if not condition:
        return UNCONDITIONAL
    if "embedding.weight" in condition:
        return CLASSES
    if any(key.startswith("transformer.text_model.") for key in condition):
        return TEXT
    raise RecordError(
        asked=path,
        wrong=f"its condition {conversion.CONDITION}{min(condition)} isn't supported",
        remedy="give a model of classes or of the CLIP of Stable Diffusion 1.x, or convert it to a diffusers folder",
    )


def _settled(description: Description, given: Settings, kind: str, state: Mapping[str, Tensor]) -> Published:
    """Return the published configuration changed by the given options; an unpublished model needs them all."""
    width = state[f"{conversion.UNET}input_blocks.0.0.weight"].shape[0]
    known = PUBLISHED.get((kind, width))
    base = known or dataclasses.replace(next(each for (k, _), each in PUBLISHED.items() if k == kind))
    changes: dict[str, Any] = {
        key: value for key in ("size", "beta_start", "beta_end", "scale") if (value := getattr(given, key)) is not None
    }
    if "scale" not in changes and "scale_factor" in state:
        changes["scale"] = float(state["scale_factor"])
    if given.average and not conversion.part(state, "model_ema."):
        raise SpecError(
            asked=f"{description.name}:average=true",
            wrong="the checkpoint holds no moving average",
            remedy="leave average out",
        )
    if given.average is not None:
        changes["averaged"] = given.average
    if given.heads is not None or given.head_channels is not None:
        changes |= {"heads": given.heads, "head_channels": given.head_channels}
    missing = [] if known else [each for each in ("size",) if each not in changes]
    if not known and "heads" not in changes:
        missing.append("heads or head_channels")
    if missing:
        raise SpecError(
            asked=description.name,
            wrong=f"a {kind} model of width {width} is none of the published ones",
            remedy=(
                f"give {' and '.join(missing)}, as in its upstream configuration (image_size, num_heads, "
                "num_head_channels)"
            ),
        )
    return dataclasses.replace(base, **changes)


def _classes(description: Description, given: Settings, rows: int) -> tuple[int, int | None]:
    """Return the number of classes, and the class for no condition: the last, or None for ImageNet's 1000 classes."""
    absent = given.null_class if given.null_class is not None else None if rows == 1000 else rows - 1
    if absent not in (None, rows - 1):
        raise SpecError(
            asked=f"{description.name}:null_class={absent}",
            wrong="only the last class can be the unconditional one",
            remedy=f"give null_class={rows - 1}, or leave it out",
        )
    return (rows, None) if absent is None else (rows - 1, absent)


def _schedule(state: Mapping[str, Tensor], told: Published) -> VPDiscrete:
    """Return the exact schedule of the configuration, or that of the checkpoint's own betas if they differ.

    Raises:
        RecordError: the betas are not between 0 and 1.
    """
    exact = VPDiscrete.scaled_linear(told.beta_start, told.beta_end)
    if "betas" not in state:
        return exact
    betas = state["betas"].double()
    own = torch.log1p(-betas).cumsum(0) / 2
    if not own.isfinite().all():
        raise RecordError(asked="checkpoint", wrong="its betas aren't between 0 and 1", remedy="download it again")
    formula = torch.tensor(exact.log_alphas, dtype=torch.float64)
    if own.shape == formula.shape and torch.allclose(own, formula, rtol=1e-5):
        return exact
    return VPDiscrete(tuple(own.tolist()), t_eps=1 / len(own)).asked_by(betas=array_digest(betas.tolist()))


def _tokenizer(description: Description) -> Any:
    """Return CLIP's tokenizer, which no checkpoint holds: from files.tokenizer or the folder `tokenizer` next to it.

    Raises:
        MissingError: its files are missing.
    """
    from transformers import CLIPTokenizer

    beside = description.checkpoint.parent / "tokenizer"
    folder = description.file("tokenizer") or beside
    missing = [each for each in ("vocab.json", "merges.txt") if not (folder / each).is_file()]
    if missing:
        raise MissingError(
            asked=description.name,
            wrong=f"a Stable Diffusion checkpoint holds no tokenizer, and {folder} has no {missing[0]}",
            remedy=(
                "put vocab.json and merges.txt of openai/clip-vit-large-patch14 there, or give their folder as "
                "files.tokenizer in a TOML description"
            ),
        )
    return CLIPTokenizer.from_pretrained(folder, local_files_only=True)
