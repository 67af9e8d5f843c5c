"""The look of figures, and the colour and marker of a solver: the same in each, whatever else is drawn.

Colours are seaborn's colour-blind palette, and darker or lighter variants of it; members of a family share a hue.
A plugin's solver has colours and markers of its own, which no built-in solver has.
"""

import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from matplotlib.axes import Axes

GREY = "#4d4d4d"
SMALL = 6.0  # points: labels and ticks
_SIZES = {
    "*": 5.6,
    "X": 4.2,
    "P": 4.2,
    "p": 3.8,
    "h": 3.8,
    "D": 2.9,
    "star4": 5.6,
    "star6": 5.2,
    "hourglass": 4.4,
    "bowtie": 4.4,
}  # points; other markers 3.2


@dataclass(frozen=True)
class Style:
    """The colour and marker of one solver."""

    colour: str
    marker: str


KNOWN = {
    "euler": Style("#949494", "o"),
    "ddim": Style("#5c5c5c", "o"),
    "heun": Style("#ca9161", "^"),
    "dpm2": Style("#7d5130", "v"),
    "dpm": Style("#0173b2", "s"),
    "unipc": Style("#029e73", "D"),
    "deis": Style("#56b4e9", "P"),
    "ipndm": Style("#cc78bc", "X"),
    "ipndm_v": Style("#7f4b9c", "X"),
    "adams": Style("#3b4a9c", "s"),
    "heunpp2": Style("#a9812f", "^"),
    "exprk": Style("#2f7f86", "^"),
    "cab": Style("#b0559e", "P"),
    "ge": Style("#c98fb3", "D"),
    "pfdiff": Style("#8a8a5c", "v"),
    "ld3": Style("#8f1d4f", "<"),
    "s4s": Style("#a69a00", ">"),
    "s4s_alt": Style("#6b6300", ">"),
    "s4s_joint": Style("#c2b83c", ">"),
    "gs": Style("#de8f05", "p"),
    "gas": Style("#d55e00", "*"),
    "dyweight": Style("#b5651d", "p"),
    "epd": Style("#117a65", "d"),
    "bns": Style("#555555", "h"),
    "dpmv3": Style("#0b3d66", "s"),
    "free": Style("#000000", "h"),
}
PLUGIN_COLOURS = ("#332288", "#661100", "#66aa22", "#ee3388", "#bb77ee", "#333300", "#ff5555")
PLUGIN_MARKERS = ("star4", "star6", "hourglass", "bowtie")
"""Colours and markers of solvers that aren't in `KNOWN`; their specs take the markers in turn."""
_SHAPES: dict[str, Any] = {
    "hourglass": ((-1, -1), (1, -1), (-1, 1), (1, 1), (-1, -1)),
    "bowtie": ((-1, -1), (-1, 1), (1, -1), (1, 1), (-1, -1)),
    "star4": (4, 1, 0), "star6": (6, 1, 0),
}  # fmt: skip


def style(solver: str, spec: str = "") -> Style:
    """Return the style for a solver's name as asked, else for its canonical name, else one derived from its letters."""
    for text in (solver, spec):
        if (name := text.split(":")[0]) in KNOWN:
            return KNOWN[name]
    number = zlib.crc32((spec or solver).split(":")[0].encode())
    colours, markers = PLUGIN_COLOURS, PLUGIN_MARKERS
    return Style(colours[number % len(colours)], markers[number // len(colours) % len(markers)])


BOUND = "free"
"""Name of the solver whose results estimate a bound for all others."""
_DASHES = ("-", (0, (4, 1.5)), (0, (1, 1)), (0, (5, 1, 1, 1)))  # variants of one solver


def bounds(specs: Mapping[str, str]) -> list[str]:
    """Return the labels that represent the bound."""
    return [label for label, spec in specs.items() if spec.partition(":")[0] == BOUND]


def shown_label(specs: Mapping[str, str], label: str) -> str:
    """Return a label as shown in figures; the bound is marked as such."""
    return f"{label} (bound)" if label in bounds(specs) else label


def variant_of(specs: Mapping[str, str], label: str) -> int:
    """Return the index, from 0, of a label among those with its style, such as the specs of one solver."""
    looks = {other: style(other, spec) for other, spec in specs.items()}
    return [other for other in specs if looks[other] == looks[label]].index(label)


def look_of(specs: Mapping[str, str], label: str) -> tuple[str, str, str | tuple[int, tuple[float, ...]], str]:
    """Return colour, marker, dash and fill: the first two identify the solver, the others its variants.

    Variants of a plugin's solver differ in their markers, too. A solver that represents a bound is dashed.

    Args:
        specs: the spec of every label in the panel, in their order.
    """
    look, variant = style(label, specs[label]), variant_of(specs, label)
    dash = _DASHES[(variant + (label in bounds(specs))) % len(_DASHES)]
    if look.marker not in PLUGIN_MARKERS:
        return look.colour, look.marker, dash, look.colour if variant % 2 == 0 else "white"
    turn = PLUGIN_MARKERS.index(look.marker) + variant
    filled = variant // len(PLUGIN_MARKERS) % 2 == 0
    return look.colour, PLUGIN_MARKERS[turn % len(PLUGIN_MARKERS)], dash, look.colour if filled else "white"


def shape(marker: str) -> Any:
    """Return a marker as matplotlib takes it."""
    return _SHAPES.get(marker, marker)


def size_of(marker: str) -> float:
    """Return the size in points at which a marker looks as large as the others."""
    return _SIZES.get(marker, 3.2)


def dress(axes: Axes) -> None:
    """Give the axes the common look: two thin spines, small ticks, a light grid."""
    axes.tick_params(which="minor", length=1.5, width=0.4)
    axes.tick_params(labelsize=SMALL, length=2.5, width=0.6, pad=2)
    axes.grid(axis="y", color="#e6e6e6", lw=0.5, zorder=0)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_linewidth(0.6)
