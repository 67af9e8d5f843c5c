"""The family `pipeline`: the teacher of any folder that a diffusers pipeline saves."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from solverbench import files
from solverbench.errors import RecordError, SpecError, UserError
from solverbench.method.schedules import STAND_IN
from solverbench.teachers.adaptors import Adapted, Clipped
from solverbench.teachers.conditions import Condition
from solverbench.teachers.families import assembly, folders, schedulers
from solverbench.teachers.families.pipelines import adapter as adapters
from solverbench.teachers.families.pipelines import (
    agreement,
    arguments,
    levels,
    memory,
    parts,
    precision,
    prompts,
    safety,
)
from solverbench.teachers.families.pipelines.adapter import Adapter
from solverbench.teachers.families.pipelines.networks import Watched
from solverbench.teachers.families.pipelines.prompt_files import PromptFiles
from solverbench.teachers.teacher import SAMPLER, Pipeline, Teacher
from solverbench.wording import one_line

if TYPE_CHECKING:
    from solverbench.teachers.families.description import Description


@dataclass(frozen=True)
class Settings:
    """The family's own options.

    Args:
        variant: variant of the weight files, such as fp16.
        checkpointing: whether the networks use gradient checkpointing.
        frame: frame of a video that is its image, from 0; the middle one if None.
        clip: clip the data prediction to [-clip, clip] in every call; part of the identity.
        enable_model_cpu_offload: whether each part is on the device only while it runs; see `memory.place`.
        enable_vae_tiling: whether the decoder works on tiles, which changes the images a little.
        enable_vae_slicing: whether the decoder works on one image at a time.
        keep_prompts: whether encoded prompts are kept in the results folder.
    """

    variant: str | None = None
    checkpointing: bool = False
    frame: int | None = None
    clip: float | None = None
    enable_model_cpu_offload: bool = False
    enable_vae_tiling: bool = False
    enable_vae_slicing: bool = False
    keep_prompts: bool = True


def recognises(path: Path) -> bool:
    """Return whether `path` is a pipeline's folder that the family `diffusers` does not read."""
    return (path / safety.INDEX).is_file() and not folders.known(safety.index(path))


