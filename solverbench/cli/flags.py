"""Flags that several commands share."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click
from click.shell_completion import CompletionItem

from solverbench import options
from solverbench.bench.run_options import WORK, Option, RunOptions, declared
from solverbench.cli import terminal
from solverbench.errors import UserError
from solverbench.wording import suggest


def _read_config(ctx: click.Context, _: click.Parameter, path: str | None) -> None:
    """Take defaults from a TOML file whose keys are the command's long flags."""
    if path is None:
        return
    try:
        given = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise UserError(
            asked=f"--config {path}", wrong=f"can't be read ({error})", remedy="give a TOML file of long flags"
        ) from None
    options = {p.name: p for p in ctx.command.params if isinstance(p, click.Option) and p.name != "config"}
    for key, value in given.items():
        name = key.replace("-", "_")
        if name not in options:
            wrong = f"no flag {key!r} in '{ctx.info_name}'"
            raise UserError(asked=f"--config {path}", wrong=wrong, remedy=suggest(name, options, "see --help"))
        if isinstance(value, dict):
            raise UserError(
                asked=f"--config {path}",
                wrong=f"{key!r} is a table",
                remedy="write flags as key = value at the top level",
            )
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
    help="Read flags from a TOML file whose keys are long flags; the command line takes precedence.",
)


def _load_plugins(_: click.Context, __: click.Parameter, paths: tuple[str, ...]) -> None:
    """Load the files before any name is looked up."""
    if paths:
        terminal.loading("PyTorch and the plugin")
        from solverbench import plugins

        for path in paths:
            plugins.load(path)


plugin_option = click.option(
    "--plugin",
    multiple=True,
    callback=_load_plugins,
    expose_value=False,
    metavar="FILE.py",
    help="Load solvers, teachers, grids, metrics and losses from your Python file; repeatable.",
)


class Joined(click.Command):
    """A command that says how to write several names for one flag, if they were typed as separate words."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse the words.

        Raises:
            UserError: a word belongs to no flag.
        """
        typed = list(args)
        try:
            return super().parse_args(ctx, args)
        except click.UsageError as error:
            found = re.search(r"unexpected extra arguments? \((.*)\)", error.message)
            if found is None:
                raise
            extra = found[1].split()
            flag = next((each for each in reversed(typed[: typed.index(extra[0])]) if each.startswith("-")), "")
            near = typed[typed.index(flag) + 1 : typed.index(extra[0])] if flag else []
            remedy = f"join names with commas: {flag} {','.join([*near, *extra])}" if near else "see --help"
            raise UserError(asked=" ".join(extra), wrong="belongs to no flag", remedy=remedy) from None


def _names(kinds: Sequence[str]) -> Callable[[click.Context, click.Parameter, str], list[CompletionItem]]:
    """Return the completion of names of some registries; of a list joined with commas, its last one."""

    def complete(_: click.Context, __: click.Parameter, incomplete: str) -> list[CompletionItem]:
        from solverbench import registries

        before, comma, last = incomplete.rpartition(",")
        return [
            CompletionItem(f"{before}{comma}{name}")
            for kind in kinds
            for name in registries.extensible[kind]
            if name.startswith(last)
        ]

    return complete


COMPLETED = {"solvers": ["solver"], "teachers": ["teacher"], "metrics": ["metric"], "extractor": ["extractor"]}
"""Options whose values the shell completes, with the registries of their names."""


def _named(_: click.Context, option: click.Parameter, value: str) -> str:
    if not value.strip():
        raise UserError(asked=f"--{option.name} {value!r}", wrong="names no folder", remedy="give one, such as runs")
    return value


def _made(option: Option) -> Callable[..., Any]:
    """Return the click option of an option of `RunOptions`; its annotation gives the type."""
    kind: Any = {"int": int, "float": float}.get(_KINDS.get(option.name, ""), str)
    switch = _KINDS.get(option.name) == "bool"
    return click.option(
        f"{option.flag}/--no-{option.flag[2:]}" if switch and option.default is None else option.flag,
        default=option.default,
        show_default=not switch and option.default is not None,
        is_flag=switch,
        type=None if switch else click.Choice(option.choices) if option.choices else kind,
        metavar=option.metavar,
        callback=_named if option.name == "out" else None,
        shell_complete=_names(COMPLETED[option.name]) if option.name in COMPLETED else None,
        help=option.about,
    )


_KINDS = options.of(RunOptions)
_MADE = {name: _made(option) for name, option in declared().items()}

out_option, device_option = _MADE["out"], _MADE["device"]
json_option = click.option("--json", "as_json", is_flag=True, help="Print one line of JSON at the end of stdout.")
strict_option = click.option(
    "--strict", is_flag=True, help="Exit with code 5 if a cell is unsupported, needs training or lacks a metric."
)
teacher_option = click.option(
    "--teacher",
    default="digits",
    show_default=True,
    help="Teacher: a name, a checkpoint or a TOML file.",
    shell_complete=_names(["teacher"]),
)


def run_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the flags of `RunOptions` and the flags common to all commands; for `run` and `plan`."""
    groups = {name: each.group for name, each in declared().items()}
    asked = [made for name, made in _MADE.items() if groups[name] != WORK]
    work = [made for name, made in _MADE.items() if groups[name] == WORK]
    for flag in reversed([*asked, plugin_option, config_option, json_option, *work, strict_option]):
        command = flag(command)
    return command
