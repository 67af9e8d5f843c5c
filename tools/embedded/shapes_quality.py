"""Reports the quality of the shapes networks: accuracies, the ranking of corruptions, classes of guided samples.

python -m tools.embedded.shapes_quality [--guidance 0 1 2 4] [--picture FILE]: Markdown tables, in a few minutes.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d

from solverbench.metrics.frechet import Statistics, frechet
from solverbench.metrics.quantise import quantise
from solverbench.teachers.embedded import artifacts as weights
from solverbench.teachers.embedded.judging import reference
from solverbench.teachers.embedded.shapes import data, kind, loss, metric
from solverbench.teachers.embedded.shapes.metric import MetricNet

from . import commands, guided_quality, training
from .commands import Say
from .references import moments_of

SET = 5000
"""Number of data images that are corrupted."""
ACROSS = 10
"""Images of a class in the picture."""


def noisy(x: Tensor, strength: float) -> Tensor:
    """Return the images plus fixed noise with this standard deviation."""
    return x + strength * torch.randn(x.shape, generator=torch.Generator().manual_seed(0))


def blurred(x: Tensor, strength: float) -> Tensor:
    """Return the images, interpolated by this fraction towards their 3x3 means."""
    return torch.lerp(x, avg_pool2d(x, 3, 1, 1, count_include_pad=False), strength)


def miscoloured(x: Tensor, strength: float) -> Tensor:
    """Return the images, interpolated by this fraction towards red as green, green as blue, blue as red."""
    return torch.lerp(x, x.roll(1, 1), strength)


def swapped(x: Tensor, strength: float) -> Tensor:
    """Return the images; this fraction of them has the right half of another image."""
    count = round(strength * len(x))
    mixed = torch.cat((x[..., : data.SIDE // 2], x.roll(1, 0)[..., data.SIDE // 2 :]), -1)
    return torch.cat((mixed[:count], x[count:]))


CORRUPTIONS: Mapping[str, tuple[Callable[[Tensor, float], Tensor], tuple[float, ...]]] = {
    "noise": (noisy, (0.0, 0.1, 0.2, 0.4)),
    "blur": (blurred, (0.0, 0.1, 0.2, 0.4, 0.8)),
    "wrong colours": (miscoloured, (0.0, 0.05, 0.1, 0.2, 0.4)),
    "halves swapped": (swapped, (0.0, 0.1, 0.2, 0.4)),
}
"""Corruptions of data images, with their strengths: the distance must rise from each strength to the next."""


def ranking(extract: Callable[[Tensor], Tensor], reference: Statistics, images: Tensor) -> dict[str, list[float]]:
    """Return, for each corruption, the distance of the corrupted `images` to `reference` at each strength."""
    return {
        name: [frechet(moments_of(torch.split(corrupt(images, s), 1000), extract), reference) for s in strengths]
        for name, (corrupt, strengths) in CORRUPTIONS.items()
    }


@torch.inference_mode()
def attributes(network: MetricNet, drawn: data.Drawn) -> dict[str, float]:
    """Return the fractions of classes, shapes and backgrounds that the network gets right, and the R^2 of the rest."""
    features = torch.cat([network.features(quantise(part)) for part in torch.split(drawn.images, 1000)])
    classes, grounds = network.classes(features).argmax(1), network.grounds(features).argmax(1)
    told = network.attributes(features).double()
    missed = (told - drawn.attributes).square().mean(0) / drawn.attributes.var(0)
    names = ("x", "y", "size", "tilt", *(f"{what} {c}" for what in ("shape", "background") for c in ("r", "g", "b")))
    return {
        "class": (classes == drawn.labels).double().mean().item(),
        "shape": (classes // len(data.TEXTURES) == drawn.kinds).double().mean().item(),
        "background": (grounds == drawn.grounds).double().mean().item(),
        **{f"R² of {name}": 1 - value for name, value in zip(names, missed.tolist(), strict=True)},
    }


def lines(folder: Path, device: str, guidance: Sequence[float], count: int) -> Iterator[str]:
    """Yield the report's lines as they are measured."""
    record = weights.read_record(folder)["references"]
    data_moments = reference(folder, record["data"], "seeds", "shapes data").moments
    drawn = data.draw(data.VALIDATION_SEEDS[:20_000])
    network = metric.load(folder)
    yield "| known of held-out images | metric network |"
    yield "|---|---|"
    yield from (f"| {name} | {value:.4f} |" for name, value in attributes(network, drawn).items())
    known = training.accuracy(loss.load(folder).logits, drawn.images, drawn.labels)
    yield f"\nThe loss network's classes on the same images: {known:.4f}\n"
    yield f"| corruption of {SET} images | strength | Fréchet distance to the data |"
    yield "|---|---|---|"
    for name, found in ranking(network.features, data_moments, drawn.images[:SET]).items():
        strengths = ", ".join(f"{s:g}" for s in CORRUPTIONS[name][1])
        yield f"| {name} | {strengths} | {', '.join(f'{value:.3g}' for value in found)} |"
    yield from guided_quality.table(kind(), folder, guidance, count, data_moments, device)


def report(options: argparse.Namespace, say: Say) -> None:
    """Print the tables, or draw the picture."""
    if options.picture:
        drawn = data.draw(data.VALIDATION_SEEDS[:2000])
        real = torch.stack([drawn.images[drawn.labels == label][:ACROSS] for label in range(data.CLASSES)])
        guided_quality.picture(kind(), options.folder, real, [1.0], options.device, options.picture, enlarged=4)
        return
    for line in lines(options.folder, options.device, options.guidance, options.samples):
        say(line)


def main(arguments: list[str] | None = None) -> int:
    """Print the report; return the exit code."""
    parser = commands.parser("shapes_quality", __doc__)
    parser.add_argument("--folder", type=Path, default=data.FOLDER, help="of the weights and references")
    parser.add_argument("--guidance", type=float, nargs="*", default=(0.0, 1.0, 1.5, 2.0, 4.0))
    parser.add_argument("--samples", type=int, default=2000, help="for each guidance")
    parser.add_argument("--picture", type=Path, metavar="FILE.png", help="data and samples side by side, and no tables")
    return commands.run(parser, arguments, report)


if __name__ == "__main__":
    sys.exit(main())
