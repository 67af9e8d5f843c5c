"""Help texts whose lines end at spaces alone, so that a name or a spec with hyphens stays whole."""

from __future__ import annotations

from collections.abc import Iterable

import click

_HYPHEN = "\ue000"
"""A letter of no language, which stands for a hyphen while lines are broken."""


class Formatter(click.HelpFormatter):
    """Click's formatter, which otherwise breaks lines after hyphens, too."""

    def write(self, string: str) -> None:
        """Write a text whose lines are broken."""
        super().write(string.replace(_HYPHEN, "-"))

    def write_text(self, text: str) -> None:
        """Write a paragraph."""
        super().write_text(text.replace("-", _HYPHEN))

    def write_dl(self, rows: Iterable[tuple[str, str]], col_max: int = 30, col_spacing: int = 2) -> None:
        """Write a list of flags or commands."""
        kept = [(first, second.replace("-", _HYPHEN)) for first, second in rows]
        super().write_dl(kept, col_max, col_spacing)


class Context(click.Context):
    """A context whose help is written by `Formatter`."""

    formatter_class = Formatter


def formatted(command: click.Command) -> None:
    """Let `Formatter` write the help of a command and those below it."""
    command.context_class = Context
    if isinstance(command, click.Group):
        for each in command.commands.values():
            formatted(each)