def load(description: Description, device: str = "cpu") -> Teacher:
    """Return the teacher of a pipeline's folder.

    Raises:
        MissingError: diffusers is missing.
        RecordError: the folder holds code or is damaged, its process isn't read, or one call doesn't stand for its
            sampler.
        SpecError: an option or an argument of the call does not fit.
        UserError: see `Description.condition`.
    """
    own = {field.name for field in dataclasses.fields(Settings)}
    asked = {key: value for key, value in description.options.items() if key not in own}
    given = dataclasses.replace(
        description, options={key: value for key, value in description.options.items() if key in own}
    ).settings(Settings)
    if not (description.checkpoint / safety.INDEX).is_file():
        raise RecordError(
            asked=description.checkpoint, wrong=f"has no {safety.INDEX}", remedy="give the folder of a whole pipeline"
        )
    if given.clip is not None:
        Clipped(_unchanged, given.clip)  # refuses a wrong bound
    index = safety.check(description.checkpoint)
    assembly.require(description.name)
    cls = safety.pipeline_class(description.checkpoint, index)
    taken = adapters.arguments(cls)
    call, digests, condition = _told(description, asked, taken, cls.__name__)
    pipe = parts.load(description, cls, index, given.variant)
    asked_scheduler = {**dict(pipe.scheduler.config), "_class_name": type(pipe.scheduler).__name__}
    made = schedulers.settled({**asked_scheduler, "invert_sigmas": False})  # the adapter turns it back
    weights, facts = parts.identified(description, pipe)
    facts |= {"pipeline": cls.__name__, "call": {**_given(call), **digests}, "negative": description.negative}
    facts |= {key: value for key in ("clip", "frame") if (value := getattr(given, key)) is not None}
    networks, placed = _prepared(pipe, description, device, given, files.digest({"weights": weights, **facts}))
    adapter = Adapter(
        description.name, pipe, networks, call,
        negative=description.negative, negatives=_negatives(description, condition),
        prompts=condition.prompts[:1] if condition else (), frame=given.frame,
        offloading=given.enable_model_cpu_offload and memory.offloads(device),
    )  # fmt: skip
    shift = levels.shift_of_told(adapter, made)
    schedule = assembly.ended(levels.shifted(schedulers.schedule(made), shift), description)
    told = levels.told(made, schedule, shift)
    schedule = schedule.with_calls(levels.own(adapter, schedule))

    def bound(prompts: Sequence[str]) -> Callable[[Tensor, Tensor], Tensor]:
        def network(y: Tensor, t: Tensor) -> Tensor:
            return adapter.output(y, t, prompts)

        made_of = Adapted(network, schedule, schedulers.prediction(made), told=told)
        # A turned network isn't in the frame that an exported scheduler has.
        return (lambda x, sigma: made_of(x, sigma)) if adapter.turned else made_of

    def bind(chosen: Sequence[int]) -> Callable[[Tensor, Tensor], Tensor]:
        denoise = bound(condition.lines(chosen) if condition else ())
        return denoise if given.clip is None else Clipped(denoise, given.clip)

    notes = _checked(adapter, bound, _level(adapter.scheduler, made, equal=shift == 1), condition)
    passes = _passes(adapter)
    _decodes(adapter)
    if condition is not None and passes > 1:
        condition = dataclasses.replace(condition, guidance=_weight(call, taken))
    identity = files.digest({"weights": weights, "shape": list(adapter.shape), **facts})
    return Teacher(
        denoise=lambda x, sigma: bind(range(len(x)))(x, sigma),
        name=description.name,
        shape=adapter.shape,
        schedule=schedule,
        identity=identity,
        sampler=description.sampler or SAMPLER,
        sampler_nfe=description.sampler_nfe or assembly.LATENT_NFE,
        device=device,
        move=lambda device: load(description, device),
        bind=bind,
        decode=assembly.recomputed(adapter.decode) if given.checkpointing else adapter.decode,
        passes=passes,
        condition=condition,
        arithmetic=precision.label(description) + " vae_tiling" * given.enable_vae_tiling,
        notes=(*filter(None, ["" if given.clip else schedulers.dropped(asked_scheduler), placed]), *notes),
        pipeline=None if description.files or given.frame is not None else Pipeline(
            description.checkpoint, _as_given(description, asked),
            adapter.state if "latents" in taken else None, given.variant or "",
        ),
    )  # fmt: skip


