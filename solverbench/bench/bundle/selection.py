"""The selection that a report shows, and the name of its folder."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from solverbench import files
from solverbench.bench.outcome import Outcome, teachers_of_outcomes
from solverbench.bench.protocol import Protocol
from solverbench.bench.run_options import RunOptions, spans
from solverbench.sampling import endpoints


def settled(outcomes: Sequence[Outcome], protocol: Protocol, options: RunOptions) -> RunOptions:
    """Return the options with the cells' solvers, teachers and NFE, and with the protocol's numbers."""
    each = [outcome.cell for outcome in outcomes]
    return replace(
        protocol.settle(options),
        solvers=list(dict.fromkeys(cell.solver for cell in each)),
        nfe=sorted({cell.nfe for cell in each}),
        teachers=[teacher.spec or teacher.name for teacher in teachers_of_outcomes(outcomes)],
    )


def name(outcomes: Sequence[Outcome], options: RunOptions) -> str:
    """Return the name of the report's folder: a slug and a short hash of the selection; expects settled options."""
    selection = _selection(outcomes, options)
    head, tail = (
        re.sub(r"[^a-z0-9.]+", "-", "-".join(words).lower()).strip("-")
        for words in ([*selection["teachers"], *selection["solvers"]], ["nfe", *spans(selection["nfe"])])
    )
    tail = tail[:30].strip("-")
    return f"{head[: 59 - len(tail)].strip('-')}-{tail}-{files.digest(selection)[:8]}"


def _selection(outcomes: Sequence[Outcome], options: RunOptions) -> dict[str, Any]:
    """Return the names of the cells, the conditions of their teachers, and the settled options that change numbers."""
    each = [outcome.cell for outcome in outcomes]
    return {
        "teachers": list(dict.fromkeys(cell.teacher.name for cell in each)),
        "identities": list(dict.fromkeys(cell.teacher.identity for cell in each)),
        "solvers": list(dict.fromkeys(cell.solver for cell in each)),
        "specs": list(dict.fromkeys(cell.spec for cell in each)),
        "nfe": sorted({cell.nfe for cell in each}),
        **_conditions(outcomes),
        **options.selection,
    }


def _conditions(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """Return the teachers' conditions and arithmetic, where they differ from the default."""
    found = {teacher.name: endpoints.conditioned(teacher) for teacher in teachers_of_outcomes(outcomes)}
    for teacher in teachers_of_outcomes(outcomes):
        if teacher.arithmetic != "float32":
            found[teacher.name]["dtype"] = teacher.arithmetic
    told = {name: each for name, each in found.items() if each}
    return {"conditions": told} if told else {}
