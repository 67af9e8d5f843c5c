"""The command `solverbench reproduce`."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import click

from solverbench.bench.run_options import RunOptions
from solverbench.cli import terminal
from solverbench.cli.flags import device_option, json_option, out_option, plugin_option
from solverbench.errors import MissingError, UserError


@click.command()
@click.argument("row", required=False)
@click.option(
    "--paper", default=None, metavar="NAME", help="Measure all numbers of a paper, such as gas or diff-sampler."
)
@click.option("--list", "listing", is_flag=True, help="Show the published numbers and stop.")
@click.option("--samples", type=int, default=None, metavar="N", help="Images per replicate.  [default: as published]")
@click.option(
    "--replicates",
    type=int,
    default=None,
    metavar="R",
    help="Repetitions, each with its own image seeds.  [default: as published]",
)
@click.option(
    "--seeds",
    default=None,
    metavar="FIRST-LAST",
    help="Seeds of the images, both ends included.  [default: as published]",
)
@click.option(
    "--reference",
    default=None,
    metavar="NAME|FILE",
    help="Reference for FID.  [default: the one stored under the teacher's name]",
)
@click.option(
    "--checkpoint",
    default=None,
    metavar="FILE",
    help="The file of the authors' code that holds the trained parameters of ROW.",
)
@device_option
@out_option
@plugin_option
@json_option
@terminal.amount_options
def reproduce(
    row: str | None, paper: str | None, listing: bool, samples: int | None, replicates: int | None,
    seeds: str | None, reference: str | None, checkpoint: str | None, device: str, out: str, as_json: bool,
) -> None:  # fmt: skip
    """Measure a published number again.

    ROW is PAPER/TABLE/SOLVER/NFE; a shorter ROW, such as PAPER/TABLE, selects several numbers. Prints the published
    and the measured number, the interval, the difference, and each difference in protocol. A learned solver samples as
    its authors' code does if FILE is given, or was given before with the same --out. If something is missing, prints
    what it is. The exit code is 0 if all numbers agree, 4 if a published number lies outside our interval, and
    3 if something is missing.
    """
    terminal.loading()
    from solverbench import registries
    from solverbench.bench import reproduce
    from solverbench.cli.progress import display

    if listing and row is None and paper is None:
        found = [each for name in registries.papers() for each in registries.results(name)]
    else:
        found = reproduce.select(row, paper)
    if listing:
        for each in found:
            click.echo(
                f"{each.row}  {each.metric} {each.value:.{each.digits}f}  {each.solver} ({each.spec or 'no spec'})"
            )
        return
    if checkpoint is not None:
        if len(found) > 1:
            raise UserError(
                asked=f"--checkpoint {checkpoint}",
                wrong=f"{len(found)} rows are asked for, and a file holds the parameters of one",
                remedy=f"name a row, as in {found[0].row}",
            )
        click.echo(f"imported to {reproduce.adopt(found[0], Path(checkpoint), Path(out))}")
    lacking = {each.row: reproduce.missing(each, Path(out), reference) for each in found}
    able = [each for each in found if not lacking[each.row]]
    for name, lines in lacking.items():
        for line in lines:
            click.echo(f"{name}: missing: {line}", err=not able)
    if not able:
        raise MissingError(
            asked="reproduce",
            wrong=f"{len(found)} of {len(found)} rows can't be measured here",
            remedy="provide what the lines above name",
        )
    given = RunOptions(samples=samples, replicates=replicates, seeds=seeds, reference=reference, device=device, out=out)
    compared = []
    for each in able:
        with display(amount=terminal.amount()) as progress:
            compared.append(reproduce.reproduce(each, given, progress=progress))
        click.echo("\n".join(compared[-1].lines()))
    agreed = sum(each.agrees for each in compared)
    click.echo(
        f"{len(found)} row{'s' * (len(found) != 1)}: {agreed} agree, {len(compared) - agreed} disagree, "
        f"{len(found) - len(able)} can't be measured here"
    )
    if as_json:
        click.echo(json.dumps([each.as_dict() for each in compared]))
    sys.exit(4 if agreed < len(compared) else 3 if len(able) < len(found) else 0)
