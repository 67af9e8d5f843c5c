"""Checkpoint files as named tensors: safetensors, or torch's own format read without executing its content."""

from __future__ import annotations

import json
import pickle
import re
import warnings
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor

from solverbench.errors import MissingError, RecordError
from solverbench.teachers.families import beside
from solverbench.wording import one_line

INERT = {
    "pytorch_lightning.callbacks.model_checkpoint": ["ModelCheckpoint"],
    "pytorch_lightning.callbacks.early_stopping": ["EarlyStopping"],
}
"""Training-framework classes named in CompVis checkpoints; they are replaced by empty classes."""

WRAPPERS = ("module.", "_orig_mod.")
"""Parts of names that wrappers insert anywhere: those of parallel training and of torch.compile."""

OWNERS = ("ema_model.", "model.", "ema.", "network.")
"""Names of a network in the object that was saved, at the beginning of its tensors' names."""

_TYPES = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16, "I64": torch.int64,
    "I32": torch.int32, "F8_E4M3": torch.float8_e4m3fn, "F8_E5M2": torch.float8_e5m2,
}  # fmt: skip


@dataclass(frozen=True, eq=False)
class Contents:
    """The tensors of a file by name, what a user should know about how they were read, and whether more lay there."""

    tensors: dict[str, Tensor]
    notes: tuple[str, ...] = ()
    skipped: bool = False


def read(path: Path, *, mapped: bool = False) -> dict[str, Tensor]:
    """Return the tensors of a checkpoint by name; see `contents`."""
    return contents(path, mapped=mapped).tensors


def contents(path: Path, *, mapped: bool = False) -> Contents:
    """Return the tensors of a checkpoint by name, on the CPU; those under `state_dict` if it has that key.

    Objects of foreign classes that lie beside the tensors are skipped and named in the notes; see `beside`.

    Args:
        mapped: whether only names, types and shapes matter: the tensors may be memory-mapped or on the meta device.

    Raises:
        MissingError: there is no such file.
        RecordError: it is not a checkpoint, is truncated, or names something that would run.
    """
    if not path.is_file():
        raise MissingError(
            asked=path, wrong="no such file", remedy="give the path of the checkpoint as it was downloaded"
        )
    _check_start(path)
    if path.suffix == ".safetensors":
        return Contents(_header(path) if mapped else _safetensors(path))
    content, skipped = _torch(path, mapped and zipfile.is_zipfile(path))
    found, notes = _tensors(path, content)
    if skipped:
        names = ", ".join(skipped[:8]) + (f" and {len(skipped) - 8} more" if len(skipped) > 8 else "")
        notes = *notes, f"{path.name}: skipped {names} beside the tensors; nothing of them was run"
    return Contents(found, notes, skipped is not None)


def sharded(index: Path) -> Contents:
    """Return the tensors of all files that an index (`*.index.json`) names.

    Raises:
        MissingError, RecordError: the index or a file is missing or damaged, or a tensor is not where it says.
    """
    try:
        places = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        names = sorted({str(name) for name in places.values()})
    except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
        raise RecordError(
            asked=index, wrong=f"not an index of weights ({one_line(error, typed=True)})", remedy="download it again"
        ) from None
    found: dict[str, Tensor] = {}
    notes: tuple[str, ...] = ()
    for name in names:
        if Path(name).name != name:
            raise RecordError(asked=index, wrong=f"names {name}, outside its folder", remedy="download it again")
        part = contents(index.parent / name)
        found |= part.tensors
        notes += part.notes
    if missing := sorted(places.keys() - found.keys()):
        raise RecordError(
            asked=index, wrong=f"its files lack {len(missing)} tensors, such as {missing[0]}",
            remedy="download them again",
        )  # fmt: skip
    return Contents(found, notes)


def unwrapped(state: Mapping[str, Tensor], anchor: str) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """Return the tensors under their plain names, and the parts of names, added by wrappers, that were removed.

    Nothing is removed if a name begins with `anchor` already. If several owners hold it, the moving average is taken.

    Args:
        anchor: beginning of the network's names.
    """
    if any(key.startswith(anchor) and not re.search(r"(^|\.)(module|_orig_mod)\.", key) for key in state):
        return dict(state), ()
    bare = {key: re.sub(r"(?:(?<=\.)|^)(?:module|_orig_mod)\.", "", key) for key in state}
    owners = sorted(
        {
            key[: key.index(anchor)]
            for key in bare.values()
            if anchor in key and re.fullmatch("(?:" + "|".join(map(re.escape, OWNERS)) + ")*", key[: key.index(anchor)])
        }
    )
    if not owners:
        return dict(state), ()
    owner = next((each for each in owners if each.startswith("ema")), owners[0])
    found = {new.removeprefix(owner): state[old] for old, new in bare.items() if new.startswith(owner)}
    wrappers = {each for each in WRAPPERS for key in state if re.search(rf"(^|\.){re.escape(each)}", key)}
    return found, tuple(sorted(wrappers | ({owner} if owner else set())))


