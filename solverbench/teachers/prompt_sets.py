"""Prompts from files: lines of text, JSON, or tables; and the named sets of registries/prompts.toml."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from solverbench import downloads, files, registries, userdata
from solverbench.errors import MissingError, RecordError, UnknownNameError, UserError
from solverbench.wording import one_line, suggest

TABLES = {".csv": ",", ".tsv": "\t"}
"""Endings of tables, each with its separator."""

PROMPT, NEGATIVE = ("prompt",), ("negative_prompt", "negative")
"""Names of the columns, in any case; others are ignored."""

BYTES = 1 << 28
"""Largest size of a file of prompts, in bytes."""

FORMS = "give a text file with one prompt per line, a .json or .jsonl, or a .csv or .tsv with a column prompt"


@dataclass(frozen=True)
class Prompts:
    """Prompts in the order of their file, each one line.

    Args:
        lines: the prompts.
        negatives: the negative prompt of each, "" for one without; empty if none has one.
    """

    lines: tuple[str, ...]
    negatives: tuple[str, ...] = ()


def read(path: Path) -> Prompts:
    """Return the prompts of a file; the ending says its form.

    `.json` holds a list, `.jsonl` a value in each line: texts, or objects with `prompt` and, if they like,
    `negative_prompt`. `.csv` and `.tsv` are tables with such columns; quotes in the latter are part of a text. Any
    other file has a prompt in each line. White space around a prompt is dropped, a line break within is one space, and
    empty prompts are dropped.

    Raises:
        MissingError: the file can't be read.
        RecordError: it isn't of its form.
    """
    try:
        if path.stat().st_size > BYTES:
            raise RecordError(asked=path, wrong=f"larger than {BYTES} bytes, so no file of prompts", remedy=FORMS)
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise MissingError(asked=path, wrong=f"can't be read ({one_line(error)})", remedy=FORMS) from None
    try:
        found = list(_pairs(text, path.suffix.lower()))
    except (ValueError, TypeError, KeyError, RecursionError, csv.Error) as error:
        raise RecordError(
            asked=path, wrong=f"has no prompts as its ending says ({one_line(error)})", remedy=FORMS
        ) from None
    told = [(_line(prompt), _line(negative)) for prompt, negative in found]
    told = [(prompt, negative) for prompt, negative in told if prompt]
    negatives = tuple(negative for _, negative in told)
    return Prompts(tuple(prompt for prompt, _ in told), negatives if any(negatives) else ())


def _line(text: str) -> str:
    return " ".join(filter(None, map(str.strip, text.splitlines())))


def _pairs(text: str, ending: str) -> Iterator[tuple[str, str]]:
    """Yield each prompt and its negative one, "" for none.

    Raises:
        ValueError, TypeError: the text isn't of its form.
    """
    if ending == ".json":
        listed = json.loads(text)
        if not isinstance(listed, list):
            raise TypeError("not a list")
        yield from map(_pair, listed)
    elif ending == ".jsonl":
        yield from (_pair(json.loads(line)) for line in text.splitlines() if line.strip())
    elif ending in TABLES:
        rows = csv.DictReader(
            io.StringIO(text, newline=""), delimiter=TABLES[ending], strict=True,
            quoting=csv.QUOTE_MINIMAL if ending == ".csv" else csv.QUOTE_NONE,
        )  # fmt: skip
        if not any((name or "").strip().lower() in PROMPT for name in rows.fieldnames or ()):
            raise ValueError("no column prompt")
        yield from (_pair({key: value or "" for key, value in row.items() if isinstance(key, str)}) for row in rows)
    else:
        yield from ((line, "") for line in text.splitlines())


def _pair(entry: Any) -> tuple[str, str]:
    if isinstance(entry, str):
        return entry, ""
    if not isinstance(entry, dict):
        raise TypeError(f"{entry!r} is neither a text nor an object")
    told = {str(key).strip().lower(): value for key, value in entry.items()}
    prompt, negative = (next((told[key] for key in keys if told.get(key)), "") for keys in (PROMPT, NEGATIVE))
    if not isinstance(prompt, str) or not isinstance(negative, str):
        raise TypeError(f"{prompt!r} or {negative!r} isn't a text")
    if not any(key in told for key in PROMPT):
        raise ValueError("an entry without prompt")
    return prompt, negative


def find(name: str) -> Path | None:
    """Return the file of a named set; None if there is no set of this name.

    Raises:
        MissingError: it isn't downloaded yet.
    """
    entry = registries.prompts().get(name)
    if entry is None:
        return None
    if "file" in entry:
        return registries.prompt_file(entry["file"])
    path = _place(name, entry)
    if not path.is_file():
        raise MissingError(
            asked=f"prompts={name}", wrong=f"{path} is missing, and nothing is downloaded by itself",
            remedy=f"run 'solverbench prompts fetch {name}'",
        )  # fmt: skip
    return path


def rows() -> Iterator[tuple[str, str, str]]:
    """Yield (name, state, description with number and licence) of each set."""
    for name, entry in registries.prompts().items():
        state = "built in" if "file" in entry else "here" if _place(name, entry).is_file() else "to fetch"
        yield name, state, f"{entry['about']}; {entry['prompts']} prompts, {entry['licence']}"


def fetch(name: str, tell: Callable[[str], downloads.Tell]) -> list[str]:
    """Download a set into the data folder, and return a report as lines.

    Args:
        tell: factory of a progress callback from a file's name.

    Raises:
        UnknownNameError: there is no such set.
        UserError: it comes with this package.
        MissingError, RecordError: see `downloads.fetch`; or the file isn't of the expected form.
    """
    sets = registries.prompts()
    if name not in sets:
        remedy = suggest(name, sets, f"known are {', '.join(sets)}")
        raise UnknownNameError(asked=f"prompts {name!r}", wrong="not known", remedy=remedy)
    entry = sets[name]
    if "file" in entry:
        raise UserError(asked=f"prompts {name!r}", wrong="they come with this package", remedy=f"use prompts={name}")
    url, place = entry["url"], _place(name, entry)
    source = place.parent / url.rpartition("/")[2]
    sha = downloads.fetch(url, source, tell(source.name))
    if "member" in entry:
        member = downloads.member(source, entry["member"], place.parent / entry["member"])
        if not place.exists():
            lines = list(_captions(member))
            files.write_bytes(place, "".join(f"{line}\n" for line in lines).encode())
    count = len(read(place).lines)
    lines = [f"{source}, sha256 {sha}", f"{count} prompts, {entry['licence']}; use them as prompts={name}"]
    if count != entry["prompts"]:
        lines.append(
            f"{name}: {entry['prompts']} prompts were expected; results say which by the sha256 of the prompts"
        )
    return lines


def _place(name: str, entry: Mapping[str, Any]) -> Path:
    """Return the path of a downloaded set."""
    return userdata.prompts() / (f"{name}.txt" if "member" in entry else entry["url"].rpartition("/")[2])


def _captions(path: Path) -> Iterator[str]:
    """Yield one caption of each image of COCO's annotations, the one with the lowest id, in the order of images' ids.

    Raises:
        RecordError: the file holds no such annotations.
    """
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
        first: dict[int, tuple[int, str]] = {}
        for each in told["annotations"]:
            image, found = int(each["image_id"]), (int(each["id"]), " ".join(str(each["caption"]).split()))
            first[image] = min(first.get(image, found), found)
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise RecordError(
            asked=path, wrong=f"holds no captions of COCO ({one_line(error)})", remedy="delete it and download it again"
        ) from None
    for image in sorted(first):
        if caption := first[image][1]:
            yield caption
