"""Inception features as in clean-fid, computed from images in memory with its resizers and networks."""

from __future__ import annotations

import importlib
import os
import platform
import shutil
import tempfile
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.backends import cudnn
from torch.nn.functional import interpolate

from solverbench import downloads, extras, files, userdata
from solverbench.errors import FeatureError, MissingError, RecordError, UserError
from solverbench.metrics.extractors.inception_pytorch import PytorchInception
from solverbench.wording import one_line

FILE = "inception-2015-12-05.pt"
"""File name of the network in clean-fid: NVIDIA's TorchScript form of the TensorFlow graph."""

PYTORCH_FILE = "pt_inception-2015-12-05-6726825d.pth"
"""File name of pytorch-fid's port of the same graph; it ends in a prefix of its sha256, as in torch.hub."""

SHA256 = {
    FILE: "f58cb9b6ec323ed63459aa4fb441fe750cfe39fafad6da5cb504a16f19e958f4",
    PYTORCH_FILE: "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2",
}
"""The files' sha256. The first is in k-diffusion's evaluation.py; the second begins as pytorch-fid's file name ends."""

PYTORCH_URL = f"https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/{PYTORCH_FILE}"

MODES = {
    "legacy_tensorflow": "resized inside the network, bilinear without antialiasing: what papers report as FID",
    "clean": "resized before it by PIL, bicubic with antialiasing: clean-fid's own FID",
    "legacy_pytorch": "pytorch-fid's port of the network, resized before it, bilinear without antialiasing",
}
"""clean-fid's modes: how an image is resized to 299 x 299, and for which network. Their results are not comparable."""

SIZE = 2048
"""Number of features per image."""

BATCH = 64
"""Images per call of the network; 64 of 299 x 299 take about 2 GB."""


class Inception:
    """clean-fid's Inception network with one of its resizers, on uint8 images of any size.

    Args:
        mode: one of `MODES`; legacy_pytorch needs no package.
        device: device of the network.

    Raises:
        UserError: there is no such mode.
        MissingError: clean-fid or the network's file is missing.
    """

    size = SIZE

    def __init__(self, mode: str, device: str = "cpu") -> None:
        if mode not in MODES:
            raise UserError(
                asked=f"extractor {mode!r}",
                wrong=f"not one of {', '.join(MODES)}",
                remedy="use legacy_tensorflow for FID",
            )
        self.mode, self.device, self.path = mode, device, find(mode)
        self._lock = threading.Lock()
        self._loaded: Any = None

    @property
    def identity(self) -> str:
        """The extractor's name in a metric: its mode and the shortened sha256 of its file."""
        return f"clean-fid/{self.mode}@{sha(self.path)[:12]}"

    def __call__(self, images: Tensor) -> Tensor:
        """Return features [B, 2048] float32 on the CPU of images [B, C, H, W] uint8; grey is repeated, alpha dropped.

        Raises:
            FeatureError: not uint8 images with one to four channels.
            RecordError: the network's file holds another network.
        """
        network, colour = self._network(), three(images)
        found = []
        with exactly():
            for part in torch.split(colour, BATCH):
                try:
                    found.append(network(self._resized(part)).cpu())
                except torch.cuda.OutOfMemoryError:
                    raise
                except RuntimeError as error:
                    raise RecordError(
                        asked=self.path, wrong=f"doesn't give 2048 features ({one_line(error)})", remedy=self._again
                    ) from None
        return torch.cat(found)

    def probabilities(self, features: Tensor) -> Tensor:
        """Return class probabilities [B, C] float64 of features [B, 2048]: the network's last layer without bias.

        Source: Salimans et al. 2016, arXiv:1606.03498; without bias as in its public code.

        Raises:
            RecordError: the network's file has no such layer.
        """
        network = self._network()
        try:
            weight = network.classes if isinstance(network, PytorchInception) else network.base.output.weight
        except AttributeError:
            raise RecordError(
                asked=self.path, wrong="has no output layer, but the Inception score needs it", remedy=self._again
            ) from None
        return torch.softmax(features.double() @ weight.detach().cpu().double().T, dim=1)

    def _resized(self, part: Tensor) -> Tensor:
        """Return images [B, 3, H, W] uint8 resized and scaled for the network, on its device."""
        if self.mode == "legacy_tensorflow":
            return part.to(self.device).float()
        if self.mode == "legacy_pytorch":
            levels = interpolate(part.to(self.device).float(), size=(299, 299), mode="bilinear", align_corners=False)
            return 2 * (levels.clamp(0, 255) / 255) - 1
        resize = _clean("resize").build_resizer(self.mode)
        rows = [torch.from_numpy(resize(each.permute(1, 2, 0).numpy())) for each in part.cpu()]
        return torch.stack(rows).permute(0, 3, 1, 2).to(self.device)

    def _network(self) -> Any:
        with self._lock:
            if self._loaded is None:
                try:
                    self._loaded = self._load()
                except (RuntimeError, ValueError, AttributeError, RecordError) as error:
                    found = error.finding(self.path) if isinstance(error, RecordError) else one_line(error)
                    why = f"not the Inception network ({found})"
                    raise RecordError(asked=self.path, wrong=why, remedy=self._again) from None
            return self._loaded

    def _load(self) -> Any:
        with checked(self.path) as path:
            if self.mode == "legacy_pytorch":
                return PytorchInception.read(path, self.device)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)  # torch.jit is deprecated as a whole
                network = _clean("inception_torchscript").InceptionV3W(
                    str(path.parent), download=False, resize_inside=self.mode == "legacy_tensorflow"
                )
            return network.eval().requires_grad_(False).to(self.device)

    @property
    def _again(self) -> str:
        return f"delete it and run '{fetching(self.mode)}'"


