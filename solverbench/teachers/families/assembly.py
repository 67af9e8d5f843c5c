"""Assembly of a teacher from a network, encoders and a first stage, shared by CompVis and diffusers models."""

from __future__ import annotations

import dataclasses
import importlib.util
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from solverbench import extras, files
from solverbench.errors import MissingError, RecordError, SpecError
from solverbench.method.rectified_flow import RectifiedFlow
from solverbench.method.schedules import NoiseSchedule, VPLinear
from solverbench.method.vp_discrete import VPDiscrete
from solverbench.teachers.adaptors import Adapted, Clipped
from solverbench.teachers.arithmetic import Arithmetic
from solverbench.teachers.conditions import Condition, Guided, passes
from solverbench.teachers.families.conversion import Converted
from solverbench.teachers.families.networks import Network
from solverbench.teachers.families.text import Encode, Remembered
from solverbench.teachers.teacher import SAMPLER, SAMPLER_NFE, Teacher

LATENT_NFE = 40
"""Default calls of the teacher sampler of a latent model, whose calls cost more; see docs/uncertainty.md."""

if TYPE_CHECKING:
    from solverbench.teachers.families.description import Description

DECODED = 8
"""Number of latents that the first stage decodes at once; their images are up to 192 times as large."""


@dataclass(frozen=True, eq=False)
class Parts:
    """The parts of a model on its device.

    Args:
        network: network as configured; its `predict` calls `model`.
        prediction: eps, v, x0 or flow.
        schedule: schedule of its training.
        told: map from the schedule's time to the time input of the network.
        size: side of the state.
        embed: classes [B] -> the network's class inputs.
        encode: prompts -> the network's text inputs.
        decode: final states -> images on [-1, 1]; None if the states are images.
        weights: digest of each network that the images depend on.
        facts: plain values that the images depend on.
        sampler, sampler_nfe: teacher sampler and its calls, unless the description overrides them; None means
            `LATENT_NFE` calls for a latent model, `SAMPLER_NFE` otherwise.
        clip: bound of the data prediction, clipped in every call; None if it isn't.
        notes: what a user should know about how the model was read.
    """

    network: Network
    prediction: str
    schedule: NoiseSchedule
    told: Callable[[Tensor], Tensor]
    size: int
    weights: Mapping[str, str]
    embed: Callable[[Tensor], tuple[Tensor, ...]] | None = None
    encode: Encode | None = None
    decode: Callable[[Tensor], Tensor] | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)
    sampler: str = SAMPLER
    sampler_nfe: int | None = None
    clip: float | None = None
    notes: tuple[str, ...] = ()


def require(asked: str) -> None:
    """Raise `MissingError` if diffusers or transformers is not installed; `asked` begins the message."""
    for module in "diffusers", "transformers":
        if importlib.util.find_spec(module) is None:
            raise MissingError(
                asked=asked,
                wrong=f"needs {module}, which isn't installed",
                remedy=f"run {extras.install('diffusers')}",
            )


@contextmanager
def quiet() -> Iterator[None]:
    """Silence the logs and progress bars of diffusers and transformers; errors are still raised."""
    import diffusers
    import transformers

    logs = diffusers.utils.logging, transformers.utils.logging
    before = [log.get_verbosity() for log in logs]
    bars = [log.is_progress_bar_enabled() for log in logs]
    try:
        for log in logs:
            log.set_verbosity(log.CRITICAL)
            log.disable_progress_bar()
        yield
    finally:
        for log, level, bar in zip(logs, before, bars, strict=True):
            log.set_verbosity(level)
            if bar:
                log.enable_progress_bar()


def prepare(model: Any, device: str, arithmetic: Arithmetic | None = None) -> Any:
    """Return a network, frozen, on `device`, in float32 if no arithmetic is given."""
    with quiet():
        return (arithmetic or Arithmetic()).prepare(model, device)


