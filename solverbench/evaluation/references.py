"""References: stored statistics of real images, with their origin and feature extractor."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from solverbench import files, registries, userdata
from solverbench.errors import FeatureError, MissingError, RecordError, UserError
from solverbench.evaluation.reference_checks import checked, positive
from solverbench.evaluation.reference_foreign import UNKNOWN, Array, foreign
from solverbench.method.spec import make
from solverbench.metrics import extractors
from solverbench.metrics.evaluation import Reference
from solverbench.metrics.extractors import plugin
from solverbench.metrics.frechet import Rows, Statistics
from solverbench.teachers.loading import load_teacher
from solverbench.teachers.teacher import Teacher
from solverbench.wording import printable, suggest

BY_RUN = "by a run"
"""What a reference says of samples that a run made because a metric needed them."""

_TRANSFORMERS = tuple(extractors.FOLDERS)


@dataclass(frozen=True)
class Extractor:
    """A function from uint8 images [B, C, H, W] to features [B, D], with its name in results.

    Args:
        shape: the only image shape [C, H, W] that it takes; None if it takes any.
    """

    extract: Callable[[Tensor], Tensor]
    identity: str
    shape: tuple[int, int, int] | None = None

    def fitted(self, images: Tensor, name: str) -> Tensor:
        """Return images in the extractor's shape; grey RGB images become one channel if it takes one.

        Raises:
            FeatureError: the images have another shape.
        """
        if self.shape is None:
            return images
        if self.shape[0] == 1 and images.shape[1] == 3 and bool((images == images[:, :1]).all()):
            images = images[:, :1]
        if tuple(images.shape[1:]) != self.shape:
            here, wanted = ("x".join(map(str, shape)) for shape in (images.shape[1:], self.shape))
            raise FeatureError(
                asked=f"reference {name!r}",
                wrong=f"the images are {here}, but this extractor takes only {wanted}",
                remedy="give such images, or another --extractor",
            )
        return images


def extractor(name: str, device: str = "cpu") -> Extractor:
    """Return the extractor `name`: a public one, a plugin's, or a teacher for its own feature network.

    Raises:
        UserError: no such extractor, or a teacher without one.
        PluginError: a plugin's extractor that can't be loaded.
        MissingError: its package, its weights or the teacher is missing.
    """
    if name in registries.extractors:
        network = plugin.load(name, device) if plugin.there(name) else extractors.load(name, device)
        return Extractor(network, network.identity)
    known = ", ".join([*registries.extractors, *registries.teachers.builtin])
    if name.partition(":")[0] not in registries.teachers:
        remedy = suggest(name, [*registries.extractors, *registries.teachers], f"use one of {known}")
        raise UserError(asked=f"extractor {name!r}", wrong="not known", remedy=remedy)
    teacher = load_teacher(name, device)
    if teacher.evaluation is None:
        raise UserError(
            asked=f"extractor {name!r}", wrong="a teacher without features of its own", remedy=f"use one of {known}"
        )
    shape = teacher.shape if teacher.decode is None else None
    return Extractor(teacher.evaluation.extractor, teacher.evaluation.extractor_id, shape)


def folders(out: Path) -> list[Path]:
    """Return the folders searched for references, in order: DIR/references, then the user's data folder."""
    return [out / "references", userdata.data() / "references"]


def listed(out: Path) -> Iterator[tuple[str, Path]]:
    """Yield name and file of each stored reference, sorted by name; DIR's own take precedence."""
    found: dict[str, Path] = {}
    for folder in folders(out):
        for path in folder.glob("*.npz"):
            if not path.name.endswith(".building.npz"):
                found.setdefault(path.stem, path)
    yield from sorted(found.items())


def about(path: Path) -> dict[str, Any]:
    """Return the facts stored in a reference.

    Raises:
        RecordError: the file is damaged, or not a reference of SolverBench.
    """
    return _described(path, files.read_arrays(path))