@contextmanager
def exactly() -> Iterator[None]:
    """Disable gradients, TF32 and nondeterministic cuDNN algorithms."""
    with torch.inference_mode(), cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False):
        yield


@contextmanager
def checked(path: Path) -> Iterator[Path]:
    """Yield the path of a network's file whose sha256 is the known one; TorchScript is code, which loading runs.

    The folder of `cleanfid_folder` may be writable by others, so a file there is copied to a private folder first.

    Raises:
        RecordError: it has another sha256; or it lies in that folder and is a link, or another user's.
        StoreError: it can't be read.
    """
    if path.parent != cleanfid_folder():
        _check_sha(sha(path), path)
        yield path
        return
    with tempfile.TemporaryDirectory(prefix="solverbench-") as private:
        copy = Path(private) / path.name
        with files.regular(path) as source, copy.open("wb") as sink:
            if os.fstat(source.fileno()).st_uid not in (os.geteuid(), 0):
                raise RecordError(asked=path, wrong="it belongs to another user", remedy="delete it")
            shutil.copyfileobj(source, sink, downloads.CHUNK)
        _check_sha(files.sha256(copy), path)
        yield copy


def _check_sha(found: str, path: Path) -> None:
    if found != SHA256[path.name]:
        wrong = f"its sha256 begins with {found[:12]} instead of {SHA256[path.name][:12]}"
        raise RecordError(asked=path, wrong=wrong, remedy="delete it")


def find(mode: str = "legacy_tensorflow") -> Path:
    """Return the path of a mode's network: in the user's data folder, else where clean-fid keeps it.

    Raises:
        MissingError: it is in neither, or clean-fid is needed and missing.
    """
    if mode == "legacy_pytorch":
        name, folder, address, size = PYTORCH_FILE, hub_folder(), PYTORCH_URL, "91 MB"
    else:
        try:
            _clean("resize")
        except MissingError as error:
            if (userdata.data() / FILE).is_file():
                raise
            raise MissingError(
                asked=error.asked,
                wrong=error.wrong,
                remedy=(
                    f"{error.remedy}, then run '{fetching(mode)}', which downloads {FILE} (91 MB) to {userdata.data()}"
                ),
            ) from None
        name, folder, address, size = FILE, cleanfid_folder(), url(), "91 MB"
    for place in (userdata.data(), folder):
        if (place / name).is_file():
            return place / name
    raise MissingError(
        asked="Inception network",
        wrong=f"{name} is neither in {userdata.data()} nor in {folder}",
        remedy=f"run '{fetching(mode)}', or put {address} ({size}) at {userdata.data() / name}",
    )


def fetching(mode: str) -> str:
    """Return the command that downloads the network of a mode."""
    return "solverbench refs fetch" + (f" --extractor {mode}" if mode == "legacy_pytorch" else "")


def hub_folder() -> Path:
    """Return torch.hub's folder of weights, which clean-fid and pytorch-fid also use."""
    return Path(torch.hub.get_dir()) / "checkpoints"


def cleanfid_folder() -> Path:
    """Return the folder where clean-fid itself looks for the network; any user of the machine may write to it."""
    return Path("./" if platform.system() == "Windows" else "/tmp")


def url() -> str:
    """Return the URL of the network in clean-fid's source."""
    return str(_clean("downloads_helper").inception_url)


def fetch(mode: str = "legacy_tensorflow", tell: downloads.Tell = downloads.silent) -> Path:
    """Download the network of a mode into the user's data folder; return its path, where nothing incomplete is left.

    Args:
        tell: the progress.

    Raises:
        MissingError: clean-fid is needed for the address and missing, or the download failed.
        RecordError: the file has another sha256.
    """
    name, address = (PYTORCH_FILE, PYTORCH_URL) if mode == "legacy_pytorch" else (FILE, url())
    path = userdata.data() / name
    downloads.download(address, path, tell, sha256=SHA256[name])
    return path


def three(images: Tensor) -> Tensor:
    """Return images [B, C, H, W] with three channels, as PIL's conversion to RGB: grey repeated, alpha dropped.

    Raises:
        FeatureError: not uint8 images of one to four channels.
    """
    if images.dim() != 4 or images.dtype != torch.uint8 or not 1 <= images.shape[1] <= 4:
        what = f"{images.dtype} {tuple(images.shape)}"
        raise FeatureError(
            asked="Inception features",
            wrong=f"the images are {what}",
            remedy="give uint8 images [B, C, H, W] with 1 to 4 channels",
        )
    return images[:, :1].expand(-1, 3, -1, -1) if images.shape[1] < 3 else images[:, :3]


def _clean(name: str) -> Any:
    """Return a clean-fid module, one that does not import torchvision."""
    try:
        return importlib.import_module(f"cleanfid.{name}")
    except ImportError as error:
        raise MissingError(
            asked="Inception features",
            wrong=f"clean-fid isn't installed ({error})",
            remedy=(
                f"run {extras.install('fid')}, or where "
                "torchvision can't be installed: pip install --no-deps clean-fid && pip install requests"
            ),
        ) from None


@cache
def _sha_of(path: Path, size: int, changed: int) -> str:
    return files.sha256(path)


def sha(path: Path) -> str:
    """Return the sha256 of a file; recomputed only if the file has changed."""
    state = os.stat(path)
    return _sha_of(path, state.st_size, state.st_mtime_ns)
