"""The results folder: cells, each addressed by the hash of everything that its numbers depend on."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from solverbench import files, seeds
from solverbench.errors import RecordError, StoreError
from solverbench.method.tableau import Plan
from solverbench.metrics.frechet import Moments
from solverbench.store import layout, leases, schema

VERSION = 1
"""Version of the layout of folders and files, which docs/store.md describes."""

LARGE = 256
"""Number of features from which a matrix of sums is stored as its upper triangle (17 MB of 34 for Inception's 2048)."""

FAILED = "failed_"
"""Prefix of a block's array that holds, as UTF-8, the reason why the array named after the prefix is missing."""

_OWN = ("images", "nfe", "n", "total", "outer")
"""Names of a block's arrays that aren't values of its images."""


@dataclass(frozen=True)
class Store:
    """A results folder.

    Args:
        root: the DIR of `--out DIR`; it need not exist before the first write.
    """

    root: Path

    @classmethod
    def open(cls, root: Path | str) -> Store:
        """Return the store at `root`, creating it if it is missing; check that it is writable.

        Raises:
            StoreError: `root` is a file, a folder that cannot be written, a store of another version, or contains
                a link where results are written.
            RecordError: its store.json is damaged.
        """
        store = cls.look(root)
        for folder in (*layout.FOLDERS, *layout.BESIDE, "leases"):
            for path in (store.root / folder, *files.listed(store.root / folder)):
                layout.refuse_links(store.root, path.relative_to(store.root).as_posix())
        files.write_json(store.root / "store.json", {"format": "solverbench-store", "version": VERSION})
        return store

    @classmethod
    def look(cls, root: Path | str) -> Store:
        """Return the store at `root` for reading; nothing is written, and the folder may be missing.

        Raises:
            StoreError: `root` is a file, or a store of another version.
            RecordError: its store.json is damaged.
        """
        store = cls(Path(root))
        if store.root.exists() and not store.root.is_dir():
            raise StoreError(asked=root, wrong="a file, not a folder", remedy="choose another --out")
        if (store.root / "store.json").exists():
            try:
                found = files.read_json(store.root / "store.json")
            except RecordError:
                raise RecordError(
                    asked=f"{root}/store.json",
                    wrong="damaged",
                    remedy=(
                        "if this version made the store, copy store.json from "
                        "another store, where it is the same; otherwise choose another --out"
                    ),
                ) from None
            if found != {"format": "solverbench-store", "version": VERSION}:
                raise StoreError(
                    asked=root,
                    wrong=f"a store of version {found.get('version')!r}, this is version {VERSION}",
                    remedy="choose another --out, or use the SolverBench that made it",
                )
        elif (store.root / "cells").exists():
            raise StoreError(
                asked=root, wrong="holds cells but no store.json", remedy="choose another --out, or restore that file"
            )
        return store

    def former(self) -> bool:
        """Return whether there are cells of an earlier key format, judged by a few cells.

        Such cells are not found by key, but remain readable for reports, `verify`, `merge` and `export`.
        """
        for path in itertools.islice(layout.cells(self.root), 8):
            try:
                if "plan" in files.read_json(path / "cell.json")["key"]:
                    return True
            except (RecordError, StoreError, KeyError, TypeError):
                continue
        return False

    def cell(self, key: Mapping[str, Any]) -> CellFolder:
        """Return the folder of the cell with this key, whether or not it exists."""
        return self.at(files.digest(key))

    def at(self, address: str) -> CellFolder:
        """Return the folder of the cell with this address, whether or not it exists.

        Raises:
            StoreError: a link is in its place.
        """
        layout.refuse_links(self.root, f"cells/{address[:2]}/{address}/blocks")
        return CellFolder(self.root / "cells" / address[:2] / address, address)


@dataclass(frozen=True, eq=False)
class BlockResult:
    """The stored result of a block of seeds.

    Args:
        moments: moments of the features of its images; None if there are no features, or the vectors are kept.
        nfe: counted calls per image.
        images: [k, C, H, W] uint8, its first k images, for pictures.
        arrays: values of its images by name, in the order of the file, "errors" first; docs/store.md lists them.
        failed: name of an array that could not be computed to the reason.
    """

    moments: Moments | None
    nfe: int
    images: NDArray[np.uint8]
    arrays: Mapping[str, NDArray[Any]]
    failed: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Found:
    """The contents of a cell's folder.

    Args:
        metrics: contents of metrics.json; None if the cell is not done.
        timing: time and cost of making the cell, as far as known.
        blocks: stored blocks that are not known to be damaged.
        pictures: images of a done cell's first block.
        damaged: damaged files, which have to be recomputed, each with its error.
    """

    metrics: dict[str, Any] | None
    timing: dict[str, Any]
    blocks: list[range]
    pictures: NDArray[np.uint8] | None
    damaged: dict[Path, RecordError]


@dataclass(frozen=True)
class CellFolder:
    """One cell on disk: cell.json, blocks/ and metrics.json; timing.json and error.txt are not part of the result."""

    path: Path
    address: str

    def describe(self, key: Mapping[str, Any], names: Mapping[str, Any], plan: Plan) -> None:
        """Write cell.json with the cell's key, its human-readable names and its plan; keep an existing file."""
        if not (self.path / "cell.json").exists():
            files.write_json(self.path / "cell.json", {"key": key, "names": names, "plan": plan.as_dict()})

    def plan(self) -> Plan | None:
        """Return the plan of the stored results; None if it is missing or cannot be read."""
        path = self.path / "cell.json"
        try:
            return Plan.of(files.read_json(path)["plan"]) if path.exists() else None
        except (RecordError, KeyError, TypeError, ValueError):
            return None

    def inspect(self, blocks: Sequence[range]) -> Found:
        """Return the contents of a cell with these blocks; nothing is written.

        For a done cell, only metrics.json and the pictures of the first block are read, because there may be thousands
        of such cells. The blocks of an unfinished cell are read whole. A cell that lacks some of its metrics counts as
        unfinished, and a block in which a metric failed as damaged: both are computed again.
        """
        damaged: dict[Path, RecordError] = {}

        def sound(path: Path, read: Callable[[], Any]) -> Any:
            try:
                return read()
            except RecordError as error:
                damaged[path] = error
                return None

        metrics = sound(self.path / "metrics.json", self.metrics)
        if metrics is not None and metrics.get("failed"):
            metrics = None
        timing = sound(self.path / "timing.json", self.timing) or {"attempts": [], "blocks": {}}
        try:
            names = set(os.listdir(self.path / "blocks"))
        except OSError:
            names = set()
        stored = [block for block in blocks if f"{seeds.label(block)}.npz" in names]
        if metrics is None or len(stored) < len(blocks):
            if (self.path / "cell.json").exists():
                sound(self.path / "cell.json", lambda: files.read_json(self.path / "cell.json"))
            for block in stored:
                sound(self.place(block), partial(self._whole, block))
        pictures = None
        if metrics is not None and len(stored) == len(blocks):
            pictures = sound(self.place(blocks[0]), partial(self.pictures, blocks[0]))
        if damaged:
            stored = [block for block in stored if self.place(block) not in damaged]
        return Found(metrics, timing, stored, pictures, damaged)

    def place(self, block: range) -> Path:
        """Return the path of a block's result, whether or not it exists."""
        return self.path / "blocks" / f"{seeds.label(block)}.npz"

    @property
    def done(self) -> bool:
        """Whether metrics.json exists, damaged or not."""
        return (self.path / "metrics.json").exists()

    def has_block(self, block: range) -> bool:
        """Return whether this block's result is stored, damaged or not."""
        return self.place(block).exists()

    def sound_block(self, block: range) -> bool:
        """Return whether this block's result is stored, can be read and lacks nothing."""
        try:
            return self.has_block(block) and self._whole(block) is not None
        except RecordError:
            return False

    def set_aside(self, block: range) -> None:
        """Rename a damaged block's file, so that the block is recomputed."""
        files.set_aside(self.place(block))

    def discard_damaged(self, damaged: Iterable[Path]) -> None:
        """Set aside the JSON files among `damaged` that are still damaged; they will be rewritten."""
        for path in damaged:
            try:
                if path.suffix == ".json" and path.exists():
                    self.metrics() if path.name == "metrics.json" else files.read_json(path)
            except RecordError:
                files.set_aside(path)

    def write_block(self, block: range, result: BlockResult) -> None:
        """Store a block's result; the link to its final name is the commit. An existing result is kept."""
        arrays: dict[str, NDArray[Any]] = {name: each for name, each in result.arrays.items() if name == "errors"}
        arrays |= {"images": result.images, "nfe": np.array(result.nfe, dtype=np.int64), **result.arrays}
        arrays |= {FAILED + name: np.frombuffer(why.encode(), np.uint8) for name, why in result.failed.items()}
        if result.moments is not None:
            moments = result.moments
            arrays |= {"n": np.array(moments.n, dtype=np.int64), "total": moments.total}
            arrays["outer"] = _packed(moments.outer)
        files.write_arrays(self.place(block), arrays, replace=False)

    def read_block(self, block: range) -> BlockResult:
        """Return a stored block's result.

        Raises:
            RecordError: the file is damaged.
        """
        path = self.place(block)
        arrays = files.read_arrays(path)
        schema.checked(path, schema.block, arrays)
        moments = Moments(int(arrays["n"]), arrays["total"], _full(arrays["outer"])) if "n" in arrays else None
        kept = {name: each for name, each in arrays.items() if name not in _OWN and not name.startswith(FAILED)}
        failed = {
            name.removeprefix(FAILED): each.tobytes().decode(errors="replace")
            for name, each in arrays.items()
            if name.startswith(FAILED)
        }
        return BlockResult(moments, int(arrays["nfe"]), arrays["images"], kept, failed)

    def _whole(self, block: range) -> BlockResult:
        """A stored block's result.

        Raises:
            RecordError: the file is damaged, or a metric has failed.
        """
        found = self.read_block(block)
        for why in found.failed.values():
            raise RecordError(
                asked=self.place(block), wrong=f"lacks a metric ({why.replace(';', ',')})", remedy="run again"
            )
        return found

    def pictures(self, block: range) -> NDArray[np.uint8]:
        """Return a stored block's images without reading the whole file.

        Raises:
            RecordError: the images are damaged.
        """
        found: NDArray[np.uint8] = files.read_array(self.place(block), "images")
        schema.checked(self.place(block), schema.pictures, found)
        return found

    def finish(self, metrics: Mapping[str, Any]) -> None:
        """Write metrics.json, which marks the cell as done, and remove error.txt."""
        files.write_json(self.path / "metrics.json", {"cell": self.address, **metrics})
        (self.path / "error.txt").unlink(missing_ok=True)

    def metrics(self) -> dict[str, Any] | None:
        """Return the metrics written by `finish`; None if the cell is not done.

        Raises:
            RecordError: the file is damaged or belongs to another cell.
        """
        path = self.path / "metrics.json"
        if not path.exists():
            return None
        found = files.read_json(path)
        if found.pop("cell", None) != self.address:
            remedy = "delete this file and run again to compute it again"
            raise RecordError(asked=path, wrong="written for another cell", remedy=remedy)
        return schema.checked(path, schema.metrics, found)

    def fail(self, reason: str, details: str) -> None:
        """Write error.txt: the reason on its first line, then the details."""
        files.write_bytes(self.path / "error.txt", f"{reason}\n\n{details}\n".encode())

    def failure(self) -> str | None:
        """Return the reason of the last failure; None if there was none since the cell was last finished."""
        path = self.path / "error.txt"
        if not path.exists():
            return None
        with files.regular(path) as file:
            return file.readline(schema.TEXT).decode(errors="replace").rstrip("\n")

    def origin(self) -> list[dict[str, Any]]:
        """Return where a merged cell comes from, the last merge last; empty if it was computed in this store.

        Raises:
            RecordError: the file is damaged.
        """
        path = self.path / "origin.json"
        if not path.exists():
            return []
        merged: list[dict[str, Any]] = schema.checked(path, schema.origin, files.read_json(path))["merged"]
        return merged

    def timing(self) -> dict[str, Any]:
        """Return time and cost of making the cell: {"attempts": [...], "blocks": {label: {...}}}."""
        path = self.path / "timing.json"
        if not path.exists():
            return {"attempts": [], "blocks": {}}
        return schema.checked(path, schema.timing, files.read_json(path))

    def write_timing(self, timing: Mapping[str, Any]) -> None:
        """Merge `timing` into timing.json; other runs may do the same at the same time."""
        with leases.opened(self.path.parents[2]) as mine, mine.claimed(f"timing-{self.address}"):
            try:
                known = self.timing()
            except RecordError:
                self.discard_damaged([self.path / "timing.json"])
                known = self.timing()
            attempts = [*known["attempts"], *(each for each in timing["attempts"] if each not in known["attempts"])]
            blocks = {**known["blocks"], **timing["blocks"]}
            # Rewritten after every block, with all blocks so far.
            files.write_json(self.path / "timing.json", {"attempts": attempts, "blocks": blocks}, lines=False)


def _packed(outer: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the upper triangle, row by row, of a large symmetric matrix; a small matrix unchanged."""
    return outer[np.triu_indices(len(outer))] if len(outer) >= LARGE else outer


def _full(stored: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the matrix from the result of `_packed`."""
    if stored.ndim == 2:
        return stored
    size = round(((8 * len(stored) + 1) ** 0.5 - 1) / 2)
    outer = np.empty((size, size))
    upper = np.triu_indices(size)
    outer[upper] = stored
    outer.T[upper] = stored
    return outer
