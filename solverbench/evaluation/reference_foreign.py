"""Reader of statistics files (.npz) written by other projects."""

from __future__ import annotations

import re
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from solverbench import files
from solverbench.errors import RecordError, UserError
from solverbench.metrics.extractors.transformers import CLIP
from solverbench.wording import one_line

Array = NDArray[np.float64]


KINDS = {
    "edm": "clean-fid/legacy_tensorflow",
    "guided-diffusion": "clean-fid/legacy_tensorflow",
    "pytorch-fid": "clean-fid/legacy_pytorch",
    "clean-fid": "clean-fid/clean",
}
"""Origin of a foreign .npz to the extractor of its statistics; clean-fid's file names give theirs."""


UNKNOWN = "unknown"


def foreign(path: Path, kind: str | None = None, count: int | None = None) -> tuple[dict[str, Array], dict[str, Any]]:
    """Return the arrays of a foreign .npz and the known facts about it; nothing in it is executed.

    Raises:
        UserError: an unknown kind.
        RecordError: the file is not an .npz, or has no statistics.
    """
    if kind is not None and kind not in KINDS:
        raise UserError(f"--kind {kind}: not one of {', '.join(KINDS)}; leave it out if you don't know")
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            keys = set(archive.files)
            wanted = {"mu": "mu", "sigma": "sigma", "features": "features", "feats": "features"}
            arrays = {ours: np.asarray(archive[key]) for key, ours in wanted.items() if key in keys}
    except OSError as error:
        raise RecordError(f"{path}: can't be read ({one_line(error)}); give an .npz of statistics") from None
    except (ValueError, KeyError, EOFError, AttributeError, zipfile.BadZipFile, zipfile.LargeZipFile) as error:
        raise RecordError(f"{path}: not a whole .npz ({one_line(error)}); download or make it again") from None
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
    return arrays, {**told, "split": UNKNOWN, "source_sha256": files.sha256(path)}
