"""Export of stored cells to a new folder or zip, with a table of their numbers and a manifest."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from solverbench import files
from solverbench.errors import RecordError, UserError
from solverbench.store import layout, manifest, schema
from solverbench.store.folder import CellFolder, Store
from solverbench.wording import csv_text

TARGETS = ("teacher", "shape", "sampler", "batch", "threads", "dtype", "device", "condition")
"""Fields of a cell's key that the teacher's own images depend on, as in `endpoints.key`."""

COLUMNS = [
    *("teacher", "solver", "spec", "nfe", "seeds", "samples", "metric", "value", "low", "high", "std_error", "n"),
    *("reference", "cell"),
]


class Exported(NamedTuple):
    """The result of `export`.

    Args:
        names: names of its files.
        manifest: sha256 of its manifest, which holds the sha256 of each other file.
    """

    names: list[str]
    manifest: str


def export(
    store: Store,
    to: Path,
    check_trained: Callable[[Path], None],
    file_names: Callable[[str, int], Sequence[str]],
    addresses: Sequence[str] | None = None,
    *,
    targets: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> Exported:
    """Write cells to a new folder or .zip for `merge`.

    It holds the files of these cells and of their learned solvers, `results.csv` with their measures, and
    `export.json` with the sha256 of each file.

    Args:
        to: path of the new folder or .zip.
        check_trained: as for `layout.check`.
        file_names: (spec, calls) -> names of the files that may hold a learned solver's parameters.
        addresses: address prefixes of the cells; all cells if None.
        targets: whether to include the teacher's own images.
        progress: called after each file with the number of files so far and of all.

    Raises:
        UserError: an address fits no cell or several, `to` exists, or there is no cell.
        RecordError: a file is damaged.
        StoreError: `to` cannot be written.
    """
    if to.exists() and not (to.is_dir() and not any(to.iterdir())):
        raise UserError(asked=f"--to {to}", wrong="is there already", remedy="choose another place, or delete it")
    cells = [path for path in layout.cells(store.root) if (path / "cell.json").exists()]
    if addresses is not None:
        cells = list(dict.fromkeys(_addressed(cells, address) for address in addresses))
    names: dict[str, None] = {}
    rows: list[dict[str, Any]] = []
    for cell in cells:
        told = schema.checked(cell / "cell.json", schema.cell, files.read_json(cell / "cell.json"))
        names |= dict.fromkeys(path.relative_to(store.root).as_posix() for path in files.below(cell))
        names |= dict.fromkeys(_related(store.root, told, targets, file_names))
        rows += _rows(cell, told)
    kept = [name for name in names if layout.known(name) and manifest.regular(store.root / name)]
    if not rows and not kept:
        raise UserError(asked="export", wrong=f"{store.root} has no cell", remedy="run something first")
    packed: dict[str, Callable[[], bytes]] = {
        "store.json": (store.root / "store.json").read_bytes,
        manifest.TABLE: lambda: _table(rows),
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
            if progress is not None:
                progress(len(shas), len(packed))
        told = manifest.of(shas)
        put(manifest.LIST, (json.dumps(told, indent=1) + "\n").encode())
    return Exported([*packed, manifest.LIST], str(told["checksum"]))


def check_table(root: Path) -> list[layout.Damage]:
    """Return the damage of an export's results.csv: it must hold the numbers of its cells' metrics.json."""
    path = root / manifest.TABLE
    if not (root / manifest.LIST).exists() or not manifest.regular(path):
        return []
    rows = []
    for cell in layout.cells(root):
        try:
            told = schema.checked(cell / "cell.json", schema.cell, files.read_json(cell / "cell.json"))
            rows += _rows(cell, told)
        except RecordError:
            continue  # `layout.check` names it
    stored = files.read(path, files.JSON_BYTES)
    if sorted(stored.splitlines()) == sorted(_table(rows).splitlines()):
        return []
    return [layout.Damage(manifest.TABLE, "isn't the table of the metrics of these cells", differs=True)]


def _addressed(cells: Sequence[Path], address: str) -> Path:
    found = [cell for cell in cells if cell.name.startswith(address.lower())] if address else []
    if len(found) != 1:
        what = f"{len(found)} cells begin with this" if found else "no such cell"
        raise UserError(
            asked=f"--cell {address!r}", wrong=what, remedy="give the address as in the column 'cell' of results.csv"
        )
    return found[0]


def _related(
    root: Path, told: dict[str, Any], targets: bool, file_names: Callable[[str, int], Sequence[str]]
) -> Iterator[str]:
    """Yield the other files behind a cell's numbers: its solver's parameters and, on request, the teacher's images."""
    key, names = told["key"], {**told["key"], **told["names"]}  # format 1 had spec and nfe in the key
    if names["trained"]:
        yield from (f"trained/{names['teacher']}/{name}" for name in file_names(names["spec"], names["nfe"]))
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
    table.writerows({name: csv_text(value) for name, value in row.items()} for row in rows)
    return text.getvalue().encode()


@contextmanager
def _writing(to: Path) -> Iterator[Callable[[str, bytes], None]]:
    """Yield the function that writes a file into the folder or zip, which appears only when it is complete."""
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