def _as_given(description: Description, asked: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of the pipeline's call as the user gave them: images as paths; see `Pipeline`."""
    found = {**description.call, **{key: arguments.plain(description.name, key, text) for key, text in asked.items()}}
    for key, value in found.items():
        if arguments.IMAGE.search(key) and isinstance(value, str):
            found[key] = str(arguments.place(description, value))
    if description.guidance_rescale is not None:
        found["guidance_rescale"] = description.guidance_rescale
    if description.negative is not None:
        found["negative_prompt"] = description.negative
    return found


def _unchanged(x: Tensor, sigma: Tensor) -> Tensor:
    return x


def _told(
    description: Description, asked: Mapping[str, Any], taken: Mapping[str, Any], kind: str
) -> tuple[dict[str, Any], dict[str, str], Condition | None]:
    """Return the call's arguments, the digests of its images, and the condition."""
    guided = sorted(key for key in taken if key.endswith(("guidance_scale", "cfg_scale")))
    if description.guidance is not None:
        raise SpecError(
            asked=description.name, wrong=f"guidance {description.guidance:g}: {kind} has names of its own for it",
            remedy=f"give {' or '.join(guided)}" if guided else "leave guidance out",
        )  # fmt: skip
    if description.guidance_rescale is not None:
        asked = {**asked, "guidance_rescale": description.guidance_rescale}
    if description.negative is not None and "negative_prompt" not in taken:
        raise SpecError(
            asked=description.name, wrong=f"negative: {kind} takes no negative prompt", remedy="leave negative out"
        )
    call, digests = arguments.images(description, arguments.read(description, asked, taken, kind))
    condition = dataclasses.replace(description, negative=None).condition(text="prompt" in taken)
    if condition is not None and condition.negatives and "negative_prompt" not in taken:
        raise SpecError(
            asked=description.name, wrong=f"prompts with negative ones: {kind} takes no negative prompt",
            remedy="give prompts without them",
        )  # fmt: skip
    if condition is not None and description.negative is not None:
        condition = dataclasses.replace(condition, negative=description.negative)
    return call, digests, condition


def _negatives(description: Description, condition: Condition | None) -> dict[str, str]:
    """Return the negative prompt of each prompt that has one.

    Raises:
        UserError: a prompt has two.
    """
    found: dict[str, str] = {}
    if condition is not None and condition.negatives:
        for prompt, negative in zip(condition.prompts, condition.negatives, strict=True):
            if found.setdefault(prompt, negative) != negative:
                raise UserError(
                    asked=f"{description.name}:prompts={description.prompts}",
                    wrong=f"prompt {prompt!r} has two negative prompts", remedy="give each prompt one",
                )  # fmt: skip
    return found


def _prepared(pipe: Any, description: Description, device: str, given: Settings, identity: str) -> tuple[Watched, str]:
    """Freeze the pipeline's parts and put them where they run; return its watched networks, and a note or ""."""
    for part in pipe.components.values():
        if isinstance(part, torch.nn.Module):
            part.requires_grad_(False).eval()
    asked = description.name
    memory.decode_by(asked, pipe, tiling=given.enable_vae_tiling, slicing=given.enable_vae_slicing)
    joined = precision.join(pipe) if description.dtypes else None
    kept = None
    if given.keep_prompts and description.results is not None:
        kept = PromptFiles(description.results, identity, device)
    prompts.remember(pipe, joined, kept)
    networks = Watched(pipe)  # before hooks, whose end restores what they found
    placed = memory.place(asked, pipe, device, offload=given.enable_model_cpu_offload)
    for network in networks.modules.values():
        if given.checkpointing:
            assembly.checkpointed(network)
        if description.channels_last:
            network.to(memory_format=torch.channels_last)
        if description.compile:
            network.compile()
    return networks, placed


def _given(call: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in call.items() if adapters.is_plain(value)}


def _weight(call: Mapping[str, Any], taken: Mapping[str, Any]) -> float:
    """Return the guidance weight of a call that runs more than one pass, for reports."""
    for key in ("true_cfg_scale", "guidance_scale"):
        value = call.get(key, taken.get(key))
        if isinstance(value, (int, float)) and value >= 0:
            return float(value)
    return 1.0


def _checked(
    adapter: Adapter,
    bound: Callable[[Sequence[str]], Callable[[Tensor, Tensor], Tensor]],
    level: Callable[[float, float | None], tuple[float, float]],
    condition: Condition | None,
) -> list[str]:
    """Return the note of the check at load; images are made one at a time if a batch changes them.

    Raises:
        RecordError: one call doesn't stand for the pipeline's sampler.
    """
    lines = sorted(set(condition.prompts), key=len) if condition else []
    prompts = [*lines[:1], *lines[1:][-1:]]
    difference, failed = float("inf"), None
    entered = [(steps, adapter.sample.dtype) for steps in adapter.forms]
    if adapter.format != adapter.sample.dtype and 2 in adapter.forms:
        entered.append((2, adapter.format))  # from the second step on, own states are in the network's format
    for (adapter.steps, adapter.entered), adapter.alone in itertools.product(entered, (False, True)):
        try:
            found = agreement.measured(adapter, bound, level, prompts)
        except Exception as error:  # a pipeline that dislikes its arguments raises nearly anything
            failed = error
            continue
        difference = min(difference, found)
        if found <= agreement.bound(adapter.format):
            break
    if failed is not None and difference == float("inf"):
        raise RecordError(
            asked=adapter.name, wrong=f"{adapter.kind} fails in its own call ({one_line(failed, typed=True)})",
            remedy="give other arguments of its call, or use sb.Teacher around its network",
        ) from failed  # fmt: skip
    agreement.check(adapter, difference)
    one = "; a call takes one image, as its batches change them" if adapter.single else ""
    said = f"read by {adapter.kind}'s own call, which it follows to {difference:.0e} over {agreement.STEPS} steps"
    return [said + one]


def _level(
    scheduler: Any, made: Mapping[str, Any], *, equal: bool
) -> Callable[[float, float | None], tuple[float, float]]:
    """Return the map (told time, own sigma) -> alpha and s of the state, from the scheduler's own tables.

    Args:
        equal: whether a flow's told times are its levels but for roundings; if not, the sigmas are its levels.
    """
    count = schedulers.steps(made)
    squares = torch.empty(0) if schedulers.flows(made) else _squares(scheduler, made)

    def of(sigma: float, *, flow: bool) -> tuple[float, float]:
        sigma = min(sigma, STAND_IN)
        alpha = 1 / (1 + sigma) if flow else 1 / (1 + sigma**2) ** 0.5
        return alpha, alpha * sigma

    def flow(told: float, own: float | None) -> tuple[float, float]:
        t = told / count if own is None or equal else own
        return of(t / (1 - t) if t < 1 else STAND_IN, flow=True)

    def table(told: float, own: float | None) -> tuple[float, float]:
        if made[schedulers.CONTINUOUS] == "continuous":
            assert own is not None
            return of(own, flow=False)
        low = min(int(told), len(squares) - 1)
        high = min(low + 1, len(squares) - 1)
        logs = squares[[low, high]].clamp(min=1 / (1 + STAND_IN**2)).log()
        square = float((logs[0] + (told - low) * (logs[1] - logs[0])).exp())
        return of((1 / square - 1) ** 0.5, flow=False)

    return flow if schedulers.flows(made) else table


def _decodes(adapter: Adapter) -> None:
    """Raise `RecordError` if the pipeline can't decode a final state."""
    try:
        with torch.no_grad():
            images = adapter.decode(torch.zeros(1, *adapter.shape, device=adapter.device))
        fits = images.ndim == 4
    except Exception as error:  # upstream's kinds of refusal are many
        raise RecordError(
            asked=adapter.name, wrong=f"{adapter.kind} can't decode a state ({one_line(error, typed=True)})",
            remedy="give other arguments of its call, or use sb.Teacher around its network",
        ) from error  # fmt: skip
    if not fits:
        raise RecordError(
            asked=adapter.name, wrong=f"{adapter.kind} decodes a state to {list(images.shape)}, not an image or video",
            remedy="use sb.Teacher around its network",
        )  # fmt: skip


def _squares(scheduler: Any, made: Mapping[str, Any]) -> Tensor:
    """Return alpha^2 [M] of the scheduler's own table, in float64 where its own is that in float32."""
    own, exact = scheduler.alphas_cumprod.double().cpu(), schedulers.alphas_cumprod(made)
    return exact if own.shape == exact.shape and torch.allclose(own, exact, rtol=0, atol=ROUNDED) else own


ROUNDED = 1e-6
"""Error of upstream's float32 products of a thousand factors."""


def _passes(adapter: Adapter) -> int:
    """Return the rows through the network per image and call, counted at three levels; the largest if they differ."""
    counts = []
    for told in (0.9, 0.5, 0.1):
        adapter.networks.rows = []
        with torch.no_grad():
            adapter.output(
                torch.zeros(1, *adapter.shape, device=adapter.device), told * adapter.count, adapter.prompts[:1]
            )
        counts.append(sum(adapter.networks.rows))
    adapter.networks.rows = None
    return max(counts)
