"""The colour and marker of a solver: the same in every figure, whatever else is drawn.

Colours are seaborn's colour-blind palette, and darker or lighter variants of it; members of a family share a hue.
"""

import colorsys
import zlib
from dataclasses import dataclass


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
    "ld3": Style("#8f1d4f", "<"),
    "s4s": Style("#a69a00", ">"),
    "s4s_alt": Style("#6b6300", ">"),
    "s4s_joint": Style("#c2b83c", ">"),
    "gs": Style("#de8f05", "p"),
    "gas": Style("#d55e00", "*"),
    "free": Style("#000000", "h"),
}
_COLOURS = ("#332288", "#44aa99", "#117733", "#aa4499", "#6699cc", "#661100", "#bb5566")
_MARKERS = ("o", "s", "^", "D", "v")


def style(solver: str, spec: str = "") -> Style:
    """Return the style for a solver's name as asked, else for its canonical name, else one derived from its letters."""
    for text in (solver, spec):
        if (name := text.split(":")[0]) in KNOWN:
            return KNOWN[name]
    number = zlib.crc32((spec or solver).split(":")[0].encode())
    return Style(_COLOURS[number % len(_COLOURS)], _MARKERS[number // len(_COLOURS) % len(_MARKERS)])


def on_dark(colour: str, back: str = "#16171a", least: float = 4.5) -> str:
    """Return the colour, lightened until its contrast with a dark background is at least `least` (WCAG 2)."""
    red, green, blue = (int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5))
    hue, light, saturation = colorsys.rgb_to_hls(red, green, blue)
    while contrast(colour, back) < least and light < 1:
        light = min(1.0, light + 0.02)
        rgb = colorsys.hls_to_rgb(hue, light, saturation)
        colour = "#" + "".join(f"{round(255 * part):02x}" for part in rgb)
    return colour


def contrast(one: str, other: str) -> float:
    """Return the contrast of two colours, 1 to 21.  Source: WCAG 2.2, relative luminance."""
    a, b = sorted((_luminance(one), _luminance(other)))
    return (b + 0.05) / (a + 0.05)


def _luminance(colour: str) -> float:
    parts = (int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5))
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue
