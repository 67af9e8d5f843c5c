"""The numbers of a run as a plain-text table: what a terminal shows at its end."""

from __future__ import annotations

from collections.abc import Sequence

from solverbench.bench.bundle.table import _metrics
from solverbench.bench.outcome import Outcome
from solverbench.metrics import table
from solverbench.wording import printable


def lines(outcomes: Sequence[Outcome]) -> list[str]:
    """Return the head, then a line per cell: solver, NFE, and each metric with its 95 % interval.

    A cell without any value has its status in their place; its reason is too long for a table. A value with a flag has
    a star, and the last column has the codes of a cell's flags. The teacher's column is left out if there is one
    alone, and that of the flags if no cell has any.
    """
    several = len({outcome.cell.teacher.name for outcome in outcomes}) > 1
    metrics = table.ordered({metric for outcome in outcomes for metric in _metrics(outcome.cell)})
    head = [*(["teacher"] if several else []), "solver", "NFE", *metrics, "flags"]
    rows = [head]
    for outcome in outcomes:
        name = [outcome.cell.teacher.name] if several else []
        values = [_value(outcome, metric) for metric in metrics]
        if not outcome.measures and metrics:
            values[0] = outcome.status
        codes = dict.fromkeys(code for metric in outcome.measures for code in outcome.flags(metric))
        rows.append([*name, outcome.cell.solver, str(outcome.cell.nfe), *values, ", ".join(codes)])
    if not any(row[-1] for row in rows[1:]):
        rows = [row[:-1] for row in rows]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    padded = ("  ".join(f"{text:<{width}}" for text, width in zip(row, widths, strict=True)) for row in rows)
    return [printable(line.rstrip()) for line in padded]


def _value(outcome: Outcome, metric: str) -> str:
    """Return a value with its interval, such as `0.0357 [0.0354, 0.036]`; `-` if it isn't known."""
    found = outcome.measures.get(metric)
    if found is None:
        return "-"
    low, high = found.interval
    return f"{found.value:.4g}{'*' * bool(outcome.flags(metric))} [{low:.4g}, {high:.4g}]"
