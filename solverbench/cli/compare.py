"""`solverbench compare`."""

from __future__ import annotations

import json
from pathlib import Path

import click

from solverbench.cli.flags import json_option, out_option
from solverbench.errors import UserError
from solverbench.wording import printable


@click.command()
@click.argument("run_a")
@click.argument("run_b")
@out_option
@json_option
def compare(run_a: str, run_b: str, out: str, as_json: bool) -> None:
    """Show how the options and the results of two runs differ.

    RUN_A and RUN_B are names in DIR/reports, or paths of report folders. Differences of results are paired by seed
    where the images allow it.
    """
    import solverbench

    try:
        found = solverbench.compare(folder(run_a, out), folder(run_b, out))
    except solverbench.BundleError as error:
        raise UserError.of(error) from None
    click.echo("\n".join(map(printable, found.lines())))
    if as_json:
        click.echo(json.dumps(found.as_dict()))


def folder(run: str, out: str) -> Path:
    """Return the folder of a run: a name in the store's reports, or a path.

    Raises:
        UserError: it is neither.
    """
    stored, given = Path(out) / "reports" / run, Path(run)
    for path in (stored, given):
        if (path / "bundle.json").is_file():
            return path
    there = ", ".join(sorted(p.parent.name for p in (Path(out) / "reports").glob("*/bundle.json")))
    raise UserError(
        asked=f"run {run!r}",
        wrong=f"no report, and {out} has {there or 'none'}",
        remedy="name one of them or a report's folder",
    )
