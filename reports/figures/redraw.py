"""The script that redraws a figure from its CSV, with pandas and matplotlib alone.

Numbers come from the CSV. The places of panels, labels and ticks and the style of each solver are taken from the
figure and written into the script, where a user can change them.
"""

from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.text import Annotation

from solverbench.reports.figures.images import FAR, Grid, arrangement
from solverbench.reports.figures.plans import FULL

_WEB = Path(__file__).parents[1] / "web"


def curves(figure: Figure, name: str, x: str, y: str) -> str:
    """Return the script of a figure whose panels hold lines or points.

    Args:
        name: the name of the figure's files, without their ending.
        x, y: the columns that are drawn.
    """
    layout = _layout(figure) | {"panels": [_panel(axes) for axes in figure.axes]}
    return _filled("redraw_curves.py.txt", name, {"X": x, "Y": y, "LAYOUT": layout})


def heat(figure: Figure, name: str) -> str:
    """Return the script of a figure of heat maps; the last of its axes is the colour bar."""
    kept = ("panel", "box", "xlim", "ylim", "xticks", "yticks", "title", "notes")
    panels = [{key: value for key, value in _panel(axes).items() if key in kept} for axes in figure.axes]
    layout = _layout(figure) | {"panels": panels[:-1], "scale": panels[-1]}
    return _filled("redraw_heat.py.txt", name, {"FULL": FULL, "LAYOUT": layout})


def images(figure: Figure, name: str, grid: Grid) -> str:
    """Return the script of a grid of images from images.npz, or of differences if the grid has a note."""
    layout = _layout(figure) | {"far": FAR if grid.note else 0, **arrangement(grid)}
    return _filled("redraw_images.py.txt", name, {"LAYOUT": layout})


def _filled(template: str, name: str, constants: dict[str, Any]) -> str:
    """Return the template with its constants filled in; any string becomes a valid Python literal."""
    text = (_WEB / template).read_text(encoding="utf-8").replace("NAME_OF_FIGURE", name)
    for key, value in constants.items():
        text = text.replace(f"\n{key} = ...\n", f"\n{key} = {_literal(value)}\n", 1)
    return text


def _literal(value: Any, indent: int = 1) -> str:
    """Return a Python literal of the value, in lines of at most 118 characters if possible."""
    if not isinstance(value, dict | list | tuple):
        return repr(value)
    first, last = ("{", "}") if isinstance(value, dict) else ("[", "]") if isinstance(value, list) else ("(", ")")
    if isinstance(value, dict):
        pieces = [f"{key!r}: {_literal(entry, indent + 1)}" for key, entry in value.items()]
    else:
        pieces = [_literal(entry, indent + 1) for entry in value]
    lines = [""]
    for piece in pieces:
        fits = len(lines[-1]) + len(piece) + indent < 116 and "\n" not in piece + lines[-1]
        if lines[-1] and not fits:
            lines.append("")
        lines[-1] += (" " if lines[-1] else "") + piece + ","
    inner = ("\n" + " " * indent).join(lines)
    return first + (inner if len(pieces) == 1 and isinstance(value, tuple) else inner.removesuffix(",")) + last


def _layout(figure: Figure) -> dict[str, Any]:
    """Return the figure's size, texts, leader lines and legends."""
    width, height = (float(side) for side in figure.get_size_inches())
    return {
        "size": (width, height), "dpi": float(figure.dpi), "texts": [_text(text) for text in figure.texts],
        "leaders": [{"x": _floats(line.get_xdata()), "y": _floats(line.get_ydata()), **_look(line)}
                    for line in (*figure.lines, *figure.artists) if isinstance(line, Line2D)],
        "legend": [_legend(figure, legend) for legend in figure.legends],
    }  # fmt: skip


def _legend(figure: Figure, legend: Any) -> dict[str, Any]:
    anchor = legend.get_bbox_to_anchor().transformed(figure.transFigure.inverted())
    return {
        "entries": [{"label": text.get_text(), **_look(line)}
                    for line, text in zip(legend.legend_handles, legend.get_texts(), strict=True)],
        "loc": legend._loc, "ncols": legend._ncols, "bbox_to_anchor": (float(anchor.x0), float(anchor.y0)),
        "fontsize": float(legend.prop.get_size_in_points()), "handletextpad": float(legend.handletextpad),
        "columnspacing": float(legend.columnspacing), "borderpad": float(legend.borderpad),
        "labelspacing": float(legend.labelspacing),
    }  # fmt: skip


