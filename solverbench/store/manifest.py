"""The manifest of an export: export.json, the sha256 of each of its files, and one sha256 that stands for all."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from solverbench import files
from solverbench.errors import MissingError, RecordError
from solverbench.store import layout
from solverbench.store.layout import Damage

LIST, TABLE = "export.json", "results.csv"
"""Names of the manifest and of the table of numbers."""


def of(shas: Mapping[str, str]) -> dict[str, Any]:
    """Return the manifest of files, name to sha256; its `checksum` is the sha256 that a paper prints."""
    told = {"format": "solverbench-export", "version": 1, "files": dict(shas)}
    return {**told, "checksum": files.digest(told)}


def read(path: Path) -> tuple[dict[str, str], str]:
    """Return the files of a manifest, name to sha256, and the manifest's own sha256.

    Raises:
        MissingError: there is no such file.
        RecordError: it is damaged, or no manifest.
    """
    if not path.exists():
        raise MissingError(asked=f"manifest {path}", wrong="doesn't exist", remedy=f"give the {LIST} of an export")
    told = files.read_json(path)
    listed = told.get("files")
    if told.get("format") != "solverbench-export" or not isinstance(listed, dict):
        raise RecordError(asked=path, wrong="not the manifest of an export", remedy="export again")
    shas = {str(name): str(sha) for name, sha in listed.items()}
    return shas, str(of(shas)["checksum"])


def regular(path: Path) -> bool:
    """Return whether there is a file at `path` that is neither a link nor special."""
    return path.is_file() and not path.is_symlink()


def check(root: Path, path: Path | None = None) -> list[Damage]:
    """Return the files that a manifest names and that are missing or differ; none if there is no manifest.

    Args:
        root: folder of an export, or of a store that one was merged into.
        path: the manifest; that of the export at `root` if None.

    Raises:
        MissingError, RecordError: as for `read`.
    """
    if path is None and not (root / LIST).exists():
        return []
    shas, _ = read(path or root / LIST)
    return list(_unlike(root, shas, ours=path is None))


def compared(root: Path, asked: str) -> list[Damage]:
    """Return the files that differ from a manifest.

    Args:
        root: folder of an export, or of a store that one was merged into.
        asked: sha256 of the manifest of the export at `root`, or the path of a manifest.

    Raises:
        MissingError, RecordError: as for `read`, and for another manifest than the one asked for.
    """
    if not re.fullmatch(r"[0-9a-fA-F]{64}", asked):
        return check(root, Path(asked))
    _, sha = read(root / LIST)
    if sha != asked.lower():
        raise RecordError(
            asked=f"--manifest {asked}",
            wrong=f"{root / LIST} is another manifest, of sha256 {sha}",
            remedy="these aren't the files that this sha256 stands for; ask for those",
        )
    return check(root)


def _unlike(root: Path, shas: Mapping[str, str], *, ours: bool) -> Iterator[Damage]:
    for name, sha in shas.items():
        if not layout.known(name) and not (ours and name in ("store.json", TABLE)):
            continue
        if not ours and name.endswith(("/timing.json", "/origin.json", "/error.txt")):  # each store has its own
            continue
        if not regular(root / name):
            yield Damage(name, "listed in the export, but missing")
        elif files.sha256(root / name) != sha:
            yield Damage(name, "does not match the sha256 in the export's list")
