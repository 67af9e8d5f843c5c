"""Reader of statistics files (.npz, .npy, .pkl) written by other projects."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from solverbench import files
from solverbench.errors import RecordError, UserError
from solverbench.evaluation import contents, statistics_pickles
from solverbench.metrics.extractors.transformers import CLIP, DINOv2

Array = NDArray[np.float64]


KINDS = {
    "edm": "clean-fid/legacy_tensorflow",
    "edm2": "clean-fid/legacy_tensorflow",
    "edm2-dinov2": DINOv2.folder,
    "guided-diffusion": "clean-fid/legacy_tensorflow",
    "pytorch-fid": "clean-fid/legacy_pytorch",
    "clean-fid": "clean-fid/clean",
}
"""Origin of a foreign file to the extractor of its statistics; clean-fid's file names give theirs."""

SUFFIXES = (".npz", ".npy", ".pkl", ".pickle")
"""Extensions of statistics files."""

UNKNOWN = "unknown"

_WANTED = {
    "sigma": "sigma",
    "cov": "sigma",
    "mu": "mu",
    "features": "features",
    "feats": "features",
    "pool_3": "features",
}
"""Names of arrays to ours, the preferred one of two first: `cov` as some tools call sigma, `feats` as clean-fid and
`pool_3` as the code of score_sde call features."""

_SECTIONS = {"edm2": "fid", "edm2-dinov2": "fd_dinov2"}
"""EDM2's kinds to the name of their statistics in its pickles."""

_BROKEN = "download or make it again"


def foreign(
    path: Path, kind: str | None = None, count: int | None = None, judged: str = ""
) -> tuple[dict[str, Array], dict[str, Any]]:
    """Return the arrays of a foreign file and the known facts about it; nothing in it is executed.

    Args:
        kind: whose file it is, one of `KINDS`; guessed if None.
        count: the number of images behind it, if it doesn't say.
        judged: identity of the extractor that it is for, which chooses between a pickle's statistics; any if empty.

    Raises:
        UserError: an unknown kind, or a count that the file contradicts.
        RecordError: the file can't be read, or has no statistics.
    """
    if kind is not None and kind not in KINDS:
        raise UserError(
            asked=f"--kind {kind}", wrong=f"not one of {', '.join(KINDS)}", remedy="leave it out if you don't know"
        )
    if count is not None and count < 2:
        raise UserError(asked=f"--count {count}", wrong="too few images for a covariance", remedy="give at least 2")
    if path.suffix in (".pkl", ".pickle"):
        found, keys, n, kind = _pickled(path, kind, judged)
    else:
        found, keys, n = *(_single(path) if path.suffix == ".npy" else _archived(path)), 0
        if kind in _SECTIONS and path.suffix == ".npy":
            raise UserError(
                asked=f"--kind {kind}", wrong=f"{path} holds no statistics of EDM2's", remedy="leave --kind out"
            )
    arrays = {ours: np.asarray(found[key]) for key, ours in reversed(_WANTED.items()) if key in found}
    if not ({"mu", "sigma"} <= set(arrays) or "features" in arrays):
        held = ", ".join(sorted(keys)) or "nothing"
        wrong = f"holds {held}, not mu and sigma"
        raise RecordError(asked=path, wrong=wrong, remedy=f"give statistics ({', '.join(SUFFIXES[:3])})")
    mode = re.search(r"_(clean|legacy_tensorflow|legacy_pytorch)_(clip_vit_b_32_)?", path.name)
    guessed = kind or ("guided-diffusion" if "mu_s" in keys else "clean-fid" if mode else None)
    made_by = KINDS[guessed] if guessed else UNKNOWN
    if guessed == "clean-fid" and mode:
        made_by = CLIP.folder if mode[2] else f"clean-fid/{mode[1]}"
    n = n or (len(arrays["features"]) if "mu" not in arrays else 0)
    if count is not None and n and count != n:
        raise UserError(asked=f"--count {count}", wrong=f"{path} says {n} images", remedy="leave --count out")
    told = {
        "name": path.stem,
        "origin": path.name,
        "kind": guessed or UNKNOWN,
        "extractor": made_by,
        "n": n or count or 0,
    }
    return arrays, {**told, "split": UNKNOWN, "source_sha256": files.sha256(path)}


