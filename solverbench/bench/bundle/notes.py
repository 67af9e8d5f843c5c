"""Notes, tags and reference lines of a report."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch

from solverbench import tested
from solverbench.bench import statistics
from solverbench.bench.cells import STATUSES, Cell, each_teacher, lacking
from solverbench.bench.outcome import REFERENCE, Outcome, teachers_of_outcomes
from solverbench.bench.protocol import REPLICATES, SAMPLES, Protocol
from solverbench.errors import MissingError
from solverbench.evaluation import selection
from solverbench.metrics import table
from solverbench.metrics.evaluation import OWN
from solverbench.metrics.extractors import inception as fid
from solverbench.sampling.sample import BATCH
from solverbench.store.verdict import roughly
from solverbench.teachers.convergence import SHARE, warning
from solverbench.wording import BELOW_ERROR

PAIRS = 100
"""Largest number of pairs of solvers that a note names."""
MORE = "and more"
"""End of a list that doesn't name them all."""


def several(found: Sequence[Any]) -> str:
    """Return the number of cells as text, with the right plural."""
    return f"{len(found)} cell{'s' * (len(found) != 1)}"


def counts(outcomes: Sequence[Outcome]) -> dict[str, int]:
    """Return the number of cells of each status; they add up to all cells."""
    found = Counter(outcome.status for outcome in outcomes)
    return {status: found[status] for status in STATUSES}


