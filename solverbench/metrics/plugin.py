"""Metrics by plugins: a number of each image, and its mean over the images of a replicate."""

from __future__ import annotations

from abc import ABC, abstractmethod
from functools import cache
from typing import ClassVar

from torch import Tensor

from solverbench import plugins, registries
from solverbench.errors import PluginError


class Metric(ABC):
    """A number of each image, whose mean is reported with its interval.

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

        Args:
            images: [B, C, H, W] uint8, as they would be stored in a file.
        """


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


@cache
def _made(cls: type[Metric], device: str) -> Metric:
    return cls(device)
