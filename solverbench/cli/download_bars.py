"""The progress of downloads on stderr: bars on a terminal, else lines, nothing if the command is quiet."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

from solverbench.cli import terminal
from solverbench.downloads import Tell
from solverbench.wording import printable

TENTHS = 10
"""Number of lines for a file, where there are no bars."""


@contextmanager
def download_bars() -> Iterator[Callable[[str], Tell]]:
    """Yield a function that adds a bar for a file and returns the function that moves it."""
    if terminal.amount() is not terminal.Amount.NORMAL or not terminal.moves(sys.stderr):
        yield _lines
        return
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=Console(file=terminal.raw(sys.stderr))) as progress:

        def bar(what: str) -> Tell:
            task = progress.add_task(printable(what), total=None)
            return lambda have, total: progress.update(task, completed=have, total=total)

        yield bar


def _lines(what: str) -> Tell:
    """Return a function that prints a line for each tenth of a file."""
    told = set[int]()

    def tell(have: int, total: int | None) -> None:
        tenth = have * TENTHS // total if total else 0
        if tenth not in told:
            told.add(tenth)
            terminal.tell(f"{what}: {have / 1e6:.0f}" + (f" of {total / 1e6:.0f} MB" if total else " MB"))

    return tell
