"""Coverage of the intervals of a Fréchet distance, on Gaussians whose distance is known.

python benchmarks/uncertainty.py [TRIALS] [bounded|sets|trainings|families|wins]: the tables of docs/uncertainty.md, as
Markdown. The last ones are the bias that remains after extrapolation, by the number of images per feature, the
intervals of bounded metrics, those of density, coverage, CMMD and KID, those of means over training seeds, how often
tables of equal solvers tell any two apart, and intervals of win rates; the words print one alone
(benchmarks/uncertainty.log).
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from scipy.special import ndtri, stdtrit

from solverbench.metrics.frechet import Gaussian, Moments, frechet
from solverbench.metrics.intervals import Array, extrapolated, half_width, hierarchical, over_sets, share
from solverbench.metrics.intervals import within as within_bounds
from solverbench.metrics.reduction import frechets, means
from solverbench.metrics.vectors import (
    gaussian_discrepancy,
    gaussian_within,
    kernel_blocks,
    manifold,
    neighbourhoods,
)
from solverbench.metrics.wins import compared
from solverbench.reports import paired
from solverbench.reports.bundle import tidy
from solverbench.reports.parts import Part, parts

CASES = [(8, 500, 1), (8, 500, 3), (32, 1000, 1), (32, 1000, 3), (64, 2000, 1), (64, 2000, 3), (64, 640, 3)]
"""Features, images of a replicate, replicates."""
SHIFT = 0.05
SCARCE = (1, 2, 3, 5, 10, 20)
"""Numbers of images per feature (64 features), in the table of the bias after extrapolation."""


def main(trials: int) -> None:
    """Print the tables."""
    rows, truths = [], []
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
        rows.append(f"{case} {expected:.4f} | {100 * jackknife:.1f} % | {sets} |")
        free = [(extrapolated(values, left)[0].mean(), half_width(left)) for values, left in found]
        covered = 100 * np.mean([abs(value - truth) <= half for value, half in free])
        plain = 100 * np.mean([abs(v.mean() - truth) <= half_width(left) for v, left in found])
        centre = np.mean([value for value, _ in free])
        truths.append(f"{case} {truth:.4f} | {expected:.4f} | {centre:.4f} | {covered:.1f} % | {plain:.1f} % |")
    print(f"{trials} trials each, {', '.join(f'{d} features' for d in sorted({case[0] for case in CASES}))}\n")
    print("| features | n | replicates | E[distance at n] | jackknife covers it | disjoint sets cover it |")
    print("|" + "---|" * 6, *rows, sep="\n")
    print(
        "\n| features | n | replicates | true distance | mean at n | mean extrapolated | extrapolated covers "
        "| plain covers |"
    )
    print("|" + "---|" * 8, *truths, sep="\n")
    print("\n| images a feature | n | true distance | mean at n | mean extrapolated | off by |\n|" + "---|" * 6)
    for ratio in SCARCE:
        print(left_over(64, 64 * ratio // 10 * 10, trials))
    bounded(trials)
    sets(trials)
    trainings(trials)
    families(trials)
    wins(trials)


def bounded(trials: int) -> None:
    """Print the table of bounded metrics."""
    print(
        f"\n{trials} trials each\n\n| metric | mean | Student's leaves the range | cut, covers | share, covers "
        "| mean width, cut | share |\n|" + "---|" * 7
    )
    print(*cut(trials), sep="\n")


SETS = [(n, replicates) for n in (100, 1000) for replicates in (1, 3)]
"""Images of a replicate, replicates."""


def sets(trials: int) -> None:
    """Print the table of density, coverage, CMMD and KID."""
    print(f"\n{trials} trials each\n\n| metric | images | deviation | mean | covers | mean width |\n|" + "---|" * 6)
    data = np.random.default_rng(10).normal(size=(300, 3))
    on_sphere = np.random.default_rng(10).normal(size=(300, 16)) + 1
    on_sphere /= np.linalg.norm(on_sphere, axis=1, keepdims=True)
    within = gaussian_within(on_sphere)
    for n, replicates in SETS:
        for spread in (0.5, 0.9):
            found: dict[str, list[tuple[Array, Array]]] = {name: [] for name in ("density", "coverage", "CMMD", "KID")}
            for number in range(trials):
                generator = np.random.default_rng([10, n, replicates, number])
                flat = spread * generator.normal(size=(replicates, 10, n // 10, 3))
                round_ = spread * generator.normal(size=(replicates, 10, n // 10, 16)) + 1
                round_ /= np.linalg.norm(round_, axis=3, keepdims=True)
                near = [neighbourhoods(list(blocks), data) for blocks in flat]
                for name in ("density", "coverage"):
                    found[name].append(_joined([each[name] for each in near]))
                found["CMMD"].append(_joined([gaussian_discrepancy(list(part), on_sphere, within) for part in round_]))
                found["KID"].append(means(np.stack([kernel_blocks(list(part), on_sphere) for part in round_])))
            for name, each in found.items():
                mean = float(np.mean([values.mean() for values, _ in each]))
                ends = [_ends(name, values, left, n) for values, left in each]
                covers = 100 * np.mean([low <= mean <= high for low, high in ends])
                width = np.mean([high - low for low, high in ends])
                print(
                    f"| {name} | {n} x {replicates} | {spread} | {mean:.4g} | {covers:.1f} % | {width:.3g} |",
                    flush=True,
                )


def _joined(each: Sequence[tuple[float, Array]]) -> tuple[Array, Array]:
    return np.array([value for value, _ in each]), np.stack([left for _, left in each])


def _ends(name: str, values: Array, left: Array, n: int) -> tuple[float, float]:
    """Return the ends of the interval that a run shows for a metric."""
    value = float(values.mean())
    if name == "coverage":
        return share(value, left, n * len(values))
    return within_bounds(value, half_width(left), (0.0, np.inf) if name == "density" else (-np.inf, np.inf))


SEEDS = [(number, spread) for number in (2, 3, 5) for spread in (0.0, 0.3, 1.0, 3.0)]
"""Training seeds, and their deviation in units of the standard error that 1000 images have."""


def trainings(trials: int) -> None:
    """Print the table of means over training seeds: how often the interval of a difference covers its truth."""
    print(
        f"\n{trials} trials each\n\n| training seeds each | deviation between trainings | hierarchical covers "
        "| images alone | Student's over seeds, paired |\n|" + "---|" * 5
    )
    for number, spread in SEEDS:
        print(_of_trainings(number, spread, trials))


def _of_trainings(number: int, spread: float, trials: int) -> str:
    """Return a table row: two solvers, `number` trainings each, 1000 images, of which each has its own difficulty.

    An image's error is its difficulty, plus its training's offset, plus a tenth of the difficulty that each training
    meets in its own way. Both solvers have the same mean.
    """
    n, groups = 1000, 10
    hits = np.zeros(3)
    for trial in range(trials):
        generator = np.random.default_rng([9, number, int(10 * spread), trial])
        shared = generator.normal(size=n)
        offsets = spread / n**0.5 * generator.normal(size=(2, number, 1))
        errors = shared + offsets + 0.1 * generator.normal(size=(2, number, n))
        blocks = errors.reshape(2, number, groups, n // groups).mean(3)
        left = (blocks.sum(2, keepdims=True) - blocks) / (groups - 1)  # [2, K, G]
        values = errors.mean(2)
        apart = (left[0].mean(0) - left[1].mean(0))[None]
        difference = values[0].mean() - values[1].mean()
        by_seed, gaps = values[0] - values[1], number - 1
        halves = (
            hierarchical(apart, [values[0], values[1]])[1],
            half_width(apart),
            stdtrit(gaps, 0.975) * by_seed.std(ddof=1) / number**0.5,
        )
        hits += [abs(difference) <= half for half in halves]
    told = " | ".join(f"{100 * hit / trials:.1f} %" for hit in hits)
    return f"| {number} | {spread:g} standard errors of the images | {told} |"


PROMPTS = [(8, 8), (20, 1), (20, 5), (64, 1), (64, 10), (200, 5)]
"""Numbers of prompts, and of seeds of each."""


def wins(trials: int) -> None:
    """Print the table of win rates: how often their intervals cover the rate over all prompts of the kind."""
    print(
        f"\n{trials} trials each\n\n| prompts x seeds | wins without ties | ties | share of the prompt | covers "
        "| each image alone | mean width |\n|" + "---|" * 7
    )
    for (prompts, number), won in ((each, won) for each in PROMPTS for won in (0.5, 0.7, 0.95)):
        for owned, ties in ((0.0, 0.0), (0.5, 0.0), (0.5, 0.3)):
            print(_of_wins(prompts, number, won, owned, ties, trials), flush=True)


def _of_wins(prompts: int, number: int, won: float, owned: float, ties: float, trials: int) -> str:
    """Return a table row.

    Args:
        won: probability of a win where there is no tie.
        owned: share of the variance of a difference of scores that all images of a prompt have in common.
        ties: probability of a tie.
    """
    truth, shape = (1 - ties) * won + ties / 2, (prompts, number)
    hits, widths = np.zeros(2), []
    for trial in range(trials):
        generator = np.random.default_rng([11, prompts, number, int(100 * won), int(10 * owned), int(10 * ties), trial])
        apart = ndtri(won) + owned**0.5 * generator.normal(size=(prompts, 1))
        apart = apart + (1 - owned) ** 0.5 * generator.normal(size=shape)
        apart = np.where(generator.random(shape) < ties, 0.0, apart).ravel()
        clusters = np.repeat(np.arange(prompts), number), np.arange(apart.size)
        found = [compared(apart, np.zeros(apart.size), each) for each in clusters]
        hits += [each.low <= truth <= each.high for each in found]
        widths.append(found[0].high - found[0].low)
    told = " | ".join(f"{100 * hit / trials:.1f} %" for hit in hits)
    return f"| {prompts} x {number} | {won:g} | {ties:g} | {owned:g} | {told} | {np.mean(widths):.3f} |"


FAMILIES = [(2, 1, 3), (5, 1, 3), (10, 1, 3), (30, 1, 3), (10, 8, 3), (10, 8, 1)]
"""Equal solvers, budgets, replicates."""


def families(trials: int) -> None:
    """Print the table of families: how often a report tells any of some equal solvers from another one."""
    print(
        f"\n{trials} trials each\n\n| solvers | budgets | replicates | corrected for | who is ahead, intervals alone "
        "| corrected | differences from a baseline, intervals alone | corrected |\n|" + "---|" * 8
    )
    for solvers, budgets, replicates in FAMILIES:
        hits, pairs = np.zeros(4), 0
        part = equal_solvers(solvers, budgets, replicates)
        for trial in range(trials):
            generator = np.random.default_rng([11, solvers, budgets, replicates, trial])
            cells = drawn(part, generator, replicates)
            found = paired.standings([part], cells)
            best = [each.found for own in found.found[0].values() for each in own.comparisons]
            beside = list(paired.against(part, "s0", cells).values())
            pairs = found.pairs
            hits += [
                any(flags) for flags in (map(_apart, best), map(_sign, best), map(_apart, beside), map(_sign, beside))
            ]
        told = " | ".join(f"{100 * hit / trials:.1f} %" for hit in hits)
        print(f"| {solvers} | {budgets} | {replicates} | {pairs} | {told} |", flush=True)


def _apart(found: paired.Difference) -> bool:
    return found.low > 0 or found.high < 0


def _sign(found: paired.Difference) -> bool:
    return found.sign != 0


def equal_solvers(solvers: int, budgets: int, replicates: int) -> Part:
    """Return the part of a report with solvers s0, s1, ... at budgets 1, 2, ...; `drawn` gives it values."""
    rows = [
        {"teacher": "t", "solver": f"s{i}", "spec": f"s{i}", "nfe": nfe + 1, "metric": "m", "value": 1.0, "low": 0.9,
         "high": 1.1, "std_error": 0.05, "n": 1000, "replicates": replicates, "seeds": "0-999", "reference": "data",
         "extractor": "", "quantiser": "", "status": "done", "reason": "", "cell": f"{i}-{nfe}", "net_passes": 1,
         "learned": False, "metric_loss": False, "inferred": ""}
        for i in range(solvers)
        for nfe in range(budgets)
    ]  # fmt: skip
    return parts(tidy(pd.DataFrame(rows)), {})[0]


def drawn(part: Part, generator: np.random.Generator, replicates: int, groups: int = 10) -> dict[str, Any]:
    """Give the rows of a part values with one true mean, from blocks of images, and return their cells."""
    shared = generator.normal(size=(replicates, groups))
    blocks = 1 + 0.1 * (shared + generator.normal(size=(len(part.frame), replicates, groups)))
    left = (blocks.sum(2, keepdims=True) - blocks) / (groups - 1)
    part.frame["value"] = blocks.mean((1, 2))
    return {
        cell: {"measures": {"m": {"over": "o", "replicates": own.mean(1).tolist(), "leave_one_out": out.tolist()}}}
        for cell, own, out in zip(part.frame["cell"], blocks, left, strict=True)
    }


SHARES = [(n, replicates, spread) for n in (100, 1000) for replicates in (1, 3) for spread in (0.2, 0.9)]
"""Images of a replicate, replicates, deviation of the images beside data of deviation 1."""


def cut(trials: int) -> list[str]:
    """Return table rows: how often intervals of bounded metrics cover their mean, cut to the range and as shares."""
    rows = []
    data = np.random.default_rng(7).normal(size=(300, 3))
    for n, replicates, spread in SHARES:
        found: dict[str, list[tuple[Array, Array]]] = {"precision": [], "recall": []}
        for number in range(trials):
            generator = np.random.default_rng([7, n, replicates, number])
            sets = spread * generator.normal(size=(replicates, 10, n // 10, 3))
            made = [manifold(list(blocks), data) for blocks in sets]
            for name in found:
                values, left = zip(*(each[name] for each in made), strict=True)
                found[name].append((np.array(values), np.array(left)))
        for name, each in found.items():
            shares = [share(values.mean(), left, n * replicates) for values, left in each]
            case = f"{name}, {n} images x {replicates} of deviation {spread}"
            rows.append(_row(case, each, (0.0, 1.0), shares))
    distances = []
    for number in range(trials):
        same = np.random.default_rng([8, number]).normal(size=(10, 4, 2))
        distances.append(frechets([[Moments.of(block) for block in same]], Gaussian(np.zeros(2), np.eye(2))))
    return [*rows, _row("Fréchet, same Gaussian, 40 images", distances, (0.0, np.inf), None)]


def _row(
    case: str,
    each: Sequence[tuple[Array, Array]],
    bounds: tuple[float, float],
    shares: Sequence[tuple[float, float]] | None,
) -> str:
    mean = float(np.mean([values.mean() for values, _ in each]))
    centres = [(float(values.mean()), half_width(left)) for values, left in each]
    ends = [within_bounds(value, half, bounds) for value, half in centres]
    outside = 100 * np.mean([v - half < bounds[0] or v + half > bounds[1] for v, half in centres])
    texts = []
    for some in (ends, shares):
        covers = "-" if some is None else f"{100 * np.mean([low <= mean <= high for low, high in some]):.1f} %"
        texts.append((covers, "-" if some is None else f"{np.mean([high - low for low, high in some]):.4f}"))
    (first, wide), (second, other) = texts
    return f"| {case} | {mean:.4f} | {outside:.1f} % | {first} | {second} | {wide} | {other} |"


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
    given = sys.argv[1:]
    count = int(next((each for each in given if each.isdigit()), 500))
    one = next((each for each in (bounded, sets, trainings, families, wins) if each.__name__ in given), main)
    one(count)
