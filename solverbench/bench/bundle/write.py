"""The bundle that a report is drawn from: plain files, readable without torch and this package."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from solverbench import files, registries, seeds
from solverbench.bench.block import PICTURES
from solverbench.bench.bundle import axes, wins
from solverbench.bench.bundle.claims import verdicts
from solverbench.bench.bundle.notes import _lines, _tags, counts, notes
from solverbench.bench.bundle.provenance import _environment, _plugins
from solverbench.bench.bundle.selection import _selection, name, settled
from solverbench.bench.bundle.table import _metrics, frame
from solverbench.bench.bundle.trainings import pooled
from solverbench.bench.cells import CACHED, Cell, each_teacher
from solverbench.bench.outcome import Outcome, teachers_of_outcomes
from solverbench.bench.protocol import BLOCKS, Protocol
from solverbench.bench.run_options import RunOptions
from solverbench.errors import MissingError
from solverbench.learned import recipes, trained_files, zoo
from solverbench.method.solver import Solver
from solverbench.method.spec import solver_class
from solverbench.metrics import plugin
from solverbench.metrics.quantise import quantise
from solverbench.metrics.table import INCEPTION, MetricDefinition, ordered
from solverbench.sampling import endpoints
from solverbench.sampling import exact as solutions
from solverbench.sampling.devices import THREADS, pool
from solverbench.sampling.sample import BatchLimit, decoded
from solverbench.teachers.teacher import condition
from solverbench.wording import csv_text

SCHEMA = 1
TRAININGS = "trainings.csv"
"""The rows of each training seed, where results.csv has their mean."""


def write(
    outcomes: Sequence[Outcome],
    protocol: Protocol,
    options: RunOptions,
    *,
    seconds: float,
    command: str | None,
    table: pd.DataFrame | None = None,
) -> Path:
    """Write the bundle of these cells to OUT/reports/NAME and return that folder.

    Args:
        outcomes: the cells and their results.
        protocol: protocol of the run.
        options: requested options; OUT is their results folder.
        seconds: duration of the run, in seconds.
        command: command line as typed; rebuilt from the options if None.
        table: the cells' `frame`, if already computed.
    """
    from solverbench.bench import published

    options, root = settled(outcomes, protocol, options), Path(options.out)
    folder, shown = root / "reports" / name(outcomes, options), pooled(outcomes)
    table = frame(outcomes) if table is None else table
    if len(shown) < len(outcomes):
        files.write_bytes(folder / TRAININGS, _csv(table))
        table = frame(shown)
    files.write_bytes(folder / "results.csv", _csv(table))
    scores = wins.found(shown, root)
    if len(means := wins.table(scores)):
        files.write_bytes(folder / wins.PROMPTS, _csv(means))
    buffer = io.BytesIO()
    np.savez(buffer, **_images(shown, root))
    files.write_bytes(folder / "images.npz", buffer.getvalue())
    files.write_bytes(folder / "cells.json", json.dumps(_cells(shown), separators=(",", ":")).encode())
    record = {
        "schema": SCHEMA,
        "command": command or options.command(),
        "selection": _selection(outcomes, options),
        "protocol": _protocol(outcomes, protocol, root),
        "environment": {**_environment(options.device), **_plugins(outcomes), "seconds": _seconds(outcomes, seconds)},
        "metrics": _described(outcomes),
        "lines": [line for cell in _of_teachers(outcomes) for line in _lines(cell)],
        "notes": notes(shown, protocol),
        "verdicts": verdicts(shown, scores),
        "counts": counts(outcomes),
        "tags": _tags(outcomes, protocol),
        "published": published.compared(shown),
        "bibtex": _bibtex(outcomes),
        **_conditions(outcomes),
        **axes.of(teachers_of_outcomes(outcomes)).as_dict(),
        **({"wins": rates} if (rates := wins.rates(scores)) else {}),
    }
    files.write_bytes(folder / "bundle.json", (json.dumps(record, indent=1, ensure_ascii=False) + "\n").encode())
    return folder


def _csv(table: pd.DataFrame) -> bytes:
    return table.map(csv_text).to_csv(index=False, lineterminator="\n").encode()


def _seconds(outcomes: Sequence[Outcome], seconds: float) -> str:
    """Return, as text, the time of computing the cells and the time of this run, which may have found some of them."""
    made = sum(outcome.total("seconds") or 0.0 for outcome in outcomes)
    found = sum(outcome.status == CACHED for outcome in outcomes)
    reused = f", which found {found} of {len(outcomes)} cells in the store" if found else ""
    return f"{made:.0f} for sampling and features, summed over workers; {seconds:.0f} for this run{reused}"


def _cells(outcomes: Sequence[Outcome]) -> dict[str, dict[str, Any]]:
    """Return `cell` column to the executed plan and the values for paired differences."""
    found = {}
    for outcome in outcomes:
        if (plan := outcome.cell.plan) is not None:
            kept = ("over", "replicates", "leave_one_out", "trainings")
            told = {name: each.as_dict() for name, each in outcome.measures.items()}
            measured = {name: {key: each[key] for key in kept if key in each} for name, each in told.items()}
            found[outcome.place] = {"plan": plan.as_dict(), "measures": measured}
    return found


def _bibtex(outcomes: Sequence[Outcome]) -> str:
    """Return the BibTeX entries of the requested solvers."""
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


def _of_teachers(outcomes: Sequence[Outcome]) -> list[Cell]:
    """Return one cell of each teacher."""
    return each_teacher(outcome.cell for outcome in outcomes)


def _described(outcomes: Sequence[Outcome]) -> dict[str, dict[str, Any]]:
    cells = _of_teachers(outcomes)
    used = {metric for outcome in outcomes for metric in _metrics(outcome.cell)}
    found: dict[str, dict[str, Any]] = {}
    for each in map(plugin.described, ordered(used)):
        full = max(cell.measurement.full(each.name) for cell in cells)
        found[each.name] = {
            "label": f"{each.label} ({each.space or _space(each, cells)})",
            "short": each.short,
            "log": each.log,
            **({"higher": True} if each.higher else {}),
            **({} if each.ranked else {"ranked": False}),
            **({"full": full} if full else {}),
        }
    return found


def _space(metric: MetricDefinition, cells: Sequence[Cell]) -> str:
    """Return the name of a metric's feature space."""
    judged = [cell.teacher for cell in cells if cell.evaluation]
    if metric.features == INCEPTION:
        return "Inception features" + (", higher is better" if metric.higher else "")
    asked = {cell.measurement.extractor for cell in cells if cell.evaluation} - {""}
    if asked and not metric.public:
        return f"features of {', '.join(sorted(asked))}" + (", higher is better" if metric.higher else "")
    return f"{judged[0].name} features" if len(judged) == 1 else "each teacher's own features"


