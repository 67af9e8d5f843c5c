"""`solverbench check`."""

from __future__ import annotations

import json
import sys
from collections import Counter
from typing import TYPE_CHECKING, Any

import click

from solverbench.cli import terminal
from solverbench.cli.flags import json_option, plugin_option
from solverbench.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from solverbench.conformance import Outcome


@click.command()
@click.argument("wanted", nargs=-1, metavar="[FILE.py|SPEC|TEACHER]...")
@click.option(
    "--all",
    "everything",
    is_flag=True,
    help="Check every registered solver and teacher, and the extractors of plugins.",
)
@click.option(
    "--teacher",
    default=None,
    metavar="NAME",
    help="Teacher whose noise schedule solvers are checked on.  [default: EDM's, from 80 to 0.002]",
)
@click.option(
    "--images",
    default=None,
    metavar="FOLDER",
    help="Compare a teacher's predictions with these real images: a folder or a zip.  [default: the teacher's own]",
)
@click.option("--crop", default=None, metavar="RULE:SIZE", help="Crop and scale them, as `refs build` does.")
@plugin_option
@json_option
def check(
    wanted: tuple[str, ...],
    everything: bool,
    teacher: str | None,
    images: str | None,
    crop: str | None,
    as_json: bool,
) -> None:
    """Check that plugins keep what their kind promises.

    The exit code is 4 if one of them fails.

    \b
    solverbench check my_solver.py          what the file holds
    solverbench check heun dpm:order=2      by name, with options
    solverbench check digits                a teacher
    solverbench check model.toml --images FOLDER
    """
    terminal.loading("PyTorch and what is checked")
    from solverbench.conformance import images as real
    from solverbench.conformance import processes, subjects
    from solverbench.conformance.suite import run_all
    from solverbench.teachers.loading import load_teacher

    if bool(wanted) is everything:
        wrong = "both names and --all are given" if everything else "nothing to check"
        raise UserError(asked="check", wrong=wrong, remedy="give either names or --all")
    if crop is not None and images is None:
        raise UserError(
            asked=f"--crop {crop}", wrong="there are no images to crop", remedy="give them by --images FOLDER"
        )
    schedule = load_teacher(teacher).schedule if teacher is not None else None
    if everything:
        found = list(subjects.everything())
    else:
        found = [(text, subject, "") for text in wanted for subject in subjects.named(text)]
    given = real.read_for([subject for _, subject, _ in found], images, crop) if images is not None else {}
    processes.ask([subject for _, subject, _ in found if subject is not None])
    told = []
    for name, subject, lacking in found:
        if subject is None:
            click.echo(f"{name}\n  {'fail':<12}  {'loaded':<19}  {lacking}")
            told.append(_told(name, [("loaded", "fail", lacking)]))
            continue
        told.append(_shown(name, run_all(subject, schedule, given.get(id(subject)))))
    counts = Counter(each["status"] for one in told for each in one["checks"])
    click.echo(f"{counts['pass']} pass, {counts['fail']} fail, {counts['not declared']} not declared")
    if as_json:
        click.echo(json.dumps({"subjects": told, "counts": dict(counts)}))
    sys.exit(4 if counts["fail"] else 0)


def _shown(asked: str, outcomes: Iterable[Outcome]) -> dict[str, Any]:
    """Print each check's outcome as soon as it is known; return them all for JSON."""
    rows: list[tuple[str, str, str]] = []
    subject = asked
    for outcome in outcomes:
        if not rows:
            subject = outcome.subject
            click.echo(subject if subject.startswith(asked) else f"{subject} ({asked})")
        click.echo(f"  {outcome.status:<12}  {outcome.name:<19}  {outcome.finding}")
        rows.append((outcome.name, outcome.status, outcome.finding))
    return _told(subject, rows)


def _told(subject: str, rows: list[tuple[str, str, str]]) -> dict[str, Any]:
    keys = ("name", "status", "finding")
    return {
        "subject": subject,
        "passed": all(status != "fail" for _, status, _ in rows),
        "checks": [dict(zip(keys, row, strict=True)) for row in rows],
    }