def _check_start(path: Path) -> None:
    """Raise `RecordError` for a file whose beginning or length says that it is something else or a part of one."""
    with path.open("rb") as file:
        start = file.read(512)
    size = path.stat().st_size
    if start.startswith(b"version https://git-lfs"):
        raise RecordError(
            asked=path, wrong="a pointer of Git LFS, not the file itself", remedy="run: git lfs pull, or download it"
        )
    if re.match(rb"\s*<(!doctype|html|\?xml)", start, re.IGNORECASE):
        raise RecordError(
            asked=path, wrong="a web page, not a checkpoint", remedy="download the file itself, not the page about it"
        )
    if start.startswith(b"GGUF"):
        raise RecordError(
            asked=path, wrong="quantised weights (GGUF), which aren't read",
            remedy="give the model that it was quantised from",
        )  # fmt: skip
    if start.startswith(b"PK\x03\x04") and not zipfile.is_zipfile(path):
        raise RecordError(
            asked=path, wrong=f"truncated: the end of its archive is missing after {size} bytes",
            remedy="download it again",
        )  # fmt: skip
    if path.suffix == ".safetensors" and len(start) >= 8:
        length = int.from_bytes(start[:8], "little")
        if start[8:9] == b"{" and length + 8 > size:
            raise RecordError(
                asked=path, wrong=f"truncated: {size} bytes, its header alone has {length + 8}",
                remedy="download it again",
            )  # fmt: skip


def _header(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a safetensors file on the meta device, from its header alone."""
    try:
        with safe_open(path, "pt") as file:
            rows = {key: file.get_slice(key) for key in file.keys()}  # noqa: SIM118
            return {
                key: torch.empty(row.get_shape(), dtype=_TYPES.get(row.get_dtype(), torch.uint8), device="meta")
                for key, row in rows.items()
            }
    except (SafetensorError, ValueError, OSError) as error:
        raise _broken(path, error) from None


def _safetensors(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except (SafetensorError, ValueError) as error:
        raise _broken(path, error) from None


def _broken(path: Path, error: Exception) -> RecordError:
    text = one_line(error)
    if re.search("incomplete|not fully covered|[Mm]etadataIncompleteBuffer", text):
        return RecordError(
            asked=path, wrong=f"truncated: its {path.stat().st_size} bytes are fewer than its header says",
            remedy="download it again",
        )  # fmt: skip
    return RecordError(asked=path, wrong=f"not a complete safetensors file ({text})", remedy="download it again")


def _torch(path: Path, mapped: bool) -> tuple[Any, tuple[str, ...] | None]:
    """Return the content of torch's format, and the foreign names that were skipped; None if torch reads it itself."""
    stand_ins: list[Any] = [type(name, (), {"__module__": module}) for module, names in INERT.items() for name in names]
    try:
        with torch.serialization.safe_globals(stand_ins), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about the pickle protocol, which the reader checks itself
            return torch.load(path, map_location="cpu", weights_only=True, mmap=mapped), None
    except pickle.UnpicklingError as error:
        if zipfile.is_zipfile(path):
            return beside.read(path, mapped=mapped)
        raise RecordError(
            asked=path,
            wrong=f"not a plain checkpoint of tensors ({_reason(error)}), and nothing in it was run",
            remedy="give a checkpoint that holds tensors only, such as .safetensors",
        ) from None
    except Exception as error:  # on bytes that are no checkpoint the reader stumbles wherever it happens to be
        raise RecordError(
            asked=path, wrong=f"not a complete torch file ({one_line(error)})", remedy="download it again"
        ) from None


def _tensors(path: Path, content: Any) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """Return the named tensors of a file's content: its own, those under `state_dict`, or those of its only mapping.

    Raises:
        RecordError: there are none, or several mappings.
    """
    if isinstance(content, beside.Foreign):
        raise RecordError(
            asked=path, wrong=f"a pickled {content.name}, whose code isn't run",
            remedy="save its state_dict() instead, as in torch.save(network.state_dict(), FILE)",
        )  # fmt: skip
    if not isinstance(content, Mapping):
        content = {}
    if own := _named(content.get("state_dict", content)):
        return own, ()
    inner = {key: found for key, value in content.items() if isinstance(value, Mapping) and (found := _named(value))}
    if len(inner) == 1:
        key, found = inner.popitem()
        return found, (f"{path.name}: the tensors under {key!r} are read",)
    if inner:
        raise RecordError(
            asked=path, wrong=f"holds several sets of tensors ({', '.join(map(str, inner))})",
            remedy="save the one that is meant to a file of its own",
        )  # fmt: skip
    whole = [value.name for value in content.values() if isinstance(value, beside.Foreign)]
    said = f" but a pickled {whole[0]}, whose code isn't run" if whole else ""
    raise RecordError(
        asked=path,
        wrong=f"holds no tensors by name{said}",
        remedy="give a checkpoint (.ckpt, .pt, .bin or .safetensors)",
    )


def _named(content: Any) -> dict[str, Tensor]:
    if not isinstance(content, Mapping):
        return {}
    return {key: value for key, value in content.items() if isinstance(key, str) and isinstance(value, Tensor)}


def _reason(error: BaseException) -> str:
    """Return the object that the file asks for, extracted from torch's long message."""
    text = " ".join(str(error).split())
    wanted = re.search(r"GLOBAL (\S+)", text)
    if wanted:
        return f"it wants {wanted[1]}"
    return text.rpartition("WeightsUnpickler error: ")[2].partition(" Check the")[0][:120]
