"""Growth of a trained network into a larger one that computes the same function, to train on with more capacity."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar, cast

import torch
from torch import Tensor, nn

from solverbench.errors import UserError
from solverbench.teachers.embedded.unet import Block, UNet

Network = TypeVar("Network", bound=UNet)


@torch.no_grad()
def grown(network: Network, widths: Sequence[int], blocks: Sequence[int]) -> Network:
    """Return a network of these widths and blocks whose output equals `network`'s, up to rounding.

    The added channels are normalised in their own groups, and nothing reads them at first. The added blocks are
    identities. Both are initialised from torch's random state.

    Args:
        widths: channels of each level, multiples of 16 and at least the network's.
        blocks: residual blocks of each level, at least the network's.

    Raises:
        UserError: one of them is smaller.

    Source: Chen et al. 2016, arXiv:1511.05641 (function-preserving growth).
    """
    before, count = network.config["widths"], network.config["blocks"]
    if any(new < old for new, old in zip([*widths, *blocks], [*before, *count], strict=True)):
        raise UserError(
            asked=f"widths {list(widths)}, blocks {list(blocks)}",
            wrong=f"the network has {before} and {count}",
            remedy="name no smaller ones",
        )
    larger = type(network)(**network.config | {"widths": list(widths), "blocks": list(blocks)})
    for name in ("level", "label", "embed"):
        larger.get_submodule(name).load_state_dict(network.get_submodule(name).state_dict())
    old = [torch.arange(width) for width in before]
    colours = torch.arange(network.enter.in_channels)
    _inherit(larger.enter, network.enter, old[0], colours)
    _inherit(larger.leave, network.leave, colours, old[0])
    for k in range(len(before) - 1):
        _inherit(larger.shrink[k], network.shrink[k], old[k + 1], old[k])
        _inherit(larger.grow[k], network.grow[k], old[k], old[k + 1])
    heirs: dict[int, int] = {}
    for k, width in enumerate(widths):
        added = blocks[k] - count[k]
        for j in range(count[k]):
            # The old blocks come first on the way down and last on the way up, so each merge finds its own skip.
            pairs = ((network.down[k][j], larger.down[k][j]), (network.up[k][j], larger.up[k][j + added]))  # type: ignore[index]
            for block, heir in pairs:
                _inherit_block(heir, block, old[k], width)
                heirs[id(block)] = id(heir)
            merged = torch.cat((old[k], old[k] + width))
            _inherit(larger.merge[k][j + added], network.merge[k][j], old[k], merged)  # type: ignore[index]
        for j in range(added):
            passing = larger.merge[k][j]  # type: ignore[index]
            passing.weight.zero_()
            passing.bias.zero_()
            passing.weight[:, :width, 0, 0] = torch.eye(width)
    places = _places(larger)
    for block_id, (start, width) in _places(network).items():
        place, wide = places[heirs[block_id]]
        for half in range(2):
            source, target = start + half * width, place + half * wide
            larger.film.weight[target : target + width] = network.film.weight[source : source + width]
            larger.film.bias[target : target + width] = network.film.bias[source : source + width]
    return larger


def _inherit(layer: nn.Module, source: nn.Module, outputs: Tensor, inputs: Tensor) -> None:
    """Copy `source`'s weights into these channels of `layer`; these outputs read no other inputs."""
    weight, bias = cast(Tensor, layer.weight), cast(Tensor, layer.bias)
    weight[outputs] = 0
    weight[outputs[:, None], inputs] = cast(Tensor, source.weight)
    bias[outputs] = cast(Tensor, source.bias)


def _inherit_block(heir: Block, block: Block, old: Tensor, width: int) -> None:
    _inherit(heir.inner, block.inner, old, old)
    _inherit(heir.outer, block.outer, old, old)
    if block.tokens is not None and heir.tokens is not None and block.mixed is not None and heir.mixed is not None:
        _inherit(heir.tokens, block.tokens, torch.cat([old + part * width for part in range(3)]), old)
        _inherit(heir.mixed, block.mixed, old, old)


def _places(network: UNet) -> dict[int, tuple[int, int]]:
    """Return, by the `id` of each block, the start of its scale among the outputs of `film`, and its width."""
    places, start = {}, 0
    for stage in (*network.down, *reversed(list(network.up))):
        for block in cast(nn.ModuleList, stage):
            width = cast(Block, block).width
            places[id(block)] = (start, width)
            start += 2 * width
    return places
