"""Inception features as clean-fid takes them, of images in memory: its resizers and its network, no file between."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import os
import platform
import threading
import warnings
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.backends import cudnn

from solverbench import places
from solverbench.errors import FeatureError, MissingError, RecordError, UserError

FILE = "inception-2015-12-05.pt"
"""The network's file, by the name that clean-fid gives it: NVIDIA's TorchScript form of the TensorFlow graph."""

MODES = {
    "legacy_tensorflow": "resized inside the network, bilinear without antialiasing: what papers report as FID",
    "clean": "resized before it by PIL, bicubic with antialiasing: clean-fid's own FID",
}
"""clean-fid's ways to bring an image to 299 x 299; their numbers aren't comparable."""

SIZE = 2048
"""Features of an image."""

BATCH = 64
"""Images per call of the network: 64 of 299 x 299 take some 2 GB."""


class Inception:
    """clean-fid's Inception network with one of its resizers, on uint8 images of any size.

    Args:
        mode: legacy_tensorflow or clean.
        device: of the network.

    Raises:
        UserError: no such mode.
        MissingError: clean-fid or the network's file isn't there.
    """

    size = SIZE

    def __init__(self, mode: str, device: str = "cpu") -> None:
        if mode not in MODES:
            raise UserError(f"extractor {mode!r}: not one of {', '.join(MODES)}; use legacy_tensorflow for FID")
        self.mode, self.device, self.path = mode, device, find()
        self._lock = threading.Lock()
        self._loaded: Any = None

    @property
    def identity(self) -> str:
        """The extractor's name in a metric: its mode and the sha256 of its file, shortened."""
        return f"clean-fid/{self.mode}@{_sha(self.path)[:12]}"

    def __call__(self, images: Tensor) -> Tensor:
        """Return features [B, 2048] float32 on the CPU of images [B, C, H, W] uint8; grey is repeated, alpha dropped.

        Raises:
            FeatureError: images with more than four channels.
            RecordError: the network's file isn't that network.
        """
        network, resize = self._network(), _resizer(self.mode)
        colour = three(images)
        found = []
        with torch.inference_mode(), cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False):
            for part in torch.split(colour, BATCH):
                if self.mode == "legacy_tensorflow":
                    ready = part.to(self.device).float()
                else:
                    rows = [torch.from_numpy(resize(each.permute(1, 2, 0).numpy())) for each in part.cpu()]
                    ready = torch.stack(rows).permute(0, 3, 1, 2).to(self.device)
                try:
                    found.append(network(ready).cpu())
                except RuntimeError as error:
                    raise RecordError(f"{self.path}: gives no 2048 features ({_line(error)}); {_again()}") from None
        return torch.cat(found)

    def probabilities(self, features: Tensor) -> Tensor:
        """Return class probabilities [B, C] float64 of features [B, 2048]: the network's last layer without its bias.

        Source: Salimans et al. 2016, arXiv:1606.03498; without the bias as its public code has it.

        Raises:
            RecordError: the network's file has no such layer.
        """
        try:
            weight = self._network().base.output.weight.detach().cpu().double()
        except AttributeError:
            raise RecordError(
                f"{self.path}: has no output layer, which the Inception score needs; {_again()}"
            ) from None
        return torch.softmax(features.double() @ weight.T, dim=1)

    def _network(self) -> Any:
        with self._lock:
            if self._loaded is None:
                module = _clean("inception_torchscript")
                try:
                    with warnings.catch_warnings():
                        warnings.simplefilter("ignore", DeprecationWarning)  # of torch.jit as a whole
                        self._loaded = module.InceptionV3W(
                            str(self.path.parent), download=False, resize_inside=self.mode == "legacy_tensorflow"
                        )
                except (RuntimeError, ValueError, AttributeError) as error:
                    raise RecordError(f"{self.path}: not the Inception network ({_line(error)}); {_again()}") from None
                self._loaded.eval().requires_grad_(False).to(self.device)
            return self._loaded


def find() -> Path:
    """Return the network's file: in the user's data folder, else where clean-fid keeps it.

    Raises:
        MissingError: in neither, or no clean-fid.
    """
    _clean("resize")
    for folder in (places.data(), cleanfid_folder()):
        if (folder / FILE).is_file():
            return folder / FILE
    raise MissingError(
        f"Inception network: {FILE} is neither in {places.data()} nor in {cleanfid_folder()}; run 'solverbench refs "
        f"fetch', or put {url()} (91 MB) at {places.data() / FILE}"
    )


def cleanfid_folder() -> Path:
    """Return where clean-fid itself looks for the network, which anyone on this machine may write to."""
    return Path("./" if platform.system() == "Windows" else "/tmp")


def url() -> str:
    """Return where clean-fid downloads the network from, as its own source says."""
    return str(_clean("downloads_helper").inception_url)


def fetch() -> Path:
    """Download the network into the user's data folder and return its place; it is whole or not there.

    Raises:
        MissingError: no clean-fid, or no answer.
    """
    from urllib.error import URLError
    from urllib.request import urlopen

    from solverbench import files

    path = places.data() / FILE
    if not path.is_file():
        try:
            with urlopen(url(), timeout=30) as answer:
                content = answer.read()
        except (URLError, OSError) as error:
            raise MissingError(f"{url()}: can't be downloaded ({_line(error)}); put the file at {path}") from None
        files.write_bytes(path, content)
    return path


def three(images: Tensor) -> Tensor:
    """Return images [B, C, H, W] with three channels, as PIL converts to RGB: grey repeated, alpha dropped.

    Raises:
        FeatureError: not uint8 images of one to four channels.
    """
    if images.dim() != 4 or images.dtype != torch.uint8 or not 1 <= images.shape[1] <= 4:
        what = f"{images.dtype} {tuple(images.shape)}"
        raise FeatureError(f"Inception features: of {what}; give uint8 images [B, C, H, W] with 1 to 4 channels")
    return images[:, :1].expand(-1, 3, -1, -1) if images.shape[1] < 3 else images[:, :3]


def _resizer(mode: str) -> Any:
    return _clean("resize").build_resizer(mode)


def _clean(name: str) -> Any:
    """A module of clean-fid that doesn't import torchvision."""
    try:
        return importlib.import_module(f"cleanfid.{name}")
    except ImportError as error:
        raise MissingError(
            f"Inception features: clean-fid isn't there ({error}); run pip install 'solverbench[fid]', or where "
            "torchvision can't be installed: pip install --no-deps clean-fid && pip install requests"
        ) from None


@cache
def _sha_of(path: Path, size: int, changed: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sha(path: Path) -> str:
    state = os.stat(path)
    return _sha_of(path, state.st_size, state.st_mtime_ns)


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:160] or type(error).__name__


def _again() -> str:
    return "delete it and run 'solverbench refs fetch'"
