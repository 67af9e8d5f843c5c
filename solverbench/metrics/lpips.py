"""LPIPS to the teacher's own sample, by the lpips package (extra `lpips`), imported on use."""

from __future__ import annotations

import importlib
import threading
import warnings
from typing import Any

import torch
from torch import Tensor

from solverbench.errors import MissingError

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
        try:
            self._package: Any = importlib.import_module("lpips")
        except Exception as error:  # a torchvision that doesn't fit torch raises RuntimeError
            raise MissingError(
                f"metric lpips_teacher: the lpips package can't be imported ({' '.join(str(error).split())[:120]}); "
                "run pip install 'solverbench[lpips]' with a torchvision made for this torch"
            ) from None
        self.device = device

    def __call__(self, images: Tensor, goals: Tensor) -> Tensor:
        """Return the distance of each of `images` [B, C, H, W] on [-1, 1] to its goal, [B] float64 on the CPU.

        Raises:
            MissingError: VGG16's weights are missing and cannot be downloaded.
        """
        with torch.inference_mode():
            found = self.network()(_three(images).to(self.device), _three(goals).to(self.device))
        return torch.as_tensor(found).flatten().double().cpu()

    def network(self) -> Any:
        """Return the network, loaded once per process and device.

        Raises:
            MissingError: VGG16's weights are missing and cannot be downloaded.
        """
        with _LOCK:
            key = self._package, self.device
            if key not in _LOADED:
                try:
                    with warnings.catch_warnings():
                        warnings.simplefilter("ignore")
                        _LOADED[key] = self._package.LPIPS(net="vgg", verbose=False).eval().to(self.device)
                except (OSError, RuntimeError) as error:
                    raise MissingError(
                        f"metric lpips_teacher: VGG16's weights can't be had ({' '.join(str(error).split())[:120]}); "
                        f"put torchvision's vgg16-397923af.pth into {torch.hub.get_dir()}/checkpoints"
                    ) from None
            return _LOADED[key]


def _three(images: Tensor) -> Tensor:
    return images.float().clamp(-1, 1).expand(-1, 3, -1, -1) if images.shape[1] == 1 else images.float().clamp(-1, 1)