def _images(outcomes: Sequence[Outcome], root: Path) -> dict[str, Any]:
    """Return the images of the same first seeds, by every finished cell and by the teacher's own sampler."""
    found = {
        f"{each.cell.teacher.name}|{each.cell.solver}|{each.cell.nfe}": each.pictures
        for each in outcomes
        if each.pictures is not None
    }
    for outcome in {each.cell.teacher.name: each for each in outcomes if each.pictures is not None}.values():
        cell, teacher = outcome.cell, outcome.cell.teacher
        pairs = cell.protocol.pairs(cell.protocol.blocks[0])
        with pool(1) as threads:  # reads the stored endpoints, unless they were deleted
            work = threads.submit(endpoints.piece, teacher, cell.targets, pairs, root, batch=cell.protocol.batch)
            found[f"{teacher.name}|teacher|{teacher.sampler_nfe}"] = _pictures(cell, work.result()[:PICTURES])
    return found


def _conditions(outcomes: Sequence[Outcome]) -> dict[str, dict[str, list[str]]]:
    """Return, as `conditions`, the class or prompt of each image in images.npz by teacher; empty if none has any."""
    found = {}
    for cell in _of_teachers(outcomes):
        told, chosen = cell.teacher.condition, cell.protocol.blocks[0][:PICTURES]
        parts: list[list[str]] = []
        if told is not None and told.classes is not None:
            parts.append([f"class {label}" for label in told.labels(chosen, cell.teacher.shape)])
        if told is not None and told.prompts:
            parts.append(told.lines(chosen))
        if parts:
            found[cell.teacher.name] = [", ".join(texts) for texts in zip(*parts, strict=True)]
    return {"conditions": found} if found else {}