def _panel(axes: Axes) -> dict[str, Any]:
    xticks = (_floats(axes.get_xticks()), [text.get_text() for text in axes.get_xticklabels()])
    yticks = (_floats(axes.get_yticks()), [text.get_text() for text in axes.get_yticklabels()])
    series, hollow = dict[str, dict[str, Any]](), list[dict[str, Any]]()
    faint: dict[str, Any] | None = None
    for line in axes.lines:
        label = str(line.get_label())
        if label == "_published":
            hollow.append({"x": _floats(line.get_xdata()), "y": _floats(line.get_ydata()), **_look(line)})
        elif label == "_front" or not label.startswith("_"):
            alone = axes.get_xscale() == "linear" and len(xticks[0]) == 1
            dodge = _floats(line.get_xdata())[0] - xticks[0][0] if alone else 0.0
            series[label] = {**_look(line), "zorder": float(line.get_zorder()), "dodge": dodge, "faint": faint}
            faint = None
        elif line.get_alpha() is not None:
            faint = {**_look(line), "alpha": float(line.get_alpha() or 1.0)}
    return {
        "panel": str(axes.get_label()), "box": _floats(axes.get_position().bounds), "xlim": _floats(axes.get_xlim()),
        "ylim": _floats(axes.get_ylim()), "scales": (axes.get_xscale(), axes.get_yscale()), "xticks": xticks,
        "yticks": yticks, "minor": (_floats(axes.get_xticks(minor=True)), _floats(axes.get_yticks(minor=True))),
        "title": axes.get_title(loc="left") or axes.get_title(), "pad": _pad(axes), "xlabel": axes.get_xlabel(),
        "labelpad": float(axes.xaxis.labelpad), "ylabel": axes.get_ylabel(),
        "ylabel_at": _floats(axes.yaxis.label.get_position()),
        "notes": [text.get_text() for text in axes.texts if not isinstance(text, Annotation)],
        "numbered": sorted({text.get_text() for text in axes.texts if isinstance(text, Annotation)}),
        "series": series, "published": hollow,
    }  # fmt: skip


def _pad(axes: Axes) -> float:
    """Return the distance between the axes and their title in points."""
    return float(axes.titleOffsetTrans.get_matrix()[1, 2]) * 72 / float(axes.figure.dpi)  # type: ignore[attr-defined]


def _look(line: Line2D) -> dict[str, Any]:
    """Return a line's colour, dashes, marker and sizes as matplotlib keyword arguments."""
    style, dash = line.get_linestyle(), line._unscaled_dash_pattern  # type: ignore[attr-defined]
    return {
        "color": _colour(line.get_color()), "ls": _plain_style(style, dash), "lw": float(line.get_linewidth()),
        "marker": "" if line.get_marker() in (None, "None", "none", " ") else line.get_marker(),
        "ms": float(line.get_markersize()), "mfc": _colour(line.get_markerfacecolor()),
        "mec": _colour(line.get_markeredgecolor()), "mew": float(line.get_markeredgewidth()),
    }  # fmt: skip


def _plain_style(style: Any, dash: tuple[float, Any]) -> Any:
    if style in ("None", "none", " ", ""):
        return ""
    return "-" if dash[1] is None else (float(dash[0]), _floats(dash[1]))


def _floats(values: Any) -> list[float]:
    return [float(value) for value in values]


def _colour(colour: Any) -> str:
    return "none" if isinstance(colour, str) and colour.lower() == "none" else matplotlib.colors.to_hex(colour)


def _text(text: Any) -> dict[str, Any]:
    x, y = text.get_position()
    spacing = text._linespacing
    return {
        "x": float(x), "y": float(y), "s": text.get_text(), "fontsize": float(text.get_fontsize()),
        "ha": text.get_ha(), "va": text.get_va(), "color": _colour(text.get_color()), "style": text.get_style(),
        "weight": text.get_weight(), **({} if isinstance(spacing, str) else {"linespacing": float(spacing)}),
    }  # fmt: skip
