"""`solverbench zoo`."""

from __future__ import annotations

import json
from pathlib import Path

import click

from solverbench.cli.flags import json_option, out_option, plugin_option, teacher_option


@click.group()
def zoo() -> None:
    """List, show, add, export and import trained solvers."""


@zoo.command("list")
@out_option
@plugin_option
@json_option
def zoo_list(out: str, as_json: bool) -> None:
    """List trained solvers and the file of each.

    Files are searched in DIR/trained, in your own zoo and in the packaged zoo, in this order.
    """
    from solverbench.cli import zoo_listing

    found = list(zoo_listing.entries(Path(out)))
    click.echo(zoo_listing.table(found))
    if as_json:
        click.echo(json.dumps([entry.as_dict() for entry in found]))


@zoo.command("show")
@click.argument("name", metavar="FILE|SOLVER")
@click.option("--nfe", type=int, default=None, help="Denoiser calls; required with SOLVER.")
@teacher_option
@out_option
@plugin_option
@json_option
def zoo_show(name: str, nfe: int | None, teacher: str, out: str, as_json: bool) -> None:
    """Show the record and the tableau of a trained solver.

    The record holds the recipe, seeds, errors, costs and versions.
    """
    from solverbench.cli import zoo_listing

    trained = zoo_listing.chosen(name, nfe, teacher, Path(out))
    click.echo(zoo_listing.described(trained))
    if as_json:
        click.echo(json.dumps(dict(trained.record)))


@zoo.command("export")
@click.argument("solver", metavar="SPEC")
@click.option("--nfe", type=int, required=True, help="Denoiser calls.")
@click.option("--format", "kind", type=click.Choice(["json", "py", "diffusers", "k-diffusion"]), default="json",
              show_default=True, help="json: the tableau. py: a module with sample(denoise, noise). diffusers: a "
              "scheduler for pipelines of the teacher's network, as a folder or a .py. k-diffusion: a module with a "
              "sampling function of its kind. A module needs torch alone, a scheduler diffusers too.")  # fmt: skip
@click.option("--to", "path", required=True, metavar="PATH", help="The file to write; a scheduler's folder.")
@teacher_option
@out_option
@plugin_option
def zoo_export(solver: str, nfe: int, kind: str, path: str, teacher: str, out: str) -> None:
    """Write a solver's coefficients for use in other code.

    SPEC is any solver, learned or classical.
    """
    from solverbench.export import export

    click.echo(export.write(solver, nfe, teacher, kind, Path(path), Path(out)))


@zoo.command("add")
@click.argument("file", metavar="FILE")
@plugin_option
def zoo_add(file: str) -> None:
    """Copy a trained solver's file into your own zoo.

    Every --out then finds it. Your zoo is the folder zoo in $SOLVERBENCH_DATA, by default ~/.local/share/solverbench
    on Linux.
    """
    from solverbench.cli import zoo_listing

    click.echo(zoo_listing.add(Path(file)))


@zoo.command("import")
@click.argument("source", metavar="FILE")
@click.option("--nfe", type=int, required=True, help="Denoiser calls that the solver was trained for.")
@click.option("--solver", default="gas", show_default=True, metavar="SPEC",
              help="Solver in the file: gas, gs, ld3 with its options, as in ld3:base=ipndm:mode=time, or dyweight "
              "with its own, as in dyweight:history=3:afs=true.")  # fmt: skip
@click.option("--t-eps", type=float, default=None, metavar="X",
              help="End of the time range that a file of GAS was trained with, as in 1e-3.  [default: as published for "
              "the teacher; on schedules that aren't EDM's, the teacher's own end]")  # fmt: skip
@click.option("--start", type=click.Choice(["model", "free"]), default=None,
              help="Where a file of GAS starts: at the teacher's first level (model), or at 152.167, as its authors' "
              "code does if a network has no largest level (free).  [default: by the teacher's schedule]")  # fmt: skip
@click.option("--tensors", default=None, metavar="WEIGHTS,SCALES",
              help="Names of DyWeight's two tensors in the file; if not given, the error lists them.")  # fmt: skip
@teacher_option
@out_option
@plugin_option
def zoo_import(
    source: str,
    nfe: int,
    solver: str,
    t_eps: float | None,
    start: str | None,
    tensors: str | None,
    teacher: str,
    out: str,
) -> None:
    """Convert a trained file of the GAS, LD3 or DyWeight repository.

    The result is written to DIR/trained, where `run` finds it. No code in the file is run.
    """
    from solverbench.learned import trained_files, upstream, zoo
    from solverbench.teachers.loading import load_teacher

    network = load_teacher(teacher)
    trained = upstream.read(Path(source), network, nfe, solver=solver, t_eps=t_eps, start=start, names=tensors)
    shadowed = zoo.find(trained.spec, network, nfe)
    place = upstream.keep(trained, Path(source), Path(out))
    ends = f"levels {float(trained.tableau.start):g} to {float(trained.tableau.levels[-1]):g}"
    click.echo(f"{trained_files.short(trained.solver)} nfe={nfe} for {teacher}, {ends}, in {place}")
    if shadowed is not None and shadowed.identity != trained.identity:
        name = trained.spec.partition(":")[0]
        click.echo(f"note: with --out {out}, {name} at {nfe} calls is now this file, not the one used before")
