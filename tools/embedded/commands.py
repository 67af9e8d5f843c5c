"""Shared by the commands of this package: options, and one-line error messages."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

from solverbench.errors import UserError
from solverbench.teachers.embedded import artifacts

Say = Callable[[str], None]
"""Callback for occasional progress lines."""


def parser(name: str, about: str | None, out: str = "", *, device: bool = True) -> argparse.ArgumentParser:
    """Return a parser for the command `python -m tools.embedded.NAME`.

    Args:
        about: its description.
        out: help of the option --out; empty for a command without it.
        device: whether it has the option --device.
    """
    made = argparse.ArgumentParser(prog=f"python -m tools.embedded.{name}", description=about)
    if out:
        made.add_argument("--out", type=Path, required=True, help=out)
    if device:
        made.add_argument("--device", default="cpu")
    return made


def run(
    options: argparse.ArgumentParser, arguments: list[str] | None, work: Callable[[argparse.Namespace, Say], None]
) -> int:
    """Parse the arguments, do the work, and return the exit code; report a user's mistake in one line."""
    given = options.parse_args(arguments)
    try:
        artifacts.check_device(getattr(given, "device", "cpu"))
        work(given, partial(print, flush=True))
    except UserError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return 0
