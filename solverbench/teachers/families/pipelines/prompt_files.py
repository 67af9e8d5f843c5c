"""Encoded prompts kept in a results folder, so that a second process doesn't run the text encoders again.

A file is tensors and JSON alone (safetensors), under the sha256 of all that it depends on.
"""

from __future__ import annotations

import importlib.metadata
import json
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as read_tensors
from safetensors.torch import save as tensors_as_bytes
from torch import Tensor

from solverbench import files
from solverbench.errors import RecordError, StoreError
from solverbench.teachers.adaptors import fingerprint

FOLDER = "prompts"
"""Name of the folder in a results folder."""

MOST = 8 << 30
"""Most bytes of a results folder's prompts; later ones are encoded again by each process."""

LARGEST = 1 << 30
"""Most bytes of one file that is read."""

WAITING = 64
"""Most prompts that wait for the folder to become a store; those of the check at load are three."""

FORMAT = "solverbench-prompt-1"


class PromptFiles:
    """The encoded prompts of one pipeline in a results folder.

    Nothing is written before the folder is a store, so that a command that is refused, or only plans, writes nothing;
    what was encoded by then is written later. A folder that can't be written is no error.

    Args:
        root: results folder.
        identity: digest of the pipeline's parts and its call's arguments.
        device: device of the tensors; embeddings of another kind of device differ in their last bits.
    """

    def __init__(self, root: Path, identity: str, device: str) -> None:
        self.root, self.folder, self.device = root, root / FOLDER, device
        versions = [importlib.metadata.version(name) for name in ("diffusers", "transformers")]
        self.owner = [FORMAT, identity, torch.device(device).type, *versions]
        self.waiting: list[tuple[str, Any, dict[str, Tensor]]] = []
        self.size: int | None = None

    def get(self, key: str) -> Any:
        """Return an encoder's result; None if there is none, or the file is damaged or another's."""
        name = self._name(key)
        if self.folder.is_symlink() or (self.folder / name[:2]).is_symlink():
            return None
        try:
            content = files.read(self._path(name), LARGEST)
            told = _metadata(content)
            tensors = read_tensors(content)
            if (told["format"], told["key"], told["tensors"]) != (FORMAT, name, fingerprint(tensors)):
                return None
            return _built(json.loads(told["made"]), {key: value.to(self.device) for key, value in tensors.items()})
        except (RecordError, StoreError, SafetensorError, ValueError, KeyError, TypeError, RecursionError):
            return None

    def put(self, key: str, row: Any) -> None:
        """Keep an encoder's result, if it is tensors and plain values."""
        tensors: dict[str, Tensor] = {}
        try:
            made = _taken_apart(row, tensors)
        except TypeError:
            return
        if len(self.waiting) < WAITING:
            self.waiting.append((self._name(key), made, tensors))
        self.write()

    def write(self) -> None:
        """Write what was put, if the folder is a store by now."""
        if not self.waiting or not (self.root / "store.json").is_file() or self.folder.is_symlink():
            return
        with suppress(StoreError):
            for each in self.waiting:
                self._write(*each)
        self.waiting.clear()

    def _write(self, name: str, structure: Any, tensors: dict[str, Tensor]) -> None:
        if (self.folder / name[:2]).is_symlink():
            return
        kept = {key: value.detach().cpu().contiguous() for key, value in tensors.items()}
        told = {"format": FORMAT, "key": name, "made": json.dumps(structure), "tensors": fingerprint(kept)}
        content = tensors_as_bytes(kept, told)
        if self.size is None:
            self.size = sum(path.stat().st_size for path in files.below(self.folder))
        if self.size + len(content) > MOST:
            return
        self.size += len(content)
        files.write_bytes(self._path(name), content)

    def _name(self, key: str) -> str:
        return files.digest([*self.owner, key])

    def _path(self, name: str) -> Path:
        return self.folder / name[:2] / f"{name}.safetensors"


def _metadata(content: bytes) -> dict[str, str]:
    """Return the metadata of a safetensors file."""
    length = int.from_bytes(content[:8], "little")
    found: dict[str, str] = json.loads(content[8 : 8 + length])["__metadata__"]
    return found


def _taken_apart(row: Any, tensors: dict[str, Tensor]) -> Any:
    """Return the structure of an encoder's result as JSON, and move its tensors to `tensors`.

    Raises:
        TypeError: it holds something else.
    """
    if isinstance(row, Tensor):
        tensors[str(len(tensors))] = row
        return {"tensor": str(len(tensors) - 1)}
    if type(row) in (list, tuple):
        return {type(row).__name__: [_taken_apart(each, tensors) for each in row]}
    if row is None or type(row) in (bool, int, float, str):
        return {"value": row}
    raise TypeError(type(row).__name__)


def _built(structure: Any, tensors: dict[str, Tensor]) -> Any:
    ((kind, value),) = structure.items()
    if kind == "tensor":
        return tensors[value]
    if kind == "value":
        return value
    made: Sequence[Any] = [_built(each, tensors) for each in value]
    return {"list": list, "tuple": tuple}[kind](made)
