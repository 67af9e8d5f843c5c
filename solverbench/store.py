"""The store: one folder of cells, each addressed by the hash of everything that its numbers depend on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from solverbench import files, seeds
from solverbench.errors import RecordError, StoreError
from solverbench.metrics import Moments

VERSION = 1
"""Of the layout of folders and files, written in docs/store.md."""

LARGE = 256
"""Features from which on a matrix of sums is stored as its upper triangle: 17 MB of 34 for Inception's 2048."""


_OPTIONAL = ("exact", "features", "perceptual", "prompted")


@dataclass(frozen=True)
class Store:
    """A results folder.

    Args:
        root: DIR of `--out DIR`; it need not exist before the first write.
    """

    root: Path

    @classmethod
    def open(cls, root: Path | str) -> Store:
        """Return the store at `root`, made if it isn't there, and proven writable.

        Raises:
            StoreError: a file, a folder that can't be written, or a store of another version.
            RecordError: its store.json is damaged.
        """
        store = cls.look(root)
        files.write_json(store.root / "store.json", {"format": "solverbench-store", "version": VERSION})
        return store

    @classmethod
    def look(cls, root: Path | str) -> Store:
        """Return the store at `root` for reading; nothing is written, and it may be missing.

        Raises:
            StoreError: a file, or a store of another version.
            RecordError: its store.json is damaged.
        """
        store = cls(Path(root))
        if store.root.exists() and not store.root.is_dir():
            raise StoreError(f"{root}: a file, not a folder; choose another --out")
        if (store.root / "store.json").exists():
            try:
                found = files.read_json(store.root / "store.json")
            except RecordError:
                raise RecordError(
                    f"{root}/store.json: damaged; if this version made the store, copy store.json from a new one "
                    "(it is the same in each), otherwise choose another --out"
                ) from None
            if found != {"format": "solverbench-store", "version": VERSION}:
                raise StoreError(
                    f"{root}: a store of version {found.get('version')!r}, this is version {VERSION}; "
                    "choose another --out, or use the SolverBench that made it"
                )
        elif (store.root / "cells").exists():
            raise StoreError(f"{root}: holds cells but no store.json; choose another --out, or restore that file")
        return store

    def cell(self, key: Mapping[str, Any]) -> CellFolder:
        """Return the folder of the cell with this key, there or not."""
        address = files.digest(key)
        return CellFolder(self.root / "cells" / address[:2] / address, address)


@dataclass(frozen=True, eq=False)
class BlockResult:
    """What a block of seeds leaves behind.

    Args:
        moments: of the features of its images; None if there are none, or they are kept themselves.
        errors: [p] float64, mean squared error over the pixels of each of its first p images to the teacher's endpoint.
        nfe: counted calls per image.
        images: [k, C, H, W] uint8, its first k images, for pictures.
        exact: [q] float64, the same error of its first q images to the exact solution; None if that isn't asked for.
        features: [n, D] float32, kept where their sums don't do.
        perceptual: [p] float64, the perceptual distance of the same images as `errors`; None if that isn't asked for.
        prompted: [n] float64, how well each image fits its prompt; None if that isn't asked for.
    """

    moments: Moments | None
    errors: NDArray[np.float64]
    nfe: int
    images: NDArray[np.uint8]
    exact: NDArray[np.float64] | None = None
    features: NDArray[np.float32] | None = None
    perceptual: NDArray[np.float64] | None = None
    prompted: NDArray[np.float64] | None = None


