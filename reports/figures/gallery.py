"""The figures of a report, each with its data and the script that redraws it; large sets use every core.

Other processes run this module on shares of a bundle that they read themselves. They are not forked and don't
import the caller's main module, so a notebook or a script without a main guard can write a report, too.
"""

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from solverbench.reports import files
from solverbench.reports.bundle import Bundle, BundleError, load
from solverbench.reports.drawing import base
from solverbench.reports.figures import contents, curves
from solverbench.reports.figures.contents import KINDS, Content, Source
from solverbench.reports.figures.fonts import small_subsets
from solverbench.reports.figures.widths import Width
from solverbench.reports.parts import Part, parts, slug

Contents = Mapping[str, Content]
STAMPS = "figures.json"
"""Name of the file, in a report's folder, with each figure's stamp and the digests of its files."""
_ALONE = 12
"""Number of figures below which one process is faster than starting others."""
_MOST = 8


def write(bundle: Bundle, found: Sequence[Part], wide: Width, *, processes: int | None = None) -> list[Path]:
    """Write the missing and outdated figures into the bundle's folder. Return all files, ordered as in `gallery`.

    The last one is figures.json.

    A figure is up to date if its files are unchanged and figures.json has its stamp: a digest of its data, images,
    constants and drawing code.

    Args:
        processes: number of processes; if None, one per core up to 8, or a single one for few figures.
    Raises: BundleError with another process's message if it failed; OSError if the folder is not writable.
    """
    made = {name: content for name, make in gallery(bundle, found, wide).items() if (content := make()) is not None}
    known = _stamps(bundle.folder)
    stamps = {name: content.stamp for name, content in made.items()}
    missing = [name for name in made if not _there(bundle.folder, name, known.get(name), stamps[name])]
    if missing:
        if processes is None:
            processes = 1 if len(missing) <= _ALONE else min(_cores(), _MOST)
        _draw_all(bundle, made, missing, wide, processes)
        files.put(bundle.folder / STAMPS, _record(bundle.folder, stamps).encode())
    return [*(bundle.folder / file for name in made for file in _files(name)), bundle.folder / STAMPS]


def _draw_all(bundle: Bundle, made: Contents, names: Sequence[str], wide: Width, processes: int) -> None:
    """Draw the figures of these names, shared out to this process and `processes` - 1 others."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path or os.getcwd() for path in sys.path)}
    command = [sys.executable, "-P", "-m", "solverbench.reports.figures.gallery", str(bundle.folder), str(wide.single),
               str(wide.double)]  # fmt: skip
    others = [
        subprocess.Popen(
            [*command, *names[share::processes]], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            text=True, encoding="utf-8",
        )
        for share in range(1, min(processes, len(names)))
    ]  # fmt: skip
    try:
        draw(bundle.folder, made, names[::processes])
        for other in others:
            _, complaint = other.communicate()
            if other.returncode:
                last = (complaint.strip().splitlines() or [f"exit code {other.returncode}"])[-1]
                raise BundleError(
                    asked=bundle.folder, wrong=f"its figures can't be drawn ({last})", remedy="draw the report again"
                )
    finally:
        for other in others:
            other.kill()
            other.communicate()


@small_subsets()
def draw(folder: Path, made: Contents, names: Sequence[str]) -> None:
    """Write the files of the figures of these names: a picture in every format, its data, and its script."""
    for name in names:
        figure = made[name].draw()
        for kind in base.FORMATS:
            files.put(folder / f"{name}.{kind}", base.render(figure, kind))
        files.put(folder / f"{name}.csv", made[name].csv)
        files.put(folder / f"{name}.py", made[name].script(name))


def gallery(bundle: Bundle, found: Sequence[Part], wide: Width) -> dict[str, Callable[[], Content | None]]:
    """Return the function that returns each figure's content, or None, by figure name."""
    made: dict[str, Callable[[], Content | None]] = {}
    for part in found:
        made[f"figure-{part.name}"] = partial(contents.curves, [part], wide)
    made["figure"] = partial(contents.curves, found, wide)
    for name, group in side_by_side(found):
        made[f"figure-{name}"] = partial(contents.grid, group, wide)
    source = Source(bundle, found, wide)
    whole = {each.file: each for each in KINDS.values() if each.file and not each.of_teacher and each.worth(source)}
    made |= {name: partial(kind.make, source) for name, kind in whole.items()}
    for teacher in dict.fromkeys(bundle.frame["teacher"]):
        one = replace(source, teacher=teacher)
        own = {f"{kind.file}-{slug(teacher)}": kind for kind in KINDS.values() if kind.of_teacher}
        made |= {name: partial(kind.make, one) for name, kind in own.items()}
    return made


def side_by_side(found: Sequence[Part]) -> Iterator[tuple[str, list[Part]]]:
    """Yield the grids of more than one panel, which are drawn in addition to the figures of single parts."""
    for metric in dict.fromkeys(part.metric for part in found):
        group = [part for part in found if part.metric == metric]
        if len({part.teacher for part in group}) > 1:
            yield slug(f"teachers-{metric}"), group
    if len(errors := curves.trajectory(found)) > 1:
        yield "trajectory", errors


def _files(name: str) -> list[str]:
    return [f"{name}.{kind}" for kind in (*base.FORMATS, "csv", "py")]


def _stamps(folder: Path) -> dict[str, Any]:
    """Return the content of figures.json; empty if it is missing or damaged, so that every figure is drawn again."""
    try:
        found = files.parsed(folder / STAMPS)
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _there(folder: Path, name: str, known: Any, stamp: str) -> bool:
    """Return whether the record of a figure has this stamp and its files have their digests."""
    if not isinstance(known, dict) or known.get("stamp") != stamp:
        return False
    digests = {file: _digest(folder / file) for file in _files(name)}
    return None not in digests.values() and known.get("files") == digests


def _record(folder: Path, stamps: Mapping[str, str]) -> str:
    digests = {name: {file: _digest(folder / file) for file in _files(name)} for name in stamps}
    found = {name: {"stamp": stamp, "files": digests[name]} for name, stamp in stamps.items()}
    return json.dumps(found, indent=1) + "\n"


def _digest(path: Path) -> str | None:
    """Return the sha256 of a file, None if it can't be read."""
    try:
        return hashlib.sha256(files.content(path)).hexdigest()
    except (OSError, ValueError):
        return None


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _main(folder: str, single: str, double: str, *names: str) -> None:
    bundle = load(folder)
    makers = gallery(bundle, parts(bundle.frame, bundle.record), Width(float(single), float(double)))
    draw(bundle.folder, {name: content for name in names if (content := makers[name]()) is not None}, names)


if __name__ == "__main__":
    _main(*sys.argv[1:])
