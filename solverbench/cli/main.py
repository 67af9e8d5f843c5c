"""The command line: `solverbench run --solvers gas,dpm --nfe 3-10`, and the other commands."""

from __future__ import annotations

import dataclasses
import errno
import json
import os
import re
import signal
import sys
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import click
from click.exceptions import NoArgsIsHelpError

from solverbench import files, registries
from solverbench._version import __version__
from solverbench.bench.run_options import RunOptions
from solverbench.cli import terminal
from solverbench.cli.check import check
from solverbench.cli.compare import compare
from solverbench.cli.compare import folder as report_folder
from solverbench.cli.flags import (
    Joined,
    config_option,
    device_option,
    json_option,
    out_option,
    plugin_option,
    run_options,
    teacher_option,
)
from solverbench.cli.help import formatted
from solverbench.cli.new import new
from solverbench.cli.recommend import recommend
from solverbench.cli.refs import refs
from solverbench.cli.reproduce import reproduce
from solverbench.cli.serve import serve
from solverbench.cli.store import store
from solverbench.cli.teachers import prompts, teachers
from solverbench.cli.train import train
from solverbench.cli.zoo import zoo
from solverbench.errors import UserError
from solverbench.wording import one_line, printable, suggest

LISTED = {each.plural: each for each in registries.extensible.values()}
"""The registries that `solverbench list` shows, by plural name."""


class Lines(click.Group):
    """A group whose commands report a user's mistake in one line on stderr, with the mistake's exit code."""

    whole = False
    """Whether the command is the whole process, which reads its arguments from the command line."""

    def main(self, *args: Any, **extra: Any) -> Any:
        """Run the command; nothing that it prints is obeyed by a terminal."""
        self.whole = not args and extra.get("args") is None
        with terminal.escaped(), terminal.noted():
            return super().main(*args, **extra)

    def make_context(self, *args: Any, **extra: Any) -> click.Context:
        try:
            return super().make_context(*args, **extra)
        except NoArgsIsHelpError:
            raise
        except click.UsageError as error:
            _fail(_misused(error, "solverbench"), error.exit_code)
            raise

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except NoArgsIsHelpError:
            raise
        except click.UsageError as error:
            _fail(_misused(error, f"{ctx.command_path} {ctx.invoked_subcommand}"), error.exit_code)
        except UserError as error:
            _fail(str(error), error.exit_code)
        except MemoryError as error:
            _fail(_memory(error), 3)
        except RuntimeError as error:
            if "can't allocate memory" not in str(error) and "out of memory" not in str(error):
                raise
            _fail(_memory(error), 3)
        except KeyboardInterrupt:
            _interrupted(self.whole)
        except OSError as error:
            if error.errno == errno.EPIPE:
                sys.stderr.close()
                sys.exit(0)
            _fail(
                f"{error.filename or 'disk'}: {error.strerror}; check the path, its permissions and the space left", 3
            )

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)


def _misused(error: click.UsageError, command: str) -> str:
    """Return an error in a command's words as one line: the command, what is wrong, and what to do.

    Args:
        command: the command if the error doesn't tell it.
    """
    command = error.ctx.command_path if error.ctx is not None else command
    said, _, meant = error.format_message().partition(". Did you mean ")
    remedy = f"see '{command} --help'"
    if isinstance(error, click.NoSuchOption):
        said = f"no such option {error.option_name}"
        names = {name.lstrip("-"): name for name in _options(error) if name.startswith("--")}
        remedy = suggest(error.option_name.lstrip("-"), names, remedy)
        remedy = re.sub(r"did you mean '([^']*)'", lambda found: f"did you mean {names[found[1]]}", remedy)
    elif error.ctx is not None and (word := re.fullmatch("No such command '(.*)'.?", said)) is not None:
        assert isinstance(error.ctx.command, click.Group)
        remedy = suggest(word[1], error.ctx.command.list_commands(error.ctx), remedy)
    elif meant:
        remedy = f"did you mean {meant} See '{command} --help'"
    elif (word := re.fullmatch(r"Got unexpected extra arguments? \((\S*)\)", said)) and "--teacher" in _options(error):
        remedy = f"did you mean --teacher {word[1]}? See '{command} --help'"
    return f"{command}: {said[0].lower()}{said[1:].rstrip('.')}; {remedy}"


def _options(error: click.UsageError) -> list[str]:
    return [name for each in error.ctx.command.params for name in each.opts] if error.ctx is not None else []


def _memory(error: Exception) -> str:
    return f"memory: too little is free ({one_line(error)}); ask for a smaller batch or fewer images"


def _fail(line: str, code: int) -> None:
    terminal.fail(line)
    sys.exit(code)


def _interrupted(whole: bool) -> None:
    """Say that finished results are kept, and exit with 130, also when a second Ctrl-C came while workers stopped.

    Args:
        whole: whether the command is the whole process, and no further Ctrl-C may end it in another way.
    """
    if whole:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    terminal.fail("interrupted: finished results are kept; run the same command to resume")
    if any(each.name.startswith("solverbench") for each in threading.enumerate()):
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(130)  # torch aborts a process that ends normally while it computes
    sys.exit(130)


