"""Repositories of the Hugging Face hub in huggingface_hub's own cache, as `hf:OWNER/NAME@REVISION`.

Nothing is downloaded: a repository that isn't in the cache is refused with the command that fetches it.
"""

from __future__ import annotations

import re
from pathlib import Path

from solverbench import extras
from solverbench.errors import MissingError, SpecError

PREFIX = "hf:"
"""Beginning of a reference to a repository, in a spec or as a description's checkpoint."""

_REFERENCE = re.compile(r"hf:(?://)?([A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*)(?:@([A-Za-z0-9][\w.-]*))?")


def snapshot(text: str) -> tuple[str, Path]:
    """Return a repository's id and the folder of its snapshot in the cache; the folder's name is the commit.

    Args:
        text: `hf:OWNER/NAME`, its main branch, or `hf:OWNER/NAME@REVISION`, a branch, tag or commit.

    Raises:
        SpecError: the text is no such reference.
        MissingError: huggingface_hub isn't installed, or the cache doesn't hold the revision.
    """
    match = _REFERENCE.fullmatch(text)
    if match is None:
        raise SpecError(asked=text, wrong="not a repository of the hub", remedy="write hf:OWNER/NAME@REVISION")
    hub, revision = match[1], match[2]
    try:
        import huggingface_hub
    except ImportError:
        raise MissingError(
            asked=text, wrong="needs huggingface_hub, which isn't installed",
            remedy=f"run {extras.install('diffusers')}",
        ) from None  # fmt: skip
    try:
        found = huggingface_hub.snapshot_download(hub, revision=revision, local_files_only=True)
    except (OSError, ValueError):
        told = f" --revision {revision}" if revision else ""
        raise MissingError(
            asked=text, wrong="isn't in huggingface_hub's cache, and nothing is downloaded by itself",
            remedy=f"run 'hf download {hub}{told}'",
        ) from None  # fmt: skip
    return hub, Path(found)


def pinned(hub: str, path: Path) -> str:
    """Return the reference to the very commit of a snapshot."""
    return f"{PREFIX}{hub}@{path.name}"