@dataclass(frozen=True)
class CellFolder:
    """One cell on disk: cell.json, blocks/, metrics.json, and apart from the results timing.json and error.txt."""

    path: Path
    address: str

    def describe(self, key: Mapping[str, Any], names: Mapping[str, Any]) -> None:
        """Write cell.json: the key, and what people call it. Left alone if it is there."""
        if not (self.path / "cell.json").exists():
            files.write_json(self.path / "cell.json", {"key": key, "names": names})

    def verify(self) -> None:
        """Raise RecordError if cell.json is there and damaged."""
        if (self.path / "cell.json").exists():
            files.read_json(self.path / "cell.json")

    def has_block(self, block: range) -> bool:
        """Return whether this block's result is stored."""
        return self._block(block).exists()

    def write_block(self, block: range, result: BlockResult) -> None:
        """Store a block's result; the rename that puts it in its place is the commit."""
        arrays: dict[str, NDArray[Any]] = {"errors": result.errors, "images": result.images}
        arrays["nfe"] = np.array(result.nfe, dtype=np.int64)
        for name in _OPTIONAL:
            if getattr(result, name) is not None:
                arrays[name] = getattr(result, name)
        if result.moments is not None:
            moments = result.moments
            arrays |= {"n": np.array(moments.n, dtype=np.int64), "total": moments.total}
            arrays["outer"] = _packed(moments.outer)
        files.write_arrays(self._block(block), arrays)

    def read_block(self, block: range) -> BlockResult:
        """Return a stored block's result.

        Raises:
            RecordError: the file is damaged.
        """
        arrays = files.read_arrays(self._block(block))
        moments = Moments(int(arrays["n"]), arrays["total"], _full(arrays["outer"])) if "n" in arrays else None
        kept = (arrays.get(name) for name in _OPTIONAL)
        return BlockResult(moments, arrays["errors"], int(arrays["nfe"]), arrays["images"], *kept)

    def finish(self, metrics: Mapping[str, Any]) -> None:
        """Write metrics.json, which makes the cell done, and forget an earlier failure."""
        files.write_json(self.path / "metrics.json", {"cell": self.address, **metrics})
        (self.path / "error.txt").unlink(missing_ok=True)

    def metrics(self) -> dict[str, Any] | None:
        """Return what `finish` wrote; None if the cell isn't done.

        Raises:
            RecordError: the file is damaged, or of another cell.
        """
        path = self.path / "metrics.json"
        if not path.exists():
            return None
        found = files.read_json(path)
        if found.pop("cell", None) != self.address:
            raise RecordError(f"{path}: written for another cell; delete this file and run again, which makes it anew")
        return found

    def fail(self, reason: str, details: str) -> None:
        """Write error.txt: the reason in its first line, then the details."""
        files.write_bytes(self.path / "error.txt", f"{reason}\n\n{details}\n".encode())

    def failure(self) -> str | None:
        """Return the reason of an earlier failure; None if there was none since the cell last did well."""
        path = self.path / "error.txt"
        return path.read_text(encoding="utf-8", errors="replace").split("\n", 1)[0] if path.exists() else None

    def timing(self) -> dict[str, Any]:
        """Return when and at what cost it was made: {"attempts": [...], "blocks": {label: {...}}}."""
        path = self.path / "timing.json"
        return files.read_json(path) if path.exists() else {"attempts": [], "blocks": {}}

    def write_timing(self, timing: Mapping[str, Any]) -> None:
        """Replace what is known about its cost."""
        files.write_json(self.path / "timing.json", timing)

    def _block(self, block: range) -> Path:
        return self.path / "blocks" / f"{seeds.label(block)}.npz"


def _packed(outer: NDArray[np.float64]) -> NDArray[np.float64]:
    """The upper triangle row by row of a large symmetric matrix; a small one as it is."""
    return outer[np.triu_indices(len(outer))] if len(outer) >= LARGE else outer


def _full(stored: NDArray[np.float64]) -> NDArray[np.float64]:
    """The matrix that `_packed` took."""
    if stored.ndim == 2:
        return stored
    size = round(((8 * len(stored) + 1) ** 0.5 - 1) / 2)
    outer = np.empty((size, size))
    upper = np.triu_indices(size)
    outer[upper] = stored
    outer.T[upper] = stored
    return outer
