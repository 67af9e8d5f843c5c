"""Folders of pipelines or models saved by diffusers: the networks, and the noise process from the scheduler."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from solverbench.errors import MissingError, RecordError, SpecError
from solverbench.method.rectified_flow import RectifiedFlow
from solverbench.method.schedules import NoiseSchedule
from solverbench.teachers import adaptors
from solverbench.teachers.conditions import Condition
from solverbench.teachers.families import assembly, flow_calls, networks, schedulers, text
from solverbench.teachers.families.diffusers_folder import CONFIG, INDEX, Folder, peek
from solverbench.teachers.families.folders import known
from solverbench.teachers.teacher import Pipeline, Teacher
from solverbench.wording import concerning

if TYPE_CHECKING:
    from solverbench.teachers.families.description import Description


@dataclass(frozen=True)
class Settings:
    """The family's own options.

    Args:
        size: side of the state, if the network's configuration does not give it.
        null_class: class for no condition, if the configuration does not give it.
        distilled: guidance told to a network distilled from a guided one (FLUX.1-dev).
        text_length: number of tokens for T5; as upstream if None.
        variant: variant of the weight files, such as fp16; parts without it give their base files.
        checkpointing: whether to use gradient checkpointing.
        clip: bound to which the data prediction is clipped in every call; not clipped if None.
        zeros: whether no negative prompt is told by zeros rather than by the encoded empty prompt, in Stable Diffusion
            XL; as its index says if None.
    """

    size: int | None = None
    null_class: int | None = None
    distilled: float = 3.5
    text_length: int | None = None
    variant: str | None = None
    checkpointing: bool = False
    clip: float | None = None
    zeros: bool | None = None


def recognises(path: Path) -> bool:
    """Return whether `path` is the folder of a diffusers model, or of a pipeline with the parts that are read here."""
    if (path / INDEX).is_file():
        return known(peek(path / INDEX))
    return "_class_name" in peek(path / CONFIG)


def load(description: Description, device: str = "cpu") -> Teacher:
    """Return the teacher of a folder; the description's `files` may name folders of parts stored elsewhere.

    Raises:
        MissingError: diffusers or a part is missing.
        RecordError: a part is damaged, of an unsupported kind, or would execute its own code.
        SpecError: an option is missing or does not fit.
        UserError: see `Description.condition`.
    """
    try:
        given = description.settings(Settings)
    except SpecError as error:
        if not (description.checkpoint / INDEX).is_file():
            raise
        own = "; with family=pipeline it takes the arguments of its pipeline's own call"
        raise SpecError(asked=error.asked, wrong=error.wrong, remedy=error.remedy.rstrip(".") + own) from None
    assembly.require(description.name)
    folder = Folder(description, given.variant)
    asked = folder.scheduler()
    scheduler = schedulers.settled(asked)
    schedule = schedulers.schedule(scheduler)
    model = folder.model(folder.network, description.arithmetic.torch)
    with concerning(folder.path):
        size = given.size or _size(description, model)
        network = networks.read(model, null_class=given.null_class, distilled=given.distilled)
    schedule = _with_calls(schedule, asked, model, size)
    # Conditions are checked before the other parts are read, which takes long.
    free = network.absent is not None or network.text
    description.condition(count=network.classes, text=network.text, absent=free, rescaled=True)
    weights = {"network": adaptors.fingerprint(model)}
    if given.zeros is not None and not network.pooled:
        raise SpecError(
            asked=description.name, wrong="zeros is Stable Diffusion XL's, and this network isn't one",
            remedy="leave zeros out",
        )  # fmt: skip
    facts: dict[str, Any] = {"scheduler": schedulers.facts(scheduler), "network": _plain(model.config)}
    if type(model).__name__ == "FluxTransformer2DModel":
        facts["distilled"] = given.distilled
    if given.clip is not None:
        facts["clip"] = given.clip
    decode = encode = None
    pixels = 0
    if (stage := folder.first_stage) is not None:
        vae = folder.model(stage, torch.float32)
        weights["first stage"], facts["first stage"] = adaptors.fingerprint(vae), _plain(vae.config)
        decode, pixels = _decoder(assembly.prepare(vae, device)), size * _magnified(vae)
        decode = assembly.recomputed(decode) if given.checkpointing else decode
    if network.text:
        parts = folder.text(model)
        for name, part in parts.items():
            if part is None:
                continue
            if name.startswith("tokenizer"):
                facts[name] = text.fingerprint(part)
            else:
                weights[name] = adaptors.fingerprint(part)
                assembly.prepare(part, device)
        zeros = _zeros(description, folder, given)
        encode = _encoder(description, model, parts, folder, given.text_length, zeros)
        facts["text_length"] = given.text_length
        if network.pooled:
            facts["zeros"] = zeros
        if network.pooled or getattr(model, "use_additional_conditions", False):
            facts["pixels"] = _told_size(description, model, network, parts, pixels)
    folder.unused()
    if given.checkpointing:
        assembly.checkpointed(model)
    prepared = assembly.prepare(model, device, description.arithmetic)
    made = assembly.Parts(
        network=networks.read(prepared, null_class=given.null_class, distilled=given.distilled, pixels=pixels),
        prediction=schedulers.prediction(scheduler),
        schedule=schedule,
        told=schedulers.told(scheduler, schedule),
        size=size,
        weights=weights,
        encode=encode,
        decode=decode,
        facts=facts,
        clip=given.clip,
        notes=(*filter(None, ["" if given.clip else schedulers.dropped(asked)]), *folder.notes),
    )
    teacher = assembly.teacher(description, device, made, load)
    if folder.index is None or description.files:  # a network alone, or parts from elsewhere: not what the folder holds
        return teacher
    call = _call(description, given, type(model).__name__, teacher.condition, pixels)
    state = teacher.shape if network.text and type(model).__name__ != "FluxTransformer2DModel" else None
    pipeline = Pipeline(folder.path, call, state, given.variant or "")
    return dataclasses.replace(teacher, pipeline=pipeline)


def _call(
    description: Description, given: Settings, kind: str, condition: Condition | None, pixels: int
) -> dict[str, Any]:
    """Return the arguments with which the pipeline's own call makes the teacher's images; see `Pipeline`.

    Args:
        kind: class of the network.
        pixels: side of the image; 0 for a model without a decoder.
    """
    if condition is None:
        return {}
    found: dict[str, Any] = {"guidance_scale": condition.guidance}
    if kind == "FluxTransformer2DModel":
        found = {"guidance_scale": given.distilled}
        if condition.guidance != 1:
            found |= {"true_cfg_scale": condition.guidance, "negative_prompt": condition.negative}
    elif description.negative is not None:
        found["negative_prompt"] = condition.negative
    if condition.rescale:
        found["guidance_rescale"] = condition.rescale
    if given.size is not None and pixels and condition.prompts:
        found |= {"height": pixels, "width": pixels}
    if given.text_length is not None and kind != "UNet2DConditionModel":
        found["max_sequence_length"] = given.text_length
    if kind == "PixArtTransformer2DModel":
        found |= {"clean_caption": False, "use_resolution_binning": False}
    return found


def _with_calls(schedule: NoiseSchedule, config: Mapping[str, Any], model: Any, size: int) -> NoiseSchedule:
    """Return the schedule, on a flow with the calls of the folder's own pipeline, for `grid=pipeline`."""
    flux = type(model).__name__ == "FluxTransformer2DModel"  # its pipeline packs the latents, two by two
    patch = 2 if flux else model.config.get("patch_size")
    tokens = (size // patch) ** 2 if isinstance(patch, int) and patch > 0 else None
    calls = flow_calls.of(config, trailing=flux, tokens=tokens)
    if calls is None or not isinstance(schedule, RectifiedFlow):
        return schedule
    return schedule.with_calls(calls.levels(schedule), calls.rule)


def _size(description: Description, model: Any) -> int:
    size = networks.side(model.config)
    if size is None:
        raise SpecError(
            asked=description.name,
            wrong="the network's configuration has no sample_size",
            remedy="give size=N, the side of its state",
        )
    return size


def _decoder(vae: Any) -> Any:
    config = vae.config
    if config.get("latents_mean") is not None:
        raise RecordError(
            asked=type(vae).__name__,
            wrong="its latents_mean: latents with a nonzero mean aren't supported",
            remedy="give a pipeline whose latents have mean zero",
        )
    return assembly.first_stage(vae, scale=config["scaling_factor"], shift=config.get("shift_factor") or 0.0)


def _magnified(vae: Any) -> int:
    """Return the number of image pixels per latent pixel, along one side."""
    return int(2 ** (len(vae.config["block_out_channels"]) - 1))


def _told_size(
    description: Description, model: Any, network: networks.Network, parts: Mapping[str, Any], pixels: int
) -> int:
    """Return the side of the image that a network is told, after checks.

    Raises:
        MissingError: there is no first stage, which determines it.
        RecordError: the pooled width of the text encoder differs from the network's.
    """
    name = type(model).__name__
    if not pixels:
        raise MissingError(
            asked=description.name,
            wrong=f"a {name} takes the image size, which the vae determines, but there is no vae",
            remedy="give the whole pipeline's folder, or files.vae in a TOML description",
        )
    if network.pooled and (made := parts["text_encoder_2"].config.projection_dim) != network.pooled:
        raise RecordError(
            asked=description.checkpoint,
            wrong=(
                f"its {name} takes pooled prompt embeddings of {network.pooled} numbers, but those of text_encoder_2 "
                f"have {made}, as in a refiner"
            ),
            remedy="give the folder of a base model",
        )
    return pixels


PIXART = {"PixArtAlphaPipeline": 120, "PixArtSigmaPipeline": 300}
"""Number of tokens for T5, by pipeline."""


def _encoder(
    description: Description,
    model: Any,
    parts: Mapping[str, Any],
    folder: Folder,
    length: int | None,
    zeros: bool,
) -> text.Encode:
    kind = type(model).__name__
    if kind == "PixArtTransformer2DModel":
        if length is None and folder.pipeline not in PIXART:
            raise SpecError(
                asked=description.name,
                wrong="the network alone doesn't tell PixArt-alpha from PixArt-sigma",
                remedy="give text_length=120 for alpha or 300 for sigma",
            )
        return text.pixart(parts, length or PIXART[folder.pipeline])
    if len(parts) == 4 and kind == "UNet2DConditionModel":
        return text.stable_diffusion_xl(parts, zeros=zeros)
    if kind == "SD3Transformer2DModel":
        return text.stable_diffusion_3(parts, model.config["joint_attention_dim"], length or 256)
    if kind == "FluxTransformer2DModel":
        return text.flux(parts, length or 512)
    return text.stable_diffusion(parts)


def _zeros(description: Description, folder: Folder, given: Settings) -> bool:
    """Return whether an empty negative prompt is told by zeros: an explicit one is encoded, as upstream does."""
    if given.zeros is not None:
        return given.zeros
    return folder.zeros and description.negative != ""


def _plain(config: Any) -> dict[str, Any]:
    """Return a network's configuration without diffusers' private entries."""
    plain: dict[str, Any] = json.loads(json.dumps({k: v for k, v in dict(config).items() if not k.startswith("_")}))
    return plain
