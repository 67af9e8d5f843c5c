"""A published number beside ours: what is needed to measure it, what was measured, and how the protocols differ."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import registries
from registries import Result
from solverbench import plugins, seeds
from solverbench.bench.bundle import write as bundle
from solverbench.metrics import extractors
from solverbench.evaluation import selection as judging
from solverbench.evaluation import references
from solverbench.bench import run as runner
from solverbench.bench.cells import Cell, Protocol
from solverbench.errors import MissingError, UserError
from solverbench.evaluation.selection import INCEPTION, PAIRS, PUBLIC
from solverbench.bench.outcome import Outcome
from solverbench.metrics.lpips import LPIPS
from solverbench.cli.progress import Listener
from solverbench.method.spec import make
from solverbench.teachers.teacher import Teacher, load_teacher

UNKNOWN = "unknown"

OWN_RECORD = "embedded"
"""What SolverBench itself recorded on its embedded teacher, among the papers."""


@dataclass(frozen=True)
class Comparison:
    """One published number and ours.

    Args:
        published: it.
        value, low, high: ours, with its 95 % interval.
        differences: each difference between the two protocols, by name.
        few: images that ours is of, where those are so few that it is biased; 0 if they aren't.
    """

    published: Result
    value: float
    low: float
    high: float
    differences: list[str]
    few: int = 0

    @property
    def difference(self) -> float:
        """Ours minus the published one."""
        return self.value - self.published.value

    @property
    def agrees(self) -> bool:
        """Whether the published number, as it was rounded, lies within our interval."""
        rounding = 10.0**-self.published.digits / 2
        return self.low - rounding <= self.published.value <= self.high + rounding

    def lines(self) -> Iterator[str]:
        """Yield what people read."""
        published = self.published
        yield f"{published.row}: {published.solver}, {published.metric} on {published.teacher}, NFE {published.nfe}"
        places = dict.fromkeys(f"{published.paper}, {published.place}".split(", "))
        yield f"  source      {', '.join(places)}"
        yield f"  published   {published.value:.{published.digits}f}"
        few = f" (biased, n={self.few})" if self.few else ""
        yield f"  measured    {self.value:.4g}{few}, 95 % interval {self.low:.4g} to {self.high:.4g}"
        yield f"  difference  {self.difference:+.3g}, " + (
            "the published number lies within the interval" if self.agrees else "outside the interval"
        )
        if published.note:
            yield f"  note        {published.note}"
        for difference in self.differences or ["none that is known"]:
            yield f"  protocol    {difference}"

    def as_dict(self) -> dict[str, Any]:
        """Return it as plain JSON values."""
        ours = {"measured": self.value, "low": self.low, "high": self.high, "difference": self.difference}
        told = {"row": self.published.row, "published": self.published.value}
        return {**told, **ours, "biased": bool(self.few), "agrees": self.agrees, "differences": self.differences}


def select(row: str | None, paper: str | None) -> list[Result]:
    """Return the published numbers of one row or of a paper.

    Args:
        row: its name, or the beginning of several: gas/cifar10, gas/cifar10/gas or gas/cifar10/gas/4.

    Raises:
        UserError: neither or both are given, or none is of that name.
    """
    if (row is None) == (paper is None):
        raise UserError("reproduce: give one ROW, as in gas/cifar10/gas/4, or --paper; --list alone lists all")
    name = paper if row is None else row.partition("/")[0]
    if name not in registries.papers():
        raise UserError(f"paper {name!r}: not known; known are {', '.join(registries.papers())}")
    found = list(registries.results(str(name)))
    if row is not None:
        wanted = row.strip("/").split("/")
        near = difflib.get_close_matches(row, [each.row for each in found], n=1)
        found = [each for each in found if each.row.split("/")[: len(wanted)] == wanted]
        if not found:
            hint = f"did you mean {near[0]!r}? See" if near else "see"
            raise UserError(f"row {row!r}: not published; {hint} 'solverbench reproduce --paper {name} --list'")
    return found


def missing(published: Result, out: Path, reference: str | None = None) -> list[str]:
    """Return what isn't here that the number needs, one line each; the images it would take are not looked at."""
    lines = []
    if not published.spec:
        lines.append(f"solver {published.solver}: has no spec here, {', '.join(published.unknown)} not stated")
    elif published.nfe == 0:
        lines.append(f"solver {published.solver}: its calls aren't stated")
    teacher = None
    try:
        teacher = load_teacher(published.teacher)
    except UserError as error:
        lines.append(f"teacher: {error}")
    if published.metric in PUBLIC:
        identity = None
        try:
            identity = extractors.load(_extractor(published)).identity
        except UserError as error:
            lines.append(str(error))
        try:
            if reference is not None or teacher is None:
                references.find(reference or published.teacher, out)
            else:
                references.named_for(teacher, out, identity)
        except UserError as error:
            lines.append(f"{error} (the paper's is {published.protocol['reference']})")
    if published.metric == "lpips_teacher":
        try:
            LPIPS().network()
        except MissingError as error:
            lines.append(str(error))
    if teacher is not None and published.spec and published.nfe:
        planned = make(published.spec)
        if planned.learned:
            from solverbench.learned import zoo

            if zoo.find(planned, teacher, published.nfe, [out / "trained"]) is None:  # type: ignore[arg-type]
                command = zoo.training_command(published.spec, published.nfe, teacher, out)
                lines.append(f"solver {published.spec}: no trained parameters; run: {command or 'no recipe is known'}")
    return lines