@click.group(cls=Lines, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="solverbench")
@click.pass_context
def main(ctx: click.Context) -> None:
    """Measure few-step diffusion solvers, classical and learned, on one teacher, by one protocol.

    \b
    solverbench run --solvers gas,dpm --nfe 3-10   measure, and write a report
    solverbench plan --solvers gas,dpm --nfe 3-10  what that run would compute
    solverbench info dpm                           a solver's options and paper
    """
    ctx.obj = _draw_training  # only this file imports reports
    ctx.meta["report"] = _report


@main.command(cls=Joined)
@run_options
@terminal.amount_options
def run(strict: bool, as_json: bool, **given: Any) -> None:
    """Sample and measure each solver at each NFE on each teacher.

    Writes a report. The same command resumes an interrupted run.
    """
    terminal.loading()
    from solverbench.bench import run as runner
    from solverbench.cli.progress import display

    with display(amount=terminal.amount()) as progress:
        result = runner.run(RunOptions(**given), progress=progress, command=_command_line())
    terminal.tell("drawing the report")
    written = _report(result.folder)
    terminal.show(result.tables)
    terminal.say(result.summary())
    _say_written(result.folder, written)
    if as_json:
        click.echo(json.dumps({"report": str(result.folder), "counts": result.counts}))
    sys.exit(result.strict_exit_code if strict else result.exit_code)


@main.command(cls=Joined)
@run_options
@click.option(
    "--detect",
    metavar="PERCENT",
    help="Say how many images tell two solvers apart by this difference, such as 5%, from stored paired differences.",
)
@click.option(
    "--power", default=0.8, show_default=True, metavar="P", help="Probability that --detect's difference is found."
)
@click.option(
    "--pilot",
    metavar="NAME|FOLDER",
    help="With --detect: take solvers and variances of a finished run's report, and plan nothing else.",
)
def plan(strict: bool, as_json: bool, detect: str | None, power: float, pilot: str | None, **given: Any) -> None:
    """Show the cells of a run, their status and estimated cost.

    With --detect also how many images tell two solvers apart. Writes nothing.
    """
    terminal.loading()
    from solverbench.bench import plan as planning

    if pilot is not None:
        if detect is None:
            raise UserError(asked=f"--pilot {pilot}", wrong="given without --detect", remedy="add --detect 5%")
        found = planning.detected(report_folder(pilot, given["out"]), detect, power)
        click.echo("\n".join(map(printable, found.lines())))
        if as_json:
            click.echo(json.dumps({"detect": found.as_dict()}))
        return
    planned = planning.plan(RunOptions(**given), detect=detect, power=power)
    click.echo(planned.summary(terminal.width()))
    if as_json:
        click.echo(json.dumps(planned.as_dict()))


main.add_command(train)


@main.command()
@click.argument("solver", metavar="SPEC")
@click.option("--nfe", type=int, required=True, help="Denoiser calls.")
@click.option(
    "--seeds",
    default="50000-50063",
    show_default=True,
    metavar="FIRST-LAST",
    help="Seeds of the images; each seed gives one image.",
)
@click.option("--format", "kind", type=click.Choice(["png", "npz"]), default="png", show_default=True,
              help="PNG: a file per image. NPZ: one file with 'images' (uint8 NHWC) and 'seeds'.")  # fmt: skip
@click.option(
    "--to", "folder", metavar="DIR", help="Folder for the images.  [default: samples/TEACHER-SPEC-nfeN-SEEDS]"
)
@click.option("--batch", type=int, default=500, show_default=True, help="Images per denoiser call.")
@teacher_option
@device_option
@out_option
@plugin_option
@config_option
@terminal.amount_options
def sample(
    solver: str, nfe: int, seeds: str, kind: str, folder: str | None, batch: int, teacher: str, device: str, out: str
) -> None:
    """Write the images that a solver makes from given seeds.

    The images are for use with a metric of your own.
    """
    terminal.loading()
    from solverbench.bench import images
    from solverbench.cli.progress import counted

    name = re.sub(r"[^A-Za-z0-9.+=_-]+", "-", f"{teacher}-{solver.lower()}-nfe{nfe}-{seeds}").strip("-")
    to = Path(folder or f"samples/{name}")
    with counted("images", amount=terminal.amount()) as progress:
        said = images.write(solver, nfe, seeds, kind, to, batch, teacher, device, Path(out), progress)
    click.echo(said)


