"""Published numbers compared with the measured ones."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

from solverbench.reports.bundle import Bundle
from solverbench.reports.parts import Part, Published, parts
from solverbench.wording import decimals, interval_texts, number_text


@dataclass(frozen=True)
class Row:
    """One published number and ours: texts for a table, and two numbers to sort by, NaN where there is none.

    `apart` is ours minus the published one. `agrees` is "yes" or "no", empty if we have no comparable number.
    """

    row: str
    paper: str
    place: str
    teacher: str
    metric: str
    solver: str
    nfe: int
    published: str
    ours: str
    value: float
    interval: str
    difference: str
    apart: float
    agrees: str
    protocol: str


def rows(bundle: Bundle) -> list[Row]:
    """Return a row per published number of the bundle's teachers, metrics and budgets."""
    return [row for part in parts(bundle.frame, bundle.record) if part.number == 1 for row in _of(part)]


def _of(part: Part) -> Iterator[Row]:
    for each in part.published:
        own = part.frame[(part.frame["solver"] == each.label) & (part.frame["nfe"] == each.nfe)]
        ours = own.iloc[0] if each.label and len(own) and math.isfinite(own["value"].iloc[0]) else None
        value, low, high = (math.nan,) * 3 if ours is None else (float(ours[end]) for end in ("value", "low", "high"))
        shown, *ends = interval_texts(value, low, high)
        places = decimals(value, (high - low) / 4)
        yield Row(
            row=each.row, paper=each.paper, place=each.place, teacher=part.teacher, metric=part.metric,
            solver=each.solver, nfe=each.nfe, published=f"{each.value:.{each.digits}f}",
            ours="" if ours is None else shown, value=value,
            interval=" to ".join(filter(None, ends)),
            difference="" if ours is None else number_text(value - each.value, places, "+"), apart=value - each.value,
            agrees="" if ours is None or math.isnan(low) else _agrees(each, low, high),
            protocol="; ".join(each.differences) if ours is not None else "no cell of ours has its options",
        )  # fmt: skip


def _agrees(each: Published, low: float, high: float) -> str:
    """Return whether the published number, as it was rounded, lies within our interval."""
    rounding = 10.0**-each.digits / 2
    return "yes" if low - rounding <= each.value <= high + rounding else "no"
