"""Images in a column of Parquet or Arrow files, as the Hugging Face package `datasets` stores and downloads them."""

from __future__ import annotations

import importlib
import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from PIL import Image
from torch import Tensor

from solverbench import extras, files
from solverbench.errors import MissingError, RecordError, UserError
from solverbench.evaluation import contents
from solverbench.evaluation.pictures import InOrder, Pictures, unheard
from solverbench.evaluation.pixels import alike, decoded
from solverbench.wording import one_line

_SHARD = re.compile(r"(.+?)-\d{5}-of-\d{5}(-[0-9a-f]+)?")
"""Stem of a shard of a split; older versions of `datasets` append a fingerprint."""

Cut = Callable[[Image.Image], Image.Image]

_BROKEN = "download or save it again"
_GROUP = 256
"""Rows that are read at a time."""


@dataclass(frozen=True)
class Table(Pictures):
    """The images of one split of a data set, in the order of its rows.

    Args:
        path: the data set's folder, or its only file.
        split: name of the split; empty if there are none.
        parts: Parquet or Arrow files, sorted.
        rows: number of rows of each.
        column: name of the column of images.
        count: number of first images to use.
        cut: rule by which they are cropped and scaled; None to leave them unchanged.
    """

    path: Path
    split: str
    parts: tuple[Path, ...] = field(repr=False)
    rows: tuple[int, ...] = field(repr=False)
    column: str
    count: int
    cut: Cut | None = None

    @classmethod
    def at(cls, path: Path, split: str = "", count: int | None = None, cut: Cut | None = None) -> Table:
        """Return the images of a split of a data set; of the only one if no split is given.

        Raises:
            MissingError: pyarrow is missing.
            UserError: the split isn't there, or has to be chosen; or there are fewer than `count` images.
            RecordError: a file is damaged, or has no column of images.
        """
        found = splits(path)
        if split and split not in found:
            wrong = f"{path} holds {', '.join(found) or 'no splits'}"
            raise UserError(asked=f"split {split!r}", wrong=wrong, remedy="give one of them")
        if not split and len(found) > 1:
            remedy = f"choose one, as in {path}:{'train' if 'train' in found else next(iter(found))}"
            raise UserError(asked=path, wrong=f"holds the splits {', '.join(found)}", remedy=remedy)
        chosen = split or next(iter(found))
        parts = tuple(found[chosen])
        rows, columns = zip(*(_about(part) for part in parts), strict=True)
        if len(set(columns)) > 1:
            raise RecordError(asked=path, wrong=f"its files have different columns {columns}", remedy=_BROKEN)
        if count is not None and count > sum(rows):
            raise UserError(
                asked=f"--count {count}", wrong=f"{path} holds {sum(rows)} images", remedy="give that many or fewer"
            )
        return cls(path, chosen, parts, tuple(rows), columns[0], count or sum(rows), cut)

    def __len__(self) -> int:
        return self.count

    @cached_property
    def identity(self) -> str:
        told = [[part.name, part.stat().st_size, rows] for part, rows in zip(self.parts, self.rows, strict=True)]
        return files.digest([told, self.column, self.count, *([str(self.cut)] if self.cut else [])])

    @property
    def crop(self) -> str:
        return str(self.cut or "")

    @property
    def origin(self) -> str:
        return self.path.resolve().name + (f":{self.split}" if self.split else "")

    def read(self, part: range, note: Callable[[str], None] = unheard) -> Iterator[Tensor]:
        found = zip(part, self._contents.take(part), strict=True)
        named = ((self.path / f"{self.column} {at}", content) for at, content in found)
        yield from alike(decoded(path, partial(bytes, content), note, self.cut) for path, content in named)

    @cached_property
    def _contents(self) -> InOrder[bytes]:
        return InOrder(self._from)

    def _from(self, begin: int) -> Iterator[bytes]:
        """Yield the content of each image file from row `begin` on."""
        for part, rows in zip(self.parts, self.rows, strict=True):
            if begin >= rows:
                begin -= rows
                continue
            try:
                for batch in _batches(part, self.column, begin):
                    for each in batch.column(0).to_pylist():
                        yield _content(part, each)
            except (RecordError, MissingError):
                raise
            except Exception as error:  # a damaged file makes pyarrow raise nearly anything
                wrong = f"not a whole {part.suffix}"
                raise contents.unreadable(part, contents.head(part), wrong, error, _BROKEN) from None
            begin = 0


def there(path: Path) -> bool:
    """Return whether a path is a data set: a Parquet file, or a folder that `datasets` saved or downloaded."""
    if path.is_file():
        return path.suffix == ".parquet"
    return path.is_dir() and bool(_saved(path) or _parquet(path))


def splits(path: Path) -> Mapping[str, list[Path]]:
    """Return split name to its files; the only one may have an empty name."""
    if path.is_file():
        return {"": [path]}
    if saved := _saved(path):
        return saved
    found: dict[str, list[Path]] = {}
    for file in _parquet(path):
        shard = _SHARD.fullmatch(file.stem)
        found.setdefault(shard[1] if shard else file.parent.name if file.parent != path else "", []).append(file)
    return found


