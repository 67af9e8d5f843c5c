"""References: statistics of real images, kept in our own store with where they come from and what they were made by."""

from __future__ import annotations

import hashlib
import json
import re
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

import registries
from solverbench import files
from solverbench.metrics import extractors
from solverbench.evaluation import image_sources as pictures
from solverbench import userdata as places
from solverbench.metrics.extractors.transformers import CLIP, DINOv2
from solverbench.errors import FeatureError, MissingError, RecordError, StoreError, UserError
from solverbench.metrics.frechet import Gaussian, Moments, Rows, Statistics
from solverbench.evaluation.image_sources import Crop
from solverbench.teachers.teacher import Reference, Teacher, load_teacher

Array = NDArray[np.float64]

KINDS = {
    "edm": "clean-fid/legacy_tensorflow",
    "guided-diffusion": "clean-fid/legacy_tensorflow",
    "pytorch-fid": "clean-fid/legacy_pytorch",
    "clean-fid": "clean-fid/clean",
}
"""Whose statistics a foreign .npz holds, to the extractor that they are made by; clean-fid's file names say theirs."""

BLOCK = 2000
"""Images between two checkpoints of a build."""

KEPT = 10_000
"""Feature vectors kept beside the moments, for KID, precision and recall: evenly spaced, all if there are fewer."""

UNKNOWN = "unknown"
_ASYMMETRY, _NEGATIVE = 1e-6, 1e-6
_TRANSFORMERS = (CLIP.folder, DINOv2.folder)


@dataclass(frozen=True)
class Extractor:
    """What turns uint8 images [B, C, H, W] into features [B, D], and the name under which results carry it.

    Args:
        shape: [C, H, W] that it takes alone; None if it takes any.
    """

    extract: Callable[[Tensor], Tensor]
    identity: str
    shape: tuple[int, int, int] | None = None

    def fitted(self, images: Tensor, name: str) -> Tensor:
        """Return images that it takes: grey ones of one channel where it wants one.

        Raises:
            FeatureError: they have another shape.
        """
        if self.shape is None:
            return images
        if self.shape[0] == 1 and images.shape[1] == 3 and bool((images == images[:, :1]).all()):
            images = images[:, :1]
        if tuple(images.shape[1:]) != self.shape:
            here, wanted = ("x".join(map(str, shape)) for shape in (images.shape[1:], self.shape))
            raise FeatureError(
                f"reference {name!r}: images of {here}, but this extractor takes {wanted} alone; give such images, or "
                "another --extractor"
            )
        return images


def extractor(name: str, device: str = "cpu") -> Extractor:
    """Return the extractor `name`: a public one, or an embedded teacher for its own feature network.

    Raises:
        UserError: no such extractor.
        MissingError: its package, its weights or the teacher isn't there.
    """
    if name in extractors.NAMES:
        network = extractors.load(name, device)
        return Extractor(network, network.identity)
    if name not in pictures.GENERATORS:
        known = ", ".join([*extractors.NAMES, *pictures.GENERATORS])
        raise UserError(f"extractor {name!r}: not known; use one of {known}")
    teacher = load_teacher(name, device)
    assert teacher.evaluation is not None
    return Extractor(teacher.evaluation.extractor, teacher.evaluation.extractor_id, teacher.shape)


def folders(out: Path) -> list[Path]:
    """Return where references are looked for, first place first: in DIR/references, then among the user's data."""
    return [out / "references", places.data() / "references"]


def listed(out: Path) -> Iterator[tuple[str, Path]]:
    """Yield name and file of each stored reference, by name; DIR's own come first where both have one."""
    found: dict[str, Path] = {}
    for folder in folders(out):
        for path in folder.glob("*.npz"):
            if not path.name.endswith(".building.npz"):
                found.setdefault(path.stem, path)
    yield from sorted(found.items())


def about(path: Path) -> dict[str, Any]:
    """Return what a stored reference says of itself.

    Raises:
        RecordError: damaged, or not one of ours.
    """
    return _described(path, files.read_arrays(path))


