"""Downloads with progress, resumption, and checksums pinned at the first download."""

from __future__ import annotations

import http.client
import json
import os
import shutil
import urllib.error
import urllib.request
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from solverbench import files
from solverbench._version import __version__
from solverbench.errors import MissingError, RecordError

CHUNK = 1 << 20
"""Bytes per read of a download."""
PINS = "pins.json"
"""Name of the JSON file next to the downloads: file name to URL, sha256 and size."""

Tell = Callable[[int, int | None], None]
"""Progress callback: (bytes so far, total bytes or None if the server does not say)."""


def silent(have: int, total: int | None) -> None:
    """Ignore the progress."""


def fetch(url: str, path: Path, tell: Tell = silent) -> str:
    """Download `path` from `url` unless it exists, and return its sha256.

    The checksum is pinned on first use and compared from then on.

    Raises:
        MissingError: see `download`.
        RecordError: the file differs from the pinned one.
    """
    download(url, path, tell)
    return pinned(path, url)


def download(url: str, path: Path, tell: Tell = silent, *, sha256: str = "") -> None:
    """Download `path` from `url` unless it exists; `path` is complete or absent.

    An interrupted download leaves `.NAME.part`; the next call resumes it if the server still has the same file.

    Args:
        sha256: first digits of the file's sha256; empty if unknown.

    Raises:
        MissingError: it can't be downloaded; the text says where to put the file by hand.
        RecordError: the file has another sha256.
    """
    if path.exists():
        return
    part = path.with_name(f".{path.name}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _download(url, part, tell)
        _check(url, part, sha256)
        os.replace(part, path)
    except (urllib.error.URLError, http.client.HTTPException, OSError) as error:
        why = getattr(error, "reason", None) or error
        kept = f"; {part.stat().st_size} bytes are kept, and the next download resumes there" if part.exists() else ""
        remedy = f"run this again, or download it by other means to {path}"
        raise MissingError(asked=url, wrong=f"can't be downloaded ({why}){kept}", remedy=remedy) from None
    finally:
        if not part.exists():
            part.with_suffix(".tag").unlink(missing_ok=True)


def _check(url: str, part: Path, sha256: str) -> None:
    found = files.sha256(part) if sha256 else ""
    if not found.startswith(sha256):
        part.unlink()
        wrong = f"its sha256 begins with {found[: len(sha256)]} instead of {sha256}, as in its name"
        raise RecordError(asked=url, wrong=wrong, remedy="try again")


def pinned(path: Path, url: str = "") -> str:
    """Return the sha256 of `path`; pin it if the file is new.

    Raises:
        RecordError: the checksum differs from the pinned one.
    """
    pins = read_pins(path.parent)
    found = files.sha256(path)
    known = pins.get(path.name)
    if known is not None and known["sha256"] != found:
        raise RecordError(
            asked=path,
            wrong=f"its sha256 is {found[:12]}…, but {known['sha256'][:12]}… was pinned at its first use",
            remedy=f"delete the file to download it again, or {path.parent / PINS} if it is meant to differ",
        )
    if known is None:
        pins[path.name] = {"url": url, "sha256": found, "size": path.stat().st_size}
        text = json.dumps(pins, indent=1, sort_keys=True)
        files.write_bytes(path.parent / PINS, f"{text}\n".encode())
    return found


def read_pins(folder: Path) -> dict[str, Any]:
    """Return the pins of a folder: file name to URL, sha256 and size.

    Raises:
        RecordError: the pins file is damaged.
    """
    path = folder / PINS
    if not path.exists():
        return {}
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        return {name: {"sha256": pin["sha256"], "url": pin["url"], "size": pin["size"]} for name, pin in found.items()}
    except (ValueError, KeyError, TypeError, AttributeError):
        raise RecordError(
            asked=path, wrong="damaged", remedy="delete it, and the checksums of the files next to it are pinned again"
        ) from None


def member(archive: Path, name: str, to: Path) -> Path:
    """Extract the only file named `name`, in any folder of a zip archive, atomically to `to`; return `to`.

    Raises:
        RecordError: not a zip archive, or not exactly one such file in it.
    """
    if to.exists():
        return to
    try:
        with zipfile.ZipFile(archive) as content:
            found = [each for each in content.namelist() if each.rpartition("/")[2] == name]
            if len(found) != 1:
                raise RecordError(
                    asked=archive,
                    wrong=f"holds {len(found)} files named {name} instead of one",
                    remedy="download it again",
                )
            size = content.getinfo(found[0]).file_size
            with files.replacing(to, size) as part, content.open(found[0]) as source, part.open("wb") as sink:
                shutil.copyfileobj(source, sink, CHUNK)
    except zipfile.BadZipFile as error:
        raise RecordError(
            asked=archive, wrong=f"not a whole zip archive ({error})", remedy="delete it and download it again"
        ) from None
    return to


def _download(url: str, part: Path, tell: Tell) -> None:
    """Download to `part`, or resume it if the server still has the same file."""
    tag_file = part.with_suffix(".tag")
    have = part.stat().st_size if part.exists() and tag_file.exists() else 0
    headers = {"User-Agent": f"solverbench/{__version__}"}
    if have:
        headers |= {"Range": f"bytes={have}-", "If-Range": tag_file.read_text(encoding="utf-8")}
    try:
        reply = urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=60)
    except urllib.error.HTTPError as error:
        if error.code != 416 or not have:
            raise
        part.unlink()  # longer than the server's file, so a different file
        _download(url, part, tell)
        return
    with reply:
        resumed = reply.status == 206
        have = have if resumed else 0
        tag = reply.headers.get("ETag") or reply.headers.get("Last-Modified")
        if tag and not tag.startswith("W/"):
            tag_file.write_text(tag, encoding="utf-8")
        else:
            tag_file.unlink(missing_ok=True)
        length = reply.headers.get("Content-Length")
        total = have + int(length) if length else None
        with part.open("ab" if resumed else "wb") as sink:
            tell(have, total)
            while chunk := reply.read(CHUNK):
                sink.write(chunk)
                have += len(chunk)
                tell(have, total)
    if total is not None and have != total:
        raise OSError(f"the connection broke after {have} of {total} bytes")
