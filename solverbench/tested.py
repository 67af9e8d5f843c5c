"""The newest torch that the tests were run with, and the note for users of a newer one."""

import re

TORCH = "2.13.0"
"""The release in constraints.txt, which an installed package doesn't contain."""


def newer(installed: str) -> list[str]:
    """Return a note for the user if `installed` is a later release of torch than the newest tested one.

    A later patch of the same release, and a build's own suffix, make no line.
    """
    if _release(installed) <= _release(TORCH):
        return []
    return [
        f"torch {installed} is newer than {TORCH}, the newest that was tested; if something fails, try that version"
    ]


def _release(version: str) -> tuple[int, ...]:
    """Major and minor number, empty if the version doesn't begin with them."""
    found = re.match(r"(\d+)\.(\d+)", version)
    return tuple(map(int, found.groups())) if found else ()