def find(name: str, out: Path) -> Path:
    """Return the file of the reference `name`: a stored one, or the path of an .npz.

    Raises:
        MissingError: neither.
    """
    for folder in folders(out):
        if (folder / f"{name}.npz").is_file():
            return folder / f"{name}.npz"
    if Path(name).is_file():
        return Path(name)
    known = ", ".join(each for each, _ in listed(out)) or "none"
    stem = Path(name).stem
    said = (
        f"run 'solverbench refs build {stem} {stem}', which draws its images"
        if stem in pictures.GENERATORS
        else f"run 'solverbench refs build {stem} SOURCE', where SOURCE is an .npz or a folder of images"
    )
    looked = " or ".join(map(str, folders(out)))
    raise MissingError(f"reference {name!r}: neither a file nor stored in {looked} (there: {known}); {said}")


def named_for(teacher: Teacher, out: Path, extractor_id: str | None = None) -> str:
    """Return the name of the stored reference for a teacher: of its data set and size, whatever its options are.

    That is the one in the teacher's own name, with its options or without; else the one that a published teacher with
    the same reference is named after, or that was made from that published file.

    Args:
        extractor_id: that made it; any if None.

    Raises:
        MissingError: there is none.
    """
    published = registries.catalogue()
    own = dict.fromkeys((teacher.name, teacher.model, teacher.base))
    told: dict[str, Any] = next((published[name].get("reference", {}) for name in own if name in published), {})
    alike = [name for name, each in published.items() if told and each.get("reference", {}).get("url") == told["url"]]
    alike = alike if told.get("url") != UNKNOWN else []
    stored = dict(listed(out))
    names = [name for name in dict.fromkeys((*own, *alike)) if name in stored]
    if alike:
        file = str(told["url"]).rpartition("/")[2]
        names += [name for name, path in stored.items() if name not in names and about(path)["origin"] == file]
    fitting = [name for name in names if extractor_id is None or _compatible(_maker(stored[name]), extractor_id)]
    if fitting:
        return fitting[0]
    if names:
        raise MissingError(
            f"reference for {teacher.model}: {', '.join(names)} isn't by {extractor_id}; run 'solverbench refs build "
            "NAME SOURCE --extractor EXTRACTOR' and name it"
        )
    find(teacher.model, out)  # says where it was looked for
    raise AssertionError(teacher.model)


def load(name: str, out: Path, extractor_id: str) -> Reference:
    """Return the reference `name`, stored or the path of an .npz, for features by `extractor_id`.

    Raises:
        MissingError: it isn't there.
        RecordError, FeatureError: it can't be used.
        UserError: it was made by another extractor.
    """
    path = find(name, out)
    if any(path.parent == folder for folder in folders(out)):
        arrays = files.read_arrays(path)
        told = _described(path, arrays)
    else:
        arrays, told = foreign(path)
    made_by = str(told["extractor"])
    if not _compatible(made_by, extractor_id):
        raise UserError(
            f"reference {path}: made by {made_by}, but the images are judged by {extractor_id}; "
            "give a reference of the same extractor, or another --extractor"
        )
    statistics, features = _statistics(path, arrays)
    count = f"{told['n']} images" if told["n"] else "image count unknown"
    sha = _source(told, arrays)
    crop, cut = told.get("crop", ""), f", crop {told['crop']}" if told.get("crop") else ""
    label = f"{told['name']} (from {told['origin']}, {count}, split {told['split']}{cut}, sha256 {sha[:12]})"
    return Reference(statistics, label, sha, features, _note(label, statistics), crop, told.get("pixels", ""))


