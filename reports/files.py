"""A report's files, which may come from a stranger: no pipe is waited for, no link followed, no bomb unpacked.

Every reader raises OSError if the file can't be read, and ValueError if it isn't what a run writes.
"""

import json
import math
import os
import secrets
import stat
import zipfile
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from solverbench.wording import printable

TEXT_BYTES, ARRAY_BYTES = 1 << 28, 1 << 32
"""Largest size of a file of text, and of the arrays of a file, in bytes."""
RATIO = 100
"""Largest size of a file's arrays relative to the file."""
DEPTH = 32
"""Largest depth of objects and lists in JSON."""


@cache
def release(library: str) -> str:
    """Return the version of an installed library, which is looked up once: a report's stamps ask for it fifty times."""
    return metadata.version(library)


def content(path: Path, most: int = TEXT_BYTES) -> bytes:
    """Return the bytes of a regular file of at most `most` bytes."""
    number = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    with os.fdopen(number, "rb") as file:
        found = os.fstat(number)
        if not stat.S_ISREG(found.st_mode):
            raise ValueError("not a regular file")
        if found.st_size > most:
            raise ValueError(f"{found.st_size} bytes, where such a file has {most} at most")
        return file.read(most + 1)


def put(path: Path, content: bytes) -> None:
    """Write `content` to `path` atomically; a link at `path` is replaced, and the temporary name can't be guessed."""
    part = path.with_name(f".{secrets.token_hex(8)}.part")
    try:
        part.write_bytes(content)
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def parsed(path: Path) -> Any:
    """Return the content of a JSON file; control characters of its texts are escaped, line by line."""
    try:
        return _clean(json.loads(content(path)), DEPTH)
    except RecursionError:
        raise ValueError(f"nested more than {DEPTH} deep") from None


def _clean(value: Any, depth: int) -> Any:
    if depth == 0:
        raise ValueError(f"nested more than {DEPTH} deep")
    if isinstance(value, str):
        return value if value.isprintable() else "\n".join(map(printable, value.split("\n")))
    if isinstance(value, list):
        return [_clean(each, depth - 1) for each in value]
    if isinstance(value, dict):
        return {printable(key): _clean(each, depth - 1) for key, each in value.items()}
    return value


def arrays(path: Path) -> dict[str, np.ndarray]:
    """Return the arrays of an .npz, none of them pickled, by name."""
    try:
        number = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
        with os.fdopen(number, "rb") as file:
            size = os.fstat(number).st_size
            if not stat.S_ISREG(os.fstat(number).st_mode) or size > ARRAY_BYTES:
                raise ValueError("not a regular file, or too large")
            with zipfile.ZipFile(file) as archive:
                entries = archive.infolist()
                if sum(each.file_size for each in entries) > min(ARRAY_BYTES, RATIO * size):
                    raise ValueError(f"its arrays are more than {RATIO} times as large as the file")
                return {each.filename.removesuffix(".npy"): _array(archive, each) for each in entries}
    except (OSError, ValueError):
        raise
    except Exception as error:  # zipfile and numpy's header parser raise many kinds
        raise ValueError(f"{type(error).__name__}: {error}") from None


def _array(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> np.ndarray:
    """Return an entry's array; nothing is allocated unless its header agrees with the entry's size."""
    with archive.open(entry) as file:
        shape, transposed, kind = _header(file)  # type: ignore[arg-type]
        if kind.hasobject or math.prod(shape) * kind.itemsize != entry.file_size - file.tell():
            raise ValueError(f"{entry.filename!r} has another size than its header says")
        return np.frombuffer(bytearray(file.read()), kind).reshape(shape, order="F" if transposed else "C")


def _header(file: BinaryIO) -> tuple[tuple[int, ...], bool, np.dtype]:
    version = np.lib.format.read_magic(file)
    readers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    return readers[version](file)
