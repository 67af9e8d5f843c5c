"""Files that are whole or not there: written beside their place, then renamed; every read verifies a checksum."""

from __future__ import annotations

import errno
import hashlib
import io
import json
import os
import secrets
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from solverbench.errors import RecordError, StoreError

HEX = 64
"""Characters of a sha256, which end an array file and stand under "checksum" in a JSON file."""


def write_bytes(path: Path, content: bytes) -> None:
    """Write `content` to `path` so that a reader, or a run after a crash, sees the old file or the whole new one.

    Raises:
        StoreError: the folder can't be written, or there is no space left.
    """
    part = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with open(part, "xb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.replace(part, path)
        finally:
            part.unlink(missing_ok=True)
    except OSError as error:
        raise _refusal(path, len(content), error) from error


def canonical(body: Any) -> str:
    """Return the one JSON text of `body`: keys sorted, no spaces, floats exact; NaN and infinity are refused."""
    return json.dumps(body, sort_keys=True, separators=(",", ":"), allow_nan=False)


def digest(body: Any) -> str:
    """Return the sha256 of `canonical(body)`."""
    return hashlib.sha256(canonical(body).encode()).hexdigest()


def write_json(path: Path, body: Mapping[str, Any]) -> None:
    """Write `body` with its checksum, laid out for people."""
    text = json.dumps({**body, "checksum": digest(body)}, indent=1, ensure_ascii=False, allow_nan=False)
    write_bytes(path, (text + "\n").encode())


def read_json(path: Path) -> dict[str, Any]:
    """Return what `write_json` wrote, without the checksum.

    Raises:
        RecordError: damaged, edited or not one of these files.
    """
    try:
        body = json.loads(_read(path))
        checksum = body.pop("checksum")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise _damage(path, "not one of our files, or cut short") from None
    if checksum != digest(body):
        raise _damage(path, "its checksum doesn't match its content")
    return dict(body)


def write_arrays(path: Path, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Write `arrays` as an uncompressed .npz whose zip comment is the sha256 of all bytes before it."""
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)  # type: ignore[arg-type]
    with zipfile.ZipFile(buffer, "a") as archive:
        archive.comment = b"0" * HEX
    content = buffer.getvalue()[:-HEX]
    write_bytes(path, content + hashlib.sha256(content).hexdigest().encode())


def read_arrays(path: Path) -> dict[str, NDArray[Any]]:
    """Return what `write_arrays` wrote.

    Raises:
        RecordError: damaged, or not one of these files.
    """
    content = _read(path)
    if hashlib.sha256(content[:-HEX]).hexdigest().encode() != content[-HEX:]:
        raise _damage(path, "its checksum doesn't match its content")
    with np.load(io.BytesIO(content), allow_pickle=False) as archive:
        return dict(archive)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise StoreError(f"{path}: can't be read ({error.strerror}); check the folder and its permissions") from error


def _damage(path: Path, what: str) -> RecordError:
    return RecordError(f"{path}: damaged, {what}; delete this file and run again, which makes it anew")


def _refusal(path: Path, size: int, error: OSError) -> StoreError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        remedy = "free some space and run again, what is finished is kept"
        return StoreError(f"{path}: no space left for {size} bytes ({error.strerror}); {remedy}")
    return StoreError(f"{path}: can't be written ({error.strerror}); choose another place or change its permissions")
