"""The content of each figure of a report: the rows of its CSV, and its constants, which its script contains, too."""

import hashlib
import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import numpy as np
import pandas as pd

from solverbench.reports import files
from solverbench.reports.bundle import Bundle, unmarked
from solverbench.reports.drawing.base import Drawing
from solverbench.reports.figures import costs as spending
from solverbench.reports.figures import curves as points
from solverbench.reports.figures import images as samples
from solverbench.reports.figures import plans, scripts
from solverbench.reports.figures.widths import DEFAULT, Width
from solverbench.reports.parts import Part
from solverbench.wording import csv_text

_LIBRARIES = ("matplotlib", "numpy", "pandas", "pillow", "seaborn")


@dataclass(frozen=True)
class Content:
    """All that a figure is drawn from.

    `kind` is the module of `solverbench.reports.drawing` that draws it, `data` the rows of its CSV, `figure` its
    constants, `stored` the batches of images that it shows.
    """

    kind: str
    data: pd.DataFrame
    figure: Mapping[str, Any]
    stored: Mapping[str, np.ndarray] | None = None

    def draw(self) -> Drawing:
        """Return the figure."""
        module = importlib.import_module(f"solverbench.reports.drawing.{self.kind}")
        more = () if self.stored is None else (self.stored,)
        drawing: Drawing = module.draw(self.data, self.figure, *more)
        return drawing

    @cached_property
    def csv(self) -> bytes:
        """The rows as a CSV file."""
        return self.data.map(csv_text).to_csv(index=False, lineterminator="\n").encode()

    def script(self, name: str) -> bytes:
        """Return the script that draws the figure again from NAME.csv, and from images.npz if it shows images."""
        return scripts.script(self.kind, name, self.figure).encode()

    @property
    def stamp(self) -> str:
        """A digest of everything that a picture depends on: data, images, constants, drawing code and libraries."""
        found = hashlib.sha256(self.csv + b"\0" + self.script(""))
        for library in _LIBRARIES:
            found.update(f"{library} {files.release(library)}\0".encode())
        for key, batch in (self.stored or {}).items():
            found.update(f"{key} {batch.shape}\0".encode() + batch.tobytes())
        return found.hexdigest()


@dataclass(frozen=True)
class Source:
    """The inputs of a figure.

    Args:
        bundle: the bundle; None for a frame alone.
        parts: the parts to show.
        wide: the column widths.
        teacher: the teacher of a figure of one teacher.
        nfe: the budget of a figure of one budget; chosen by the figure if None.
    """

    bundle: Bundle | None
    parts: Sequence[Part]
    wide: Width = DEFAULT
    teacher: str = ""
    nfe: int | None = None

    @cached_property
    def plans(self) -> list[plans.Plan]:
        """The plans of the teacher's cells."""
        assert self.bundle is not None
        return plans.of(self.bundle, self.parts, self.teacher)


@dataclass(frozen=True)
class Kind:
    """One kind of figure, as `sb.plot(kind=...)` names it.

    Args:
        make: returns the content; None if there is nothing to draw.
        file: its file's name without the ending, followed by the teacher's if it shows one; empty if the report's files
            of this kind are named by their parts.
        of_teacher: whether it shows one teacher, and needs a bundle.
        section: heading, alternative text and explanation of its section of report.md; None if `pages.sections` has a
            section for it.
        lacking: what is wrong with results from which nothing can be drawn.
        worth: whether a report of these results has it, too; otherwise only `sb.plot` draws it.
    """

    make: Callable[[Source], Content | None]
    file: str = ""
    of_teacher: bool = False
    section: tuple[str, str, str] | None = None
    lacking: str = "the results hold no data for it"
    worth: Callable[[Source], bool] = lambda source: True


def curves(found: Sequence[Part], wide: Width = DEFAULT) -> Content:
    """Return the content of a figure of these parts: a column per metric that fits, a row per teacher and part."""
    return _panels("curves", points.shown(found, wide), wide)


def grid(found: Sequence[Part], wide: Width = DEFAULT) -> Content:
    """Return the content of a grid with a panel per part and one legend."""
    return _panels("grids", found, wide)


def costs(found: Sequence[Part], across: str = "calls", wide: Width = DEFAULT) -> Content | None:
    """Return the content of a figure of quality against cost; None if no cell's cost is known.

    Args:
        across: the x axis: calls (of training), speed (images per second), serial (calls) or latency.
    """
    spent = spending.across_axis(found, across)
    fitting = points.shown(spending.valued(found, spent), wide)
    data = spending.drawn(fitting, across) if fitting and not spent.empty else pd.DataFrame()
    return None if data.empty else Content("costs", data, _constants(fitting, wide) | {"across": across})


def levels(known: Sequence[plans.Plan], wide: Width = DEFAULT) -> Content | None:
    """Return the content of the figure of one teacher's noise levels; None without plans."""
    if not known:
        return None
    specs = dict(known[0].part.everyone)
    names = [unmarked(label) for label in dict.fromkeys(plan.label for plan in known)]
    figure = {"width": (wide.single, wide.double), "rows": names, "specs": specs}
    return Content("levels", plans.levels_drawn(known, known[0].part.teacher), figure)


