"""Who is ahead at each budget, in words: the first section of the page and of report.md."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from solverbench.reports import paired
from solverbench.reports.pages import tables
from solverbench.reports.pages.content import Report
from solverbench.reports.pages.data import short
from solverbench.reports.parts import Part, grouped
from solverbench.wording import BELOW_ERROR


def rows(report: Report) -> Iterator[dict[str, Any]]:
    """Yield who is ahead, metric by metric.

    Each has name, short and label of the metric, the budgets (nfe), the rows, and what they mean (explained). A row has
    the teacher, the values of its options, and a cell for each budget: its kind (none, alone, level or won), its text,
    why it is so, and for a winner its value and its place among the solvers (index).
    """
    labels, record = report.labels, report.bundle.record
    for metric, table, standings in report.standings:
        own = [(part, found, tables.entries(part)) for part, found in zip(table, standings.found, strict=True)]
        budgets = sorted({nfe for part, _, _ in own for nfe in part.nfe})
        lines = [
            {"teacher": part.model + (f", part {part.number}" if part.number > 1 else ""),
             "options": ["–" if each is None else each or "default" for each in report.axes.values(part.teacher)],
             "cells": [_winner(part, nfe, found.get(nfe), labels, cells) for nfe in budgets]}
            for part, found, cells in own
        ]  # fmt: skip
        by_pairs = all(each.paired for _, found, _ in own for each in found.values())
        how = (
            "its difference from every other one, paired by seed, is told apart from 0"
            if by_pairs
            else "its interval, or its paired difference where that is known, is told apart from every other one's"
        )
        yield {
            "name": metric, "short": short(metric, record), "label": own[0][0].label, "nfe": budgets, "rows": lines,
            "explained": f"A solver is ahead where {how}; {_OTHERWISE}{_below(standings)}{_family(standings.pairs)}",
        }  # fmt: skip


_OTHERWISE = (
    "otherwise all solvers that cannot be distinguished from the best one are named. This covers sampling error only: "
    "a learned solver trained again also changes."
)


def _below(standings: paired.Standings) -> str:
    """Return the sentence about differences that are smaller than the error of the reference; empty without one."""
    each = [one.found for own in standings.found for found in own.values() for one in found.comparisons]
    said = paired.below_error(one.reference for one in each if one.masked)
    return f" {said}" if said else ""


def _family(pairs: int) -> str:
    """Return the sentences about the correction of a table for its comparisons."""
    if pairs < 2:
        return ""
    return (
        f" Corrected for {grouped(pairs)} comparisons, every pair of solvers at each budget of this table, by Holm's "
        "step-down: the probability that any of its statements is wrong by chance is at most .05. ahead.csv has each "
        "comparison with the best solver and its p."
    )


def _winner(
    part: Part, nfe: int, found: paired.Standing | None, labels: Sequence[str],
    cells: Mapping[tuple[str, int], tables.Entry],
) -> dict[str, Any]:  # fmt: skip
    if found is None:
        asked = nfe in part.nfe
        return {"kind": "none", "text": "no value" if asked else "", "why": ""}
    if found.alone:
        return {"kind": "alone", "text": f"{found.level[0]} alone", "why": "no other solver has a value here"}
    if not found.winner:
        best, told = found.level[0], []
        if len(found.level) > 1:
            told.append(("level", found.level))
        if found.below:
            told.append((BELOW_ERROR, found.below if told else (best, *found.below)))
        return {
            "kind": "level", "text": "; ".join(f"{word}: {_few(names)}" for word, names in told),
            "why": "; ".join(f"{word}: {', '.join(names)}" for word, names in told),
        }  # fmt: skip
    value = cells[found.winner, nfe].value
    return {"kind": "won", "text": found.winner, "value": value, "index": labels.index(found.winner), "why": ""}


def _few(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
