"""Artifact files of the embedded teachers: weights with their configuration, and a record of provenance and hashes."""

from __future__ import annotations

import datetime
import hashlib
import json
import platform
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from solverbench.errors import MissingError, RecordError
from solverbench.files import sha256, write_bytes

RECORD = "record.json"

Network = TypeVar("Network", bound=nn.Module)


def digest(path: Path) -> str:
    """Return the sha256 of the file's bytes.

    Raises:
        MissingError: the file doesn't exist.
    """
    if not path.is_file():
        raise MissingError(
            asked=path.name, wrong=f"missing in {path.parent}", remedy="install SolverBench again or rebuild it"
        )
    return sha256(path)


def write(path: Path, tensors: Mapping[str, Tensor], config: Mapping[str, object]) -> str:
    """Write tensors and the network's configuration as safetensors; return the sha256 of the file."""
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in sorted(tensors.items())}
    content = save(plain, {"config": json.dumps(config, sort_keys=True)})
    write_bytes(path, content)
    return hashlib.sha256(content).hexdigest()


def read(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return the tensors (float32) and the configuration of a weights file, verified against the folder's record.

    Raises:
        MissingError: the file doesn't exist.
        RecordError: it differs from the recorded file, or is not a weights file.
    """
    found, recorded = digest(path), read_record(path.parent).get(path.stem, {}).get("sha256")
    if found != recorded:
        raise RecordError(
            asked=path, wrong=f"its sha256 is {found[:12]}…, {RECORD} says {recorded}", remedy="restore or rebuild both"
        )
    try:
        return _content(path)
    except (SafetensorError, KeyError, ValueError):
        pass  # An interrupt inside torch's C++ code surfaces as another error: blame the file only if it fails again.
    try:
        return _content(path)
    except (SafetensorError, KeyError, ValueError) as error:
        raise RecordError(
            asked=path, wrong=f"not a SolverBench weights file ({error})", remedy="restore or rebuild it"
        ) from error


def _content(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    with safe_open(path, "pt") as file:
        config = json.loads((file.metadata() or {})["config"])
        return {name: file.get_tensor(name).float() for name in file.keys()}, config  # noqa: SIM118


def frozen(build: Callable[..., Network], path: Path, device: torch.device | str) -> Network:
    """Return the network of a weights file, built by `build(**configuration)`, frozen, on `device`.

    Raises:
        MissingError, RecordError: see `read`.
    """
    tensors, config = read(path)
    network = build(**config)
    network.load_state_dict(tensors)
    return network.requires_grad_(False).eval().to(device)


def read_record(folder: Path) -> dict[str, Any]:
    """Return the record of `folder`, which says how each of its files was made; only the schema if there is none.

    Raises:
        RecordError: the file isn't JSON of schema 1.
    """
    path = folder / RECORD
    if not path.is_file():
        return {"schema": 1}
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise RecordError(asked=path, wrong=f"not JSON ({error})", remedy="restore or rebuild it") from error
    if not isinstance(record, dict) or record.get("schema") != 1:
        raise RecordError(asked=path, wrong="not a record of schema 1", remedy="restore or rebuild it")
    return record


def add_to_record(folder: Path, section: str, facts: Mapping[str, Any]) -> None:
    """Write `facts` to section `section` of the record of `folder`, replacing the old section."""
    record = read_record(folder) | {section: dict(facts)}
    write_bytes(folder / RECORD, (json.dumps(record, indent=1, ensure_ascii=False) + "\n").encode())


def environment(device: torch.device) -> dict[str, str]:
    """Return the environment for a record: date (UTC), kind of machine, versions."""
    machine = torch.cuda.get_device_name(device) if device.type == "cuda" else f"CPU {platform.machine()}"
    return {
        "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d"),
        "machine": machine,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
    }


def check_device(device: str) -> None:
    """Check that a CUDA device is available if one is requested.

    Raises:
        MissingError: no CUDA device is available.
    """
    if torch.device(device).type == "cuda" and not torch.cuda.is_available():
        raise MissingError(asked=f"--device {device}", wrong="no CUDA device is available", remedy="use --device cpu")
