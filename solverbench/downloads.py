"""Downloads by HTTPS alone, with progress, resumption, and checksums pinned at the first download.

A reply may redirect to the same host, a subdomain of it, or the hosts in `CDNS`; with a known sha256 to any host.
"""

from __future__ import annotations

import errno
import http
import http.client
import json
import os
import re
import shutil
import stat
import urllib.error
import urllib.parse
import urllib.request
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from solverbench import files
from solverbench._version import __version__
from solverbench.errors import MissingError, RecordError, UserError

CHUNK = 1 << 20
"""Bytes per read of a download."""
SCHEMES = ("https",)
"""URL schemes that are allowed, in addresses and in redirects."""
CDNS = {
    "github.com": ("githubusercontent.com",),
    "huggingface.co": ("hf.co",),
    "api.ngc.nvidia.com": ("ngc.nvidia.com",),
}
"""Hosts that a site redirects its downloads to, each with its subdomains."""
TAG_BYTES = 1 << 16
"""Largest size of the record of a partial file, in bytes."""
RATIO = 100
"""Largest size of a file relative to the zip archive that it comes from."""
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

    An interrupted download leaves `.NAME.part`, and `.NAME.tag` with its address, size and version. The next call
    resumes it if both belong to this user and the server still has the same file.

    Args:
        sha256: the file's sha256 or its first digits; empty if unknown.

    Raises:
        MissingError: it can't be downloaded; the text says where to put the file by hand.
        RecordError: the file has another sha256, or the partial file is a link or another user's.
    """
    if path.exists():
        return
    part = path.with_name(f".{path.name}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _download(url, part, tell, anywhere=len(sha256) == files.HEX)
        _check(url, part, sha256)
        os.replace(part, path)
    except (urllib.error.URLError, http.client.HTTPException, OSError) as error:
        why = getattr(error, "reason", None) or error
        if _recorded(part.with_suffix(".tag")) is None:
            part.unlink(missing_ok=True)  # the next download couldn't know whether it continues the same file
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
        shown = sha256[:12]
        wrong = f"its sha256 begins with {found[: len(shown)]} instead of {shown}"
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
        RecordError: not a zip archive, not exactly one such file in it, or one of more than `RATIO` times its size.
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
            size, most = content.getinfo(found[0]).file_size, RATIO * archive.stat().st_size
            if size > most:
                wrong = f"{name} in it has {size} bytes, more than {RATIO} times as many as the archive"
                raise RecordError(asked=archive, wrong=wrong, remedy="download it again")
            with files.replacing(to, size) as part, content.open(found[0]) as source, part.open("wb") as sink:
                shutil.copyfileobj(source, sink, CHUNK)
    except (*files.FOREIGN, RuntimeError) as error:
        raise RecordError(
            asked=archive, wrong=f"not a whole zip archive ({error})", remedy="delete it and download it again"
        ) from None
    return to


@dataclass(frozen=True)
class _Partial:
    """The record of a partial file: the address, and the version and size of the server's file."""

    url: str
    tag: str
    size: int


def _download(url: str, part: Path, tell: Tell, *, anywhere: bool) -> None:
    """Download to `part`, or resume it if the server still has the same file.

    Args:
        anywhere: whether every host may be redirected to.
    """
    beside = part.with_suffix(".tag")
    with _own(part) as sink:
        have, record = os.fstat(sink.fileno()).st_size, _recorded(beside)
        if record is None or record.url != url or not 0 < have < record.size:
            have, record = 0, None
        headers = {"User-Agent": f"solverbench/{__version__}"}
        if record is not None:
            headers |= {"Range": f"bytes={have}-", "If-Range": record.tag}
        with _reply(url, headers, anywhere) as reply:
            begin = _begin(reply, have, record)
            if begin is None:
                beside.unlink(missing_ok=True)
                raise OSError(f"the server sent another part than the one from byte {have}")
            length = reply.headers.get("Content-Length")
            total = begin + int(length) if length else None
            tag = reply.headers.get("ETag") or reply.headers.get("Last-Modified")
            if total is not None and tag and not tag.startswith("W/"):
                told = {"url": url, "tag": tag, "size": total}
                files.write_bytes(beside, json.dumps(told).encode())
            else:
                beside.unlink(missing_ok=True)
            sink.seek(begin)
            sink.truncate()
            tell(begin, total)
            while chunk := reply.read(CHUNK):
                sink.write(chunk)
                begin += len(chunk)
                tell(begin, total)
    if total is not None and begin != total:
        raise OSError(f"the connection broke after {begin} of {total} bytes")


