"""CPU seconds of the Fréchet distance at 2048 features: a general matrix root against symmetric eigenvalues.

python benchmarks/frechet.py: one JSON line. Ratios of CPU time within one run; both give the same value.
"""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
from scipy import linalg

from solverbench.metrics import Moments, Rows, frechet

D, N, FEW = 2048, 6000, 1000


def by_root(a: Moments, b: Moments) -> float:
    """Return the distance as clean-fid and the papers' scripts evaluate it."""
    root = linalg.sqrtm(a.cov @ b.cov)
    return float(((a.mean - b.mean) ** 2).sum() + np.trace(a.cov) + np.trace(b.cov) - 2 * np.trace(root.real))


def spent(call: Callable[[], Any]) -> tuple[Any, float]:
    """Return what `call` returns, and its CPU seconds."""
    begun = time.process_time()
    value = call()
    return value, time.process_time() - begun


def main() -> None:
    """Print one line of JSON."""
    generator = np.random.default_rng(0)
    mix = generator.normal(size=(D, D)) / D**0.5
    rows = [np.maximum(generator.normal(size=(N, D)) @ mix + shift, 0) for shift in (0.0, 0.1)]
    a, b = map(Moments.of, rows)
    _ = a.cov, b.cov
    general, general_seconds = spent(lambda: by_root(a, b))
    _, root_seconds = spent(lambda: b.root)
    symmetric, symmetric_seconds = spent(lambda: frechet(a, b))
    few, few_seconds = spent(lambda: frechet(Rows(rows[0][:FEW]), b))
    line = {
        "benchmark": "frechet", "date": datetime.now(UTC).date().isoformat(), "features": D, "n": N, "threads": 1,
        "cpu_seconds": {"sqrtm": general_seconds, "eigenvalues": symmetric_seconds, "reference_root_once": root_seconds,
                        f"singular_values_n={FEW}": few_seconds},
        "ratio": general_seconds / symmetric_seconds,
        "ratio_with_root": general_seconds / (symmetric_seconds + root_seconds),
        "values": {"sqrtm": general, "eigenvalues": symmetric, "relative_difference": abs(general / symmetric - 1)},
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, numpy {np.__version__}", "few": few,
    }  # fmt: skip
    print(json.dumps(line))


if __name__ == "__main__":
    main()
