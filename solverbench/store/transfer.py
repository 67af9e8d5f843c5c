"""Transfer of results between stores: merge file by file, or export to a folder or zip that can be merged."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import math
import shutil
import stat
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Sequence, Set
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from solverbench import files
from solverbench.errors import MissingError, RecordError, StoreError, UserError
from solverbench.method.tableau import Plan
from solverbench.store import layout, schema
from solverbench.store.folder import CellFolder, Store
from solverbench.wording import printable

LIST = "export.json"
TARGETS = ("teacher", "shape", "sampler", "batch", "threads", "dtype", "device", "condition")
"""Fields of a cell's key that the teacher's own images depend on, as in `endpoints.key`."""

CLOSE = 1e-3
"""Largest difference between two machines' results for one address, relative to the largest value; more is a conflict.

Between two instruction sets of one processor it is about 1e-5: a float32 network differs in its last bits.
"""

RATIO = 100
"""Largest size of an export's files relative to its zip."""

LATER = frozenset({"statistics"})
"""Names in blocks and metrics.json that earlier versions didn't write."""

COLUMNS = [
    *("teacher", "solver", "spec", "nfe", "seeds", "samples", "metric", "value", "low", "high", "std_error", "n"),
    *("reference", "cell"),
]


@dataclass
class Merged:
    """The result of a merge.

    Args:
        check_trained: as for `layout.check`.
        copied: number of files copied.
        equal: number of files that both have with the same content.
        close: number of files that both have and that differ only by rounding; left unchanged.
        repaired: files that were damaged in the store and sound in the source.
        conflicts: sound files that both have with different content; left unchanged.
        damaged: damaged files of the source, which were not copied.
    """

    check_trained: Callable[[Path], None]
    copied: int = 0
    equal: int = 0
    close: int = 0
    repaired: list[str] = field(default_factory=list)
    conflicts: list[str] = field(default_factory=list)
    damaged: list[str] = field(default_factory=list)

    @property
    def exit_code(self) -> int:
        """4 if a file was in conflict or damaged, else 0."""
        return 4 if self.conflicts or self.damaged else 0

    def lines(self) -> list[str]:
        """Return it as human-readable lines."""
        found = [f"repaired   {name}" for name in self.repaired]
        found += [
            f"CONFLICT   {name}: differs in the two stores; the existing file was kept" for name in self.conflicts
        ]
        found += [f"DAMAGED    {line}" for line in self.damaged]
        counts = f"{self.copied} files copied, {self.equal} already there, {len(self.repaired)} repaired"
        counts += f", {self.close} equal up to another machine's rounding" if self.close else ""
        return [*map(printable, found), f"{counts}, {len(self.conflicts)} in conflict, {len(self.damaged)} damaged"]


def merge(source: Path, store: Store, check_trained: Callable[[Path], None]) -> Merged:
    """Copy the files that `store` lacks from `source`, a store or an export. A repeated merge resumes or does nothing.

    Raises:
        MissingError: `source` does not exist.
        StoreError: `source` is not a store or export, or is `store` itself; or the folder cannot be written.
    """
    with _opened(source) as root:
        if root.resolve() == store.root.resolve():
            raise StoreError(asked=f"merge {source}", wrong="the same folder as --out", remedy="give another store")
        Store.open(store.root)
        merged = Merged(check_trained)
        _check_list(root, merged)
        merged.damaged += [f"{damage}; not copied" for damage in layout.special(root)]
        names = list(layout.walk(root))
        held = {name for name in names if name.startswith("cells/")}
        for folder in layout.cells(root):
            _merge_cell(root, folder, store, merged, held)
        for name in names:
            known = layout.COST.fullmatch(name) and (store.root / name).exists()  # each machine has its own cost
            if not known and not name.startswith(("cells/", "trained/")):
                _copy(root, name, store.root, merged)
        _merge_trained(root, store.root, merged)
        return merged


