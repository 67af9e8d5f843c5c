"""Images in one array: `arr_0` or `images` of an .npz, or an .npy."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from math import prod
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from numpy.lib import format as npy
from torch import Tensor

from solverbench.errors import RecordError, UserError
from solverbench.evaluation import contents, image_files, pixels
from solverbench.evaluation.pictures import InOrder, Pictures, unheard

NAMES = ("arr_0", "images")
"""Names of the array of images in an .npz: of guided-diffusion's files, whose labels `arr_1` are not read, and of
`solverbench sample --format npz`."""

_BROKEN = "download or make it again"
_LEVELS = (
    "give uint8, or uint16 with the range 0-65535: images on [0, 1] as (255 * x).round().astype('uint8'), on [-1, 1] "
    "as (127.5 * x + 128).clip(0, 255).astype('uint8')"
)


@dataclass(frozen=True)
class Arrays(Pictures):
    """The images of an array [N, H, W, C], [N, C, H, W] or [N, H, W] of uint8 or uint16, with 1 or 3 channels.

    Args:
        path: .npz or .npy.
        shape: shape of the whole array.
        dtype: its numbers, as numpy writes them.
        count: number of first images to use.
        sha: sha256 of its content.
    """

    path: Path
    shape: tuple[int, ...]
    dtype: str
    count: int
    sha: str

    @classmethod
    def at(cls, path: Path, count: int | None = None) -> Arrays:
        """Return the images of a file, which is read whole once to verify it.

        Raises:
            RecordError: it is damaged, or not an array of images.
            UserError: there are fewer than `count` images.
        """
        hasher = hashlib.sha256()
        with _opened(path) as file:
            shape, dtype, fortran = _header(file)
            left = prod(shape) * dtype.itemsize
            while piece := file.read(2**20):
                hasher.update(piece)
                left -= len(piece)
        if left:
            wrong = f"has {abs(left)} bytes too {'few' if left > 0 else 'many'} for its shape {shape}"
            raise RecordError(asked=path, wrong=wrong, remedy=_BROKEN)
        if fortran:
            wrong = "an array in Fortran order"
            raise RecordError(asked=path, wrong=wrong, remedy="store numpy.ascontiguousarray of it")
        if dtype not in (np.uint8, np.uint16):
            raise RecordError(asked=path, wrong=f"images of {dtype}, whose range isn't stated", remedy=_LEVELS)
        _axes(path, shape)
        if count is not None and count > shape[0]:
            raise UserError(
                asked=f"--count {count}", wrong=f"{path} holds {shape[0]} images", remedy="give that many or fewer"
            )
        hasher.update(repr((shape, dtype.str, count or shape[0])).encode())
        return cls(path, shape, dtype.str, count or shape[0], hasher.hexdigest())

    def __len__(self) -> int:
        return self.count

    @property
    def identity(self) -> str:
        return self.sha

    @property
    def origin(self) -> str:
        return self.path.resolve().name

    def read(self, part: range, note: Callable[[str], None] = unheard) -> Iterator[Tensor]:
        channels, dtype = _axes(self.path, self.shape), np.dtype(self.dtype)
        rows = [np.frombuffer(each, dtype) for each in self._rows.take(part)]
        images = np.stack(rows).reshape(-1, *self.shape[1:])
        if dtype == np.uint16:
            images = pixels.levels_of_16_bits(images)
        images = np.expand_dims(images, 1) if channels == 0 else np.moveaxis(images, channels, 1)
        yield torch.from_numpy(np.array(images)).expand(-1, 3, -1, -1).contiguous()

    @cached_property
    def _rows(self) -> InOrder[bytes]:
        return InOrder(self._from)

    def _from(self, begin: int) -> Iterator[bytes]:
        """Yield the bytes of each image from number `begin` on."""
        size = prod(self.shape[1:]) * np.dtype(self.dtype).itemsize
        with _opened(self.path) as file:
            _header(file)
            file.seek(begin * size, 1)
            while content := file.read(size):
                yield content


def of_arrays(path: Path) -> bool:
    """Return whether a file holds an array of images: three or four axes, and no statistics beside it.

    Raises:
        RecordError: it is an .npz or .npy that can't be read.
    """
    if path.suffix not in (".npz", ".npy"):
        return False
    with _opened(path, missing=True) as file:
        return file is not None and len(_header(file)[0]) in (3, 4)


@contextmanager
def _opened(path: Path, *, missing: bool = False) -> Iterator[Any]:
    """Yield the array's file at its beginning; None if an .npz has none, or statistics, where that is allowed."""
    try:
        if path.suffix == ".npy":
            with path.open("rb") as file:
                yield file
            return
        with contents.archive(path) as archive:
            names = archive.namelist()
            found = [f"{name}.npy" for name in NAMES if f"{name}.npy" in names and "mu.npy" not in names]
            if missing and not found:
                yield None
                return
            with archive.open(found[0]) as member:
                yield member
    except RecordError:
        raise
    except Exception as error:  # a damaged file makes zipfile and numpy raise nearly anything
        raise contents.unreadable(path, contents.head(path), f"not a whole {path.suffix}", error, _BROKEN) from None


def _header(file: IO[bytes]) -> tuple[tuple[int, ...], np.dtype[Any], bool]:
    """Return shape, numbers and order of an array, leaving the file at its first number."""
    version = npy.read_magic(file)
    read = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}.get(version)
    if read is None:
        raise ValueError(f"array format {version}")
    shape, fortran, dtype = read(file)
    return shape, dtype, fortran


def _axes(path: Path, shape: tuple[int, ...]) -> int:
    """Return the axis of the channels; 0 if there is none.

    Raises:
        RecordError: the shape isn't that of images, or leaves the axis open.
    """
    if prod(shape[1:]) > 3 * image_files.PIXELS or shape[0] > image_files.MOST:
        wrong = f"an array of shape {shape}, more than {image_files.MOST} images of {image_files.PIXELS} pixels each"
        raise RecordError(asked=path, wrong=wrong, remedy="give fewer or smaller images")
    if len(shape) == 3:
        return 0
    found = [axis for axis in (1, 3) if len(shape) == 4 and shape[axis] in (1, 3)]
    if len(found) != 1 or not all(shape):
        wrong = f"an array of shape {shape}" + (", which could have its channels first or last" if found else "")
        remedy = "give images as [N, H, W, C], [N, C, H, W] or [N, H, W] with 1 or 3 channels"
        raise RecordError(asked=path, wrong=wrong, remedy=remedy)
    return found[0]
