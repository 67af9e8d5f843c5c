"""The names of training recipes: packaged files, and recipes declared in learned solver classes."""

from collections.abc import Mapping
from importlib import resources
from typing import Any

from solverbench.registries.registry import Registry


def names() -> list[str]:
    """Return the names of the packaged recipes."""
    there = (resources.files("solverbench.registries") / "recipes").iterdir()
    return sorted(each.name.removesuffix(".toml") for each in there if each.name.endswith(".toml"))


def declared(solvers: Registry, name: str) -> Mapping[str, Any] | None:
    """Return a learned solver's `trained_by`; None for other names and for solvers that are not trained."""
    try:
        found: Mapping[str, Any] | None = getattr(solvers.get(name), "trained_by", None)
    except LookupError:
        return None
    return found


def exists(solvers: Registry, name: str) -> bool:
    """Return whether a recipe of this name exists, packaged or declared by a learned solver."""
    return name in names() or declared(solvers, name) is not None