def _merge_cell(root: Path, folder: Path, store: Store, merged: Merged, held: Set[str]) -> None:
    """Merge a cell's blocks, then its metrics if all blocks are now equal, because metrics belong to exact blocks.

    Args:
        held: names of the source's regular files.
    """
    home = folder.relative_to(root).as_posix()
    there = store.at(folder.name)
    blocks = [f"{home}/blocks/{path.name}" for path in files.listed(folder / "blocks")]
    taken = [_copy(root, name, store.root, merged) for name in (f"{home}/cell.json", *blocks) if name in held]
    metrics = f"{home}/metrics.json"
    whole = (store.root / metrics).exists() and layout.check(store.root, metrics, merged.check_trained) is None
    if metrics in held and (all(taken) or whole):
        _copy(root, metrics, store.root, merged)
    if f"{home}/timing.json" in held:
        if damage := layout.check(root, f"{home}/timing.json", merged.check_trained):
            merged.damaged.append(str(damage))
        elif (timing := CellFolder(folder, folder.name).timing()) != _timing(there):
            there.write_timing(timing)
    if f"{home}/error.txt" in held and not (there.path / "metrics.json").exists():
        files.write_bytes(there.path / "error.txt", (folder / "error.txt").read_bytes(), replace=False)


def _timing(folder: CellFolder) -> dict[str, Any]:
    try:
        return folder.timing()
    except RecordError:
        return {}


def _merge_trained(root: Path, out: Path, merged: Merged) -> None:
    """Merge trained solvers one by one, but a training's own folder as a whole, because its files belong together."""
    names = [name for name in layout.walk(root) if name.startswith("trained/")]
    runs: dict[str, list[str]] = {}
    for name in names:
        parts = name.split("/")
        if parts[2] == "runs":
            runs.setdefault("/".join(parts[:4]), []).append(name)
        else:
            _copy(root, name, out, merged)
    for each in runs.values():
        other = [name for name in each if (out / name).exists() and not _same(root / name, out / name)]
        if other:
            merged.conflicts += other
            continue
        for name in each:
            _copy(root, name, out, merged)


def _copy(root: Path, name: str, out: Path, merged: Merged) -> bool:
    """Copy a file; return whether `out` now has the same content."""
    if damage := layout.check(root, name, merged.check_trained):
        merged.damaged.append(f"{root / name}: {damage.what}; not copied")
        return False
    layout.refuse_links(out, name)
    repaired = False
    if (out / name).exists():
        if _same(root / name, out / name):
            merged.equal += 1
            return True
        if layout.check(out, name, merged.check_trained) is None:
            if _close(root / name, out / name):
                merged.close += 1
            else:
                merged.conflicts.append(name)
            return False
        files.set_aside(out / name)
        repaired = True
    files.write_bytes(out / name, (root / name).read_bytes(), replace=False)
    merged.copied += 1
    merged.repaired += [name] * repaired
    return True


def _same(a: Path, b: Path) -> bool:
    """Return whether two files are equal; for cell.json, equal keys and plans that agree up to rounding."""
    if a.name == "cell.json":
        try:
            keys = [files.read_json(path)["key"] for path in (a, b)]
        except (RecordError, KeyError):
            return False
        mine, theirs = (CellFolder(path.parent, path.parent.name).plan() for path in (a, b))
        return bool(keys[0] == keys[1]) and (mine is None or theirs is None or mine.fits(theirs))
    return a.stat().st_size == b.stat().st_size and a.read_bytes() == b.read_bytes()


def _close(a: Path, b: Path) -> bool:
    """Return whether two sound result files differ by no more than the rounding of two machines."""
    try:
        if a.suffix == ".npz":
            mine, theirs = _comparable(files.read_arrays(a), files.read_arrays(b))
            return mine.keys() == theirs.keys() and all(_close_arrays(mine[name], theirs[name]) for name in mine)
        if a.name == "plan.json":
            return Plan.of(files.read_json(a)).fits(Plan.of(files.read_json(b)))
        return a.name == "metrics.json" and _close_values(*_comparable(files.read_json(a), files.read_json(b)))
    except (RecordError, KeyError, TypeError, ValueError):
        return False


