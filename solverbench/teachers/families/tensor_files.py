"""Checkpoint files as named tensors: safetensors, or torch's own format read without executing its content."""

from __future__ import annotations

import pickle
import re
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from solverbench.errors import MissingError, RecordError
from solverbench.wording import one_line

INERT = {
    "pytorch_lightning.callbacks.model_checkpoint": ["ModelCheckpoint"],
    "pytorch_lightning.callbacks.early_stopping": ["EarlyStopping"],
}
"""Training-framework classes named in CompVis checkpoints; they are replaced by empty classes."""


def read(path: Path, *, mapped: bool = False) -> dict[str, Tensor]:
    """Return the tensors of a checkpoint by name, on the CPU; those under `state_dict` if it has that key.

    Args:
        mapped: whether to memory-map the file, to inspect only names and shapes.

    Raises:
        MissingError: there is no such file.
        RecordError: it is not a checkpoint, or names something other than tensors and plain containers.
    """
    if not path.is_file():
        raise MissingError(f"{path}: no such file; give the path of the downloaded checkpoint")
    content = _safetensors(path) if path.suffix == ".safetensors" else _torch(path, mapped and zipfile.is_zipfile(path))
    content = content.get("state_dict", content) if isinstance(content, Mapping) else {}
    found = {key: value for key, value in content.items() if isinstance(key, str) and isinstance(value, Tensor)}
    if not found:
        raise RecordError(f"{path}: holds no tensors by name; give a checkpoint (.ckpt, .pt, .bin or .safetensors)")
    return found


def _safetensors(path: Path) -> Any:
    try:
        return load_file(path)
    except (SafetensorError, ValueError) as error:
        raise RecordError(f"{path}: not a whole safetensors file ({one_line(error)}); download it again") from None


def _torch(path: Path, mapped: bool) -> Any:
    stand_ins: list[Any] = [type(name, (), {"__module__": module}) for module, names in INERT.items() for name in names]
    try:
        with torch.serialization.safe_globals(stand_ins), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about the pickle protocol, which the reader checks itself
            return torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    except pickle.UnpicklingError as error:
        raise RecordError(
            f"{path}: not a plain checkpoint of tensors ({_reason(error)}); it was not loaded, and nothing "
            "in it was run"
        ) from None
    except Exception as error:  # on bytes that are no checkpoint the reader stumbles wherever it happens to be
        raise RecordError(f"{path}: not a whole torch file ({one_line(error)}); download it again") from None


def _reason(error: BaseException) -> str:
    """Return what the file asked for, extracted from torch's long message."""
    text = " ".join(str(error).split())
    wanted = re.search(r"GLOBAL (\S+)", text)
    if wanted:
        return f"it wants {wanted[1]}"
    return text.rpartition("WeightsUnpickler error: ")[2].partition(" Check the")[0][:120]
