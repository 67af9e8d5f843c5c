"""Merging of results from another store or an export, file by file."""

from __future__ import annotations

import shutil
import stat
import tempfile
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Set
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from solverbench import files
from solverbench.errors import MissingError, RecordError, StoreError
from solverbench.method.tableau import Plan
from solverbench.store import agreement, layout, manifest
from solverbench.store.folder import CellFolder, Store
from solverbench.store.verdict import Verdict, describe, roughly
from solverbench.wording import printable

RATIO = 100
"""Largest size of an export's files relative to its zip."""


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
        differing: files of the source whose numbers aren't what their cells ask for, which were not copied.
        origins: number of cells that came from the source, in whole or in part, by how they were checked.
    """

    check_trained: Callable[[Path], None]
    copied: int = 0
    equal: int = 0
    close: int = 0
    repaired: list[str] = field(default_factory=list)
    conflicts: list[str] = field(default_factory=list)
    damaged: list[str] = field(default_factory=list)
    differing: list[str] = field(default_factory=list)
    origins: Counter[str] = field(default_factory=Counter)

    @property
    def exit_code(self) -> int:
        """4 if a file was in conflict, damaged or false, else 0."""
        return 4 if self.conflicts or self.damaged or self.differing else 0

    def lines(self) -> list[str]:
        """Return it as human-readable lines."""
        found = [f"repaired   {name}" for name in self.repaired]
        found += [
            f"CONFLICT   {name}: differs in the two stores; the existing file was kept" for name in self.conflicts
        ]
        found += [f"DAMAGED    {line}" for line in self.damaged]
        found += [f"DIFFERS    {line}" for line in self.differing]
        found += [f"{count} cell{'s' * (count != 1)} merged: {how}" for how, count in self.origins.items()]
        counts = f"{self.copied} files copied, {self.equal} already there, {len(self.repaired)} repaired"
        counts += f", {self.close} equal up to another machine's rounding" if self.close else ""
        counts += f", {len(self.conflicts)} in conflict, {len(self.damaged)} damaged"
        return [*map(printable, found), counts + (f", {len(self.differing)} false" if self.differing else "")]


def merge(
    source: Path,
    store: Store,
    check_trained: Callable[[Path], None],
    check_numbers: Callable[[Path], Mapping[str, Verdict]],
    progress: Callable[[int, int], None] | None = None,
) -> Merged:
    """Copy the files that `store` lacks from `source`, a store or an export. A repeated merge resumes or does nothing.

    Args:
        check_trained: as for `layout.check`.
        check_numbers: folder of a store -> the verdict on its cells, by address. Wrong files aren't copied.
        progress: called after each cell with the number of cells so far and of all.

    Raises:
        MissingError: `source` does not exist.
        StoreError: `source` is not a store or export, or is `store` itself; or the folder cannot be written.
    """
    with opened(source) as root:
        if root.resolve() == store.root.resolve():
            raise StoreError(asked=f"merge {source}", wrong="the same folder as --out", remedy="give another store")
        Store.open(store.root)
        merged = Merged(check_trained)
        for damage in manifest.check(root):
            merged.damaged.append(f"{damage}; export again")
        merged.damaged += [f"{damage}; not copied" for damage in layout.special(root)]
        verdicts = check_numbers(root)
        names = list(layout.walk(root))
        held = {name for name in names if name.startswith("cells/")}
        cells = list(layout.cells(root))
        for count, folder in enumerate(cells, 1):
            _merge_cell(root, folder, store, merged, held, verdicts.get(folder.name, Verdict()), source.name)
            if progress is not None:
                progress(count, len(cells))
        for name in names:
            known = layout.COST.fullmatch(name) and (store.root / name).exists()  # each machine has its own cost
            if not known and not name.startswith(("cells/", "trained/")):
                _copy(root, name, store.root, merged)
        _merge_trained(root, store.root, merged)
        return merged


def _merge_cell(
    root: Path, folder: Path, store: Store, merged: Merged, held: Set[str], verdict: Verdict, origin: str
) -> None:
    """Merge a cell's blocks, then its metrics if all blocks are now equal, because metrics belong to exact blocks.

    Nothing of a cell with a false number is copied: whether metrics or blocks are false can't be known.

    Args:
        held: names of the source's regular files.
        origin: name of the source.
    """
    home = folder.relative_to(root).as_posix()
    if verdict.wrong:
        merged.differing += [
            f"{root / wrong.name}: {wrong.what}; nothing of this cell was copied" for wrong in verdict.wrong
        ]
        return
    there = store.at(folder.name)
    blocks = [f"{home}/blocks/{path.name}" for path in files.listed(folder / "blocks")]
    wanted = [name for name in (f"{home}/cell.json", *blocks) if name in held]
    metrics = f"{home}/metrics.json"
    brought = [*wanted, metrics] if metrics in held else wanted
    if any(not (store.root / name).exists() for name in brought):
        _describe(folder, there, verdict, origin, merged)  # first, so that an interrupted merge leaves no cell without
    taken = [_copy(root, name, store.root, merged) for name in wanted]
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


def _describe(folder: Path, there: CellFolder, verdict: Verdict, origin: str, merged: Merged) -> None:
    """Write where a cell comes from: after what was known there, and after what was known here."""
    mine = verdict.origin(origin)
    merged.origins[roughly(describe(mine)).partition(", ")[2]] += 1
    known: list[dict[str, Any]] = []
    for cell in (CellFolder(folder, folder.name), there):
        try:
            known += [each for each in cell.origin() if each not in known]
        except RecordError as error:
            merged.damaged.append(str(error))
    if mine not in known:
        files.write_json(there.path / "origin.json", {"merged": [*known, mine]}, lines=False)


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
            return agreement.distance_of_files(files.read_arrays(a), files.read_arrays(b)) <= agreement.CLOSE
        if a.name == "plan.json":
            return Plan.of(files.read_json(a)).fits(Plan.of(files.read_json(b)))
        numbers = agreement.comparable(files.read_json(a), files.read_json(b))
        return a.name == "metrics.json" and agreement.values(*numbers, agreement.CLOSE, 1e-6)
    except (RecordError, KeyError, TypeError, ValueError):
        return False


@contextmanager
def opened(source: Path) -> Iterator[Path]:
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
    return not link and (
        entry.filename in ("store.json", manifest.LIST, manifest.TABLE) or layout.known(entry.filename)
    )
