"""The built-in metrics: one definition each, from inputs to reporting."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import Enum
from functools import partial
from typing import Any

import numpy as np
from torch import Tensor

from solverbench.metrics import reduction, spectrum
from solverbench.metrics.evaluation import Evaluation, Reference
from solverbench.metrics.extractors.transformers import CLIP, PickScore
from solverbench.metrics.intervals import extrapolated
from solverbench.metrics.lpips import LPIPS
from solverbench.metrics.reduction import Array, Kept
from solverbench.metrics.vectors import NEIGHBOURS

LEAST = 1e-14
"""Lower limit of the mean squared error in PSNR, 146 dB: float32 images don't resolve less."""

PER_FEATURE = 10
"""Images per feature below which an extrapolated distance is reported as biased; see docs/uncertainty.md."""

INCEPTION, OWN = "inception", "own"
"""Names of feature sets: Inception's and those of a teacher's own network; others are named after their extractor."""


UNBOUNDED, FROM_ZERO = (-math.inf, math.inf), (0.0, math.inf)


class Takes(Enum):
    """The input of a metric."""

    PAIR = "an image and the teacher's own from the same noise"
    EXACT = "an image and the exact solution from the same noise"
    PROMPT = "an image and its prompt"
    IMAGE = "an image alone"
    FEATURES = "the features of images"


def _none(samples: int, block: int) -> str:
    return ""


@dataclass(frozen=True, eq=False)
class MetricDefinition:
    """The definition of a metric.

    Args:
        name: name to request it by.
        label: name in reports.
        short: name in tables.
        takes: its input.
        array: name of the block's array that it is computed from.
        reduce: what the blocks keep to values [R] and leave-one-block-out values [R, 10].
        score: (network, images, others) to a value of each image [B], kept in `array`. The others are the images to
            compare with, or the prompts. Images are on [-1, 1] if compared with other images, else uint8. None if
            another metric's score or an extractor fills the array.
        network: device to the loaded network that `score` takes.
        identity: device to the name of the network in keys and rows.
        features: name of the feature set; empty if it uses no features.
        space: human-readable space or unit of its numbers; empty for feature sets that are described elsewhere.
        higher: whether higher values are better.
        ranked: whether lower values, or higher ones, are better; no value is best otherwise, and 0 is the teacher's.
        log: whether it is drawn on a logarithmic axis.
        place: position in reports.
        vectors: whether it needs the feature vectors of every block.
        data_vectors: whether it needs those of the reference.
        to_teacher: whether it is a distance to the teacher's samples, not to the data.
        images: images per replicate to how many of them it uses.
        too_few: images per replicate and per block to the reason why they are too few; empty if they suffice.
        bounds: least and greatest value that it can have; intervals end there.
        biased_below: evaluation to the images per replicate below which it is biased; 0 if it never is.

    Raises:
        MissingError: raised by `network` and `identity` if a file or a package is missing.
    """

    name: str
    label: str
    short: str
    takes: Takes
    array: str
    reduce: Callable[[Kept], tuple[Array, Array]]
    score: Callable[[Any, Tensor, Any], Tensor] | None = None
    network: Callable[[str], Any] | None = None
    identity: Callable[[str], str] | None = None
    features: str = ""
    space: str = ""
    higher: bool = False
    ranked: bool = True
    log: bool = True
    place: int = 100
    vectors: bool = False
    data_vectors: bool = False
    to_teacher: bool = False
    images: Callable[[int], int] = lambda samples: samples
    too_few: Callable[[int, int], str] = _none
    bounds: tuple[float, float] = UNBOUNDED
    biased_below: Callable[[Evaluation], int] = lambda evaluation: 0

    @property
    def public(self) -> bool:
        """Whether it uses features that are comparable with papers."""
        return self.features not in ("", OWN)

    @property
    def builtin(self) -> bool:
        """Whether it is a built-in metric."""
        return TABLE.get(self.name) is self

    def reference(self, evaluation: Evaluation) -> Reference | None:
        """Return the reference of the features; None if the evaluation has no samples of the teacher."""
        return evaluation.teacher if self.to_teacher else evaluation.data


def squared_error(network: None, images: Tensor, others: Tensor) -> Tensor:
    """Return [B] float64, the mean squared difference of each pair over its pixels."""
    return ((images.double() - others.double()) ** 2).flatten(1).mean(1)


def mean(array: str, kept: Kept) -> tuple[Array, Array]:
    """Return the means of an array: [R], and with a block left out [R, 10]."""
    return reduction.means(kept.each(array))


def _rmse(array: str, kept: Kept) -> tuple[Array, Array]:
    return reduction.rmses(kept.each(array))


def _psnr(kept: Kept) -> tuple[Array, Array]:
    return reduction.means(10 * np.log10(4 / kept.each("errors").clip(LEAST)))


