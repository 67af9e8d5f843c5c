"""Recognition of unreadable files by their first bytes, so that an error can name their real content."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from solverbench.errors import RecordError
from solverbench.wording import one_line

_STARTS = {
    b"version https://git-lfs": ("a Git LFS pointer, not the file itself", "run 'git lfs pull' where it came from"),
    b"<!doctype html": ("a web page, not the file itself", "download it again"),
    b"<html": ("a web page, not the file itself", "download it again"),
}
"""Known first bytes, in lower case -> (description of the file, remedy)."""


def unreadable(path: Path | str, head: bytes, wrong: str, error: object, remedy: str) -> RecordError:
    """Return the error for a file that can't be read as what it should be.

    Args:
        path: the file, or the member of an archive.
        head: its first bytes.
        wrong: what it isn't, such as "not a zip".
        error: what its reader raised.
        remedy: what to do if the first bytes don't tell.
    """
    if not head:
        return RecordError(asked=path, wrong="empty", remedy=remedy)
    for start, (what, do) in _STARTS.items():
        if head.lstrip().lower().startswith(start):
            return RecordError(asked=path, wrong=what, remedy=do)
    return RecordError(asked=path, wrong=f"{wrong} ({one_line(error, typed=not str(error))})", remedy=remedy)


def head(path: Path) -> bytes:
    """Return the first bytes of a file.

    Raises:
        RecordError: it can't be read.
    """
    try:
        with path.open("rb") as file:
            return file.read(64)
    except OSError as error:
        remedy = "check the path and its permissions"
        raise RecordError(asked=path, wrong=f"can't be read ({one_line(error)})", remedy=remedy) from None


@contextmanager
def archive(path: Path) -> Iterator[zipfile.ZipFile]:
    """Yield a zip for reading.

    Raises:
        BadZipFile: its directory lists fewer files than it says, which zipfile itself doesn't notice.
    """
    with zipfile.ZipFile(path) as opened:
        with path.open("rb") as file:
            file.seek(-(_END + len(opened.comment)), 2)
            end = file.read(_END)
        said = int.from_bytes(end[10:12], "little")  # 65535 if there are more, or nothing is known
        if end.startswith(b"PK\5\6") and said not in (len(opened.infolist()), 0xFFFF):
            raise zipfile.BadZipFile(f"{len(opened.infolist())} of {said} files are listed")
        yield opened


_END = 22
"""Bytes of a zip's last record, without its comment."""
