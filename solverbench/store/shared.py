"""Arrays in the store that several runs share: computed once by the first run, and recomputed if damaged."""

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
    """Return the arrays stored at `path`; if there are none, store the result of `make` first.

    `make` runs under a lease: while another run computes the arrays, this one waits and then reads the stored result.

    Args:
        path: file below `out`: FOLDER/KEY/SEEDS.npz.
        out: the results folder.
        make: function that computes the arrays.
        stop: called repeatedly during the wait; may raise to give up.
        say: callback for a line about a damaged file, which is set aside.

    Raises:
        StoreError: the folder cannot be written.
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
                say(remade(error))
        files.write_arrays(path, make(), replace=False)
        # Read back, so that the first run and later runs take the same path.
        return files.read_arrays(path)


def remade(error: RecordError) -> str:
    """Return the message about a damaged file that is set aside and recomputed, in place of its error's remedy."""
    return f"{error.finding('')}; set aside as *{files.DAMAGED} and computed again"


def _read(path: Path) -> dict[str, NDArray[Any]] | None:
    if not path.exists():
        return None
    try:
        return files.read_arrays(path)
    except RecordError:
        return None
