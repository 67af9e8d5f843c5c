"""The files of a store: their names by place, and a check of each file."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from solverbench import files
from solverbench.errors import RecordError

CELL = re.compile(r"cells/[0-9a-f]{2}/([0-9a-f]{64})/(cell|metrics|timing)\.json")
PLAN = re.compile(r"targets/[0-9a-f]{32}/plan\.json")
COST = re.compile(r"targets/[0-9a-f]{32}/\d+-\d+/timing\.json")
ERROR = re.compile(r"cells/[0-9a-f]{2}/[0-9a-f]{64}/error\.txt")
ARRAYS = re.compile(
    r"(cells/[0-9a-f]{2}/[0-9a-f]{64}/blocks|(targets|solutions)/[0-9a-f]{32})/\d+-\d+\.npz|references/[^/.][^/]*\.npz"
)
TRAINED = re.compile(r"trained/[^/.][^/]*/(runs/[^/.][^/]*/)?[^/.][^/]*")
TEMPORARY = re.compile(r"(.*/)?\.[^/]+\.part")

FOLDERS = ("cells", "targets", "solutions", "references", "trained")
"""Folders that a merge copies; reports can be drawn again, and leases are temporary."""


@dataclass(frozen=True)
class Damage:
    """A damaged file.

    Args:
        name: path below the store's folder.
        what: the damage, in the words of an error message.
    """

    name: str
    what: str

    @property
    def remedy(self) -> str:
        """The remedy, in the words of an error message."""
        if self.name.startswith("trained/"):
            return "merge a store with an intact copy, or delete it and train again"
        if self.name.startswith("references/"):
            return "merge a store with an intact copy, or delete it and build it again"
        return "use --set-aside and run again to compute it again, or merge a store with an intact copy"

    def __str__(self) -> str:
        return f"{self.name}: {self.what}; {self.remedy}"


def walk(root: Path) -> Iterator[str]:
    """Yield the names of all result files below a store's folder, in order; other files are skipped."""
    for folder in FOLDERS:
        for path in files.below(root / folder):
            name = path.relative_to(root).as_posix()
            if known(name):
                yield name


def known(name: str) -> bool:
    """Return whether a file of this name is a result file."""
    if name.endswith(files.DAMAGED):
        return False
    return any(kind.fullmatch(name) for kind in (CELL, COST, PLAN, ERROR, ARRAYS, TRAINED))


def check(root: Path, name: str, check_trained: Callable[[Path], None]) -> Damage | None:
    """Read a whole result file and return its damage; None if it is sound.

    Args:
        check_trained: function that raises RecordError for a damaged parameter file of a learned solver.

    Raises:
        StoreError: the file cannot be read.
    """
    path = root / name
    try:
        if found := CELL.fullmatch(name):
            _check_cell(path, *found.groups())
        elif COST.fullmatch(name) or PLAN.fullmatch(name):
            files.read_json(path)
        elif ARRAYS.fullmatch(name):
            files.read_arrays(path)
        elif name.startswith("trained/") and path.suffix == ".safetensors":
            check_trained(path)
    except RecordError as error:
        return Damage(name, error.finding(path))
    return None


def _check_cell(path: Path, address: str, kind: str) -> None:
    body = files.read_json(path)
    if kind == "cell" and files.digest(body.get("key")) != address:
        raise RecordError(asked=path, wrong="the key of another cell")
    if kind == "metrics" and body.get("cell") != address:
        raise RecordError(asked=path, wrong="written for another cell")
