"""How to install an optional extra, in the words that fit this installation: from a clone, an index or elsewhere."""

from __future__ import annotations

import importlib.metadata
import json
from functools import cache
from pathlib import Path


def install(extra: str) -> str:
    """Return the command that installs an extra of this package, and where to run it if that matters."""
    if from_clone():
        return f"pip install '.[{extra}]' in the clone of SolverBench"
    return f"pip install 'solverbench[{extra}]'"


@cache
def from_clone() -> bool:
    """Return whether this package was installed from a folder, or is used in one, and not taken from an index.

    Source: PEP 610, `direct_url.json` of an installed distribution: it has `dir_info` for a folder.
    """
    if (Path(__file__).parents[1] / "pyproject.toml").is_file():
        return True
    try:
        told = importlib.metadata.distribution("solverbench").read_text("direct_url.json")
        return "dir_info" in json.loads(told or "{}")
    except (importlib.metadata.PackageNotFoundError, OSError, ValueError, TypeError):
        return False
