"""Atomic files with checksums: written under a temporary name, then renamed; every read verifies the checksum."""

from __future__ import annotations

import csv
import errno
import hashlib
import io
import itertools
import json
import math
import os
import secrets
import shutil
import stat
import struct
import tempfile
import threading
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache, lru_cache
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from solverbench.errors import RecordError, StoreError

HEX = 64
"""Length of a sha256 in hex digits: the last bytes of an array file, the value of "checksum" in a JSON file."""


DAMAGED = ".damaged"
"""Suffix of the name of a file that was set aside."""

JSON_BYTES, ARRAY_BYTES = 1 << 26, 1 << 32
"""Largest size of a JSON file and of an array file, in bytes; a larger one counts as damaged before it is read."""

ENTRIES = 4096
"""Largest number of arrays in a file."""

FOREIGN = (ValueError, KeyError, EOFError, NotImplementedError, zipfile.BadZipFile, zlib.error, struct.error)
"""Exceptions raised by reading an array file that is damaged or foreign."""


def write_bytes(path: Path, content: bytes, *, replace: bool = True) -> None:
    """Write `content` to `path` so that a reader, or a run after a crash, sees the old file or the whole new one.

    Args:
        replace: whether to replace an existing file; if not, the file written first stays and `content` is dropped.

    Raises:
        StoreError: the folder cannot be written, or no space is left.
    """
    with replacing(path, len(content)) as part:
        with open(part, "xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        if not replace and _linked(part, path):
            part.unlink()


@contextmanager
def replacing(path: Path, size: int = 0) -> Iterator[Path]:
    """Yield a temporary place in the folder of `path` for a file or folder, which is then renamed to `path`.

    It is removed if something is raised inside; nothing is renamed if it isn't there.

    Args:
        size: bytes that will be written, for the error; 0 if that isn't known.

    Raises:
        StoreError: the folder can't be written, or there is no space left.
    """
    part = path.with_name(f".{path.name}.{_mark(os.getpid())}{next(_COUNT):x}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield part
            if part.exists():
                os.replace(part, path)
        finally:
            if part.is_dir():
                shutil.rmtree(part, ignore_errors=True)
            part.unlink(missing_ok=True)
    except OSError as error:
        raise refusal(path, size, error) from error


_COUNT = itertools.count()


@cache
def _mark(process: int) -> str:
    """Return a random mark of this process's temporary files, unique across machines; drawn once, as it may block."""
    return secrets.token_hex(8)


def _linked(part: Path, path: Path) -> bool:
    """Hard-link `part` to `path` unless `path` exists; return whether `path` exists now (False without hard links)."""
    try:
        os.link(part, path)
    except FileExistsError:
        return True
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise
        return path.exists()
    return True


def check_writable(folder: Path) -> None:
    """Check that files can be written into a folder, which needn't exist yet; nothing stays behind.

    Raises:
        StoreError: they can't.
    """
    there = next((each for each in (folder, *folder.resolve().parents) if each.exists()), Path("/"))
    try:
        with tempfile.TemporaryFile(dir=there):
            pass
    except OSError as error:
        raise refusal(folder, 0, error) from error


def set_aside(path: Path) -> None:
    """Rename a damaged file, so that it is recomputed and can still be inspected; do nothing if it is gone.

    Raises:
        StoreError: the folder cannot be written.
    """
    try:
        os.replace(path, path.with_name(path.name + DAMAGED))
    except FileNotFoundError:
        pass
    except OSError as error:
        raise refusal(path, 0, error) from error


def canonical(body: Any) -> str:
    """Return the canonical JSON text of `body`: keys sorted, no spaces, floats exact; NaN and infinity are refused."""
    return json.dumps(body, sort_keys=True, separators=(",", ":"), allow_nan=False)


def digest(body: Any) -> str:
    """Return the sha256 of `canonical(body)`."""
    return hashlib.sha256(canonical(body).encode()).hexdigest()


def sha256(path: Path) -> str:
    """Return the sha256 of a file's bytes.

    Raises:
        StoreError: it can't be read.
    """
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise _unreadable(path, error) from error


def regular(path: Path) -> BinaryIO:
    """Open a regular file for reading; a link, a device or a pipe is refused without waiting for it.

    Raises:
        RecordError: it is not a regular file.
        StoreError: it cannot be opened.
    """
    try:
        number = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENXIO, errno.EISDIR):
            raise _irregular(path) from None
        raise _unreadable(path, error) from error
    if not stat.S_ISREG(os.fstat(number).st_mode):
        os.close(number)
        raise _irregular(path)
    return os.fdopen(number, "rb")


def write_json(path: Path, body: Mapping[str, Any], *, replace: bool = True, lines: bool = True) -> None:
    """Write `body` with its checksum.

    Args:
        replace: as for `write_bytes`.
        lines: whether to indent for readability; if not, one line, which is an order of magnitude faster.
    """
    indent = 1 if lines else None
    text = json.dumps({**body, "checksum": digest(body)}, indent=indent, ensure_ascii=False, allow_nan=False)
    write_bytes(path, (text + "\n").encode(), replace=replace)


def csv_bytes(columns: Sequence[str], rows: Iterable[Mapping[str, object]]) -> bytes:
    """Return a CSV file with a header; a value that a row lacks is empty."""
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()


def read_json(path: Path) -> dict[str, Any]:
    """Return the body written by `write_json`, without the checksum.

    Raises:
        RecordError: the file is damaged, edited or foreign.
        StoreError: the file cannot be read.
    """
    try:
        body = json.loads(read(path, JSON_BYTES), parse_constant=refuse_constant, object_pairs_hook=_unique)
        checksum = body.pop("checksum")
        agrees = checksum == digest(body)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise _damage(path, "not one of our files, or cut short") from None
    if not agrees:
        raise _damage(path, "its checksum doesn't match its content")
    return dict(body)


def refuse_constant(constant: str) -> None:
    """Raise ValueError: NaN and infinity are no JSON, though Python's reader takes them; for its `parse_constant`."""
    raise ValueError(constant)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(found := dict(pairs)) != len(pairs):
        raise ValueError("a name that occurs twice")
    return found


def write_arrays(path: Path, arrays: Mapping[str, NDArray[Any]], *, replace: bool = True) -> None:
    """Write `arrays` as an uncompressed .npz whose zip comment is the sha256 of all bytes before it."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:  # as np.savez, which has no way to set the comment
        archive.comment = b"0" * HEX
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as file:
                np.lib.format.write_array(file, np.asanyarray(array), allow_pickle=False)
    content = buffer.getvalue()[:-HEX]
    write_bytes(path, content + hashlib.sha256(content).hexdigest().encode(), replace=replace)


_PARSING = threading.Lock()
"""Lock held while numpy reads a header. numpy parses it as Python, which in Python 3.11 sometimes fails in two threads
at once ("AST constructor recursion depth mismatch")."""


def read_arrays(path: Path) -> dict[str, NDArray[Any]]:
    """Return the arrays written by `write_arrays`.

    Raises:
        RecordError: the file is damaged or foreign.
        StoreError: the file cannot be read.
    """
    content = read(path, ARRAY_BYTES)
    if hashlib.sha256(memoryview(content)[:-HEX]).hexdigest().encode() != content[-HEX:]:
        raise _damage(path, "its checksum doesn't match its content")
    with _damaged(path, "not one of our files"), _archive(io.BytesIO(content), len(content)) as archive:
        return {entry.filename.removesuffix(".npy"): _array(archive, entry) for entry in archive.infolist()}


def read_array(path: Path, name: str) -> NDArray[Any]:
    """Return one array written by `write_arrays`, reading only that part of the file and verifying its own checksum.

    Raises:
        RecordError: the array is damaged or missing.
        StoreError: the file cannot be read.
    """
    what = f"its array {name!r} can't be read"
    with regular(path) as file, _damaged(path, what), _archive(file, os.fstat(file.fileno()).st_size) as archive:
        return _array(archive, archive.getinfo(f"{name}.npy"))


@contextmanager
def _damaged(path: Path, what: str) -> Iterator[None]:
    """Raise RecordError for whatever reading a foreign array file raises."""
    try:
        yield
    except OSError as error:
        if error.errno is not None:
            raise _unreadable(path, error) from error
        raise _damage(path, what) from None
    except Exception:  # zipfile and numpy's header parser raise many kinds
        raise _damage(path, what) from None


@contextmanager
def _archive(file: BinaryIO, size: int) -> Iterator[zipfile.ZipFile]:
    """Yield an archive whose entries are not compressed, all together no larger than the file, with distinct names."""
    with zipfile.ZipFile(file) as archive:
        entries = archive.infolist()
        names = {entry.filename for entry in entries if entry.filename.endswith(".npy")}
        stored = all(entry.compress_type == zipfile.ZIP_STORED for entry in entries)
        if not stored or not 0 < len(entries) == len(names) <= ENTRIES or sum(e.file_size for e in entries) > size:
            raise ValueError(file)
        yield archive


def _array(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> NDArray[Any]:
    """Return an entry's array; nothing is allocated unless its header agrees with the entry's size."""
    with archive.open(entry) as file:
        mark = file.read(np.lib.format.MAGIC_LEN)
        length = file.read(_HEADERS[mark][0])
        shape, transposed, kind = _header(mark, length + file.read(int.from_bytes(length, "little")))
        if kind.hasobject or math.prod(shape) * kind.itemsize != entry.file_size - file.tell():
            raise ValueError(entry.filename)
        content = bytearray(file.read())  # reading to the end verifies the entry's own checksum
        return np.frombuffer(content, kind).reshape(shape, order="F" if transposed else "C")


_HEADERS = {
    np.lib.format.magic(1, 0): (2, np.lib.format.read_array_header_1_0),
    np.lib.format.magic(2, 0): (4, np.lib.format.read_array_header_2_0),
}
"""Number of bytes that give the length of a header, and what reads it, by the mark that an array begins with."""


@lru_cache(1024)
def _header(mark: bytes, header: bytes) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Return the shape, the order and the type that a header names; equal headers, as blocks have, are parsed once."""
    with _PARSING:
        return _HEADERS[mark][1](io.BytesIO(header))


def read(path: Path, most: int) -> bytes:
    """Return the content of a regular file of at most `most` bytes.

    Raises:
        RecordError: it is larger, or not a regular file.
        StoreError: it cannot be read.
    """
    with regular(path) as file:
        if (size := os.fstat(file.fileno()).st_size) > most:
            raise _damage(path, f"{size} bytes, where such a file has {most} at most")
        try:
            return file.read()
        except OSError as error:
            raise _unreadable(path, error) from error


def _irregular(path: Path) -> RecordError:
    return RecordError(asked=path, wrong="a link or another special file, not a regular one", remedy="delete it")


def _unreadable(path: Path, error: OSError) -> StoreError:
    remedy = "check the folder and its permissions"
    return StoreError(asked=path, wrong=f"can't be read ({error.strerror})", remedy=remedy)


def _damage(path: Path, what: str) -> RecordError:
    return RecordError(
        asked=path, wrong=f"damaged, {what}", remedy="delete this file and run again to compute it again"
    )


def refusal(path: Path, size: int, error: OSError) -> StoreError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        remedy = "free some space and run again (finished results are kept)"
        return StoreError(asked=path, wrong=f"no space left for {size} bytes ({error.strerror})", remedy=remedy)
    return StoreError(
        asked=path,
        wrong=f"can't be written ({error.strerror})",
        remedy="choose another place or change its permissions",
    )


def listed(folder: Path) -> list[Path]:
    """Return the paths in a folder, in order; empty if it is missing, was just removed, or is a link."""
    return sorted(Path(entry.path) for entry in _entries(folder))


def folders(folder: Path) -> list[Path]:
    """Return the folders in a folder, in order, without links to folders."""
    return sorted(Path(entry.path) for entry in _entries(folder) if entry.is_dir(follow_symlinks=False))


def below(folder: Path) -> list[Path]:
    """Return the regular files below a folder, in order. Links are not followed, also not the folder itself."""
    return sorted(path for path, kind in _tree(folder) if stat.S_ISREG(kind))


def special(folder: Path) -> list[Path]:
    """Return the links, pipes, sockets and devices below a folder, sorted: all but regular files and folders."""
    return sorted(path for path, kind in _tree(folder) if not stat.S_ISREG(kind))


def _tree(folder: Path) -> Iterator[tuple[Path, int]]:
    """Yield each path below a folder, or the folder if it is no folder, that isn't a folder itself, with its mode."""
    waiting = [folder]
    while waiting:
        try:
            kind = (path := waiting.pop()).lstat().st_mode
        except OSError:  # removed during the walk
            continue
        if stat.S_ISDIR(kind):
            waiting += (Path(entry.path) for entry in _entries(path))
        else:
            yield path, kind


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    if folder.is_symlink():
        return []
    try:
        with os.scandir(folder) as found:
            return list(found)
    except OSError:
        return []
