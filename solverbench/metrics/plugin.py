"""Metrics of plugins: the mean of a number per image, or a number of a set of images."""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from functools import cache, partial
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from solverbench import plugins, registries
from solverbench.errors import FeatureError, PluginError
from solverbench.metrics import reduction, table
from solverbench.metrics.reduction import Array, Kept
from solverbench.metrics.table import MetricDefinition, Takes

SCORE = "score_"
"""Prefix of a block's array for a plugin's metric, followed by the metric's name."""


class Metric(ABC):
    """Base class of plugin metrics: the mean of a number per image, or, with `of_set`, a number of a set of images.

    Subclass it, set `name` and define `values`; the docstring's first line is its label in reports. There is one
    instance per device, created before anything is measured, so load a network in `__init__`. Several threads call it
    at once. If `values` has an argument `prompts`, as in `values(self, images, prompts)`, it is given the prompt of
    each image, a list of B texts, and the metric needs a teacher with prompts.

    Args:
        device: device of the images.
    """

    name: ClassVar[str] = ""
    higher: ClassVar[bool] = False
    """Whether higher values are better."""
    log: ClassVar[bool] = False
    """Whether it is drawn on a logarithmic axis."""
    bounds: ClassVar[tuple[float, float]] = table.UNBOUNDED
    """Least and greatest value that it can have; intervals end there."""
    identity: ClassVar[str] = ""
    """Identity of further inputs of its numbers besides its source file, such as the sha256 of a network's weights."""

    def __init__(self, device: str = "cpu") -> None:
        self.device = device

    @abstractmethod
    def values(self, images: Tensor) -> Tensor:
        """Return a finite number per image [B], independent of the other images.

        A subclass with its own `of_set` may also return rows [B, ...] for it, such as pixels or features.

        Args:
            images: [B, C, H, W] uint8, as they would be stored in a file.
        """

    def of_set(self, values: Tensor) -> float | Tensor:
        """Return a finite number of a set of images from their `values`; by default the mean.

        Override it for other numbers, such as a distance between sets. It is called with the images of a replicate,
        and then with each of the replicate's ten blocks left out, which gives the interval.

        Args:
            values: [n, ...] on the CPU, the results of `values` in the order of the images: float64 for one number per
                image, else float32.
        """
        return values.mean()


def load(name: str, device: str) -> Metric:
    """Return a plugin's metric for images on a device, the same instance each time.

    Raises:
        UnknownNameError, PluginError: no such metric, or it can't be loaded.
        UserError: an error that the metric itself raises for the user, such as missing weights.
    """
    cls: type[Metric] = plugins.get(registries.metrics, name)
    with plugins.blamed(registries.metrics, name):
        return _made(cls, device)


def identity(name: str) -> str:
    """Return the identity of a plugin's metric in keys, which changes with the file that defines it.

    Raises:
        UnknownNameError, PluginError: no such metric, or it can't be loaded.
    """
    cls: type[Metric] = plugins.get(registries.metrics, name)
    code = plugins.provenance(registries.metrics, name)["sha256"]
    if not code and not cls.identity:
        raise PluginError(
            asked=f"metric {name!r}",
            wrong="its source can't be read, so its results can't be distinguished from another metric's",
            remedy="define it in a file, or give it an `identity`",
        )
    return " ".join(filter(None, (name, cls.identity, code[:16])))


def label(name: str) -> str:
    """Return the label of a plugin's metric in reports."""
    return (registries.metrics.about(name) or name).rstrip(".")


def find(name: str) -> MetricDefinition:
    """Return the definition of a metric, built in or of a plugin.

    Raises:
        UnknownNameError, PluginError: no such metric, or it can't be loaded.
    """
    if name in table.TABLE:
        return table.TABLE[name]
    cls: type[Metric] = plugins.get(registries.metrics, name)
    array, called = SCORE + name, label(name)
    whole = cls.of_set is not Metric.of_set
    takes = Takes.PROMPT if "prompts" in inspect.signature(cls.values).parameters else Takes.IMAGE
    return MetricDefinition(
        name, called, called, takes, array,
        partial(_of_set, name, array) if whole else partial(table.mean, array),
        score=partial(_rows if whole else _numbers, name),
        network=partial(load, name),
        identity=lambda device: identity(name),
        space="plugin, higher is better" if cls.higher else "plugin",
        higher=cls.higher,
        log=cls.log,
        bounds=cls.bounds,
    )  # fmt: skip


def described(name: str) -> MetricDefinition:
    """Return the definition of a metric for a report; that of a plugin's metric which can't be loaded has its name."""
    try:
        return find(name)
    except PluginError:
        return MetricDefinition(name, name, name, Takes.IMAGE, SCORE + name, partial(table.mean, SCORE + name),
                                space="plugin")  # fmt: skip


def _values(metric: Metric, images: Tensor, prompts: Sequence[str] | None) -> Tensor:
    values: Callable[..., Tensor] = metric.values
    return values(images) if prompts is None else values(images, prompts=list(prompts))


def _numbers(name: str, metric: Metric, images: Tensor, prompts: Sequence[str] | None) -> Tensor:
    found = _values(metric, images, prompts)
    if tuple(found.shape) != (len(images),):
        raise FeatureError(
            asked=f"metric {name}", wrong=f"returned {tuple(found.shape)} for {len(images)} images", remedy="return [B]"
        )
    return found


def _rows(name: str, metric: Metric, images: Tensor, prompts: Sequence[str] | None) -> Tensor:
    found = _values(metric, images, prompts)
    if not found.dim() or len(found) != len(images):
        raise FeatureError(
            asked=f"metric {name}",
            wrong=f"returned {tuple(found.shape)} for {len(images)} images",
            remedy="return [B, ...]",
        )
    return found if found.dim() == 1 else found.float()


def _of_set(name: str, array: str, kept: Kept) -> tuple[Array, Array]:
    metric = load(name, kept.device)

    def number(rows: NDArray[Any]) -> float:
        found = float(metric.of_set(torch.from_numpy(rows)))
        if not np.isfinite(found):
            raise FeatureError(
                asked=f"metric {name}",
                wrong=f"returned {found} for a set of {len(rows)} images",
                remedy="return a finite number",
            )
        return found

    return reduction.of_sets(kept.blocks(array), number)


@cache
def _made(cls: type[Metric], device: str) -> Metric:
    return cls(device)
