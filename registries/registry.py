"""Name registries: built-ins are strings "module:Name", imported on first use; plugins are added to the same tables."""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from solverbench.registries import plugins
from solverbench.registries.plugins import Offer, Unavailable
from solverbench.wording import Problem, suggest


class UnknownName(Problem, LookupError):
    """No entry of that name; the text suggests the nearest."""


class Rejected(Problem, ValueError):
    """An object that a registry does not accept under a name."""


@dataclass(frozen=True)
class Listed:
    """One line of a listing.

    Args:
        name: registered name.
        aliases: other spellings.
        about: one-line description; empty if the entry is not available.
        plugin: source of the plugin; empty for a built-in.
        unavailable: reason why the entry is not available; empty if it is.
    """

    name: str
    aliases: tuple[str, ...]
    about: str
    plugin: str = ""
    unavailable: str = ""


class Registry:
    """A table of names, each bound to an object or to a lazy "module:Name"; built-ins win over plugins.

    Args:
        kind: kind of the entries, in the singular, for messages ("solver").
        table: built-in entries, name to "module:Name".
        aliases: other spellings, alias to name.
        about: one-line description of each built-in, so that a listing imports none of them.
        group: group of entry points that add entries; none if empty.
        check: "module:Name" of a function (kind, name, thing) that returns what is wrong with a plugin's object and the
            remedy, or two empty strings; if not given, every object is accepted.
    """

    def __init__(
        self,
        kind: str,
        table: Mapping[str, str],
        *,
        aliases: Mapping[str, str] | None = None,
        about: Mapping[str, str] | None = None,
        group: str = "",
        check: str = "",
    ) -> None:
        self.kind = kind
        self.plural = kind + ("es" if kind.endswith("s") else "s")
        self._entries: dict[str, Any] = dict(table)
        self._aliases = dict(aliases or {})
        self._about = dict(about or {})
        self._group, self._check = group, check
        self._registered: dict[str, Offer] = {}

    def register(self, name: str, thing: Any) -> None:
        """Bind `name` to `thing`, as a plugin does; a redefinition of the same object replaces it.

        Raises:
            Rejected: the name is taken by another object, or `thing` is not of this kind.
        """
        full, offer = self._aliases.get(name, name), plugins.registered(name, thing)
        taken = self._registered.get(name)
        if full in self._entries and self.get(full) is thing:
            return
        if full in self._entries or (taken is not None and not _same(taken, offer)):
            by = self.origin(full) if taken is None else taken.source
            raise Rejected(asked=self._asked(name), wrong=f"already registered by {by}", remedy="choose another name")
        wrong, remedy = self._wrong(name, thing)
        if wrong:
            raise Rejected(asked=self._asked(name), wrong=wrong, remedy=remedy)
        self._registered[name] = offer

    def adopt(self, offer: Offer) -> None:
        """Register an offer from another process, unless its name is registered already."""
        self._registered.setdefault(offer.name, offer)

    def registered(self) -> tuple[Offer, ...]:
        """Return the registered offers, without those of entry points."""
        return tuple(self._registered.values())

    def loaded(self) -> tuple[Offer, ...]:
        """Return the registered offers and the offers of entry points that have been loaded."""
        return *self.registered(), *(offer for offer in self._installed() if offer.thing is not None)

    def withdraw(self, name: str) -> None:
        """Remove the registration of `name`."""
        self._registered.pop(name, None)

    @property
    def builtin(self) -> tuple[str, ...]:
        """The built-in names."""
        return tuple(sorted(self._entries))

    def resolve(self, name: str) -> str:
        """Return the entry's name for a name or alias.

        Raises:
            UnknownName: `name` is neither an entry nor an alias.
        """
        full = self._aliases.get(name, name)
        if full in self._entries or self._offers(full):
            return full
        remedy = suggest(name, [*self, *self._aliases], f"see 'solverbench list {self.plural}'.")
        raise UnknownName(asked=self._asked(name), wrong="not registered", remedy=remedy)

    def get(self, name: str) -> Any:
        """Return the object bound to a name or alias; import it on first use.

        Raises:
            UnknownName: `name` is neither an entry nor an alias.
            Unavailable: a plugin's object does not load, is not of this kind, or another plugin offers the name too.
        """
        full = self.resolve(name)
        if full not in self._entries:
            return self._offer(full).thing
        thing = self._entries[full]
        if isinstance(thing, str):
            module, _, attribute = thing.partition(":")
            thing = self._entries[full] = getattr(importlib.import_module(module), attribute)
        return thing

    def origin(self, name: str) -> str:
        """Return where the entry is defined: file:line if it is loaded or from a plugin, else "module:Name"."""
        full = self.resolve(name)
        thing = self._entries[full] if full in self._entries else self._offer(full).thing
        return thing if isinstance(thing, str) else plugins.origin(thing)

    def plugin(self, name: str) -> Offer | None:
        """Return the loaded plugin offer of a name; None for a built-in.

        Raises:
            UnknownName, Unavailable: as `get`.
        """
        full = self.resolve(name)
        return None if full in self._entries else self._offer(full)

    def about(self, name: str) -> str:
        """Return the one-line description of the entry.

        Raises:
            UnknownName, Unavailable: as `get`.
        """
        full = self.resolve(name)
        return self._about[full] if full in self._about else _first_line(self.get(full))

    def aliases(self, name: str) -> list[str]:
        """Return the other spellings of `name`."""
        return sorted(alias for alias, full in self._aliases.items() if full == name)

    def listed(self) -> Iterator[Listed]:
        """Yield a line for each entry and each unavailable plugin offer. Plugins are loaded, built-ins are not."""
        for name in self:
            if name in self._entries:
                yield Listed(name, tuple(self.aliases(name)), self._about.get(name, ""))
                continue
            sources = ", ".join(offer.source for offer in self._offers(name))
            try:
                offer = self._offer(name)
                yield Listed(name, (), _first_line(offer.thing), offer.source)
            except Unavailable as error:
                yield Listed(name, (), "", sources, error.without(self._asked(name)))
        for offer in self._installed():
            if offer.name in self._entries or offer.name in self._aliases:
                yield Listed(
                    offer.name, (), "", offer.source, f"{self.kind} {offer.name!r} is built in and takes precedence"
                )

    def __iter__(self) -> Iterator[str]:
        offered = {offer.name for offer in self._installed()} - set(self._aliases)
        return iter(sorted({*self._entries, *self._registered, *offered}))

    def __contains__(self, name: str) -> bool:
        return name in self._entries or name in self._aliases or bool(self._offers(name))

    def _installed(self) -> tuple[Offer, ...]:
        return plugins.installed(self._group) if self._group else ()

    def _offers(self, name: str) -> list[Offer]:
        """Return all plugin offers of this name, which must not be built in."""
        found = [self._registered[name]] if name in self._registered else []
        return found + [offer for offer in self._installed() if offer.name == name]

    def _offer(self, name: str) -> Offer:
        """Return the single offer of this name, loaded and checked.

        Raises:
            Unavailable: the offer does not load, is of the wrong kind, or is not the only one.
        """
        first, *others = self._offers(name)
        asked = self._asked(name)
        try:
            first.load()
            same = all(plugins.origin(other.load()) == plugins.origin(first.thing) for other in others)
        except Unavailable as error:
            if not others:
                wrong = f"{error.asked} {error.wrong}"
                raise Unavailable(asked=asked, wrong=wrong, remedy=error.remedy) from None
            same = False
        if not same:
            sources = [offer.source for offer in (first, *others)]
            file = any(source.startswith("file ") for source in sources)
            remedy = "leave out --plugin, or rename one" if file else "rename one, or uninstall one of them"
            raise Unavailable(asked=asked, wrong=f"offered by {' and '.join(sources)}", remedy=remedy)
        wrong, remedy = self._wrong(name, first.thing)
        if wrong:
            raise Unavailable(asked=asked, wrong=f"{first.source} offers {first.target}, {wrong}", remedy=remedy)
        return replace(first, source=others[0].source) if others else first  # a package may register what it offers

    def _asked(self, name: str) -> str:
        return f"{self.kind} {name!r}"

    def _wrong(self, name: str, thing: Any) -> tuple[str, str]:
        """Return what is wrong with a plugin's object and its remedy; both are empty if nothing is."""
        if not self._check:
            return "", ""
        module, _, attribute = self._check.partition(":")
        found: tuple[str, str] = getattr(importlib.import_module(module), attribute)(self.kind, name, thing)
        return found


def _same(taken: Offer, offer: Offer) -> bool:
    """Return whether two offers have one source: a redefinition, or a file loaded both by path and as installed."""
    return taken.target == offer.target or plugins.origin(taken.thing) == plugins.origin(offer.thing)


def _first_line(thing: Any) -> str:
    """Return the first line of an object's docstring; empty for a dataclass's automatic signature."""
    line = (getattr(thing, "__doc__", None) or "").strip().partition("\n")[0]
    return "" if line.startswith(f"{getattr(thing, '__name__', '')}(") else line
