"""Pixels of an opened image file as RGB with 8 bits a channel, whatever its mode."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from solverbench.errors import RecordError, UserError
from solverbench.evaluation import contents, image_files

_DEEP = frozenset({"I;16", "I;16L", "I;16B", "I;16N"})
_COLOURS = frozenset({"1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "HSV"})
_SIXTEEN = frozenset({"PNG", "PPM"})
"""Formats whose images of mode I have 16 bits: the range of the mode is 0 to 65535."""

_ORIENTATION = 0x0112

TRANSPARENT = "have transparent pixels, whose stored colour is used without the alpha channel, as by clean-fid"
TURNED = "have an EXIF orientation, which isn't applied, as by clean-fid"
"""Notes on images that are used although part of their content is ignored."""


class ModeError(Exception):
    """A whole image file that doesn't say one picture of 8-bit levels.

    Args:
        wrong: what it has instead.
        remedy: what to do.
    """

    def __init__(self, wrong: str, remedy: str) -> None:
        super().__init__(wrong)
        self.wrong, self.remedy = wrong, remedy


def colours(image: Image.Image, note: Callable[[str], None] = lambda line: None) -> Image.Image:
    """Return the picture of an opened file as RGB.

    8-bit modes are converted by Pillow. Grey levels of 16 bits are scaled to 8 by 255/65535 and rounded, half up. An
    alpha channel is dropped and an EXIF orientation isn't applied, as by clean-fid and pytorch-fid.

    Args:
        note: takes `TRANSPARENT` or `TURNED` if that is so of this image.

    Raises:
        ModeError: it holds several pictures, or its mode states no range.

    Source: PNG specification, 3rd edition, section 13.12 (sample depth rescaling).
    """
    if (count := getattr(image, "n_frames", 1)) > 1 and image.format != "MPO":  # a camera's file with its previews
        raise ModeError(f"{count} pictures in one file", "write each to a file of its own")
    image.load()
    if image.getexif().get(_ORIENTATION, 1) != 1:
        note(TURNED)
    if image.mode in _DEEP or (image.mode == "I" and image.format in _SIXTEEN):
        levels = levels_of_16_bits(np.asarray(image))
        return Image.fromarray(levels).convert("RGB")
    if image.mode not in _COLOURS:
        wrong = f"pixels of mode {image.mode}, whose levels can't be scaled to 8 bits without knowing their range"
        raise ModeError(wrong, "save it as RGB or grey with 8 or 16 bits a channel")
    if image.mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in image.info:
        image = image.convert("RGBA")
        if image.getchannel("A").getextrema() != (255, 255):
            note(TRANSPARENT)
    return image.convert("RGB")


def levels_of_16_bits(values: NDArray[Any]) -> NDArray[np.uint8]:
    """Return integers from 0 to 65535 as uint8: times 255/65535, rounded half up."""
    return ((values.astype(np.uint32) + 128) // 257).astype(np.uint8)


def decoded(
    path: Path,
    content: Callable[[], bytes],
    note: Callable[[str], None],
    cut: Callable[[Image.Image], Image.Image] | None = None,
) -> Tensor:
    """Return an image file as uint8 [3, H, W].

    Args:
        path: its name for errors.
        content: function that reads it.
        note: callback for a remark on the image.
        cut: rule by which it is cropped and scaled; None to leave it unchanged.

    Raises:
        RecordError: it isn't an image that can be used.
        UserError: it is too small for the rule.
    """
    read = b"unread"
    try:
        read = content()
        with Image.open(io.BytesIO(read)) as image:
            if image.width * image.height > image_files.PIXELS:
                raise ValueError(f"{image.width} x {image.height} pixels, more than {image_files.PIXELS}")
            colour = colours(image, note)
    except ModeError as error:
        raise RecordError(asked=path, wrong=error.wrong, remedy=error.remedy) from None
    except Exception as error:  # a damaged file makes zipfile and Pillow raise nearly anything
        told = "of no known format" if isinstance(error, UnidentifiedImageError) else error
        raise contents.unreadable(path, read, "not an image", told, "remove or replace it") from None
    try:
        whole = colour if cut is None else cut(colour)
    except ValueError as error:
        raise UserError(asked=path, wrong=str(error), remedy="choose another --crop, or leave it out") from None
    return torch.from_numpy(np.array(whole)).permute(2, 0, 1)


def alike(images: Iterator[Tensor]) -> Iterator[Tensor]:
    """Yield batches [B, 3, H, W] of consecutive images of one size."""
    for _, same in groupby(images, key=lambda image: image.shape):
        yield torch.stack(list(same))
