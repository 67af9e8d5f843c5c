"""Figures of one training, from the tables in its folder: its losses, and how its solver's parameters changed."""

import io
import math
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.ticker import MaxNLocator, NullFormatter

from solverbench.reports import files
from solverbench.reports.bundle import BundleError
from solverbench.reports.drawing.base import FORMATS, Drawing, render, settings
from solverbench.reports.drawing.palette import GREY, dress
from solverbench.reports.drawing.ticks import log_minor_ticks, log_ticks, tick_text
from solverbench.reports.figures.fonts import small_subsets
from solverbench.reports.figures.widths import DEFAULT
from solverbench.wording import one_line

HISTORY = ("iteration", "loss", "distance", "adversarial", "discriminator", "d_real", "d_fake", "r1", "r2", "gradient",
           "validation")  # fmt: skip
"""Columns of history.csv, a row per iteration; a cell is empty where the iteration has no such number."""
RANGE = ("nfe", "seed", "iteration", "validation")
"""Columns of range.csv, a row per validation."""
PATH = ("iteration", "name", "index", "value")
"""Columns of path.csv: entry `index` of the array `name`, which is "level", "told" or a parameter's name."""

_BLUE, _ORANGE, _RED, _GREEN = "#0173b2", "#de8f05", "#d55e00", "#029e73"
_HEIGHT, _TOP, _BELOW = 1.55, 0.26, 0.4  # inches: a panel, the space above and below it
_LEFT, _RIGHT = 0.46, 0.12  # inches: the space beside it
_SMOOTH = 40  # window of a running median: the run's length over this number


@small_subsets()
def training(folder: str | Path) -> list[Path]:
    """Draw a training's figures into its folder: curves.{png,pdf,svg} of history.csv, path.{...} of path.csv.

    path.csv is optional. In the folder of a range of trainings, curves.{...} is of range.csv. Return the paths of the
    figures.

    Raises: BundleError if history.csv is missing or damaged, path.csv is damaged, or the folder is not writable.
    """
    folder = Path(folder)
    if (folder / "range.csv").exists():
        drawn = {"curves": range_curves(_table(folder / "range.csv", RANGE, ()))}
    else:
        drawn = {"curves": curves(_table(folder / "history.csv", HISTORY, ()))}
    if (folder / "path.csv").exists():
        drawn["path"] = path(_table(folder / "path.csv", PATH, ("name",)))
    written = []
    for name, figure in drawn.items():
        for kind in FORMATS:
            written.append(folder / f"{name}.{kind}")
            _put(written[-1], render(figure, kind))
    return written


def curves(history: pd.DataFrame) -> Drawing:
    """Return the losses over the iterations, the discriminator's outputs if there was one, and the validation error."""
    adversarial = bool(history["d_real"].notna().any())
    with settings():
        figure, panels = _panels(3 if adversarial else 2, 3 if adversarial else 2)
        losses, *middle, validation = panels
        _losses(losses, history, adversarial)
        for axes in middle:
            _judgement(axes, history)
        _validation(validation, history)
        for axes in panels:
            _finish(axes, history["iteration"])
    return figure


def range_curves(measured: pd.DataFrame) -> Drawing:
    """Return the validation error over the iterations for each number of calls, a line for each training seed."""
    budgets = sorted(set(measured["nfe"]))
    with settings():
        figure, [axes] = _panels(1, 1)
        for i, nfe in enumerate(budgets):
            for number, (_, rows) in enumerate(measured[measured["nfe"] == nfe].groupby("seed")):
                label = f"NFE {nfe:.0f}" if number == 0 else None
                axes.plot(rows["iteration"], rows["validation"], color=_shade(i, len(budgets)), lw=1.0, label=label)
        _scale(axes, measured["validation"].to_list())
        _title(axes, "validation RMSE of each budget and training seed")
        _legend(axes)
        _finish(axes, measured["iteration"])
    return figure


def path(moved: pd.DataFrame) -> Drawing:
    """Return the noise levels over the iterations, and the solver's parameters, one panel per letter."""
    groups = dict[str, pd.DataFrame]()
    levels = moved[moved["name"].isin(["level", "told"])]
    rest = moved[~moved["name"].isin(["level", "told"])]
    stems = rest["name"].map(_stem)
    for stem in dict.fromkeys(stems):
        groups[str(stem)] = rest[stems == stem]
    count = len(groups) + (not levels.empty)
    with settings():
        figure, panels = _panels(count, min(3, count))
        if not levels.empty:
            _levels(panels[0], levels)
        for axes, (stem, rows) in zip(panels[count - len(groups) :], groups.items(), strict=True):
            _parameters(axes, stem, rows)
        for axes in panels:
            _finish(axes, moved["iteration"])
    return figure


