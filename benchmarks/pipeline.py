"""CPU seconds from float images to the array an extractor takes: in memory against a round trip through PNG files.

python benchmarks/pipeline.py: a JSON line for 32 and for 256 pixels, the median of several rounds, as the machine may
be busy with other work. In memory is the rounding to uint8: the extractor takes that array as it is. The bytes are the
same either way.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
from PIL import Image

from solverbench.metrics import quantise

ROUNDS = 7


def main() -> None:
    """Print a line of JSON for each size."""
    torch.set_num_threads(1)
    for size, count in ((32, 2000), (256, 100)):
        generator = torch.Generator().manual_seed(0)
        smooth = torch.nn.functional.interpolate(
            torch.randn(count, 3, 8, 8, generator=generator), size=size, mode="bilinear"
        )
        images = (smooth / 2 + 0.05 * torch.randn(count, 3, size, size, generator=generator)).clamp(-1, 1)
        batches = images.split(100)
        quantise(batches[0])
        memories, trips, same = [], [], True
        for _ in range(ROUNDS):
            begun = time.process_time()
            direct = [quantise(batch) for batch in batches]
            memories.append(time.process_time() - begun)
            with tempfile.TemporaryDirectory() as folder:
                begun = time.process_time()
                for number, image in enumerate(level for batch in direct for level in batch):
                    Image.fromarray(image.permute(1, 2, 0).numpy()).save(Path(folder) / f"{number:06d}.png")
                back = [np.array(Image.open(path).convert("RGB")) for path in sorted(Path(folder).iterdir())]
                trips.append(time.process_time() - begun)
            same &= np.array_equal(np.stack(back), torch.cat(direct).permute(0, 2, 3, 1).numpy())
        memory, files = statistics.median(memories), statistics.median(trips)
        percents = [100 * memory / files for memory, files in zip(memories, trips, strict=True)]
        line = {
            "benchmark": "pipeline", "date": datetime.now(UTC).date().isoformat(), "pixels": size, "images": count,
            "cpu_seconds": {"in_memory": memory, "png_round_trip": files}, "percent": 100 * memory / files,
            "rounds": ROUNDS, "percent_from_to": [min(percents), max(percents)],
            "same_bytes": same, "machine": f"{platform.machine()}, {os.cpu_count()} cores, torch {torch.__version__}",
        }  # fmt: skip
        print(json.dumps(line))


if __name__ == "__main__":
    main()
