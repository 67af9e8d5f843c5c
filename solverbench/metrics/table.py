"""The built-in metrics: one definition each, from what it takes of an image to how it is reported."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import Enum
from functools import partial
from typing import Any

import numpy as np
from torch import Tensor

from solverbench.metrics import reduction
from solverbench.metrics.evaluation import Evaluation, Reference
from solverbench.metrics.extractors.transformers import CLIP
from solverbench.metrics.intervals import extrapolated
from solverbench.metrics.lpips import LPIPS
from solverbench.metrics.reduction import Array, Kept
from solverbench.metrics.vectors import NEIGHBOURS

LEAST = 1e-14
"""Mean squared error that counts as none in PSNR, 146 dB: float32 images don't resolve less."""

PER_FEATURE = 10
"""Images per feature that a distance extrapolated to infinitely many images takes: docs/uncertainty.md."""

INCEPTION, OWN = "inception", "own"
"""Sets of features: of an Inception network, and of a teacher's own network. Others are named by their extractor."""


class Takes(Enum):
    """What a metric is of."""

    PAIR = "an image and the teacher's own from the same noise"
    EXACT = "an image and the exact solution from the same noise"
    PROMPT = "an image and its prompt"
    IMAGE = "an image alone"
    FEATURES = "the features of images"


def _none(samples: int, block: int) -> str:
    return ""


@dataclass(frozen=True, eq=False)
class MetricDefinition:
    """A metric.

    Args:
        name: what it is asked for by.
        label: what it is called in reports.
        short: the same in tables.
        takes: what it is of.
        array: of a block, that it is made from.
        reduce: from what the blocks keep to values [R], and with a block left out [R, 10].
        score: (network, images, others) to a value of each image [B], which `array` keeps. The others are the images
            compared with, or the prompts. Images are on [-1, 1] in a comparison with others, else uint8. None where
            another metric's score or an extractor makes the array.
        network: from a device to the network that `score` takes, ready to be used.
        identity: from a device to what names the network in keys and rows.
        features: the set of features; empty for a metric of none.
        space: what its numbers are of or in, for people; empty for features, which say that themselves.
        higher: whether higher values are better.
        log: whether it is drawn on a logarithmic axis.
        place: in the order of reports.
        vectors: whether it needs the feature vectors of every block.
        data_vectors: whether it needs those of the reference.
        to_teacher: whether it is a distance to the teacher's samples, not to the data.
        images: from the images of a replicate to how many of them it is taken over.
        too_few: from the images of a replicate and of a block to why it can't be taken over them; empty if it can.
        biased_below: from the evaluation to the images of a replicate below which it is biased; 0 for none.

    Raises:
        MissingError: by `network` and `identity`, where a file or a package isn't there.
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
    log: bool = True
    place: int = 100
    vectors: bool = False
    data_vectors: bool = False
    to_teacher: bool = False
    images: Callable[[int], int] = lambda samples: samples
    too_few: Callable[[int, int], str] = _none
    biased_below: Callable[[Evaluation], int] = lambda evaluation: 0

    @property
    def public(self) -> bool:
        """Whether it is of features that are comparable with papers."""
        return self.features not in ("", OWN)

    @property
    def builtin(self) -> bool:
        """Whether it is no plugin's."""
        return TABLE.get(self.name) is self

    def reference(self, evaluation: Evaluation) -> Reference | None:
        """Return what features are compared with; None where the teacher has no samples to compare with."""
        return evaluation.teacher if self.to_teacher else evaluation.data


def squared_error(network: None, images: Tensor, others: Tensor) -> Tensor:
    """Return [B] float64, the mean squared difference of each pair over its pixels."""
    return ((images.double() - others.double()) ** 2).flatten(1).mean(1)


def mean(array: str, kept: Kept) -> tuple[Array, Array]:
    """Return the means of an array."""
    return reduction.means(kept.each(array))


def _rmse(array: str, kept: Kept) -> tuple[Array, Array]:
    return reduction.rmses(kept.each(array))


def _psnr(kept: Kept) -> tuple[Array, Array]:
    return reduction.means(10 * np.log10(4 / kept.each("errors").clip(LEAST)))


def _lpips(device: str) -> LPIPS:
    found = LPIPS(device)
    found.network()
    return found


_CLIPS: dict[tuple[str, str], CLIP] = {}


