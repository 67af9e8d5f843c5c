"""The text of `solverbench zoo list` and `zoo show`, and the copying of a trained solver into the user's own zoo."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from solverbench import files, registries, userdata
from solverbench.errors import MissingError, NeedsTrainingError, PluginError, RecordError, UserError
from solverbench.learned import recipes, trained_files, zoo
from solverbench.learned.trained_files import Trained
from solverbench.method.tableau import Tableau
from solverbench.teachers.loading import load_teacher
from solverbench.wording import printable

COLUMNS = ("solver", "nfe", "teacher", "validation", "training", "where", "identity")


@dataclass(frozen=True, eq=False)
class Entry:
    """A file in a zoo: its trained solver, or why it can't be read; `where` is a name of `zoo.places`."""

    path: Path
    where: str
    trained: Trained | None
    problem: str = ""

    def as_dict(self) -> dict[str, Any]:
        """Return the entry as plain JSON values."""
        about: dict[str, Any] = {"path": str(self.path), "where": self.where}
        if self.trained is None:
            return {**about, "problem": self.problem}
        trained = self.trained
        return {
            "solver": trained.spec,
            "nfe": trained.nfe,
            "teacher": trained.teacher,
            "teacher_identity": trained.teacher_identity,
            "identity": trained.identity,
            "validation": trained.validation,
            "cost": trained.cost,
            "imported": trained.record.get("imported"),
            **about,
        }


def entries(out: Path) -> Iterator[Entry]:
    """Yield the entries of OUT/trained, the user's own zoo and the packaged one, each by teacher, solver and calls."""
    for where, folder in zoo.places(out).items():
        found = []
        for path in sorted(folder.glob("*/*-nfe*.safetensors")):
            try:
                found.append(Entry(path, where, trained_files.load(path)))
            except UserError as error:
                found.append(Entry(path, where, None, str(error)))
        yield from sorted(found, key=_place)


