"""The bundle: what a report is drawn from, as plain files that need neither torch nor this package to be read."""

from __future__ import annotations

import importlib.metadata
import io
import json
import os
import platform
import re
import shlex
import subprocess
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

import registries
from solverbench import (
    __version__,
    cells,
    energy,
    fid,
    files,
    judging,
    plugins,
    recipes,
    scores,
    seeds,
    solutions,
    targets,
    tested,
    zoo,
)
from solverbench.cells import REPLICATES, SAMPLES, STATUSES, Cell, Protocol
from solverbench.errors import MissingError
from solverbench.evaluate import PICTURES
from solverbench.measures import Measure
from solverbench.metrics import quantise
from solverbench.outcome import Outcome
from solverbench.perceptual import LPIPS
from solverbench.sampling import BATCH, THREADS, Fit, decoded, device_name, pool
from solverbench.solver import Solver
from solverbench.spec import solver_class
from solverbench.teachers import Teacher
from solverbench.uncertainty import over_sets
from solverbench.verdicts import verdicts

SCHEMA = 1
COLUMNS = [
    *("teacher", "solver", "spec", "nfe", "metric", "value", "low", "high", "std_error", "n", "replicates", "seeds"),
    *("reference", "extractor", "quantiser", "status", "reason", "cell", "net_passes", "learned"),
    *("metric_loss", "inferred", "validation", "validation_spread"),
    *("metric_id", "biased", "sd"),
    *("cost_seconds", "cost_denoiser_seconds", "cost_images_per_second", "cost_peak_memory_bytes"),
    *("cost_batch", "cost_shared_calls", "cost_joules"),
    *("cost_training_seeds", "cost_training_student_calls", "cost_training_teacher_calls"),
    *("cost_training_seconds", "cost_training_peak_memory_bytes"),
]
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
    """Return the tidy table: one row per cell and metric, `COLUMNS`; without a value where there is a reason."""
    rows = [_row(outcome, metric) for outcome in outcomes for metric in _metrics(outcome.cell)]
    return pd.DataFrame(rows, columns=COLUMNS)


def write(
    root: Path,
    outcomes: Sequence[Outcome],
    protocol: Protocol,
    *,
    device: str,
    seconds: float,
    command: str | None,
    train: str | None = None,
    table: pd.DataFrame | None = None,
) -> Path:
    """Write the bundle of exactly these cells to root/reports/NAME and return that folder.

    Args:
        table: their `frame`, if it is known already.
        command: as it was typed; rebuilt from the selection if None.
        seconds: that the run took.
        train: what it was told to train.
    """
    from solverbench import published  # it runs cells, and so imports this module

    folder = root / "reports" / name(outcomes, protocol, device)
    files.write_bytes(
        folder / "results.csv",
        (frame(outcomes) if table is None else table).to_csv(index=False, lineterminator="\n").encode(),
    )
    buffer = io.BytesIO()
    np.savez(buffer, **_images(outcomes, root))
    files.write_bytes(folder / "images.npz", buffer.getvalue())
    files.write_bytes(folder / "cells.json", json.dumps(_cells(outcomes), separators=(",", ":")).encode())
    record = {
        "schema": SCHEMA,
        "command": command or _command(outcomes, protocol, device, root, train),
        "selection": _selection(outcomes, protocol, device),
        "protocol": _protocol(outcomes, protocol, root),
        "environment": {**_environment(device), **_plugins(outcomes), "seconds": _seconds(outcomes, seconds)},
        "metrics": _described(outcomes),
        "lines": [line for teacher in _teachers(outcomes) for line in _lines(teacher)],
        "notes": notes(outcomes, protocol),
        "verdicts": verdicts(outcomes),
        "counts": counts(outcomes),
        "tags": _tags(outcomes, protocol),
        "published": published.beside(outcomes),
        "bibtex": _bibtex(outcomes),
    }
    files.write_bytes(folder / "bundle.json", (json.dumps(record, indent=1, ensure_ascii=False) + "\n").encode())
    return folder