def _saved(path: Path) -> dict[str, list[Path]]:
    """Return the files of a folder of `save_to_disk` by split; empty if it is none."""
    if (path / "dataset_dict.json").is_file():
        names = sorted(each.name for each in path.iterdir() if (each / "state.json").is_file())
        return {name: _arrow(path / name) for name in names}
    return {"": _arrow(path)} if (path / "state.json").is_file() else {}


def _arrow(folder: Path) -> list[Path]:
    """Return the files that the state of a saved data set names, which lie beside it."""
    try:
        told = json.loads((folder / "state.json").read_text(encoding="utf-8"))
        names = [Path(each["filename"]).name for each in told["_data_files"]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        wrong = f"doesn't say which files belong to it ({one_line(error, typed=True)})"
        raise RecordError(asked=folder / "state.json", wrong=wrong, remedy=_BROKEN) from None
    return [folder / name for name in names]


def _parquet(path: Path) -> list[Path]:
    """Return the Parquet files of a folder and of the two levels below, without tables beside image files."""
    found = [file for pattern in ("*.parquet", "*/*.parquet", "*/*/*.parquet") for file in path.glob(pattern)]
    hidden = [file for file in found if any(part.startswith(".") for part in file.relative_to(path).parts)]
    return sorted(file for file in found if file not in hidden and file.name != "metadata.parquet")


def _about(part: Path) -> tuple[int, str]:
    """Return the number of rows of a file, and its column of images.

    Raises:
        RecordError: it is damaged, or has no such column.
    """
    arrow, parquet = _pyarrow("pyarrow"), _pyarrow("pyarrow.parquet")
    try:
        if part.suffix == ".parquet":
            with parquet.ParquetFile(part) as file:
                return file.metadata.num_rows, _column(part, file.schema_arrow)
        with arrow.memory_map(str(part)) as source, arrow.ipc.open_stream(source) as stream:
            return sum(batch.num_rows for batch in stream), _column(part, stream.schema)
    except (RecordError, MissingError):
        raise
    except Exception as error:  # a damaged file makes pyarrow raise nearly anything
        raise contents.unreadable(part, contents.head(part), f"not a whole {part.suffix}", error, _BROKEN) from None


def _batches(part: Path, column: str, begin: int) -> Iterator[Any]:
    """Yield record batches of the column of images of a file, from row `begin` on."""
    if part.suffix == ".parquet":
        with _pyarrow("pyarrow.parquet").ParquetFile(part) as file:
            group = 0
            while begin >= (rows := file.metadata.row_group(group).num_rows):
                begin, group = begin - rows, group + 1
            groups = list(range(group, file.metadata.num_row_groups))
            for batch in file.iter_batches(_GROUP, row_groups=groups, columns=[column]):
                yield batch.slice(begin)
                begin = max(begin - batch.num_rows, 0)
        return
    arrow = _pyarrow("pyarrow")
    with arrow.memory_map(str(part)) as source, arrow.ipc.open_stream(source) as stream:
        for batch in stream:
            for at in range(0, batch.num_rows, _GROUP):
                few = batch.select([column]).slice(at, _GROUP)
                yield few.slice(begin)
                begin = max(begin - few.num_rows, 0)


def _column(part: Path, schema: Any) -> str:
    """Return the name of the column of images: by the features that `datasets` stores, else the one with bytes."""
    told = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))
    features = told.get("info", {}).get("features", {})
    named = [name for name, each in features.items() if isinstance(each, dict) and each.get("_type") == "Image"]
    arrow = _pyarrow("pyarrow")
    structs = [each for each in schema if arrow.types.is_struct(each.type)]
    typed = [each.name for each in structs if each.type.get_field_index("bytes") >= 0]
    found = [name for name in named or typed if name in schema.names]
    if "image" in found or len(found) == 1:
        return "image" if "image" in found else found[0]
    what = f"several columns of images ({', '.join(found)})" if found else f"no column of images ({schema.names})"
    raise RecordError(asked=part, wrong=f"has {what}", remedy="save it with one, named image")


def _content(part: Path, value: Any) -> bytes:
    """Return the bytes of an image file from a row's value.

    Raises:
        RecordError: the row has only a path, or nothing.
    """
    found = value.get("bytes") if isinstance(value, dict) else value
    if not isinstance(found, bytes):
        raise RecordError(
            asked=part,
            wrong="a row holds no image, or only the path of one",
            remedy="save the data set with the images in it (embed_external_files, or push_to_hub)",
        )
    return found


def _pyarrow(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except Exception as error:  # a broken installation raises what it likes
        raise MissingError(
            asked="images in Parquet or Arrow files",
            wrong=f"the pyarrow package can't be imported ({one_line(error)})",
            remedy=f"run {extras.install('datasets')}",
        ) from None