def _panels(count: int, columns: int) -> tuple[Drawing, list[Axes]]:
    """Return a figure of two columns' width with `count` empty panels, row by row."""
    rows = -(-count // columns)
    height = rows * (_TOP + _HEIGHT + _BELOW)
    figure = Drawing(figsize=(DEFAULT.double, height), dpi=300)
    FigureCanvasAgg(figure)
    width = DEFAULT.double / columns
    panels = []
    for i in range(count):
        left, bottom = i % columns * width + _LEFT, height - (i // columns + 1) * (_TOP + _HEIGHT + _BELOW) + _BELOW
        box = (left / DEFAULT.double, bottom / height, (width - _LEFT - _RIGHT) / DEFAULT.double, _HEIGHT / height)
        panels.append(figure.add_axes(box, label=str(i)))
    return figure, panels


def _losses(axes: Axes, history: pd.DataFrame, adversarial: bool) -> None:
    """Draw the distance, and with a discriminator the whole loss and its adversarial part."""
    shown = {"distance": (_BLUE, "distance")}
    if adversarial:
        shown |= {"adversarial": (_ORANGE, "adversarial"), "loss": (GREY, "loss: their weighted sum")}
    numbers = []
    for column, (colour, label) in shown.items():
        rows = history[history[column].notna()]
        numbers += rows[column].to_list()
        axes.plot(rows["iteration"], rows[column], color=colour, lw=0.4, alpha=0.3, zorder=2)
        axes.plot(rows["iteration"], _smooth(rows[column]), color=colour, lw=1.1, zorder=3, label=label)
    _scale(axes, numbers)
    _title(axes, "training loss" if adversarial else "training loss: the distance to the teacher's images")
    if adversarial:
        _legend(axes)


def _judgement(axes: Axes, history: pd.DataFrame) -> None:
    rows = history[history["d_real"].notna() & history["d_fake"].notna()]
    gap = rows["d_real"] - rows["d_fake"]
    axes.axhline(0.0, color=GREY, lw=0.7, ls="--", zorder=1)
    axes.plot(rows["iteration"], gap, color=_RED, lw=0.4, alpha=0.3, zorder=2)
    axes.plot(rows["iteration"], _smooth(gap), color=_RED, lw=1.1, zorder=3)
    axes.yaxis.set_major_locator(MaxNLocator(5))
    _title(axes, "D(real) - D(fake): 0 where it can't tell")


def _validation(axes: Axes, history: pd.DataFrame) -> None:
    rows = history[history["validation"].notna()]
    axes.plot(
        rows["iteration"], rows["validation"], color=_GREEN, lw=1.0, marker="o", ms=2.4, mec="white", mew=0.3, zorder=3
    )
    _scale(axes, rows["validation"].to_list())
    if len(rows):
        best = float(rows["validation"].min())
        at = float(rows["iteration"][rows["validation"] == best].iloc[0])
        axes.annotate(
            f"{best:.4g}", (at, best), (0, 5), textcoords="offset points", ha="right", fontsize=6, color=_GREEN
        )
    _title(axes, "validation RMSE")


def _levels(axes: Axes, rows: pd.DataFrame) -> None:
    """Draw each state's level from first to last, and, dashed, the level passed to the network where it differs."""
    count = int(rows["index"].max()) + 1
    states = _series(rows[rows["name"] == "level"])
    told = _series(rows[rows["name"] == "told"])
    for (_, index), line in states.items():
        axes.plot(line.index, line, color=_shade(index, count), lw=1.0, zorder=3)
    decoupled = False
    for (_, index), line in told.items():
        own = states.get(("level", index))
        if own is None or not np.allclose(line, own.reindex(line.index), rtol=1e-9, atol=0.0, equal_nan=True):
            decoupled = True
            axes.plot(line.index, line, color=_shade(index, count), lw=0.9, ls=(0, (2, 1)), zorder=2)
    _scale(axes, rows["value"][rows["value"] > 0].to_list())  # a solver may end at level 0
    _title(axes, "noise levels" + (", dashed: told to the network" if decoupled else ""))


def _parameters(axes: Axes, stem: str, rows: pd.DataFrame) -> None:
    found = _series(rows)
    names = sorted({name for name, _ in found}, key=_natural)
    places = [(name, index) for name in names for _, index in sorted(key for key in found if key[0] == name)]
    axes.axhline(0.0, color=GREY, lw=0.5, ls=":", zorder=1)
    for i, place in enumerate(places):
        axes.plot(found[place].index, found[place], color=_shade(i, len(places)), lw=0.8, zorder=2)
    axes.yaxis.set_major_locator(MaxNLocator(5))
    several = f" ({names[0]} to {names[-1]})" if len(names) > 1 else ""
    _title(axes, f"{stem}{several}, {len(places)} number{'s' * (len(places) > 1)}")


def _series(rows: pd.DataFrame) -> dict[tuple[str, int], "pd.Series[float]"]:
    """Return the value of each (name, index) by iteration."""
    return {
        (str(name), int(float(str(index)))): one.sort_values("iteration").set_index("iteration")["value"]
        for (name, index), one in rows.groupby(["name", "index"], sort=True)
    }


def _shade(i: int, count: int) -> str:
    """Return the colour of line `i`: early ones dark, late ones light, none too light to be seen."""
    colour = matplotlib.colormaps["viridis"](0.88 * i / max(count - 1, 1))
    return matplotlib.colors.to_hex(colour)


def _scale(axes: Axes, values: Sequence[float]) -> None:
    """Use a logarithmic axis over the positive values, or a linear one if few or none are positive."""
    positive = [value for value in values if math.isfinite(value) and value > 0]
    known = [value for value in values if math.isfinite(value)]
    if len(positive) < 0.9 * len(known) or not positive:
        axes.yaxis.set_major_locator(MaxNLocator(5))
        return
    low, high = math.log10(min(positive)), math.log10(max(positive))
    margin = max(0.06 * (high - low), 0.03)
    low, high = 10 ** (low - margin), 10 ** (high + margin)
    axes.set_yscale("log")
    axes.set_ylim(low, high)
    axes.set_yticks(marks := log_ticks(low, high), [tick_text(mark) for mark in marks])
    axes.set_yticks(log_minor_ticks(low, high), minor=True)
    axes.yaxis.set_minor_formatter(NullFormatter())


def _smooth(values: "pd.Series[float]") -> "pd.Series[float]":
    """Return a running median."""
    return values.rolling(max(1, len(values) // _SMOOTH), center=True, min_periods=1).median()


def _finish(axes: Axes, iterations: "pd.Series[float]") -> None:
    first, last = float(iterations.min()), float(iterations.max())
    margin = 0.02 * (last - first) or 0.5
    axes.set_xlim(first - margin, last + margin)
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.set_xlabel("iteration", fontsize=6.5, labelpad=2)
    dress(axes)


def _title(axes: Axes, text: str) -> None:
    axes.set_title(text, fontsize=6.5, loc="left", pad=4)


def _legend(axes: Axes) -> None:
    axes.legend(frameon=False, fontsize=5.5, handlelength=1.4, borderpad=0.1, labelspacing=0.25, loc="best")


def _stem(name: str) -> str:
    """Return the letter of a parameter's name: "c" for c1, c2, …"""
    return re.sub(r"\d+$", "", str(name)) or str(name)


def _natural(name: str) -> tuple[str, int]:
    digits = re.search(r"\d+$", name)
    return _stem(name), int(digits[0]) if digits else 0


def _table(path: Path, columns: Sequence[str], words: Sequence[str]) -> pd.DataFrame:
    """Return a CSV file with these columns, as numbers except for `words`."""
    try:
        frame = pd.read_csv(io.BytesIO(files.content(path)), dtype=str, keep_default_na=False, encoding="utf-8")
    except FileNotFoundError:
        raise BundleError(
            asked=path, wrong="it is not there, so nothing was trained here", remedy="name the folder of a run"
        ) from None
    except (OSError, ValueError) as error:
        raise BundleError(
            asked=path, wrong=f"it cannot be read as CSV ({one_line(error)})", remedy="train again"
        ) from error
    missing = [column for column in columns if column not in frame.columns]
    if missing or frame.empty:
        what = f"columns {', '.join(missing)} are not there" if missing else "it has no rows"
        raise BundleError(asked=path, wrong=what, remedy="train again")
    for column in columns:
        if column not in words:
            frame[column] = list(_numbers(frame[column], f"{path}: row {{}}, {column}"))
    for column in {"iteration", "index"} & set(columns):
        if not np.isfinite(frame[column]).all():
            raise BundleError(asked=path, wrong=f"a row has no {column}", remedy="train again")
    return frame


def _numbers(texts: "pd.Series[str]", where: str) -> Iterator[float]:
    for i, text in enumerate(texts):
        try:
            yield float(text) if text.strip() else math.nan
        except ValueError:
            raise BundleError(
                asked=where.format(i + 1), wrong=f"{text!r} is not a number", remedy="train again"
            ) from None


def _put(path: Path, content: bytes) -> None:
    try:
        files.put(path, content)
    except OSError as error:
        raise BundleError(
            asked=path, wrong=f"it cannot be written ({error})", remedy="free or unlock the folder"
        ) from error
