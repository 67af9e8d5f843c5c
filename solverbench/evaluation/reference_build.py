"""Building of references from images or from foreign files of statistics."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from solverbench import files
from solverbench.errors import FeatureError, UserError
from solverbench.evaluation import image_arrays, image_sources
from solverbench.evaluation.image_sources import Crop
from solverbench.evaluation.pictures import Pictures
from solverbench.evaluation.reference_checks import checked
from solverbench.evaluation.reference_foreign import SUFFIXES, UNKNOWN, Array, foreign
from solverbench.evaluation.references import Extractor, _bytes, _decoded, _encoded, _sha, about, extractor, folders
from solverbench.metrics.frechet import Moments

BLOCK = 2000
"""Number of images that are read at a time, and between two checkpoints of a build."""

SPARSE = 20
"""After many images, a checkpoint is written once their number has grown by this fraction: 1/20."""

KEPT = 10_000
"""Largest number of feature vectors stored for KID, precision and recall, evenly spaced over the images."""


def build(
    name: str,
    source: str | Pictures,
    out: Path,
    *,
    kind: str | None = None,
    extractor_name: str = "legacy_tensorflow",
    made_by: Extractor | None = None,
    split: str = UNKNOWN,
    count: int | None = None,
    crop: Crop | None = None,
    device: str = "cpu",
    say: Callable[[str], None] = lambda line: None,
) -> Path:
    """Store the reference `name` in DIR/references, from statistics or from images; return its file.

    An interrupted build resumes from its last checkpoint (every 2000 images, or 5 %) and gives the same bytes.

    Args:
        source: statistics as .npz, .npy or .pkl; images as a folder, a zip, an .npz of `arr_0`, an .npy or a data set
            of `datasets`; or a teacher that draws images. Or the images themselves.
        made_by: the extractor of images; if None, the one of `extractor_name`.
        kind: whose statistics they are, one of `KINDS`; guessed if None.
        split: of the data set, for people.
        count: images: the number behind statistics that don't say, or the first ones of a folder.
        crop: how the images of a folder or zip are cut and scaled; they are taken as they are if None.
        say: takes one progress line now and then.

    Raises:
        UserError: the name is not one word, or is taken by another reference.
        MissingError, RecordError, FeatureError: the source cannot be used.
    """
    if re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._+-]*", name) is None:
        raise UserError(
            asked=f"reference name {name!r}",
            wrong="not one word of letters, digits, '.', '_', '+' and '-'",
            remedy="choose such a name",
        )
    path = folders(out)[0] / f"{name}.npz"
    if isinstance(source, Pictures):
        arrays, told = _made(name, source, path, made_by or extractor(extractor_name, device), say)
        return _stored(path, name, split, arrays, told)
    file = Path(source)
    if file.suffix in SUFFIXES and file.is_file() and not image_arrays.of_arrays(file):
        if crop is not None:
            raise UserError(
                asked=f"--crop {crop}", wrong=f"{source} holds statistics, not images", remedy="leave --crop out"
            )
        arrays, told = foreign(file, kind, count)
        arrays = {key: arrays[key] for key in ("mu", "sigma", "features") if key in arrays}
        checked(file, arrays, told["n"])
    elif kind is not None:
        what, remedy = (
            ("no file of statistics", "leave --kind out") if file.exists() else ("no file or folder", "check the path")
        )
        raise UserError(asked=f"--kind {kind}", wrong=f"{source} is {what}", remedy=remedy)
    else:
        pictures = image_sources.of(source, count, crop)
        arrays, told = _made(name, pictures, path, made_by or extractor(extractor_name, device), say)
    return _stored(path, name, split, arrays, told)


def _stored(path: Path, name: str, split: str, arrays: dict[str, Array], told: dict[str, Any]) -> Path:
    """Write a reference, unless its file exists with the same content; return the file.

    Raises:
        UserError: the file exists with other content.
    """
    told |= {"name": name, "split": split if split != UNKNOWN else told["split"]}
    if path.exists():
        if _sha(files.read_arrays(path)) == _sha(arrays) and about(path) == told:
            return path
        raise UserError(
            asked=f"reference {name!r}",
            wrong=f"{path} exists with other content",
            remedy="choose another name, or delete that file",
        )
    files.write_arrays(path, {**arrays, "about": _encoded(told)})
    _checkpoint(path).unlink(missing_ok=True)
    return path


def _made(
    name: str, images: Pictures, path: Path, made_by: Extractor, say: Callable[[str], None]
) -> tuple[dict[str, Array], dict[str, Any]]:
    """Return the arrays and facts of a reference made from `images`; write a checkpoint after each block."""
    say(f"{name}: {images.said}")
    told = {"name": name, "origin": images.origin, "kind": "images", "extractor": made_by.identity, "n": len(images)}
    told |= {"split": UNKNOWN, "source_sha256": images.identity, **({"crop": images.crop} if images.crop else {})}
    told |= images.facts
    if len(images) < 2:
        raise FeatureError(
            asked=f"reference {name!r}",
            wrong=f"{images.origin} holds 1 image, too few for a covariance",
            remedy="give more images",
        )
    chosen = np.unique(np.linspace(0, len(images) - 1, min(KEPT, len(images))).round().astype(int))
    begin, total, kept, pixels, sizes = 0, Moments(0, np.zeros(1), np.zeros((1, 1))), [], "", set[tuple[int, int]]()
    checkpoint = _checkpoint(path)
    if checkpoint.exists():
        before = files.read_arrays(checkpoint)
        if _decoded(before["about"]) != told:
            raise UserError(
                asked=checkpoint,
                wrong="an unfinished build from other images or by another extractor",
                remedy="delete this file",
            )
        begin, kept = int(before["begin"]), [before["features"]]
        total = Moments(int(before["n"]), before["total"], before["outer"])
        pixels, sizes = bytes(before["pixels"]).decode(), {(int(h), int(w)) for h, w in before["sizes"]}
        say(f"{name}: resuming after {begin} of {len(images)} images")
    noted, saved = Counter[str](), begin
    while begin < len(images):
        part = range(begin, min(begin + BLOCK, len(images)))
        hasher, found = hashlib.sha256(pixels.encode()), []
        for batch in images.read(part, lambda line: noted.update([line])):
            sizes.add((batch.shape[2], batch.shape[3]))
            hasher.update(repr(tuple(batch.shape)).encode() + batch.numpy().tobytes())
            found.append(made_by.extract(made_by.fitted(batch, name)).cpu())
        rows = torch.cat(found).double().numpy()
        if not np.isfinite(rows).all():
            raise FeatureError(
                asked=f"reference {name!r}",
                wrong=f"features of images {part.start}-{part.stop - 1} are not finite",
                remedy="remove these images, or choose another --extractor",
            )
        total, pixels = Moments.of(rows) if begin == 0 else total + Moments.of(rows), hasher.hexdigest()
        inside = chosen[(chosen >= part.start) & (chosen < part.stop)]
        kept.append(rows[inside - begin].astype(np.float32))
        begin = part.stop
        if begin == len(images) or begin - saved >= max(BLOCK, saved // SPARSE):
            saved = begin
            state = {"n": np.array(total.n), "total": total.total, "outer": total.outer, "begin": np.array(begin)}
            state |= {"features": np.concatenate(kept), "pixels": _bytes(pixels.encode()), "about": _encoded(told)}
            state["sizes"] = np.array(sorted(sizes))
            files.write_arrays(checkpoint, state)
        say(f"{name}: {begin} of {len(images)} images")
    for line, count in sorted(noted.items()):
        say(f"{name}: {count} of {len(images)} images {line}")
    features = np.concatenate(kept)
    # With at most as many images as features, store the vectors: the covariance would not have full rank.
    few = total.n <= total.total.size and len(features) == total.n
    arrays = {"features": features} if few else {"mu": total.mean, "sigma": total.cov, "features": features}
    [(height, width), *more] = sorted(sizes)
    source = images.identity if images.fixed else pixels
    return arrays, {**told, "source_sha256": source, "pixels": "of several sizes" if more else f"{width}x{height}"}


def _checkpoint(path: Path) -> Path:
    return path.with_name(f"{path.stem}.building.npz")
