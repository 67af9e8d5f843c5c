"""The sample images of a bundle as data URIs: a cell's first images side by side in one, small enough for one page."""

import base64
import io
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

MOST = 5 << 20
"""Largest total size in bytes of the images in the report's page."""
MOST_ALONE = 20 << 20
"""Largest total size in bytes of the images in the page of images."""
Ladder = Sequence[tuple[int, int, str]]
LADDER: Ladder = ((8, 0, "PNG"), (8, 0, "JPEG"), (4, 0, "JPEG"), (4, 128, "JPEG"), (2, 128, "JPEG"), (2, 64, "JPEG"),
           (1, 64, "JPEG"), (1, 32, "JPEG"))  # fmt: skip
"""(images per cell, longest side or 0 for unchanged, format) in order of preference: the first that fits is used."""
LOSSLESS: Ladder = ((8, 0, "PNG"), (4, 0, "PNG"), (2, 0, "PNG"), (2, 256, "PNG"), (2, 128, "PNG"), (1, 128, "PNG"),
                    (1, 64, "PNG"), (1, 32, "PNG"))  # fmt: skip
"""The ladder for a page on which pixels are compared."""


@dataclass(frozen=True)
class Sprites:
    """Images by "teacher|solver|nfe", and a sentence on how they were reduced."""

    uris: Mapping[str, str]
    sides: Mapping[str, tuple[int, int]]
    counts: Mapping[str, int]
    note: str


def sprites(images: Mapping[str, np.ndarray], most: int = MOST, ladder: Ladder = LADDER) -> Sprites:
    """Return the images, complete and lossless if they fit into `most` bytes, else fewer, as JPEG, or smaller.

    Args:
        ladder: the ways to reduce them; the last one is used even if it does not fit.
    """
    for step, (count, side, kind) in enumerate(ladder):
        pages = _encode(images, count, side, kind, most if step + 1 < len(ladder) else None)
        if pages is not None:
            break
    assert pages is not None
    shown = min((min(len(batch), count) for batch in images.values()), default=0)
    said = [f"The first {shown} seeds" if shown > 1 else "The first seed", "the same for every solver"]
    if kind == "JPEG":
        said.append("as JPEG here, which blurs differences of a few grey levels")
    if side and any(max(batch.shape[2:]) > side for batch in images.values()):
        said.append(f"at most {side} pixels wide")
    sizes = {key: _size(batch, side) for key, batch in images.items()}
    counts = {key: min(len(batch), count) for key, batch in images.items()}
    return Sprites(dict(pages), sizes, counts, ", ".join(said) + ".")


def _encode(
    images: Mapping[str, np.ndarray], count: int, side: int, kind: str, most: int | None
) -> Sequence[tuple[str, str]] | None:
    """Return a data URI per batch; None once they take more than `most` bytes."""
    found, taken = [], 0
    for key, batch in images.items():
        content = _file(_strip(batch[:count], _size(batch, side)), kind)
        uri = f"data:image/{kind.lower()};base64,{base64.b64encode(content).decode()}"
        taken += len(uri)
        if most is not None and taken > most:
            return None
        found.append((key, uri))
    return found


def _size(batch: np.ndarray, side: int) -> tuple[int, int]:
    """Return the height and width at which an image is shown."""
    high, wide = batch.shape[2:]
    factor = min(1.0, side / max(high, wide)) if side else 1.0
    return max(1, round(high * factor)), max(1, round(wide * factor))


def _strip(batch: np.ndarray, size: tuple[int, int]) -> Image.Image:
    """Return the images side by side without gaps."""
    if size == batch.shape[2:]:
        row = np.concatenate(list(batch), axis=2)
        return Image.fromarray(row[0] if len(row) == 1 else row.transpose(1, 2, 0))
    smaller = [_picture(image).resize(size[::-1], Image.Resampling.BOX) for image in batch]
    strip = Image.new(smaller[0].mode, (size[1] * len(smaller), size[0]))
    for k, image in enumerate(smaller):
        strip.paste(image, (k * size[1], 0))
    return strip


def _picture(image: np.ndarray) -> Image.Image:
    return Image.fromarray(image[0] if len(image) == 1 else image.transpose(1, 2, 0))


def _file(image: Image.Image, kind: str) -> bytes:
    file = io.BytesIO()
    if kind == "PNG":
        image.save(file, "PNG", optimize=False, compress_level=zlib.Z_BEST_COMPRESSION)
    else:
        image.save(file, "JPEG", quality=88, subsampling=0)
    return file.getvalue()


def blocks(keys: Sequence[str], teacher: str) -> Iterator[tuple[str, str, int]]:
    """Yield (key, solver, nfe) of one teacher's images."""
    for key in keys:
        pieces = key.split("|")
        if len(pieces) == 3 and pieces[0] == teacher and pieces[2].isdigit():
            yield key, pieces[1], int(pieces[2])
