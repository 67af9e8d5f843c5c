"""A stored cell as a run would ask for it: from its names and its key, and only if the key is the same again."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from solverbench import files, registries, userdata
from solverbench.bench import resolve
from solverbench.bench.cells import Cell, reason
from solverbench.bench.protocol import ACCOUNTED, Protocol
from solverbench.bench.run_options import NUMBERS, RunOptions, declared
from solverbench.errors import MissingError, RecordError, UserError
from solverbench.evaluation import references
from solverbench.method.schedules import NoiseSchedule, Searched
from solverbench.method.spec import make
from solverbench.metrics import table
from solverbench.metrics.evaluation import OWN
from solverbench.metrics.extractors import FOLDERS
from solverbench.metrics.extractors import inception as fid
from solverbench.sampling import endpoints
from solverbench.teachers.loading import load_teacher
from solverbench.teachers.teacher import Teacher


class Unknown(Exception):
    """A stored cell whose request can't be rebuilt here, for example because its teacher is missing."""


class Contradiction(Exception):
    """A stored cell whose names and key contradict each other."""


class Restorer:
    """Stored cells as a run would ask for them.

    Nothing that a store says is loaded by path: a teacher or metric is used if it is registered or imported here, or
    given by the caller.

    Args:
        root: folder of the store.
        teachers: further teachers that its cells may be of.
    """

    def __init__(self, root: Path, teachers: Sequence[Teacher] = ()) -> None:
        self.root, self.given = root, {teacher.identity: teacher for teacher in teachers}
        self._registered = cache(_registered)
        self._goal = cache(endpoints.sampler_plan)
        self._measured: dict[tuple[int, str], list[tuple[Protocol, Any]]] = {}

    def __call__(self, address: str, told: Mapping[str, Any]) -> Cell:
        """Return the cell with this address.

        Args:
            told: content of its cell.json, which has been checked.

        Raises:
            Unknown: it can't be asked for again here.
            Contradiction: its names and its key contradict each other.
        """
        key, names = told["key"], told["names"]
        if "solver" not in key or "spec" not in names:
            raise Unknown("its key is of an earlier format")
        try:
            teacher = self._teacher(names["teacher"], key)
            solver = _solver(names["spec"])
            if solver.name != key["solver"]["name"]:
                raise Contradiction(f"named {names['spec']}, but its key is of the solver {key['solver']['name']}")
            near: list[str] = []
            for protocol, measurement in self._protocols(teacher, key):
                about = teacher, self._goal(teacher), protocol, measurement
                cell = resolve.named(names["solver"], solver, names["nfe"], *about, self.root, _told(teacher, key))
                if cell.address == address:
                    if cell.obstacle is not None:
                        raise Contradiction(cell.obstacle[1])
                    return cell
                if cell.plan is None and cell.obstacle is not None:
                    raise Unknown(cell.obstacle[1])
                near.append(", ".join(name for name in key if cell.key.get(name, "") != key[name]) or "more fields")
        except (Unknown, Contradiction):
            raise
        except (Exception, SystemExit) as error:  # a plugin may raise anything
            raise Unknown(reason(error)) from error
        raise Unknown(f"the same request has another key here ({min(near, key=len, default='metrics')} differs)")

    def _teacher(self, name: str, key: Mapping[str, Any]) -> Teacher:
        if key["teacher"] in self.given:
            return self.given[key["teacher"]]
        teacher = self._registered(name, key["device"])
        if teacher.identity != key["teacher"]:
            raise Contradiction(f"named {name}, but its key holds another network or condition than {name}'s")
        return teacher

    def _protocols(self, teacher: Teacher, key: Mapping[str, Any]) -> Iterator[tuple[Protocol, Any]]:
        """Yield the candidate protocols and measurements of a key, one for each reference that fits it."""
        known = self._measured.setdefault((id(teacher), files.digest(_about_images(key))), [])
        yield from known
        for reference in [] if known else self._references(key["evaluation"]):
            protocol = Protocol.of(_options(key, reference, teacher))
            try:
                measurement = protocol.judging.of_teacher(teacher, protocol.samples, protocol.block, self.root)
            except UserError as error:
                if reference is not None:
                    continue
                raise Unknown(str(error)) from None
            if key["evaluation"] is None:
                measurement = dataclasses.replace(measurement, evaluation=None)
            known.append((protocol, measurement))
            yield known[-1]

    def _references(self, evaluation: Mapping[str, Any] | None) -> Iterator[str | None]:
        """Yield the candidate references of a key: None for the teacher's own, then the names of stored ones."""
        yield None
        for name, path in references.listed(self.root) if evaluation is not None else ():
            try:
                told = references.about(path)
            except RecordError:
                continue
            if "samples" not in told:
                yield name


