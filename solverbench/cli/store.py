"""`solverbench store`."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from solverbench.cli import terminal
from solverbench.cli.flags import json_option, out_option, plugin_option
from solverbench.errors import UserError
from solverbench.wording import printable

if TYPE_CHECKING:
    from solverbench.bench.audit.audit import Audit


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


def _checks(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the flags that choose how the numbers of cells are checked."""
    flags: list[Callable[..., Any]] = [
        click.option(
            "--resample",
            metavar="N|P%",
            help="Also sample N blocks, or P percent of them, drawn at random, again from their seeds.",
        ),
        click.option(
            "--seed",
            type=int,
            metavar="S",
            help="Seed of that draw, which nobody could know before.  [default: a random one, which is printed]",
        ),
        click.option(
            "--teachers",
            metavar="LIST",
            help="Teachers of these cells that aren't registered here: checkpoints or TOML files, joined with commas.",
        ),
        plugin_option,
        terminal.amount_options,
    ]
    for flag in reversed(flags):
        command = flag(command)
    return command


def _auditor(resample: str | None, seed: int | None, teachers: str | None) -> Callable[[Path], Audit]:
    """Return the check of a store's numbers; its progress goes to stderr."""
    import secrets

    from solverbench.bench.audit.audit import audit
    from solverbench.bench.audit.resampled import Share
    from solverbench.teachers.loading import load_teacher
    from solverbench.teachers.teacher import expanded

    share = Share.of(resample) if resample is not None else None
    if seed is not None and share is None:
        raise UserError(asked=f"--seed {seed}", wrong="nothing is drawn", remedy="give --resample, too")
    drawn_by = secrets.randbelow(1 << 32) if seed is None else seed
    given = [load_teacher(each) for each in expanded(teachers)] if teachers else []
    if share is not None:
        click.echo(f"blocks are drawn with --seed {drawn_by}", err=True)
    return lambda root: audit(root, resample=share, seed=drawn_by, teachers=given, say=terminal.teller())


@store.command("verify")
@click.option(
    "--set-aside",
    "aside",
    is_flag=True,
    help="Rename files that are damaged or false, so that the next run computes them again.",
)
@click.option(
    "--manifest",
    metavar="SHA256|FILE",
    help="Compare with the manifest of an export: its sha256, as a paper prints it, or its export.json.",
)
@_checks
@out_option
@json_option
def store_verify(
    aside: bool,
    manifest: str | None,
    resample: str | None,
    seed: int | None,
    teachers: str | None,
    out: str,
    as_json: bool,
) -> None:
    """Read every stored result, and list what is damaged or false.

    Metrics are computed again from the blocks that they were made of. With --resample, blocks are sampled again, too.
    DIR may be an export, also a zip. The exit code is 4 if anything is listed. docs/trust.md says what this proves.
    """
    from solverbench.learned.training.checkpoint import check_trained
    from solverbench.store import maintenance, transfer
    from solverbench.store import manifest as manifests
    from solverbench.store.export import check_table
    from solverbench.store.folder import Store

    check_numbers = _auditor(resample, seed, teachers)
    if aside and Path(out).is_file():
        raise UserError(asked=f"--set-aside of {out}", wrong="a zip stays as it is", remedy="merge it, or unpack it")
    with transfer.opened(Path(out)) if Path(out).is_file() else nullcontext(Path(out)) as root:
        found = maintenance.verify(
            Store.look(root), check_trained, aside=aside, say=lambda count: terminal.tell(f"{count} files read")
        )
        found += check_table(root)
        listed = manifests.compared(root, manifest) if manifest is not None else manifests.check(root)
        found += [each for each in listed if each.name not in {damage.name for damage in found}]
        numbers = check_numbers(root)
        found += numbers.wrong
        if aside:
            maintenance.set_aside(Store(root), numbers.wrong)
    for damage in found:
        label = "DIFFERS" if damage.differs else "DAMAGED"
        click.echo(printable(f"{label}  {Path(out) / damage.name}: {damage.finding}"))
    click.echo("\n".join(map(printable, numbers.lines())))
    if manifest is not None and not listed:
        click.echo("all files of the manifest are there, unchanged")
    false = sum(damage.differs for damage in found)
    counts = [f"{len(found) - false} damaged files"] * (len(found) > false) + [f"{false} that differ"] * bool(false)
    click.echo(", ".join(counts) or "no damaged files")
    if as_json:
        listing = [{"file": each.name, "what": each.what, "differs": each.differs} for each in found]
        click.echo(json.dumps({"found": listing, **numbers.as_dict()}))
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
@_checks
@out_option
def store_merge(
    sources: tuple[str, ...], resample: str | None, seed: int | None, teachers: str | None, out: str
) -> None:
    """Copy results that DIR lacks from other folders.

    SOURCE is a results folder or an export. No file in DIR is overwritten, except a damaged one. Files that differ in
    the two stores are listed, and the exit code is then 4. Metrics that don't follow from their blocks aren't copied;
    with --resample, blocks of SOURCE are also sampled again, and cells with a false one aren't copied. Each cell keeps
    where it came from and how it was checked.
    """
    from solverbench.cli.progress import counted
    from solverbench.learned.training.checkpoint import check_trained
    from solverbench.store import transfer
    from solverbench.store.folder import Store

    for source in sources:  # all of them, before anything is written
        if not Path(source).exists():
            raise UserError(
                asked=f"merge {source}", wrong="doesn't exist", remedy="give a store's folder, or an export"
            )
    into, code, check_numbers = Store.look(out), 0, _auditor(resample, seed, teachers)
    for source in sources:
        with counted("cells copied", amount=terminal.amount()) as progress:
            merged = transfer.merge(
                Path(source), into, check_trained, lambda root: check_numbers(root).verdicts, progress
            )
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
@terminal.amount_options
@out_option
def store_export(to: str, cells: tuple[str, ...], report: str | None, targets: bool, out: str) -> None:
    """Write stored cells to a new folder or zip file.

    Exports all cells unless --cell or --report selects some. The export holds their numbers as CSV and the sha256 of
    each file in its manifest, export.json. The manifest's own sha256 is printed: a paper that states it lets readers
    check the files with `store verify --manifest`. `store merge` reads the export.
    """
    from solverbench.cli.progress import counted
    from solverbench.learned.trained_files import file_names
    from solverbench.learned.training.checkpoint import check_trained
    from solverbench.store import maintenance
    from solverbench.store.export import export
    from solverbench.store.folder import Store

    found = Store.look(out)
    chosen = list(cells) + (maintenance.reported(found, report) if report is not None else [])
    wanted = chosen if cells or report is not None else None
    with counted("files", amount=terminal.amount()) as progress:
        names, manifest = export(found, Path(to), check_trained, file_names, wanted, targets=targets, progress=progress)
    click.echo(f"{len(names)} files in {to}\nmanifest sha256 {manifest}")
