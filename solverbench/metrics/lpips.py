"""LPIPS by VGG16, as a metric and as a loss's network: the package of the extra `lpips`, imported when asked for."""

from __future__ import annotations

import importlib
import threading
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from solverbench import extras
from solverbench.errors import MissingError
from solverbench.wording import one_line

METRIC = "metric lpips_teacher"

WEIGHTS = "https://download.pytorch.org/models/vgg16-397923af.pth"
"""Address of VGG16's weights, which torchvision downloads."""

_LOADED: dict[tuple[Any, str], Any] = {}
_LOCK = threading.Lock()


class LPIPS:
    """The perceptual distance of two images by VGG16; lower is closer.

    Args:
        device: device of the network.

    Raises:
        MissingError: the package cannot be imported.

    Source: Zhang et al. 2018, arXiv:1801.03924, version 0.1 of its public code.
    """

    identity = "lpips 0.1 vgg"

    def __init__(self, device: str = "cpu") -> None:
        _package(METRIC)
        self.device = device

    def __call__(self, images: Tensor, goals: Tensor) -> Tensor:
        """Return the distance of each of `images` [B, C, H, W] on [-1, 1] to its goal, [B] float64 on the CPU.

        Raises:
            MissingError: VGG16's weights are missing and cannot be downloaded.
        """
        with torch.inference_mode():
            found = self.network()(colour(images.float()).to(self.device), colour(goals.float()).to(self.device))
        return torch.as_tensor(found).flatten().double().cpu()

    def network(self) -> Any:
        """Return the network.

        Raises:
            MissingError: VGG16's weights are missing and cannot be downloaded.
        """
        return network(METRIC, self.device)


def network(asked: str, device: str, *, download: bool = True) -> Any:
    """Return LPIPS's network on a device, loaded once: two batches [B, 3, H, W] on [-1, 1] to [B, 1, 1, 1].

    Args:
        asked: the metric or loss, for messages.
        download: whether torchvision may download missing weights of VGG16.

    Raises:
        MissingError: the package or the weights aren't there.
    """
    package, weights = _package(asked), Path(torch.hub.get_dir()) / "checkpoints" / Path(WEIGHTS).name
    remedy = f"put {WEIGHTS} at {weights}"
    if not download and not weights.is_file():
        raise MissingError(asked=asked, wrong="the VGG16 weights are missing", remedy=remedy)
    with _LOCK:
        key = package, device
        if key not in _LOADED:
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    made = package.LPIPS(net="vgg", verbose=False).requires_grad_(False)
                _LOADED[key] = made.eval().to(device)
            except (OSError, RuntimeError) as error:
                wrong = f"the VGG16 weights can't be downloaded ({one_line(error)})"
                raise MissingError(asked=asked, wrong=wrong, remedy=remedy) from None
        return _LOADED[key]


def colour(images: Tensor) -> Tensor:
    """Return images [B, C, H, W] clipped to [-1, 1], grey ones repeated to three channels."""
    return images.clamp(-1, 1).expand(-1, 3, -1, -1) if images.shape[1] == 1 else images.clamp(-1, 1)


def _package(asked: str) -> Any:
    try:
        return importlib.import_module("lpips")
    except Exception as error:  # a torchvision that doesn't fit torch raises RuntimeError
        wrong = f"the lpips package can't be imported ({one_line(error)})"
        remedy = f"run {extras.install('lpips')}, with a torchvision made for this torch"
        raise MissingError(asked=asked, wrong=wrong, remedy=remedy) from None
