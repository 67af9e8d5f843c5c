"""What the literature publishes as settings, read from the data files beside this one."""

from __future__ import annotations

import tomllib
from functools import cache
from importlib import resources
from typing import Any


def gits() -> dict[str, list[list[float]]]:
    """Return the noise levels that GITS found on Stable Diffusion: solver to lists, shortest first."""
    return _read("gits.toml")


def recommended(solver: str) -> dict[str, dict[str, str]]:
    """Return the options recommended for a solver: family of teacher to {"options", "source"}; may be empty."""
    entry: dict[str, dict[str, str]] = _read("recommended.toml").get(solver, {})
    return entry


def catalogue() -> dict[str, dict[str, Any]]:
    """Return the published teachers: name to family, addresses, licence, noise range, settings and protocol."""
    return _read("teachers.toml")


@cache
def _read(name: str) -> dict[str, Any]:
    return tomllib.loads(resources.files("registries").joinpath(name).read_text(encoding="utf-8"))
