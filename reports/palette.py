"""The colour and marker of a solver: the same in every figure, whatever else is drawn.

Colours are seaborn's colour-blind palette and darker or lighter mates of it; family members share a hue.
"""

import zlib
from dataclasses import dataclass


@dataclass(frozen=True)
class Style:
    """How one solver is drawn."""

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
    "ld3": Style("#8f1d4f", "<"),
    "s4s": Style("#a69a00", ">"),
    "gs": Style("#de8f05", "p"),
    "gas": Style("#d55e00", "*"),
    "free": Style("#000000", "h"),
}
_COLOURS = ("#332288", "#44aa99", "#117733", "#aa4499", "#6699cc", "#661100", "#bb5566")
_MARKERS = ("o", "s", "^", "D", "v")


def style(solver: str, spec: str = "") -> Style:
    """The style of a solver by its name as asked, else by its canonical spec's name, else one that its letters fix."""
    for text in (solver, spec):
        if (name := text.split(":")[0]) in KNOWN:
            return KNOWN[name]
    number = zlib.crc32((spec or solver).split(":")[0].encode())
    return Style(_COLOURS[number % len(_COLOURS)], _MARKERS[number // len(_COLOURS) % len(_MARKERS)])
