"""Output to a terminal, with the control characters in foreign names and texts escaped."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, BinaryIO, TextIO

import click

from solverbench.wording import printable

if TYPE_CHECKING:
    from solverbench.bench.bundle.numbers import Table


class Escaped:
    """A text stream that escapes every unprintable character except the line break, also those of other libraries.

    Code that formats a line escapes line breaks inside it, by `printable`; only it knows where a line ends.

    Args:
        stream: where the text is written. `rich` gets this one, because it moves the cursor.
    """

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream

    @property
    def encoding(self) -> str:
        """The stream's encoding."""
        return self.stream.encoding

    @property
    def errors(self) -> str | None:
        """The stream's error handler for characters that its encoding lacks."""
        return self.stream.errors

    @property
    def buffer(self) -> BinaryIO:
        """The stream's bytes, which the shell's completion is written to."""
        return self.stream.buffer

    def write(self, text: str) -> int:
        """Write the text, escaped."""
        self.stream.write("\n".join(map(printable, text.split("\n"))))
        return len(text)

    def flush(self) -> None:
        """Flush the stream."""
        self.stream.flush()

    def isatty(self) -> bool:
        """Return whether the stream is a terminal."""
        return self.stream.isatty()

    def fileno(self) -> int:
        """Return the stream's file descriptor."""
        return self.stream.fileno()

    def writable(self) -> bool:
        """Return True."""
        return True

    def close(self) -> None:
        """Close the stream."""
        self.stream.close()


@contextmanager
def escaped() -> Iterator[None]:
    """Escape what is written to stdout and stderr in this context."""
    before = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = (Escaped(raw(stream)) for stream in before)
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before


def raw(stream: TextIO | Escaped) -> TextIO:
    """Return the stream below an escaping one; any other stream itself."""
    return stream.stream if isinstance(stream, Escaped) else stream


def show(tables: Sequence[Table]) -> None:
    """Print tables: on a terminal aligned, with the best of each column in bold; elsewhere as Markdown."""
    if not sys.stdout.isatty():
        for each in tables:
            click.echo("\n".join([*each.markdown(), ""]))
        return
    plain = "NO_COLOR" in os.environ or os.environ.get("TERM") == "dumb"
    width = shutil.get_terminal_size().columns
    for each in tables:
        lines = each.plain(width, lambda text: text if plain else click.style(text, bold=True))
        raw(sys.stdout).write("\n".join([*lines, "", ""]))
    raw(sys.stdout).flush()
