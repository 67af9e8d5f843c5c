"""CPU seconds from float images to the array an extractor takes: in memory against a round trip through PNG files.

python benchmarks/pipeline.py: a JSON line for 32 and for 256 pixels. The in-memory way only rounds to uint8; the
extractor takes that array as it is. Both ways give the same bytes.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import harness
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from solverbench.metrics.quantise import quantise

MOST = 0.02
"""Goal for the in-memory fraction of a round trip's time, at 32 pixels."""


def measure(options: harness.Options) -> Iterator[harness.Line]:
    """Yield the figures."""
    for size, count in ((32, 100),) if options.quick else ((32, 2000), (256, 100)):
        generator = torch.Generator().manual_seed(0)
        smooth = torch.nn.functional.interpolate(
            torch.randn(count, 3, 8, 8, generator=generator), size=size, mode="bilinear"
        )
        images = (smooth / 2 + 0.05 * torch.randn(count, 3, size, size, generator=generator)).clamp(-1, 1)
        yield _of(images.split(100), options.pairs)


def _of(batches: Sequence[torch.Tensor], pairs: int) -> harness.Line:
    def direct() -> list[torch.Tensor]:
        return [quantise(batch) for batch in batches]

    levels = direct()

    def trip() -> list[NDArray[np.uint8]]:
        with tempfile.TemporaryDirectory() as folder:
            for number, image in enumerate(level for batch in levels for level in batch):
                Image.fromarray(image.permute(1, 2, 0).numpy()).save(Path(folder) / f"{number:06d}.png")
            return [np.array(Image.open(path).convert("RGB")) for path in sorted(Path(folder).iterdir())]

    same = np.array_equal(np.stack(trip()), torch.cat(levels).permute(0, 2, 3, 1).numpy())
    times = harness.alternate({"in_memory": direct, "png_round_trip": trip}, pairs)
    share = harness.Ratio.of(times["in_memory"].cpu, times["png_round_trip"].cpu)
    size = batches[0].shape[-1]
    return {
        "benchmark": "pipeline", "pixels": size, "images": sum(map(len, batches)), "same_bytes": same,
        "seconds": {name: each.as_dict() for name, each in times.items()}, "share_of_round_trip": share.as_dict(),
        "goal": MOST if size == 32 else None, "verdict": share.verdict(at_most=MOST) if size == 32 else "no goal",
    }  # fmt: skip


if __name__ == "__main__":
    harness.main(measure)
