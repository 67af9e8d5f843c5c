"""Flags that several commands share."""

from __future__ import annotations

import tomllib
from pathlib import Path

import click

from solverbench.errors import UserError
from solverbench.wording import suggest


def _read_config(ctx: click.Context, _: click.Parameter, path: str | None) -> None:
    """Take defaults from a TOML file whose keys are the command's long flags."""
    if path is None:
        return
    try:
        given = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise UserError(f"--config {path}: can't be read ({error}); give a TOML file of long flags") from None
    options = {p.name: p for p in ctx.command.params if isinstance(p, click.Option) and p.name != "config"}
    for key, value in given.items():
        name = key.replace("-", "_")
        if name not in options:
            wrong = f"no flag {key!r} in '{ctx.info_name}'"
            raise UserError(asked=f"--config {path}", wrong=wrong, remedy=suggest(name, options, "see --help"))
        if isinstance(value, dict):
            raise UserError(f"--config {path}: {key!r} is a table; write flags as key = value at the top level")
        if isinstance(value, list) and not options[name].multiple:
            value = ",".join(map(str, value))
        elif options[name].multiple and not isinstance(value, list):
            value = [value]
        # As text, so that 1.5 is refused for a whole number as it is on the command line.
        ctx.default_map = {**(ctx.default_map or {}), name: value if isinstance(value, (bool, list)) else str(value)}


config_option = click.option(
    "--config",
    callback=_read_config,
    is_eager=True,
    expose_value=False,
    metavar="FILE.toml",
    help="Read flags from a TOML file (keys are long flags); the command line wins.",
)


def _load_plugins(_: click.Context, __: click.Parameter, paths: tuple[str, ...]) -> None:
    """Load the files, before any name is looked up."""
    if paths:
        from solverbench import plugins

        for path in paths:
            plugins.load(path)


plugin_option = click.option(
    "--plugin",
    multiple=True,
    callback=_load_plugins,
    expose_value=False,
    metavar="FILE.py",
    help="Load solvers, teachers, grids, metrics and losses from a file of yours; repeatable.",
)


def _named(_: click.Context, option: click.Parameter, value: str) -> str:
    if not value.strip():
        raise UserError(f"--{option.name} {value!r}: names no folder; give one, such as runs")
    return value


out_option = click.option(
    "--out", default="runs", show_default=True, metavar="DIR", callback=_named, help="Folder of results."
)
device_option = click.option("--device", default="cpu", show_default=True, help="cpu, cuda or cuda:0.")
json_option = click.option("--json", "as_json", is_flag=True, help="End with one line of JSON on stdout.")
teacher_option = click.option("--teacher", default="digits", show_default=True, help="The network to sample.")

judging_options = [
    click.option("--metrics", default=None, metavar="LIST",
                 help="fid, kid, precision, recall, fid_clip, psnr_teacher, ...  [default: the teacher's own]"),
    click.option("--reference", default=None, metavar="NAME|FILE",
                 help="Statistics of real images.  [default: the teacher's own, or those stored in its name]"),
    click.option("--extractor", default=None, metavar="NAME",
                 help="Of Inception features: legacy_tensorflow (default), clean or legacy_pytorch."),
    click.option("--quantiser", default=None, metavar="RULE",
                 help="Float to uint8: edm-round or adm-floor.  [default: the teacher's, or edm-round]"),
    click.option("--protocol", default=None, metavar="NAME", help="smoke (250 images), quick (5000), paper (50000)."),
]  # fmt: skip
"""What the images are judged by, the same for `run` and `plan`."""
