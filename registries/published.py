"""Published settings and results, read from the data files in this folder."""

from __future__ import annotations

import json
import math
import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any


def gits() -> dict[str, list[list[float]]]:
    """Return the noise levels that GITS found on Stable Diffusion: solver to lists of levels, shortest first."""
    return _read("gits.toml")


@dataclass(frozen=True)
class Aligned:
    """A table of Align Your Steps.

    Args:
        model: the model it was made for.
        levels: of its ten calls.
        ends: first and last level of the model.
    """

    model: str
    levels: tuple[float, ...]
    ends: tuple[float, float]


def ays(table: str) -> Aligned:
    """Return a table of Align Your Steps: sd15, sdxl or svd."""
    found = _read("ays.toml")[table]
    return Aligned(found["model"], tuple(found["levels"]), tuple(found["ends"]))


def recommended(solver: str) -> dict[str, dict[str, str]]:
    """Return the options recommended for a solver: teacher family to {"options", "source"}; may be empty."""
    entry: dict[str, dict[str, str]] = _read("recommended.toml").get(solver, {})
    return entry


def described(solver: str) -> str | None:
    """Return what `solverbench info` says of a built-in classical solver without options; None of any other name.

    It is stored, so that the command needs no torch; see tools/descriptions.py.
    """
    text = resources.files("solverbench.registries").joinpath("descriptions.json").read_text(encoding="utf-8")
    found: str | None = json.loads(text).get(solver)
    return found and found.replace("{}", str(Path(__file__).parents[1]))


def catalogue() -> dict[str, dict[str, Any]]:
    """Return the published teachers: name to family, addresses, licence, noise range, settings and protocol."""
    return _read("teachers.toml")


def prompts() -> dict[str, dict[str, Any]]:
    """Return the sets of prompts: name to description, licence, number, and file of this package or address."""
    return _read("prompts.toml")


def prompt_file(name: str) -> Path:
    """Return the file of a set of prompts that comes with this package."""
    return Path(__file__).parent / "prompts" / name


def bibliography() -> dict[str, str]:
    """Return the BibTeX entries of the papers of solvers and grids, by arXiv number."""
    text = resources.files("solverbench.registries").joinpath("solvers.bib").read_text(encoding="utf-8")
    return {re.findall(r"arXiv:([0-9.]+)", entry)[0]: entry for entry in text.strip().split("\n\n")}


@dataclass(frozen=True)
class Foreign:
    """A sampler or scheduler of another program, in this project's terms.

    Args:
        group: key of the program's table in names.toml.
        title: what the table lists, such as "Samplers of ComfyUI".
        about: conditions that hold for the whole table.
        name: the other program's name.
        spec: spec of the same solver, or of the nearest one if `agrees` is "none"; may be empty.
        agrees: equal, near or none.
        differs: what is not equal, or why it cannot be run.
    """

    group: str
    title: str
    about: str
    name: str
    spec: str
    agrees: str
    differs: str

    @property
    def relation(self) -> str:
        """How the spec relates to it, in words."""
        if self.agrees == "none":
            return "can't be run; this is the nearest solver" if self.spec else "can't be run"
        return {"equal": "the same numbers, up to rounding", "near": "the same method"}[self.agrees]


def foreign(name: str | None = None) -> list[Foreign]:
    """Return the names of other programs' samplers and schedulers, or the entries of one name in any case."""
    tables: dict[str, dict[str, Any]] = _read("names.toml")
    return [
        Foreign(group, table["title"], table["about"], each, entry.get("spec", ""), entry["agrees"], entry["differs"])
        for group, table in tables.items()
        for each, entry in table["names"].items()
        if name is None or each.lower() == name.lower()
    ]


AUTHORS = {"gas": ("gs", "gas", "s4s_gas_compat")}
"""Papers whose authors' trained files can be read, and the specs of the solvers in them."""


@dataclass(frozen=True)
class Result:
    """One published number.

    Args:
        row: unique name, paper/table/solver/calls, such as gas/cifar10/gas/4.
        paper: title and source.
        place: position in the paper.
        teacher: teacher's name in this project; another word where it has no such teacher.
        solver: solver's name as printed.
        spec: solver's spec in this project as far as stated; empty if it cannot be given.
        unknown: options that the paper leaves open.
        nfe: number of calls; 0 for a teacher's own sampler if not stated.
        metric: metric's name in this project.
        value: value as printed.
        digits: number of digits after the decimal point.
        protocol: measurement settings; "unknown" where not stated.
        note: other remarks.
        authors: for a solver that its authors trained: how their code sampled with it, and what it was trained with,
            see `authors`; empty if no file of theirs can be used.
    """

    row: str
    paper: str
    place: str
    teacher: str
    solver: str
    spec: str
    unknown: tuple[str, ...]
    nfe: int
    metric: str
    value: float
    digits: int
    protocol: Mapping[str, Any]
    note: str
    authors: Mapping[str, Any] = field(default_factory=dict)


def papers() -> list[str]:
    """Return the names of the papers with results here; `embedded` is this project's own record."""
    folder = resources.files("solverbench.registries").joinpath("papers")
    return sorted(entry.name.removesuffix(".toml") for entry in folder.iterdir() if entry.name.endswith(".toml"))


@cache
def results(paper: str) -> tuple[Result, ...]:
    """Return every published number of `paper`, one of `papers()`."""
    return tuple(_results(paper))


def _results(paper: str) -> Iterator[Result]:
    found = _read(f"papers/{paper}.toml")
    title = f"{found['paper']['title']}, {found['paper']['source']}"
    for table in found["table"]:
        for row in table["rows"]:
            digits = max(len(f"{value!r}".partition(".")[2].rstrip("0")) for value in row["values"])
            protocol = dict(table["protocol"])
            if row.get("copied"):  # copied from another paper, whose protocol is not stated here
                protocol |= {"seeds": "unknown", "quantiser": "unknown"}
            for nfe, value in zip(table["nfe"], row["values"], strict=True):
                if not math.isnan(value):
                    yield Result(
                        row=f"{paper}/{table['id']}/{row['id']}/{nfe}",
                        paper=title,
                        place=table["place"],
                        teacher=table["teacher"],
                        solver=row["name"],
                        spec=row.get("spec", ""),
                        unknown=tuple(row.get("unknown", ())),
                        nfe=nfe,
                        metric=table["metric"],
                        value=value,
                        digits=digits,
                        protocol=protocol,
                        note=table.get("note", ""),
                        authors=_trained(paper, table["teacher"], row),
                    )


def authors(paper: str, teacher: str) -> dict[str, Any]:
    """Return how a paper's authors sampled with their trained solvers on a teacher; empty if that isn't known.

    Its entries are options (of the spec here), start and end (levels, if these aren't the model's own), loss,
    discriminator, and files (an address).
    """
    found: dict[str, Any] = _read(f"papers/{paper}.toml").get("authors", {}).get(teacher, {})
    return found


def _trained(paper: str, teacher: str, row: Mapping[str, Any]) -> dict[str, Any]:
    """Return `authors` for a row, without a discriminator where the row's solver is trained without one."""
    spec = row.get("spec", "")
    if spec not in AUTHORS.get(paper, ()) or row.get("copied"):
        return {}
    found = authors(paper, teacher)
    return found | {"discriminator": "none"} if found and spec != "gas" else found


@cache
def _read(name: str) -> dict[str, Any]:
    return tomllib.loads(resources.files("solverbench.registries").joinpath(name).read_text(encoding="utf-8"))
