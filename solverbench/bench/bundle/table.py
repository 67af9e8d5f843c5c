"""The table of a run: results.csv, a row for each cell and metric."""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pandas as pd

from solverbench import seeds
from solverbench.bench.cells import Cell
from solverbench.bench.measure import Measure
from solverbench.bench.outcome import Outcome
from solverbench.evaluation import selection
from solverbench.metrics import plugin
from solverbench.metrics.intervals import over_sets
from solverbench.metrics.lpips import LPIPS
from solverbench.teachers.teacher import condition

METRICS = {
    "frechet_data": ("Fréchet distance to the data", "Fréchet to data", "features"),
    "frechet_teacher": ("Fréchet distance to the teacher's own samples", "Fréchet to teacher", "features"),
    "fid": ("FID", "FID", "features"),
    "kid": ("KID", "KID", "features"),
    "rmse_exact": ("RMSE to the exact solution of the teacher's ODE", "RMSE to exact", "pixels in [-1, 1]"),
    "rmse_teacher": ("RMSE to the teacher's own sample from the same noise", "RMSE to teacher", "pixels in [-1, 1]"),
    "fid_inf": ("FID extrapolated to infinitely many images", "FID, n to infinity", "features"),
    "frechet_data_inf": (
        "Fréchet distance to the data, extrapolated to infinitely many images",
        "Fréchet to data, n to infinity",
        "features",
    ),
    "inception_score": ("Inception score", "Inception score", "features"),
    "kernel_data": ("Kernel distance to the data", "Kernel distance", "features"),
    "precision": ("Precision", "Precision", "features"),
    "precision_data": ("Precision", "Precision", "features"),
    "recall": ("Recall", "Recall", "features"),
    "recall_data": ("Recall", "Recall", "features"),
    "fid_clip": ("Fréchet distance of CLIP features", "FID of CLIP", "CLIP ViT-B/32"),
    "fdd": ("Fréchet distance of DINOv2 features", "FD of DINOv2", "DINOv2 ViT-L/14"),
    "clip_score": ("CLIP score of image and prompt", "CLIP score", "100 max(cos, 0), higher is better"),
    "lpips_teacher": ("LPIPS to the teacher's own sample from the same noise", "LPIPS to teacher", LPIPS.identity),
    "psnr_teacher": ("PSNR to the teacher's own sample from the same noise", "PSNR to teacher", "dB, peak to peak 2"),
}


HIGHER = ("clip_score", "inception_score", "precision", "precision_data", "recall", "recall_data", "psnr_teacher")
"""Metrics whose higher values are the better ones."""


LINEAR = ("kid", "kernel_data", *HIGHER)
"""Those drawn on a linear axis: shares, decibels, and distances that can be below 0."""


def frame(outcomes: Sequence[Outcome]) -> pd.DataFrame:
    """Return the tidy table: one row per cell and metric; without a value where there is a reason."""
    rows = [_row(outcome, metric) for outcome in outcomes for metric in _metrics(outcome.cell)]
    return pd.DataFrame(rows, columns=_columns())


@cache
def _columns() -> list[str]:
    """Return the columns in their order, from the file that reports reads them by; reports itself isn't imported."""
    found = find_spec("solverbench.reports")
    assert found is not None
    assert found.origin is not None
    return list(tomllib.loads(Path(found.origin).with_name("columns.toml").read_text(encoding="utf-8"))["columns"])