def _clip(device: str) -> CLIP:
    """CLIP with its tokenizer, one for all blocks."""
    made = CLIP(device)
    made.check_words()
    return _CLIPS.setdefault((made.identity, made.device), made)


def _full(evaluation: Evaluation) -> int:
    return evaluation.full


def _manifold(name: str, label: str, place: int, features: str) -> MetricDefinition:
    """Precision or recall."""
    return MetricDefinition(
        name, label, label, Takes.FEATURES, "features", partial(reduction.manifold, label.lower()),
        features=features, higher=True, log=False, place=place, vectors=True, data_vectors=True,
        images=reduction.manifold_images,
        too_few=lambda samples, block: f"{samples} samples are too few" if samples - block <= NEIGHBOURS else "",
        biased_below=lambda evaluation: min(evaluation.full, reduction.MANIFOLD),
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
        features=features, space=space, place=place, to_teacher=to_teacher, biased_below=_full,
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
    MetricDefinition(
        "inception_score", "Inception score", "Inception score", Takes.FEATURES, "features", reduction.inception_scores,
        features=INCEPTION, higher=True, log=False, place=8, vectors=True, biased_below=_full,
    ),
    _frechet("fid_clip", "Fréchet distance of CLIP features", "FID of CLIP", 14, "clip", "CLIP ViT-B/32"),
    _frechet("fdd", "Fréchet distance of DINOv2 features", "FD of DINOv2", 15, "dinov2", "DINOv2 ViT-L/14"),
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
    MetricDefinition(
        "psnr_teacher", "PSNR to the teacher's own sample from the same noise", "PSNR to teacher", Takes.PAIR,
        "errors", _psnr, space="dB, peak to peak 2", higher=True, log=False, place=18,
    ),
    MetricDefinition(
        "lpips_teacher", "LPIPS to the teacher's own sample from the same noise", "LPIPS to teacher", Takes.PAIR,
        "perceptual", partial(mean, "perceptual"), score=lambda lpips, images, others: lpips(images, others),
        network=_lpips, identity=lambda device: LPIPS.identity, space=LPIPS.identity, place=17,
    ),
    MetricDefinition(
        "clip_score", "CLIP score of image and prompt", "CLIP score", Takes.PROMPT,
        "prompted", partial(mean, "prompted"), score=lambda clip, images, prompts: clip.scores(images, prompts),
        network=_clip, identity=lambda device: _clip(device).identity, space="100 max(cos, 0), higher is better",
        higher=True, log=False, place=16,
    ),
    MetricDefinition(
        "rmse_teacher", "RMSE to the teacher's own sample from the same noise", "RMSE to teacher", Takes.PAIR,
        "errors", partial(_rmse, "errors"), score=squared_error, space="pixels in [-1, 1]", place=5,
    ),
    MetricDefinition(
        "rmse_exact", "RMSE to the exact solution of the teacher's ODE", "RMSE to exact", Takes.EXACT,
        "exact", partial(_rmse, "exact"), score=squared_error, space="pixels in [-1, 1]", place=4,
    ),
)  # fmt: skip

TABLE = {each.name: each for each in _METRICS}
"""The built-in metrics by name."""

ASKABLE = tuple(each.name for each in _METRICS if each.takes is not Takes.EXACT)
"""What can be asked for by name; the exact solution has an option of its own."""

ALWAYS = "rmse_teacher"
"""The metric of every cell."""


def of(names: Iterable[str], chosen: Callable[[MetricDefinition], bool]) -> tuple[str, ...]:
    """Return those of some metrics that are built in and of a kind."""
    return tuple(name for name in names if name in TABLE and chosen(TABLE[name]))


def public(names: Iterable[str]) -> tuple[str, ...]:
    """Return those of features that are comparable with papers, against a reference."""
    return of(names, lambda each: each.public)


def of_features(names: Iterable[str], features: str) -> tuple[str, ...]:
    """Return those of one set of features."""
    return of(names, lambda each: each.features == features)


def ordered(names: Iterable[str]) -> list[str]:
    """Return some metrics in the order of reports: the built-in ones, then those by plugins."""
    there = set(names)
    known = sorted((each for each in _METRICS if each.name in there), key=lambda each: each.place)
    return [*(each.name for each in known), *sorted(there - TABLE.keys())]
