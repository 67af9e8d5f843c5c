"""Teachers: the pre-trained model being sampled, seen as `denoise(x, sigma)`, with what its samples are judged by."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

import registries
from solverbench.errors import UnknownNameError
from solverbench.metrics import Statistics
from solverbench.schedules import EDM, NoiseSchedule

OWN = ("frechet_data", "frechet_teacher")
"""Metrics of a teacher's own features, unless others are asked for."""


@dataclass(frozen=True, eq=False)
class Reference:
    """Moments of a set of images that samples are compared with.

    Args:
        moments: of the extractor's features over the set.
        name: what the set is, for people.
        sha: sha256 of the stored moments.
        features: [m, D] float64, of some or all of its images, for what moments can't tell; None without.
        note: what a reader must know about it; empty if nothing.
    """

    moments: Statistics
    name: str
    sha: str
    features: NDArray[np.float64] | None = None
    note: str = ""


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


@dataclass(frozen=True, eq=False)
class Teacher:
    """A network with its schedule.

    Args:
        denoise: (x [B, *shape], sigma 0-d float64 on the CPU) -> data prediction, x's shape; any sigma > 0. Condition
            and guidance are bound already. Must be differentiable for training.
        name: one word.
        shape: (C, H, W) of one image.
        schedule: where sampling starts and ends.
        identity: sha256 of weights and configuration: it names the network in keys and files.
        sampler: spec of the teacher sampler, whose many-step samples learned solvers are distilled from.
        sampler_nfe: its calls.
        evaluation: how samples are judged; None leaves only paired errors.
        move: returns this teacher on another device.
        double: the same network on float64 images, for exact solutions of its ODE; None if it only runs in float32.
        exact: measure against these solutions unless told not to, because they are cheap.
        bind: seeds [B] -> the denoiser of a batch of the images with these seeds, for a teacher whose condition
            depends on the seed; None if `denoise` serves any batch.
        decode: the final state [B, *shape] -> images on [-1, 1], differentiable; None if it is them already.
        passes: rows through the network per image and call: 2 with classifier-free guidance.
    """

    denoise: Callable[[Tensor, Tensor], Tensor]
    name: str
    shape: tuple[int, int, int]
    schedule: NoiseSchedule = field(default_factory=EDM)
    identity: str = "unidentified"
    sampler: str = "heun"
    sampler_nfe: int = 64
    evaluation: Evaluation | None = None
    device: str = "cpu"
    move: Callable[[str], Teacher] | None = None
    double: Callable[[Tensor, Tensor], Tensor] | None = None
    exact: bool = False
    bind: Callable[[Sequence[int]], Callable[[Tensor, Tensor], Tensor]] | None = None
    decode: Callable[[Tensor], Tensor] | None = None
    passes: int = 1

    def denoiser(self, seeds: Sequence[int]) -> Callable[[Tensor, Tensor], Tensor]:
        """Return the denoiser of a batch of the images with these seeds."""
        return self.denoise if self.bind is None else self.bind(seeds)

    def to(self, device: str) -> Teacher:
        """Return the teacher on `device`; a teacher without `move` only gets the label."""
        if device == self.device:
            return self
        return self.move(device) if self.move else dataclasses.replace(self, device=device)


def load_teacher(name: str, device: str = "cpu") -> Teacher:
    """Return the registered teacher `name`.

    Raises:
        UnknownNameError: no such teacher.
        MissingError, RecordError: its files are not there, or damaged.
    """
    try:
        load = registries.teachers.get(name)
    except registries.UnknownName as error:
        raise UnknownNameError(str(error)) from None
    teacher = load(device)
    assert isinstance(teacher, Teacher)
    return teacher
