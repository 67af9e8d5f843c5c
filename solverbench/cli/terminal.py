"""Output to a terminal: how much, in colour or not, with the control characters in foreign texts escaped."""

from __future__ import annotations

import logging
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from enum import IntEnum
from typing import TYPE_CHECKING, Any, BinaryIO, TextIO

import click

from solverbench.errors import UserError
from solverbench.wording import printable, wrapped

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


class _Notes(logging.Handler):
    """Prints what this package logs on stderr, in lines as wide as the terminal."""

    def emit(self, record: logging.LogRecord) -> None:
        click.echo("\n".join(wrapped(record.getMessage(), width(sys.stderr))), err=True)


@contextmanager
def noted() -> Iterator[None]:
    """Print warnings that this package logs, such as on how a teacher was read, in this context."""
    handler, logger = _Notes(logging.WARNING), logging.getLogger("solverbench")
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)


def raw(stream: TextIO | Escaped) -> TextIO:
    """Return the stream below an escaping one; any other stream itself."""
    return stream.stream if isinstance(stream, Escaped) else stream


class Amount(IntEnum):
    """How much a command tells on stderr; stdout is the same."""

    QUIET = 0
    NORMAL = 1
    VERBOSE = 2


_AMOUNT, _BEGUN = "solverbench.amount", "solverbench.begun"


def _set_amount(ctx: click.Context, option: click.Parameter, given: bool) -> None:
    if given:
        if _AMOUNT in ctx.meta:
            raise UserError(
                asked="--quiet and --verbose", wrong="exclude each other", remedy="give one of them, or neither"
            )
        ctx.meta[_AMOUNT], ctx.meta[_BEGUN] = Amount[str(option.name).upper()], time.monotonic()


def amount_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the flags -q and -v to a command that takes long."""
    about = {
        "-q": "Show no progress on stderr, only warnings and errors.",
        "-v": "Show all progress on stderr, as lines with the time since the start.",
    }
    for short, name in (("-v", "--verbose"), ("-q", "--quiet")):
        made = click.option(
            short, name, is_flag=True, is_eager=True, expose_value=False, callback=_set_amount, help=about[short]
        )
        command = made(command)
    return command


def amount() -> Amount:
    """Return how much the current command tells."""
    context = click.get_current_context(silent=True)
    return Amount.NORMAL if context is None else context.meta.get(_AMOUNT, Amount.NORMAL)


def stamp(begun: float, now: float) -> str:
    """Return the time since the start as the beginning of a line."""
    return f"[{now - begun:8.1f} s] "


def teller() -> Callable[[str], None]:
    """Return a function that prints a line of progress on stderr; other threads may call it, too.

    It prints nothing if the current command is quiet, and the time since the start before the line if it is verbose.
    """
    chosen = amount()
    begun = click.get_current_context().meta[_BEGUN] if chosen is Amount.VERBOSE else None

    def tell(line: str) -> None:
        if chosen is not Amount.QUIET:
            click.echo(("" if begun is None else stamp(begun, time.monotonic())) + printable(line), err=True)

    return tell


def tell(line: str) -> None:
    """Print a line of progress on stderr; see `teller`."""
    teller()(line)


def loading(what: str = "PyTorch and the teacher") -> None:
    """Say on a terminal what a command does before its first result: on a busy machine the imports take seconds.

    Nothing is said if PyTorch is loaded already, if the command is quiet, or if stderr is no terminal.
    """
    if "torch" not in sys.modules and sys.stderr.isatty():
        tell(f"loading {what}")


def in_notebook() -> bool:
    """Return whether this process is the kernel of a notebook."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    return shell is not None and "ipykernel" in sys.modules and hasattr(shell, "kernel")


def moves(stream: TextIO | Escaped) -> bool:
    """Return whether a bar can be drawn: the stream is a terminal whose cursor moves."""
    return stream.isatty() and os.environ.get("TERM") != "dumb"


def coloured(stream: TextIO | Escaped) -> bool:
    """Return whether to write colours: on a terminal, unless NO_COLOR says no; elsewhere if FORCE_COLOR says so.

    Source: no-color.org and force-color.org; an empty variable says nothing, and NO_COLOR wins.
    """
    if os.environ.get("NO_COLOR"):
        return False
    return bool(os.environ.get("FORCE_COLOR")) or moves(stream)


def fail(line: str) -> None:
    """Print an error on stderr."""
    label = click.style("Error:", fg="red", bold=True) if coloured(sys.stderr) else "Error:"
    raw(sys.stderr).write(f"{label} {printable(line)}\n")
    raw(sys.stderr).flush()


def width(stream: TextIO | Escaped | None = None) -> int | None:
    """Return the characters in a line of a stream, stdout by default; None, for any length, if it is no terminal."""
    return shutil.get_terminal_size().columns if (stream or sys.stdout).isatty() else None


def say(text: str) -> None:
    """Print lines on stdout; on a terminal a wider one becomes several, indented after the first; see `wrapped`."""
    for line in text.split("\n"):
        click.echo("\n".join(wrapped(line, width())))


def show(tables: Sequence[Table]) -> None:
    """Print tables: aligned on a terminal or if colours are forced, the best of each column in bold; else as Markdown.

    Without colours nothing is bold.
    """
    bold = coloured(sys.stdout)
    if not (sys.stdout.isatty() or bold):
        for each in tables:
            click.echo("\n".join([*each.markdown(), ""]))
        return
    room = shutil.get_terminal_size().columns
    for each in tables:
        lines = each.plain(room, lambda text: click.style(text, bold=True) if bold else text)
        raw(sys.stdout).write("\n".join([*lines, "", ""]))
    raw(sys.stdout).flush()
