"""Plugins: load plugin files, register classes and functions, look up names, attribute errors to plugins."""

from __future__ import annotations

import hashlib
import importlib
import importlib.abc
import importlib.util
import re
import shlex
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar, overload

from solverbench import registries
from solverbench.errors import PluginError, SpecError, UnknownNameError, UserError
from solverbench.registries import Offer

Thing = TypeVar("Thing", bound=Callable[..., Any])

WORD = re.compile(r"[a-z][a-z0-9_]*")
"""Pattern of the names that a plugin may register."""


CLASSES = {
    "solver": "solverbench.method.solver:Solver",
    "metric": "solverbench.metrics.plugin:Metric",
    "extractor": "solverbench.metrics.extractors.plugin:Extractor",
}
"""Base class of the plugin kinds that are classes; all other kinds are functions."""


@dataclass(frozen=True)
class Held:
    """A plugin file as it was when loaded; it can be sent to another process.

    Args:
        path: absolute path.
        source: content of the file.
    """

    path: str
    source: bytes

    @property
    def sha256(self) -> str:
        """The sha256 of the source."""
        return hashlib.sha256(self.source).hexdigest()

    @property
    def module(self) -> str:
        """The name of its module; the same path gives the same name in every process."""
        word = re.sub(r"\W", "_", Path(self.path).stem)
        return f"solverbench_plugin_{word}_{hashlib.sha256(self.path.encode()).hexdigest()[:8]}"


_held: dict[str, Held] = {}
_registered: list[tuple[str, str]] = []
_offered: dict[str, tuple[tuple[str, str], ...]] = {}


@overload
def register(thing: Thing, *, kind: str | None = None, name: str | None = None) -> Thing: ...
@overload
def register(*, kind: str | None = None, name: str | None = None) -> Callable[[Thing], Thing]: ...
def register(thing: Any = None, *, kind: str | None = None, name: str | None = None) -> Any:
    """Register a class or function by name, next to the built-ins; usable as a decorator. A redefinition replaces it.

    Args:
        thing: a solver, metric or extractor class; or a function: a teacher's loader, a grid or a loss.
        kind: solver, teacher, grid, metric, extractor or loss; that of the class if None.
        name: registered name; the class's `name` or the function's own name if None.

    Raises:
        SpecError: it has no name or kind, the name is taken, or it is not of that kind.
    """
    if thing is None:
        return lambda each: register(each, kind=kind, name=name)
    called = getattr(thing, "__qualname__", repr(thing))
    found = kind or _kind(thing)
    if found not in registries.extensible:
        asked = f"kind={kind!r} isn't known" if kind else "its kind can't be recognised"
        raise SpecError(
            asked=called, wrong=asked, remedy=f"register it with kind={' or '.join(map(repr, registries.extensible))}"
        )
    word = name or (getattr(thing, "name", None) if isinstance(thing, type) else getattr(thing, "__name__", None))
    if not isinstance(word, str) or not WORD.fullmatch(word):
        raise SpecError(asked=called, wrong=f"name {word!r}", remedy=f"give {_named(thing)} a lowercase word as `name`")
    try:
        registries.extensible[found].register(word, thing)
    except registries.Rejected as error:
        raise SpecError.of(error) from None
    _registered.append((found, word))
    return thing


def load(path: str | Path) -> ModuleType:
    """Return the module of a plugin file. The file runs once, and again if it has changed.

    Solvers, metrics and extractors that it defines are registered by their `name`, unless they already are.

    Raises:
        PluginError: the file cannot be read, fails, or registers nothing.
    """
    try:
        source = Path(path).read_bytes()
    except OSError as error:
        raise PluginError(
            asked=f"plugin {path}", wrong=f"can't be read ({error.strerror})", remedy="give the path of a Python file"
        ) from None
    return take(Held(str(Path(path).resolve()), source))


def take(held: Held) -> ModuleType:
    """Return the module of a plugin file that was loaded here or in another process; see `load`."""
    if _held.get(held.module) == held and held.module in sys.modules:
        return sys.modules[held.module]
    spec = importlib.util.spec_from_loader(held.module, _Loader(held), origin=held.path)
    assert spec is not None
    assert spec.loader is not None
    spec.has_location = True
    module = importlib.util.module_from_spec(spec)
    known = len(_registered)
    sys.modules[held.module] = module
    try:
        spec.loader.exec_module(module)
        _claim(module, _registered[known:])
        if len(_registered) == known:
            raise PluginError(asked=f"plugin {held.path}", wrong="registers nothing", remedy=_missing(module))
    except PluginError:
        _forget(held.module, known)
        raise
    except UserError as error:
        _forget(held.module, known)
        raise PluginError.of(error, asked=f"plugin {registries.place(error, held.module) or held.path}") from None
    except (Exception, SystemExit) as error:  # a user's code may raise anything
        _forget(held.module, known)
        where = registries.place(error, held.module)
        raise PluginError(
            asked=f"plugin {where or held.path}",
            wrong=registries.why(error, held.module).removeprefix(f"{where}: "),
            remedy="correct it",
        ) from None
    _held[held.module] = held
    _offered[held.module] = tuple(dict.fromkeys(_registered[known:]))
    return module


def loaded() -> tuple[Held, ...]:
    """Return the loaded plugin files, in order."""
    return tuple(_held.values())


def offered(module: ModuleType) -> tuple[tuple[str, str], ...]:
    """Return (kind, name) of each object that a plugin file's module registered."""
    return _offered[module.__name__]


def flags() -> list[str]:
    """Return the command-line words that load the same plugin files."""
    return [word for held in loaded() for word in ("--plugin", held.path)]