def build(found: Converted) -> Any:
    """Return the network of a converted state, in float32 on the CPU.

    Raises:
        RecordError: the tensors do not fit the network.
    """
    import diffusers
    import transformers

    with quiet():
        if found.kind == "CLIPTextModel":
            model: Any = transformers.CLIPTextModel(transformers.CLIPTextConfig(**found.config))
            prefix = "text_model." if any(key.startswith("text_model.") for key in model.state_dict()) else ""
            state = {prefix + key: value.float() for key, value in found.state.items()}
        else:
            with torch.device("meta"):
                model = getattr(diffusers, found.kind)(**found.config)
            if found.kind in ("AutoencoderKL", "VQModel"):
                del model.encoder, model.quant_conv
            state = {key: value.float() for key, value in found.state.items()}
    try:
        model.load_state_dict(state, assign=found.kind != "CLIPTextModel")
    except RuntimeError as error:
        raise RecordError(
            asked=found.kind,
            wrong=f"the checkpoint's tensors don't fit ({_second_line(error)})",
            remedy="download it again, or give its family",
        ) from None
    return model.eval()


def first_stage(vae: Any, *, scale: float, shift: float = 0.0, quantise: bool = True) -> Callable[[Tensor], Tensor]:
    """Return the function latents [B, ...] -> images on [-1, 1], `DECODED` at a time, differentiable.

    Args:
        scale, shift: constants of the latents (z - shift) scale in training.
        quantise: whether to quantise to a VQModel's codebook first, with a straight-through gradient.
    """
    more = {} if type(vae).__name__ == "AutoencoderKL" or quantise else {"force_not_quantize": True}

    def decode(states: Tensor) -> Tensor:
        latents = states.to(vae.dtype) / scale + shift
        return torch.cat([vae.decode(part, **more).sample for part in torch.split(latents, DECODED)])

    return decode


def table(rows: Tensor) -> Callable[[Tensor], tuple[Tensor, ...]]:
    """Return the function classes [B] -> (words [B, 1, D],); each class has one word in `rows` [K, D]."""
    return lambda classes: (rows[classes][:, None],)


def checkpointed(model: Any) -> None:
    """Enable gradient checkpointing of a network: it keeps fewer activations and recomputes them.

    Raises:
        SpecError: the network does not support it.
    """
    if not model._supports_gradient_checkpointing:
        raise SpecError(
            asked="checkpointing=true",
            wrong=f"{type(model).__name__} does not support gradient checkpointing",
            remedy="leave checkpointing out",
        )
    model.enable_gradient_checkpointing()