def find(name: str, out: Path, *, draws: bool = False) -> Path:
    """Return the file of the reference `name`: a stored one, or the path of an .npz.

    Args:
        draws: there is a teacher of this name that draws images.

    Raises:
        MissingError: there is no such reference or file.
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
        if draws or stem in registries.teachers.builtin
        else f"run 'solverbench refs build {stem} SOURCE', where SOURCE is an .npz or a folder of images"
    )
    looked = " or ".join(map(str, folders(out)))
    raise MissingError(
        asked=f"reference {name!r}", wrong=f"neither a file nor stored in {looked} (there: {known})", remedy=said
    )


def named_for(teacher: Teacher, out: Path, extractor_id: str | None = None) -> str:
    """Return the name of the stored reference for a teacher's data set and image size, whatever its options.

    This is the reference under the teacher's own name, with or without options. Otherwise it is the one under the name
    of a published teacher with the same reference, or one made from that published file.

    Args:
        extractor_id: extractor of the reference; any if None.

    Raises:
        MissingError: there is no such reference.
    """
    published = registries.catalogue()
    own = dict.fromkeys((teacher.name, teacher.model, teacher.base))
    told: dict[str, Any] = next((published[name].get("reference", {}) for name in own if name in published), {})
    alike = [name for name, each in published.items() if told and each.get("reference", {}).get("url") == told["url"]]
    alike = alike if told.get("url") != UNKNOWN else []
    stored = dict(listed(out))
    known = [name for name in dict.fromkeys((*own, *alike)) if name in stored]
    names = [name for name in known if "samples" not in about(stored[name])]
    if alike:
        file = str(told["url"]).rpartition("/")[2]
        names += [name for name, path in stored.items() if name not in names and about(path)["origin"] == file]
    fitting = [name for name in names if extractor_id is None or _compatible(_maker(stored[name]), extractor_id)]
    if fitting:
        return fitting[0]
    if names:
        raise MissingError(
            asked=f"reference for {teacher.model}",
            wrong=f"no stored reference is by {extractor_id} (found: {', '.join(names)})",
            remedy="run 'solverbench refs build NAME SOURCE --extractor EXTRACTOR' and give --reference NAME",
        )
    find(teacher.model, out, draws=teacher.images_of is not None)  # says where it was looked for
    raise AssertionError(teacher.model)


def quantiser_of(teacher: Teacher) -> str:
    """Return the rule by which a teacher's images become uint8 unless another is asked for."""
    return teacher.evaluation.quantiser if teacher.evaluation is not None else "edm-round"


def of_sampler(teacher: Teacher) -> str:
    """Return the identity of a teacher's own samples of any seeds: network, condition, sampler and rounding."""
    named: dict[str, Any] = {"teacher": teacher.identity, "shape": list(teacher.shape), "dtype": teacher.arithmetic}
    named |= {"sampler": make(teacher.sampler).key, "nfe": teacher.sampler_nfe, "schedule": teacher.schedule.key}
    named |= {"quantiser": quantiser_of(teacher), "condition": teacher.condition and teacher.condition.key}
    return files.digest(named)


def of_samples(teacher: Teacher, out: Path, extractor_id: str, count: int = 0) -> Reference | None:
    """Return a stored reference of a teacher's own samples; None if there is none by this extractor.

    The first one that `refs build` made is taken. Otherwise it is the smallest one that a run made of `count` samples
    or more.
    """
    wanted, found = of_sampler(teacher), list[tuple[int, str]]()
    for name, path in listed(out):
        try:
            told = about(path)
        except RecordError:  # another one's damage is told where that one is asked for
            continue
        if told.get("samples") == wanted and _compatible(str(told["extractor"]), extractor_id):
            if told.get("made") != BY_RUN:
                return load(name, out, extractor_id)
            found += [(told["n"], name)] if told["n"] >= count else []
    return load(min(found)[1], out, extractor_id) if found else None