def _told(teacher: Teacher, key: Mapping[str, Any]) -> NoiseSchedule | None:
    """Return the teacher's schedule with the levels that a key says a search has found; None if it says none."""
    grid = key["solver"]["grid"]
    if "name" not in grid or "levels" not in grid:
        return None
    found = Searched(tuple(map(float, grid["levels"])), 0, 0.0, range(0))
    return teacher.schedule.with_search(lambda name, steps, given: found)


def _about_images(key: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in key.items() if name not in ("solver", "adapt")}


def _options(key: Mapping[str, Any], reference: str | None, teacher: Teacher) -> RunOptions:
    """Return the options recorded in a key, except its solver and teacher.

    Raises:
        Unknown: it was measured by an extractor that isn't known here.
    """
    judged = key["evaluation"]
    measured = [*(judged.get("metrics", OWN) if judged else ()), *key.get("pairs", ())]
    prompted = [name for name in key if name in table.TABLE and table.TABLE[name].takes is table.Takes.PROMPT]
    asked = [*measured, *prompted, *key.get("scores", ())]
    default = not asked or (judged is not None and asked == list(OWN))
    quantisers = [judged["quantiser"]] if judged else [each["quantiser"] for each in _quantised(key, prompted)]
    options = {name for name, each in declared().items() if each.group == NUMBERS} - ACCOUNTED
    return RunOptions(
        seeds=key["seeds"],
        samples=key["samples"],
        batch=key["batch"],
        full=key["paired"] == key["samples"],
        exact="exact" in key,
        device=key["device"],
        metrics=None if default else asked,
        reference=reference,
        extractor=_extractor(judged["extractor"], asked, teacher) if judged else None,
        quantiser=quantisers[0] if quantisers else None,
        **{name: key[name] for name in options if name in key},
    )


def _quantised(key: Mapping[str, Any], prompted: Sequence[str]) -> list[Mapping[str, Any]]:
    return [*(key[name] for name in prompted), *key.get("scores", {}).values()]


def _extractor(identity: str, metrics: Sequence[str], teacher: Teacher) -> str | None:
    """Return the name of the extractor of some metrics from its identity; None for the usual one.

    Raises:
        Unknown: it isn't the teacher's own, and not known here.
    """
    words = re.split(r"[/@ ]", identity)
    if table.of_features(metrics, table.INCEPTION):
        return next((mode for mode in fid.MODES if mode in words), None)
    own = teacher.evaluation.extractor_id if teacher.evaluation is not None else ""
    if identity == own or not table.of_features(metrics or OWN, table.OWN):
        return None
    name = FOLDERS.get(words[0], words[0])
    if name not in registries.extractors:
        raise Unknown(f"its extractor {name!r} isn't known here; give --plugin for it")
    return name


def _solver(spec: str) -> Any:
    if "@" in spec or "/" in spec:
        raise Unknown("its spec names a file")
    return make(spec)


def _registered(name: str, device: str) -> Teacher:
    """Return the teacher of a name in results, if it is registered or imported here."""
    head, *given = re.split(r"-(?=[a-z_]+=)", name)
    known = head in registries.teachers or (
        re.fullmatch(r"[\w.+-]+", head) and (userdata.teachers() / f"{head}.toml").is_file()
    )
    if not known:
        raise Unknown(f"its teacher {name!r} isn't registered here; name it with --teachers")
    if any(Path(each.partition("=")[2]).exists() for each in given):
        raise Unknown(f"its teacher {name!r} may have been given a file; name it with --teachers")
    try:
        return load_teacher(":".join([head, *given]), device)
    except MissingError as error:
        raise Unknown(str(error)) from None
