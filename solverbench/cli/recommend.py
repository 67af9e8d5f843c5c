"""`solverbench recommend`."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import click

from solverbench.bench.progress import duration
from solverbench.cli import terminal
from solverbench.cli.flags import config_option, device_option, json_option, out_option, plugin_option, teacher_option
from solverbench.errors import UserError

_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0}


def _seconds(_: click.Context, __: click.Parameter, text: str | None) -> float | None:
    """Return the seconds of a time such as 15m, 1h30m or 90s."""
    if text is None:
        return None
    parts = re.findall(r"(\d+(?:\.\d+)?)\s*([smh])", text)
    if not parts or re.sub(r"(\d+(?:\.\d+)?)\s*([smh])\s*", "", text):
        raise UserError(asked=f"--time {text}", wrong="isn't a time", remedy="write 15m, 90s or 1h30m")
    return sum(float(number) * _UNITS[unit] for number, unit in parts)


@click.command()
@click.option("--nfe", default="4-8", show_default=True, metavar="RANGE", help="Numbers of denoiser calls.")
@teacher_option
@click.option("--time", "seconds", callback=_seconds, metavar="TIME", help="Time that it may take, such as 15m.")
@click.option(
    "--calls", type=click.IntRange(1), metavar="N", help="Network calls times images that all of it may spend."
)
@click.option(
    "--by", default="rmse_teacher", show_default=True, metavar="METRIC",
    help="Metric that chooses between the leaders of the race.",
)  # fmt: skip
@click.option("--solvers", metavar="LIST", help="Specs to choose from.  [default: all solvers on all grids]")
@click.option("--train", is_flag=True, help="Give the rest of --time to training gs, s4s_alt and ld3.")
@click.option(
    "--export", "exports", multiple=True, default=("py",), show_default=True, metavar="KIND",
    help="Write each pick as json, py, k-diffusion, sigmas or diffusers; repeatable.",
)  # fmt: skip
@device_option
@out_option
@plugin_option
@config_option
@json_option
@terminal.amount_options
@click.pass_context
def recommend(
    ctx: click.Context,
    nfe: str,
    teacher: str,
    seconds: float | None,
    calls: int | None,
    by: str,
    solvers: str | None,
    train: bool,
    exports: tuple[str, ...],
    device: str,
    out: str,
    as_json: bool,
) -> None:
    """Find the best solver for a model and a number of calls.

    Solvers on all grids race on a few images; what is beaten drops out. The leaders are measured again on fresh seeds
    together with Euler's method and the pipeline's own scheduler. The same command resumes an interrupted choice.
    """
    terminal.loading()
    from solverbench.choice.choose import choose
    from solverbench.cli.progress import display
    from solverbench.sampling.devices import check_device
    from solverbench.teachers.loading import load_teacher

    network = load_teacher(teacher, check_device(device), out=out)
    with display(amount=terminal.amount()) as progress:
        found = choose(
            network,
            nfe,
            out=Path(out),
            calls=calls,
            seconds=seconds,
            by=by,
            solvers=solvers,
            train=train,
            exports=exports,
            tell=progress,
        )
    draw: Callable[[Path], object] = ctx.meta["report"]
    terminal.tell("drawing the page and the report")
    draw(found.folder)
    click.echo(str(found))
    for note in found.notes:
        terminal.say(f"note: {note}")
    spent = f"{found.cost['calls']:.0f} network calls in the race, {duration(found.cost['seconds'])}"
    terminal.say(f"cost: {spent}; a call takes {1000 * found.cost['seconds_per_call']:.3g} ms an image here")
    click.echo(f"page     {found.page}\nfiles    {found.folder}\nreport   {found.report / 'report.html'}")
    if as_json:
        click.echo(json.dumps(found.as_dict()))
