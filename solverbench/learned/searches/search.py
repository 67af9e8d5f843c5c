"""Searches of grids on a teacher: looked up in the folders of trained solvers, and made where asked for."""

from __future__ import annotations

import dataclasses
import platform
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from solverbench import seeds, userdata
from solverbench.errors import GridError, NeedsSearchError
from solverbench.learned import zoo
from solverbench.learned.searches import dmn, files, gits, oss, pilot
from solverbench.learned.searches.files import SearchFile
from solverbench.method import grids
from solverbench.method.grids import Grid
from solverbench.method.schedules import NoiseSchedule, Search, Searched
from solverbench.method.solver import Solver
from solverbench.method.spec import make as make_solver
from solverbench.method.tracing import trace
from solverbench.teachers.teacher import Teacher

AT_ONCE = 20
"""Numbers of intervals, from 1, that a search of `gits` finds at once: the calls are the same for all."""

EVERY = 10.0
"""Seconds between two lines about a search."""

Progress = Callable[[int, int], None]
"""Callback of a search: (calls times images so far, all of them)."""


def schedule(teacher: Teacher, folders: Sequence[Path] = (), make: Search | None = None) -> NoiseSchedule:
    """Return the teacher's schedule, which knows the grids searched on it.

    Args:
        folders: folders with files <teacher>/grid-<search>.json, before the user's own zoo and the packaged one.
        make: makes what is missing; if None, `NeedsSearchError` is raised for it.
    """
    everywhere = [*folders, userdata.zoo(), zoo.packaged()]

    def search(name: str, steps: int, given: Mapping[str, Any]) -> Searched:
        for each in files.find(name, given, teacher, everywhere):
            if steps in each.found:
                return each.found[steps]
        if make is not None:
            return make(name, steps, given)
        raise NeedsSearchError(
            asked=f"grid={name} with {steps} steps",
            wrong=f"not searched yet on {teacher.name!r}",
            remedy="'solverbench run' searches it",
            search=(name, steps, given),
        )

    return teacher.schedule.with_search(search)


def searching(teacher: Teacher, folder: Path) -> Teacher:
    """Return the teacher with a schedule that searches missing grids, with a line on stderr, and keeps them."""

    def make(name: str, steps: int, given: Mapping[str, Any]) -> Searched:
        return told(name, steps, given, teacher, folder, lambda line: print(line, file=sys.stderr))

    return dataclasses.replace(teacher, schedule=schedule(teacher, [folder], make))


def told(
    name: str, steps: int, given: Mapping[str, Any], teacher: Teacher, folder: Path, tell: Callable[[str], None]
) -> Searched:
    """Return the result of `made`, and tell lines: that the search begins, every `EVERY` seconds, and its file."""
    calls = cost(name, steps, given)
    spent = f"{calls} network calls" if calls else "no network calls"
    tell(f"grid={name} with {steps} steps: searching it on {teacher.name}, {spent}")
    begun = last = time.monotonic()

    def progress(done: int, total: int) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last >= EVERY and done < total:
            last = now
            tell(f"grid={name}: {done} of {total} calls, {(total - done) * (now - begun) / done:.0f} s left")

    found = made(name, steps, given, teacher, folder, progress)
    tell(f"grid={name}: {time.monotonic() - begun:.0f} s, kept in {place(folder, teacher, name, given)}")
    return found


def place(folder: Path, teacher: Teacher, name: str, given: Mapping[str, Any]) -> Path:
    """Return the path of a search's file."""
    return folder / teacher.name / files.file_name(name, given)


def check_apart(evaluation: range, given: Mapping[str, Any], what: str) -> None:
    """Refuse to evaluate on the seeds of a search; see `seeds.check_apart`.

    Raises:
        UserError: the two share a seed.
    """
    if "warmup" in given:
        seeds.check_apart(evaluation, {"search": _seeds(given)}, what)