def _pictures(cell: Cell, states: torch.Tensor) -> NDArray[np.uint8]:
    images = decoded(cell.teacher, states, BatchLimit(PICTURES))
    found: NDArray[np.uint8] = quantise(images, cell.measurement.quantiser).cpu().numpy()
    return found


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
            f"{BLOCKS} blocks of each replicate; bias is not removed"
        ),
        "nfe": "calls of the denoiser for one sample, counted",
        "serial_calls": "those of them that must wait for one another: the longest chain of calls in the tableau",
    }
    for teacher in {each.cell.teacher.name: each.cell.teacher for each in outcomes if each.cell.exact}.values():
        found[f"exact solution on {teacher.name}"] = (
            f"{solutions.describe(teacher)}; RMSE over the first {protocol.solved // BLOCKS} images of each "
            f"block, n={protocol.solved} a replicate"
        )
    found |= _trained(outcomes, root)
    for cell in _of_teachers(outcomes):
        teacher, evaluation = cell.teacher, cell.evaluation
        found[f"teacher {teacher.name}"] = f"{teacher.identity[:16]}, own sampler {teacher.sampler} with "
        found[f"teacher {teacher.name}"] += f"{teacher.sampler_nfe} calls"
        error = next((each.convergence for each in outcomes if each.cell.teacher is teacher and each.convergence), None)
        found[f"reference error of {teacher.name}"] = "not measured" if error is None else error.text
        same = "; the same for every solver" if teacher.condition is not None else ""
        found[f"condition of {teacher.name}"] = condition(teacher) + same
        if teacher.arithmetic != "float32":
            found[f"network of {teacher.name}"] = teacher.arithmetic
        if evaluation is not None:
            found[f"features of {teacher.name}"] = f"{evaluation.extractor_id}, uint8 by {evaluation.quantiser}"
            found[f"data reference of {teacher.name}"] = f"{evaluation.data.name} ({evaluation.data.sha[:12]})"
            if (own := evaluation.teacher) is not None:
                found[f"teacher reference of {teacher.name}"] = f"{own.name} ({own.sha[:12]})"
    return found


def _trained(outcomes: Sequence[Outcome], root: Path) -> dict[str, str]:
    """Return the trained parameters that each learned solver used, and where they are stored."""
    found: dict[str, list[str]] = {}
    for cell in (outcome.cell for outcome in outcomes):
        if cell.trained is not None:
            names = [Path(cell.teacher.name) / name for name in trained_files.file_names(cell.spec, cell.nfe)]
            places = zoo.places(root).items()
            there = [place for place, folder in places if any((folder / name).is_file() for name in names)]
            found.setdefault(f"parameters of {cell.solver} for {cell.teacher.name}", []).append(
                f"NFE {cell.nfe} {there[0] if there else 'removed since'} {cell.trained.identity[:12]}{_recipe(cell)}"
            )
    return {solver: "; ".join(each) for solver, each in found.items()}


def _recipe(cell: Cell) -> str:
    """Return how a trained solver's recipe differs from the current one; empty if it doesn't."""
    assert cell.trained is not None
    with suppress(MissingError):
        now = recipes.chosen(trained_files.learned(cell.spec), cell.teacher)
        if changed := recipes.changes(cell.trained.record.get("recipe", {}), now):
            return f" (trained by an earlier recipe: {changed})"
    return ""