def _archived(path: Path) -> tuple[dict[str, Array], set[str]]:
    """Return the wanted arrays of an .npz, each read to its end so that its checksum is verified; and all names."""
    try:
        with contents.archive(path) as archive:
            members = [name for name in archive.namelist() if name.endswith(".npy")]
            keys = [name.removesuffix(".npy") for name in members]
            twice = {key for key in keys if keys.count(key) > 1}
            wanted = [key for key in keys if key in _WANTED and key not in twice]
            found = {key: _parsed(archive.read(f"{key}.npy")) for key in wanted}
    except OSError as error:
        raise _unread(path, error) from None
    except Exception as error:  # a damaged file makes zipfile and numpy raise nearly anything
        raise contents.unreadable(path, contents.head(path), "not a whole .npz", error, _BROKEN) from None
    if twice:
        raise RecordError(asked=path, wrong=f"holds {', '.join(sorted(twice))} more than once", remedy=_BROKEN)
    return found, set(keys)


def _single(path: Path) -> tuple[dict[str, Array], set[str]]:
    """Return the array of an .npy as feature vectors."""
    try:
        found = _parsed(path.read_bytes())
    except OSError as error:
        raise _unread(path, error) from None
    except Exception as error:  # a damaged file makes numpy raise nearly anything
        raise contents.unreadable(path, contents.head(path), "not a whole .npy", error, _BROKEN) from None
    if found.ndim != 2:
        wrong = f"an array of shape {found.shape}, neither feature vectors [N, D] nor images"
        raise RecordError(asked=path, wrong=wrong, remedy="give one of these, or an .npz of mu and sigma")
    return {"features": found}, {"features"}


def _parsed(content: bytes) -> Array:
    """Return the array of an .npy's bytes.

    Raises:
        ValueError: it holds objects, is cut short, or has bytes left over.
    """
    file = io.BytesIO(content)
    found: Array = np.lib.format.read_array(file, allow_pickle=False)
    if file.read(1):
        raise ValueError("bytes after the end of an array")
    return found


def _pickled(path: Path, kind: str | None, judged: str) -> tuple[dict[str, Array], set[str], int, str | None]:
    """Return arrays, names, images (0 if it doesn't say) and kind of a pickle, EDM2's or of mu and sigma alone.

    Source: calculate_metrics.py of the public code of Karras et al. 2024, arXiv:2312.02696: metric name to mu and
        sigma, and `num_images`.
    """
    content = statistics_pickles.read(path)
    if not isinstance(content, dict):
        raise RecordError(
            asked=path, wrong="a pickle without mu and sigma", remedy="give statistics as EDM2 pickles them"
        )
    sections = [each for each, name in _SECTIONS.items() if isinstance(content.get(name), dict)]
    if kind in _SECTIONS and kind not in sections:
        held = ", ".join(map(str, content))
        raise UserError(
            asked=f"--kind {kind}", wrong=f"{path} holds {held}, not {_SECTIONS[kind]}", remedy="leave --kind out"
        )
    if kind is None and sections:
        fitting = [each for each in sections if judged.startswith(KINDS[each])]
        kind = (fitting or sections)[0]
    found: Mapping[str, Any] = content[_SECTIONS[kind]] if kind in _SECTIONS else content
    n = content.get("num_images", 0)
    arrays = {name: array for name, array in found.items() if isinstance(array, np.ndarray)}
    return arrays, set(map(str, found)), n if type(n) is int and n > 0 else 0, kind


def _unread(path: Path, error: OSError) -> RecordError:
    remedy = "give a file of statistics that can be read"
    return RecordError(asked=path, wrong=f"can't be read ({error.strerror})", remedy=remedy)
