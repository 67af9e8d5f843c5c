"""Checkpoints of latent diffusion and Stable Diffusion 1.x as their authors published them, run on diffusers' networks."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from solverbench.errors import MissingError, RecordError, SpecError

if TYPE_CHECKING:
    from torch import Tensor

    from solverbench.families import Description
    from solverbench.schedules import VPDiscrete
    from solverbench.teachers import Teacher


@dataclass(frozen=True)
class Published:
    """What the published configuration of a model says and its tensors don't.

    Args:
        heads, head_channels: see `conversion.unet`.
        size: of the latent's side.
        beta_start, beta_end: of the variances, whose roots are equally spaced.
        scale: that latents were multiplied by for training.
        averaged: whether upstream samples with the moving average of the weights.
        sampler, sampler_nfe: the teacher sampler of GAS (arXiv:2510.17699).
    """

    heads: int | None
    head_channels: int | None
    size: int
    beta_start: float
    beta_end: float
    scale: float
    averaged: bool
    sampler: str
    sampler_nfe: int


UNCONDITIONAL, CLASSES, TEXT = "unconditional", "class-conditional", "Stable Diffusion"
"""The kinds of checkpoint, told apart by what lies below `cond_stage_model`."""

PUBLISHED = {
    (UNCONDITIONAL, 224): Published(
        None, 32, 64, 0.0015, 0.0195, 1.0, True, "unipc:order=3:variant=bh2:grid=time_uniform", 20
    ),
    (CLASSES, 192): Published(
        1, None, 64, 0.0015, 0.0195, 1.0, False, "unipc:order=3:variant=bh2:grid=time_quadratic", 10
    ),
    (TEXT, 320): Published(8, None, 64, 0.00085, 0.012, 0.18215, False, "ipndm:order=2:grid=gits_ipndm", 8),
}
"""By kind and the U-Net's first width: LSUN-Bedroom, CelebA-HQ and FFHQ-256; ImageNet-256 (cin256-v2); SD v1.x.

Source: the configurations beside the checkpoints (CompVis latent-diffusion and stable-diffusion repositories).
"""


@dataclass(frozen=True)
class Settings:
    """The family's own options; what a published model doesn't need has a default of None.

    Args:
        heads, head_channels: of the U-Net's attention: upstream's num_heads, or num_head_channels.
        size: of the latent's side: upstream's image_size.
        beta_start, beta_end: upstream's linear_start and linear_end.
        scale: upstream's scale_factor.
        average: take the moving average of the U-Net's weights; as upstream does if None.
        null_class: the class that stands for none; the last if there are not 1000.
        quantise: latents to the first stage's codebook before decoding, as upstream does.
        text_heads: of the text encoder's attention.
        checkpointing: keep less for gradients, and compute it again.
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
    from solverbench.families import checkpoints, conversion

    if not path.is_file() or path.suffix == ".toml":
        return False
    try:
        return any(key.startswith(conversion.UNET) for key in checkpoints.read(path))
    except RecordError:
        return False


def load(description: Description, device: str = "cpu") -> Teacher:
    """Return the teacher of a CompVis checkpoint, .ckpt or .safetensors.

    Raises:
        MissingError: the file or diffusers isn't there, or the tokenizer of a text model.
        RecordError: the checkpoint is damaged, unsafe, or of another architecture.
        SpecError: an option that is needed, or one that doesn't fit.
        UserError: see `Description.condition`.
    """
    from solverbench.families import assembly, checkpoints, conversion, networks

    given = description.settings(Settings)
    assembly.require(description.name)
    state = checkpoints.read(description.checkpoint)
    kind = _kind(description, state)
    width = state[f"{conversion.UNET}input_blocks.0.0.weight"].shape[0]
    told = _settled(description, given, PUBLISHED.get((kind, width)), kind)
    source = conversion.averaged(state) if told.averaged else state
    heads = {"heads": told.heads, "head_channels": told.head_channels}
    model = assembly.build(conversion.unet(conversion.part(source, conversion.UNET), **heads))
    first = conversion.first_stage(conversion.part(state, conversion.FIRST_STAGE))
    modules = {"unet": model, "first_stage": assembly.build(first)}
    network = networks.read(model)
    embed = encode = None
    condition = conversion.part(state, conversion.CONDITION)
    tokenizer = None
    if kind == CLASSES:
        table = condition["embedding.weight"].float()
        network = dataclasses.replace(network, text=False, **_classes(len(table), given))
        embed, modules = assembly.table(table.to(device)), {**modules, "classes": table}
    if kind == TEXT:
        encoder = assembly.build(conversion.text_encoder(condition, given.text_heads))
        tokenizer = _tokenizer(description)
        modules["text_encoder"] = encoder
        encode = assembly.clip(tokenizer, encoder)
    parts = assembly.Parts(
        network=network,
        model=model,
        prediction="eps",
        schedule=_schedule(state, told),
        size=told.size,
        decode=assembly.decoder(modules["first_stage"], scale=told.scale, quantise=given.quantise),
        embed=embed,
        encode=encode,
        tokenizers=(tokenizer,) if tokenizer is not None else (),
        modules=modules,
        sampler=told.sampler,
        sampler_nfe=told.sampler_nfe,
        checkpointing=given.checkpointing,
    )
    return assembly.teacher(description, device, parts, load)
