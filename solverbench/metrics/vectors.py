"""Metrics of feature vectors other than the Fréchet distance.

KID, CMMD, precision and recall, density and coverage, and the Inception score.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from solverbench.errors import FeatureError

Array = NDArray[np.float64]

SUBSET = 1000
"""Number of vectors in a subset for the kernel distance, as in the public implementations."""

NEIGHBOURS = 3
"""k of precision and recall: a vector's ball extends to its third nearest neighbour, as in ADM's evaluator."""

NAEEM_NEIGHBOURS = 5
"""k of density and coverage, as in their public code."""

BANDWIDTH, SCALE = 10.0, 1000.0
"""Deviation of CMMD's Gaussian kernel, and the factor by which its values are multiplied."""

CHUNK = 2000
"""Number of rows of a distance matrix computed at a time; 2000 x 50 000 in float64 is 0.8 GB."""


def kernel_distance(x: Array, y: Array) -> float:
    """Return the unbiased squared maximum mean discrepancy between `x` [n, D] and `y` [m, D], which can be below 0.

    The kernel is (x.y / D + 1)^3.

    Source: Binkowski et al. 2018, arXiv:1801.01401, section 4; the estimator is equation 3 of Gretton et al. 2012.
    """
    own = [(each, (each @ each.T / each.shape[1] + 1) ** 3) for each in (x, y)]
    within = sum((kernel.sum() - np.trace(kernel)) / (len(each) * (len(each) - 1)) for each, kernel in own)
    return float(within - 2 * ((x @ y.T / x.shape[1] + 1) ** 3).mean())


def kernel_subsets(x: Array, y: Array, *, subsets: int = 100, size: int = SUBSET, seed: int = 0) -> Array:
    """Return kernel distances of random subsets of x and y with `size` vectors each, [subsets]; their mean is the KID.

    Args:
        size: number of vectors per subset; limited to the number available.
        seed: seed of the subsets.
    """
    generator, size = np.random.default_rng(seed), min(size, len(x), len(y))
    return np.array(
        [
            kernel_distance(*(each[generator.choice(len(each), size, replace=False)] for each in (x, y)))
            for _ in range(subsets)
        ]
    )


def kernel_blocks(blocks: Sequence[Array], y: Array, *, size: int = SUBSET) -> Array:
    """Return the kernel distance of each of G blocks to `y`, [G]: the mean over its disjoint subsets of `size` vectors.

    No vector is in two subsets, so the blocks' values are independent given `y`, and the error of their mean follows
    from their spread. Each subset is compared with equally many vectors of `y`, drawn by a fixed generator.

    Raises:
        FeatureError: a block or `y` has fewer than two vectors.
    """
    size = min(size, len(y), *(len(block) for block in blocks))
    if size < 2:
        raise FeatureError(
            asked="kernel distance",
            wrong="a block has 1 image",
            remedy="at least 2 are needed, so ask for 20 samples or more",
        )
    generator, found = np.random.default_rng(0), []
    for block in blocks:
        parts = [block[begin : begin + size] for begin in range(0, len(block) - size + 1, size)]
        chosen = (y[generator.choice(len(y), size, replace=False)] for _ in parts)
        found.append(np.mean([kernel_distance(*pair) for pair in zip(parts, chosen, strict=True)]))
    return np.array(found)


