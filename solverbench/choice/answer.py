"""The answer of a choice: its files, the exports of each pick, and what to do with them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from solverbench import files, registries
from solverbench.bench.run import RunResult
from solverbench.choice import usage
from solverbench.choice.candidates import Field
from solverbench.choice.fresh import Pick, finalists, shown
from solverbench.choice.race import Race
from solverbench.metrics import table
from solverbench.teachers.teacher import Teacher
from solverbench.wording import BELOW_ERROR

PAGE = "recommend.html"
"""The name of the page; `solverbench.reports` writes it."""


@dataclass(frozen=True, eq=False)
class Recommendation:
    """The answer.

    Args:
        teacher: name of the model.
        by: name of the metric.
        picks: the pick of each number of calls, ascending.
        candidates: a row for each candidate: nfe, spec, images, rmse and state; see candidates.csv.
        cost: network calls times images, seconds and images of the race, and seconds per call and image.
        notes: what a reader should know.
        folder: folder of its files.
        report: folder of the run on fresh seeds.
    """

    teacher: str
    by: str
    picks: Sequence[Pick]
    candidates: Sequence[dict[str, Any]]
    cost: dict[str, float]
    notes: Sequence[str]
    folder: Path
    report: Path

    @property
    def pick(self) -> Pick:
        """The pick with the most calls; the only one if one number of calls was asked for."""
        return self.picks[-1]

    @property
    def page(self) -> Path:
        """Its page; the command draws it, and in Python `sb.report(found.folder)`."""
        return self.folder / PAGE

    def as_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {
            "teacher": self.teacher,
            "by": self.by,
            "pick": asdict(self.pick),
            "picks": [asdict(each) for each in self.picks],
            "candidates": list(self.candidates),
            "cost": dict(self.cost),
            "notes": list(self.notes),
            "folder": str(self.folder),
            "report": str(self.report),
            "page": str(self.page),
        }

    def __str__(self) -> str:
        return "\n".join(shown(self.picks, self.by))


def answered(
    race: Race, field: Field, result: RunResult, picks: Sequence[Pick], by: str, folder: Path, kinds: Sequence[str]
) -> Recommendation:
    """Return the answer, and write candidates.csv and recommendation.json.

    Args:
        kinds: kinds of exports, of `usage.KINDS`.
    """
    rows = [row for nfe in race.budgets for row in _rows(race, nfe)]
    for word, table_ in (("failed", field.failed), ("not possible", field.left_out)):
        rows += [
            {"nfe": int(key.partition(" ")[0]), "spec": key.partition(" ")[2], "images": 0, "rmse": None,
             "state": f"{word}: {why}", "same_as": ""}
            for key, why in table_.items()
        ]  # fmt: skip
    cost = {
        "calls": race.spent.calls,
        "search_calls": field.searched,
        "seconds": round(race.spent.seconds, 3),
        "images": race.spent.images,
        "seconds_per_call": race.pace,
    }
    found = Recommendation(
        race.teacher.shown,
        by,
        tuple(picks),
        rows,
        cost,
        [*_notes(field, picks, by), *usage.notes(kinds, race.teacher)],
        folder,
        result.folder,
    )
    files.write_bytes(folder / "candidates.csv", files.csv_bytes(list(rows[0]), rows))
    files.write_bytes(folder / "recommendation.json", (json.dumps(found.as_dict(), indent=1) + "\n").encode())
    return found


def _rows(race: Race, nfe: int) -> Iterator[dict[str, Any]]:
    """Yield the rows of a budget's candidates."""
    final = set(finalists(race, nfe))
    for runner in race.ranked(nfe):
        candidate = runner.candidate
        yield {
            "nfe": nfe,
            "spec": candidate.spec,
            "images": len(runner.errors),
            "rmse": runner.rmse if runner.errors else None,
            "state": runner.out or ("finalist" if candidate in final else "left when the race ended"),
            "same_as": " ".join(candidate.names),
        }


def _notes(field: Field, picks: Sequence[Pick], by: str) -> list[str]:
    specs = dict.fromkeys(pick.spec for pick in picks)
    found = [f"{spec}: {registries.solvers.about(spec.partition(':')[0])}" for spec in specs]
    found += field.notes
    if (count := len(field.left_out)) > 0:
        said = f"{count} combination{'s' * (count > 1)} of solver, grid and number of calls can't take part"
        found.append(f"{said}; {PAGE} has the reason of each")
    for key, why in field.failed.items():
        nfe, _, spec = key.partition(" ")
        found.append(f"{spec} failed with {nfe} calls: {why}")
    if by != table.ALWAYS:
        found.append(f"the race went by RMSE to the teacher's own sampler; {by} chose between the three that led it")
    else:
        found.append(
            "RMSE to the teacher's own sampler says how close an image is to the converged one, not how good it looks: "
            f"a sharper image may be further away; look at the images in {PAGE}"
        )
    for pick in picks:
        told = {each.verdict for each in pick.comparisons if "plain default" in each.role}
        if "level" in told:
            found.append(f"at {pick.nfe} calls the pick is level with the plain default")
        if BELOW_ERROR in told:
            found.append(
                f"at {pick.nfe} calls the difference of the pick from the plain default is {BELOW_ERROR}, "
                "so neither is known to be ahead"
            )
    return found


def written(recommendation: Recommendation, teacher: Teacher, out: Path, kinds: Sequence[str]) -> None:
    """Write the files of each pick into FOLDER/nfeN; see `usage.texts`.

    Args:
        out: results folder, searched for trained solvers and searched grids.

    Raises:
        UserError: a pick that can't be exported.
    """
    for pick in recommendation.picks:
        for name, text in usage.texts(pick.spec, pick.nfe, teacher, kinds, out).items():
            files.write_bytes(recommendation.folder / f"nfe{pick.nfe}" / name, text.encode())
