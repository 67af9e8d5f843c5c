"""Coverage of the intervals of a Fréchet distance, on Gaussians whose distance is known.

python benchmarks/uncertainty.py [TRIALS]: the tables of docs/uncertainty.md, as Markdown; the last ones are the bias
that remains after extrapolation, by the number of images per feature, and intervals cut to a metric's range.
"""

from __future__ import annotations

import sys

import numpy as np

from solverbench.metrics.frechet import Gaussian, Moments, frechet
from solverbench.metrics.intervals import extrapolated, half_width, over_sets, within
from solverbench.metrics.reduction import frechets
from solverbench.metrics.vectors import manifold

CASES = [(8, 500, 1), (8, 500, 3), (32, 1000, 1), (32, 1000, 3), (64, 2000, 1), (64, 2000, 3), (64, 640, 3)]
"""Features, images of a replicate, replicates."""
SHIFT = 0.05
SCARCE = (1, 2, 3, 5, 10, 20)
"""Numbers of images per feature (64 features), in the table of the bias after extrapolation."""


def main(trials: int) -> None:
    """Print the tables."""
    means, truths = [], []
    for d, n, replicates in CASES:
        generator = np.random.default_rng([d, n, replicates])
        spread = np.linspace(0.4, 1.1, d)
        reference = Gaussian(np.zeros(d), np.eye(d))
        truth = frechet(Gaussian(np.full(d, SHIFT), np.diag(spread**2)), reference)
        found = []
        for _ in range(trials):
            draws = SHIFT + spread * generator.normal(size=(replicates, 10, n // 10, d))
            found.append(frechets([[Moments.of(block) for block in part] for part in draws], reference))
        expected = float(np.mean([values.mean() for values, _ in found]))
        jackknife = np.mean([abs(v.mean() - expected) <= half_width(left) for v, left in found])
        sets = "-"
        if replicates > 1:
            ends = [over_sets(values)[2] for values, _ in found]
            sets = f"{100 * np.mean([low <= expected <= high for low, high in ends]):.1f} %"
        case = f"| {d} | {n} | {replicates} |"
        means.append(f"{case} {expected:.4f} | {100 * jackknife:.1f} % | {sets} |")
        free = [(extrapolated(values, left)[0].mean(), half_width(left)) for values, left in found]
        covered = 100 * np.mean([abs(value - truth) <= half for value, half in free])
        plain = 100 * np.mean([abs(v.mean() - truth) <= half_width(left) for v, left in found])
        centre = np.mean([value for value, _ in free])
        truths.append(f"{case} {truth:.4f} | {expected:.4f} | {centre:.4f} | {covered:.1f} % | {plain:.1f} % |")
    print(f"{trials} trials each, {', '.join(f'{d} features' for d in sorted({case[0] for case in CASES}))}\n")
    print("| features | n | replicates | E[distance at n] | jackknife covers it | disjoint sets cover it |")
    print("|" + "---|" * 6, *means, sep="\n")
    print(
        "\n| features | n | replicates | true distance | mean at n | mean extrapolated | extrapolated covers "
        "| plain covers |"
    )
    print("|" + "---|" * 8, *truths, sep="\n")
    print("\n| images a feature | n | true distance | mean at n | mean extrapolated | off by |\n|" + "---|" * 6)
    for ratio in SCARCE:
        print(left_over(64, 64 * ratio // 10 * 10, trials))
    print(
        "\n| metric | mean | interval leaves the range | whole interval covers | cut interval covers |\n|" + "---|" * 5
    )
    print(*cut(trials), sep="\n")


def cut(trials: int) -> list[str]:
    """Return table rows: how often intervals of bounded metrics cover their mean, whole and cut to the range."""
    found: dict[str, list[tuple[float, float, tuple[float, float]]]] = {}
    for number in range(trials):
        generator = np.random.default_rng([7, number])
        data, draws = np.random.default_rng(7).normal(size=(300, 3)), generator.normal(size=(10, 10, 3))
        for spread in (0.2, 0.9):
            for name, (value, left) in manifold(list(spread * draws), data).items():
                case = f"{name}, 100 images of deviation {spread}"
                found.setdefault(case, []).append((value, half_width(left[None]), (0.0, 1.0)))
        same = generator.normal(size=(10, 4, 2))
        distance, left = frechets([[Moments.of(block) for block in same]], Gaussian(np.zeros(2), np.eye(2)))
        found.setdefault("Fréchet, same Gaussian, 40 images", []).append((distance[0], half_width(left), (0.0, np.inf)))
    rows = []
    for name, each in found.items():
        mean = float(np.mean([value for value, _, _ in each]))
        whole = [(value - half, value + half) for value, half, _ in each]
        ends = [within(*one) for one in each]
        below = [low < own[0] or high > own[1] for (low, high), (*_, own) in zip(whole, each, strict=True)]
        outside = 100 * np.mean(below)
        covers = [100 * np.mean([low <= mean <= high for low, high in some]) for some in (whole, ends)]
        rows.append(f"| {name} | {mean:.4f} | {outside:.1f} % | {covers[0]:.1f} % | {covers[1]:.1f} % |")
    return rows


def left_over(d: int, n: int, trials: int) -> str:
    """Return a table row: the mean extrapolated distance at n images of d features, against the true one."""
    generator, spread = np.random.default_rng([d, n]), np.linspace(0.4, 1.1, d)
    reference = Gaussian(np.zeros(d), np.eye(d))
    truth = frechet(Gaussian(np.full(d, SHIFT), np.diag(spread**2)), reference)
    values, free = [], []
    for _ in range(trials):
        blocks = SHIFT + spread * generator.normal(size=(10, n // 10, d))
        # As in a run: raw vectors if, with a block left out, there are fewer of them than features.
        parts = list(blocks) if n * 9 <= d * 10 else [Moments.of(block) for block in blocks]
        found, left = frechets([parts], reference)
        values.append(found[0])
        free.append(extrapolated(found, left)[0][0])
    off = np.mean(free) / truth - 1
    return f"| {n / d:.1f} | {n} | {truth:.4f} | {np.mean(values):.4f} | {np.mean(free):.4f} | {100 * off:+.1f} % |"


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 500)