def manifold(blocks: Sequence[Array], y: Array, *, k: int = NEIGHBOURS) -> dict[str, tuple[float, Array]]:
    """Return precision and recall of the union of `blocks` against `y` [m, D], each with its leave-one-block-outs [G].

    Precision is the share of the blocks' vectors within the ball around some vector of `y`, whose radius is the
    distance to that vector's k-th nearest neighbour in `y`. Recall is the same with the two sets exchanged.

    Raises:
        FeatureError: a set is too small to have k-th neighbours.

    Source: Kynkaanniemi et al. 2019, arXiv:1904.06991, equations 1 and 2.
    """
    x, groups = np.concatenate(blocks), len(blocks)
    of = np.repeat(np.arange(groups), [len(block) for block in blocks])
    least = min(len(y), len(x) - max(len(block) for block in blocks))
    if least <= k:
        raise FeatureError(
            asked="precision and recall",
            wrong=f"sets of {least} images are too small for the {k} nearest neighbours of each",
            remedy=f"give at least {k + 1}",
        )
    held = np.concatenate([(part <= _radii(y, k)).any(1) for part in _distances(x, y)])
    left = np.array([held[of != g].mean() for g in range(groups)])
    # Each vector's k nearest in every block; its radius without block g is among those of the other blocks.
    near = np.concatenate([_nearest_by_block(part, of, groups, k, begin) for begin, part in _numbered(x, x)])
    whole = np.sort(near.reshape(len(x), -1), axis=1)[:, k - 1]
    without = [np.sort(np.delete(near, g, axis=1).reshape(len(x), -1), axis=1)[:, k - 1] for g in range(groups)]
    covered = np.zeros((groups + 1, len(y)), dtype=bool)
    for begin, part in _numbered(y, x):
        rows = slice(begin, begin + len(part))
        covered[groups, rows] = (part <= whole).any(1)
        for g in range(groups):
            covered[g, rows] = ((part <= without[g]) & (of != g)).any(1)
    recall = covered.mean(1)
    return {"precision": (float(held.mean()), left), "recall": (float(recall[groups]), recall[:groups])}


def neighbourhoods(blocks: Sequence[Array], y: Array, *, k: int = NAEEM_NEIGHBOURS) -> dict[str, tuple[float, Array]]:
    """Return density and coverage of the union of `blocks` against `y` [m, D], each with its leave-one-block-outs [G].

    A vector of `y` has a ball, whose radius is the distance to its k-th nearest neighbour in `y`. Density is the mean
    number of balls that a vector of the blocks lies in, divided by k; it may exceed 1. Coverage is the share of balls
    that hold a vector of the blocks.

    Raises:
        FeatureError: `y` has too few vectors for k-th neighbours.

    Source: Naeem et al. 2020, arXiv:2002.09797, section 3; a vector at the radius lies outside, as in the
        public code.
    """
    if len(y) <= k:
        raise FeatureError(
            asked="density and coverage",
            wrong=f"a reference of {len(y)} images is too small for the {k} nearest neighbours of each",
            remedy=f"give at least {k + 1}",
        )
    radii = _radii(y, k)
    inside, held = [], []
    for block in blocks:
        within, reached = [], np.zeros(len(y), dtype=bool)
        for part in _distances(block, y):
            found = part < radii
            within.append(found.sum(1))
            reached |= found.any(0)
        inside.append(np.concatenate(within))
        held.append(reached)
    counts, sizes = np.array([each.sum() for each in inside]), np.array([len(each) for each in inside])
    times = np.sum(held, axis=0)
    covered = np.array([(times - one > 0).mean() for one in held])
    density = (counts.sum() - counts) / (sizes.sum() - sizes) / k
    return {
        "density": (float(counts.sum() / sizes.sum() / k), density),
        "coverage": (float((times > 0).mean()), covered),
    }


def gaussian_within(y: Array) -> float:
    """Return the mean Gaussian kernel of pairs of different vectors of `y` [m, D]."""
    total = sum(_gaussian(y[begin : begin + CHUNK], y).sum() for begin in range(0, len(y), CHUNK))
    return float((total - len(y)) / (len(y) * (len(y) - 1)))  # the kernel of a vector and itself is 1