def _row(outcome: Outcome, metric: str) -> dict[str, Any]:
    cell, found = outcome.cell, outcome.measures.get(metric)
    extractor, quantiser = _judged_by(cell, metric)
    images = {"rmse_exact": cell.protocol.solved}
    images |= dict.fromkeys(("rmse_teacher", *selection.PAIRS), cell.protocol.paired)
    seconds, made = outcome.total("seconds"), outcome.total("images")
    low, high = found.interval if found else (None, None)
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
        "n": found.n if found else images.get(metric, cell.protocol.samples),
        "replicates": cell.protocol.replicates,
        "seeds": seeds.label(cell.protocol.seeds),
        "reference": found.reference if found else "",
        "extractor": extractor,
        "quantiser": quantiser,
        "status": outcome.status,
        "reason": outcome.reason or cell.teacher.lacking.get(metric, ""),
        "cell": cell.address[:16],
        "net_passes": cell.teacher.passes * cell.nfe if found else None,
        "learned": cell.learned,
        "metric_loss": cell.metric_loss,
        "inferred": cell.inferred,
        "validation": cell.trained and cell.trained.validation,
        "validation_spread": cell.trained and cell.trained.spread,
        "metric_id": _metric_id(cell, metric, found),
        "biased": outcome.biased(metric),
        "sd": over_sets(found.replicates)[1] if found and len(found.replicates) > 1 else None,
        "cost_seconds": seconds,
        "cost_denoiser_seconds": outcome.total("denoiser_seconds"),
        "cost_images_per_second": made / seconds if made and seconds else None,
        "cost_peak_memory_bytes": outcome.greatest("peak_memory_bytes"),
        "cost_batch": outcome.least("batch"),
        "cost_shared_calls": outcome.greatest("shared_calls"),
        "cost_joules": outcome.total("joules"),
        **_training_cost(cell),
    }


def _judged_by(cell: Cell, metric: str) -> tuple[str, str]:
    """Extractor and quantiser of a metric of features, or of images and prompts; empty of another, or without them."""
    judged, scorer = cell.teacher.evaluation, cell.protocol.judging.scorer(cell.teacher)
    if metric in selection.PROMPTED and scorer is not None:
        return scorer.identity, cell.protocol.judging.rule(cell.teacher)
    if metric in cell.protocol.judging.scored(cell.teacher):
        return plugin.identity(metric), cell.protocol.judging.rule(cell.teacher)
    if metric == "lpips_teacher":
        return LPIPS.identity, ""
    if metric in (*selection.PUBLIC, *selection.FEATURES) and judged is not None:
        return judged.extractor_id, judged.quantiser
    return "", ""


def _training_cost(cell: Cell) -> dict[str, float]:
    """What the training of its solver took, all seeds together, as far as its file says."""
    cost = (cell.trained and cell.trained.cost) or {}
    return {f"cost_training_{name.removeprefix('training_')}": value for name, value in cost.items()}


def _metrics(cell: Cell) -> list[str]:
    """What the cell's images are measured by, whether it has results or not."""
    judged = cell.teacher.evaluation
    wanted = {"rmse_teacher", *cell.metrics, *cell.teacher.lacking, *(judged.metrics if judged else ())}
    wanted |= {"rmse_exact"} if cell.exact else set()
    return _ordered(wanted)


def _ordered(metrics: set[str]) -> list[str]:
    """The built-in metrics in their order, then those by plugins."""
    return [*(metric for metric in METRICS if metric in metrics), *sorted(metrics - METRICS.keys())]


def _metric_id(cell: Cell, metric: str, found: Measure | None) -> str:
    """The metric with all that its number depends on besides solver and teacher, in one word."""
    images = cell.protocol.seeds
    parts = [metric, f"n={found.n if found else cell.protocol.samples}x{cell.protocol.replicates}"]
    judged = cell.teacher.evaluation
    extractor, quantiser = _judged_by(cell, metric)
    parts[0] += f":{extractor.replace(' ', '@')}" if extractor else ""
    if judged is not None and metric in judged.metrics:
        reference = judged.teacher if metric == "frechet_teacher" and judged.teacher else judged.data
        named = reference.name.partition(" (")[0].replace(" ", "-")
        parts.append(f"ref={named}@{reference.sha[:12]}")
        parts += [f"crop={reference.crop}"] if reference.crop else []
    parts += [f"u8={quantiser}"] if quantiser else []
    told = cell.teacher.condition
    prompts = f"@{told.key['prompts'][:12]}" if told is not None and told.prompts else ""
    return "|".join(
        [*parts, f"seeds={seeds.label(images)}", f"condition={condition(cell.teacher).replace(' ', '-')}{prompts}"]
    )