def _seconds(outcomes: Sequence[Outcome], seconds: float) -> str:
    """What the cells cost when they were made, and this run, which may have found them in the store."""
    made = sum(outcome.total("seconds") or 0.0 for outcome in outcomes)
    return f"{made:.0f} of sampling and features over all workers; this run, with what it found stored, {seconds:.0f}"


def several(found: Sequence[Any]) -> str:
    """Return how many cells there are, in words."""
    return f"{len(found)} cell{'s' * (len(found) != 1)}"


def counts(outcomes: Sequence[Outcome]) -> dict[str, int]:
    """Return how many cells have each status; they add up to all."""
    found = Counter(outcome.status for outcome in outcomes)
    return {status: found[status] for status in STATUSES}


def name(outcomes: Sequence[Outcome], protocol: Protocol, device: str) -> str:
    """Return the report's folder: a slug and a short hash of the selection."""
    selection = _selection(outcomes, protocol, device)
    words = "-".join([*selection["teachers"], *selection["solvers"], "nfe", *_spans(selection["nfe"])])
    slug = re.sub(r"[^a-z0-9.]+", "-", words.lower()).strip("-")[:60]
    return f"{slug}-{files.digest(selection)[:8]}"


def _cells(outcomes: Sequence[Outcome]) -> dict[str, dict[str, Any]]:
    """By the `cell` column: the plan that was executed, and what paired differences are taken of."""
    found = {}
    for outcome in outcomes:
        if (plan := outcome.cell.plan) is not None:
            kept = ("over", "replicates", "leave_one_out")
            measured = {name: {key: each.as_dict()[key] for key in kept} for name, each in outcome.measures.items()}
            found[outcome.cell.address[:16]] = {"plan": plan.as_dict(), "measures": measured}
    return found


def _bibtex(outcomes: Sequence[Outcome]) -> str:
    """The papers of the solvers asked for."""
    known, wanted, given = registries.bibliography(), list[str](), dict[str, None]()
    for spec in dict.fromkeys(outcome.cell.spec for outcome in outcomes):
        name = spec.partition(":")[0]
        cls = solver_class(name) if name in registries.solvers else Solver
        given |= {cls.bibtex.strip(): None} if cls.bibtex else {}
        said = cls.paper
        said += " ".join(registries.grids.about(grid) for grid in re.findall(r"grid=(gits\w*)", spec))
        wanted += re.findall(r"arXiv:([0-9.]+[0-9])", said)
    found = [known[number] for number in dict.fromkeys(wanted) if number in known]
    return "\n\n".join([*found, *given])


def _row(outcome: Outcome, metric: str) -> dict[str, Any]:
    cell, found = outcome.cell, outcome.measures.get(metric)
    extractor, quantiser = _judged_by(cell, metric)
    images = {"rmse_exact": cell.protocol.solved}
    images |= dict.fromkeys(("rmse_teacher", *judging.PAIRS), cell.protocol.paired)
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
    if metric in judging.PROMPTED and scorer is not None:
        return scorer.identity, cell.protocol.judging.rule(cell.teacher)
    if metric in cell.protocol.judging.scored(cell.teacher):
        return scores.identity(metric), cell.protocol.judging.rule(cell.teacher)
    if metric == "lpips_teacher":
        return LPIPS.identity, ""
    if metric in (*judging.PUBLIC, *judging.FEATURES) and judged is not None:
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


def condition(teacher: Teacher) -> str:
    """Return which class or prompt an image gets, for people."""
    return str(teacher.condition or ("by seed" if teacher.bind else "none"))


def _teachers(outcomes: Sequence[Outcome]) -> list[Teacher]:
    return list({outcome.cell.teacher.name: outcome.cell.teacher for outcome in outcomes}.values())


