"""Reduction of a cell's blocks to metrics: one value per replicate, and ten with a block left out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from solverbench.metrics import vectors
from solverbench.metrics.evaluation import Evaluation, Reference
from solverbench.metrics.frechet import Moments, Rows, Statistics, frechet

Array = NDArray[np.float64]

BLOCKS = 10
"""Number of seed blocks per replicate."""

MANIFOLD = 10_000
"""Maximum images per replicate for precision, recall, density, coverage and CMMD, from the start of each block."""


class Block(Protocol):
    """The interface of a block's result."""

    @property
    def moments(self) -> Moments | None:
        """Moments of the features of its images; None without features, or if the feature vectors are kept."""

    @property
    def arrays(self) -> Mapping[str, NDArray[Any]]:
        """Array name to per-image values."""


@dataclass(frozen=True, eq=False)
class Kept:
    """The stored values of a cell's blocks.

    Args:
        replicates: R times ten blocks.
        evaluation: evaluation of the features; None without features.
        device: device of the networks that a plugin's metric may use.
    """

    replicates: Sequence[Sequence[Block]]
    evaluation: Evaluation | None
    device: str

    def blocks(self, name: str) -> list[list[NDArray[Any]]]:
        """Return the array `name` of each block of each replicate."""
        return [[block.arrays[name] for block in part] for part in self.replicates]

    def each(self, name: str) -> NDArray[Any]:
        """Return the array `name` of each replicate's blocks, concatenated: [R, p]."""
        return np.stack([np.concatenate(part) for part in self.blocks(name)])

    @property
    def judged(self) -> Evaluation:
        """The evaluation; required by metrics of features."""
        assert self.evaluation is not None
        return self.evaluation

    @property
    def data_features(self) -> Array:
        """The feature vectors [m, D] of the reference; required by metrics with `data_vectors`."""
        assert self.judged.data.features is not None
        return self.judged.data.features

    @cached_property
    def vectors(self) -> list[list[Array]]:
        """The feature vectors [n, D] of each block; empty lists if moments are kept."""
        return [
            [block.arrays["features"].astype(np.float64) for block in part if "features" in block.arrays]
            for part in self.replicates
        ]

    @cached_property
    def sums(self) -> list[list[Moments | Array]]:
        """Moments or feature vectors of each block, as `frechets` takes them."""
        return [_sums(part, rows) for part, rows in zip(self.replicates, self.vectors, strict=True)]

    @cached_property
    def to_data(self) -> tuple[Array, Array]:
        """The Fréchet distances of the features to the data."""
        return frechets(self.sums, self.judged.data.moments)

    @cached_property
    def to_teacher(self) -> tuple[Array, Array]:
        """The Fréchet distances of the features to the teacher's own samples."""
        assert self.judged.teacher is not None
        return frechets(self.sums, self.judged.teacher.moments)

    @cached_property
    def few(self) -> list[list[Array]]:
        """The first feature vectors of each block, at most `MANIFOLD` of a replicate."""
        return [[rows[: MANIFOLD // BLOCKS] for rows in part] for part in self.vectors]

    @cached_property
    def neighbourhoods(self) -> list[dict[str, tuple[float, Array]]]:
        """Density and coverage of each replicate, see `vectors.neighbourhoods`."""
        return [vectors.neighbourhoods(part, self.data_features) for part in self.few]

    @cached_property
    def manifolds(self) -> list[dict[str, tuple[float, Array]]]:
        """Precision and recall of each replicate, see `vectors.manifold`."""
        return [vectors.manifold(part, self.data_features) for part in self.few]


def means(each: Array) -> tuple[Array, Array]:
    """Return the mean of each replicate's values [R], and with a tenth of them left out [R, 10].

    Args:
        each: [R, p], a value per image or block; p is a multiple of 10.
    """
    sums, size = each.reshape(len(each), BLOCKS, -1).sum(2), each.shape[1] // BLOCKS
    left = (sums.sum(1, keepdims=True) - sums) / (size * (BLOCKS - 1))
    return sums.sum(1) / (size * BLOCKS), left


def rmses(errors: Array) -> tuple[Array, Array]:
    """Return the root of the mean error of each replicate [R], and with a tenth of its images left out [R, 10].

    Args:
        errors: [R, p] mean squared error of each image over its pixels, on [-1, 1]; p is a multiple of 10.
    """
    sums, each = errors.reshape(len(errors), BLOCKS, -1).sum(2), errors.shape[1] // BLOCKS
    left = np.sqrt((sums.sum(1, keepdims=True) - sums) / (each * (BLOCKS - 1)))
    return np.sqrt(sums.sum(1) / (each * BLOCKS)), left


def of_sets(
    replicates: Sequence[Sequence[NDArray[Any]]], number: Callable[[NDArray[Any]], float]
) -> tuple[Array, Array]:
    """Return the number of each replicate's set of images [R], and of the set with a block left out [R, G].

    Args:
        replicates: R times the arrays [n, ...] of G blocks, with a row per image.
        number: function of a set's array.
    """
    values, left = [], []
    for blocks in replicates:
        values.append(number(np.concatenate(blocks)))
        left.append([number(np.concatenate([*blocks[:g], *blocks[g + 1 :]])) for g in range(len(blocks))])
    return np.array(values), np.array(left)


def frechets(replicates: Sequence[Sequence[Moments | Array]], reference: Statistics) -> tuple[Array, Array]:
    """Return the Fréchet distance to `reference` of each replicate's features [R], and with a block left out [R, 10].

    Args:
        replicates: R times its blocks' moments, or feature vectors [n, D] if there are fewer images than features.
    """
    values, left = [], []
    for blocks in replicates:
        sums = [block for block in blocks if isinstance(block, Moments)]
        if sums:
            whole = sum(sums[1:], sums[0])
            values.append(frechet(whole, reference))
            left.append([frechet(whole - block, reference) for block in sums])
        else:
            rows = [block for block in blocks if not isinstance(block, Moments)]
            value, without = of_sets([rows], lambda part: frechet(Rows(part), reference))
            values.append(float(value[0]))
            left.append(without[0].tolist())
    return np.array(values), np.array(left)


def kernels(kept: Kept) -> tuple[Array, Array]:
    """Return the kernel distances of the features to the data: [R], and with a block left out [R, 10]."""
    return means(np.stack([vectors.kernel_blocks(part, kept.data_features) for part in kept.vectors]))


def inception_scores(kept: Kept) -> tuple[Array, Array]:
    """Return the Inception scores of the features: [R], and with a block left out [R, 10]."""
    probabilities = kept.judged.probabilities
    assert probabilities is not None
    classes = [[probabilities(torch.from_numpy(rows)).numpy() for rows in part] for part in kept.vectors]
    return means(np.stack([vectors.inception_scores(part) for part in classes]))


def manifold(part: str, kept: Kept) -> tuple[Array, Array]:
    """Return `part`, "precision" or "recall", of the features: [R], and with a block left out [R, 10]."""
    return np.array([each[part][0] for each in kept.manifolds]), np.stack([each[part][1] for each in kept.manifolds])


def neighbourhood(part: str, kept: Kept) -> tuple[Array, Array]:
    """Return `part`, "density" or "coverage", of the features: [R], and with a block left out [R, 10]."""
    found = [each[part] for each in kept.neighbourhoods]
    return np.array([value for value, _ in found]), np.stack([left for _, left in found])


def discrepancies(kept: Kept) -> tuple[Array, Array]:
    """Return the CMMDs of the features to the data: [R], and with a block left out [R, 10]."""
    own = _within(kept.judged.data)
    found = [vectors.gaussian_discrepancy(part, kept.data_features, own) for part in kept.few]
    return np.array([value for value, _ in found]), np.stack([left for _, left in found])


@lru_cache(maxsize=4)
def _within(data: Reference) -> float:
    """Return the mean kernel of pairs of the reference's vectors, computed once for a reference."""
    assert data.features is not None
    return vectors.gaussian_within(data.features)


def manifold_images(samples: int) -> int:
    """Return how many of a replicate's images precision, recall, density, coverage and CMMD use."""
    return min(samples // BLOCKS, MANIFOLD // BLOCKS) * BLOCKS


def _sums(part: Sequence[Block], rows: Sequence[Array]) -> list[Moments | Array]:
    """Return a replicate's moments, or its feature vectors if they are too few for moments with a block left out."""
    if rows and sum(map(len, rows)) * (BLOCKS - 1) <= BLOCKS * rows[0].shape[1]:
        return list(rows)
    return [Moments.of(each) for each in rows] if rows else [b.moments for b in part if b.moments is not None]
