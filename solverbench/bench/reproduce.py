"""Reproduction of published numbers by their own protocols."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from solverbench import plugins, registries, seeds
from solverbench.bench import run
from solverbench.bench.progress import Listener
from solverbench.bench.published import OWN_RECORD, UNKNOWN, _differences, as_authors
from solverbench.bench.run_options import RunOptions
from solverbench.errors import MissingError, UserError
from solverbench.evaluation import references
from solverbench.evaluation.selection import MetricSelection
from solverbench.learned import upstream, zoo
from solverbench.learned.trained_files import Trained
from solverbench.method.spec import make
from solverbench.metrics import extractors, plugin
from solverbench.metrics.table import ALWAYS, INCEPTION, Takes
from solverbench.registries import Result
from solverbench.teachers.loading import load_teacher
from solverbench.teachers.teacher import Teacher
from solverbench.wording import decimals, interval_texts, number_text, suggest


@dataclass(frozen=True)
class Comparison:
    """A published number and ours.

    Args:
        published: the published number.
        value: our number.
        low, high: ends of its 95 % interval.
        differences: one line per difference between the protocols.
        few: number of images of our number if they are so few that it is biased; otherwise 0.
        trained: where the parameters of a learned solver come from, and what the published ones were trained with.
    """

    published: Result
    value: float
    low: float
    high: float
    differences: list[str]
    few: int = 0
    trained: str = ""

    @property
    def difference(self) -> float:
        """Ours minus the published one."""
        return self.value - self.published.value

    @property
    def agrees(self) -> bool:
        """Whether our interval contains a value that rounds to the published number."""
        rounding = 10.0**-self.published.digits / 2
        return self.low - rounding <= self.published.value <= self.high + rounding

    def lines(self) -> Iterator[str]:
        """Yield human-readable lines."""
        published = self.published
        yield f"{published.row}: {published.solver}, {published.metric} on {published.teacher}, NFE {published.nfe}"
        places = dict.fromkeys(f"{published.paper}, {published.place}".split(", "))
        yield f"  source      {', '.join(places)}"
        yield f"  published   {published.value:.{published.digits}f}"
        few = f" (biased, n={self.few})" if self.few else ""
        value, low, high = interval_texts(self.value, self.low, self.high)
        yield f"  measured    {value}{few}, 95 % interval {low} to {high}"
        digits = decimals(self.value, (self.high - self.low) / 4)
        yield f"  difference  {number_text(self.difference, digits, '+')}, " + (
            "the published number lies within the interval"
            if self.agrees
            else "the published number lies outside the interval"
        )
        if self.trained:
            yield f"  trained     {self.trained}"
        if published.note:
            yield f"  note        {published.note}"
        for difference in self.differences or ["no known difference"]:
            yield f"  protocol    {difference}"

    def as_dict(self) -> dict[str, Any]:
        """Return the comparison as plain JSON values."""
        ours = {"measured": self.value, "low": self.low, "high": self.high, "difference": self.difference}
        told = {"row": self.published.row, "published": self.published.value, "trained": self.trained}
        return {**told, **ours, "biased": bool(self.few), "agrees": self.agrees, "differences": self.differences}


def select(row: str | None, paper: str | None) -> list[Result]:
    """Return the published numbers of a row, of rows with a common prefix, or of a paper.

    Args:
        row: name or prefix of rows: gas/cifar10, gas/cifar10/gas or gas/cifar10/gas/4.
        paper: name of the paper.

    Raises:
        UserError: neither or both are given, or nothing has that name.
    """
    if (row is None) == (paper is None):
        wrong = "no row and no paper is given" if row is None else "both a row and a paper are given"
        remedy = "give one ROW, as in gas/cifar10/gas/4, or --paper NAME; --list shows all"
        raise UserError(asked="reproduce", wrong=wrong, remedy=remedy)
    name = paper if row is None else row.partition("/")[0]
    if name not in registries.papers():
        raise UserError(
            asked=f"paper {name!r}", wrong="not known", remedy=f"known are {', '.join(registries.papers())}"
        )
    found = list(registries.results(str(name)))
    if row is not None:
        wanted = row.strip("/").split("/")
        known = [each.row for each in found]
        found = [each for each in found if each.row.split("/")[: len(wanted)] == wanted]
        if not found:
            remedy = suggest(row, known, f"see 'solverbench reproduce --paper {name} --list'")
            raise UserError(asked=f"row {row!r}", wrong="not published", remedy=remedy)
    return found


def missing(published: Result, out: Path, reference: str | None = None) -> list[str]:
    """Return one line per missing prerequisite of the number; stored images are not checked."""
    lines = []
    if not published.spec:
        lines.append(
            f"solver {published.solver}: its source doesn't state {', '.join(published.unknown)}, so it has no spec"
        )
    elif published.nfe == 0:
        lines.append(f"solver {published.solver}: its source doesn't state its calls")
    teacher = None
    try:
        teacher = load_teacher(published.teacher)
    except UserError as error:
        lines.append(f"teacher: {error}")
    metric = plugin.find(published.metric)
    if metric.public:
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
            lines.append(f"{error} (the paper used {published.protocol['reference']})")
    if metric.takes is Takes.PAIR and metric.network is not None:
        try:
            metric.network("cpu")
        except MissingError as error:
            lines.append(str(error))
    if teacher is None and published.authors:
        lines.append(_lack(published, teacher, out))
    if teacher is not None and published.spec and published.nfe:
        spec = _spec(published, teacher, out)
        if make(spec).learned and not _there(spec, teacher, published.nfe, out):
            lines.append(_lack(published, teacher, out))
    return lines


def adopt(published: Result, file: Path, out: Path) -> Path:
    """Import an authors' trained file for a row into a results folder; return its path there.

    Raises:
        RecordError: it isn't such a file, is for another number of calls, or another one was imported before.
        UserError: the row's teacher isn't there, or files of its authors can't be used.
    """
    if not published.authors:
        raise UserError(
            asked=f"{published.row} with {file}",
            wrong="its authors' files aren't known here" if published.spec else "the row has no spec",
            remedy="import the file with 'solverbench zoo import', and name its spec in 'solverbench run'",
        )
    teacher = load_teacher(published.teacher)
    trained = upstream.read(file, teacher, published.nfe, solver=as_authors(published))
    return upstream.keep(trained, file, out)


def _spec(published: Result, teacher: Teacher, out: Path) -> str:
    """Return the row's spec to run: as its authors sample, unless only parameters trained here are there."""
    exact = as_authors(published)
    there = [
        spec for spec in (exact, published.spec) if make(spec).learned and _there(spec, teacher, published.nfe, out)
    ]
    return there[0] if there else exact