def recomputed(decode: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """Return `decode` with gradient checkpointing: only its input is kept, and it is recomputed for gradients."""
    return lambda states: checkpoint(decode, states, use_reentrant=False)


def teacher(description: Description, device: str, parts: Parts, load: Callable[..., Teacher]) -> Teacher:
    """Return the teacher made of `parts`.

    Args:
        load: function that loads it again on another device.

    Raises:
        UserError: see `Description.condition`.
    """
    if parts.encode is not None:
        parts = dataclasses.replace(parts, encode=Remembered(parts.encode))
    network, arithmetic = parts.network, description.arithmetic
    free = network.absent is not None or network.text
    condition = description.condition(count=network.classes, text=network.text, absent=free, rescaled=True)
    shape = (network.channels, parts.size, parts.size)

    schedule = ended(parts.schedule, description)

    def predict(y: Tensor, t: Tensor, told: tuple[Tensor, ...]) -> Tensor:
        return network.predict(arithmetic.cast(y), t.float().expand(len(y)), told)

    def adapted(network: Callable[[Tensor, Tensor], Tensor]) -> Callable[[Tensor, Tensor], Tensor]:
        found = Adapted(network, schedule, parts.prediction, told=parts.told)
        return found if parts.clip is None else Clipped(found, parts.clip)

    def bind(chosen: Sequence[int]) -> Callable[[Tensor, Tensor], Tensor]:
        assert condition is not None
        given, absent = _told(condition, chosen, shape, parts, device)
        cast = [tuple(_cast(each, arithmetic.torch) for each in told) for told in (given, absent or ())]
        return adapted(Guided(predict, cast[0], cast[1] or None, condition.guidance, condition.rescale))

    def unbound(x: Tensor, sigma: Tensor) -> Tensor:
        return bind(range(len(x)))(x, sigma)

    return Teacher(
        denoise=unbound if condition else adapted(lambda y, t: predict(y, t, ())),
        name=description.name,
        shape=shape,
        schedule=schedule,
        identity=_identity(parts, shape),
        sampler=description.sampler or parts.sampler,
        sampler_nfe=description.sampler_nfe or parts.sampler_nfe or (LATENT_NFE if parts.decode else SAMPLER_NFE),
        device=device,
        move=lambda device: load(description, device),
        bind=bind if condition else None,
        decode=parts.decode,
        passes=passes(condition.guidance, free) if condition else 1,
        condition=condition,
        arithmetic=arithmetic.label,
        notes=parts.notes,
    )


def counted(steps: int) -> Callable[[Tensor], Tensor]:
    """Return the map from a discrete schedule's time t to the network's time input, `steps` t - 1, unrounded."""
    return lambda t: steps * t - 1


def ended(schedule: NoiseSchedule, description: Description) -> NoiseSchedule:
    """Return the schedule between the description's levels.

    Raises:
        SpecError: the description sets sigma_max for a variance preserving model.
        GridError: the levels do not fall.
    """
    low, high = description.sigma_min, description.sigma_max
    if isinstance(schedule, RectifiedFlow):
        changes = {"t_end": low and low / (1 + low), "t_start": high and high / (1 + high)}
        kept = {key: t for key, t in changes.items() if t is not None}
        return dataclasses.replace(schedule, **kept) if kept else schedule
    if isinstance(schedule, VPLinear):
        return _refit(schedule, low, high, description)
    assert isinstance(schedule, VPDiscrete)
    if high is not None:
        raise SpecError(
            asked=f"{description.name}:sigma_max={high:g}",
            wrong=f"a variance preserving model starts where its training does, at {schedule.sigma_max:g}",
            remedy="leave sigma_max out",
        )
    if low is None:
        return schedule
    ended = dataclasses.replace(schedule, t_eps=float(schedule.time(torch.tensor(low, dtype=torch.float64))))
    return ended.asked_by(**schedule.key, sigma_min=float(low))


def _refit(schedule: VPLinear, low: float | None, high: float | None, description: Description) -> NoiseSchedule:
    """Return a continuous schedule between other levels, within its own."""
    if low is None and high is None:
        return schedule
    end, start = schedule.sigma_min if low is None else low, schedule.sigma_max if high is None else high
    if not schedule.sigma_min * (1 - 1e-9) <= end < start <= schedule.sigma_max * (1 + 1e-9):
        raise SpecError(
            asked=description.name, wrong=f"sigma_min={end:g}, sigma_max={start:g}",
            remedy=f"the network knows {schedule.sigma_min:g} to {schedule.sigma_max:g}; give levels within that, "
            "sigma_min below sigma_max",
        )  # fmt: skip
    return VPLinear.refit(end, start).asked_by(frame="vp", sigma_min=float(end), sigma_max=float(start))


def _told(
    condition: Condition, chosen: Sequence[int], shape: Sequence[int], parts: Parts, device: str
) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...] | None]:
    """Return the network's condition for the images with these seeds, and the one for no condition (or None)."""
    led = condition.guidance != 1
    if parts.encode is not None:
        given = parts.encode(condition.lines(chosen))
        if not led:
            return given, None
        if condition.negatives:
            return given, parts.encode(condition.negative_lines(chosen))
        return given, tuple(each.expand(len(chosen), *each.shape[1:]) for each in parts.encode([condition.negative]))
    embed = parts.embed or (lambda classes: (classes,))
    classes = torch.tensor(condition.labels(chosen, shape), device=device)
    absent = parts.network.absent
    return embed(classes), None if absent is None or not led else embed(torch.full_like(classes, absent))


def _cast(value: Tensor, dtype: torch.dtype) -> Tensor:
    return value.to(dtype) if value.is_floating_point() else value


def _identity(parts: Parts, shape: Sequence[int]) -> str:
    """Return the sha256 of all tensors and of the other facts that the images depend on."""
    return files.digest(
        {"weights": dict(parts.weights), "shape": list(shape), "prediction": parts.prediction, **parts.facts}
    )


def _second_line(error: BaseException) -> str:
    """Return the first problem in the message of load_state_dict."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[min(1, len(lines) - 1)][:200]
