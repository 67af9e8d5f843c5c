"""Layout within a panel: ticks of a logarithmic axis, lines of a title, and labels next to line ends."""

import math
import re
import textwrap
from collections.abc import Sequence
from itertools import pairwise

_MANTISSAS = ((1.0,), (1.0, 3.0), (1.0, 2.0, 5.0), (1.0, 1.5, 2.0, 3.0, 5.0, 7.0), tuple(range(1, 10)))


def log_ticks(low: float, high: float) -> list[float]:
    """Return three to eight round numbers in [low, high] > 0: powers of ten, or even spacing in a narrow range."""
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    for mantissas in _MANTISSAS:
        ticks = [float(f"{m}e{e}") for e in range(first, last + 1) for m in mantissas]
        ticks = [tick for tick in ticks if low <= tick <= high]
        if len(ticks) >= 3:
            return ticks[:: -(-len(ticks) // 8)]
    return linear_ticks(low, high)


def log_minor_ticks(low: float, high: float) -> list[float]:
    """Return the multiples 1-9 of powers of ten in [low, high] > 0; only powers over more than four decades."""
    exponents = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    mantissas = range(1, 10) if math.log10(high / low) <= 4 else (1,)
    return [tick for e in exponents for m in mantissas if low <= (tick := float(f"{m}e{e}")) <= high]


def linear_ticks(low: float, high: float) -> list[float]:
    """Return three to eight round numbers in [low, high]."""
    if not high > low:
        return [low]
    step = 10.0 ** math.floor(math.log10((high - low) / 2))
    for factor in (1, 2, 2.5, 5, 10):
        first, last = math.ceil(low / (step * factor)), math.floor(high / (step * factor))
        if last - first < 8:
            return [float(f"{i * step * factor:.12g}") for i in range(first, last + 1)]
    return [low, high]


def tick_text(value: float) -> str:
    """Return a tick's label: 0.05, 20, 1e-05."""
    return f"{value:.4g}"


def wrapped(text: str, width: int) -> str:
    """Return the text over the fewest lines of at most `width` characters, balanced, never broken in a bracket.

    A bracket that is longer than a line is broken at its spaces, and a word at any character.
    """
    glued = re.sub(r"\((?:[^()]|\([^()]*\))*\)|\[[^][]*\]", lambda found: found[0].replace(" ", "\u00a0"), text)
    if any(len(word) > width for word in glued.split(" ")):
        glued = re.sub(r"\[[^][]*\]", lambda found: found[0].replace(" ", "\u00a0"), text)
    whole = all(len(word) <= width for word in glued.split(" "))
    tried = [
        textwrap.wrap(glued, size, break_on_hyphens=False, break_long_words=not whole)
        for size in range(width, width // 2 if whole else width - 1, -1)
    ]
    fitting = [lines for lines in tried if len(lines) == len(tried[0]) and max(map(len, lines), default=0) <= width]
    return "\n".join(fitting[-1] if fitting else tried[0])


def spread(wanted: Sequence[float], heights: Sequence[float], low: float, high: float) -> list[float]:
    """Return centres near the wanted ones, in the same order, so that boxes of these heights do not overlap.

    Order-constrained least squares: pool adjacent violators on the positions minus the total height of the boxes below.
    If the boxes do not fit into [low, high], they start at `low` and extend beyond `high`.
    """
    order = sorted(range(len(wanted)), key=lambda i: (wanted[i], i))
    offsets, room = list[float](), 0.0
    for i in order:
        offsets.append(room + heights[i] / 2)
        room += heights[i]
    pools = list[tuple[float, int]]()  # (mean, count)
    for i, offset in zip(order, offsets, strict=True):
        pools.append((wanted[i] - offset, 1))
        while len(pools) > 1 and pools[-2][0] >= pools[-1][0]:
            (mean, count), (mean_, count_) = pools.pop(-2), pools.pop()
            pools.append(((mean * count + mean_ * count_) / (count + count_), count + count_))
    bases = [max(low, min(mean, high - room)) for mean, count in pools for _ in range(count)]
    centres = [0.0] * len(wanted)
    for i, base, offset in zip(order, bases, offsets, strict=True):
        centres[i] = base + offset
    return centres


_GAPS = (1.6, 3.5, 6.0)  # from a point to its label, in the unit of the places
_SIDES = ((1, 1), (1, -1), (-1, 1), (-1, -1), (0, 1), (0, -1), (1, 0), (-1, 0))


def scattered(
    points: Sequence[tuple[float, float]], sizes: Sequence[tuple[float, float]],
    marks: Sequence[tuple[float, float]], room: tuple[float, float, float, float],
) -> list[tuple[float, float] | None]:  # fmt: skip
    """Return the lower left corner of each point's label: no two overlap, and each covers as few marks as it can.

    A label that has no place near its point is None.

    Args:
        points: the point that each label belongs to.
        sizes: width and height of each label.
        marks: what labels should leave visible: markers, bars and lines, as points.
        room: left, bottom, right and top of where labels may be.
    """
    taken, found = list[tuple[float, float, float, float]](), list[tuple[float, float] | None]()
    for (x, y), (wide, high) in zip(points, sizes, strict=True):
        best, least = None, math.inf
        for turn, (gap, (right, up)) in enumerate((gap, side) for gap in _GAPS for side in _SIDES):
            left = x + right * gap + (right - 1) * wide / 2
            low = y + up * gap + (up - 1) * high / 2
            box = left, low, left + wide, low + high
            if box[0] < room[0] or box[1] < room[1] or box[2] > room[2] or box[3] > room[3]:
                continue
            if any(box[0] < b[2] and b[0] < box[2] and box[1] < b[3] and b[1] < box[3] for b in taken):
                continue
            cost = sum(box[0] <= a <= box[2] and box[1] <= b <= box[3] for a, b in marks) + 0.01 * turn
            if cost < least:
                best, least = box, cost
        if best is not None:
            taken.append(best)
        found.append(None if best is None else best[:2])
    return found


def along(xs: Sequence[float], ys: Sequence[float], step: float) -> list[tuple[float, float]]:
    """Return points on the straight lines between these places, at most `step` apart, with the places themselves."""
    found = list(zip(xs, ys, strict=True))[:1]
    for (a, b), (c, d) in pairwise(zip(xs, ys, strict=True)):
        count = max(1, math.ceil(math.hypot(c - a, d - b) / step))
        found += [(a + (c - a) * k / count, b + (d - b) * k / count) for k in range(1, count + 1)]
    return found
