"""Locations of a user's own files: teachers, checkpoints, converted weights, sets of prompts, trained solvers."""

from __future__ import annotations

import os
import sys
from pathlib import Path

VARIABLE = "SOLVERBENCH_DATA"


def data() -> Path:
    """Return the user's data folder, which need not exist: $SOLVERBENCH_DATA, or the system's default location."""
    if chosen := os.environ.get(VARIABLE):
        return Path(chosen).expanduser()
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local") / "solverbench"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Application Support" / "solverbench"
    named = os.environ.get("XDG_DATA_HOME", "")
    return (Path(named) if os.path.isabs(named) else Path.home() / ".local" / "share") / "solverbench"


def teachers() -> Path:
    """Return the folder of imported teachers: a NAME.toml for each, with checkpoints and converted weights."""
    return data() / "teachers"


def prompts() -> Path:
    """Return the folder of downloaded sets of prompts."""
    return data() / "prompts"


def zoo() -> Path:
    """Return the folder of the user's own trained solvers, stored as TEACHER/FILE."""
    return data() / "zoo"
