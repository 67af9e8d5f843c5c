"""The figures of a report, each with its data and the script that redraws it; large sets use every core.

Other processes run this module on shares of a bundle that they read themselves. They are not forked and import nothing
of the caller's, so a notebook or a script without a main guard can write a report, too.
"""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import pandas as pd

from solverbench.reports.bundle import Bundle, BundleError, load
from solverbench.reports.figures import base, costs, curves, grids, images, plans, redraw
from solverbench.reports.figures.base import Drawing
from solverbench.reports.figures.widths import Width
from solverbench.reports.parts import Part, parts, slug

Files = Iterator[tuple[str, bytes]]
_ALONE = 12
"""Number of figures below which one process is faster than starting others."""
_MOST = 8


def write(bundle: Bundle, found: Sequence[Part], wide: Width, *, processes: int | None = None) -> list[Path]:
    """Write every figure into the bundle's folder; return the files in the order of `gallery`.

    Args:
        processes: number of processes; if None, one per core up to 8, or a single one for few figures.
    Raises: BundleError with another process's message if it failed; OSError if the folder is not writable.
    """
    names = list(gallery(bundle, found, wide))
    if processes is None:
        processes = 1 if len(names) <= _ALONE else min(_cores(), _MOST)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path or os.getcwd() for path in sys.path)}
    command = [
        sys.executable,
        "-P",
        "-m",
        "solverbench.reports.figures.gallery",
        bundle.folder,
        str(wide.single),
        str(wide.double),
    ]
    others = [
        subprocess.Popen(
            [*map(str, command), str(share), str(processes)], env=environment,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, encoding="utf-8",
        )
        for share in range(1, processes)
    ]  # fmt: skip
    try:
        written = draw(bundle, found, wide, 0, processes)
        for other in others:
            told, complaint = other.communicate()
            if other.returncode:
                last = (complaint.strip().splitlines() or [f"exit code {other.returncode}"])[-1]
                raise BundleError(f"{bundle.folder}: its figures can't be drawn ({last}); draw the report again")
            written |= {name: files for name, *files in (line.split("\t") for line in told.splitlines())}
    finally:
        for other in others:
            other.kill()
            other.communicate()
    return [bundle.folder / file for name in names for file in written[name]]


def draw(bundle: Bundle, found: Sequence[Part], wide: Width, share: int, shares: int) -> dict[str, list[str]]:
    """Write the `share`-th of `shares` of the figures into the bundle's folder; return the files of each."""
    written: dict[str, list[str]] = {}
    for name, files in list(gallery(bundle, found, wide).items())[share::shares]:
        written[name] = []
        for file, content in files():
            put(bundle.folder / file, content)
            written[name].append(file)
    return written


def gallery(bundle: Bundle, found: Sequence[Part], wide: Width) -> dict[str, Callable[[], Files]]:
    """Return the function that makes each figure's files, by figure name; nothing is drawn before the call."""
    made: dict[str, Callable[[], Files]] = {}
    for part in found:
        made[f"figure-{part.name}"] = partial(_curves, f"figure-{part.name}", [part], wide)
    made["figure"] = partial(_curves, "figure", found, wide)
    for name, group in side_by_side(found):
        made[f"figure-{name}"] = partial(_grid, f"figure-{name}", group, wide)
    for name, across in (("training", "calls"), ("speed", "speed")):
        made[f"figure-{name}"] = partial(_costs, f"figure-{name}", found, across, wide)
    for teacher in dict.fromkeys(bundle.frame["teacher"]):
        made[f"levels-{slug(teacher)}"] = partial(_levels, bundle, found, teacher, wide)
        made[f"weights-{slug(teacher)}"] = partial(_weights, bundle, found, teacher, wide)
        for name in ("images", "differences"):
            made[f"{name}-{slug(teacher)}"] = partial(_images, bundle, teacher, name)
    return made


def side_by_side(found: Sequence[Part]) -> Iterator[tuple[str, list[Part]]]:
    """Yield the grids of more than one panel, which are drawn in addition to the figures of single parts."""
    for metric in dict.fromkeys(part.metric for part in found):
        group = [part for part in found if part.metric == metric]
        if len({part.teacher for part in group}) > 1:
            yield slug(f"teachers-{metric}"), group
    if len(errors := grids.trajectory(found)) > 1:
        yield "trajectory", errors


def put(path: Path, content: bytes) -> None:
    """Write `content` to `path` atomically."""
    part = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        part.write_bytes(content)
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def _curves(name: str, found: Sequence[Part], wide: Width) -> Files:
    shown = curves.shown(found, wide)
    return _drawn(name, curves.compose(found, wide), _rows(shown), redraw.curves, "nfe", "value")


def _grid(name: str, found: Sequence[Part], wide: Width) -> Files:
    return _drawn(name, grids.compose(found, wide), _rows(found), redraw.curves, "nfe", "value")


def _costs(name: str, found: Sequence[Part], across: str, wide: Width) -> Files:
    if (figure := costs.compose(found, across, wide)) is not None:
        yield from _drawn(name, figure, costs.drawn(found, across, wide), redraw.curves, across, "value")


def _levels(bundle: Bundle, found: Sequence[Part], teacher: str, wide: Width) -> Files:
    known = plans.of(bundle, found, teacher)
    if (figure := plans.levels(known, wide)) is not None:
        rows = plans.levels_drawn(known, teacher)
        yield from _drawn(f"levels-{slug(teacher)}", figure, rows, redraw.curves, "sigma", "row")


def _weights(bundle: Bundle, found: Sequence[Part], teacher: str, wide: Width) -> Files:
    known = plans.of(bundle, found, teacher)
    if (figure := plans.weights(known, wide)) is not None:
        yield from _drawn(f"weights-{slug(teacher)}", figure, plans.weights_drawn(known, teacher), redraw.heat)


def _images(bundle: Bundle, teacher: str, name: str) -> Files:
    grid = images.grid(bundle.frame, bundle.images, teacher)
    if grid is not None and name == "differences":
        grid = images.differences(grid)
    if grid is not None:
        yield from _drawn(f"{name}-{slug(teacher)}", images.draw(grid), images.drawn(grid), redraw.images, grid)


def _drawn(name: str, figure: Drawing, rows: pd.DataFrame, script: Callable[..., str], *details: object) -> Files:
    """Return a figure in every format, the CSV of its data, and the script that redraws it from that CSV."""
    for kind in base.FORMATS:
        yield f"{name}.{kind}", base.render(figure, kind)
    yield f"{name}.csv", rows.to_csv(index=False, lineterminator="\n").encode()
    yield f"{name}.py", script(figure, name, *details).encode()


def _rows(found: Sequence[Part]) -> pd.DataFrame:
    return pd.concat([curves.drawn(part) for part in found], ignore_index=True)


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _main(folder: str, single: str, double: str, share: str, shares: str) -> None:
    bundle = load(folder)
    found = parts(bundle.frame, bundle.record)
    for name, files in draw(bundle, found, Width(float(single), float(double)), int(share), int(shares)).items():
        print(name, *files, sep="\t")


if __name__ == "__main__":
    _main(*sys.argv[1:])
