"""The measurement of a teacher's samples: feature extractor, references and metrics."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from solverbench.errors import FeatureError
from solverbench.metrics.frechet import Gaussian, Moments, Rows, Statistics

OWN = ("frechet_data", "frechet_teacher")
"""Default metrics for a teacher's own features."""


@dataclass(frozen=True, eq=False)
class Reference:
    """Moments of a set of images with which samples are compared.

    Args:
        moments: moments of the extractor's features over the set.
        name: human-readable description of the set.
        sha: name of the set in keys: the sha256 of the source of the moments, or of a file that holds them.
        features: features [m, D] float64 of some or all of its images, for metrics that need more than moments; or
            None.
        note: warning for readers of results; empty if none.
        crop: rule by which its images were cropped and scaled; empty if none or unknown.
        pixels: WIDTHxHEIGHT of its images; empty if unknown.
    """

    moments: Statistics
    name: str
    sha: str
    features: NDArray[np.float64] | None = None
    note: str = ""
    crop: str = ""
    pixels: str = ""

    @classmethod
    def of(cls, features: Tensor | NDArray[Any], name: str) -> Reference:
        """Return the reference of a set of images from their feature vectors.

        Args:
            features: feature vectors [m, D] of the images, by the extractor that judges samples.
            name: description of the set for people.

        Raises:
            FeatureError: there are fewer than two vectors, or values that aren't finite.
        """
        rows = np.asarray(features.detach().cpu() if isinstance(features, Tensor) else features, dtype=np.float64)
        if rows.ndim != 2 or len(rows) < 2 or not np.isfinite(rows).all():
            raise FeatureError(
                asked=f"reference {name!r}",
                wrong=f"features {rows.shape} aren't two or more finite vectors",
                remedy="give [m, D] with m at least 2",
            )
        moments = Rows(rows) if len(rows) <= rows.shape[1] else Moments.of(rows)
        return cls(moments, name, hashlib.sha256(np.ascontiguousarray(rows).tobytes()).hexdigest(), rows)


UNSTORED = Reference(Gaussian(np.zeros(0), np.zeros((0, 0))), "the stored reference of its name, or --reference", "")
"""Placeholder for a reference that is looked up when a run starts."""


@dataclass(frozen=True, eq=False)
class Evaluation:
    """The measurement of a teacher's samples.

    Args:
        extractor: uint8 images [B, C, H, W] -> features [B, D].
        extractor_id: name of network and weights.
        quantiser: rule from float to uint8; see `QUANTISERS`.
        data: reference of the data, such as `Reference.of`; if left out, the one that is stored in the teacher's name.
        teacher: reference of the teacher's many-step samples; if None, the stored one, if there is one.
        facts: further measurements for reports (the data's own floor, the teacher's own distance).
        metrics: names of the metrics measured on the features.
        rows: whether to keep each block's feature vectors in addition to their sums.
        full: number of images per replicate below which a distance is called biased.
        probabilities: features [B, D] -> class probabilities [B, C], for the Inception score; or None.
    """

    extractor: Callable[[Tensor], Tensor]
    extractor_id: str
    quantiser: str = "edm-round"
    data: Reference = UNSTORED
    teacher: Reference | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)
    metrics: tuple[str, ...] = OWN
    rows: bool = False
    full: int = 10_000
    probabilities: Callable[[Tensor], Tensor] | None = None