def _decibels(array: str, kept: Kept) -> tuple[Array, Array]:
    return spectrum.decibels(kept.each(array))


def _lpips(device: str) -> LPIPS:
    found = LPIPS(device)
    found.network()
    return found


_CLIPS: dict[tuple[str, str], CLIP] = {}


def _worded(cls: type[CLIP], device: str) -> CLIP:
    """Return a network of images and prompts with its tokenizer, the same instance for all blocks."""
    made = cls(device)
    made.check_words()
    return _CLIPS.setdefault((made.identity, made.device), made)


def _prompted(name: str, label: str, short: str, array: str, cls: type[CLIP], **more: Any) -> MetricDefinition:
    """Return the definition of a score of an image and its prompt."""
    return MetricDefinition(
        name, label, short, Takes.PROMPT, array, partial(mean, array),
        score=lambda network, images, prompts: network.scores(images, prompts),
        network=partial(_worded, cls), identity=lambda device: _worded(cls, device).identity,
        higher=True, log=False, place=21, **more,
    )  # fmt: skip


def _full(evaluation: Evaluation) -> int:
    return evaluation.full


def _manifold(name: str, label: str, place: int, features: str) -> MetricDefinition:
    """Return the definition of precision or recall."""
    return MetricDefinition(
        name, label, label, Takes.FEATURES, "features", partial(reduction.manifold, label.lower()),
        features=features, higher=True, log=False, place=place, vectors=True, data_vectors=True, bounds=(0.0, 1.0),
        images=reduction.manifold_images,
        too_few=lambda samples, block: f"{samples} samples are too few" if samples - block <= NEIGHBOURS else "",
        biased_below=lambda evaluation: min(evaluation.full, reduction.MANIFOLD),
    )  # fmt: skip


def _neighbourhood(name: str, label: str, place: int, features: str) -> MetricDefinition:
    """Return the definition of density or coverage."""
    bounds = (0.0, 1.0) if label == "Coverage" else FROM_ZERO
    return MetricDefinition(
        name, label, label, Takes.FEATURES, "features", partial(reduction.neighbourhood, label.lower()),
        features=features, higher=True, log=False, place=place, vectors=True, data_vectors=True, bounds=bounds,
        images=reduction.manifold_images,
        biased_below=lambda evaluation: min(evaluation.full, reduction.MANIFOLD) if label == "Coverage" else 0,
    )  # fmt: skip


def _kernel(name: str, label: str, short: str, place: int, features: str) -> MetricDefinition:
    return MetricDefinition(
        name, label, short, Takes.FEATURES, "features", reduction.kernels,
        features=features, log=False, place=place, vectors=True, data_vectors=True,
        too_few=lambda samples, block: f"{samples} samples are too few, one a block" if block < 2 else "",
    )  # fmt: skip


def _frechet(
    name: str, label: str, short: str, place: int, features: str, space: str = "", to_teacher: bool = False
) -> MetricDefinition:
    return MetricDefinition(
        name, label, short, Takes.FEATURES, "features",
        lambda kept: kept.to_teacher if to_teacher else kept.to_data,
        features=features, space=space, place=place, to_teacher=to_teacher, biased_below=_full, bounds=FROM_ZERO,
    )  # fmt: skip


def _extrapolated(name: str, label: str, short: str, place: int, features: str) -> MetricDefinition:
    return MetricDefinition(
        name, label, short, Takes.FEATURES, "features", lambda kept: extrapolated(*kept.to_data),
        features=features, place=place,
        biased_below=lambda evaluation: PER_FEATURE * evaluation.data.moments.mean.size,
    )  # fmt: skip


