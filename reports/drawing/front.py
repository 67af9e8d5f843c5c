"""The front of a recommendation as SVG: the error against calls of all candidates, of the picks and the defaults."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape

from solverbench.reports.drawing.ticks import linear_ticks, log_ticks, spread, tick_text

_HEIGHT, _TOP, _BOTTOM, _LEFT = 380, 14, 44, 58
_LETTER, _LINE = 6.9, 16  # pixels: width of a letter of a label, its height
REACH = 4
"""Candidates whose error is so many times the largest marked one lie on the upper edge."""
_SHAPES = {"pick": "circle", "euler": "square", "own": "diamond"}


@dataclass(frozen=True)
class Dot:
    """One value: number of calls, error and its interval (NaN where it isn't known), and what the tooltip says."""

    nfe: int
    value: float
    low: float
    high: float
    said: str


@dataclass(frozen=True)
class Series:
    """A line with a label: the picks, or a default.

    Args:
        name: CSS class: pick, euler or own.
        label: direct label.
        dots: its values, by calls.
        line: the dots that the line joins; all if None.
    """

    name: str
    label: str
    dots: Sequence[Dot]
    line: Sequence[Dot] | None = None


def svg(candidates: Sequence[Dot], series: Sequence[Series], title: str, width: int) -> str:
    """Return the figure as an SVG element `width` pixels wide, whose colours are the page's.

    Args:
        candidates: the values of the race, drawn lightly.
        title: label of the vertical axis, and the figure's name for screen readers.
    """
    named = [each for each in series if each.dots]
    dots = [dot for dot in [*candidates, *(dot for each in named for dot in each.dots)] if dot.value > 0]
    labelled = width >= 560
    most = max((len(each.label) for each in named), default=0)
    right = width - (26 + _LETTER * most if labelled else 14)
    budgets = sorted({dot.nfe for dot in dots})
    marked = [end for each in named for dot in each.dots for end in (dot.value, dot.low, dot.high)]
    top = REACH * max((end for end in marked if math.isfinite(end)), default=math.inf)
    place = _Place(budgets, [*marked, *(dot.value for dot in candidates if dot.value <= top)], right)
    parts = [*_axes(place, title, width, right)]
    parts += [_light(dot, place, k) for k, dot in enumerate(candidates) if dot.value > 0]
    for each in reversed(named):  # the picks last, on top
        parts += _series(each, place)
    parts += _labels(named, place, right) if labelled else _legend(named)
    kind = "wide" if labelled else "narrow"
    return (
        f'<svg class="{kind}" viewBox="0 0 {width} {_HEIGHT + (0 if labelled else 20 * len(named))}" role="img" '
        f'aria-label="{escape(title)} against denoiser calls">' + "".join(parts) + "</svg>"
    )


class _Place:
    """The places of calls and values, in pixels; values on a logarithmic axis."""

    def __init__(self, budgets: Sequence[int], values: Sequence[float], right: float) -> None:
        self.budgets, self.right = budgets, right
        known = [value for value in values if math.isfinite(value) and value > 0] or [0.1, 1.0]
        room = 1.12
        self.low, self.high = min(known) / room, max(known) * room

    def x(self, nfe: float) -> float:
        if len(self.budgets) == 1:
            return (_LEFT + self.right) / 2
        first, last = self.budgets[0], self.budgets[-1]
        return _LEFT + 24 + (nfe - first) / (last - first) * (self.right - _LEFT - 48)

    def y(self, value: float) -> float:
        share = math.log(min(max(value, self.low), self.high) / self.low) / math.log(self.high / self.low)
        return _HEIGHT - _BOTTOM - share * (_HEIGHT - _TOP - _BOTTOM)


def _axes(place: _Place, title: str, width: int, right: float) -> Iterator[str]:
    bottom = _HEIGHT - _BOTTOM
    ticks = log_ticks(place.low, place.high) if place.high > 1.5 * place.low else linear_ticks(place.low, place.high)
    for tick in ticks:
        y = place.y(tick)
        yield f'<line class="rule" x1="{_LEFT}" x2="{right:.1f}" y1="{y:.1f}" y2="{y:.1f}"/>'
        yield f'<text class="soft" x="{_LEFT - 7}" y="{y + 4:.1f}" text-anchor="end">{tick_text(tick)}</text>'
    yield f'<line class="axis" x1="{_LEFT}" x2="{right:.1f}" y1="{bottom}" y2="{bottom}"/>'
    for nfe in place.budgets:
        x = place.x(nfe)
        yield f'<line class="axis" x1="{x:.1f}" x2="{x:.1f}" y1="{bottom}" y2="{bottom + 4}"/>'
        yield f'<text class="soft" x="{x:.1f}" y="{bottom + 18}" text-anchor="middle">{nfe}</text>'
    said = "denoiser calls (NFE)"
    yield f'<text class="soft" x="{(_LEFT + right) / 2:.1f}" y="{_HEIGHT - 8}" text-anchor="middle">{said}</text>'


def _light(dot: Dot, place: _Place, k: int) -> str:
    """Return a candidate's dot, moved sideways a little so that equal values don't hide each other."""
    x = place.x(dot.nfe) + 20 * ((k * 0.618034) % 1 - 0.5)
    title = f"<title>{escape(dot.said)}</title>"
    return f'<circle class="light" cx="{x:.1f}" cy="{place.y(dot.value):.1f}" r="2.6">{title}</circle>'


def _series(series: Series, place: _Place) -> Iterator[str]:
    joined = [dot for dot in (series.dots if series.line is None else series.line) if dot.value > 0]
    if len(joined) > 1:
        path = "L".join(f"{place.x(dot.nfe):.1f} {place.y(dot.value):.1f}" for dot in joined)
        yield f'<path class="line {series.name}" d="M{path}"/>'
    for dot in series.dots:
        if not dot.value > 0:
            continue
        x, y = place.x(dot.nfe), place.y(dot.value)
        if dot.low < dot.high:
            ends = place.y(dot.low), place.y(dot.high)
            yield f'<line class="line {series.name}" x1="{x:.1f}" x2="{x:.1f}" y1="{ends[0]:.1f}" y2="{ends[1]:.1f}"/>'
        yield _mark(series.name, x, y, dot.said)


def _mark(name: str, x: float, y: float, said: str) -> str:
    shape = _SHAPES[name]
    title = f"<title>{escape(said)}</title>" if said else ""
    if shape == "circle":
        return f'<circle class="mark {name}" cx="{x:.1f}" cy="{y:.1f}" r="6">{title}</circle>'
    turn = f' transform="rotate(45 {x:.1f} {y:.1f})"' if shape == "diamond" else ""
    box = f'x="{x - 4.5:.1f}" y="{y - 4.5:.1f}" width="9" height="9"'
    return f'<rect class="mark {name}" {box}{turn}>{title}</rect>'


def _labels(series: Sequence[Series], place: _Place, right: float) -> Iterator[str]:
    """Yield the direct labels at the right, each with a leader from the end of its line."""
    ends = [place.y(each.dots[-1].value) for each in series]
    centres = spread(ends, [_LINE] * len(ends), _TOP, _HEIGHT - _BOTTOM)
    for each, end, centre in zip(series, ends, centres, strict=True):
        x = place.x(each.dots[-1].nfe) + 9
        yield f'<path class="leader {each.name}" d="M{x:.1f} {end:.1f}L{right + 12:.1f} {centre:.1f}"/>'
        yield f'<text x="{right + 16:.1f}" y="{centre + 4:.1f}">{escape(each.label)}</text>'


def _legend(series: Sequence[Series]) -> Iterator[str]:
    """Yield the legend below a narrow figure."""
    for k, each in enumerate(series):
        y = _HEIGHT + 8 + 20 * k
        yield _mark(each.name, _LEFT + 6, y, "")
        yield f'<text x="{_LEFT + 20}" y="{y + 4}">{escape(each.label)}</text>'
