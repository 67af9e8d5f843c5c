"""Win rates: the share of images at which one solver scores above another, with an interval clustered by prompt."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from solverbench.metrics.intervals import Array, p_value, quantile


@dataclass(frozen=True)
class Wins:
    """The comparison of solver a with solver b, image by image, each pair from the same seed and prompt.

    Args:
        wins, ties, losses: images at which a scores above, as, and below b; means over trainings, if there are several.
        rate: share of wins, ties counted half, 0 to 1.
        low, high: its 95 % interval.
        p: p of the two-sided test that it is 1/2; at most .05 exactly where the interval excludes 1/2.
        difference: mean of a's score minus b's.
        difference_low, difference_high: its 95 % interval.
        prompts: number of different prompts.
        images: number of images of each.
    """

    wins: float
    ties: float
    losses: float
    rate: float
    low: float
    high: float
    p: float
    difference: float
    difference_low: float
    difference_high: float
    prompts: int
    images: int


def compared(a: Array, b: Array, prompts: Sequence[int] | NDArray[np.int64], *, higher: bool = True) -> Wins:
    """Return how often a scores above b.

    The interval treats the prompts as drawn from a larger set, so that it says how the rate would be with other prompts
    of the kind, too: images of one prompt are one cluster, and the rate is a ratio of sums over clusters. Where
    trainings of a solver are several rows, the variance between them, divided by their number, is added.

    Args:
        a, b: scores, [n], or [K, n] for K trainings of a solver.
        prompts: number of each image's prompt, [n]; if all are equal, each image is its own cluster.
        higher: whether higher scores are better.
    """
    a, b = np.atleast_2d(np.asarray(a, dtype=np.float64)), np.atleast_2d(np.asarray(b, dtype=np.float64))
    apart = (a[:, None] - b[None]) * (1 if higher else -1)  # [K, L, n]
    above, level = (apart > 0).mean((0, 1)), (apart == 0).mean((0, 1))
    won = above + level / 2
    whole, clusters = np.unique(np.asarray(prompts), return_inverse=True)
    if len(whole) < 2:
        clusters = np.arange(len(won))
    rates = (apart > 0).mean(2) + (apart == 0).mean(2) / 2
    gaps = apart.mean(2) * (1 if higher else -1)
    rate, difference = float(won.mean()), float(gaps.mean())
    each = apart.mean((0, 1)) * (1 if higher else -1)
    low, high, p = _wilson(rate, *_spread(won, clusters, rates), int(clusters.max()) + 1)
    variance, freedom = _spread(each, clusters, gaps)
    half = quantile(freedom, 0.95) * variance**0.5 if variance > 0 else 0.0
    wins, ties = float(above.sum()), float(level.sum())
    return Wins(
        wins, ties, len(won) - wins - ties, rate, low, high, p, difference, difference - half, difference + half,
        len(whole), len(won),
    )  # fmt: skip


def _spread(values: Array, clusters: NDArray[np.int64], trainings: Array) -> tuple[float, float]:
    """Return the variance of the mean of `values` [n] and its degrees of freedom.

    Args:
        clusters: cluster of each value, [n], numbered from 0.
        trainings: mean of each pair of trainings, [K, L].

    Source: the linearised variance of a ratio of cluster totals, as in Cochran 1977, Sampling Techniques, section 9A;
        Satterthwaite 1946 for the degrees of freedom of a sum.
    """
    sizes = np.bincount(clusters)
    left = np.bincount(clusters, weights=values) - sizes * values.mean()
    count = len(sizes)
    if count < 2:
        return 0.0, 1.0
    parts = [(float((left**2).sum()) * count / (count - 1) / len(values) ** 2, count - 1)]
    for axis in (0, 1):
        number = trainings.shape[axis]
        if number > 1:
            parts.append((float(trainings.mean(1 - axis).var(ddof=1)) / number, number - 1))
    variance, squares = sum(part for part, _ in parts), sum(part**2 / freedom for part, freedom in parts)
    return variance, variance**2 / squares if squares > 0 else float(count - 1)


def _wilson(rate: float, variance: float, freedom: float, clusters: int) -> tuple[float, float, float]:
    """Return Wilson's interval of a share at its effective number of images, and p of the test that it is 1/2.

    That number is p (1 - p) over the variance, times the squared ratio of the normal quantile to Student's. Without
    variance, as for a rate of exactly 0 or 1, it is the number of clusters.

    Source: Wilson 1927, JASA 22, 209-212; Korn & Graubard 1998, Survey Methodology 24(2), for the effective number.
    """
    normal = quantile(np.inf, 0.95)
    images, ratio = float(clusters), 1.0
    if 0 < rate < 1 and variance > 0:
        images, ratio = rate * (1 - rate) / variance, normal / quantile(freedom, 0.95)
    else:
        freedom = np.inf
    square = normal**2 / (images * ratio**2)
    centre = (rate + square / 2) / (1 + square)
    half = (square * rate * (1 - rate) + square**2 / 4) ** 0.5 / (1 + square)
    return max(centre - half, 0.0), min(centre + half, 1.0), p_value(rate - 0.5, 0.5 / images**0.5, freedom)
