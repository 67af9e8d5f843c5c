"""Image sources of a reference: a folder, a zip or a teacher, read as uint8 batches in order."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path

from PIL import Image
from torch import Tensor

from solverbench import files, plugins, registries
from solverbench.errors import MissingError, PluginError, UserError
from solverbench.evaluation import image_arrays as arrays
from solverbench.evaluation import image_files, pixels
from solverbench.evaluation import image_tables as tables
from solverbench.evaluation.pictures import Pictures as Pictures
from solverbench.evaluation.pictures import unheard
from solverbench.metrics.quantise import quantise
from solverbench.teachers.loading import load_teacher
from solverbench.teachers.teacher import Teacher

FIRST_SEED = 1_000_000
"""First seed of the images that a teacher draws."""


CROPS = {
    "edm": "the middle square, by Lanczos to SIZE: dataset_tool.py --transform=center-crop of EDM and StyleGAN",
    "adm": "halved while both sides stay at least SIZE, by bicubic to SIZE: center_crop_arr of ADM (LSUN, ImageNet)",
    "torch": "the shorter side by bilinear to SIZE, the middle: Resize and CenterCrop of torchvision, used for COCO",
    "plain": "the middle SIZE x SIZE pixels, nothing scaled",
}
"""Crop rule to its description; SIZE is in pixels."""


@dataclass(frozen=True)
class Crop:
    """A rule of `CROPS` with its size: crops and scales images of any shape to squares.

    Args:
        rule: name of the rule.
        size: height and width of the result, in pixels.
    """

    rule: str
    size: int

    @classmethod
    def parse(cls, text: str) -> Crop:
        """Return the crop written `RULE:SIZE`, such as adm:256.

        Raises:
            UserError: not of that form, or an unknown rule.
        """
        match = re.fullmatch(r"([a-z]+):([1-9]\d{0,4})", text)
        if match is None or match[1] not in CROPS:
            raise UserError(
                asked=f"--crop {text}",
                wrong=f"not RULE:SIZE with a rule of {', '.join(CROPS)}",
                remedy="write it as in adm:256",
            )
        return cls(match[1], int(match[2]))

    def __str__(self) -> str:
        return f"{self.rule}:{self.size}"

    def __call__(self, image: Image.Image) -> Image.Image:
        """Return the square of an RGB image.

        Raises:
            ValueError: the image is smaller than a plain crop.

        Source: the public code named in `CROPS`; the centre is rounded as in each of them.
        """
        size, (width, height) = self.size, image.size
        short = min(width, height)
        if self.rule == "edm":
            left, top = (width - short) // 2, (height - short) // 2
            return image.crop((left, top, left + short, top + short)).resize((size, size), Image.Resampling.LANCZOS)
        if self.rule == "adm":
            while min(image.size) >= 2 * size:
                image = image.resize((image.size[0] // 2, image.size[1] // 2), Image.Resampling.BOX)
            scale = size / min(image.size)
            wide, high = (round(side * scale) for side in image.size)
            image = image.resize((wide, high), Image.Resampling.BICUBIC)
            left, top = (wide - size) // 2, (high - size) // 2
        elif self.rule == "torch":
            wide, high = int(size * width / short), int(size * height / short)
            image = image.resize((wide, high), Image.Resampling.BILINEAR)
            left, top = round((wide - size) / 2), round((high - size) / 2)
        else:
            if short < size:
                raise ValueError(f"{width}x{height} pixels, too small for a crop of {size}")
            left, top = (width - size) // 2, (height - size) // 2
        return image.crop((left, top, left + size, top + size))


@dataclass(frozen=True)
class Stored(Pictures):
    """The image files of a folder and its subfolders, or of a zip, sorted by name and converted to RGB.

    Args:
        path: folder or zip.
        names: file names relative to `path`, sorted.
        sizes: file sizes in bytes.
        cut: rule by which they are cropped and scaled; None to leave them unchanged.
        said: how many images were found, and what was passed over.
    """

    path: Path
    names: tuple[str, ...] = field(repr=False)
    sizes: tuple[int, ...] = field(repr=False)
    cut: Crop | None = None
    said: str = field(default="", repr=False)

    @classmethod
    def at(cls, path: Path, cut: Crop | None = None) -> Stored:
        """Return the images of the folder or zip `path`.

        Raises:
            RecordError, UserError: see `image_files.found`.
        """
        found = image_files.found(path)
        names, sizes = zip(*found.files, strict=True)
        return cls(path, tuple(names), tuple(sizes), cut, str(found))

    def __len__(self) -> int:
        return len(self.names)

    @cached_property
    def identity(self) -> str:
        return files.digest([list(self.names), list(self.sizes), *([str(self.cut)] if self.cut else [])])

    @property
    def crop(self) -> str:
        return str(self.cut or "")

    @property
    def origin(self) -> str:
        return self.path.resolve().name

    def read(self, part: range, note: Callable[[str], None] = unheard) -> Iterator[Tensor]:
        names = self.names[part.start : part.stop]
        if self.path.is_dir():
            yield from pixels.alike(self._decoded(name, (self.path / name).read_bytes, note) for name in names)
            return
        with zipfile.ZipFile(self.path) as archive:
            yield from pixels.alike(self._decoded(name, partial(archive.read, name), note) for name in names)

    def _decoded(self, name: str, content: Callable[[], bytes], note: Callable[[str], None]) -> Tensor:
        return pixels.decoded(self.path / name, content, note, self.cut)


@dataclass(frozen=True)
class Generated(Pictures):
    """Images that a teacher draws from seeds 1 000 000 onwards, as uint8 by edm-round.

    Args:
        name: name of the teacher, with its options.
        count: number of images.
    """

    name: str
    count: int

    def __post_init__(self) -> None:
        if not drawn(self.name):
            known = ", ".join(registries.teachers.builtin)
            raise MissingError(
                asked=self.name,
                wrong=f"neither a file or folder nor an embedded generator ({known})",
                remedy="give an .npz of statistics, a folder or zip of images, or one of these names",
            )
        if self.teacher.images_of is None:
            raise MissingError(
                asked=self.name,
                wrong="this teacher can't draw images",
                remedy="give an .npz of statistics, or a folder or zip of images",
            )

    @cached_property
    def teacher(self) -> Teacher:
        """The teacher, on the CPU."""
        return load_teacher(self.name)

    def __len__(self) -> int:
        return self.count

    @property
    def identity(self) -> str:
        told = plugins.provenance(registries.teachers, self.teacher.base)
        return ", source ".join([self._drawn, *([told["sha256"]] if told else [])])

    @property
    def fixed(self) -> bool:
        return self.teacher.base in registries.teachers.builtin

    @property
    def origin(self) -> str:
        return f"generator {self._drawn}"

    @property
    def _drawn(self) -> str:
        return f"{self.teacher.spec} {FIRST_SEED}-{FIRST_SEED + self.count - 1}"

    def read(self, part: range, note: Callable[[str], None] = unheard) -> Iterator[Tensor]:
        teacher, seeds = self.teacher, range(FIRST_SEED + part.start, FIRST_SEED + part.stop)
        assert teacher.images_of is not None
        with plugins.blamed(registries.teachers, teacher.base):
            found = teacher.images_of(seeds)
        what = f"{found.dtype} {tuple(found.shape)}" if isinstance(found, Tensor) else repr(found)
        if not isinstance(found, Tensor) or not found.is_floating_point() or (found.ndim, len(found)) != (4, len(part)):
            raise PluginError(
                asked=f"teacher {teacher.name!r}",
                wrong=f"images_of returned {what} for {len(part)} seeds",
                remedy="return float images [B, C, H, W] on [-1, 1]",
            )
        yield quantise(found)


def drawn(name: str) -> bool:
    """Return whether `name` is a registered teacher, built in or from a plugin, which may draw images."""
    return name.partition(":")[0] in registries.teachers


def located(source: str) -> tuple[Path, str]:
    """Return the path that a source names and the split of its data set; empty if none is named."""
    head, _, split = source.rpartition(":")
    if head and not Path(source).exists() and tables.there(Path(head)):
        return Path(head), split
    return Path(source), ""


def of(source: str, count: int | None, crop: Crop | None = None) -> Pictures:
    """Return the images that `source` names.

    Args:
        source: a folder, a zip, an array of images in an .npz or .npy, a data set of `datasets` as FOLDER or
            FOLDER:SPLIT, or a teacher that draws images.
        count: number of first images to use; if None, all images, or 10 000 of a teacher.
        crop: crop rule; for a folder or zip only.

    Raises:
        MissingError, UserError, RecordError: no images, or fewer than `count`.
    """
    if count is not None and count < 2:
        raise UserError(asked=f"--count {count}", wrong="too few images for a covariance", remedy="give at least 2")
    path, split = located(source)
    if tables.there(path):
        return tables.Table.at(path, split, count, crop)
    if not Path(source).exists():
        if crop is not None and drawn(source):
            raise UserError(
                asked=f"--crop {crop}", wrong=f"{source}'s images all have one size", remedy="leave --crop out"
            )
        return Generated(source, count or 10_000)
    if path.is_file() and arrays.of_arrays(path):
        if crop is not None:
            raise UserError(
                asked=f"--crop {crop}",
                wrong=f"{source} holds an array of images of one size",
                remedy="leave --crop out",
            )
        return arrays.Arrays.at(path, count)
    found = Stored.at(path, crop)
    if count is None:
        return found
    if count > len(found):
        raise UserError(
            asked=f"--count {count}", wrong=f"{source} holds {len(found)} images", remedy="give that many or fewer"
        )
    return replace(found, names=found.names[:count], sizes=found.sizes[:count])