def build(
    name: str,
    source: str,
    out: Path,
    *,
    kind: str | None = None,
    extractor_name: str = "legacy_tensorflow",
    split: str = UNKNOWN,
    count: int | None = None,
    crop: Crop | None = None,
    device: str = "cpu",
    say: Callable[[str], None] = lambda line: None,
) -> Path:
    """Store the reference `name` in DIR/references, from an .npz of statistics or made from images; return its file.

    Making goes on after an interruption from the last 2000 images, with the same bytes in the end.

    Args:
        source: an .npz, a folder or zip of images, or an embedded generator.
        kind: whose .npz it is, one of `KINDS`; guessed if None.
        split: of the data set, for people.
        count: images: the number behind an .npz that doesn't say, or the first ones of a folder.
        crop: how the images of a folder or zip are cut and scaled; they are taken as they are if None.
        say: takes one progress line now and then.

    Raises:
        UserError: a name that is no word, or is taken by another reference.
        MissingError, RecordError, FeatureError: the source can't be used.
    """
    if re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._+-]*", name) is None:
        raise UserError(f"reference name {name!r}: not one word of letters, digits, '.', '_', '+' and '-'; choose one")
    path = folders(out)[0] / f"{name}.npz"
    if Path(source).suffix == ".npz" and Path(source).is_file():
        if crop is not None:
            raise UserError(f"--crop {crop}: {source} holds statistics, not images; leave --crop out")
        arrays, told = foreign(Path(source), kind, count)
        arrays = {key: arrays[key] for key in ("mu", "sigma", "features") if key in arrays}
        _statistics(Path(source), arrays)
    elif kind is not None:
        what = "an .npz of statistics; leave --kind out" if Path(source).exists() else "there; check the path"
        raise UserError(f"--kind {kind}: {source} isn't {what}")
    else:
        arrays, told = _made(name, pictures.of(source, count, crop), path, extractor_name, device, say)
    told |= {"name": name, "split": split if split != UNKNOWN else told["split"]}
    if path.exists():
        if _sha(files.read_arrays(path)) == _sha(arrays) and about(path) == told:
            return path
        raise UserError(f"reference {name!r}: {path} holds another one; choose another name, or delete that file")
    files.write_arrays(path, {**arrays, "about": _encoded(told)})
    _checkpoint(path).unlink(missing_ok=True)
    return path


def verify(path: Path) -> str:
    """Return one line on the reference at `path`, its own or foreign, after reading all of it.

    Raises:
        RecordError, FeatureError: it can't be used.
    """
    try:
        arrays = files.read_arrays(path)
        told = _described(path, arrays)
    except RecordError:
        if path.parent.name == "references":
            raise
        arrays, told = foreign(path)
    statistics, features = _statistics(path, arrays)
    count = f"n={told['n']}" if told["n"] else "n unknown"
    count += "".join(f", {word} {told[word]}" for word in ("crop", "pixels") if told.get(word))
    kept = f", {len(features)} feature vectors" if features is not None else ""
    note = f"; {_note('', statistics)}" if _note("", statistics) else ""
    size = statistics.mean.size
    return f"{told['name']}: {size} features by {told['extractor']}, {count}, split {told['split']}{kept}, sha256 " + (
        f"{_source(told, arrays)[:12]}, from {told['origin']}{note}"
    )


def foreign(path: Path, kind: str | None = None, count: int | None = None) -> tuple[dict[str, Array], dict[str, Any]]:
    """Return the arrays of an .npz that someone else wrote, and what can be told of it. Nothing in it is executed.

    Raises:
        UserError: no such kind.
        RecordError: not an .npz, or without statistics.
    """
    if kind is not None and kind not in KINDS:
        raise UserError(f"--kind {kind}: not one of {', '.join(KINDS)}; leave it out if you don't know")
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            keys = set(archive.files)
            wanted = {"mu": "mu", "sigma": "sigma", "features": "features", "feats": "features"}
            arrays = {ours: np.asarray(archive[key]) for key, ours in wanted.items() if key in keys}
    except OSError as error:
        raise RecordError(f"{path}: can't be read ({_line(error)}); give an .npz of statistics") from None
    except (ValueError, KeyError, EOFError, AttributeError, zipfile.BadZipFile, zipfile.LargeZipFile) as error:
        raise RecordError(f"{path}: not a whole .npz ({_line(error)}); download or make it again") from None
    if not ({"mu", "sigma"} <= set(arrays) or "features" in arrays):
        held = ", ".join(sorted(keys)) or "nothing"
        raise RecordError(f"{path}: holds {held}, not mu and sigma; give an .npz of statistics")
    mode = re.search(r"_(clean|legacy_tensorflow|legacy_pytorch)_(clip_vit_b_32_)?", path.name)
    guessed = kind or ("guided-diffusion" if "mu_s" in keys else "clean-fid" if mode else None)
    made_by = KINDS[guessed] if guessed else UNKNOWN
    if guessed == "clean-fid" and mode:
        made_by = CLIP.folder if mode[2] else f"clean-fid/{mode[1]}"
    n = count or (len(arrays["features"]) if "mu" not in arrays else 0)
    told = {"name": path.stem, "origin": path.name, "kind": guessed or UNKNOWN, "extractor": made_by, "n": n}
    return arrays, {**told, "split": UNKNOWN, "source_sha256": _file_sha(path)}


