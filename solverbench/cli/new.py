"""`solverbench new`."""

from __future__ import annotations

from pathlib import Path

import click


@click.command()
@click.argument("kind", type=click.Choice(["solver", "learned-solver", "teacher", "extractor"]), metavar="KIND")
@click.argument("name")
@click.option(
    "--to", "folder", default=".", show_default=True, metavar="DIR", help="Parent folder of the new folder NAME."
)
def new(kind: str, name: str, folder: str) -> None:
    """Write a small package with a working plugin.

    KIND is solver, learned-solver, teacher or extractor. The folder NAME gets one that works, to replace with your own
    code.
    """
    from solverbench.cli import starters

    written = starters.write(kind, name, Path(folder))
    for path in written:
        click.echo(path)
    module = next(path for path in written if path.name == f"{name}.py")
    click.echo(f"to check it, run: solverbench check {module}")
    click.echo(f"{module.parent / 'README.md'} has the next steps")
