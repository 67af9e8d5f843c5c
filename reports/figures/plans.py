"""Plans in a bundle: the data of the figures of noise levels and of weights."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from solverbench.reports.bundle import Bundle
from solverbench.reports.parts import Part

_PANELS = 4
MOST = 64
"""Largest number of calls whose weights are still legible in a figure; longer plans are left out."""


@dataclass(frozen=True)
class Plan:
    """The plan of one cell: `sigmas` [N] passed to the network, `rows` [N + 1][k + 1] of weights.

    `part` is a part that contains the solver; it determines its style.
    """

    label: str
    nfe: int
    learned: bool
    sigmas: tuple[float, ...]
    rows: tuple[tuple[float, ...], ...]
    part: Part


def of(bundle: Bundle, found: Sequence[Part], teacher: str) -> list[Plan]:
    """Return the plans of one teacher's cells that the bundle has, by solver and then budget."""
    plans = dict[tuple[str, int], Plan]()
    for part in (part for part in found if part.teacher == teacher):
        columns = (part.frame[name] for name in ("label", "nfe", "cell", "learned"))
        for label, nfe, cell, learned in zip(*columns, strict=True):
            stored = bundle.cells.get(cell, {}).get("plan")
            if stored and (label, nfe) not in plans and (read := _read(stored)) is not None:
                plans[str(label), int(nfe)] = Plan(str(label), int(nfe), bool(learned), *read, part)
    order = list(dict.fromkeys(label for label, _ in plans))
    return sorted(plans.values(), key=lambda plan: (order.index(plan.label), plan.nfe))


def levels_drawn(known: Sequence[Plan], teacher: str) -> pd.DataFrame:
    """Return exactly the data of the figure of levels: a row per call; `row` is its height in the panel."""
    names = list(dict.fromkeys(plan.label for plan in known))
    return pd.DataFrame([
        {"panel": f"NFE {plan.nfe}", "teacher": teacher, "kind": "measured", "series": plan.label, "nfe": plan.nfe,
         "call": call, "sigma": sigma, "row": names.index(plan.label)}
        for plan in known if plan.nfe in shown_budgets(known) for call, sigma in enumerate(plan.sigmas)
    ])  # fmt: skip


def weights_drawn(known: Sequence[Plan], teacher: str, nfe: int | None = None) -> pd.DataFrame:
    """Return exactly the data of the heat maps; `shade` is the value that the colour shows."""
    chosen = [plan for plan in known if plan.nfe == (weights_budget(known) if nfe is None else nfe)]
    return pd.DataFrame([
        {"panel": plan.label, "teacher": teacher, "series": plan.label, "nfe": plan.nfe, "row": k, "column": j,
         "weight": weight, "shade": shade}
        for plan in chosen
        for k, (row, shades) in enumerate(zip(plan.rows, shades_of(plan), strict=True))
        for j, (weight, shade) in enumerate(zip(row[: k + 1], shades, strict=False))
    ])  # fmt: skip


def weights_budget(known: Sequence[Plan]) -> int | None:
    """Return the smallest budget that a learned solver has, else the smallest one; None if none can be drawn."""
    drawn = [plan for plan in known if plan.nfe <= MOST]
    return min((plan.nfe for plan in drawn if plan.learned), default=min((plan.nfe for plan in drawn), default=None))


def shown_budgets(known: Sequence[Plan]) -> list[int]:
    """Return up to four budgets, the first and the last among them."""
    budgets = sorted({plan.nfe for plan in known})
    if len(budgets) <= _PANELS:
        return budgets
    return [budgets[round(i * (len(budgets) - 1) / (_PANELS - 1))] for i in range(_PANELS)]


def shades_of(plan: Plan) -> list[list[float]]:
    """Return the value shown for each weight: itself, or relative to the first one in the noise's column."""
    first = abs(plan.rows[0][0]) or 1.0
    return [[row[0] / first, *row[1 : k + 1]] for k, row in enumerate(plan.rows)]


def _read(stored: Any) -> tuple[tuple[float, ...], tuple[tuple[float, ...], ...]] | None:
    """Return the numbers of a plan; None if it is not a triangle of finite ones."""
    try:
        sigmas = tuple(float(sigma) for sigma in stored["sigmas"])
        rows = tuple(tuple(float(weight) for weight in row) for row in stored["rows"])
    except (KeyError, TypeError, ValueError):
        return None
    sound = len(rows) == len(sigmas) + 1 and all(len(row) > k for k, row in enumerate(rows))
    finite = all(math.isfinite(number) for numbers in (sigmas, *rows) for number in numbers)
    return (sigmas, rows) if sound and finite and sigmas else None