def _made(
    name: str, images: pictures.Pictures, path: Path, extractor_name: str, device: str, say: Callable[[str], None]
) -> tuple[dict[str, Array], dict[str, Any]]:
    """The arrays of a reference of `images`, in blocks; a checkpoint is written after each."""
    made_by = extractor(extractor_name, device)
    told = {"name": name, "origin": images.origin, "kind": "images", "extractor": made_by.identity, "n": len(images)}
    told |= {"split": UNKNOWN, "source_sha256": images.identity, **({"crop": images.crop} if images.crop else {})}
    if len(images) < 2:
        raise FeatureError(f"reference {name!r}: {images.origin} holds 1 image, too few for a covariance; give more")
    chosen = np.unique(np.linspace(0, len(images) - 1, min(KEPT, len(images))).round().astype(int))
    begin, total, kept, pixels, sizes = 0, Moments(0, np.zeros(1), np.zeros((1, 1))), [], "", set[tuple[int, int]]()
    checkpoint = _checkpoint(path)
    if checkpoint.exists():
        before = files.read_arrays(checkpoint)
        if _decoded(before["about"]) != told:
            raise UserError(f"{checkpoint}: half made, of other images or by another extractor; delete this file")
        begin, kept = int(before["begin"]), [before["features"]]
        total = Moments(int(before["n"]), before["total"], before["outer"])
        pixels, sizes = bytes(before["pixels"]).decode(), {(int(h), int(w)) for h, w in before["sizes"]}
        say(f"{name}: {begin} of {len(images)} images were done")
    while begin < len(images):
        part = range(begin, min(begin + BLOCK, len(images)))
        hasher, found = hashlib.sha256(pixels.encode()), []
        for batch in images.read(part):
            sizes.add((batch.shape[2], batch.shape[3]))
            hasher.update(repr(tuple(batch.shape)).encode() + batch.numpy().tobytes())
            found.append(made_by.extract(made_by.fitted(batch, name)).cpu())
        rows = torch.cat(found).double().numpy()
        if not np.isfinite(rows).all():
            raise FeatureError(f"reference {name!r}: features of images {part.start}-{part.stop - 1} are not finite")
        total, pixels = Moments.of(rows) if begin == 0 else total + Moments.of(rows), hasher.hexdigest()
        kept.append(rows[[at - begin for at in chosen if at in part]].astype(np.float32))
        begin = part.stop
        state = {"n": np.array(total.n), "total": total.total, "outer": total.outer, "begin": np.array(begin)}
        state |= {"features": np.concatenate(kept), "pixels": _bytes(pixels.encode()), "about": _encoded(told)}
        state["sizes"] = np.array(sorted(sizes))
        files.write_arrays(checkpoint, state)
        say(f"{name}: {begin} of {len(images)} images")
    features = np.concatenate(kept)
    # Fewer images than features: the vectors say more than a covariance without full rank.
    few = total.n <= total.total.size and len(features) == total.n
    arrays = {"features": features} if few else {"mu": total.mean, "sigma": total.cov, "features": features}
    [(height, width), *more] = sorted(sizes)
    source = images.identity if isinstance(images, pictures.Generated) else pixels
    return arrays, {**told, "source_sha256": source, "pixels": "of several sizes" if more else f"{width}x{height}"}