def load(name: str, out: Path, extractor_id: str) -> Reference:
    """Return the reference `name`, stored or the path of an .npz, for features by `extractor_id`.

    Raises:
        MissingError: it does not exist.
        RecordError, FeatureError: it cannot be used.
        UserError: it was made by another extractor.
    """
    path = find(name, out)
    if any(path.parent == folder for folder in folders(out)):
        arrays = files.read_arrays(path)
        told = _described(path, arrays)
    else:
        arrays, told = foreign(path, judged=extractor_id)
    made_by = str(told["extractor"])
    if not _compatible(made_by, extractor_id):
        raise UserError(
            asked=f"reference {path}",
            wrong=f"made by {made_by}, but the images are judged by {extractor_id}",
            remedy="give a reference of the same extractor, or another --extractor",
        )
    statistics, features = checked(path, arrays, int(told["n"]))
    count = f"{told['n']} images" if told["n"] else "image count unknown"
    sha = _source(told, arrays)
    crop, cut = told.get("crop", ""), f", crop {told['crop']}" if told.get("crop") else ""
    label = f"{told['name']} (from {told['origin']}, {count}, split {told['split']}{cut}, sha256 {sha[:12]})"
    return Reference(statistics, label, sha, features, _note(label, statistics), crop, told.get("pixels", ""))


def verify(path: Path) -> str:
    """Read and check the whole reference at `path`, stored or foreign, and return a one-line summary.

    Raises:
        RecordError, FeatureError: it cannot be used.
    """
    try:
        arrays = files.read_arrays(path)
        told = _described(path, arrays)
    except RecordError:
        if path.parent.name == "references":
            raise
        arrays, told = foreign(path)
    statistics, features = checked(path, arrays, int(told["n"]))
    count = f"n={told['n']}" if told["n"] else "n unknown"
    count += "".join(f", {word} {told[word]}" for word in ("crop", "pixels") if told.get(word))
    kept = f", {len(features)} feature vectors" if features is not None else ""
    note = f"; {_note('', statistics)}" if _note("", statistics) else ""
    size = statistics.mean.size
    return printable(
        f"{told['name']}: {size} features by {told['extractor']}, {count}, split {told['split']}{kept}, sha256 "
        f"{_source(told, arrays)[:12]}, from {told['origin']}{note}"
    )


def _note(label: str, statistics: Statistics) -> str:
    """Return a warning if the covariance is singular or may be; empty otherwise."""
    size, n = statistics.mean.size, statistics.n
    if not isinstance(statistics, Rows) and (not n or n > size) and positive(statistics.cov):
        return ""
    images = f"{n} images" if n else "an unknown number of images"
    said = f"its covariance is singular ({images}, {size} features): distances to it are computed exactly, but biased"
    return f"reference {label}: {said}" if label else said


def _compatible(made_by: str, extractor_id: str) -> bool:
    """Return whether a reference by `made_by` may be compared with features by `extractor_id`.

    It may if the extractor is the same, or of the same kind and without a sha256. An unknown one passes for public
    extractors.
    """
    if made_by == UNKNOWN:
        return extractor_id.startswith(("clean-fid/", *(f"{each}@" for each in _TRANSFORMERS)))
    return made_by == extractor_id or ("@" not in made_by and made_by == extractor_id.partition("@")[0])


def _maker(path: Path) -> str:
    return str(about(path)["extractor"])


def _described(path: Path, arrays: dict[str, Array]) -> dict[str, Any]:
    if "about" not in arrays:
        raise RecordError(
            asked=path, wrong="not a SolverBench reference", remedy=f"run 'solverbench refs build NAME {path}'"
        )
    return _decoded(arrays["about"])


def _encoded(told: dict[str, Any]) -> NDArray[np.uint8]:
    return _bytes(files.canonical(told).encode())


def _bytes(content: bytes) -> NDArray[np.uint8]:
    return np.frombuffer(content, dtype=np.uint8)


def _decoded(told: NDArray[Any]) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(bytes(told))
    return found


def _sha(arrays: dict[str, Array]) -> str:
    """Return the sha256 of the statistics alone, whatever their file: mu and sigma, else the feature vectors."""
    hasher = hashlib.sha256()
    for key in ("mu", "sigma") if "mu" in arrays else ("features",):
        hasher.update(np.ascontiguousarray(arrays[key], dtype=np.float64).tobytes())
    return hasher.hexdigest()


def _source(told: dict[str, Any], arrays: dict[str, Array]) -> str:
    """Return the sha256 of a reference's source: images as decoded and cropped, or a file of statistics.

    It names the reference in keys, because statistics of images differ between machines in their last bits.
    """
    if "source_sha256" not in told:
        return _sha(arrays)
    source = str(told["source_sha256"])
    return files.digest([told["extractor"], source]) if told["kind"] == "images" else source
