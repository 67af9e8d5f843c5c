"""References of a user's own images, built where they are asked for and kept beside the stored ones."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from solverbench import files, plugins, userdata
from solverbench.errors import MissingError, UserError
from solverbench.evaluation import image_arrays, image_sources, reference_build, references
from solverbench.evaluation.image_arrays import Arrays
from solverbench.evaluation.image_sources import Stored
from solverbench.evaluation.image_tables import Table
from solverbench.evaluation.pictures import Pictures
from solverbench.evaluation.references import Extractor
from solverbench.metrics.evaluation import Evaluation as Measured
from solverbench.metrics.evaluation import Reference
from solverbench.metrics.extractors import plugin
from solverbench.metrics.extractors.plugin import Extractor as Own

BATCH = 500
"""Images in memory whose features are computed at a time."""


@dataclass(frozen=True, eq=False)
class Pending:
    """A reference that a run builds before it measures.

    Args:
        name: name under which it is stored.
        made_by: extractor of its features.
        pictures: its images; None for the teacher's own samples.
        count: number of images.
    """

    name: str
    made_by: Extractor
    pictures: Pictures | None
    count: int

    def build(self, pictures: Pictures, out: Path, say: Callable[[str], None]) -> Path:
        """Build the reference of `pictures` in DIR/references; return its file. See `reference_build.build`."""
        return reference_build.build(self.name, pictures, out, made_by=self.made_by, say=say)


class Unbuilt(MissingError):
    """The reference of a user's images isn't built yet."""

    pending: Pending


def of(text: str, made_by: Extractor, out: Path) -> Reference:
    """Return the reference that `text` names: a stored one, a file of statistics, or images by their path.

    Raises:
        Unbuilt: it is of images, and isn't built yet for this extractor.
        MissingError: there is no such reference, file or folder.
        UserError, RecordError, FeatureError: it can't be used.
    """
    pictures = images(text, out)
    if pictures is None:
        return references.load(text, out, made_by.identity)
    name = stored_name(pictures, made_by)
    if name in dict(references.listed(out)):
        return references.load(name, out, made_by.identity)
    error = Unbuilt(
        asked=f"reference {text}",
        wrong=f"its {len(pictures)} images have no features by {made_by.identity} yet",
        remedy="a run computes them once and keeps them",
    )
    error.pending = Pending(name, made_by, pictures, len(pictures))
    raise error


def images(text: str, out: Path) -> Pictures | None:
    """Return the images at a path: of a folder, a zip, an .npz or an .npy; None for a stored name or statistics.

    Raises:
        UserError, RecordError: there are none, or they can't be read.
    """
    return image_sources.of(text, None) if of_images(text, out) else None


def of_images(text: str, out: Path) -> bool:
    """Return whether a text names images by their path, and no stored reference."""
    if any((folder / f"{text}.npz").is_file() for folder in references.folders(out)):
        return False
    path, _ = image_sources.located(text)
    return path.is_dir() or (path.is_file() and (path.suffix in (".zip", ".parquet") or image_arrays.of_arrays(path)))


def stored_name(pictures: Pictures, made_by: Extractor) -> str:
    """Return the name under which the reference of these images by this extractor is stored.

    It changes with their files' names, sizes and times, so changed files aren't taken for the ones that were read.
    """
    about = [pictures.identity, _times(pictures), made_by.identity]
    return f"{slug(pictures.origin)}-{files.digest(about)[:10]}"


def slug(text: str) -> str:
    """Return a text as a word that a reference may be named."""
    return re.sub(r"[^A-Za-z0-9._+-]+", "-", text.rpartition(".")[0] or text).strip("-._+")[:40] or "images"


def kept(pictures: Pictures, made_by: Extractor, out: Path, say: Callable[[str], None]) -> Reference:
    """Return the reference of images by an extractor: the stored one, or one that is built and stored now.

    Raises:
        RecordError, FeatureError, PluginError: an image can't be read, or the extractor fails.
    """
    name = stored_name(pictures, made_by)
    if name not in dict(references.listed(out)):
        Pending(name, made_by, pictures, len(pictures)).build(pictures, out, say)
    return references.load(name, out, made_by.identity)


class Evaluation(Measured):
    """The measurement of a teacher's samples; see `solverbench.metrics.evaluation.Evaluation` for its arguments."""

    @classmethod
    def of(
        cls, images: str | Path | Tensor | NDArray[np.uint8], extractor: str | type[Own] | Own, *, device: str = "cpu"
    ) -> Evaluation:
        """Return the measurement of samples against images by an extractor: `frechet_data` and related metrics.

        The features of images at a path are computed once and kept in the references of your data folder.

        Args:
            images: the real images: the path of a folder, a zip, an .npz or an .npy; or uint8 [N, C, H, W].
            extractor: name of an extractor; or an `sb.Extractor`, its class or an instance.
            device: device of the extractor.

        Raises:
            UserError: there is no such extractor, or these are no images.
            MissingError: there is no such file or folder.
            RecordError, FeatureError, PluginError: an image can't be read, or the extractor fails.
        """
        made_by = _made_by(extractor, device)
        if isinstance(images, str | Path):
            pictures = image_sources.of(str(images), None) if image_sources.located(str(images))[0].exists() else None
            if pictures is None:
                remedy = "give a folder, a zip, an .npz or an .npy of images"
                raise MissingError(asked=f"images {images}", wrong="there is no such file or folder", remedy=remedy)
            data = kept(pictures, made_by, userdata.data(), lambda line: None)
        else:
            data = _of_array(torch.as_tensor(images), made_by)
        return cls(made_by.extract, made_by.identity, data=data)


def _made_by(extractor: str | type[Own] | Own, device: str) -> Extractor:
    """Return an extractor by its name, its class or an instance; the class is registered if it isn't yet."""
    if isinstance(extractor, str):
        return references.extractor(extractor, device)
    cls = extractor if isinstance(extractor, type) else type(extractor)
    plugins.register(cls)
    network = plugin.load(cls.name, device) if isinstance(extractor, type) else plugin.Plugged(extractor)
    return Extractor(network, network.identity)


def _of_array(images: Tensor, made_by: Extractor) -> Reference:
    """Return the reference of uint8 images [N, C, H, W] in memory.

    Raises:
        UserError: they are no such images, or fewer than two.
    """
    if images.dtype != torch.uint8 or images.dim() != 4 or len(images) < 2:
        wrong = f"{str(images.dtype).removeprefix('torch.')} {tuple(images.shape)} isn't two or more uint8 images"
        raise UserError(asked="images", wrong=wrong, remedy="give uint8 [N, C, H, W]")
    name = f"{len(images)} images"
    rows = torch.cat([made_by.extract(made_by.fitted(part, name)) for part in torch.split(images, BATCH)])
    content = [list(images.shape), hashlib.sha256(images.contiguous().numpy().tobytes()).hexdigest()]
    made = Reference.of(rows, name)
    height, width = images.shape[2:]
    return replace(made, sha=files.digest([*content, made_by.identity]), pixels=f"{width}x{height}")


def _times(pictures: Pictures) -> str:
    """Return a digest of the times of change of the files of images, in nanoseconds."""
    if isinstance(pictures, Stored) and pictures.path.is_dir():
        return files.digest([os.stat(pictures.path / name).st_mtime_ns for name in pictures.names])
    if isinstance(pictures, Table):
        return files.digest([part.stat().st_mtime_ns for part in pictures.parts])
    if isinstance(pictures, Stored | Arrays):
        return str(pictures.path.stat().st_mtime_ns)
    return ""
