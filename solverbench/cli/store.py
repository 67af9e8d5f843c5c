"""`solverbench store`."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import click

from solverbench.cli.flags import json_option, out_option
from solverbench.errors import UserError
from solverbench.wording import printable


@click.group()
def store() -> None:
    """Show, verify, clean, merge and export stored results."""


@store.command("status")
@out_option
@json_option
def store_status(out: str, as_json: bool) -> None:
    """Show the stored cells, sizes, active runs and free space."""
    from solverbench.store import maintenance
    from solverbench.store.folder import Store

    found = maintenance.status(Store.look(out))
    click.echo("\n".join(found.lines()))
    if as_json:
        click.echo(json.dumps(found.as_dict()))


@store.command("verify")
@click.option(
    "--set-aside", "aside", is_flag=True, help="Rename damaged files, so that the next run computes them again."
)
@out_option
@json_option
def store_verify(aside: bool, out: str, as_json: bool) -> None:
    """Read every stored result and list the damaged ones.

    The exit code is 4 if there are any.
    """
    from solverbench.learned.training.checkpoint import check_trained
    from solverbench.store import maintenance
    from solverbench.store.folder import Store

    found = maintenance.verify(
        Store.look(out), check_trained, aside=aside, say=lambda count: click.echo(f"{count} files read", err=True)
    )
    for damage in found:
        click.echo(printable(f"DAMAGED  {Path(out) / damage.name}: {damage.what}; {damage.remedy}"))
    click.echo(f"{len(found)} damaged files" if found else "no damaged files")
    if as_json:
        click.echo(json.dumps([{"file": damage.name, "what": damage.what} for damage in found]))
    sys.exit(4 if found else 0)


@store.command("gc")
@click.option("--dry-run", is_flag=True, help="Show what would be removed, and remove nothing.")
@click.option("--cells", is_flag=True, help="Also remove the cells that no report shows.")
@out_option
def store_gc(dry_run: bool, cells: bool, out: str) -> None:
    """Remove files that killed runs left behind.

    These are temporary files, leases, and damaged files that were set aside.
    """
    from solverbench.store import leases, maintenance
    from solverbench.store import runs as store_runs
    from solverbench.store.folder import Store

    found = Store.look(out)
    look = 0.0
    if any(run.state == "silent" for run in store_runs.runs(found.root)):
        look = leases.PATIENCE
        click.echo(f"waiting {look:.0f} s for signs of runs on other machines", err=True)
    removed = maintenance.collect(found, dry=dry_run, unreported=cells, look=look)
    for path in (*removed.files, *removed.cells):
        click.echo(printable(str(path)))
    for run in removed.runs:
        click.echo(f"{len(run.units)} leases of {run.holder}")
    if removed.kept:
        click.echo(removed.kept)
    counts = f"{len(removed.files)} files, {len(removed.runs)} dead runs, {len(removed.cells)} cells"
    click.echo(f"{counts}: {maintenance.size(removed.size)} {'would be freed' if dry_run else 'freed'}")


@store.command("merge")
@click.argument("sources", nargs=-1, required=True, metavar="SOURCE...")
@out_option
def store_merge(sources: tuple[str, ...], out: str) -> None:
    """Copy results that DIR lacks from other folders.

    SOURCE is a results folder or an export. No file in DIR is overwritten, except a damaged one. Files that differ in
    the two stores are listed, and the exit code is then 4.
    """
    from solverbench.learned.training.checkpoint import check_trained
    from solverbench.store import transfer
    from solverbench.store.folder import Store

    for source in sources:  # all of them, before anything is written
        if not Path(source).exists():
            raise UserError(
                asked=f"merge {source}", wrong="doesn't exist", remedy="give a store's folder, or an export"
            )
    into, code = Store.look(out), 0
    for source in sources:
        merged = transfer.merge(Path(source), into, check_trained)
        click.echo("\n".join([f"{source} into {out}:", *merged.lines()]))
        code = max(code, merged.exit_code)
    sys.exit(code)


@store.command("export")
@click.option("--to", required=True, metavar="PATH", help="A new folder, or a file ending in .zip.")
@click.option(
    "--cell",
    "cells",
    multiple=True,
    metavar="ADDRESS",
    help="Export only this cell, addressed as in results.csv; repeatable.",
)
@click.option("--report", "report", metavar="NAME", help="Export only the cells of a report in DIR/reports.")
@click.option("--targets", is_flag=True, help="Also export the teacher's own images.")
@out_option
def store_export(to: str, cells: tuple[str, ...], report: str | None, targets: bool, out: str) -> None:
    """Write stored cells to a new folder or zip file.

    Exports all cells unless --cell or --report selects some. The export holds their numbers as CSV and the sha256 of
    each file. `store merge` reads it.
    """
    from solverbench.learned.trained_files import file_name
    from solverbench.learned.training.checkpoint import check_trained
    from solverbench.store import maintenance, transfer
    from solverbench.store.folder import Store

    found = Store.look(out)
    chosen = list(cells) + (maintenance.reported(found, report) if report is not None else [])
    wanted = chosen if cells or report is not None else None
    names = transfer.export(found, Path(to), check_trained, file_name, wanted, targets=targets)
    click.echo(f"{len(names)} files in {to}")
