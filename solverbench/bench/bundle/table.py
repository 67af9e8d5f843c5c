"""The table of a run, results.csv, with one row per cell and metric."""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pandas as pd

from solverbench import seeds
from solverbench.bench.bundle import axes
from solverbench.bench.cells import Cell
from solverbench.bench.measure import Measure
from solverbench.bench.outcome import Outcome
from solverbench.learned import zoo
from solverbench.metrics import table
from solverbench.metrics.intervals import over_sets
from solverbench.metrics.table import Takes
from solverbench.teachers.teacher import condition


def frame(outcomes: Sequence[Outcome]) -> pd.DataFrame:
    """Return the tidy table, one row per cell and metric; a row without a value has a reason.

    Options that differ between teachers of one network have a column each, named after the option.
    """
    varied = axes.of(outcome.cell.teacher for outcome in outcomes)
    more = {outcome.cell.teacher.name: varied.columns(outcome.cell.teacher.name, _columns()) for outcome in outcomes}
    rows = [
        {**_row(outcome, metric), **more[outcome.cell.teacher.name]}
        for outcome in outcomes
        for metric in _metrics(outcome.cell)
    ]
    return pd.DataFrame(rows, columns=[*_columns(), *(axes.column(name, _columns()) for name in varied.options)])


@cache
def _columns() -> list[str]:
    """Return the column names in order, from the reports' columns.toml, without importing `solverbench.reports`."""
    found = find_spec("solverbench.reports")
    assert found is not None
    assert found.origin is not None
    return list(tomllib.loads(Path(found.origin).with_name("columns.toml").read_text(encoding="utf-8"))["columns"])


def _row(outcome: Outcome, metric: str) -> dict[str, Any]:
    cell, found = outcome.cell, outcome.measures.get(metric)
    extractor, quantiser = _judged_by(cell, metric)
    images = {Takes.EXACT: cell.protocol.solved, Takes.PAIR: cell.protocol.paired}
    takes = table.TABLE[metric].takes if metric in table.TABLE else Takes.IMAGE
    seconds, made = outcome.total("seconds"), outcome.total("images")
    low, high = found.interval if found else (None, None)
    searched = None if cell.search is None else cell.search.path
    parameters = None if cell.trained is None else cell.trained.path
    return {
        "teacher": cell.teacher.name,
        "solver": cell.solver,
        "spec": cell.spec,
        "nfe": cell.nfe,
        "metric": metric,
        "value": found and found.value,
        "low": low,
        "high": high,
        "std_error": found and found.std_error,
        "n": found.n if found else images.get(takes, cell.protocol.samples),
        "replicates": cell.protocol.replicates,
        "seeds": seeds.label(cell.protocol.seeds),
        "reference": found.reference if found else "",
        "extractor": extractor,
        "quantiser": quantiser,
        "status": outcome.status,
        "reason": outcome.reason or outcome.failed.get(metric, cell.lacking.get(metric, "")),
        "cell": outcome.place,
        "net_passes": cell.teacher.passes * cell.nfe if found else None,
        "serial_calls": cell.plan and cell.plan.serial_calls,
        "learned": cell.learned,
        "metric_loss": cell.metric_loss,
        "inferred": cell.inferred,
        "parameters_origin": zoo.origin(parameters),
        "search": searched.name if searched is not None else "",
        "search_origin": zoo.origin(searched),
        "validation": cell.trained and cell.trained.validation,
        "validation_spread": cell.trained and cell.trained.spread,
        "metric_id": _metric_id(cell, metric, found),
        "biased": outcome.biased(metric),
        "sd": over_sets(found.replicates)[1] if found and len(found.replicates) > 1 else None,
        "flags": "; ".join(f"{code}: {sentence}" for code, sentence in outcome.flags(metric).items()) if found else "",
        "origin": outcome.origin,
        "reference_error": outcome.reference_error if found and metric == table.ALWAYS else None,
        "cost_seconds": seconds,
        "cost_denoiser_seconds": outcome.total("denoiser_seconds"),
        "cost_images_per_second": made / seconds if made and seconds else None,
        "cost_peak_memory_bytes": outcome.greatest("peak_memory_bytes"),
        "cost_batch": outcome.least("batch"),
        "cost_device": ", ".join(
            dict.fromkeys(str(each["device"]) for each in outcome.cost.values() if "device" in each)
        ),
        "cost_shared_calls": outcome.greatest("shared_calls"),
        "cost_joules": outcome.total("joules"),
        **_training_cost(cell),
        "cost_search_teacher_calls": cell.search and cell.search.calls,
        "cost_search_seconds": cell.search and cell.search.seconds,
    }


def _judged_by(cell: Cell, metric: str) -> tuple[str, str]:
    """Return the network and quantiser of a metric; empty if it has none or can't be measured."""
    judged, device = cell.evaluation, cell.measurement.device
    there = {each.name: each for each in cell.metrics}
    found = there.get(metric) or table.TABLE.get(metric)
    if found is None:
        return "", ""
    if found.features:
        return (judged.extractor_id, judged.quantiser) if judged is not None else ("", "")
    if found.identity is None:
        return "", ""
    if found.takes is Takes.PAIR:
        return found.identity(device), ""
    return (found.identity(device), cell.measurement.quantiser) if metric in there else ("", "")


def _training_cost(cell: Cell) -> dict[str, float]:
    """Return the cost of the cell's training over all training seeds, and of its grid's search, as recorded."""
    cost = dict((cell.trained and cell.trained.cost) or {})
    if cell.search is not None:
        cost["student_calls"] = cost.get("student_calls", 0)
        cost["teacher_calls"] = cost.get("teacher_calls", 0) + cell.search.calls
        cost["seconds"] = cost.get("seconds", 0) + cell.search.seconds
    return {f"cost_training_{name.removeprefix('training_')}": value for name, value in cost.items()}


def _metrics(cell: Cell) -> list[str]:
    """Return the metrics of the cell, including those that can't be measured."""
    return table.ordered({*(each.name for each in cell.metrics), *cell.lacking})


def _metric_id(cell: Cell, metric: str, found: Measure | None) -> str:
    """Return a one-word identifier of the metric with everything its number depends on besides solver and teacher."""
    images = cell.protocol.seeds
    parts = [metric, f"n={found.n if found else cell.protocol.samples}x{cell.protocol.replicates}"]
    judged = cell.evaluation
    extractor, quantiser = _judged_by(cell, metric)
    parts[0] += f":{extractor.replace(' ', '@')}" if extractor else ""
    if judged is not None and metric in judged.metrics:
        reference = table.TABLE[metric].reference(judged) or judged.data
        named = reference.name.partition(" (")[0].replace(" ", "-")
        parts.append(f"ref={named}@{reference.sha[:12]}")
        parts += [f"crop={reference.crop}"] if reference.crop else []
    parts += [f"u8={quantiser}"] if quantiser else []
    told = cell.teacher.condition
    prompts = f"@{told.key['prompts'][:12]}" if told is not None and told.prompts else ""
    return "|".join(
        [*parts, f"seeds={seeds.label(images)}", f"condition={condition(cell.teacher).replace(' ', '-')}{prompts}"]
    )
