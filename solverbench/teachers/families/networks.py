"""The supported networks of diffusers, each as `predict(x, t, condition)`; t counts training steps, unrounded."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from solverbench.errors import RecordError, SpecError

OTHER_INPUTS = (
    "class_embed_type",
    "encoder_hid_dim_type",
    "num_class_embeds",
    "time_cond_proj_dim",
)
"""Options of a UNet2DConditionModel that require inputs other than state, time and text."""

Predict = Callable[[Tensor, Tensor, tuple[Tensor, ...]], Tensor]


@dataclass(frozen=True, eq=False)
class Network:
    """A network with the facts of its configuration.

    Args:
        predict: (x [B, C, H, W], t [B] in training steps, condition, each tensor [B, ...]) -> the network's output.
        channels: channels of the state.
        made: channels of the output: those of the state, or twice as many with a learned variance.
        size: side of the state; None if the configuration does not give it.
        classes: number of classes; 0 if none.
        absent: class for no condition; None if it has none.
        text: whether it takes the tensors of text encoders.
        pooled: width of the pooled vector per prompt, for a network that is also told sizes; 0 if none.
    """

    predict: Predict
    channels: int
    made: int
    size: int | None
    classes: int = 0
    absent: int | None = None
    text: bool = False
    pooled: int = 0


def read(model: Any, *, null_class: int | None = None, distilled: float = 3.5, pixels: int = 0) -> Network:
    """Return the network of a diffusers model.

    Args:
        null_class: class for no condition, if the configuration does not give it; not counted among the classes.
        distilled: guidance told to a network that was distilled from a guided one.
        pixels: side of the image in pixels, for a network that is told it.

    Raises:
        RecordError: an unsupported kind of model, or one with inputs beyond state, time, class and text.
        SpecError: null_class is not the last class.
    """
    name = type(getattr(model, "_orig_mod", model)).__name__  # the network inside torch.compile's wrapper
    if name not in READERS:
        raise RecordError(
            asked=name,
            wrong="this network isn't supported",
            remedy=f"use one of {', '.join(sorted(READERS))}, or sb.Teacher around it",
        )
    network = READERS[name](model, Choice(null_class, distilled, pixels))
    given, made = network.channels, network.made
    if made not in (given, 2 * given):
        raise RecordError(
            asked=name,
            wrong=f"takes {given} channels and returns {made}, as a network that edits images, which isn't supported",
            remedy="give a network that makes images from noise alone",
        )
    return dataclasses.replace(network, predict=_first(network.predict, given))


@dataclass(frozen=True)
class Choice:
    """Choices that configurations do not contain; see `read`."""

    null_class: int | None
    distilled: float
    pixels: int


def _first(predict: Predict, channels: int) -> Predict:
    """Return `predict` without the learned variance, which the ODE does not use."""
    return lambda x, t, condition: predict(x, t, condition)[:, :channels]


def _channels(config: Any) -> tuple[int, int]:
    given, made = config["in_channels"], config.get("out_channels")
    return given, given if made is None else made


def side(config: Any) -> int | None:
    size = config.get("sample_size")
    if isinstance(size, Sequence):
        if len(set(size)) != 1:
            raise RecordError(
                asked=f"sample_size {tuple(size)}", wrong="only square images are supported", remedy="give size=N"
            )
        size = size[0]
    return None if size is None else int(size)


def _counted(rows: int, null_class: int | None) -> tuple[int, int | None]:
    """Return the number of classes and the class for no condition, for an embedding table of `rows`."""
    if null_class is None:
        return rows, None
    if null_class != rows - 1:
        raise SpecError(
            asked=f"null_class={null_class}",
            wrong=f"only the last of the {rows} classes can be the unconditional one",
            remedy=f"give null_class={rows - 1}, or leave it out",
        )
    return rows - 1, null_class


def _unet2d(model: Any, choice: Choice) -> Network:
    config = model.config
    rows = config.get("num_class_embeds") or 0
    if config.get("class_embed_type") is not None:
        raise RecordError(
            asked="UNet2DModel",
            wrong=f"class_embed_type {config['class_embed_type']!r} isn't supported",
            remedy="use sb.Teacher around it",
        )
    classes, absent = _counted(rows, choice.null_class) if rows else (0, None)

    def predict(x: Tensor, t: Tensor, condition: tuple[Tensor, ...]) -> Tensor:
        output: Tensor = model(x, t, class_labels=condition[0] if condition else None).sample
        return output

    return Network(predict, *_channels(config), side(config), classes, absent)


def _unet_condition(model: Any, choice: Choice) -> Network:
    config = model.config
    for key in OTHER_INPUTS:
        if config.get(key) is not None:
            raise RecordError(
                asked="UNet2DConditionModel",
                wrong=f"{key} = {config[key]!r}: a network with this input isn't supported",
                remedy="use sb.Teacher around it",
            )
    if (added := config.get("addition_embed_type")) is not None:
        return _unet_xl(model, choice, added)

    def predict(x: Tensor, t: Tensor, condition: tuple[Tensor, ...]) -> Tensor:
        output: Tensor = model(x, t, encoder_hidden_states=condition[0]).sample
        return output

    return Network(predict, *_channels(config), side(config), text=True)


def _unet_xl(model: Any, choice: Choice, added: str) -> Network:
    """Return Stable Diffusion XL, which takes a pooled prompt and sizes: original size, crop offset, image size.

    Source: Podell et al. 2023, arXiv:2307.01952, section 2.2; without cropping, as by default in its pipeline.
    """
    config = model.config
    pooled = (config.get("projection_class_embeddings_input_dim") or 0) - 6 * (config["addition_time_embed_dim"] or 0)
    if added != "text_time" or pooled < 1:
        raise RecordError(
            asked="UNet2DConditionModel",
            wrong=f"addition_embed_type = {added!r}: a network with this input isn't supported",
            remedy="use sb.Teacher around it",
        )

    def predict(x: Tensor, t: Tensor, condition: tuple[Tensor, ...]) -> Tensor:
        words, summary = condition
        side = choice.pixels
        sizes = torch.tensor([side, side, 0, 0, side, side], dtype=words.dtype, device=x.device).expand(len(x), 6)
        told = {"text_embeds": summary, "time_ids": sizes}
        output: Tensor = model(x, t, encoder_hidden_states=words, added_cond_kwargs=told).sample
        return output

    return Network(predict, *_channels(config), side(config), text=True, pooled=pooled)


def _dit(model: Any, choice: Choice) -> Network:
    config = model.config
    count = int(config["num_embeds_ada_norm"])
    if choice.null_class not in (None, count):
        raise SpecError(
            asked=f"null_class={choice.null_class}",
            wrong=f"this DiT's class for no condition is {count}",
            remedy="leave null_class out",
        )

    def predict(x: Tensor, t: Tensor, condition: tuple[Tensor, ...]) -> Tensor:
        output: Tensor = model(x, timestep=t, class_labels=condition[0]).sample
        return output

    return Network(predict, *_channels(config), side(config), count, count)


def _pixart(model: Any, choice: Choice) -> Network:
    """Return PixArt, which takes words with their mask, and the image size if it was trained on many sizes.

    Source: Chen et al. 2023, arXiv:2310.00426.
    """

    def predict(x: Tensor, t: Tensor, condition: tuple[Tensor, ...]) -> Tensor:
        words, mask = condition
        told: dict[str, Tensor | None] = {"resolution": None, "aspect_ratio": None}
        if model.use_additional_conditions:
            sizes = torch.full((len(x), 2), float(choice.pixels), dtype=words.dtype, device=x.device)
            told = {"resolution": sizes, "aspect_ratio": torch.ones_like(sizes[:, :1])}
        output: Tensor = model(
            x, encoder_hidden_states=words, encoder_attention_mask=mask, timestep=t, added_cond_kwargs=told
        ).sample
        return output

    return Network(predict, *_channels(model.config), side(model.config), text=True)


def _sd3(model: Any, choice: Choice) -> Network:
    def predict(x: Tensor, t: Tensor, condition: tuple[Tensor, ...]) -> Tensor:
        words, pooled = condition
        output: Tensor = model(
            hidden_states=x, timestep=t, encoder_hidden_states=words, pooled_projections=pooled
        ).sample
        return output

    return Network(predict, *_channels(model.config), side(model.config), text=True)


def _flux(model: Any, choice: Choice) -> Network:
    """Return FLUX, a transformer on 2 x 2 patches with positions; it multiplies its time by 1000 itself."""

    def predict(x: Tensor, t: Tensor, condition: tuple[Tensor, ...]) -> Tensor:
        words, pooled = condition
        batch, channels, height, width = x.shape
        tokens = (
            x.reshape(batch, channels, height // 2, 2, width // 2, 2).permute(0, 2, 4, 1, 3, 5).flatten(3).flatten(1, 2)
        )
        rows, columns = torch.meshgrid(torch.arange(height // 2), torch.arange(width // 2), indexing="ij")
        places = torch.stack((torch.zeros_like(rows), rows, columns), -1).flatten(0, 1).to(x)
        guidance = torch.full((batch,), choice.distilled, device=x.device) if model.config.guidance_embeds else None
        output: Tensor = model(
            hidden_states=tokens,
            timestep=t / 1000,
            guidance=guidance,
            pooled_projections=pooled,
            encoder_hidden_states=words,
            txt_ids=torch.zeros(words.shape[1], 3).to(x),
            img_ids=places,
        ).sample
        grid = output.reshape(batch, height // 2, width // 2, -1, 2, 2)
        return grid.permute(0, 3, 1, 4, 2, 5).reshape(batch, -1, height, width)

    given, made = _channels(model.config)
    return Network(predict, given // 4, made // 4, None, text=True)


READERS: dict[str, Callable[..., Network]] = {
    "UNet2DModel": _unet2d,
    "UNet2DConditionModel": _unet_condition,
    "DiTTransformer2DModel": _dit,
    "PixArtTransformer2DModel": _pixart,
    "SD3Transformer2DModel": _sd3,
    "FluxTransformer2DModel": _flux,
}
"""Reader of each supported class."""
