"""Reports the quality of the fashion networks: accuracies, classes of guided samples, nearest neighbours, a picture.

python -m tools.embedded.fashion_quality --data FOLDER [--folder FOLDER] [--picture FILE]: Markdown, in a few minutes.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from solverbench.teachers.embedded import artifacts as weights
from solverbench.teachers.embedded.fashion import images, kind, loss, metric
from solverbench.teachers.embedded.judging import reference

from . import commands, fashion_images, guided_quality, training
from .commands import Say

ACROSS = 8
"""Images of a class in the picture."""
PART = 500


def nearest(these: Tensor, those: Tensor) -> Tensor:
    """Return the RMSE of each of `these` [n, ...] to the nearest of `those` [m, ...], [n] float32."""
    rest = those.flatten(1)
    found = [torch.cdist(part.flatten(1), rest).amin(1) for part in these.split(PART)]
    return torch.cat(found) / rest.shape[1] ** 0.5


def neighbours(folder: Path, seen: Tensor, unseen: Tensor, count: int, device: str) -> Iterator[str]:
    """Yield a table of distances to the nearest image for training: of samples, and of held-out images.

    A teacher that had memorised images would have samples that are nearer to them than held-out ones are.
    """
    yield f"\n| RMSE to the nearest image for training, n = {count} | 1 % | 10 % | median |"
    yield "|---|---|---|---|"
    samples = torch.cat(list(guided_quality.samples(kind(), folder, 1.0, guided_quality.SEEDS[:count], device)))
    for name, these in (("held-out images", unseen[:count]), ("samples at guidance 1", samples)):
        found = nearest(these, seen).quantile(torch.tensor([0.01, 0.1, 0.5])).tolist()
        yield f"| {name} | {' | '.join(f'{value:.4f}' for value in found)} |"


@torch.inference_mode()
def lines(options: argparse.Namespace) -> Iterator[str]:
    """Yield the report's lines as they are measured."""
    folder, device = options.folder, options.device
    seen, unseen = (fashion_images.read(options.data, held_out=held, device=device) for held in (False, True))
    network = metric.load(folder, device=device)
    for name, found in (("metric", network), ("loss", loss.load(folder, device=device))):
        known = training.accuracy(lambda x, found=found: training.scores(found, x), unseen.images, unseen.labels)
        yield f"The {name} network's share of right classes of the held-out images: {known:.4f}"
    moments = reference(folder, weights.read_record(folder)["references"]["data"], "images", "fashion data").moments
    yield from guided_quality.table(kind(), folder, options.guidance, options.samples, moments, device)
    yield from neighbours(folder, seen.images, unseen.images, min(options.samples, 2000), device)


def report(options: argparse.Namespace, say: Say) -> None:
    """Print the tables, or draw the picture."""
    if options.picture:
        unseen = fashion_images.read(options.data, held_out=True)
        real = torch.stack([unseen.images[unseen.labels == label][:ACROSS] for label in range(images.CLASSES)])
        guided_quality.picture(kind(), options.folder, real, [1.0, 2.0], options.device, options.picture, enlarged=1)
        return
    for line in lines(options):
        say(line)


def main(arguments: list[str] | None = None) -> int:
    """Print the report; return the exit code."""
    parser = commands.parser("fashion_quality", __doc__)
    parser.add_argument("--data", type=Path, default=fashion_images.USUAL, help="folder of Fashion-MNIST's files")
    parser.add_argument("--folder", type=Path, default=images.FOLDER, help="of the weights and references")
    parser.add_argument("--guidance", type=float, nargs="*", default=(0.0, 1.0, 1.5, 2.0, 3.0))
    parser.add_argument("--samples", type=int, default=2000, help="for each guidance")
    parser.add_argument("--picture", type=Path, metavar="FILE.png", help="data and samples side by side, and no tables")
    return commands.run(parser, arguments, report)


if __name__ == "__main__":
    sys.exit(main())