def _own(part: Path) -> BinaryIO:
    """Open a partial file for writing, or a new one.

    Raises:
        RecordError: it is a link, not a regular file, has a second name, or belongs to another user.
    """
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        number = os.open(part, flags, 0o644)
    except OSError as error:
        if part.is_symlink() or error.errno in (errno.ENXIO, errno.EISDIR, errno.EACCES):
            raise _foreign(part) from None
        raise
    found = os.fstat(number)
    if not stat.S_ISREG(found.st_mode) or found.st_uid != os.geteuid() or found.st_nlink != 1:
        os.close(number)
        raise _foreign(part)
    return os.fdopen(number, "r+b")


def _foreign(part: Path) -> RecordError:
    return RecordError(
        asked=part,
        wrong="stands where the download is written, but is a link, a special file or another user's",
        remedy="delete it, and use a folder that only you can write",
    )


def _recorded(beside: Path) -> _Partial | None:
    """Return the record of a partial file; None if there is none, or it isn't this user's."""
    try:
        if beside.lstat().st_uid != os.geteuid():
            return None
        told = json.loads(files.read(beside, TAG_BYTES))
        found = _Partial(str(told["url"]), str(told["tag"]), int(told["size"]))
    except (OSError, UserError, ValueError, KeyError, TypeError, RecursionError):
        return None
    return found if found.tag.isprintable() else None


def _begin(reply: Any, have: int, record: _Partial | None) -> int | None:
    """Return the position at which a reply begins: 0, `have` if it continues this record's file, None if neither."""
    if reply.status != 206:
        return 0
    told = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", reply.headers.get("Content-Range") or "")
    if record is None or told is None or int(told[1]) != have or told[2] not in (str(record.size), "*"):
        return None
    return have


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows a redirect only where `refused` allows it."""

    def __init__(self, anywhere: bool) -> None:
        self.anywhere = anywhere

    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        """Return the request of the new address, or raise URLError."""
        if why := refused(newurl, req.full_url, self.anywhere):
            raise urllib.error.URLError(f"the server redirects to {newurl}, {why}")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def refused(url: str, home: str = "", anywhere: bool = False) -> str:
    """Return why an address isn't downloaded from; empty if it is.

    Args:
        home: the address that redirects to it; empty for the first one.
        anywhere: whether every host may be redirected to.
    """
    asked, before = urllib.parse.urlsplit(url), urllib.parse.urlsplit(home)
    if asked.scheme not in SCHEMES:
        return f"whose scheme isn't {' or '.join(SCHEMES)}"
    host, site = ((each.hostname or "").rstrip(".") for each in (asked, before))
    if not host:
        return "which has no host"
    allowed = (site, *CDNS.get(site, ()), *(cdn for cdns in CDNS.values() for cdn in cdns if _within(site, cdn)))
    if home and not anywhere and not any(_within(host, each) for each in allowed):
        return "another site"
    return ""


def _within(host: str, site: str) -> bool:
    return host == site or host.endswith(f".{site}")


def _reply(url: str, headers: Mapping[str, str], anywhere: bool) -> Any:
    """Return the reply to a request, or to one for the whole file if the server refuses the part."""
    try:
        return _open(urllib.request.Request(url, headers=dict(headers)), anywhere)
    except urllib.error.HTTPError as error:
        if error.code != http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE or "Range" not in headers:
            raise
    return _open(urllib.request.Request(url, headers={"User-Agent": headers["User-Agent"]}), anywhere)


def _open(request: urllib.request.Request, anywhere: bool) -> Any:
    """Return the reply to a request; URLError if it fails. There is no handler for file:, ftp: and data:."""
    if why := refused(request.full_url):
        raise urllib.error.URLError(f"an address {why}")
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler(),
        urllib.request.HTTPHandler(),
        urllib.request.HTTPSHandler(),
        urllib.request.HTTPDefaultErrorHandler(),
        urllib.request.HTTPErrorProcessor(),
        _Redirects(anywhere),
    ):
        opener.add_handler(handler)
    return opener.open(request, timeout=60)