@main.command()
@click.argument("name", required=False)
@click.option(
    "--training", metavar="FOLDER", help="Draw the curves of one training in DIR/trained/*/runs instead of a report."
)
@click.option(
    "--width",
    metavar="VENUE",
    default=None,
    help="Venue whose column width the figures fit: icml, cvpr, neurips or iclr.  [default: icml]",
)
@click.option(
    "--baseline",
    metavar="SOLVER",
    default=None,
    help="Baseline solver for the paired differences.  [default: dpm, or the first classical solver]",
)
@out_option
def report(name: str | None, training: str | None, width: str | None, baseline: str | None, out: str) -> None:
    """Draw the report of a finished run again.

    NAME is a folder in DIR/reports; the newest one is the default. The teacher is not needed.
    """
    if training is not None:
        if name is not None:
            raise UserError(
                asked=f"report {name!r} --training {training}",
                wrong="only one of them can be drawn",
                remedy="give NAME or --training",
            )
        runs = [place / "runs" for place in files.folders(Path(out) / "trained")]
        named = [path for place in runs for path in files.folders(place) if path.name == training]
        for path in _draw_training(named[0] if named else Path(training)):
            click.echo(printable(str(path)))
        return
    folder = Path(out) / "reports"
    bundles = [path / "bundle.json" for path in files.folders(folder)]
    found = {path.parent.name: path.stat().st_mtime for path in bundles if path.is_file()}
    if name is None:
        name = max(found, key=lambda each: found[each], default=None)
    if name not in found:
        asked = "report" if name is None else f"report {name!r}"
        raise UserError(
            asked=asked,
            wrong=f"{folder} has {', '.join(found) or 'no report'}",
            remedy="name one of them, or run first",
        )
    _say_written(folder / name, _report(folder / name, width, baseline))


@main.command("list")
@click.argument("what", default="solvers", type=click.Choice([*LISTED, "recipes"]))
@plugin_option
@json_option
def list_(what: str, as_json: bool) -> None:
    """List solvers, teachers, grids, metrics, losses or recipes.

    Prints one line for each, whether it is built in or comes from a plugin.
    """
    if what == "recipes":
        places = sorted(Path(registries.__file__).parent.glob("recipes/*.toml"))
        rows = [registries.Listed(path.stem, (), str(path)) for path in places]
    else:
        rows = list(LISTED[what].listed())
    if as_json:
        click.echo(json.dumps([dataclasses.asdict(row) for row in rows]))
        return
    width = max(len(_called(row)) for row in rows)
    for row in rows:
        click.echo(f"{_called(row):<{width}}  {_told(row)}")


@main.command()
@click.argument("name")
@teacher_option
@out_option
@plugin_option
def info(name: str, teacher: str, out: str) -> None:
    """Describe a solver, teacher, grid, metric or loss.

    For a solver, prints its options, budgets, paper and trained files.
    """
    if teacher in registries.teachers and (known := registries.described(name)):
        click.echo(known)
        return
    from solverbench.cli import describe

    click.echo(describe.named(name, teacher, Path(out)))


@main.command()
@out_option
@plugin_option
def doctor(out: str) -> None:
    """Check this installation and the results folder.

    Loads every packaged teacher and solver, and lists package versions and devices.
    """
    terminal.loading("PyTorch, every teacher and every solver")
    from solverbench.cli import describe

    checks = list(describe.doctor(Path(out)))
    marks = {True: "ok", False: "FAIL", None: "-"}
    for good, line in checks:
        terminal.say(f"{marks[good]:<4}  {line}")
    failed, absent = (sum(good is each for good, _ in checks) for each in (False, None))
    told = f"{failed} of these checks failed" if failed else "everything needed is there"
    terminal.say(f"{told}; optional extras that aren't installed: {absent or 'none'}")
    sys.exit(4 if failed else 0)


main.add_command(teachers)
main.add_command(prompts)
main.add_command(zoo)
main.add_command(refs)
main.add_command(store)
main.add_command(recommend)
main.add_command(reproduce)
main.add_command(serve)
main.add_command(compare)
main.add_command(check)
main.add_command(new)
formatted(main)


def _called(row: registries.Listed) -> str:
    return f"{row.name} ({', '.join(row.aliases)})" if row.aliases else row.name


def _told(row: registries.Listed) -> str:
    if row.unavailable:
        return f"unavailable: {row.unavailable}" + (f" ({row.plugin})" if row.plugin not in row.unavailable else "")
    return f"{row.about} ({row.plugin})".lstrip() if row.plugin else row.about


def _command_line() -> str:
    import shlex

    return shlex.join(["solverbench", *sys.argv[1:]])


def _report(folder: Path, width: str | None = None, baseline: str | None = None) -> list[Path]:
    from solverbench import reports

    try:
        return list(reports.write(folder, width=width, baseline=baseline))
    except reports.BundleError as error:
        raise UserError.of(error) from None


def _draw_training(folder: Path) -> list[Path]:
    from solverbench import reports

    try:
        return list(reports.training(folder))
    except reports.BundleError as error:
        raise UserError.of(error) from None


def _say_written(folder: Path, written: Iterable[Path]) -> None:
    names = sorted({path.name for path in written})
    click.echo(f"report   {folder / 'report.html'}")
    for label, name in (("figure", "figure.png"), ("numbers", "results.csv")):
        if (folder / name).exists():
            click.echo(f"{label:<8} {folder / name}")
    click.echo(f"         and {len(names)} more files in the same folder")
