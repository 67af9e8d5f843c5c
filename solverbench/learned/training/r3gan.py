"""Weights of R3GAN's public discriminators, as its code names them, under the names of `adversarial.Discriminator`.

Upstream's layout, for stages s from the full size down, with B residual blocks of width w_s each:

    ExtractionLayer.Layer.weight                          [w_0, channels, 1, 1]
    MainLayers.s.Layers.b.LinearLayer{1,2,3}.Layer.weight [2w, w, 1, 1], [2w, 2w / groups, 3, 3], [w, 2w, 1, 1]
    MainLayers.s.Layers.b.NonLinearity{1,2}.Bias          [2w]: added before the leaky rectifier
    MainLayers.s.Layers.B.Resampler.Kernel                [4, 4]: the low-pass filter, in each stage but the last
    MainLayers.s.Layers.B.LinearLayer.Layer.weight        [w_{s+1}, w_s, 1, 1], only where the widths differ
    MainLayers.last.Layers.B.Basis.weight                 [w, 1, 4, 4]: one filter for each channel
    MainLayers.last.Layers.B.LinearLayer.weight           [1, w], or [E, w] with classes
    EmbeddingLayer.weight                                 [E, classes], only with classes

The names may have a prefix, as in Model.ExtractionLayer. Gains are part of the stored weights.

Source: R3GAN, arXiv:2501.05441, and its public code (github.com/brownvc/R3GAN), from which no code is taken.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from solverbench.errors import RecordError
from solverbench.learned.training.adversarial import EXPANSION, Halving

ANCHOR = "ExtractionLayer.Layer.weight"
_LAYER = re.compile(r"MainLayers\.(\d+)\.Layers\.(\d+)\.(.+)")
_BLOCK = {
    "LinearLayer1.Layer.weight": "w1.weight",
    "NonLinearity1.Bias": "w1.bias",
    "LinearLayer2.Layer.weight": "w2.weight",
    "NonLinearity2.Bias": "w2.bias",
    "LinearLayer3.Layer.weight": "w3.weight",
}
"""Upstream's names in a residual block, and those of `adversarial.Residual`."""


@dataclass(frozen=True)
class Sizes:
    """The sizes of a stored network, as settings of a recipe.

    Args:
        classes: number of classes that it is told; 0 for none.
    """

    widths: tuple[int, ...]
    cardinalities: tuple[int, ...]
    blocks: int
    classes: int

    @property
    def settings(self) -> str:
        """The settings on the command line."""
        lists = {"widths": self.widths, "cardinalities": self.cardinalities}
        told = [f"--set {name}={'+'.join(map(str, values))}" for name, values in lists.items()]
        return " ".join([*told, f"--set blocks={self.blocks}"])


def recognised(tensors: Mapping[str, Tensor]) -> bool:
    """Return whether these are named as by R3GAN's code."""
    return any(name.endswith(ANCHOR) for name in tensors)


def converted(tensors: Mapping[str, Tensor], path: Path, *, conditional: bool) -> tuple[dict[str, Tensor], Sizes]:
    """Return the tensors under the names of `adversarial.Discriminator`, and the network's sizes.

    Args:
        path: file that they are from, for messages.
        conditional: whether the discriminator is told the class. If it isn't and the stored one is, its E outputs are
            added up, as GAS's code does, which has an embedding of ones.

    Raises:
        RecordError: a tensor is missing, unknown or of a wrong shape, the filter is another one, or classes are asked
            for and the network is told none.
    """
    try:
        return _converted(_plain(tensors), path, conditional)
    except (KeyError, IndexError, ValueError) as error:
        raise _wrong(path, f"an incomplete R3GAN discriminator ({error})", "save its whole state_dict()") from None


def _plain(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors without the prefix of their names."""
    prefix = next(name for name in tensors if name.endswith(ANCHOR)).removesuffix(ANCHOR)
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def _converted(left: dict[str, Tensor], path: Path, conditional: bool) -> tuple[dict[str, Tensor], Sizes]:
    stages: dict[int, dict[int, dict[str, Tensor]]] = {}
    for name in [name for name in left if _LAYER.fullmatch(name)]:
        stage, layer, own = _LAYER.fullmatch(name).groups()  # type: ignore[union-attr]
        stages.setdefault(int(stage), {}).setdefault(int(layer), {})[own] = left.pop(name)
    found, number = {"layers.0.weight": left.pop(ANCHOR)}, 1
    counts, widths, cardinalities = set(), list[int](), list[int]()
    for stage in range(len(stages)):
        layers = stages[stage]
        counts.add(len(layers) - 1)
        for block in range(len(layers) - 1):
            own = layers[block]
            found |= {f"layers.{number}.{name}": own.pop(theirs) for theirs, name in _BLOCK.items()}
            left |= {f"MainLayers.{stage}.Layers.{block}.{name}": tensor for name, tensor in own.items()}
            number += 1
        inner = found[f"layers.{number - 1}.w2.weight"]
        widths.append(len(inner) // EXPANSION)
        cardinalities.append(len(inner) // inner.shape[1])
        last = layers[len(layers) - 1]
        if stage + 1 < len(stages):
            _check_filter(last.pop("Resampler.Kernel", None), path)
            if "LinearLayer.Layer.weight" in last:
                found[f"layers.{number}.widen.weight"] = last.pop("LinearLayer.Layer.weight")
            number += 1
        else:
            found[f"layers.{number}.weight"] = last.pop("Basis.weight")
            outputs = last.pop("LinearLayer.weight")
        left |= {f"MainLayers.{stage}.Layers.{len(layers) - 1}.{name}": tensor for name, tensor in last.items()}
    embedding = left.pop("EmbeddingLayer.weight", None)
    if left:
        raise _wrong(path, f"{min(left)} isn't part of an R3GAN discriminator", "save the discriminator's alone")
    if len(counts) != 1:
        raise _wrong(path, f"its stages have {sorted(counts)} blocks", "give a network with as many in each")
    if conditional:
        if embedding is None:
            raise _wrong(path, "its network is told no class", "set conditional=false")
        found["embedding"] = embedding
    elif embedding is not None:
        outputs = outputs.sum(0, keepdim=True)
    found[f"layers.{number + 1}.weight"] = outputs[:, :, None, None]
    classes = 0 if embedding is None else embedding.shape[1]
    return found, Sizes(tuple(widths), tuple(cardinalities), counts.pop(), classes)


def _check_filter(kernel: Tensor | None, path: Path) -> None:
    """Check that a stored low-pass filter is the discriminator's own; a file without it is taken."""
    usual = Halving(1, 1).kernel[0, 0]
    if kernel is not None and not (kernel.shape == usual.shape and torch.allclose(kernel.float(), usual, atol=1e-3)):
        raise _wrong(path, "its Resampler.Kernel isn't [1,3,3,1] x [1,3,3,1] / 64", "give a network with that filter")


def _wrong(path: Path, wrong: str, remedy: str) -> RecordError:
    return RecordError(asked=f"discriminator_weights={path}", wrong=wrong, remedy=remedy)
