"""TODO."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from solverbench.metrics.frechet import Statistics

OWN = ("frechet_data", "frechet_teacher")
"""Metrics of a teacher's own features, unless others are asked for."""


@dataclass(frozen=True, eq=False)
class Reference:
    """Moments of a set of images that samples are compared with.

    Args:
        moments: of the extractor's features over the set.
        name: what the set is, for people.
        sha: names the set in keys: the sha256 of what the moments were made from, or of a file that holds them.
        features: [m, D] float64, of some or all of its images, for what moments can't tell; None without.
        note: what a reader must know about it; empty if nothing.
        crop: the rule by which its images were cut and scaled; empty if they weren't, or that isn't known.
        pixels: WIDTHxHEIGHT of its images; empty if that isn't known.
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
        extractor: uint8 images [B, C, H, W] to features [B, D].
        extractor_id: names network and weights.
        quantiser: the rule from float to uint8.
        data: reference moments of the data.
        teacher: reference moments of the teacher's many-step samples; None if none are at hand.
        facts: measured beside them (the data's own floor, the teacher's own distance), for reports.
        metrics: what is measured of the features.
        rows: keep each block's feature vectors, not their sums alone.
        full: images of a replicate below which a distance is called biased.
        probabilities: features [B, D] to class probabilities [B, C], for the Inception score.
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
