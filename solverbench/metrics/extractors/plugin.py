"""Feature extractors of plugins: a class with a function from uint8 images to features."""

from __future__ import annotations

from abc import ABC, abstractmethod
from functools import cache
from typing import Any, ClassVar

import torch
from torch import Tensor

from solverbench import files, plugins, registries
from solverbench.errors import FeatureError, PluginError

APART = 0.02
"""Largest difference of an image's features between two calls, as a share of the largest feature. float32 and TF32 stay
far below it; dropout, and normalisation by the batch, are far above it."""

PROBED = 4
"""Number of images of the first batch that are computed again, alone."""


class Extractor(ABC):
    """Base class of plugin extractors: a function from images to feature vectors, for distances between sets.

    Subclass it, set `name` and define `features`; the docstring's first line is its description. There is one instance
    per device, created before anything is measured, so load a network in `__init__`. Several threads call it at once.

    Args:
        device: device of the images and of the network.
    """

    name: ClassVar[str] = ""
    channels: ClassVar[int] = 3
    """Number of channels of the images that it is given: 3, where grey is repeated; or 1, where colour is refused."""
    identity: str = ""
    """Identity of what its features depend on besides its source file, such as `sb.fingerprint(network)`."""

    def __init__(self, device: str = "cpu") -> None:
        self.device = device

    @abstractmethod
    def features(self, images: Tensor) -> Tensor:
        """Return a feature vector for each image, [B, D], finite and independent of the other images.

        Args:
            images: [B, channels, H, W] uint8 on `device`, as they would be stored in a file.
        """


class Plugged:
    """A plugin's extractor as a network: its features are checked, and its errors name its file and line.

    Args:
        made: the plugin's instance.

    Raises:
        PluginError: it has nothing that distinguishes its features from another extractor's.
    """

    def __init__(self, made: Extractor) -> None:
        self.made, self.name = made, made.name
        code = plugins.provenance(registries.extractors, self.name).get("sha256", "")
        if not code and not made.identity:
            raise PluginError(
                asked=f"extractor {self.name!r}",
                wrong="its source can't be read, so its features can't be distinguished from another extractor's",
                remedy="define it in a file, or give it an `identity`",
            )
        self.identity = f"{self.name}@{files.digest([made.identity, code])[:12]}"
        """Its name in results, with a sha256 of its source file and its own `identity`."""
        self._probed = False

    def __call__(self, images: Tensor) -> Tensor:
        """Return features [B, D] float32 on the CPU of images [B, C, H, W] uint8.

        The first images are also computed alone, once.

        Raises:
            FeatureError: the features aren't [B, D], or depend on the batch or on chance; or the images are coloured
                and it takes one channel.
            PluginError: the plugin fails.
        """
        images = coloured(images, self.made.channels, self.name).to(self.made.device)
        found = self.plain(images)
        if not self._probed:
            few = images[:PROBED]
            alone = torch.cat([self.plain(each[None]) for each in few])
            if (apart := difference(found[: len(few)], alone)) > APART:
                raise FeatureError(
                    asked=f"extractor {self.name!r}",
                    wrong=f"an image alone has other features than in a batch of {len(images)} ({apart:.0%} apart)",
                    remedy="call .eval() on its network, and use no random numbers",
                )
            self._probed = True
        return found

    def __reduce__(self) -> tuple[Any, tuple[str, str]]:
        """Be loaded again in another process."""
        return load, (self.name, self.made.device)

    def plain(self, images: Tensor) -> Tensor:
        """Return the features [B, D] of images [B, channels, H, W] on its device, without the probe."""
        with plugins.blamed(registries.extractors, self.name), torch.no_grad():
            found = self.made.features(images)
        if not isinstance(found, Tensor) or found.dim() != 2 or len(found) != len(images):
            what = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
            raise FeatureError(
                asked=f"extractor {self.name!r}",
                wrong=f"returned {what} for {len(images)} images",
                remedy="return a tensor [B, D]",
            )
        return found.detach().float().cpu()


def load(name: str, device: str) -> Plugged:
    """Return a plugin's extractor for images on a device, the same instance each time.

    Raises:
        UnknownNameError, PluginError: no such extractor, or it can't be loaded.
        UserError: an error that the extractor itself raises for the user, such as missing weights.
    """
    cls: type[Extractor] = plugins.get(registries.extractors, name)
    with plugins.blamed(registries.extractors, name):
        return _made(cls, device)


def there(name: str) -> bool:
    """Return whether a plugin offers an extractor of this name."""
    return name in registries.extractors and name not in registries.extractors.builtin


def coloured(images: Tensor, channels: int, name: str) -> Tensor:
    """Return images with 3 channels, grey ones repeated, or with 1.

    Raises:
        FeatureError: they have another number of channels, or `channels` is 1 and they are coloured.
    """
    have = images.shape[1]
    if have == channels:
        return images
    if have == 1 and channels == 3:
        return images.expand(-1, 3, -1, -1)
    if have == 3 and channels == 1 and bool((images == images[:, :1]).all()):
        return images[:, :1]
    coloured = have == 3 and channels == 1
    raise FeatureError(
        asked=f"extractor {name!r}",
        wrong="takes grey images, but these are coloured" if coloured else f"takes {channels} channels, not {have}",
        remedy="give other images, or set `channels` in its class to 3" if coloured else "give images of 1 or 3",
    )


def difference(found: Tensor, other: Tensor) -> float:
    """Return the largest difference of two [B, D], as a share of the largest absolute value; infinite if not finite."""
    if found.shape != other.shape:
        return float("inf")
    apart, largest = float((found - other).abs().max()), float(found.abs().max())
    return 0.0 if apart == 0 else apart / max(largest, 1e-30) if apart == apart else float("inf")


@cache
def _made(cls: type[Extractor], device: str) -> Plugged:
    return Plugged(cls(device))
