"""Checks of a reference's statistics: shapes, finiteness, a covariance, and vectors that belong to the moments."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from solverbench.errors import FeatureError, RecordError
from solverbench.metrics.frechet import Gaussian, Moments, Rows, Statistics

Array = NDArray[np.float64]

_ASYMMETRY, _NEGATIVE = 1e-6, 1e-6

_ERRORS = 8.0
"""Standard errors by which a part of the vectors may differ from the moments of all."""

_FEW = 50
"""Smallest number of vectors in a sample whose covariance is compared."""

_ROUNDING = 1e-3
"""Allowed difference of all vectors from their moments, as a share of the spread: vectors are float32."""


def checked(path: Path, arrays: dict[str, Array], n: int) -> tuple[Statistics, Array | None]:
    """Return the checked statistics and feature vectors (or None) of a file's arrays.

    Args:
        n: number of images behind the moments; 0 if unknown.

    Raises:
        RecordError, FeatureError: they are no statistics, or its feature vectors don't belong to its moments.
    """
    for key, array in arrays.items():
        if key == "about":
            continue
        if array.dtype.kind != "f":
            raise RecordError(
                asked=path, wrong=f"{key} is {array.dtype}, not floating point", remedy="write the file again"
            )
        if not np.isfinite(array).all():
            raise FeatureError(
                asked=path, wrong=f"{key} holds values that are not finite", remedy="write the file again"
            )
    features = arrays.get("features")
    if features is not None and (features.ndim != 2 or len(features) < 2):
        raise FeatureError(
            asked=path,
            wrong=f"features are {features.shape}, too few images or no vectors",
            remedy="give at least 2 vectors, [N, D]",
        )
    if "mu" not in arrays:
        assert features is not None
        rows = features.astype(np.float64)
        return Rows(rows) if len(rows) <= rows.shape[1] else Moments.of(rows), rows
    mu, sigma = arrays["mu"].astype(np.float64), arrays["sigma"].astype(np.float64)
    if mu.ndim != 1 or sigma.shape != (mu.size, mu.size):
        raise FeatureError(
            asked=path,
            wrong=f"mu is {mu.shape} and sigma {sigma.shape}, not [D] and [D, D]",
            remedy="write the file again",
        )
    if features is not None and features.shape[1] != mu.size:
        raise FeatureError(
            asked=path, wrong=f"features are {features.shape} and mu {mu.shape}", remedy="write the file again"
        )
    scale = max(float(sigma.diagonal().max()), 1e-300)
    if np.abs(sigma - sigma.T).max() > _ASYMMETRY * scale:
        raise FeatureError(
            asked=path, wrong="sigma isn't symmetric, so it is no covariance", remedy="write the file again"
        )
    sigma = (sigma + sigma.T) / 2
    if not positive(sigma + _NEGATIVE * scale * mu.size**0.5 * np.eye(mu.size)):
        raise FeatureError(
            asked=path, wrong="sigma has negative eigenvalues, so it is no covariance", remedy="write the file again"
        )
    if features is not None:
        features = features.astype(np.float64)
        if (apart := _apart(features, mu, sigma, n)) is not None:
            raise FeatureError(
                asked=path,
                wrong=f"its {len(features)} feature vectors don't belong to its mu and sigma ({apart})",
                remedy="make the file again, or leave the vectors out",
            )
    return Gaussian(mu, sigma, n), features


def _apart(features: Array, mu: Array, sigma: Array, n: int) -> str | None:
    """Return the contradiction between vectors [m, D] and a mean and covariance; None if they agree.

    Distance of the means, total variance, and the variance along four fixed directions are compared. All n vectors must
    agree to rounding. Fewer are taken as a sample of them, so they may differ by a few standard errors.
    """
    m, scale = len(features), max(float(np.trace(sigma)), 1e-300)
    if m > n > 0:
        return f"they are more than its {n} images"
    centred = features - mu
    mean = centred.mean(axis=0)
    whole = m == n
    # All vectors: exact but for rounding, or a covariance divided by n. A sample: squared standard error tr S / m.
    if (mean**2).sum() > (_ROUNDING**2 if whole else _ERRORS**2 / m) * scale:
        return "another mean"
    if not whole and m < _FEW:
        return None
    directions = np.random.default_rng(0).standard_normal((4, mu.size))
    squares = [((centred**2).sum(axis=1), scale)]
    squares += [((centred @ each) ** 2, float(each @ sigma @ each)) for each in directions]
    for found, expected in squares:
        allowed = (_ROUNDING + 2 / m) if whole else _ERRORS / m**0.5
        error = float(found.std()) if not whole else expected
        if abs(float(found.mean()) - expected) > allowed * max(error, 1e-12 * scale) + _ROUNDING * expected:
            return "another covariance"
    return None


def positive(matrix: Array) -> bool:
    """Return whether a symmetric matrix is positive definite."""
    try:
        np.linalg.cholesky(matrix)
    except np.linalg.LinAlgError:
        return False
    return True
