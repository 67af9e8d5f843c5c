"""Arrays kept in the store that any run may need: made once, by whoever comes first, and made anew where damaged."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from solverbench import files
from solverbench.errors import RecordError
from solverbench.store import leases


def made_once(
    path: Path,
    out: Path,
    make: Callable[[], Mapping[str, NDArray[Any]]],
    *,
    stop: Callable[[], None] = lambda: None,
    say: Callable[[str], None] = lambda line: None,
) -> dict[str, NDArray[Any]]:
    """Return the arrays stored at `path`; those of `make`, once they are stored there, if there are none.

    They are made under a lease: while another run makes them this one waits, and takes what that one stored.

    Args:
        path: below `out`: FOLDER/KEY/SEEDS.npz.
        out: the results folder.
        stop: called now and then while it waits; raises to give up.
        say: told of a damaged file, which is set aside.

    Raises:
        StoreError: the folder can't be written.
    """
    if (found := _read(path)) is not None:
        return found
    unit = "-".join((*path.relative_to(out).parent.parts, path.stem))
    with leases.opened(out) as mine, mine.claimed(unit, stop):
        if path.exists():
            try:
                return files.read_arrays(path)
            except RecordError as error:
                files.set_aside(path)
                say(anew(error))
        files.write_arrays(path, make(), replace=False)
        # Read back, so that a first run and a later one take the same way.
        return files.read_arrays(path)


def anew(error: RecordError) -> str:
    """Return the line that says what becomes of a damaged file, in place of what its error tells to do."""
    return f"{error.finding('')}; set aside as *{files.DAMAGED} and made anew"


def _read(path: Path) -> dict[str, NDArray[Any]] | None:
    if not path.exists():
        return None
    try:
        return files.read_arrays(path)
    except RecordError:
        return None
