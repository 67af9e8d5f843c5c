"""Metrics by plugins: a number of each image and their mean, or a number of a set of images."""

from __future__ import annotations

from abc import ABC, abstractmethod
from functools import cache, partial
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from solverbench import plugins, registries
from solverbench.errors import FeatureError, PluginError, UnknownNameError
from solverbench.metrics import reduction, table
from solverbench.metrics.reduction import Array, Kept
from solverbench.metrics.table import MetricDefinition, Takes

SCORE = "score_"
"""Before the name of a plugin's metric, in the names of a block's arrays."""


class Metric(ABC):
    """A number of each image, whose mean is reported with its interval; with `of_set`, a number of a set of images.

    Subclass it, give it a `name`, write `values`; the docstring's first line is its label in reports. There is one
    instance for each device, made before anything is measured: load a network in `__init__`. Several threads call it
    at once.

    Args:
        device: of the images that it will be given.
    """

    name: ClassVar[str] = ""
    higher: ClassVar[bool] = False
    """Whether higher values are better."""
    log: ClassVar[bool] = False
    """Whether it is drawn on a logarithmic axis."""
    identity: ClassVar[str] = ""
    """Of what its numbers depend on beside its source file, such as the sha256 of a network's weights."""

    def __init__(self, device: str = "cpu") -> None:
        self.device = device

    @abstractmethod
    def values(self, images: Tensor) -> Tensor:
        """Return a finite number of each image [B], each independent of the other images.

        With an `of_set` of its own it may also return what that needs of each image, [B, ...]: pixels or features.

        Args:
            images: [B, C, H, W] uint8, as they would be stored in a file.
        """

    def of_set(self, values: Tensor) -> float | Tensor:
        """Return a finite number of a set of images from the `values` of its images: their mean.

        Override it for what isn't a mean, such as a distance between sets. It is called with the images of a replicate,
        and then with each of the replicate's ten blocks left out, from which the interval follows.

        Args:
            values: [n, ...] on the CPU, what `values` returned, in the order of the images: float64 if it is a number
                of each image, else float32.
        """
        return values.mean()


def load(name: str, device: str) -> Metric:
    """Return a plugin's metric for images on a device, the same one each time.

    Raises:
        UnknownNameError, PluginError: no such metric, or it can't be had.
        UserError: a mistake of the user that the metric itself tells, such as weights that are missing.
    """
    cls: type[Metric] = plugins.get(registries.metrics, name)
    with plugins.blamed(registries.metrics, name):
        return _made(cls, device)


def identity(name: str) -> str:
    """Return what names a plugin's metric in keys: it changes with the file that defines it.

    Raises:
        UnknownNameError, PluginError: no such metric, or it can't be had.
    """
    cls: type[Metric] = plugins.get(registries.metrics, name)
    code = plugins.provenance(registries.metrics, name)["sha256"]
    if not code and not cls.identity:
        raise PluginError(
            f"metric {name!r}: its source can't be read, so that its numbers can't be told from those of another one; "
            "define it in a file, or give it an `identity`"
        )
    return " ".join(filter(None, (name, cls.identity, code[:16])))


def label(name: str) -> str:
    """Return what a plugin's metric is called in reports."""
    return (registries.metrics.about(name) or name).rstrip(".")


def find(name: str) -> MetricDefinition:
    """Return the definition of a metric, built in or by a plugin.

    Raises:
        UnknownNameError, PluginError: no such metric, or it can't be had.
    """
    if name in table.TABLE:
        return table.TABLE[name]
    cls: type[Metric] = plugins.get(registries.metrics, name)
    array, called = SCORE + name, label(name)
    whole = cls.of_set is not Metric.of_set
    return MetricDefinition(
        name, called, called, Takes.IMAGE, array,
        partial(_of_set, name, array) if whole else partial(table.mean, array),
        score=partial(_rows if whole else _numbers, name),
        network=partial(load, name),
        identity=lambda device: identity(name),
        space="plugin, higher is better" if cls.higher else "plugin",
        higher=cls.higher,
        log=cls.log,
    )  # fmt: skip


def lookup(name: str) -> MetricDefinition | None:
    """Return the definition of a metric; None if nobody has it now."""
    try:
        return find(name)
    except (UnknownNameError, PluginError):
        return None


def _numbers(name: str, metric: Metric, images: Tensor, others: None) -> Tensor:
    found = metric.values(images)
    if tuple(found.shape) != (len(images),):
        raise FeatureError(f"metric {name} returned {tuple(found.shape)} for {len(images)} images; it must return [B]")
    return found


def _rows(name: str, metric: Metric, images: Tensor, others: None) -> Tensor:
    found = metric.values(images)
    if not found.dim() or len(found) != len(images):
        raise FeatureError(
            f"metric {name} returned {tuple(found.shape)} for {len(images)} images; it must return [B, ...]"
        )
    return found if found.dim() == 1 else found.float()


def _of_set(name: str, array: str, kept: Kept) -> tuple[Array, Array]:
    metric = load(name, kept.device)

    def number(rows: NDArray[Any]) -> float:
        found = float(metric.of_set(torch.from_numpy(rows)))
        if not np.isfinite(found):
            raise FeatureError(f"metric {name} returned {found} for a set of {len(rows)} images; it must be finite")
        return found

    return reduction.of_sets(kept.blocks(array), number)


@cache
def _made(cls: type[Metric], device: str) -> Metric:
    return cls(device)
