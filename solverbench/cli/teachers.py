"""`solverbench teachers` and `solverbench prompts`."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path

import click

from solverbench.cli import terminal
from solverbench.cli.flags import json_option, plugin_option


@click.group()
def teachers() -> None:
    """List, describe, download, import and verify teachers."""


@teachers.command("list")
@plugin_option
@json_option
def teachers_list(as_json: bool) -> None:
    """List built-in, published and imported teachers."""
    from solverbench.teachers import catalogue

    _list(list(catalogue.rows()), as_json)


@teachers.command("info")
@click.argument("name")
@plugin_option
def teachers_info(name: str) -> None:
    """Describe a teacher.

    For a published teacher, prints its source and how papers sample and evaluate it.
    """
    from solverbench import registries
    from solverbench.teachers import catalogue

    if name in registries.teachers:
        from solverbench.cli import describe

        click.echo(describe.teacher(name))
        return
    click.echo(catalogue.info(name))


@teachers.command("fetch")
@click.argument("name")
@click.option(
    "--references/--no-references",
    default=True,
    show_default=True,
    help="Also download the reference statistics for FID.",
)
@terminal.amount_options
def teachers_fetch(name: str, references: bool) -> None:
    """Download a published teacher into your data folder.

    The same command resumes an interrupted download. The first download pins the checksum of each file.
    """
    from solverbench.cli.download_bars import download_bars
    from solverbench.teachers import catalogue

    with download_bars() as bar:
        lines = catalogue.fetch(name, bar, references=references)
    click.echo("\n".join(lines))


@teachers.command("import")
@click.argument("source", metavar="FILE|FOLDER")
@click.option("--name", required=True, help="Name of the imported teacher.")
@click.option(
    "--set", "options", multiple=True, metavar="KEY=VALUE", help="Set an option of its description; repeatable."
)
def teachers_import(source: str, name: str, options: tuple[str, ...]) -> None:
    """Check, convert and describe your own checkpoint.

    Afterwards, --teachers NAME loads it. No code in the checkpoint is run.
    """
    from solverbench.errors import SpecError
    from solverbench.teachers import catalogue

    given = {}
    for text in options:
        key, equals, value = text.partition("=")
        if not equals or not key or not value:
            raise SpecError(asked=f"--set {text}", wrong="isn't KEY=VALUE", remedy="write it as --set guidance=2")
        given[key] = value
    place = catalogue.take(Path(source), name, given)
    click.echo(f"{name} in {place}; run: solverbench run --teachers {name}")


@teachers.command("verify")
@click.argument("name")
@plugin_option
def teachers_verify(name: str) -> None:
    """Check a teacher's files, load it and call it once.

    The files are compared with their pinned checksums.
    """
    from solverbench.teachers import catalogue

    checks = list(catalogue.verify(name))
    width = max((len(found) for found, _ in checks), default=0)
    for found, line in checks:
        click.echo(f"{found:<{width}}  {line}")
    sys.exit(4 if any(found == catalogue.FAIL for found, _ in checks) else 0)


@click.group()
def prompts() -> None:
    """List and download sets of prompts for text-to-image teachers."""


@prompts.command("list")
@json_option
def prompts_list(as_json: bool) -> None:
    """List the sets that a teacher takes by name, as in prompts=small."""
    from solverbench.teachers import prompt_sets

    _list(list(prompt_sets.rows()), as_json)


@prompts.command("fetch")
@click.argument("name")
@terminal.amount_options
def prompts_fetch(name: str) -> None:
    """Download a set of prompts into your data folder.

    The same command resumes an interrupted download. The first download pins the checksum.
    """
    from solverbench.cli.download_bars import download_bars
    from solverbench.teachers import prompt_sets

    with download_bars() as bar:
        lines = prompt_sets.fetch(name, bar)
    click.echo("\n".join(lines))


def _list(rows: Sequence[tuple[str, str, str]], as_json: bool) -> None:
    """Print rows of name, state and description."""
    if as_json:
        keys = ("name", "state", "about")
        click.echo(json.dumps([dict(zip(keys, row, strict=True)) for row in rows]))
        return
    widths = [max(len(row[column]) for row in rows) for column in range(2)]
    for name, state, about in rows:
        click.echo(f"{name:<{widths[0]}}  {state:<{widths[1]}}  {about}")