def _there(spec: str, teacher: Teacher, nfe: int, out: Path) -> bool:
    return zoo.find(spec, teacher, nfe, [out / "trained"]) is not None


def _lack(published: Result, teacher: Teacher | None, out: Path) -> str:
    """Return how to get a row's trained parameters, on one line."""
    command = teacher and zoo.training_command(as_authors(published), published.nfe, teacher, out)
    train = f"train them: {command}" if command else "train them here" if teacher is None else "no recipe is known"
    said = f"solver {published.spec}: no trained parameters; "
    if "files" not in published.authors:
        return said + train
    name = f"{published.solver} for {published.nfe} calls"
    return (
        f"{said}fetch the authors' file of {name} from {published.authors['files']} and give it as "
        f"'solverbench reproduce {published.row} --checkpoint FILE', or {train}"
    )


def _provenance(published: Result, trained: Trained | None) -> str:
    """Return where a learned solver's parameters come from, and how the published ones were trained."""
    if trained is None or published.row.startswith(f"{OWN_RECORD}/"):
        return ""
    origin = trained.record.get("imported")
    here = f"the authors' file {origin['file']}, sha256 {origin['sha256'][:12]}" if origin else "here"
    told = [f"{name} {published.authors.get(name, UNKNOWN)}" for name in ("loss", "discriminator")]
    return f"{here}; published {', '.join(told)}"


def options(published: Result, given: RunOptions) -> RunOptions:
    """Return the options of a run that measures a published number, by its protocol as far as that is known.

    Args:
        given: the user's options. Samples, replicates, seeds and reference replace the published ones if given; device,
            workers and results folder are kept.
    """
    protocol, metric = published.protocol, plugin.find(published.metric)
    public, paired = metric.public, metric.takes is Takes.PAIR and metric.name != ALWAYS
    return replace(
        given,
        solvers=as_authors(published),
        nfe=published.nfe,
        teachers=published.teacher,
        samples=protocol.get("samples", protocol["n"]) if given.samples is None else given.samples,
        replicates=given.replicates if given.replicates is not None or given.seeds else protocol["replicates"],
        seeds=given.seeds or _seeds(protocol, given),
        metrics=published.metric if public or paired else None,
        reference=given.reference if public else None,
        extractor=_extractor(published) if metric.features == INCEPTION else None,
        quantiser=protocol["quantiser"] if public and protocol["quantiser"] != UNKNOWN else None,
    )


def reproduce(published: Result, given: RunOptions, *, progress: Listener | None = None) -> Comparison:
    """Return the comparison of a published number with ours, measured by its protocol as far as that is known.

    Args:
        given: see `options`.

    Raises:
        UserError: the cell can't be measured.
    """
    command = plugins.command(f"solverbench reproduce {published.row}")
    asked = options(published, given)
    if make(str(asked.solvers)).learned:
        asked = replace(asked, solvers=_spec(published, load_teacher(published.teacher), Path(given.out)))
    result = run.run(asked, progress=progress, command=command)
    [outcome] = result.cells
    measure = outcome.measures.get(published.metric)
    if measure is None:
        why = (
            outcome.reason
            or outcome.failed.get(published.metric)
            or outcome.cell.lacking.get(published.metric, "the teacher has no such metric")
        )
        raise UserError(
            asked=published.row, wrong=f"{outcome.status} ({why})", remedy="remove the cause, and reproduce it again"
        )
    differences = list(_differences(published, outcome.cell, measure.n, measure.reference))
    few = measure.n if outcome.biased(published.metric) else 0
    told = _provenance(published, outcome.cell.trained)
    return Comparison(published, measure.value, *measure.interval, differences, few, told)


def _extractor(published: Result) -> str:
    """Return the extractor that the protocol names, or the default one of its metric."""
    named = str(published.protocol["extractor"]).removeprefix("clean-fid/")
    usual = MetricSelection().network([published.metric])
    return named if named in extractors.NAMES else usual


def _seeds(protocol: Any, given: RunOptions) -> str | None:
    """Return the published seeds if they are known, allowed for evaluation, and the user gives no other count."""
    if protocol["seeds"] == UNKNOWN or (given.samples, given.replicates) != (None, None):
        return None
    return str(protocol["seeds"]) if seeds.parse(protocol["seeds"]).start >= seeds.EVALUATION_START else None
