"""Distances between sets of images: moments of features in float64, and the Fréchet distance between two of them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import stdtrit

Array = NDArray[np.float64]


def quantise(images: torch.Tensor) -> torch.Tensor:
    """Return `images` (float, [-1, 1]) as uint8 by EDM's rule: clip(127.5 x + 128, 0, 255), truncated.

    Source: Karras et al. 2022, arXiv:2206.00364, the public code's generate.py: rounds half up to the nearest level.
    """
    return (images * 127.5 + 128).clamp(0, 255).to(torch.uint8)


@dataclass(frozen=True, eq=False)
class Moments:
    """Sums over a set of feature vectors, in float64: they add over disjoint sets.

    Args:
        n: number of vectors.
        total: [D], their sum.
        outer: [D, D], the sum of their outer products.
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
        """[D], the sample mean."""
        return self.total / self.n

    @cached_property
    def cov(self) -> Array:
        """[D, D], the unbiased sample covariance."""
        cov = (self.outer - np.outer(self.total, self.mean)) / (self.n - 1)
        return (cov + cov.T) / 2

    @cached_property
    def root(self) -> Array:
        """[D, D], the symmetric square root of the covariance: computed once for a reference."""
        values, vectors = np.linalg.eigh(self.cov)
        return np.asarray((vectors * np.sqrt(values.clip(0))) @ vectors.T)


def frechet(a: Moments, b: Moments) -> float:
    """Return |mu_a - mu_b|^2 + tr(S_a + S_b - 2 (S_a S_b)^(1/2)), at least 0.

    The trace of the root is the sum of square roots of the eigenvalues of R S_a R, with R the symmetric root of S_b,
    which is positive semi-definite: no general matrix square root and no imaginary part. `b.root` is kept, so give
    the reference as `b`.

    Source: Heusel et al. 2017, arXiv:1706.08500, equation 6.
    """
    product = b.root @ a.cov @ b.root
    trace = np.sqrt(np.linalg.eigvalsh((product + product.T) / 2).clip(0)).sum()
    distance = ((a.mean - b.mean) ** 2).sum() + np.trace(a.cov) + np.trace(b.cov) - 2 * trace
    return max(float(distance), 0.0)


def jackknife(leave_one_out: Array) -> float:
    """Return the delete-a-block jackknife's standard error from the values [G] with one of G blocks left out.

    Source: Efron & Stein 1981; sqrt((G-1)/G sum (v_g - mean v)^2).
    """
    groups = len(leave_one_out)
    return float(np.sqrt((groups - 1) / groups * ((leave_one_out - leave_one_out.mean()) ** 2).sum()))


def standard_error(leave_one_out: Array) -> float:
    """Return the standard error of a mean over R replicates from their leave-one-out values [R, G]."""
    return float(np.sqrt(sum(jackknife(row) ** 2 for row in leave_one_out)) / len(leave_one_out))


def half_width(leave_one_out: Array, level: float = 0.95) -> float:
    """Return the half width of the Student interval with R (G-1) degrees of freedom, from [R, G] leave-one-outs."""
    replicates, groups = leave_one_out.shape
    return float(stdtrit(replicates * (groups - 1), (1 + level) / 2)) * standard_error(leave_one_out)
