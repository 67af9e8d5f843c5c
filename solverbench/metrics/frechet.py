"""Moments of features in float64, and the Fréchet distance between two sets of images."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from solverbench.errors import FeatureError

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Moments:
    """Sums over a set of feature vectors, in float64; they add over disjoint sets.

    Args:
        n: number of vectors.
        total: sum of the vectors, [D].
        outer: sum of their outer products, [D, D].
    """

    n: int
    total: Array
    outer: Array

    @classmethod
    def of(cls, features: torch.Tensor | NDArray[Any]) -> Moments:
        """Return the moments of `features` [n, D]."""
        rows = np.asarray(features.cpu() if isinstance(features, torch.Tensor) else features, dtype=np.float64)
        return cls(len(rows), rows.sum(axis=0), rows.T @ rows)

    def __add__(self, other: Moments) -> Moments:
        return Moments(self.n + other.n, self.total + other.total, self.outer + other.outer)

    def __sub__(self, other: Moments) -> Moments:
        return Moments(self.n - other.n, self.total - other.total, self.outer - other.outer)

    @cached_property
    def mean(self) -> Array:
        """The sample mean, [D]."""
        return self.total / self.n

    @cached_property
    def cov(self) -> Array:
        """The unbiased sample covariance, [D, D]."""
        cov = (self.outer - np.outer(self.total, self.mean)) / (self.n - 1)
        return (cov + cov.T) / 2

    @cached_property
    def root(self) -> Array:
        """The symmetric square root of the covariance, [D, D]; computed once for a reference."""
        return symmetric_root(self.cov)


@dataclass(frozen=True, eq=False)
class Gaussian:
    """Mean and covariance as stored in a file of statistics.

    Args:
        mean: mean, [D].
        cov: covariance, [D, D], symmetric.
        n: number of images; 0 if the file does not give it.
    """

    mean: Array
    cov: Array
    n: int = 0

    @cached_property
    def root(self) -> Array:
        """The symmetric square root of the covariance, [D, D]."""
        return symmetric_root(self.cov)


@dataclass(frozen=True, eq=False)
class Rows:
    """Feature vectors, for sets with fewer vectors than features; `frechet` never forms their covariance.

    Args:
        rows: feature vectors, [n, D] float64.
    """

    rows: Array

    @property
    def n(self) -> int:
        """The number of vectors."""
        return len(self.rows)

    @cached_property
    def mean(self) -> Array:
        """The sample mean, [D]."""
        return np.asarray(self.rows.mean(axis=0))

    @cached_property
    def factor(self) -> Array:
        """The factor F [n, D] with F'F the unbiased sample covariance."""
        return np.asarray((self.rows - self.mean) / np.sqrt(self.n - 1))

    @cached_property
    def cov(self) -> Array:
        """The unbiased sample covariance, [D, D]."""
        return np.asarray(self.factor.T @ self.factor)


Statistics = Moments | Gaussian | Rows
"""Inputs of a Fréchet distance: mean and covariance, in the form that suits the set."""


def symmetric_root(cov: Array) -> Array:
    """Return the symmetric square root [D, D] of a positive semi-definite `cov`; negative eigenvalues count as 0."""
    values, vectors = np.linalg.eigh(cov)
    return np.asarray((vectors * np.sqrt(values.clip(0))) @ vectors.T)


def frechet(a: Statistics, b: Statistics) -> float:
    """Return |mu_a - mu_b|^2 + tr(S_a + S_b - 2 (S_a S_b)^(1/2)), at least 0, and 0 for a set and itself.

    The trace of the root is the sum of square roots of the eigenvalues of R S_a R, with R the symmetric root of S_b.
    This matrix is positive semi-definite, so no general matrix square root and no imaginary part arise. `b.root` is
    cached, so give the reference as `b`. For `Rows`, with S_a = F'F of rank below D, it is the sum of the singular
    values of F R: square roots of eigenvalues that should be 0 would add up to a visible error.

    Raises:
        FeatureError: the sets have different features, or one has only one image.

    Source: Heusel et al. 2017, arXiv:1706.08500, equation 6.
    """
    if a.mean.shape != b.mean.shape:
        raise FeatureError(
            asked="Fréchet distance",
            wrong=f"the images have {a.mean.size} features, but the reference has {b.mean.size}",
            remedy="give a reference made with the same extractor",
        )
    for each in (a, b):
        if each.n == 1:
            raise FeatureError(
                asked="Fréchet distance", wrong="a set of 1 image has no covariance", remedy="give at least 2"
            )
    if isinstance(a, Rows) or isinstance(b, Rows):
        factors = _factor(a) @ _factor(b).T
        trace = np.linalg.svd(factors, compute_uv=False).sum()
    else:
        if np.array_equal(a.mean, b.mean) and np.array_equal(a.cov, b.cov):
            return 0.0  # the formula would give rounding, 1e-10 of the covariance's trace
        product = b.root @ a.cov @ b.root
        trace = np.sqrt(np.linalg.eigvalsh((product + product.T) / 2).clip(0)).sum()
    distance = ((a.mean - b.mean) ** 2).sum() + _spread(a) + _spread(b) - 2 * trace
    return max(float(distance), 0.0)


def _factor(of: Statistics) -> Array:
    """Return F [k, D] with F'F the covariance."""
    return of.factor if isinstance(of, Rows) else of.root


def _spread(of: Statistics) -> float:
    """Return the trace of the covariance."""
    return float((of.factor**2).sum()) if isinstance(of, Rows) else float(np.trace(of.cov))