def table(found: Sequence[Entry]) -> str:
    """Return the entries as a table of `COLUMNS`, then a line per entry with an outdated recipe or unreadable file."""
    rows = [COLUMNS, *(_row(entry.trained, entry.where) for entry in found if entry.trained is not None)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(COLUMNS))]
    lines = ["  ".join(f"{text:<{width}}" for text, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    load = cache(recipes.load)  # one recipe is that of many files
    for entry in found:
        if entry.trained is not None and (changed := recipe_changes(entry.trained, load)):
            lines.append(f"trained by an earlier recipe: {entry.path}: {changed}")
    lines += [f"unreadable: {entry.problem}" for entry in found if entry.trained is None]
    return "\n".join(map(printable, lines))


def recipe_changes(trained: Trained, load: Callable[..., recipes.Recipe] = recipes.load) -> str:
    """Return how a trained solver's recipe differs from the current one, by `load`; empty if it does not.

    The teacher is not loaded for this, so a recipe that matches the current one of any teacher family is unchanged.
    """
    made, teacher = trained.record.get("recipe", {}), trained.teacher.partition("-")[0]
    try:
        solver = trained_files.learned(trained.spec)
        loaded = [load(solver.recipe_name, teacher, family=family) for family in recipes.FAMILIES]
        found = [recipes.changes(made, recipes.suited(each, solver)) for each in loaded]
    except UserError:
        return ""
    return "" if "" in found else found[0]


def chosen(name: str, nfe: int | None, teacher: str, out: Path) -> Trained:
    """Return the trained solver named by a file, or by a spec with `nfe` and `teacher`.

    Raises:
        RecordError: the file is unusable, or for another number of calls.
        NeedsTrainingError: there is none for this solver, teacher and number of calls.
        UserError: a spec without `nfe`.
    """
    if name.endswith(".safetensors"):
        return trained_files.load(Path(name), nfe=nfe)
    solver = trained_files.learned(name)
    if nfe is None:
        raise UserError(
            asked=f"zoo show {name}", wrong="a solver has one file for each number of calls", remedy="give --nfe"
        )
    found = zoo.find(solver, load_teacher(teacher), nfe, (out / "trained",))
    if found is None:
        raise NeedsTrainingError(
            asked=f"{solver.name} nfe={nfe}",
            wrong=f"not trained for teacher {teacher!r}",
            remedy="'solverbench zoo list' shows the trained ones",
        )
    return found


def add(path: Path) -> str:
    """Copy a trained solver's file into the user's own zoo, where every command finds it; return a report in lines.

    Raises:
        RecordError: the file is not a trained solver, is damaged, or is for another network than its teacher's.
        StoreError: the zoo is not writable.
    """
    trained = trained_files.load(path)
    if Path(trained.teacher).name != trained.teacher:
        raise RecordError(
            asked=path,
            wrong=f"the name of its teacher, {trained.teacher!r}, can't be a folder name",
            remedy="train it again",
        )
    if trained.teacher in registries.teachers:
        with contextlib.suppress(MissingError, PluginError):  # a teacher that is not available here can't be compared
            trained_files.load(path, teacher=load_teacher(trained.teacher))
    place = userdata.zoo() / trained.teacher / trained_files.file_name(trained.spec, trained.nfe)
    before = _there(place)
    files.write_bytes(place, path.read_bytes())
    lines = [f"{trained.spec} nfe={trained.nfe} for {trained.teacher} ({trained.identity[:12]}) in {place}"]
    return "\n".join(
        [*map(printable, lines), *([f"  replaces {before}"] if before and before != trained.identity[:12] else [])]
    )


def _there(place: Path) -> str:
    """Return the identity of a file in the zoo as human-readable text; empty if there is none."""
    if not place.is_file():
        return ""
    try:
        return trained_files.load(place).identity[:12]
    except RecordError:
        return "a damaged file"


def described(trained: Trained) -> str:
    """Return the contents of a trained solver's file as human-readable text."""
    return "\n".join(map(printable, _described(trained)))


def numbers(tableau: Tableau) -> list[str]:
    """Return the tableau as human-readable lines, 6 digits: each call's told level, state's level and weights."""
    told = [*(f"{sigma:.6g}" for sigma in tableau.sigmas.tolist()), "-"]
    lines = [f"  start {float(tableau.start):.6g}", f"  {'row':<7}{'told':>12}{'level':>12}  weights of x, d_0, d_1, …"]
    for k, row in enumerate(tableau.weights.tolist()):
        name = "sample" if k == tableau.nfe else str(k)
        weights = "".join(f"{weight:>13.6g}" for weight in row[: k + 1])
        lines.append(f"  {name:<7}{told[k]:>12}{float(tableau.levels[k]):>12.6g}{weights}")
    return lines


def _described(trained: Trained) -> Iterator[str]:
    record = trained.record
    yield f"{trained.spec} nfe={trained.nfe}, for {trained.teacher}"
    yield f"  identity   {trained.identity}"
    yield f"  teacher    {trained.teacher_identity}"
    if "imported" in record:
        yield from _section("imported", record["imported"])
    yield from _section("recipe", record.get("recipe", {}))
    yield from _section("changed since", {"recipe": changed} if (changed := recipe_changes(trained)) else {})
    yield from _section("noise seeds", {use: f"{seen.start}-{seen.stop - 1}" for use, seen in trained.seeds.items()})
    yield from _section("targets", record.get("targets", {}))
    for run in record.get("runs", []):
        kept = " (kept)" if run.get("seed") == record.get("seed") else ""
        yield f"training seed {run.get('seed')}{kept}: validation RMSE {_text(run.get('validation'))}"
        yield from (f"  {name:<27} {_text(value)}" for name, value in run.get("cost", {}).items())
    yield from _section("versions", record.get("versions", {}))
    yield "tableau"
    yield from numbers(trained.tableau)


def _section(title: str, values: Mapping[str, Any]) -> Iterator[str]:
    if values:
        yield title
        yield from (f"  {name:<27} {_text(value)}" for name, value in values.items())


def _text(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else value if isinstance(value, str) else json.dumps(value)


def _row(trained: Trained, where: str) -> tuple[str, ...]:
    validation, cost = trained.validation, trained.cost
    return (
        trained.spec,
        str(trained.nfe),
        trained.teacher,
        "-" if validation is None else f"{validation:.4f}",
        ("imported" if "imported" in trained.record else "-") if cost is None else _spent(cost),
        where,
        trained.identity[:12],
    )


def _spent(cost: Mapping[str, float]) -> str:
    calls = (cost["teacher_calls"] + cost["student_calls"]) / 1e6
    count = cost["training_seeds"]
    seeds = f"{count} training seed{'s' * (count > 1)}"
    return f"{seeds}, {cost['seconds']:.0f} s of training, {calls:.2f}M calls"


def cost_line(trained: Trained) -> str:
    """Return the costs of the trainings behind a trained solver, in words."""
    cost = trained.cost
    return "unknown" if cost is None else f"{_spent(cost)}, peak memory {cost['peak_memory_bytes'] / 2**20:.0f} MiB"


def _place(entry: Entry) -> tuple[str, str, int, str]:
    if entry.trained is None:
        return entry.path.parent.name, "", 0, entry.path.name
    return entry.trained.teacher, entry.trained.spec, entry.trained.nfe, entry.path.name