def reproduce(
    published: Result,
    out: Path,
    *,
    samples: int | None = None,
    replicates: int | None = None,
    chosen: str | None = None,
    reference: str | None = None,
    device: str = "cpu",
    progress: Listener | None = None,
) -> Comparison:
    """Return the published number beside ours, measured by its protocol as far as that is known.

    Args:
        out: the results folder.
        samples, replicates, chosen: images, sets and seeds in place of the published ones.

    Raises:
        UserError: the cell can't be measured.
    """
    protocol = published.protocol
    public = published.metric in PUBLIC
    quantiser = protocol["quantiser"] if public and protocol["quantiser"] != UNKNOWN else None
    extractor = _extractor(published) if published.metric in INCEPTION else None
    ours = samples or protocol.get("samples", protocol["n"])
    result = runner.run(
        solvers=published.spec,
        nfe=published.nfe,
        teachers=published.teacher,
        out=out,
        samples=ours,
        replicates=replicates or (None if chosen else protocol["replicates"]),
        seeds=chosen or _seeds(protocol, samples, replicates),
        device=device,
        metrics=published.metric if published.metric in (*PUBLIC, *PAIRS) else None,
        reference=reference if public else None,
        extractor=extractor,
        quantiser=quantiser,
        progress=progress,
        command=plugins.command(f"solverbench reproduce {published.row}"),
    )
    [outcome] = result.cells
    measure = outcome.measures.get(published.metric)
    if measure is None:
        why = outcome.reason or outcome.cell.teacher.lacking.get(published.metric, "the teacher has no such metric")
        raise UserError(f"{published.row}: {outcome.status}, {why}")
    differences = list(_differences(published, outcome.cell, measure.n, measure.reference))
    few = measure.n if outcome.biased(published.metric) else 0
    return Comparison(published, measure.value, *measure.interval, differences, few)


def _extractor(published: Result) -> str:
    """The network of the published number: the one that its protocol names, or what its metric is usually taken by."""
    named = str(published.protocol["extractor"]).removeprefix("clean-fid/")
    return named if named in extractors.NAMES else judging.OTHERS.get(published.metric, "legacy_tensorflow")


def beside(outcomes: Sequence[Outcome]) -> list[dict[str, Any]]:
    """Return the published numbers of these teachers, metrics and budgets as plain JSON values, for a report.

    What this package recorded itself isn't among them. Where a cell of ours is of the published spec, `label` is its
    solver, and `differences` says how the protocols differ; the number of another solver, or of one whose spec isn't
    stated, has an empty label.
    """
    there = {(each.cell.teacher.model, each.cell.nfe) for each in outcomes}
    metrics = {metric for each in outcomes for metric in each.measures}
    own = {(each.cell.teacher.model, each.cell.spec, each.cell.nfe): each for each in outcomes if each.measures}
    papers = (paper for paper in registries.papers() if paper != OWN_RECORD)
    rows = (each for paper in papers for each in registries.results(paper))
    found = []
    for row in (each for each in rows if (each.teacher, each.nfe) in there and each.metric in metrics):
        outcome = own.get((row.teacher, make(row.spec).spec, row.nfe)) if row.spec else None
        measure = outcome.measures.get(row.metric) if outcome is not None else None
        told = {name: getattr(row, name) for name in ("row", "paper", "place", "teacher", "metric", "solver", "spec")}
        told |= {"nfe": row.nfe, "value": row.value, "digits": row.digits, "note": row.note}
        if outcome is not None and measure is not None:
            differences = list(_differences(row, outcome.cell, measure.n, measure.reference))
            found.append(told | {"label": outcome.cell.solver, "differences": differences})
        else:
            found.append(told | {"label": "", "differences": []})
    return found


def _seeds(protocol: Any, samples: int | None, replicates: int | None) -> str | None:
    """The published seeds where they are known, may be used for evaluation, and as many images are asked for."""
    if protocol["seeds"] == UNKNOWN or samples or replicates:
        return None
    return str(protocol["seeds"]) if seeds.parse(protocol["seeds"]).start >= seeds.EVALUATION_START else None


def _differences(published: Result, cell: Cell, n: int, reference: str) -> Iterator[str]:
    """Each thing that was another, or isn't known to be the same."""
    protocol, ours = published.protocol, _ours(cell, published.metric, n, reference)
    for name, here in ours.items():
        there = str(protocol[name])
        if there == UNKNOWN:
            yield f"{name}: not stated, here {here}"
        elif there and not _alike(name, there, here):
            yield f"{name}: published {there}, here {here}"
    for name in published.unknown:
        yield f"solver's {name}: not stated, here {cell.spec}"


def _alike(name: str, there: str, here: str) -> bool:
    """Whether ours is the published thing; ours says more of a reference, an extractor or a condition."""
    if name in ("n", "replicates", "seeds", "quantiser"):
        return there == here
    return re.search(rf"(?<!\w){re.escape(there.replace(' = ', ' '))}(?!\w)", here) is not None


def _ours(cell: Cell, metric: str, n: int, reference: str) -> dict[str, str]:
    protocol: Protocol = cell.protocol
    teacher: Teacher = cell.teacher
    judged = teacher.evaluation if metric not in (*PAIRS, "rmse_teacher", "rmse_exact") else None
    told = {
        "n": f"{n}",
        "replicates": f"{protocol.replicates}",
        "seeds": seeds.label(protocol.seeds),
        "reference": reference,
        "noise": "on the CPU from the seed",
        "condition": bundle.condition(teacher),
    }
    if judged is not None:
        told |= {"extractor": judged.extractor_id, "quantiser": judged.quantiser}
    return told