_METRICS = (
    _frechet("fid", "FID", "FID", 2, INCEPTION),
    _extrapolated("fid_inf", "FID extrapolated to infinitely many images", "FID, n to infinity", 6, INCEPTION),
    _kernel("kid", "KID", "KID", 3, INCEPTION),
    _manifold("precision", "Precision", 10, INCEPTION),
    _manifold("recall", "Recall", 12, INCEPTION),
    _neighbourhood("density", "Density", 14, INCEPTION),
    _neighbourhood("coverage", "Coverage", 16, INCEPTION),
    MetricDefinition(
        "inception_score", "Inception score", "Inception score", Takes.FEATURES, "features", reduction.inception_scores,
        features=INCEPTION, higher=True, log=False, place=8, vectors=True, biased_below=_full,
        bounds=(1.0, math.inf),
    ),
    _frechet("fid_clip", "Fréchet distance of CLIP features", "FID of CLIP", 18, "clip", "CLIP ViT-B/32"),
    _frechet("fdd", "Fréchet distance of DINOv2 features", "FD of DINOv2", 19, "dinov2", "DINOv2 ViT-L/14"),
    MetricDefinition(
        "cmmd", "Maximum mean discrepancy of CLIP features", "CMMD", Takes.FEATURES, "features",
        reduction.discrepancies, features="clip_l", space="CLIP ViT-L/14 at 336 pixels, unbiased, times 1000",
        log=False, place=20, vectors=True, data_vectors=True, images=reduction.manifold_images,
    ),
    _frechet("frechet_data", "Fréchet distance to the data", "Fréchet to data", 0, OWN),
    _frechet(
        "frechet_teacher", "Fréchet distance to the teacher's own samples", "Fréchet to teacher", 1, OWN,
        to_teacher=True,
    ),
    _extrapolated(
        "frechet_data_inf", "Fréchet distance to the data, extrapolated to infinitely many images",
        "Fréchet to data, n to infinity", 7, OWN,
    ),
    _kernel("kernel_data", "Kernel distance to the data", "Kernel distance", 9, OWN),
    _manifold("precision_data", "Precision", 11, OWN),
    _manifold("recall_data", "Recall", 13, OWN),
    _neighbourhood("density_data", "Density", 15, OWN),
    _neighbourhood("coverage_data", "Coverage", 17, OWN),
    MetricDefinition(
        "psnr_teacher", "PSNR to the teacher's own sample from the same noise", "PSNR to teacher", Takes.PAIR,
        "errors", _psnr, space="dB, peak to peak 2", higher=True, log=False, place=23,
    ),
    MetricDefinition(
        "lpips_teacher", "LPIPS to the teacher's own sample from the same noise", "LPIPS to teacher", Takes.PAIR,
        "perceptual", partial(mean, "perceptual"), score=lambda lpips, images, others: lpips(images, others),
        network=_lpips, identity=lambda device: LPIPS.identity, space=LPIPS.identity, place=22, bounds=FROM_ZERO,
    ),
    MetricDefinition(
        "detail_teacher", "Power of fine detail against the teacher's own sample from the same noise",
        "Detail against teacher", Takes.PAIR, "spectrum", partial(_decibels, "spectrum"), score=spectrum.beside,
        space="dB, 0 is the teacher's", ranked=False, log=False, place=24,
    ),
    MetricDefinition(
        "residual_teacher", "Error in fine detail to the teacher's own sample from the same noise",
        "Error of detail", Takes.PAIR, "residual", partial(_decibels, "residual"), score=spectrum.residual,
        space="dB, 0 is the teacher's power", log=False, place=25,
    ),
    _prompted(
        "clip_score", "CLIP score of image and prompt", "CLIP score", "prompted", CLIP,
        space="100 max(cos, 0), higher is better", bounds=(0.0, 100.0),
    ),
    _prompted(
        "pickscore", "PickScore of image and prompt", "PickScore", "pickscore", PickScore,
        space="exp(logit scale) cos, higher is better",
    ),
    MetricDefinition(
        "rmse_teacher", "RMSE to the teacher's own sample from the same noise", "RMSE to teacher", Takes.PAIR,
        "errors", partial(_rmse, "errors"), score=squared_error, space="pixels in [-1, 1]", place=5,
        bounds=FROM_ZERO,
    ),
    MetricDefinition(
        "rmse_exact", "RMSE to the exact solution of the teacher's ODE", "RMSE to exact", Takes.EXACT,
        "exact", partial(_rmse, "exact"), score=squared_error, space="pixels in [-1, 1]", place=4,
        bounds=FROM_ZERO,
    ),
)  # fmt: skip

TABLE = {each.name: each for each in _METRICS}
"""The built-in metrics by name."""

ASKABLE = tuple(each.name for each in _METRICS if each.takes is not Takes.EXACT)
"""Metrics that can be requested by name; the exact solution has its own option."""

FRECHET = tuple(each.name for each in _METRICS if each.name in ("fid", "fid_clip", "fdd", "frechet_data"))
"""Fréchet distances to the data, of which a run measures one at most."""

ALWAYS = "rmse_teacher"
"""Name of the metric that every cell has."""


def of(names: Iterable[str], chosen: Callable[[MetricDefinition], bool]) -> tuple[str, ...]:
    """Return the names of built-in metrics that satisfy `chosen`."""
    return tuple(name for name in names if name in TABLE and chosen(TABLE[name]))


def public(names: Iterable[str]) -> tuple[str, ...]:
    """Return the names of metrics of public features, which are comparable with papers."""
    return of(names, lambda each: each.public)


def of_features(names: Iterable[str], features: str) -> tuple[str, ...]:
    """Return the names of metrics of one feature set."""
    return of(names, lambda each: each.features == features)


def ordered(names: Iterable[str]) -> list[str]:
    """Return the metrics in the order of reports: the built-in ones, then those of plugins."""
    there = set(names)
    known = sorted((each for each in _METRICS if each.name in there), key=lambda each: each.place)
    return [*(each.name for each in known), *sorted(there - TABLE.keys())]
