"""Makes the references for the fashion teacher's samples: moments of Fashion-MNIST and of its own many-step samples.

python -m tools.embedded.fashion_references --data FOLDER --out FOLDER, where --out holds the trained weights.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import torch

from solverbench.metrics.frechet import frechet
from solverbench.teachers.embedded import fashion
from solverbench.teachers.embedded.fashion import metric

from . import commands, fashion_images, guided_references, references
from .commands import Say
from .references import Extract, moments_of

PART = 1000


@torch.inference_mode()
def make_all(options: argparse.Namespace, say: Say) -> None:
    """Write the reference files into options.out, and the facts measured with them into its record.

    The reference of the data are the images for training; the floor is that of the held-out ones.

    Raises:
        MissingError, RecordError: weights or data are missing, or differ from the recorded ones.
    """
    started = time.monotonic()
    extract: Extract = metric.load(options.out, device=options.device).features
    seen, unseen = (
        fashion_images.read(options.data, held_out=held, device=options.device).images for held in (False, True)
    )
    reference = moments_of(torch.split(seen, PART), extract)
    floor = [moments_of(torch.split(part, PART), extract) for part in torch.split(unseen, guided_references.SET)]
    chosen = range(len(seen)), range(len(unseen))
    facts = references.data_facts(
        options.out, reference, floor, key="images", seeds=chosen, fresh="held-out images, by their index,"
    )
    facts["data_floor"]["all"] = round(frechet(references.total_of(floor), reference), 6)
    say(f"references: data floor {facts['data_floor']['mean']:.4f}, {time.monotonic() - started:.0f} s")
    guided_references.make_all(options, say, fashion.kind(), fashion.load, facts, reference)


def main(arguments: list[str] | None = None) -> int:
    """Make the references of the weights in --out; return the exit code."""
    options = guided_references.parser("fashion_references", __doc__, nfe=40)
    options.add_argument("--data", type=Path, default=fashion_images.USUAL, help="folder of Fashion-MNIST's files")
    return commands.run(options, arguments, make_all)


if __name__ == "__main__":
    sys.exit(main())
