"""The progress of downloads, as bars on stderr."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

from solverbench.cli.terminal import raw
from solverbench.downloads import Tell
from solverbench.wording import printable


@contextmanager
def download_bars() -> Iterator[Callable[[str], Tell]]:
    """Yield a function that adds a bar for a file and returns the function that moves it."""
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=Console(file=raw(sys.stderr))) as progress:

        def bar(what: str) -> Tell:
            task = progress.add_task(printable(what), total=None)
            return lambda have, total: progress.update(task, completed=have, total=total)

        yield bar
