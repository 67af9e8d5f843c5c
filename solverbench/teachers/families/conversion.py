"""Conversion of CompVis checkpoints to diffusers: configurations inferred from shapes, tensors renamed."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from solverbench.errors import RecordError

UNET, FIRST_STAGE, CONDITION = "model.diffusion_model.", "first_stage_model.", "cond_stage_model."
"""Name prefixes of a latent diffusion model's parts in its checkpoint."""

State = dict[str, Tensor]


@dataclass(frozen=True, eq=False)
class Converted:
    """A network as diffusers or transformers builds it.

    Args:
        kind: name of the class.
        config: arguments of the class.
        state: tensors by their names in the class.
    """

    kind: str
    config: dict[str, Any]
    state: State


def part(state: Mapping[str, Tensor], prefix: str) -> State:
    """Return the tensors below `prefix`, with the prefix removed from their names."""
    return {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}


def averaged(state: Mapping[str, Tensor]) -> State:
    """Return the state with the U-Net's weights replaced by their moving average, if it holds one.

    The average of `model.a.b` is stored as `model_ema.ab`: the name within `model`, without its dots.
    Source: Rombach et al. 2022, arXiv:2112.10752, public code, LitEma.

    Raises:
        RecordError: the average lacks a weight.
    """
    averages = part(state, "model_ema.")
    if not averages:
        return dict(state)
    found = dict(state)
    for key in state:
        if key.startswith(UNET):
            flat = key.removeprefix("model.").replace(".", "")
            if flat not in averages:
                raise RecordError(
                    asked="checkpoint", wrong=f"its moving average has no model_ema.{flat}", remedy="download it again"
                )
            found[key] = averages[flat]
    return found


def unet(state: Mapping[str, Tensor], *, heads: int | None = None, head_channels: int | None = None) -> Converted:
    """Return the U-Net of `state`, whose keys begin at `time_embed`.

    Args:
        heads, head_channels: number of heads of each attention, or channels per head; shapes do not show them.

    Raises:
        RecordError: a tensor is missing or left over.
    """
    source = _Source(state, "U-Net")
    levels = _levels(source)
    depth = len(levels)
    widths = tuple(level[0].width for level in levels)
    cross = any(block.cross for level in levels for block in level)
    per_level = {len(level) for level in levels}
    if len(per_level) != 1:
        raise RecordError(
            asked="U-Net",
            wrong=(
                f"its levels have {sorted(per_level)} residual blocks, and only one number for all levels is supported"
            ),
            remedy="convert it to a diffusers folder",
        )
    layers = per_level.pop()
    config = {
        "in_channels": source["input_blocks.0.0.weight"].shape[1],
        "out_channels": source["out.2.weight"].shape[0],
        "block_out_channels": widths,
        "layers_per_block": layers,
        "norm_num_groups": 32,
        "down_block_types": tuple(_kind(level, "Down", cross) for level in levels),
        "up_block_types": tuple(_kind(level, "Up", cross) for level in reversed(levels)),
        **_attention(source, widths, cross, heads, head_channels),
    }
    _conv(source, "input_blocks.0.0", "conv_in")
    for n, name in (0, "linear_1"), (2, "linear_2"):
        _conv(source, f"time_embed.{n}", f"time_embedding.{name}")
    index = 1
    for i, level in enumerate(levels):
        for j, block in enumerate(level):
            _residual(source, f"input_blocks.{index}.0", f"down_blocks.{i}.resnets.{j}")
            _attend(source, f"input_blocks.{index}.1", f"down_blocks.{i}.attentions.{j}", block, config)
            index += 1
        if i < depth - 1:
            _conv(source, f"input_blocks.{index}.0.op", f"down_blocks.{i}.downsamplers.0.conv")
            index += 1
    _residual(source, "middle_block.0", "mid_block.resnets.0")
    _attend(source, "middle_block.1", "mid_block.attentions.0", _block(source, "middle_block", 0), config)
    _residual(source, "middle_block.2", "mid_block.resnets.1")
    for i, level in enumerate(reversed(levels)):
        for j in range(layers + 1):
            index = i * (layers + 1) + j
            block = level[0]
            _residual(source, f"output_blocks.{index}.0", f"up_blocks.{i}.resnets.{j}")
            _attend(source, f"output_blocks.{index}.1", f"up_blocks.{i}.attentions.{j}", block, config)
            if j == layers and i < depth - 1:
                place = 2 if block.attends else 1
                _conv(source, f"output_blocks.{index}.{place}.conv", f"up_blocks.{i}.upsamplers.0.conv")
    _conv(source, "out.0", "conv_norm_out")
    _conv(source, "out.2", "conv_out")
    return Converted("UNet2DConditionModel" if cross else "UNet2DModel", config, source.finish())


