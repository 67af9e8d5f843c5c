"""Published numbers next to measured ones, with the differences between the protocols."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from solverbench import registries, seeds
from solverbench.bench.cells import Cell
from solverbench.bench.outcome import Outcome
from solverbench.bench.protocol import Protocol
from solverbench.method.spec import make
from solverbench.metrics import table
from solverbench.registries import Result
from solverbench.teachers.teacher import Teacher, condition

UNKNOWN = "unknown"


OWN_RECORD = "embedded"
"""Name, among the papers, of the numbers that SolverBench itself recorded on its embedded teacher."""


def compared(outcomes: Sequence[Outcome]) -> list[dict[str, Any]]:
    """Return the published numbers of these teachers, metrics and budgets as plain JSON values, for a report.

    Numbers that this package recorded itself are left out. If a cell has the published spec, `label` is its solver and
    `differences` lists how the protocols differ; otherwise, or if the published spec is not stated, `label` is empty.
    """
    there = {(each.cell.teacher.model, each.cell.nfe) for each in outcomes}
    metrics = {metric for each in outcomes for metric in each.measures}
    own = {(each.cell.teacher.model, each.cell.spec, each.cell.nfe): each for each in outcomes if each.measures}
    papers = (paper for paper in registries.papers() if paper != OWN_RECORD)
    rows = (each for paper in papers for each in registries.results(paper))
    found = []
    for row in (each for each in rows if (each.teacher, each.nfe) in there and each.metric in metrics):
        specs = [make(spec).spec for spec in dict.fromkeys((as_authors(row), row.spec)) if spec]
        outcome = next((own[key] for spec in specs if (key := (row.teacher, spec, row.nfe)) in own), None)
        measure = outcome.measures.get(row.metric) if outcome is not None else None
        told = {name: getattr(row, name) for name in ("row", "paper", "place", "teacher", "metric", "solver", "spec")}
        told |= {"nfe": row.nfe, "value": row.value, "digits": row.digits, "note": row.note}
        if outcome is not None and measure is not None:
            differences = list(_differences(row, outcome.cell, measure.n, measure.reference))
            found.append(told | {"label": outcome.cell.solver, "differences": differences})
        else:
            found.append(told | {"label": "", "differences": []})
    return found


def as_authors(published: Result) -> str:
    """Return the spec of a published solver that samples as its authors' code does; the row's where that isn't known.

    It is empty if the row has no spec.
    """
    options = published.authors.get("options", "")
    return f"{published.spec}:{options}" if options and published.spec else published.spec


def _differences(published: Result, cell: Cell, n: int, reference: str) -> Iterator[str]:
    """Yield each protocol item that differs, or that the paper does not state."""
    protocol, ours = published.protocol, _ours(cell, published.metric, n, reference)
    for name, here in ours.items():
        there = str(protocol[name])
        if there == UNKNOWN:
            yield f"{name}: not stated, here {here}"
        elif there and not _alike(name, there, here):
            yield f"{name}: published {there}, here {here}"
    for name in published.unknown:
        yield f"solver's {name}: not stated, here {cell.spec}"
    yield from _training(published.authors, cell)
    if published.authors and cell.spec != make(as_authors(published)).spec:
        told = published.authors
        ends = f" (levels {told['start']:g} to {told['end']:g})" if "start" in told else ""
        yield f"sampling: published {told['options']}{ends}, here {cell.spec}"


def _training(told: Mapping[str, Any], cell: Cell) -> Iterator[str]:
    """Yield loss and discriminator of the authors' training, unless the cell has the parameters of their file."""
    if not told or cell.trained is None or "imported" in cell.trained.record:
        return
    recipe = cell.trained.record.get("recipe", {})
    adversarial = recipe.get("adversarial_weight", 0) > 0
    widths = "+".join(map(str, recipe.get("widths", ())))
    weights = recipe.get("discriminator_weights") or "random weights"
    here = {
        "loss": recipe.get("loss", UNKNOWN),
        "discriminator": f"widths {widths}, {weights}" if adversarial else "none",
    }
    for name, own in here.items():
        if told[name] != own:
            yield f"{name}: published {told[name]}, here {own}"


def _alike(name: str, there: str, here: str) -> bool:
    """Return whether the items agree; ours describes a reference, an extractor or a condition in more detail."""
    if name in ("n", "replicates", "seeds", "quantiser"):
        return there == here
    return re.search(rf"(?<!\w){re.escape(there.replace(' = ', ' '))}(?!\w)", here) is not None


def _ours(cell: Cell, metric: str, n: int, reference: str) -> dict[str, str]:
    protocol: Protocol = cell.protocol
    teacher: Teacher = cell.teacher
    judged = cell.evaluation if table.of([metric], lambda each: bool(each.features)) else None
    told = {
        "n": f"{n}",
        "replicates": f"{protocol.replicates}",
        "seeds": seeds.label(protocol.seeds),
        "reference": reference,
        "noise": "on the CPU from the seed",
        "condition": condition(teacher),
    }
    if judged is not None:
        told |= {"extractor": judged.extractor_id, "quantiser": judged.quantiser}
    return told
