"""The gain of a teacher's options channels_last and compile on this CPU, and the calls until compiling pays off.

python benchmarks/formats.py: JSON lines. The network is EDM's for 32x32 images, reduced to 6 million parameters, with
random weights. Compile time is that of the first call, with an empty cache; a cell's time includes it.
"""

from __future__ import annotations

import copy
import os
import statistics
import tempfile
import time
from collections.abc import Iterator
from functools import partial
from unittest import mock

import gpu
import harness
import torch

from solverbench.teachers.arithmetic import Arithmetic
from solverbench.teachers.families.edm_networks import Preconditioned

SMALL = gpu.EDM | {"model_channels": 64, "num_blocks": 1}
IMAGES = 16


@torch.no_grad()
def measure(options: harness.Options) -> Iterator[harness.Line]:
    """Yield the figures."""
    torch.manual_seed(0)
    network = Preconditioned("EDMPrecond", gpu.TINY if options.quick else SMALL)
    parameters = sum(each.numel() for each in network.parameters())
    for parameter in network.parameters():
        parameter.normal_(std=0.05)
    images = 4 if options.quick else IMAGES
    x, sigma = torch.randn(images, *network.shape), torch.tensor(1.0, dtype=torch.float64)
    plain = network.eval()(x, sigma)
    for choice in (
        Arithmetic(channels_last=True),
        Arithmetic(compile=True),
        Arithmetic(channels_last=True, compile=True),
    ):
        other = choice.prepare(copy.deepcopy(network), "cpu")
        given = choice.cast(x)
        with tempfile.TemporaryDirectory() as place, mock.patch.dict(os.environ, TORCHINDUCTOR_CACHE_DIR=place):
            begun = time.perf_counter()
            found = other(given, sigma)
            first = time.perf_counter() - begun
        ways = {"plain": partial(network, x, sigma), "other": partial(other, given, sigma)}
        times = harness.alternate(ways, options.pairs)
        plain_wall, other_wall = (statistics.median(times[way].wall) for way in ways)
        extra, gain = first - other_wall, plain_wall - other_wall
        yield {
            "benchmark": "formats", "case": choice.label, "parameters": parameters, "images": images,
            "forward_over_plain": harness.Ratio.of(times["other"].cpu, times["plain"].cpu).as_dict(),
            "first_call_seconds": first, "calls_until_paid": extra / gain if gain > 0 else None,
            "changed_by": float((found - plain).abs().max() / plain.abs().max()), "verdict": "no goal",
        }  # fmt: skip


if __name__ == "__main__":
    harness.main(measure)
