"""Provenance of a report: package versions, commit, device settings and plugins."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import torch

from solverbench._version import __version__
from solverbench.bench.outcome import Outcome
from solverbench.sampling import energy
from solverbench.sampling.devices import device_name


def _environment(device: str) -> dict[str, Any]:
    kind = torch.device(device).type
    return {
        "solverbench": __version__,
        "python": platform.python_version(),
        **_versions(),
        "system": platform.platform(),
        "machine": platform.machine(),
        "cores": os.cpu_count(),
        "commit": _commit() or "unknown",
        "device": device_name(device),
        **(_cuda() if kind == "cuda" else {}),
    }


_PACKAGES = (
    "torch",
    "numpy",
    "scipy",
    "pandas",
    "torchdiffeq",
    "diffusers",
    "transformers",
    "clean-fid",
    "lpips",
    "ray",
)


@cache
def _versions() -> dict[str, str]:
    """Return the versions of installed packages that numbers may depend on, as of the first call."""
    found = {}
    for package in _PACKAGES:
        with suppress(importlib.metadata.PackageNotFoundError):
            found[package] = importlib.metadata.version(package)
    return found


@cache
def _commit() -> str:
    """Return the commit of this package's checkout at the first call, "+" if files differ; empty outside a checkout."""
    try:
        git = ["git", "-C", str(Path(__file__).parent), "-c", "safe.directory=*"]
        told = subprocess.run(
            [*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=True, timeout=60
        ).stdout
        changed = subprocess.run([*git, "status", "--porcelain", "-uno"], capture_output=True, check=True, timeout=60)
        tracked = subprocess.run([*git, "ls-files", "--error-unmatch", __file__], capture_output=True, timeout=60)
    except (OSError, subprocess.SubprocessError):
        return ""
    return "" if tracked.returncode else told.strip()[:12] + ("+" if changed.stdout else "")


def _plugins(outcomes: Sequence[Outcome]) -> dict[str, str]:
    """Return the plugins used, each with its origin and the sha256 of its source."""
    found: dict[str, str] = {}
    for outcome in outcomes:
        for what, told in outcome.cell.plugins.items():
            found[f"plugin {what}"] = f"{told['source']}, {told['target']}, sha256 {told['sha256'][:16] or 'unknown'}"
    return found


def _cuda() -> dict[str, Any]:
    """Return the settings and versions that can change the last bits on a GPU."""
    return {
        "gpus": torch.cuda.device_count(),
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),  # type: ignore[no-untyped-call]
        "driver": energy.driver() or "unknown",
        "tf32 of matrix products": torch.backends.cuda.matmul.allow_tf32,
        "tf32 of convolutions": torch.backends.cudnn.allow_tf32,
        "cudnn benchmark": torch.backends.cudnn.benchmark,
        "deterministic": torch.are_deterministic_algorithms_enabled(),
    }