def _lines(cell: Cell) -> list[dict[str, Any]]:
    """Return the horizontal lines of a plot: the values of the teacher's own sampler and of fresh data."""
    teacher = cell.teacher
    facts: Mapping[str, Any] = cell.evaluation.facts if cell.evaluation is not None else {}
    to_data = next((name for name in table.FRECHET if cell.evaluation and name in cell.evaluation.metrics), OWN[0])
    known = {
        "teacher_distance": (to_data, f"teacher, {teacher.sampler.split(':')[0]} {teacher.sampler_nfe} calls"),
        "data_floor": (to_data, "data floor"),
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
    """Return notes on possible misreadings, one sentence each."""
    found: list[str] = []
    for outcome in outcomes:
        cell, measured = outcome.cell, outcome.measures.get("frechet_data")
        facts = cell.evaluation.facts if cell.evaluation is not None else {}
        own = facts.get("teacher_distance")
        if cell.learned and measured and own and measured.interval[1] < own["low"]:
            found.append(
                f"{cell.solver} NFE {cell.nfe} is nearer to the data ({measured.value:.3g}) than its teacher's own "
                f"samples ({own['mean']:.3g}, n={own['n']}): it was trained to imitate the teacher, so this doesn't "
                "prove a better sampler; compare the distances to the teacher, too"
            )
    cells = [outcome.cell for outcome in outcomes]
    found += diverging(outcomes) + one_method(cells) + side_by_side(cells) + reference(outcomes) + merged(outcomes)
    for cell in each_teacher(outcome.cell for outcome in outcomes):
        teacher = cell.teacher
        if teacher.shown != teacher.name:
            found.append(f"{teacher.shown} is the teacher {teacher.name}")
        found += [f"{teacher.shown}: {note}" for note in teacher.notes]
        if cell.evaluation is not None and cell.evaluation.data.note:
            found.append(cell.evaluation.data.note)
        found += lacking([cell])
        if cell.evaluation is None and not table.public(cell.lacking):
            found.append(f"no FID of {teacher.shown}: {_without_fid()}")
        lines = _lines(cell)
        if any(line["n"] != protocol.samples for line in lines):
            found.append(
                f"the reference lines of {teacher.shown} (floor, teacher) are at n={lines[0]['n']}, the solvers at "
                f"n={protocol.samples}: Fréchet distances fall with n, so the two can't be compared, and figures "
                "leave the lines out"
            )
        if speed := _batched(outcomes, cell):
            found.append(speed)
        prompts = len(teacher.condition.prompts) if teacher.condition is not None else 0
        if 0 < prompts < protocol.samples:
            found.append(
                f"{teacher.shown} has {prompts} prompts for {protocol.samples} images a replicate: each "
                "prompt is used for several images, with different noise"
            )
    for solver, seeds in dict.fromkeys((each.cell.solver, len(each.parts)) for each in outcomes if each.parts):
        found.append(
            f"{solver}: the mean over {seeds} training seeds; its intervals, and those of differences to it, hold the "
            "spread between trainings; trainings.csv has each of them"
        )
    return found + tested.newer(torch.__version__)


def _batched(outcomes: Sequence[Outcome], cell: Cell) -> str:
    """Return at which batch a teacher's speed was measured if that isn't the requested one; empty otherwise."""
    found = [each.least("batch") for each in outcomes if each.cell.teacher is cell.teacher]
    used, wanted = min((int(each) for each in found if each), default=0), cell.protocol.batch
    if not 0 < used < wanted:
        return ""
    why = "a seed block has no more" if used == cell.protocol.block else "the device's memory holds no more"
    return (
        f"speeds of {cell.teacher.shown} were measured at {used} images a call, not at the {wanted} of --batch, "
        f"because {why}: compare them only with speeds at that batch, see cost_batch"
    )


def one_method(cells: Sequence[Cell]) -> list[str]:
    """Return a human-readable line for each set of cells that have the same tableau under several names."""
    alike: dict[tuple[str, int, str, str], list[str]] = {}
    for cell in cells:
        if cell.plan is not None:
            adapted = "" if cell.adapt(cell.teacher.denoise) is cell.teacher.denoise else cell.spec
            alike.setdefault((cell.teacher.shown, cell.nfe, cell.plan.key, adapted), []).append(cell.solver)
    groups: dict[tuple[str, ...], list[str]] = {}
    for (teacher, nfe, *_), names in alike.items():
        if len(names) > 1:
            groups.setdefault(tuple(names), []).append(f"NFE {nfe} on {teacher}")
    return [
        f"{' and '.join(names)} are one method at {', '.join(places)}: computed once, reported under each name"
        for names, places in groups.items()
    ]


def side_by_side(cells: Sequence[Cell]) -> list[str]:
    """Return one sentence on the cells whose calls don't all wait for one another, with their serial calls."""
    groups: dict[str, dict[int, int]] = {}
    for cell in cells:
        if cell.plan is not None and cell.plan.serial_calls != cell.nfe:
            groups.setdefault(cell.solver, {})[cell.nfe] = cell.plan.serial_calls
    told = [
        f"{solver} NFE {', '.join(map(str, budgets))}: {', '.join(map(str, budgets.values()))} serial calls"
        for solver, budgets in groups.items()
    ]
    said = "some calls of these don't wait for one another, and a machine with room for them can run them side by side"
    return [f"{said}: {'; '.join(told)}"] if told else []


def merged(outcomes: Sequence[Outcome]) -> list[str]:
    """Return one sentence for each other store that cells were merged from."""
    origins = Counter(roughly(outcome.origin) for outcome in outcomes if outcome.origin)
    return [
        f"{count} of the {len(outcomes)} cells {'were' if count > 1 else 'was'} merged from {origin}"
        for origin, count in origins.items()
    ]


def diverging(outcomes: Sequence[Outcome]) -> list[str]:
    """Return one sentence for each teacher whose own samples lie out of the range of images."""
    found: list[str] = []
    for teacher in teachers_of_outcomes(outcomes):
        own = [each for each in outcomes if each.cell.teacher.name == teacher.name]
        told = (statistics.teacher_diverges(each.statistics, pixels=teacher.decode is None) for each in own)
        if said := next(filter(None, told), ""):
            found.append(
                f"{teacher.shown}'s own samples are out of range: {said}; check the teacher, since distances to such "
                "samples, and to the data, say little about solvers"
            )
    return found


def reference(outcomes: Sequence[Outcome]) -> list[str]:
    """Return one sentence for each teacher on how the error of its reference limits the paired errors shown."""
    found: list[str] = []
    for teacher in teachers_of_outcomes(outcomes):
        own = [each for each in outcomes if each.cell.teacher.name == teacher.name and table.ALWAYS in each.measures]
        told = own[0].convergence if own else None
        if told is None:
            continue
        if told.error is None:
            found.append(f"the error of the reference of {teacher.shown} is {told.text}")
            continue
        if line := warning(teacher.shown, teacher.sampler_nfe, told.error):
            found.append(line)
        marked = [each for each in own if REFERENCE in each.flags()]
        if marked:
            found.append(
                f"{len(marked)} of {several(own)} on {teacher.shown} have an RMSE below {SHARE} times the error of "
                f"their reference, {told.error:.2g}, and so are partly that error"
                + (f": {_grouped(marked)}" if len(marked) < len(own) else "")
            )
        if pairs := _alike(own, told.error):
            every = not pairs.endswith(MORE) and pairs == _alike(own, math.inf)
            found.append(
                f"on {teacher.shown} {'all' if every else 'these'} differences of RMSE are {BELOW_ERROR}, "
                f"{told.error:.2g}, and decide nothing" + ("" if every else f": {pairs}")
            )
    return found


def _grouped(own: Sequence[Outcome]) -> str:
    """Return cells as text, such as `dpm NFE 9, 10; unipc NFE 10`."""
    groups: dict[str, list[int]] = {}
    for each in own:
        groups.setdefault(each.cell.solver, []).append(each.cell.nfe)
    return "; ".join(f"{solver} NFE {', '.join(map(str, budgets))}" for solver, budgets in groups.items())


def _alike(own: Sequence[Outcome], error: float) -> str:
    """Return the pairs of solvers whose RMSE at one NFE differs by less than `error`, at most `PAIRS` of them."""
    pairs: dict[str, list[int]] = {}
    found = list(itertools.islice(_near(own, error), PAIRS + 1))
    for i, j in sorted(found[:PAIRS]):
        pairs.setdefault(f"{own[i].cell.solver} and {own[j].cell.solver}", []).append(own[i].cell.nfe)
    told = [f"{names} at NFE {', '.join(map(str, budgets))}" for names, budgets in pairs.items()]
    return "; ".join([*told, *([MORE] if len(found) > PAIRS else [])])


def _near(own: Sequence[Outcome], error: float) -> Iterator[tuple[int, int]]:
    """Yield the places of two cells of one NFE and different plans whose RMSE differs by less than `error`."""
    values = [each.measures[table.ALWAYS].value for each in own]
    order = sorted(range(len(own)), key=lambda place: (own[place].cell.nfe, values[place]))
    for at, i in enumerate(order):
        for j in order[at + 1 :]:
            a, b = own[i].cell, own[j].cell
            if a.nfe != b.nfe or not values[j] - values[i] < error:
                break
            if a.plan is None or b.plan is None or a.plan.key != b.plan.key:
                yield min(i, j), max(i, j)


def _without_fid() -> str:
    """Return the note of a report without FID: the file that this machine lacks, or the flag that asks for FID."""
    try:
        fid.find()
    except MissingError as error:
        return str(error)
    return "it wasn't asked for; use --metrics fid"


def _tags(outcomes: Sequence[Outcome], protocol: Protocol) -> list[str]:
    """Return what readers should know first: doubts about the reference, and differences from the default protocol."""
    tags = []
    if protocol.replicates < REPLICATES and protocol.samples < selection.FULL:
        tags.append(f"replicates={protocol.replicates} (default {REPLICATES})")
    full = max((judged.full for outcome in outcomes if (judged := outcome.cell.evaluation)), default=SAMPLES)
    biased = any(outcome.biased(metric) for outcome in outcomes for metric in outcome.measures)
    if biased or protocol.samples < SAMPLES:
        told = f"default {SAMPLES}" if full == SAMPLES or not biased else f"papers {full}"
        meant = ["intervals are wide"] * (protocol.samples < SAMPLES) + [
            "Fréchet distances are biased upwards"
        ] * biased
        tags.append(f"n={protocol.samples} ({told}): {', '.join(meant)}")
    if protocol.batch != BATCH:
        tags.append(f"batch={protocol.batch} (default {BATCH})")
    tags += [f"{name}={value}" for name, value in protocol.extra.items()]
    return [*unconverged(outcomes), *diverging(outcomes), *tags]


def unconverged(outcomes: Sequence[Outcome]) -> list[str]:
    """Return the sentence about each teacher's reference that isn't converged."""
    found = []
    for teacher in teachers_of_outcomes(outcomes):
        own = [each for each in outcomes if each.cell.teacher.name == teacher.name and table.ALWAYS in each.measures]
        if own and own[0].convergence is not None:
            found.append(warning(teacher.shown, teacher.sampler_nfe, own[0].convergence.error))
    return list(filter(None, found))
