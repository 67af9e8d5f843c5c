"""Makes the references for the shapes teacher's samples: moments of the data and of its own many-step samples.

python -m tools.embedded.shapes_references --out FOLDER --device cpu, where FOLDER holds the trained weights.
"""

from __future__ import annotations

import argparse
import sys
import time

import torch
from torch import Tensor

from solverbench.teachers.embedded import shapes
from solverbench.teachers.embedded.shapes import data, metric
from solverbench.teachers.embedded.streams import as_tensor

from . import commands, guided_references, references
from .commands import Say
from .references import chunks


@torch.inference_mode()
def make_all(options: argparse.Namespace, say: Say) -> None:
    """Write the reference files into options.out, and the facts measured with them into its record.

    Raises:
        MissingError, RecordError: the weights are missing, or differ from the recorded ones.
    """
    started, out, device = time.monotonic(), options.out, options.device
    extract = metric.load(out, device=device).features

    def draw(seeds: range) -> Tensor:
        return data.draw(as_tensor(seeds, device)).images

    reference = references.drawn_moments(draw, data.REFERENCE_SEEDS, 1000, extract)
    floor = [
        references.drawn_moments(draw, part, 1000, extract) for part in chunks(data.FLOOR_SEEDS, guided_references.SET)
    ]
    seeds = data.REFERENCE_SEEDS, data.FLOOR_SEEDS
    facts = references.data_facts(out, reference, floor, key="seeds", seeds=seeds, fresh="fresh data")
    say(f"references: data floor {facts['data_floor']['mean']:.4f}, {time.monotonic() - started:.0f} s")
    guided_references.make_all(options, say, shapes.kind(), shapes.load, facts, reference)


def main(arguments: list[str] | None = None) -> int:
    """Make the references of the weights in --out; return the exit code."""
    return commands.run(guided_references.parser("shapes_references", __doc__, nfe=64), arguments, make_all)


if __name__ == "__main__":
    sys.exit(main())