def _comparable(a: dict[str, Any], b: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the entries of two result files, without those that only a later version writes if one lacks them."""
    lacking = LATER - (a.keys() & b.keys())
    mine, theirs = ({name: each for name, each in one.items() if name not in lacking} for one in (a, b))
    return mine, theirs


def _close_arrays(a: NDArray[Any], b: NDArray[Any]) -> bool:
    if a.dtype != b.dtype or a.shape != b.shape:
        return False
    if a.dtype.kind != "f":
        step = 1 if a.dtype == np.uint8 else 0  # an image's value next to a rounding boundary
        return bool((np.abs(a.astype(np.int64) - b.astype(np.int64)) <= step).all())
    return bool(np.allclose(a, b, rtol=0, atol=CLOSE * float(np.abs(b).max(initial=0))))


def _close_values(a: Any, b: Any) -> bool:
    """Return whether JSON values agree: numbers within `CLOSE` relative or 1e-6 absolute, everything else exactly."""
    if isinstance(a, float) or isinstance(b, float):
        numbers = all(isinstance(each, (int, float)) for each in (a, b))
        return numbers and math.isclose(a, b, rel_tol=CLOSE, abs_tol=1e-6)
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(_close_values(a[key], b[key]) for key in a)
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(map(_close_values, a, b))
    return bool(a == b)


def _check_list(root: Path, merged: Merged) -> None:
    """Compare an export with its own list of files; record missing and differing files as damaged."""
    if not (root / LIST).exists():
        return
    listed = files.read_json(root / LIST).get("files")
    for name, sha in (listed if isinstance(listed, dict) else {}).items():
        if not layout.known(name):
            continue
        if not _regular(root / name):
            merged.damaged.append(f"{name}: listed in the export, but missing; export again")
        elif files.sha256(root / name) != sha:
            merged.damaged.append(f"{name}: does not match the sha256 in the export's list; export again")


@contextmanager
def _opened(source: Path) -> Iterator[Path]:
    """Yield a folder with the contents of `source`, unpacked if it is a zip."""
    if not source.exists():
        raise MissingError(asked=f"merge {source}", wrong="doesn't exist", remedy="give a store's folder, or an export")
    if source.is_dir():
        if not (source / "store.json").exists():
            raise StoreError(
                asked=f"merge {source}",
                wrong="not a store, because it has no store.json",
                remedy="give a store's folder, or an export",
            )
        Store.look(source)
        yield source
        return
    with tempfile.TemporaryDirectory() as place:
        _unpack(source, Path(place))
        Store.look(place)
        yield Path(place)


def _unpack(source: Path, place: Path) -> None:
    """Unpack only those members of a zip whose names are result files; nothing else is written."""
    try:
        with zipfile.ZipFile(source) as archive:
            wanted = [each for each in archive.infolist() if _wanted(each)]
            size, packed_size = sum(each.file_size for each in wanted), source.stat().st_size
            if size > RATIO * packed_size:
                wrong = f"its {packed_size} bytes unpack to {size}, more than {RATIO} times as many"
                raise RecordError(asked=f"merge {source}", wrong=wrong, remedy="unpack it yourself and give the folder")
            for each in wanted:
                (place / each.filename).parent.mkdir(parents=True, exist_ok=True)
                with archive.open(each) as packed, open(place / each.filename, "xb") as file:
                    shutil.copyfileobj(packed, file)
    except OSError as error:
        raise StoreError(
            asked=f"merge {source}", wrong=f"can't be unpacked ({error.strerror or error})", remedy="check it"
        ) from None
    except (*files.FOREIGN, RuntimeError) as error:
        raise RecordError(
            asked=f"merge {source}", wrong=f"not a readable zip file ({error})", remedy="export it again"
        ) from None
    if not (place / "store.json").exists():
        raise StoreError(
            asked=f"merge {source}",
            wrong="not a complete export, because it has no store.json",
            remedy="give another file, or export again",
        )


def _wanted(entry: zipfile.ZipInfo) -> bool:
    """Return whether a zip's entry is a result file and no link."""
    link = stat.S_ISLNK(entry.external_attr >> 16)
    return not link and (entry.filename in ("store.json", LIST) or layout.known(entry.filename))


def export(
    store: Store,
    to: Path,
    check_trained: Callable[[Path], None],
    file_name: Callable[[str, int], str],
    addresses: Sequence[str] | None = None,
    *,
    targets: bool = False,
) -> list[str]:
    """Write cells to a new folder or .zip for `merge`; return the names of its files.

    It holds the files of these cells and of their learned solvers, `results.csv` with their measures, and
    `export.json` with the sha256 of each file.

    Args:
        to: path of the new folder or .zip.
        check_trained: as for `layout.check`.
        file_name: (spec, calls) -> file name of a learned solver's parameters.
        addresses: address prefixes of the cells; all cells if None.
        targets: whether to include the teacher's own images.

    Raises:
        UserError: an address fits no cell or several, `to` exists, or there is no cell.
        RecordError: a file is damaged.
        StoreError: `to` cannot be written.
    """
    if to.exists() and not (to.is_dir() and not any(to.iterdir())):
        raise UserError(f"--to {to}: is there already; choose another place, or delete it")
    cells = [path for path in layout.cells(store.root) if (path / "cell.json").exists()]
    if addresses is not None:
        cells = list(dict.fromkeys(_addressed(cells, address) for address in addresses))
    names: dict[str, None] = {}
    rows: list[dict[str, Any]] = []
    for cell in cells:
        told = schema.checked(cell / "cell.json", schema.cell, files.read_json(cell / "cell.json"))
        names |= dict.fromkeys(path.relative_to(store.root).as_posix() for path in files.below(cell))
        names |= dict.fromkeys(_related(store.root, told, targets, file_name))
        rows += _rows(cell, told)
    kept = [name for name in names if layout.known(name) and _regular(store.root / name)]
    if not rows and not kept:
        raise UserError(asked="export", wrong=f"{store.root} has no cell", remedy="run something first")
    packed: dict[str, Callable[[], bytes]] = {
        "store.json": (store.root / "store.json").read_bytes,
        "results.csv": lambda: _table(rows),
    }
    for name in kept:
        packed[name] = (store.root / name).read_bytes
    shas = {}
    with _writing(to) as put:
        for name, content in packed.items():
            if name in kept and (damage := layout.check(store.root, name, check_trained)):
                raise RecordError(asked=store.root / name, wrong=damage.what, remedy=damage.remedy)
            body = content()
            shas[name] = hashlib.sha256(body).hexdigest()
            put(name, body)
        told = {"format": "solverbench-export", "version": 1, "files": shas}
        put(LIST, (json.dumps({**told, "checksum": files.digest(told)}, indent=1) + "\n").encode())
    return [*packed, LIST]


def _regular(path: Path) -> bool:
    return path.is_file() and not path.is_symlink()


def _addressed(cells: Sequence[Path], address: str) -> Path:
    found = [cell for cell in cells if cell.name.startswith(address.lower())] if address else []
    if len(found) != 1:
        what = f"{len(found)} cells begin with this" if found else "no such cell"
        raise UserError(
            asked=f"--cell {address!r}", wrong=what, remedy="give the address as in the column 'cell' of results.csv"
        )
    return found[0]


def _related(root: Path, told: dict[str, Any], targets: bool, file_name: Callable[[str, int], str]) -> Iterator[str]:
    """Yield the other files behind a cell's numbers: its solver's parameters and, on request, the teacher's images."""
    key, names = told["key"], {**told["key"], **told["names"]}  # format 1 had spec and nfe in the key
    if names["trained"]:
        yield f"trained/{names['teacher']}/{file_name(names['spec'], names['nfe'])}"
    if targets:
        folder = files.digest({name: key[name] for name in TARGETS if name in key})[:32]
        yield from (path.relative_to(root).as_posix() for path in files.below(root / "targets" / folder))


def _rows(cell: Path, told: dict[str, Any]) -> list[dict[str, Any]]:
    """Return one row per measure of a done cell."""
    metrics = CellFolder(cell, cell.name).metrics()
    names = {**told["key"], **told["names"], "cell": cell.name}  # format 1 had spec and nfe in the key
    about = {name: names[name] for name in ("spec", "nfe", "seeds", "samples", "teacher", "solver", "cell")}
    return [{**about, "metric": name, **each} for name, each in (metrics or {"measures": {}})["measures"].items()]


def _table(rows: Sequence[dict[str, Any]]) -> bytes:
    text = io.StringIO()
    table = csv.DictWriter(text, COLUMNS, extrasaction="ignore", lineterminator="\n")
    table.writeheader()
    table.writerows(rows)
    return text.getvalue().encode()


@contextmanager
def _writing(to: Path) -> Iterator[Callable[[str, bytes], None]]:
    """Yield what writes a file into the folder or zip, which is there only once all of it is."""
    with files.replacing(to) as part:
        if to.suffix == ".zip":
            with zipfile.ZipFile(part, "x") as archive:
                # With the earliest date a zip allows, so that the same cells give the same bytes.
                def put(name: str, body: bytes) -> None:
                    archive.writestr(zipfile.ZipInfo(name), body)

                yield put
        else:
            part.mkdir()

            def write(name: str, body: bytes) -> None:
                files.write_bytes(part / name, body)

            yield write
