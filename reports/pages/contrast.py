"""Colours of solvers on a dark page."""

import colorsys


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
