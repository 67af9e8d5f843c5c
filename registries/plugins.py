"""Plugin offers: entry points of installed packages, and objects registered by files and notebooks."""

from __future__ import annotations

import ast
import hashlib
import importlib
import importlib.util
import inspect
import io
import sys
import tokenize
import traceback
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from solverbench.wording import Problem


class Unavailable(Problem, LookupError):
    """A plugin has that name, but what it offers can't be had; the text is one line that says why."""


@dataclass
class Offer:
    """A plugin's name and the object bound to it.

    Args:
        name: name of the object.
        source: human-readable origin: "package NAME VERSION", "file PATH" or "module NAME".
        target: location of the object, "module:Name".
        thing: the object; None until it is loaded.
        sha256: sha256 of its source file when it was loaded; empty if the file cannot be read.
    """

    name: str
    source: str
    target: str
    thing: Any = None
    sha256: str = ""
    _why_not: str = field(default="", repr=False)

    def load(self) -> Any:
        """Return the object; import it on the first call.

        Raises:
            Unavailable: the import fails in any way.
        """
        if self.thing is None and not self._why_not:
            module, _, attribute = self.target.partition(":")
            try:
                if not attribute:
                    raise ImportError(f"the entry point names only a module; name an object in it, as in {module}:Name")
                found = importlib.import_module(module)
                for part in attribute.split("."):
                    found = getattr(found, part)
                self.thing, self.sha256 = found, fingerprint(found)
            except (Exception, SystemExit) as error:  # a third-party module may raise anything
                self._why_not = why(error, module)
        if self._why_not:
            raise Unavailable(
                asked=self.source, wrong=f"can't be loaded: {self._why_not}", remedy="correct or uninstall it"
            )
        return self.thing


def registered(name: str, thing: Any) -> Offer:
    """Return the offer of an object that is already loaded."""
    module = sys.modules.get(_module(thing))
    path = getattr(module, "__file__", None)
    return Offer(
        name, f"file {path}" if path else f"module {_module(thing)}", _target(thing), thing, fingerprint(thing)
    )


def installed(group: str) -> tuple[Offer, ...]:
    """Return the offers of the entry points of `group`, sorted by name, without importing them."""
    return _scanned(group, tuple(sys.path))


@cache
def _scanned(group: str, path: tuple[str, ...]) -> tuple[Offer, ...]:
    from importlib.metadata import entry_points  # slower to import than the rest of this package

    found = []
    for point in entry_points(group=group):
        package = f"{point.dist.name} {point.dist.version}" if point.dist is not None else "unknown"
        found.append(Offer(point.name, f"package {package}", f"{point.module}:{point.attr or ''}"))
    return tuple(sorted(found, key=lambda offer: (offer.name, offer.source)))


def why(error: BaseException, owner: str) -> str:
    """Return one line on an error: its place in `owner`'s code, its type and its text.

    Args:
        owner: module or package; the innermost line of the traceback in it is named.
    """
    text = " ".join(str(error.msg if isinstance(error, SyntaxError) else error).split())
    return ": ".join(filter(None, (place(error, owner), type(error).__name__, text)))


def place(error: BaseException, *owners: str) -> str:
    """Return the innermost FILE:LINE in the code of `owners` that an error passed through; empty if there is none.

    Args:
        owners: modules or packages.
    """
    if isinstance(error, SyntaxError) and error.filename and not error.filename.startswith("<"):
        return f"{error.filename}:{error.lineno}"
    tops, found = {_top_package(owner) for owner in owners}, ""
    for frame, line in traceback.walk_tb(error.__traceback__):
        if _top_package(str(frame.f_globals.get("__name__"))) in tops:
            found = f"{frame.f_code.co_filename}:{line}"
    return found


def _top_package(module: str) -> str:
    """Return a module's top package; for ours, the subpackage, which separates a built-in solver from its executor."""
    parts = module.split(".")
    return ".".join(parts[: 2 if parts[0] == "solverbench" else 1])


def origin(thing: Any) -> str:
    """Return where an object is defined: file:line, or "module:Name" if there is no file."""
    try:
        return f"{inspect.getsourcefile(thing)}:{inspect.getsourcelines(thing)[1]}"
    except (OSError, TypeError):
        return _target(thing)


def fingerprint(thing: Any) -> str:
    """Return the sha256 of an object's source file, or of its own source in a notebook; empty if there is none."""
    module = sys.modules.get(_module(thing))
    if _module(thing) == "__main__" and not hasattr(module, "__file__"):
        return _typed(thing)
    path: str | None = getattr(module, "__file__", None)
    loader: Any = getattr(module, "__loader__", None)
    try:
        source = loader.get_data(path) if path and hasattr(loader, "get_data") else b""
    except OSError:
        source = b""
    return hashlib.sha256(source).hexdigest() if source else ""


@cache
def source(thing: Any) -> str:
    """Return the sha256 of the source of a class or function, without comments and blank lines; empty if unknown.

    The source is read from the module as loaded. For a class or function defined inside a function it is unknown,
    because the behaviour may depend on local values there.
    """
    path: str | None = getattr(sys.modules.get(_module(thing)), "__file__", None)
    loader: Any = getattr(sys.modules.get(_module(thing)), "__loader__", None)
    name = str(getattr(thing, "__qualname__", ""))
    if not path or not hasattr(loader, "get_data") or not name or "<" in name:
        return ""
    try:
        text = importlib.util.decode_source(loader.get_data(path))
        lines = _without_comments(text)
        scope: Any = ast.parse(text)
        for part in name.split("."):
            scope = [each for each in scope.body if getattr(each, "name", None) == part][-1]
    except (OSError, SyntaxError, ValueError, IndexError, AttributeError, tokenize.TokenError):
        return ""
    first = min([scope.lineno, *(each.lineno for each in scope.decorator_list)])
    kept = [line.rstrip() for line in lines[first - 1 : scope.end_lineno]]
    return hashlib.sha256("\n".join(line for line in kept if line).encode()).hexdigest()


def _without_comments(text: str) -> list[str]:
    """Return the lines of Python source without their comments."""
    lines = text.splitlines()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT:
            row, column = token.start
            lines[row - 1] = lines[row - 1][:column]
    return lines


def _typed(thing: Any) -> str:
    """Return the fingerprint of a function, or of all functions of a class, defined in a notebook."""
    functions = [each for each in vars(thing).values() if inspect.isfunction(each)] if isinstance(thing, type) else []
    try:
        sources = [inspect.getsource(each) for each in functions or [thing]]
    except (OSError, TypeError):
        return ""
    return hashlib.sha256("".join(sources).encode()).hexdigest()


def _module(thing: Any) -> str:
    return str(getattr(thing, "__module__", None) or type(thing).__module__)


def _target(thing: Any) -> str:
    return f"{_module(thing)}:{getattr(thing, '__qualname__', type(thing).__qualname__)}"