def command(text: str) -> str:
    """Return the command line `text`, extended to load the same plugin files."""
    return " ".join([text, *map(shlex.quote, flags())])


def typed(kind: str, names: Iterable[str]) -> list[tuple[str, Offer]]:
    """Return (kind, offer) of those `names` registered outside plugin files (in a notebook), to `adopt` elsewhere."""
    offers = (offer for offer in registries.extensible[kind].registered() if offer.name in set(names))
    return [(kind, offer) for offer in offers if offer.target.partition(":")[0] not in _held]


def provenance(registry: registries.Registry, name: str) -> dict[str, str]:
    """Return the plugin behind a name with the sha256 of its source; empty for a built-in or if not available."""
    try:
        offer = registry.plugin(name)
    except LookupError:
        return {}
    if offer is None:
        return {}
    module, _, attribute = offer.target.partition(":")
    target = attribute if module in _held else offer.target
    return {"source": offer.source, "target": target, "sha256": offer.sha256}


def get(registry: registries.Registry, name: str) -> Any:
    """Return the object bound to a name or alias of `registry`.

    Raises:
        UnknownNameError: there is no such name.
        PluginError: a plugin offers it but does not load.
    """
    try:
        return registry.get(name)
    except registries.UnknownName as error:
        raise UnknownNameError.of(error) from None
    except registries.Unavailable as error:
        raise PluginError.of(error) from None


@contextmanager
def blamed(registry: registries.Registry, name: str) -> Iterator[None]:
    """Attribute an error raised inside to its plugin; a UserError, or an error of a built-in, passes through.

    Raises:
        PluginError: the plugin behind `name` of `registry` failed.
    """
    try:
        yield
    except UserError:
        raise
    except (Exception, SystemExit) as error:  # a plugin may raise anything
        offer = registry.plugin(name)
        if offer is None:
            raise
        told = registries.why(error, offer.target.partition(":")[0])
        raise PluginError(
            asked=f"{registry.kind} {name!r} of {offer.source}", wrong=told, remedy="correct it"
        ) from error


def place(error: BaseException) -> str:
    """Return the innermost FILE:LINE in a plugin's code that an error passed through; empty if there is none."""
    offers = (offer for each in registries.extensible.values() for offer in each.loaded())
    return registries.place(error, *(offer.target.partition(":")[0] for offer in offers))


def wrong(kind: str, name: str, thing: Any) -> tuple[str, str]:
    """Return why a plugin's object is not valid for its kind, as the end of a sentence, and what to do.

    Both are empty if it is valid.
    """
    if not WORD.fullmatch(name):
        return f"whose name {name!r} isn't a lowercase word", "give it one"
    if kind not in CLASSES:
        return ("", "") if callable(thing) else (f"{thing!r}, which can't be called", "offer a function")
    cls = _class(kind)
    if not (isinstance(thing, type) and issubclass(thing, cls)):
        return f"{thing!r}, which isn't a {cls.__name__}", f"derive its class from solverbench.{cls.__name__}"
    called = getattr(thing, "name", "")
    if called != name:
        return f"whose name is {called!r}", "give both the same"
    return _misdeclared(thing) if kind == "solver" else ("", "")


class _Loader(importlib.abc.SourceLoader):
    """A loader that runs a held source under its own path, whether or not the file exists here."""

    def __init__(self, held: Held) -> None:
        self.held = held

    def get_filename(self, fullname: str) -> str:
        return self.held.path

    def get_data(self, path: Any) -> bytes:
        if str(path) != self.held.path:
            raise FileNotFoundError(path)
        return self.held.source


def _claim(module: ModuleType, registered: list[tuple[str, str]]) -> None:
    """Register the solver, metric and extractor classes that the module defines and that are not registered yet."""
    for thing in list(vars(module).values()):
        if isinstance(thing, type) and thing.__module__ == module.__name__ and (kind := _kind(thing)):
            name, open_ended = vars(thing).get("name", ""), getattr(thing, "__abstractmethods__", ())
            if name and not open_ended and (kind, name) not in registered:
                register(thing)


def _misdeclared(thing: Any) -> tuple[str, str]:
    """Return what is wrong with a solver's options and what to do; both are empty if nothing is wrong."""
    found, remedy = thing.misdeclared()
    return (f"{registries.origin(thing)}: {found}", remedy) if found else ("", "")


def _missing(module: ModuleType) -> str:
    """Return the remedy for a file that registers nothing."""
    for thing in vars(module).values():
        own = isinstance(thing, type) and thing.__module__ == module.__name__
        if own and _kind(thing) and vars(thing).get("name") and (lacking := getattr(thing, "__abstractmethods__", ())):
            methods = " and ".join(f"`{method}`" for method in sorted(lacking))
            return f"its class {thing.__name__} has a name, but no {methods}; define that"
    return "give its solver a `name`, or use @sb.register"


def _kind(thing: Any) -> str:
    """Return the kind implied by an object's base class; empty if there is none."""
    return next((kind for kind in CLASSES if isinstance(thing, type) and issubclass(thing, _class(kind))), "")


def _class(kind: str) -> type:
    module, _, name = CLASSES[kind].partition(":")
    found: type = getattr(importlib.import_module(module), name)
    return found


def _forget(module: str, known: int) -> None:
    """Undo the registrations of a file that failed."""
    for kind, name in _registered[known:]:
        registries.extensible[kind].withdraw(name)
    del _registered[known:], sys.modules[module]
    _held.pop(module, None)


def _named(thing: Any) -> str:
    return "the class" if isinstance(thing, type) else "it"
