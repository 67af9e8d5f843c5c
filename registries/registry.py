"""How a name becomes a thing: built-ins are strings "module:Name", loaded when asked for; plugins use the same door."""

from __future__ import annotations

import difflib
import importlib
import inspect
from collections.abc import Iterator, Mapping
from typing import Any


class UnknownName(LookupError):
    """No entry of that name; the text suggests the nearest."""


class Registry:
    """A table of names, each bound to an object or to a lazy "module:Name".

    Args:
        kind: what the entries are, in the singular, for messages ("solver").
        table: built-in entries, name to "module:Name".
        aliases: other spellings, each to a name.
        about: one line on each built-in, so that a listing imports none of them.
    """

    def __init__(
        self,
        kind: str,
        table: Mapping[str, str],
        *,
        aliases: Mapping[str, str] | None = None,
        about: Mapping[str, str] | None = None,
    ) -> None:
        self.kind = kind
        self._entries: dict[str, Any] = dict(table)
        self._aliases = dict(aliases or {})
        self._about = dict(about or {})

    def register(self, name: str, thing: Any) -> None:
        """Bind `name` to `thing`, an object or a "module:Name".

        Raises:
            ValueError: the name is taken by something else.
        """
        taken = self._entries.get(self._aliases.get(name, name))
        if taken is not None and taken != thing and self.origin(name) != _origin(thing):
            raise ValueError(f"{self.kind} {name!r}: registered already by {self.origin(name)}; choose another name")
        self._entries[name] = thing

    def resolve(self, name: str) -> str:
        """Return the name that `name` stands for.

        Raises:
            UnknownName: neither an entry nor an alias.
        """
        full = self._aliases.get(name, name)
        if full in self._entries:
            return full
        near = difflib.get_close_matches(name, [*self._entries, *self._aliases], n=1)
        hint = f"did you mean {near[0]!r}? See" if near else "see"
        raise UnknownName(f"{self.kind} {name!r}: not registered; {hint} 'solverbench list {self.kind}s'.")

    def get(self, name: str) -> Any:
        """Return what `name` (or an alias) is bound to, importing it if it is still a string."""
        full = self.resolve(name)
        thing = self._entries[full]
        if isinstance(thing, str):
            module, _, attribute = thing.partition(":")
            thing = self._entries[full] = getattr(importlib.import_module(module), attribute)
        return thing

    def origin(self, name: str) -> str:
        """Return where the entry is defined: "module:Name", or file:line of a plugin."""
        return _origin(self._entries[self.resolve(name)])

    def about(self, name: str) -> str:
        """Return one line on the entry."""
        full = self.resolve(name)
        thing = self._entries[full]
        doc = "" if isinstance(thing, str) else thing.__doc__ or ""
        return self._about.get(full) or doc.strip().partition("\n")[0]

    def aliases(self, name: str) -> list[str]:
        """Return the other spellings of `name`."""
        return sorted(alias for alias, full in self._aliases.items() if full == name)

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._entries))

    def __contains__(self, name: str) -> bool:
        return name in self._entries or name in self._aliases


def _origin(thing: Any) -> str:
    if isinstance(thing, str):
        return thing
    try:
        return f"{inspect.getsourcefile(thing)}:{inspect.getsourcelines(thing)[1]}"
    except (OSError, TypeError):
        return f"{thing.__module__}:{thing.__qualname__}"