def first_stage(state: Mapping[str, Tensor]) -> Converted:
    """Return the decoder of `state`, whose keys begin at `decoder` and `post_quant_conv`, and its codebook, if any.

    Raises:
        RecordError: a tensor is missing or left over.
    """
    source = _Source(part(state, "decoder."), "decoder")
    ups = source.indices("up.")
    layers = len(source.indices(f"up.{ups[0]}.block."))
    widths = tuple(source[f"up.{i}.block.{layers - 1}.conv2.weight"].shape[0] for i in ups)
    for i in ups:
        for j in range(layers):
            _resnet(source, f"up.{i}.block.{j}", f"up_blocks.{ups[-1] - i}.resnets.{j}")
        if i > 0:
            _conv(source, f"up.{i}.upsample.conv", f"up_blocks.{ups[-1] - i}.upsamplers.0.conv")
    for n in (1, 2):
        _resnet(source, f"mid.block_{n}", f"mid_block.resnets.{n - 1}")
    names = {"norm": "group_norm", "q": "to_q", "k": "to_k", "v": "to_v", "proj_out": "to_out.0"}
    for old, new in names.items():
        _conv(source, f"mid.attn_1.{old}", f"mid_block.attentions.0.{new}", _linear)
    _conv(source, "conv_in", "conv_in")
    _conv(source, "norm_out", "conv_norm_out")
    _conv(source, "conv_out", "conv_out")
    config = {
        "out_channels": source["conv_out.weight"].shape[0],
        "latent_channels": source["conv_in.weight"].shape[1],
        "block_out_channels": widths,
        "layers_per_block": layers - 1,
        "down_block_types": ("DownEncoderBlock2D",) * len(ups),
        "up_block_types": ("UpDecoderBlock2D",) * len(ups),
    }
    found = {f"decoder.{key}": value for key, value in source.finish().items()}
    rest = _Source(state, "first stage")
    _conv(rest, "post_quant_conv", "post_quant_conv")
    if "quantize.embedding.weight" not in state:
        return Converted("AutoencoderKL", config, found | rest.done)
    codes = rest.move("quantize.embedding.weight", "quantize.embedding.weight")
    config |= {"num_vq_embeddings": codes.shape[0], "vq_embed_dim": codes.shape[1]}
    return Converted("VQModel", config, found | rest.done)


