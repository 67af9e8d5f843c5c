"""`solverbench refs`."""

from __future__ import annotations

import json
from pathlib import Path

import click

from solverbench.cli import terminal
from solverbench.cli.flags import device_option, json_option, out_option, plugin_option
from solverbench.wording import printable


@click.group()
def refs() -> None:
    """Manage references, the statistics of real images for FID."""


@refs.command("list")
@out_option
@json_option
def refs_list(out: str, as_json: bool) -> None:
    """List stored references.

    References are searched in DIR/references, then in your data folder.
    """
    from solverbench.evaluation import references

    rows = [(name, path, references.about(path)) for name, path in references.listed(Path(out))]
    for name, path, told in rows:
        count = told["n"] or "unknown"
        line = f"{name}  n={count}, split {told['split']}, {told['extractor']}, from {told['origin']}  {path}"
        click.echo(printable(line))
    if not rows:
        click.echo(f"no reference in {' or '.join(map(str, references.folders(Path(out))))}")
    if as_json:
        click.echo(json.dumps([{"path": str(path), **told} for _, path, told in rows]))


@refs.command("build")
@click.argument("name")
@click.argument("source")
@click.option(
    "--kind", default=None, help="Whose statistics: edm, edm2, edm2-dinov2, guided-diffusion, clean-fid or pytorch-fid."
)
@click.option(
    "--extractor",
    default=None,
    show_default="legacy_tensorflow; with --own-samples the teacher's own",
    help="For images: a name of 'solverbench list extractors', or a teacher with features of its own.",
)
@click.option("--split", default="unknown", show_default=True, help="Split of the data set, such as train.")
@click.option(
    "--count", type=int, default=None, metavar="N", help="Images: the first ones, or those behind statistics."
)
@click.option(
    "--own-samples", is_flag=True, help="Of a teacher: its own many-step samples, for frechet_teacher, not its data."
)
@click.option(
    "--crop",
    default=None,
    metavar="RULE:SIZE",
    help="Crop and resize the images of a folder by edm, adm, torch or plain, as in adm:256.",
)
@device_option
@out_option
@plugin_option
@terminal.amount_options
def refs_build(
    name: str, source: str, kind: str | None, extractor: str | None, split: str, count: int | None, crop: str | None,
    own_samples: bool, device: str, out: str,
) -> None:  # fmt: skip
    """Build a reference from statistics, images or a teacher.

    SOURCE holds statistics (.npz, .npy, .pkl) or images (a folder, .zip, .npz or .npy), or is the name of a teacher
    that draws its images. The same command resumes an interrupted build.
    """
    terminal.loading("PyTorch and the source")
    from solverbench.bench.own_samples import own_pictures
    from solverbench.evaluation import reference_build, references
    from solverbench.evaluation.image_sources import Crop
    from solverbench.sampling.devices import check_device
    from solverbench.store.folder import Store

    cut = Crop.parse(crop) if crop is not None else None
    Store.look(out)
    device = check_device(device)
    drawn = own_pictures(source, count, device, kind, crop) if own_samples else None
    path = reference_build.build(
        name,
        drawn or source,
        Path(out),
        kind=kind,
        extractor_name=extractor or (source if own_samples else "legacy_tensorflow"),
        split=split,
        count=count,
        crop=cut,
        device=device,
        say=terminal.teller(),
    )
    Store.open(out)
    click.echo(f"{references.verify(path)}\n{path}")


@refs.command("verify")
@click.argument("names", nargs=-1, metavar="[NAME|FILE]...")
@out_option
def refs_verify(names: tuple[str, ...], out: str) -> None:
    """Read references completely and describe them.

    Without NAME, reads all stored references.
    """
    from solverbench.evaluation import references

    stored = names or [name for name, _ in references.listed(Path(out))]
    if not stored:
        click.echo(f"no reference in {Path(out) / 'references'}; see 'solverbench refs build --help'")
    for name in stored:
        click.echo(references.verify(references.find(name, Path(out))))


@refs.command("fetch")
@click.option(
    "--extractor",
    default="legacy_tensorflow",
    show_default=True,
    type=click.Choice(["legacy_tensorflow", "clean", "legacy_pytorch"]),
    help="Inception network to download.",
)
@terminal.amount_options
def refs_fetch(extractor: str) -> None:
    """Download an Inception network (91 MB) into your data folder.

    It is downloaded from the address that clean-fid uses.
    """
    from solverbench.cli.download_bars import download_bars
    from solverbench.metrics.extractors import inception as fid

    with download_bars() as bar:
        path = fid.fetch(extractor, bar(extractor))
    click.echo(f"{path}")