def _described(outcomes: Sequence[Outcome]) -> dict[str, dict[str, Any]]:
    teachers = _teachers(outcomes)
    used = {metric for outcome in outcomes for metric in _metrics(outcome.cell)}
    found: dict[str, dict[str, Any]] = {}
    for metric in _ordered(used):
        if metric not in METRICS:
            found[metric] = _plugged(metric)
            continue
        label, short, space = METRICS[metric]
        found[metric] = {
            "label": f"{label} ({_space(metric, teachers) if space == 'features' else space})",
            "short": short,
            "log": metric not in LINEAR,
            **({"higher": True} if metric in HIGHER else {}),
            **({"full": full} if (full := max(judging.full(metric, teacher) for teacher in teachers)) else {}),
        }
    return found


def _plugged(metric: str) -> dict[str, Any]:
    """A metric by a plugin, as it describes itself."""
    cls, label = plugins.get(registries.metrics, metric), scores.label(metric)
    higher = {"higher": True} if cls.higher else {}
    told = ", higher is better" if cls.higher else ""
    return {"label": f"{label} (plugin{told})", "short": label, "log": cls.log, **higher}


def _space(metric: str, teachers: Sequence[Teacher]) -> str:
    """Whose features a metric is of."""
    judged = [teacher for teacher in teachers if teacher.evaluation]
    if metric in judging.INCEPTION:
        return "Inception features" + (", higher is better" if metric in HIGHER else "")
    return f"{judged[0].name} features" if len(judged) == 1 else "each teacher's own features"


def _images(outcomes: Sequence[Outcome], root: Path) -> dict[str, Any]:
    """The same first seeds by every finished cell, and by the teacher's own sampler."""
    found = {
        f"{each.cell.teacher.name}|{each.cell.solver}|{each.cell.nfe}": each.pictures
        for each in outcomes
        if each.pictures is not None
    }
    for outcome in {each.cell.teacher.name: each for each in outcomes if each.pictures is not None}.values():
        cell, teacher = outcome.cell, outcome.cell.teacher
        pairs = cell.protocol.pairs(cell.protocol.blocks[0])
        with pool(1) as threads:  # the endpoints are there already, unless someone deleted them
            work = threads.submit(targets.piece, teacher, cell.targets, pairs, root, batch=cell.protocol.batch)
            found[f"{teacher.name}|teacher|{teacher.sampler_nfe}"] = _pictures(cell, work.result()[:PICTURES])
    return found


def _pictures(cell: Cell, states: torch.Tensor) -> NDArray[np.uint8]:
    images = decoded(cell.teacher, states, Fit(PICTURES))
    found: NDArray[np.uint8] = quantise(images, cell.protocol.judging.rule(cell.teacher)).cpu().numpy()
    return found


def _selection(outcomes: Sequence[Outcome], protocol: Protocol, device: str) -> dict[str, Any]:
    each = [outcome.cell for outcome in outcomes]
    return {
        "teachers": list(dict.fromkeys(cell.teacher.name for cell in each)),
        "identities": list(dict.fromkeys(cell.teacher.identity for cell in each)),
        "solvers": list(dict.fromkeys(cell.solver for cell in each)),
        "specs": list(dict.fromkeys(cell.spec for cell in each)),
        "nfe": sorted({cell.nfe for cell in each}),
        "seeds": seeds.label(protocol.seeds),
        "samples": protocol.samples,
        "batch": protocol.batch,
        "full": protocol.full,
        **({} if protocol.exact is None else {"exact": protocol.exact}),
        **_conditions(outcomes),
        **({"judging": protocol.judging.selection} if protocol.judging.selection else {}),
        "device": torch.device(device).type,
    }