def gaussian_discrepancy(blocks: Sequence[Array], y: Array, within: float | None = None) -> tuple[float, Array]:
    """Return CMMD's distance of the union of `blocks` to `y` [m, D], and those with a block left out [G].

    It is the unbiased estimate of the squared maximum mean discrepancy with a Gaussian kernel, which can be below 0.

    Args:
        within: `gaussian_within(y)` if it is known already.

    Raises:
        FeatureError: there are too few vectors.

    Source: Jayasumana et al. 2024, arXiv:2401.09603, with its bandwidth and scale; the estimator is equation 3 of
        Gretton et al. 2012. The public code uses the biased estimate, which is larger by about
        1000 (1 - mean kernel) (1/n + 1/m).
    """
    sizes = np.array([len(block) for block in blocks])
    if len(y) < 2 or sizes.sum() - sizes.max() < 2:
        raise FeatureError(asked="CMMD", wrong="a set of 1 image has no pairs", remedy="give 20 images or more")
    groups = len(blocks)
    sums, across = np.zeros((groups, groups)), np.zeros(groups)
    for g, block in enumerate(blocks):
        for h in range(g, groups):
            sums[g, h] = sums[h, g] = _gaussian(block, blocks[h]).sum() - (sizes[g] if g == h else 0)
        across[g] = sum(_gaussian(block, y[begin : begin + CHUNK]).sum() for begin in range(0, len(y), CHUNK))
    n, own = sizes.sum(), gaussian_within(y) if within is None else within
    left, pairs = n - sizes, sums.sum() - 2 * sums.sum(1) + np.diagonal(sums)
    value = sums.sum() / (n * (n - 1)) + own - 2 * across.sum() / (n * len(y))
    without = pairs / (left * (left - 1)) + own - 2 * (across.sum() - across) / (left * len(y))
    return float(SCALE * value), SCALE * without


def inception_scores(blocks: Sequence[Array]) -> Array:
    """Return exp(mean KL(p(y|x) || p(y))) of each block's class probabilities [n, C], [G]; the score is their mean.

    Source: Salimans et al. 2016, arXiv:1606.03498, with a mean over ten splits; here the splits are the seed blocks.
    """
    return np.array([_score(block) for block in blocks])


def _score(p: Array) -> float:
    marginal = p.mean(axis=0)
    with np.errstate(divide="ignore", invalid="ignore"):
        terms = np.where(p > 0, p * (np.log(p) - np.log(marginal)), 0.0)
    return float(np.exp(terms.sum(axis=1).mean()))


def _gaussian(x: Array, y: Array) -> Array:
    """Return the Gaussian kernel of each pair, [n, m]."""
    squares = (x**2).sum(1)[:, None] + (y**2).sum(1) - 2 * x @ y.T
    return np.asarray(np.exp(-squares.clip(0) / (2 * BANDWIDTH**2)))


def _distances(x: Array, y: Array) -> Iterator[Array]:
    """Yield the Euclidean distances [CHUNK, m] of rows of x to all of y."""
    squares = (y**2).sum(1)
    for begin in range(0, len(x), CHUNK):
        part = x[begin : begin + CHUNK]
        yield np.sqrt(((part**2).sum(1)[:, None] + squares - 2 * part @ y.T).clip(0))


def _numbered(x: Array, y: Array) -> Iterator[tuple[int, Array]]:
    return ((number * CHUNK, part) for number, part in enumerate(_distances(x, y)))


def _radii(y: Array, k: int) -> Array:
    """Return each vector's distance to its k-th nearest neighbour other than itself, [m]."""
    found = []
    for begin, part in _numbered(y, y):
        part[np.arange(len(part)), begin + np.arange(len(part))] = np.inf
        found.append(np.partition(part, k - 1, axis=1)[:, k - 1])
    return np.concatenate(found)


def _nearest_by_block(part: Array, of: NDArray[Any], groups: int, k: int, begin: int) -> Array:
    """Return each row's k smallest distances to every block, excluding itself, [rows, G, k]; infinite if fewer."""
    part[np.arange(len(part)), begin + np.arange(len(part))] = np.inf
    near = np.full((len(part), groups, k), np.inf)
    for g in range(groups):
        mine = part[:, of == g]
        keep = min(k, mine.shape[1])
        near[:, g, :keep] = np.partition(mine, keep - 1, axis=1)[:, :keep]
    return near