def text_encoder(state: Mapping[str, Tensor], heads: int | None = None) -> Converted:
    """Return the CLIP text encoder of `state`, whose keys begin at `transformer.text_model`.

    Args:
        heads: heads of its attention; if None one per 64 channels, as in every published CLIP.

    Raises:
        RecordError: it is not a CLIP text encoder.
    """
    found = part(state, "transformer.text_model.")
    found.pop("embeddings.position_ids", None)  # a constant, absent from later versions
    source = _Source(found, "text encoder")
    vocabulary, width = source["embeddings.token_embedding.weight"].shape
    config = {
        "vocab_size": vocabulary,
        "hidden_size": width,
        "projection_dim": width,
        "intermediate_size": source["encoder.layers.0.mlp.fc1.weight"].shape[0],
        "num_hidden_layers": len(source.indices("encoder.layers.")),
        "num_attention_heads": heads or max(width // 64, 1),
        "max_position_embeddings": source["embeddings.position_embedding.weight"].shape[0],
        "hidden_act": "quick_gelu",
        "layer_norm_eps": 1e-5,
    }
    return Converted("CLIPTextModel", config, found)


class _Source:
    """Tensors under their old names, moved one by one, so that missing and left-over ones are known by name."""

    def __init__(self, state: Mapping[str, Tensor], what: str) -> None:
        self.state, self.what = state, what
        self.done: State = {}
        self._used: set[str] = set()

    def __getitem__(self, key: str) -> Tensor:
        try:
            return self.state[key]
        except KeyError:
            raise RecordError(
                asked=self.what,
                wrong=f"the checkpoint has no {key}, so it is incomplete or of another family",
                remedy="download it again, or give its family",
            ) from None

    def __contains__(self, key: str) -> bool:
        return key in self.state

    def indices(self, prefix: str) -> list[int]:
        """Return the numbers that follow `prefix` in the names: 0, 1, .. without gaps."""
        found = {int(m[1]) for key in self.state if (m := re.match(re.escape(prefix) + r"(\d+)\.", key))}
        if sorted(found) != list(range(len(found))) or not found:
            raise RecordError(
                asked=self.what,
                wrong=f"the checkpoint has no {prefix}0, or a gap in the numbers that follow",
                remedy="download it again",
            )
        return sorted(found)

    def move(self, old: str, new: str, change: Callable[[Tensor], Tensor] = lambda t: t) -> Tensor:
        """Return the tensor `old`, changed by `change`, and record it as `new`."""
        value = change(self[old])
        self.take(old, {new: value})
        return value

    def take(self, old: str, made: Mapping[str, Tensor]) -> None:
        """Record the tensors `made` from the tensor `old`."""
        self.done |= made
        self._used.add(old)

    def finish(self) -> State:
        """Return all moved tensors; RecordError if any is left over."""
        left = sorted(set(self.state) - self._used)
        if left:
            raise RecordError(
                asked=self.what,
                wrong=f"{len(left)} tensors of the checkpoint don't belong to this architecture, such as {left[0]}",
                remedy=(
                    "give a checkpoint of latent diffusion or Stable Diffusion 1.x, or convert it to a diffusers folder"
                ),
            )
        return self.done


@dataclass(frozen=True)
class _Block:
    """A residual block and its attention."""

    width: int
    attends: bool
    cross: int
    """Number of transformer blocks with cross-attention; 0 for plain attention or none."""


def _block(source: _Source, prefix: str, at: int) -> _Block:
    width = source[f"{prefix}.{at}.in_layers.2.weight"].shape[0]
    cross = 0
    while f"{prefix}.{at + 1}.transformer_blocks.{cross}.norm1.weight" in source:
        cross += 1
    return _Block(width, f"{prefix}.{at + 1}.norm.weight" in source, cross)


def _levels(source: _Source) -> list[list[_Block]]:
    """Return the blocks of the encoder, split into levels where the image is halved."""
    levels: list[list[_Block]] = [[]]
    for i in source.indices("input_blocks.")[1:]:
        if f"input_blocks.{i}.0.op.weight" in source:
            levels.append([])
        else:
            levels[-1].append(_block(source, f"input_blocks.{i}", 0))
    for level in levels:
        if not level or len(set(level)) > 1:
            raise RecordError(
                asked="U-Net",
                wrong="the blocks of a level differ from each other, which isn't supported",
                remedy="convert it to a diffusers folder",
            )
    return levels


def _kind(level: Iterable[_Block], way: str, cross: bool) -> str:
    if not all(block.attends for block in level):
        return f"{way}Block2D"
    return f"{'CrossAttn' if cross else 'Attn'}{way}Block2D"


def _attention(
    source: _Source, widths: tuple[int, ...], cross: bool, heads: int | None, head_channels: int | None
) -> dict[str, Any]:
    if (heads is None) == (head_channels is None):
        raise RecordError(
            asked="U-Net",
            wrong="its number of attention heads can't be derived from its shapes",
            remedy=(
                "give either heads or head_channels, as in its upstream configuration (num_heads, num_head_channels)"
            ),
        )
    if not cross:
        if head_channels is None:
            raise RecordError(
                asked="U-Net",
                wrong="plain attention with a fixed number of heads isn't supported",
                remedy="give head_channels in place of heads",
            )
        return {"attention_head_dim": head_channels}
    depth, context = _context(source)
    # diffusers calls the number of heads attention_head_dim here.
    counts = tuple(heads or width // (head_channels or 1) for width in widths)
    linear = source["middle_block.1.proj_in.weight"].ndim == 2
    return {
        "attention_head_dim": counts,
        "cross_attention_dim": context,
        "transformer_layers_per_block": depth,
        "use_linear_projection": linear,
    }


def _context(source: _Source) -> tuple[int, int]:
    depth = len(source.indices("middle_block.1.transformer_blocks."))
    return depth, source["middle_block.1.transformer_blocks.0.attn2.to_k.weight"].shape[1]


def _conv(source: _Source, old: str, new: str, change: Callable[[Tensor], Tensor] = lambda t: t) -> None:
    for name in "weight", "bias":
        source.move(f"{old}.{name}", f"{new}.{name}", change)


def _linear(value: Tensor) -> Tensor:
    """Return a 1x1 convolution's weight as a matrix."""
    return value.flatten(1) if value.ndim > 1 else value


def _residual(source: _Source, old: str, new: str) -> None:
    names = {
        "in_layers.0": "norm1",
        "in_layers.2": "conv1",
        "emb_layers.1": "time_emb_proj",
        "out_layers.0": "norm2",
        "out_layers.3": "conv2",
    }
    for before, after in names.items():
        _conv(source, f"{old}.{before}", f"{new}.{after}")
    if f"{old}.skip_connection.weight" in source:
        _conv(source, f"{old}.skip_connection", f"{new}.conv_shortcut")


def _resnet(source: _Source, old: str, new: str) -> None:
    for name in "norm1", "conv1", "norm2", "conv2":
        _conv(source, f"{old}.{name}", f"{new}.{name}")
    if f"{old}.nin_shortcut.weight" in source:
        _conv(source, f"{old}.nin_shortcut", f"{new}.conv_shortcut")


def _attend(source: _Source, old: str, new: str, block: _Block, config: Mapping[str, Any]) -> None:
    """Move the attention after a residual block: a transformer keeps its names; plain attention's qkv is split."""
    if not block.attends:
        return
    if block.cross:
        for key in [key for key in source.state if key.startswith(f"{old}.")]:
            source.move(key, new + key.removeprefix(old))
        return
    width = config["attention_head_dim"]
    _conv(source, f"{old}.norm", f"{new}.group_norm")
    for name in "weight", "bias":
        # Ordered by head; within a head q, k and v.
        stacked = source[f"{old}.qkv.{name}"]
        if stacked.shape[0] % (3 * width):
            channels = stacked.shape[0] // 3
            raise RecordError(
                asked=f"head_channels={width}",
                wrong=f"the U-Net's {channels} channels can't be divided into heads of {width}",
                remedy="correct head_channels",
            )
        split = stacked.flatten(1) if name == "weight" else stacked
        heads = split.reshape(-1, 3, width, *split.shape[1:])
        parts = {f"{new}.to_{letter}.{name}": heads[:, n].flatten(0, 1) for n, letter in enumerate("qkv")}
        source.take(f"{old}.qkv.{name}", parts)
    _conv(source, f"{old}.proj_out", f"{new}.to_out.0", _linear)