def weights(known: Sequence[plans.Plan], wide: Width = DEFAULT, nfe: int | None = None) -> Content | None:
    """Return the content of the heat maps of one teacher's weights; None if no plan of the budget can be drawn."""
    data = plans.weights_drawn(known, known[0].part.teacher, nfe) if known else pd.DataFrame()
    return None if data.empty else Content("weights", data, {"width": (wide.single, wide.double)})


def images(bundle: Bundle, teacher: str, *, differences: bool = False) -> Content | None:
    """Return the content of a teacher's grid of images, or of differences from its own; None without those."""
    layout = samples.grid(bundle.frame, bundle.images, teacher)
    if layout is None or (differences and not layout.taught):
        return None
    figure = {"rows": list(layout.rows), "columns": list(layout.columns), "taught": layout.taught,
              "differences": differences}  # fmt: skip
    stored = {key: bundle.images[key] for key in layout.keys.values()}
    return Content("images", samples.drawn(layout), figure, stored)


def _trajectory(source: Source) -> Content | None:
    errors = points.trajectory(source.parts)
    return grid(errors, source.wide) if errors else None


def _images(source: Source, *, differences: bool) -> Content | None:
    assert source.bundle is not None
    return images(source.bundle, source.teacher, differences=differences)


def _panels(kind: str, found: Sequence[Part], wide: Width) -> Content:
    data = pd.concat([points.drawn(part) for part in found], ignore_index=True)
    return Content(kind, data, _constants(found, wide))


def _constants(found: Sequence[Part], wide: Width) -> dict[str, Any]:
    options = list(dict.fromkeys(name for part in found for name in points.columns(part)))
    varied = {"options": options} if options else {}
    return {"width": (wide.single, wide.double), "panels": {part.name: _facts(part) for part in found}, **varied}


def _facts(part: Part) -> dict[str, Any]:
    """Return the fields of a `drawing.panel.Panel` besides its name and rows."""
    learned = part.frame.loc[part.frame["learned"].astype(bool), "label"]
    return {
        "teacher": part.teacher, "metric": part.metric, "number": part.number, "label": part.label, "images": part.n,
        "count": part.count, "log": part.log, "specs": dict(part.specs), "learned": list(dict.fromkeys(learned)),
        "short": part.short, **_titled(part), **_everyone(part),
    }  # fmt: skip


def _everyone(part: Part) -> dict[str, Any]:
    """Return the specs of the whole run if the part has only some of its solvers."""
    return {"everyone": dict(part.everyone)} if dict(part.everyone) != part.specs else {}


def _titled(part: Part) -> dict[str, str]:
    """Return the teacher as text if it differs from its name; lines don't break between an option and its value."""
    text = part.title.replace(" ", "\u00a0").replace(",\u00a0", ", ")
    return {"title": text} if part.title != part.teacher else {}


KINDS = {
    "nfe": Kind(lambda source: curves(source.parts, source.wide)),
    "grid": Kind(lambda source: grid(source.parts, source.wide)),
    "training": Kind(
        lambda source: costs(source.parts, "calls", source.wide),
        file="figure-training", lacking="the results hold no cost of training",
    ),
    "speed": Kind(
        lambda source: costs(source.parts, "speed", source.wide),
        file="figure-speed", lacking="the results hold no images per second",
        section=(
            "Speed", "Images per second and quality",
            "On the machine and at the batch of the run; dotted: cells that no other one beats in both.",
        ),
    ),
    "serial": Kind(
        lambda source: costs(source.parts, "serial", source.wide),
        file="figure-serial", lacking="no solver in the results has fewer serial calls than calls",
        section=(
            "Serial calls", "Serial calls and quality",
            "Calls that must wait for one another, in place of all calls: a machine with room for the others runs them "
            "side by side.",
        ),
    ),
    "latency": Kind(
        lambda source: costs(source.parts, "latency", source.wide),
        file="figure-latency", lacking="the results hold no time of the network's calls",
        section=(
            "Latency", "Milliseconds per image and quality",
            "Serial calls times the measured time of a call: calls that needn't wait for one another are taken to run "
            "side by side.",
        ),
        worth=lambda source: spending.tells_more(source.parts),
    ),
    "trajectory": Kind(_trajectory, lacking="the results hold no error to a trajectory's end"),
    "levels": Kind(lambda source: levels(source.plans, source.wide), file="levels", of_teacher=True),
    "weights": Kind(lambda source: weights(source.plans, source.wide, source.nfe), file="weights", of_teacher=True),
    "images": Kind(partial(_images, differences=False), file="images", of_teacher=True),
    "differences": Kind(partial(_images, differences=True), file="differences", of_teacher=True),
}  # fmt: skip
"""All kinds of figures. A new one is a row here and, if no module of `drawing` draws it, one more module there."""
