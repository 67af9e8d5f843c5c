"""Image files of a folder or a zip: which are counted, and which are passed over."""

from __future__ import annotations

import contextlib
import itertools
import os
import zipfile
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from solverbench.errors import RecordError, UserError
from solverbench.evaluation import contents
from solverbench.wording import one_line

EXTENSIONS = frozenset({".bmp", ".jpg", ".jpeg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"})
"""Extensions of image files, in lower case; other files are ignored."""

MOST, BYTES, PIXELS = 10_000_000, 1 << 28, 1 << 26
"""Largest number of images, of bytes of a file, and of pixels of an image."""

_HIDDEN, _AGAIN = "hidden", "links to folders that are read already"
_SPECIAL = "pipes, sockets and devices"


@dataclass(frozen=True)
class Found:
    """The images of a folder or zip.

    Args:
        files: name relative to the folder or zip, and size in bytes, sorted.
        passed: what was passed over, and how many of it.
    """

    files: tuple[tuple[str, int], ...]
    passed: Mapping[str, int]

    def __str__(self) -> str:
        """Return a summary: the number of images, and the number of skipped files by reason."""
        rest = ", ".join(f"{count} {what}" for what, count in sorted(self.passed.items()))
        return f"{len(self.files)} images found" + (f"; passed over: {rest}" if rest else "")


def found(path: Path) -> Found:
    """Return the images of the folder or zip `path`.

    Names that begin with a dot, and everything in such a folder or in `__MACOSX`, are hidden and not counted. A linked
    folder is read like any other, but no folder is read twice.

    Raises:
        RecordError: a folder can't be read, the file is not a whole zip, or names two images alike.
        UserError: there is no image.
    """
    passed = Counter[str]()
    files = _in_folder(path, passed) if path.is_dir() else _in_zip(path, passed)
    made = Found(tuple(sorted(itertools.islice(files, MOST + 1))), passed)
    if len(made.files) > MOST:
        raise RecordError(asked=path, wrong=f"holds more than {MOST} images", remedy="give fewer")
    name, size = max(made.files, key=lambda each: each[1], default=("", 0))
    if size > BYTES:
        wrong = f"{name} has {size} bytes, but an image has at most {BYTES}"
        raise RecordError(asked=path, wrong=wrong, remedy="remove or replace it")
    if not made.files:
        raise UserError(
            asked=path,
            wrong=f"holds no image ({', '.join(sorted(EXTENSIONS))}): {made}",
            remedy="give another folder or zip",
        )
    return made


def _in_folder(root: Path, passed: Counter[str]) -> Iterator[tuple[str, int]]:
    """Yield name and size of each image below a folder; folders come before links to folders."""
    folders, read = [root], set[tuple[int, int]]()
    links = list[Path]()
    while folders or links:
        linked = not folders
        folder = folders.pop() if folders else links.pop(0)
        try:
            known = os.stat(folder)
            if (place := (known.st_dev, known.st_ino)) in read:
                passed[_AGAIN] += linked
                continue
            read.add(place)
            entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
            for entry in entries:
                path = folder / entry.name
                if _hidden(entry.name):
                    passed[_HIDDEN] += 1
                elif entry.is_dir():
                    (links if entry.is_symlink() else folders).append(path)
                elif not entry.is_file() and not (entry.is_symlink() and not path.exists()):
                    passed[_SPECIAL] += 1
                elif not _is_image(entry.name):
                    passed[_other(entry.name)] += 1
                else:
                    yield path.relative_to(root).as_posix(), entry.stat().st_size
        except OSError as error:
            broken = Path(error.filename) if error.filename else folder
            wrong = "a link that leads nowhere" if broken.is_symlink() and not broken.exists() else "can't be read"
            remedy = "remove it, or mend it or its permissions"
            raise RecordError(asked=broken, wrong=f"{wrong} ({one_line(error.strerror)})", remedy=remedy) from None


def _in_zip(path: Path, passed: Counter[str]) -> Iterator[tuple[str, int]]:
    """Yield name and size of each image of a zip."""
    try:
        with contents.archive(path) as archive:
            members = [info for info in archive.infolist() if not info.is_dir()]
            for info in archive.infolist():
                if not _is_image(info.filename):
                    _confirm(archive, info)
    except OSError as error:
        remedy = "give a folder or a zip of images"
        raise RecordError(asked=path, wrong=f"can't be read ({one_line(error)})", remedy=remedy) from None
    except Exception as error:  # a damaged archive makes zipfile raise nearly anything
        remedy = "give a folder or a whole zip of images, or statistics as .npz, .npy or .pkl"
        raise contents.unreadable(path, contents.head(path), "not a zip", error, remedy) from None
    images = list[zipfile.ZipInfo]()
    for info in members:
        if any(map(_hidden, PurePosixPath(info.filename).parts)):
            passed[_HIDDEN] += 1
        elif not _is_image(info.filename):
            passed[_other(info.filename)] += 1
        else:
            images.append(info)
    name, count = max(Counter(info.filename for info in images).items(), key=lambda each: each[1], default=("", 0))
    if count > 1:
        remedy = "pack them again, each under a name of its own"
        raise RecordError(asked=path, wrong=f"holds {count} files named {name}", remedy=remedy)
    if locked := next((info.filename for info in images if info.flag_bits & 1), ""):
        remedy = "unpack it with its password and give the folder"
        raise RecordError(asked=path, wrong=f"{locked} is encrypted", remedy=remedy)
    yield from ((info.filename, info.file_size) for info in images)


def _confirm(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> None:
    """Raise BadZipFile if a member has two names, so that an image whose name is damaged isn't passed over."""
    with contextlib.suppress(RuntimeError):  # encrypted, or compressed in an unknown way
        archive.open(info).close()


def _hidden(name: str) -> bool:
    return name.startswith(".") or name == "__MACOSX"


def _is_image(name: str) -> bool:
    return PurePosixPath(name).suffix.lower() in EXTENSIONS


def _other(name: str) -> str:
    suffix = PurePosixPath(name).suffix.lower()
    return f"other files {suffix}" if suffix else "other files without an extension"
