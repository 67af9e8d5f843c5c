"""How a teacher's samples are judged: feature extractor, references and metrics."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from solverbench.metrics.frechet import Statistics

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


@dataclass(frozen=True, eq=False)
class Evaluation:
    """How a teacher's samples are judged.

    Args:
        extractor: uint8 images [B, C, H, W] -> features [B, D].
        extractor_id: name of network and weights.
        quantiser: rule from float to uint8; see `QUANTISERS`.
        data: reference moments of the data.
        teacher: reference moments of the teacher's many-step samples; None if not available.
        facts: further measurements for reports (the data's own floor, the teacher's own distance).
        metrics: names of the metrics measured on the features.
        rows: whether to keep each block's feature vectors in addition to their sums.
        full: number of images per replicate below which a distance is called biased.
        probabilities: features [B, D] -> class probabilities [B, C], for the Inception score; or None.
    """

    extractor: Callable[[Tensor], Tensor]
    extractor_id: str
    quantiser: str
    data: Reference
    teacher: Reference | None
    facts: Mapping[str, Any] = field(default_factory=dict)
    metrics: tuple[str, ...] = OWN
    rows: bool = False
    full: int = 10_000
    probabilities: Callable[[Tensor], Tensor] | None = None
