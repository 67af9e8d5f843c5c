"""Tensor files: safetensors with JSON metadata, format, version and checksum."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save as safetensors_bytes
from torch import Tensor

from solverbench import files
from solverbench.errors import RecordError


def write(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, Any], format: str, version: int) -> None:
    """Write tensors and JSON metadata as safetensors, atomically, with a sha256 of both that `read` verifies."""
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    body = {**metadata, "format": format, "version": version}
    text = files.canonical({**body, "checksum": _digest(plain, body)})
    files.write_bytes(path, safetensors_bytes(plain, {"solverbench": text}))


def read(path: Path, format: str, version: int) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return the tensors and the metadata of a file written by `write`.

    Raises:
        RecordError: the file is missing, damaged, or of another format or version.
    """
    if not path.is_file():
        raise RecordError(asked=path, wrong="there is no such file", remedy="correct the path")
    try:
        with safe_open(path, "pt") as file:
            text = (file.metadata() or {}).get("solverbench", "{}")
            metadata = json.loads(text, parse_constant=files.refuse_constant)
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, ValueError, OSError, RecursionError) as error:
        raise RecordError(asked=path, wrong=f"damaged ({error})", remedy="train it again") from None
    if not isinstance(metadata, dict) or metadata.get("format") != format:
        remedy = "give a file that SolverBench wrote"
        raise RecordError(asked=path, wrong=f"isn't a SolverBench file of the format {format}", remedy=remedy)
    if metadata.get("version") != version:
        wrong = f"version {metadata.get('version')} of {format}, but this SolverBench reads version {version}"
        raise RecordError(asked=path, wrong=wrong, remedy="train it again")
    checksum = metadata.pop("checksum", None)
    try:
        agrees = checksum == _digest(tensors, metadata)
    except (TypeError, ValueError):  # a type of numbers that numpy lacks, or a number out of range
        agrees = False
    if not agrees:
        wrong = "damaged, its content doesn't match its sha256"
        raise RecordError(asked=path, wrong=wrong, remedy="train it again")
    return tensors, metadata


def _digest(tensors: Mapping[str, Tensor], body: Any) -> str:
    """Return the sha256 of a JSON value and of named CPU tensors, independent of the tensors' order."""
    digest = hashlib.sha256(files.canonical(body).encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}".encode() + tensor.numpy().tobytes())
    return digest.hexdigest()