def _conditions(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """What the teachers' images depend on beside identities, where that isn't the usual."""
    found = {teacher.name: targets.conditioned(teacher) for teacher in _teachers(outcomes)}
    for teacher in _teachers(outcomes):
        if teacher.arithmetic != "float32":
            found[teacher.name]["dtype"] = teacher.arithmetic
    told = {name: each for name, each in found.items() if each}
    return {"conditions": told} if told else {}


def _command(outcomes: Sequence[Outcome], protocol: Protocol, device: str, root: Path, train: str | None) -> str:
    selection = _selection(outcomes, protocol, device)
    words = ["solverbench", "run", "--solvers", ",".join(selection["solvers"])]
    asked = [teacher.spec or teacher.name for teacher in _teachers(outcomes)]
    words += ["--nfe", ",".join(_spans(selection["nfe"])), "--teachers", ",".join(asked)]
    words += ["--samples", str(protocol.samples), "--seeds", selection["seeds"], "--batch", str(protocol.batch)]
    exact = {None: [], True: ["--exact"], False: ["--no-exact"]}[protocol.exact]
    words += ["--train", train] if train else []
    words += [*(["--full"] if protocol.full else []), *exact, *protocol.judging.flags]
    words += [*plugins.flags(), "--device", device, "--out", str(root)]
    return shlex.join(words)


def _spans(numbers: Sequence[int]) -> list[str]:
    """Sorted numbers as people write them: 3-6, 9."""
    spans: list[list[int]] = []
    for number in numbers:
        if spans and number == spans[-1][-1] + 1:
            spans[-1].append(number)
        else:
            spans.append([number])
    return [str(span[0]) if len(span) == 1 else f"{span[0]}-{span[-1]}" for span in spans]


def _protocol(outcomes: Sequence[Outcome], protocol: Protocol, root: Path) -> dict[str, str]:
    exact = f", to the exact solution: {protocol.solved}" if any(each.cell.exact for each in outcomes) else ""
    paired = f"RMSE: {protocol.paired}{exact}"
    found = {
        "seeds": f"{seeds.label(protocol.seeds)}: {protocol.replicates} replicates of {protocol.samples} images",
        "noise": "each image's own, from its seed on the CPU; the same for every solver",
        "batch": f"{min(protocol.batch, protocol.block)} images per call, {THREADS} thread",
        "paired": f"RMSE over the first {protocol.paired} images of each replicate, sqrt of their mean squared error",
        "interval": (
            f"95 %, sampling error at n={protocol.samples} ({paired}): delete-a-block jackknife over "
            f"{cells.BLOCKS} blocks of each replicate; bias is not removed"
        ),
        "nfe": "calls of the denoiser for one sample, counted",
    }
    for teacher in {each.cell.teacher.name: each.cell.teacher for each in outcomes if each.cell.exact}.values():
        found[f"exact solution on {teacher.name}"] = (
            f"{solutions.describe(teacher)}; RMSE over the first {protocol.solved // cells.BLOCKS} images of each "
            f"block, n={protocol.solved} a replicate"
        )
    found |= _trained(outcomes, root)
    for teacher in _teachers(outcomes):
        found[f"teacher {teacher.name}"] = f"{teacher.identity[:16]}, own sampler {teacher.sampler} with "
        found[f"teacher {teacher.name}"] += f"{teacher.sampler_nfe} calls"
        same = "; the same for every solver" if teacher.condition is not None else ""
        found[f"condition of {teacher.name}"] = condition(teacher) + same
        if teacher.arithmetic != "float32":
            found[f"network of {teacher.name}"] = teacher.arithmetic
        if teacher.evaluation is not None:
            evaluation = teacher.evaluation
            found[f"features of {teacher.name}"] = f"{evaluation.extractor_id}, uint8 by {evaluation.quantiser}"
            found[f"data reference of {teacher.name}"] = f"{evaluation.data.name} ({evaluation.data.sha[:12]})"
            if (own := evaluation.teacher) is not None:
                found[f"teacher reference of {teacher.name}"] = f"{own.name} ({own.sha[:12]})"
    return found


def _trained(outcomes: Sequence[Outcome], root: Path) -> dict[str, str]:
    """Which trained parameters each learned solver ran with, and where they lie."""
    found: dict[str, list[str]] = {}
    for cell in (outcome.cell for outcome in outcomes):
        if cell.trained is not None:
            name = Path(cell.teacher.name) / zoo.file_name(cell.spec, cell.nfe)
            there = [place for place, folder in zoo.places(root).items() if (folder / name).is_file()]
            found.setdefault(f"parameters of {cell.solver} for {cell.teacher.name}", []).append(
                f"NFE {cell.nfe} {there[0] if there else 'removed since'} {cell.trained.identity[:12]}{_recipe(cell)}"
            )
    return {solver: "; ".join(each) for solver, each in found.items()}


def _recipe(cell: Cell) -> str:
    """How a trained solver's recipe differs from the one that it would be trained by now."""
    assert cell.trained is not None
    with suppress(MissingError):
        now = recipes.chosen(zoo.learned(cell.spec), cell.teacher)
        if changed := recipes.changes(cell.trained.record.get("recipe", {}), now):
            return f" (by another recipe than today's: {changed})"
    return ""


def _environment(device: str) -> dict[str, Any]:
    kind = torch.device(device).type
    return {
        "solverbench": __version__,
        "python": platform.python_version(),
        **_versions(),
        "system": platform.platform(),
        "machine": platform.machine(),
        "cores": os.cpu_count(),
        "commit": _commit() or "unknown",
        "device": device_name(device),
        **(_cuda() if kind == "cuda" else {}),
    }


_PACKAGES = (
    "torch",
    "numpy",
    "scipy",
    "pandas",
    "torchdiffeq",
    "diffusers",
    "transformers",
    "clean-fid",
    "lpips",
    "ray",
)


@cache
def _versions() -> dict[str, str]:
    """The packages that numbers may depend on, as far as they are installed; as they were when first asked for."""
    found = {}
    for package in _PACKAGES:
        with suppress(importlib.metadata.PackageNotFoundError):
            found[package] = importlib.metadata.version(package)
    return found


@cache
def _commit() -> str:
    """The commit of this package's checkout when first asked for, + where files differ; empty if it isn't in one."""
    try:
        git = ["git", "-C", str(Path(__file__).parent), "-c", "safe.directory=*"]
        told = subprocess.run(
            [*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=True, timeout=60
        ).stdout
        changed = subprocess.run([*git, "status", "--porcelain", "-uno"], capture_output=True, check=True, timeout=60)
        tracked = subprocess.run([*git, "ls-files", "--error-unmatch", __file__], capture_output=True, timeout=60)
    except (OSError, subprocess.SubprocessError):
        return ""
    return "" if tracked.returncode else told.strip()[:12] + ("+" if changed.stdout else "")


def _plugins(outcomes: Sequence[Outcome]) -> dict[str, str]:
    """What isn't built in, each with who offers it and the sha256 of its source."""
    found: dict[str, str] = {}
    for outcome in outcomes:
        for what, told in outcome.cell.plugins.items():
            found[f"plugin {what}"] = f"{told['source']}, {told['target']}, sha256 {told['sha256'][:16] or 'unknown'}"
    return found


def _cuda() -> dict[str, Any]:
    """What can change the last bits on a GPU."""
    return {
        "gpus": torch.cuda.device_count(),
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),  # type: ignore[no-untyped-call]
        "driver": energy.driver() or "unknown",
        "tf32 of matrix products": torch.backends.cuda.matmul.allow_tf32,
        "tf32 of convolutions": torch.backends.cudnn.allow_tf32,
        "cudnn benchmark": torch.backends.cudnn.benchmark,
        "deterministic": torch.are_deterministic_algorithms_enabled(),
    }


def _lines(teacher: Teacher) -> list[dict[str, Any]]:
    """Horizontal lines: what the teacher's own sampler and fresh data reach."""
    facts: Mapping[str, Any] = teacher.evaluation.facts if teacher.evaluation is not None else {}
    known = {
        "teacher_distance": ("frechet_data", f"teacher, {teacher.sampler.split(':')[0]} {teacher.sampler_nfe} calls"),
        "data_floor": ("frechet_data", "data floor"),
        "teacher_floor": ("frechet_teacher", "teacher floor"),
    }
    return [
        {
            "teacher": teacher.name,
            "metric": metric,
            "label": label,
            "value": facts[fact]["mean"],
            "low": facts[fact]["low"],
            "high": facts[fact]["high"],
            "n": facts[fact]["n"],
        }
        for fact, (metric, label) in known.items()
        if fact in facts
    ]


def notes(outcomes: Sequence[Outcome], protocol: Protocol) -> list[str]:
    """Return what a reader would trip over: one sentence each."""
    found: list[str] = []
    for outcome in outcomes:
        cell, measured = outcome.cell, outcome.measures.get("frechet_data")
        facts = cell.teacher.evaluation.facts if cell.teacher.evaluation is not None else {}
        own = facts.get("teacher_distance")
        if cell.learned and measured and own and measured.interval[1] < own["low"]:
            found.append(
                f"{cell.solver} NFE {cell.nfe} is nearer to the data ({measured.value:.3g}) than its teacher's own "
                f"samples ({own['mean']:.3g}, n={own['n']}): it was trained to imitate the teacher, so this doesn't "
                "prove a better sampler; read the distance to the teacher beside it"
            )
    found += one_method([outcome.cell for outcome in outcomes])
    for teacher in _teachers(outcomes):
        if teacher.evaluation is not None and teacher.evaluation.data.note:
            found.append(teacher.evaluation.data.note)
        found += judging.lacking([teacher])
        if teacher.evaluation is None and not set(teacher.lacking) & set(judging.PUBLIC):
            found.append(f"no FID of {teacher.name}: {_without_fid()}")
        lines = _lines(teacher)
        if any(line["n"] != protocol.samples for line in lines):
            found.append(
                f"the lines of {teacher.name} are at n={lines[0]['n']}, the solvers at n={protocol.samples}: Fréchet "
                "distances fall with n, so the two can't be compared exactly"
            )
        prompts = len(teacher.condition.prompts) if teacher.condition is not None else 0
        if 0 < prompts < protocol.samples:
            found.append(
                f"{teacher.name} has {prompts} prompts for {protocol.samples} images a replicate: a prompt stands for "
                "several of them, with other noise"
            )
    return found + tested.newer(torch.__version__)


def one_method(cells: Sequence[Cell]) -> list[str]:
    """Return a line for people on each set of cells that are one tableau under several names."""
    alike: dict[tuple[str, int, str, str], list[str]] = {}
    for cell in cells:
        if cell.plan is not None:
            adapted = "" if cell.adapt(cell.teacher.denoise) is cell.teacher.denoise else cell.spec
            alike.setdefault((cell.teacher.name, cell.nfe, cell.plan.key, adapted), []).append(cell.solver)
    groups: dict[tuple[str, ...], list[str]] = {}
    for (teacher, nfe, *_), names in alike.items():
        if len(names) > 1:
            groups.setdefault(tuple(names), []).append(f"NFE {nfe} on {teacher}")
    return [
        f"{' and '.join(names)} are one method at {', '.join(places)}: computed once, reported under each name"
        for names, places in groups.items()
    ]


def _without_fid() -> str:
    """What is missing for an FID on this machine, or how it is asked for."""
    try:
        fid.find()
    except MissingError as error:
        return str(error)
    return "it wasn't asked for; use --metrics fid"


def _tags(outcomes: Sequence[Outcome], protocol: Protocol) -> list[str]:
    """How the protocol differs from the default one, where that weakens the numbers."""
    tags = []
    if protocol.replicates < REPLICATES and protocol.samples < judging.FULL:
        tags.append(f"replicates={protocol.replicates} (default {REPLICATES})")
    full = max((each.full for teacher in _teachers(outcomes) if (each := teacher.evaluation)), default=SAMPLES)
    if any(outcome.biased(metric) for outcome in outcomes for metric in outcome.measures):
        told = f"default {SAMPLES}" if full == SAMPLES else f"papers {full}"
        tags.append(f"n={protocol.samples} ({told}): Fréchet distances are biased upwards")
    if protocol.batch != BATCH:
        tags.append(f"batch={protocol.batch} (default {BATCH})")
    return tags
