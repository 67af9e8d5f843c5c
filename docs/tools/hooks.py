"""Pages that MkDocs builds from the code: public names, commands, solvers' options; and the changelog."""

import atexit
import inspect
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

import click
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.plugins import event_priority
from mkdocs.structure.files import File, Files

import solverbench
from solverbench import registries
from solverbench.bench import run_options
from solverbench.cli.main import main
from solverbench.method.declarations import declared
from solverbench.method.spec import make, solver_class

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "tools"))

import installed  # noqa: E402

GROUPS = {
    "Measuring": ["run", "load_results", "plot", "report", "compare"],
    "Solvers as numbers": ["tableau", "trace", "execute", "Tableau", "Grid"],
    "Writing a solver": ["Solver", "Classical", "LearnedSolver", "Denoise", "option", "make", "refuse_budget"],
    "Plugins": ["register", "load_plugin", "Metric"],
    "For other code": ["diffusers_scheduler", "k_diffusion_sampler"],
    "Teachers": [
        "load_teacher",
        "Teacher",
        "Adapted",
        "per_image",
        "fingerprint",
        "Condition",
        "Guided",
        "Evaluation",
        "Reference",
    ],
    "Schedules": ["NoiseSchedule", "EDM", "VPLinear", "VPDiscrete", "RectifiedFlow"],
    "Parts of methods": ["ExponentialIntegrator", "ADAMS_BASHFORTH", "block_orders", "differences", "phis", "unified"],
    "Errors": ["UserError", "BudgetError", "GridError", "SpecError", "PluginError", "MissingError", "BundleError"],
}


@event_priority(100)  # before mkdocstrings reads its paths
def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Leave out of the navigation what isn't there, and show mkdocstrings the package as it is installed."""
    folder = tempfile.mkdtemp()
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    installed.assemble(Path(folder))
    config.plugins["mkdocstrings"].config.handlers["python"]["paths"] = [folder]
    made = {"changelog.md", *(f"reference/{name}.md" for name in ("python", "commands", "options"))}
    config.nav = [_kept(part, made) for part in config.nav or []]
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages made here."""
    pages = {"reference/python.md": python(), "reference/commands.md": commands(), "reference/options.md": options()}
    pages["changelog.md"] = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    for name, text in pages.items():
        files.append(File.generated(config, name, content=text))
    return files


def python() -> str:
    """Return the page of all names of `solverbench`, for mkdocstrings to fill in."""
    left = {name for name in dir(solverbench) if not name.startswith("_")}
    parts = ["# Python", "`import solverbench as sb`: the names below are all that is public."]
    more = sorted(left - {name for group in GROUPS.values() for name in group})
    for title, group in [*GROUPS.items(), *([("More", more)] if more else [])]:
        parts.append(f"## {title}")
        for name in (each for each in group if each in left):
            parts += [f"::: solverbench.{name}", *([arguments()] if name == "run" else [])]
    return "\n\n".join(parts)


def arguments() -> str:
    """Return the table of the arguments of `run`, which its signature in the source doesn't list."""
    rows = ["| argument | default | |", "|---|---|---|"]
    for name, option in run_options.declared().items():
        default = option.unset or ("" if option.default is None else f"`{option.default!r}`")
        rows.append(f"| `{name}` | {default} | {option.help.replace('|', '¦')} |")
    return "\n".join(rows)


def commands() -> str:
    """Return the page of all commands with their arguments and flags."""
    return "# Command line\n\n" + "\n\n".join(_command(main, "solverbench"))


def options() -> str:
    """Return the page of all solvers with their options."""
    parts = ["# Solvers' options\n\nA solver is written `name:key=value`, as in `dpm:order=2:grid=polynomial`."]
    for name in registries.solvers:
        rows = ["| option | default | values | |", "|---|---|---|---|"]
        for key, (field, _) in sorted(declared(solver_class(name)).items()):
            default = "" if field.default is None else f"`{str(field.default).lower()}`"
            choices = " ".join(f"`{str(choice).lower()}`" for choice in field.metadata["choices"])
            rows.append(f"| `{key}` | {default} | {choices} | {field.metadata['help'].replace('|', '/')} |")
        also = "".join(f", also `{alias}`" for alias in registries.solvers.aliases(name))
        about = f"{registries.solvers.about(name)}{also}. Written out: `{make(name).spec}`"
        parts.append("\n".join([f"## `{name}`", "", about, "", *rows]))
    return "\n\n".join(parts)


def _kept(part: Any, made: set[str]) -> Any:
    """A part of the navigation without pages that are neither in docs/ nor in `made`."""
    if not isinstance(part, dict):
        return part
    found = {title: [_kept(each, made) for each in below] if isinstance(below, list) else below
             for title, below in part.items()}  # fmt: skip
    return {title: [each for each in below if each] if isinstance(below, list) else below
            for title, below in found.items()
            if isinstance(below, list) or below in made or (ROOT / "docs" / below).exists()}  # fmt: skip


def _command(command: click.Command, name: str) -> list[str]:
    """A section of the page for a command, and those of the commands below it."""
    context = click.Context(command, info_name=name)
    usage = " ".join([name, *command.collect_usage_pieces(context)])
    level = "##" if name.count(" ") < 2 else "###"
    lines = [f"{level} {name}" if name != "solverbench" else "", f"`{usage}`", _help(command)]
    records = [record for p in command.params if (record := p.get_help_record(context)) and record[1]]
    if records:
        rows = [f"| `{flag.replace('|', '¦')}` | {about.replace('|', '¦')} |" for flag, about in records]
        lines.append("\n".join(["| flag | |", "|---|---|", *rows]))
    below = command.commands.items() if isinstance(command, click.Group) else ()
    return [*lines, *(line for key, each in sorted(below) for line in _command(each, f"{name} {key}"))]


def _help(command: click.Command) -> str:
    """A command's help; lines that click is told to leave alone become a block."""
    paragraphs = inspect.cleandoc(command.help or "").split("\n\n")
    blocks = (
        f"    {text[2:].replace(chr(10), chr(10) + 4 * ' ')}" if text[:1] == "\b" else text for text in paragraphs
    )
    return "\n\n".join(blocks)
