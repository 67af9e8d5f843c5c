"""The known teachers: built in, published by others (registries/teachers.toml), and the user's own."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from solverbench import downloads, files, options, registries, userdata
from solverbench.errors import MissingError, RecordError, UnknownNameError, UserError
from solverbench.teachers.families import description as families
from solverbench.wording import printable, suggest

FILES = ("checkpoint", "classifier", "reference")
"""Roles of the files that an entry may name; the checkpoint comes first."""

UNSUPPORTED = "unsupported"
"""Family of an entry that SolverBench cannot read."""


def rows() -> Iterator[tuple[str, str, str]]:
    """Yield (name, state, one-line description) for each teacher."""
    for each in registries.teachers.listed():
        unavailable = f"unavailable: {each.unavailable}" if each.unavailable else each.about
        yield each.name, each.plugin or "built in", unavailable
    published = registries.catalogue()
    for name, entry in published.items():
        yield name, _state(name, entry), entry["about"]
    for path in sorted(userdata.teachers().glob("*.toml")):
        if path.stem not in published:
            yield path.stem, "imported", str(path)


def info(name: str) -> str:
    """Return the facts about a catalogue teacher or an imported teacher, as human-readable lines.

    Raises:
        UnknownNameError: there is no such teacher.
    """
    if name not in registries.catalogue() and (path := userdata.teachers() / f"{name}.toml").is_file():
        return f"{name}: imported\n{path.read_text(encoding='utf-8').rstrip()}"
    entry = _entry(name)
    lines = [f"{name}: {entry['about']}", f"  state       {_state(name, entry)}"]
    for key in ("family", "papers", "licence", "resolution", "noise", "condition", "grids", "fid"):
        lines.append(f"  {key:<11} {entry[key]}")
    lines += [
        f"  sampler     of papers: {entry['sampler']}, {entry['sampler_nfe']} calls",
        f"  {'':<11} {entry['sampler_source']}",
    ]
    for key in FILES:
        if key in entry:
            lines.append(f"  {key:<11} {' '.join([entry[key]['url'], *_note(entry[key])])}")
    return "\n".join(lines)


def fetch(name: str, tell: Callable[[str], downloads.Tell], *, references: bool = True) -> list[str]:
    """Download the files of a catalogue teacher, write its description, and return a report as lines.

    Args:
        tell: factory of a progress callback from a file's name.
        references: whether to download the reference statistics for FID too.

    Raises:
        UnknownNameError: there is no such teacher.
        MissingError, RecordError: see `downloads.fetch`.
    """
    entry, folder = _entry(name), userdata.teachers() / name
    found: dict[str, Path] = {}
    lines = []
    for role in FILES:
        about = entry.get(role)
        if about is None or (role == "reference" and not references):
            continue
        if about["url"] == "unknown":
            lines.append(f"{role}: no address is known, {about.get('note', 'and no place')}")
            continue
        path = folder / _file_name(about)
        sha = downloads.fetch(about["url"], path, tell(path.name))
        lines.append(f"{role}: {path}, sha256 {sha}")
        if "kind" in about:
            lines.append(f"  to measure FID against it: solverbench refs build {name} {path} --kind {about['kind']}")
        found[role] = downloads.member(path, about["member"], folder / f"{role}.ckpt") if "member" in about else path
    if entry["family"] == UNSUPPORTED:
        lines.append(f"{name}: downloaded, but no family supports it yet")
        return lines
    description = _described(name, entry, found)
    place = userdata.teachers() / f"{name}.toml"
    if not place.exists():
        files.write_bytes(place, description.encode())
    lines.append(f"described in {place}; run: solverbench run --teachers {name}")
    return lines


def take(path: Path, name: str, given: Mapping[str, str]) -> Path:
    """Describe a user's checkpoint in the data folder, so that `name` is a teacher; return the description's path.

    The teacher is loaded once, which checks and converts it.

    Raises:
        UserError: the name is taken or is not one word.
        MissingError, RecordError, SpecError: see `families.load`.
    """
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]*", name):
        raise UserError(asked=f"--name {name!r}", wrong="not one word", remedy="use letters, digits, - and _")
    place = userdata.teachers() / f"{name}.toml"
    if name in registries.teachers or name in registries.catalogue() or place.exists():
        where = place if place.exists() else "the catalogue"
        raise UserError(asked=f"--name {name!r}", wrong=f"already used by {where}", remedy="choose another name")
    if path.suffix == ".toml":
        raise UserError(asked=path, wrong="is already a description", remedy=f"use it directly with --teachers {path}")
    description = families.read(path, given)
    family = description.family or families.recognise(description.checkpoint)
    loaded = families.load(path, {**given, "family": family}, "cpu")
    plain = {"name": name, "family": family, "checkpoint": str(description.checkpoint.resolve())}
    plain |= {key: value for key, value in given.items() if key not in ("name", "family")}
    if description.prompts is not None:
        plain["prompts"] = str(description.prompts.resolve())
    said = "".join(f"# {printable(note)}\n" for note in loaded.notes)
    files.write_bytes(place, (said + _toml(plain)).encode())
    return place


OK, OPTIONAL, FAIL = "ok", "missing, optional", "FAIL"
"""Results of `verify`: a missing reference affects only FID, but a missing checkpoint is a failure."""


def verify(name: str) -> Iterator[tuple[str, str]]:
    """Yield (result, description) for each of a teacher's files and for one call of its network.

    Raises:
        UnknownNameError: there is no such teacher.
    """
    folder = userdata.teachers() / name
    described = (userdata.teachers() / f"{name}.toml").is_file()
    if name not in registries.teachers and not described:
        _entry(name)
    if name in registries.catalogue():
        for role in FILES:
            about = _entry(name).get(role)
            if about is None or about["url"] == "unknown":
                continue
            path = folder / _file_name(about)
            if not path.exists():
                found = OPTIONAL if role == "reference" else FAIL
                yield found, f"{role}: {path} doesn't exist; run: solverbench teachers fetch {name}"
                continue
            yield _tried(role, lambda path=path: f"{path}, sha256 {downloads.pinned(path)}")  # type: ignore[misc]
    if name in registries.teachers or described:
        yield _tried("network", lambda: _called(name))


def _called(name: str) -> str:
    """Call a teacher once and return a description of the result; RecordError if it is wrong."""
    import torch

    from solverbench import seeds
    from solverbench.teachers.loading import load_teacher

    teacher = load_teacher(name)
    schedule = teacher.schedule
    x = schedule.prior_scale * seeds.noise([0], teacher.shape)
    with torch.no_grad():
        d = teacher.denoiser([0])(x, torch.tensor(schedule.sigma_max, dtype=torch.float64))
    if d.shape != x.shape or not d.isfinite().all():
        raise RecordError(
            asked=name,
            wrong=f"a call gives {tuple(d.shape)}, finite: {bool(d.isfinite().all())}",
            remedy="download the file again",
        )
    return f"{' x '.join(map(str, teacher.shape))}, identity {teacher.identity[:12]}, a call is finite" + "".join(
        f"; {note}" for note in teacher.notes
    )


def _tried(what: str, trial: Callable[[], str]) -> tuple[str, str]:
    try:
        return OK, f"{what}: {trial()}"
    except UserError as error:
        return FAIL, f"{what}: {error}"


def _entry(name: str) -> dict[str, Any]:
    published = registries.catalogue()
    if name not in published:
        remedy = suggest(name, published, "see 'solverbench teachers list'.")
        raise UnknownNameError(asked=f"teacher {name!r}", wrong="not in the catalogue", remedy=remedy)
    return published[name]


def _state(name: str, entry: Mapping[str, Any]) -> str:
    if entry["family"] == UNSUPPORTED:
        return "no family supports it"
    return "here" if (userdata.teachers() / f"{name}.toml").is_file() else "to fetch"


def _file_name(about: Mapping[str, str]) -> str:
    return about.get("name") or about["url"].rpartition("/")[2]


def _note(about: Mapping[str, str]) -> list[str]:
    return [f"({about['note']})"] if "note" in about else []


def _described(name: str, entry: Mapping[str, Any], found: Mapping[str, Path]) -> str:
    if "checkpoint" not in found:
        raise MissingError(
            asked=name, wrong="no address of its checkpoint is known", remedy=f"see 'solverbench teachers info {name}'"
        )
    plain = {"name": name, "family": entry["family"], "checkpoint": str(found["checkpoint"])}
    plain |= {key: entry[key] for key in ("guidance",) if key in entry}  # the papers' samplers aren't converged
    return _toml(plain)


def _toml(plain: Mapping[str, Any]) -> str:
    """Return a description as TOML: the fields of every family, then the family's own options."""
    known = {*options.of(families.Description), *families.PATHS}
    own = {key: value for key, value in plain.items() if key not in known}
    lines = [f"{key} = {_value(value)}" for key, value in plain.items() if key in known]
    if own:
        lines += ["", "[options]", *(f"{key} = {_value(value)}" for key, value in own.items())]
    return "\n".join(lines) + "\n"


def _value(value: Any) -> str:
    # A number or truth value written as text is parsed by its field's type when read.
    return json.dumps(value, ensure_ascii=False)
