"""`solverbench train`."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from solverbench.learned.recipes import Recipe
    from solverbench.learned.trained_files import Trained
    from solverbench.teachers.teacher import Teacher

from solverbench.bench.progress import duration
from solverbench.cli import terminal
from solverbench.cli.flags import config_option, device_option, out_option, plugin_option, teacher_option

SHOW = ""
"""Value of --recipe without a file."""
TABLES = "history.csv", "range.csv"


@click.command()
@click.argument("solvers", metavar="SOLVERS")
@click.option(
    "--nfe", default="3-10", show_default=True, metavar="RANGE", help="Numbers of denoiser calls to train for."
)
@teacher_option
@click.option(
    "--set", "settings", multiple=True, metavar="KEY=VALUE", help="Change a setting of the recipe; repeatable."
)
@click.option(
    "--recipe",
    is_flag=False,
    flag_value=SHOW,
    metavar="FILE.toml",
    help="Train by this recipe. What it doesn't set is as in the solver's own.",
)
@click.option("--show-recipe", is_flag=True, help="Show the recipe as TOML, which --recipe reads, and stop.")
@click.option("--tensorboard", is_flag=True, help="Also write TensorBoard logs of each training.")
@device_option
@out_option
@plugin_option
@config_option
@terminal.amount_options
@click.pass_obj
def train(
    draw: Callable[[Path], object],
    solvers: str,
    nfe: str,
    teacher: str,
    settings: tuple[str, ...],
    recipe: str | None,
    show_recipe: bool,
    tensorboard: bool,
    device: str,
    out: str,
) -> None:
    """Train learned solvers for each NFE.

    SOLVERS are specs joined with commas, such as gs,gas. `run` with the same --out uses the trained parameters. Each
    solver is trained from several seeds, and the parameters with the lowest validation error are kept. The same
    command resumes an interrupted training. Tables and curves of each training, and of all together, are written to
    DIR/trained. With --set warm_start=true each budget starts from the result of the one below.
    """
    terminal.loading()
    import torch

    from solverbench.cli.progress import training_display
    from solverbench.cli.zoo_listing import cost_line
    from solverbench.learned import recipes, trained_files
    from solverbench.learned.training import train as training
    from solverbench.method import spec
    from solverbench.sampling.devices import check_device
    from solverbench.store.folder import Store
    from solverbench.teachers.convergence import warning
    from solverbench.teachers.loading import load_teacher

    if recipe == SHOW:
        recipe, show_recipe = None, True
        terminal.tell("--recipe without a file shows the recipe; use --show-recipe, which replaces it")
    learned = [trained_files.learned(name) for name in spec.expand(solvers)]
    budgets = spec.numbers(nfe)
    network = load_teacher(teacher, check_device(device), out=out)
    chosen = [(solver, recipes.chosen(solver, network, settings, recipe)) for solver in learned]
    if show_recipe:
        for solver, settled in chosen:
            click.echo(f"# {trained_files.short(solver)} on {teacher}\n{settled.as_toml()}")
        return
    Store.open(out)
    torch.set_num_threads(1)  # more threads only slow down steps this small, several times on a busy machine
    pairs = training.Shared(network, Path(out))
    for solver, settled in chosen:
        _announce(network, settled, Path(out))
        current: list[training.Progress | None] = [None]
        done = training.train_range(
            solver, budgets, network, settled, out=Path(out), device=device, data=pairs,
            progress=lambda *told, current=current: current[0] and current[0](*told), tensorboard=tensorboard,
        )  # fmt: skip
        for calls in budgets:
            place = Path(out) / "trained" / network.name / trained_files.file_name(solver, calls)
            before = _before(place)
            with training_display(f"{solver.name} nfe={calls}", amount=terminal.amount()) as current[0]:
                found = next(done)
            trained = found.best
            errors = [run["validation"] for run in trained.record["runs"]]
            kept = f"; kept training seed {trained.record['seed']}" if len(errors) > 1 else ""
            name, shown = trained_files.short(solver), ", ".join(f"{error:.4f}" for error in errors)
            click.echo(f"{name} nfe={calls}: validation RMSE {shown}{kept}")
            click.echo(f"  cost: {cost_line(trained)}")
            for note in sorted({run["note"] for run in trained.record["runs"] if run.get("note")}):
                click.echo(f"  note: {note}")
            targets = trained.record["targets"]
            if line := warning(network.shown, network.sampler_nfe, targets.get("error")):
                click.echo(f"  note: {line}")
            if before is not None and before.identity != trained.identity:
                was = min((run["validation"] for run in before.record["runs"]), default=float("nan"))
                click.echo(f"  replaces other parameters, validation RMSE {was:.4f}")
            whole = len(found.folders) > len(errors) and calls == max(budgets)
            for folder in found.folders[: None if whole else len(errors)]:
                if any((folder / table).is_file() for table in TABLES) and not (folder / "curves.png").is_file():
                    draw(folder)
                    click.echo(f"  curves in {folder}")


def _before(place: Path) -> Trained | None:
    """Return the trained solver stored there before; None if it is missing, or unreadable and so retrained."""
    from solverbench.errors import RecordError
    from solverbench.learned import trained_files

    with suppress(RecordError):
        return trained_files.load(place) if place.is_file() else None
    return None


def _announce(network: Teacher, recipe: Recipe, out: Path) -> None:
    """Print how many of the teacher's images are made first, and the estimated time."""
    from solverbench.bench import estimates
    from solverbench.sampling import endpoints
    from solverbench.sampling.devices import worker_count
    from solverbench.sampling.sample import BATCH

    plan = endpoints.sampler_plan(network)
    absent = [endpoints.absent(network, plan, chosen, out, batch=BATCH) for chosen in (recipe.train, recipe.validation)]
    missing = sum(len(part) for parts in absent for part in parts.values())
    if missing:
        pace = estimates.probe(network, BATCH) * network.sampler_nfe / worker_count(network.device)
        terminal.tell(f"teacher's images: making {missing}, about {duration(missing * pace)}")