def made(
    name: str, steps: int, given: Mapping[str, Any], teacher: Teacher, folder: Path, progress: Progress | None = None
) -> Searched:
    """Return the levels of `steps` intervals, searched on the teacher and kept in `folder`.

    Grids of other numbers of intervals that the same calls give are kept, too; those already in the file stay.

    Args:
        name: dmn, gits or oss.
        given: its parameters.
        folder: folder for <teacher>/grid-<search>.json, such as OUT/trained.

    Raises:
        GridError: there are fewer candidates than levels.
        TrainingError: the teacher's trajectories aren't finite.
    """
    begun = time.monotonic()
    found = _SEARCHES[name](steps, given, teacher, progress or (lambda done, total: None))
    seconds = round(time.monotonic() - begun, 3)
    path = place(folder, teacher, name, given)
    earlier = next((each.found for each in files.find(name, given, teacher, [folder])), {})
    fresh = {
        count: Searched(files.rounded(levels), calls, seconds, chosen, path)
        for count, (levels, calls, chosen) in found.items()
    }
    record = {
        "version": grids.VERSIONS.get(name, 1),
        "torch": torch.__version__,
        "machine": platform.machine(),
        "device": teacher.device,
    }
    whole = SearchFile(name, given, teacher.name, teacher.ode, {**fresh, **earlier}, record)
    files.save(whole, path)
    return whole.found[steps]


def cost(name: str, steps: int, given: Mapping[str, Any]) -> int:
    """Return the denoiser calls times images that a search spends."""
    if name == "dmn":
        return 0
    each = oss.calls(given["candidates"], steps) if name == "oss" else given["candidates"] - 1
    return each * int(given["warmup"])


_Found = dict[int, tuple[list[float], int, range]]


def _dmn(steps: int, given: Mapping[str, Any], teacher: Teacher, told: Progress) -> _Found:
    own = None
    if "own" in given:
        own = _contributions(make_solver(given["own"].replace(":end=zero", ":end=sigma_min")))
    levels = dmn.levels(teacher.schedule, steps, own, latent=teacher.decode is not None)
    return {steps: (levels.tolist(), 0, range(0))}


def _contributions(solver: Solver) -> Callable[[Grid], Tensor]:
    """Return the function grid -> J [M, M] of `solver`; see `dmn`."""

    def contributed(grid: Grid) -> Tensor:
        tableau = trace(solver.at(grid.sigmas.detach().tolist()), grid, check=False)
        if tableau.nfe != grid.steps:
            raise GridError(
                asked=f"{solver.name}:grid=dmn:own=true",
                wrong="this solver makes another number of calls than it has steps",
                remedy="leave own out",
            )
        return dmn.of_tableau(tableau.weights, tableau.levels)

    return contributed


def _gits(steps: int, given: Mapping[str, Any], teacher: Teacher, told: Progress) -> _Found:
    levels = _candidates("gits", steps, given, teacher)
    chosen, total = _seeds(given), cost("gits", steps, given)
    counted = _Counted(total, told)
    table: Tensor | None = None
    for each in pilot.trajectories(teacher, levels, given["pilot"], chosen, counted):
        part = gits.costs(each, given["cost"], afs=bool(given.get("afs")))
        table = part if table is None else table + part
    assert table is not None
    most = min(max(steps, AT_ONCE), levels.steps)
    found = gits.paths(table / len(chosen), most, given["discount"])
    return {len(path) - 1: (_at(levels, path), counted.calls, chosen) for path in found}


def _oss(steps: int, given: Mapping[str, Any], teacher: Teacher, told: Progress) -> _Found:
    levels = _candidates("oss", steps, given, teacher)
    chosen, total = _seeds(given), cost("oss", steps, given)
    counted = _Counted(total, told)
    batches = list(pilot.trajectories(teacher, levels, given["pilot"], chosen, counted))
    found = oss.paths(batches, steps)
    return {len(path) - 1: (_at(levels, path), cost("oss", len(path) - 1, given), chosen) for path in found}


def _candidates(name: str, steps: int, given: Mapping[str, Any], teacher: Teacher) -> Grid:
    levels = pilot.candidates(teacher.schedule, given["candidates"], given.get("rho"))
    if steps > levels.steps:
        raise GridError(
            asked=f"grid={name} with {steps} steps",
            wrong=f"only {levels.steps + 1} levels to choose from",
            remedy=f"give candidates={steps + 1} or more",
        )
    return levels


def _seeds(given: Mapping[str, Any]) -> range:
    return pilot.SEEDS[: int(given["warmup"])]


def _at(levels: Grid, path: Sequence[int]) -> list[float]:
    return [float(levels.sigmas[index]) for index in path]


class _Counted:
    """Calls of a search, counted and told."""

    def __init__(self, total: int, told: Progress) -> None:
        self.calls, self._total, self._told = 0, total, told

    def __call__(self, calls: int) -> None:
        self.calls += calls
        self._told(self.calls, self._total)


_SEARCHES: Mapping[str, Callable[[int, Mapping[str, Any], Teacher, Progress], _Found]] = {
    "dmn": _dmn,
    "gits": _gits,
    "oss": _oss,
}
