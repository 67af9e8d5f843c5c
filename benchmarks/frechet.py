"""CPU seconds of the Fréchet distance at 2048 features: a general matrix root against symmetric eigenvalues.

python benchmarks/frechet.py [--pairs 7]: one JSON line, in some minutes. Ratios of CPU time within one run; both give
the same value.
"""

from __future__ import annotations

from collections.abc import Iterator

import harness
import numpy as np
from scipy import linalg

from solverbench.metrics.frechet import Moments, Rows, frechet

D, N, FEW = 2048, 6000, 1000
GOAL = 5.0


def by_root(a: Moments, b: Moments) -> float:
    """Return the distance as clean-fid and the papers' scripts compute it."""
    root = linalg.sqrtm(a.cov @ b.cov)
    return float(((a.mean - b.mean) ** 2).sum() + np.trace(a.cov) + np.trace(b.cov) - 2 * np.trace(root.real))


def measure(options: harness.Options) -> Iterator[harness.Line]:
    """Yield the figures."""
    d, n, few = (128, 400, 100) if options.quick else (D, N, FEW)
    generator = np.random.default_rng(0)
    mix = generator.normal(size=(d, d)) / d**0.5
    rows = [np.maximum(generator.normal(size=(n, d)) @ mix + shift, 0) for shift in (0.0, 0.1)]
    a, b = map(Moments.of, rows)
    general, symmetric = by_root(a, b), frechet(a, b)
    ways = {
        "sqrtm": lambda: by_root(a, b),
        "eigenvalues": lambda: frechet(a, b),
        "with_root": lambda: frechet(a, Moments.of(rows[1])),
        f"singular_values_n={few}": lambda: frechet(Rows(rows[0][:few]), b),
    }
    times = harness.alternate(ways, options.pairs)
    ratio = harness.Ratio.of(times["sqrtm"].cpu, times["eigenvalues"].cpu)
    yield {
        "benchmark": "frechet", "features": d, "n": n,
        "seconds": {name: each.as_dict() for name, each in times.items()},
        "ratio": ratio.as_dict(), "goal": GOAL, "verdict": ratio.verdict(at_least=GOAL),
        "ratio_with_moments_and_root": harness.Ratio.of(times["sqrtm"].cpu, times["with_root"].cpu).as_dict(),
        "values": {"sqrtm": general, "eigenvalues": symmetric, "relative_difference": abs(general / symmetric - 1)},
    }  # fmt: skip


if __name__ == "__main__":
    harness.main(measure)