def _statistics(path: Path, arrays: dict[str, Array]) -> tuple[Statistics, Array | None]:
    """Statistics and feature vectors of a file's arrays, checked."""
    for key, array in arrays.items():
        if key == "about":
            continue
        if array.dtype.kind != "f":
            raise RecordError(f"{path}: {key} is {array.dtype}, not floating point; make the file again")
        if not np.isfinite(array).all():
            raise FeatureError(f"{path}: {key} holds values that are not finite; make the file again")
    features = arrays.get("features")
    if features is not None and (features.ndim != 2 or len(features) < 2):
        raise FeatureError(f"{path}: features are {features.shape}, too few images or no vectors; give at least 2")
    if "mu" not in arrays:
        assert features is not None
        rows = features.astype(np.float64)
        return Rows(rows) if len(rows) <= rows.shape[1] else Moments.of(rows), rows
    mu, sigma = arrays["mu"].astype(np.float64), arrays["sigma"].astype(np.float64)
    if mu.ndim != 1 or sigma.shape != (mu.size, mu.size):
        raise FeatureError(f"{path}: mu is {mu.shape} and sigma {sigma.shape}; they must be [D] and [D, D]")
    if features is not None and features.shape[1] != mu.size:
        raise FeatureError(f"{path}: features are {features.shape} and mu {mu.shape}; make the file again")
    scale = max(float(sigma.diagonal().max()), 1e-300)
    if np.abs(sigma - sigma.T).max() > _ASYMMETRY * scale:
        raise FeatureError(f"{path}: sigma isn't symmetric, so no covariance; make the file again")
    sigma = (sigma + sigma.T) / 2
    if not _positive(sigma + _NEGATIVE * scale * mu.size**0.5 * np.eye(mu.size)):
        raise FeatureError(f"{path}: sigma has negative eigenvalues, so no covariance; make the file again")
    told = _decoded(arrays["about"]) if "about" in arrays else {}
    return Gaussian(mu, sigma, int(told.get("n", 0))), None if features is None else features.astype(np.float64)


def _note(label: str, statistics: Statistics) -> str:
    """What a reader must know about it: a covariance without full rank."""
    size, n = statistics.mean.size, statistics.n
    if not isinstance(statistics, Rows) and (not n or n > size) and _positive(statistics.cov):
        return ""
    images = f"{n} images" if n else "an unknown number of images"
    said = f"its covariance is singular ({images}, {size} features): distances to it are computed exactly, but biased"
    return f"reference {label}: {said}" if label else said


def _positive(matrix: Array) -> bool:
    try:
        np.linalg.cholesky(matrix)
    except np.linalg.LinAlgError:
        return False
    return True


def _compatible(made_by: str, extractor_id: str) -> bool:
    """Whether a reference may be compared: the same extractor, or an imported one of the same kind; unknown passes."""
    if made_by == UNKNOWN:
        return extractor_id.startswith(("clean-fid/", *(f"{each}@" for each in _TRANSFORMERS)))
    return made_by == extractor_id or ("@" not in made_by and made_by == extractor_id.partition("@")[0])


def _maker(path: Path) -> str:
    return str(about(path)["extractor"])


def _described(path: Path, arrays: dict[str, Array]) -> dict[str, Any]:
    if "about" not in arrays:
        raise RecordError(f"{path}: not one of our references; run 'solverbench refs build NAME {path}'")
    return _decoded(arrays["about"])


def _checkpoint(path: Path) -> Path:
    return path.with_name(f"{path.stem}.building.npz")


def _encoded(told: dict[str, Any]) -> NDArray[np.uint8]:
    return _bytes(files.canonical(told).encode())


def _bytes(content: bytes) -> NDArray[np.uint8]:
    return np.frombuffer(content, dtype=np.uint8)


def _decoded(told: NDArray[Any]) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(bytes(told))
    return found


def _sha(arrays: dict[str, Array]) -> str:
    """Of the statistics alone, whatever file they are in: mu and sigma, else the feature vectors."""
    hasher = hashlib.sha256()
    for key in ("mu", "sigma") if "mu" in arrays else ("features",):
        hasher.update(np.ascontiguousarray(arrays[key], dtype=np.float64).tobytes())
    return hasher.hexdigest()


def _source(told: dict[str, Any], arrays: dict[str, Array]) -> str:
    """The sha256 of what a reference was made from: images as decoded and cut, or a file of statistics.

    It names the reference in keys, because statistics of images differ from machine to machine in their last bits.
    """
    if "source_sha256" not in told:
        return _sha(arrays)
    source = str(told["source_sha256"])
    return files.digest([told["extractor"], source]) if told["kind"] == "images" else source


def _file_sha(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise StoreError(f"{path}: can't be read ({_line(error)}); check its permissions") from None


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:160] or type(error).__name__
