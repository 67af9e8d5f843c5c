"""The files of a store: their names by place, and a check of each file."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from solverbench import files
from solverbench.errors import RecordError, StoreError
from solverbench.store import schema
from solverbench.wording import printable

CELL = re.compile(r"cells/[0-9a-f]{2}/([0-9a-f]{64})/(cell|metrics|timing|origin)\.json")
PLAN = re.compile(r"targets/[0-9a-f]{32}/plan\.json")
COST = re.compile(r"targets/[0-9a-f]{32}/\d+-\d+/timing\.json")
ERROR = re.compile(r"cells/[0-9a-f]{2}/[0-9a-f]{64}/error\.txt")
ARRAYS = re.compile(
    r"(cells/[0-9a-f]{2}/[0-9a-f]{64}/blocks|(targets|solutions|convergence)/[0-9a-f]{32})/\d+-\d+\.npz"
    r"|references/[^/.][^/]*\.npz"
)
TRAINED = re.compile(r"trained/[^/.][^/]*/(runs/[^/.][^/]*/)?[^/.][^/]*")
GRID = re.compile(r"grid-.*\.json")
TEMPORARY = re.compile(r"(.*/)?\.[^/]+\.part")

FOLDERS = ("cells", "targets", "solutions", "convergence", "references", "trained")
"""Folders that a merge copies."""

BESIDE = ("reports", "prompts")
"""Folders that a merge leaves, as they can be made again: reports, and the text encoders' results (safetensors)."""


CELL_FOLDER = re.compile(r"cells/[0-9a-f]{2}/[0-9a-f]{64}")


SCHEMAS = {"cell": schema.cell, "metrics": schema.metrics, "timing": schema.timing, "origin": schema.origin}


@dataclass(frozen=True)
class Damage:
    """A damaged file.

    Args:
        name: path below the store's folder.
        what: the damage, in the words of an error message.
        differs: whether the file is whole, but isn't what its cell's key asks for.
    """

    name: str
    what: str
    differs: bool = False

    @property
    def remedy(self) -> str:
        """The remedy, in the words of an error message."""
        if "never followed" in self.what:
            return "delete it"
        if self.differs and self.name.endswith("/cell.json"):
            return "delete its folder, and ask where it comes from"
        if self.differs and self.name.endswith("/metrics.json"):
            return "its metrics or its blocks are false: delete its folder, or see with --resample which"
        if self.differs and self.name.startswith("cells/"):
            return "use --set-aside and run again to compute it again, and ask where it comes from"
        if "/" not in self.name:
            return "export again, or ask where it comes from"
        if self.name.startswith("trained/"):
            return "merge a store with an intact copy, or delete it and train again"
        if self.name.startswith("references/"):
            return "merge a store with an intact copy, or delete it and build it again"
        return "use --set-aside and run again to compute it again, or merge a store with an intact copy"

    @property
    def finding(self) -> str:
        """The damage and its remedy, as one sentence."""
        return f"{self.what}; {self.remedy}"

    def __str__(self) -> str:
        return printable(f"{self.name}: {self.finding}")


def walk(root: Path) -> Iterator[str]:
    """Yield the names of all result files below a store's folder, in order.

    Files of other names are skipped. Links are neither followed nor yielded.
    """
    for folder in FOLDERS:
        for path in files.below(root / folder):
            name = path.relative_to(root).as_posix()
            if known(name):
                yield name


def cells(root: Path) -> Iterator[Path]:
    """Yield the folders of cells, in order; links are skipped."""
    for shelf in files.listed(root / "cells"):
        for path in files.listed(shelf):
            if CELL_FOLDER.fullmatch(path.relative_to(root).as_posix()) and not path.is_symlink() and path.is_dir():
                yield path


def special(root: Path) -> Iterator[Damage]:
    """Yield what a store never holds: links, pipes, sockets and devices."""
    for folder in (*FOLDERS, *BESIDE, "leases"):
        for path in files.special(root / folder):
            yield Damage(path.relative_to(root).as_posix(), "a link or another special file, which is never followed")


def refuse_links(root: Path, name: str) -> None:
    """Check that no part of a name below a store's folder is a link; the folder itself may be one.

    Raises:
        StoreError: a part is a link, through which files elsewhere would be written or deleted.
    """
    path = root
    for part in Path(name).parts:
        path = path / part
        if path.is_symlink():
            remedy = "delete it; to keep results on another disk, link the whole results folder"
            raise StoreError(asked=path, wrong="a link inside a results folder, which is never followed", remedy=remedy)


def known(name: str) -> bool:
    """Return whether a file of this name is a result file."""
    if name.endswith(files.DAMAGED):
        return False
    return any(kind.fullmatch(name) for kind in (CELL, COST, PLAN, ERROR, ARRAYS, TRAINED))


def check(root: Path, name: str, check_trained: Callable[[Path], None]) -> Damage | None:
    """Read a whole result file and return its damage; None if it is sound.

    Args:
        check_trained: function that raises RecordError for a damaged parameter file of a learned solver.

    """
    path = root / name
    try:
        if found := CELL.fullmatch(name):
            _check_cell(path, *found.groups())
        elif PLAN.fullmatch(name):
            schema.checked(path, schema.plan, files.read_json(path))
        elif COST.fullmatch(name):
            files.read_json(path)
        elif ARRAYS.fullmatch(name):
            _check_arrays(path, name.partition("/")[0])
        elif name.startswith("trained/"):
            files.regular(path).close()
            if path.suffix == ".safetensors" or GRID.fullmatch(path.name):
                check_trained(path)
    except (RecordError, StoreError) as error:
        return Damage(name, error.finding(path))
    except (MemoryError, RecursionError) as error:
        return Damage(name, f"can't be read ({type(error).__name__})")
    return None


def _check_cell(path: Path, address: str, kind: str) -> None:
    body = files.read_json(path)
    if kind == "cell" and files.digest(body.get("key")) != address:
        raise RecordError(asked=path, wrong="the key of another cell", remedy="delete this cell")
    if kind == "metrics" and body.get("cell") != address:
        raise RecordError(asked=path, wrong="written for another cell", remedy="delete this cell")
    schema.checked(path, SCHEMAS[kind], body)


def _check_arrays(path: Path, kind: str) -> None:
    arrays = files.read_arrays(path)
    if kind == "cells":
        schema.checked(path, schema.block, arrays)
    elif kind in ("targets", "solutions"):
        schema.checked(path, schema.samples, arrays)
    elif kind == "convergence":
        schema.checked(path, schema.differences, arrays)
