"""The names of training recipes: packaged files, and what learned solvers say in their class."""

from collections.abc import Mapping
from importlib import resources
from typing import Any

from solverbench.registries.registry import Registry


def names() -> list[str]:
    """Return the packaged recipes."""
    there = (resources.files("solverbench.registries") / "recipes").iterdir()
    return sorted(each.name.removesuffix(".toml") for each in there if each.name.endswith(".toml"))


def declared(solvers: Registry, name: str) -> Mapping[str, Any] | None:
    """Return what the class of a learned solver says of its training; None if it is none, or isn't trained."""
    try:
        found: Mapping[str, Any] | None = getattr(solvers.get(name), "trained_by", None)
    except LookupError:
        return None
    return found


def exists(solvers: Registry, name: str) -> bool:
    """Return whether there is a recipe of this name: a packaged one, or a learned solver's own."""
    return name in names() or declared(solvers, name) is not None
