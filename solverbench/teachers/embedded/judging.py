"""References and metric features of an embedded teacher, from the files next to its weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from torch import Tensor

from solverbench.errors import RecordError
from solverbench.files import read_arrays
from solverbench.metrics.evaluation import Reference
from solverbench.metrics.frechet import Moments
from solverbench.teachers.convergence import Convergence
from solverbench.teachers.embedded import artifacts
from solverbench.teachers.embedded.networks import FeatureNet


def references(name: str, folder: Path, made_for: Mapping[str, str | None], *, of: str = "other weights") -> Any:
    """Return the references section of the record of `folder`.

    Args:
        name: name of the teacher.
        made_for: sha256 of each weights file that the references must have been made for.
        of: what other references would belong to, for the error message.

    Raises:
        RecordError: the references were made for other files.
    """
    found = artifacts.read_record(folder).get("references", {})
    if found.get("weights_sha256") != made_for:
        raise RecordError(
            asked=name,
            wrong=f"the references in {folder} were computed for {of}",
            remedy=f"run python -m tools.embedded.{name}_references --out {folder}",
        )
    return found


def reference(folder: Path, facts: Mapping[str, Any], seeds: str, what: str) -> Reference:
    """Return the reference whose moments file in `folder` is named by `facts`, a section of a record.

    Args:
        seeds: key of `facts` with the seeds of the images.
        what: human-readable description of the images.

    Raises:
        MissingError, RecordError: the file doesn't exist or differs from the recorded one.
    """
    path = folder / str(facts["file"])
    if artifacts.digest(path) != facts["sha256"]:
        raise RecordError(
            asked=path, wrong=f"not the file that {artifacts.RECORD} names", remedy="restore or rebuild both"
        )
    arrays = read_arrays(path)
    moments = Moments(int(arrays["n"]), arrays["total"], arrays["outer"])
    sampler = f", {facts['sampler']} {facts['nfe']} calls" if "sampler" in facts else ""
    name = f"{what}{sampler}, {seeds.replace('_', ' ')} {facts[seeds]}"
    return Reference(moments, name, facts["sha256"])


def sampler_error(facts: Mapping[str, Any], section: str = "convergence") -> Convergence | None:
    """Return the measured error of the teacher's sampler in a record; None if it has none."""
    return Convergence.of(facts[section]) if section in facts else None


class Extractor:
    """Metric features [B, D] float32 of uint8 images, from a network that is loaded at the first call.

    A training holds the teacher but never calls its extractor, so it never loads the network.

    Args:
        load: function that returns the network.
    """

    def __init__(self, load: Callable[[], FeatureNet]) -> None:
        self._load = load

    @cached_property
    def network(self) -> FeatureNet:
        """The metric network."""
        return self._load()

    def __call__(self, images: Tensor) -> Tensor:
        """Return the features of images [B, C, H, W]."""
        return self.network.features(images)
