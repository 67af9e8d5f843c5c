"""Web pages of a store's runs, for this machine only: its reports, and the work in progress. Read-only.

Python's own http.server, bound to 127.0.0.1. A request names a report and a file in it; no other file is ever opened.
"""

from __future__ import annotations

import email.utils
import http
import http.server
import json
import mimetypes
import re
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote, urlsplit

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from solverbench._version import __version__
from solverbench.errors import UserError

HOST = "127.0.0.1"
FRESH = 60.0
"""Seconds since the store's last change up to which a run counts as active."""
KINDS = (".html", ".md", ".csv", ".json", ".png", ".pdf", ".svg", ".tex", ".py", ".npz", ".bib")
"""Files of a report that are served, by their ending."""
POLICY = "default-src 'none'; img-src 'self' data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'; "
POLICY += "connect-src 'self'; frame-src 'self'; frame-ancestors 'self'; base-uri 'none'; form-action 'none'"
"""Content-Security-Policy of the server's own pages; a report contains its own policy."""


@dataclass(frozen=True)
class Progress:
    """An unfinished cell or training: `done` of `total` blocks (0: unknown), changed `age` seconds ago."""

    name: str
    detail: str
    done: int
    total: int
    age: float
    live: bool


@dataclass(frozen=True)
class Run:
    """A report of the store, for the list."""

    name: str
    about: str
    counts: str
    command: str
    changed: str
    drawn: bool
    link: str


def serve(root: Path, port: int) -> http.server.ThreadingHTTPServer:
    """Return a server of the store at `root` that listens on 127.0.0.1; the caller runs it.

    Args:
        port: 0 for any free one.

    Raises:
        UserError: no such folder, or the port is taken.
    """
    if not root.is_dir():
        raise UserError(asked=f"serve --out {root}", wrong="doesn't exist", remedy="name a results folder")
    if not 0 <= port < 1 << 16:
        raise UserError(
            asked=f"serve --port {port}",
            wrong="not a port number",
            remedy="give one from 1024 to 65535, or 0 for a free one",
        )

    class Handler(Pages):
        store = root

    try:
        return Server((HOST, port), Handler)
    except OSError as error:
        raise UserError(
            asked=f"serve --port {port}",
            wrong=f"can't be opened ({error.strerror})",
            remedy="choose another, or 0 for a free one",
        ) from None


class Server(http.server.ThreadingHTTPServer):
    """A thread per request; a browser that disconnects is not an error."""

    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Do nothing: the error was answered, or the browser has disconnected."""


class Pages(http.server.BaseHTTPRequestHandler):
    """The store's pages; `store` is set by `serve`."""

    store: Path
    protocol_version = "HTTP/1.1"
    server_version, sys_version = "SolverBench", ""
    timeout = 30

    def do_GET(self) -> None:
        """Answer with a page or a file."""
        self._answer(body=True)

    def do_HEAD(self) -> None:
        """Answer with the headers of a page or a file."""
        self._answer(body=False)

    def log_message(self, format: str, *args: Any) -> None:
        """Do nothing: requests are not printed to the terminal."""

    def _answer(self, body: bool) -> None:
        if not self._asked_for_here():
            return self._send(http.HTTPStatus.FORBIDDEN, b"not this machine's own name\n", "text/plain", body)
        pieces = [unquote(piece) for piece in urlsplit(self.path).path.split("/")[1:]]
        if pieces == [""]:
            return self._send(http.HTTPStatus.OK, index(self.store).encode(), "text/html", body)
        if len(pieces) == 2 and pieces[0] == "runs" and pieces[1] in names(self.store):
            return self._send(http.HTTPStatus.OK, frame(pieces[1]).encode(), "text/html", body)
        path = file(self.store, pieces[1], pieces[2]) if len(pieces) == 3 and pieces[0] == "files" else None
        if path is None:
            return self._send(http.HTTPStatus.NOT_FOUND, b"there is no such page\n", "text/plain", body)
        try:
            content, changed = path.read_bytes(), path.stat().st_mtime
        except OSError:
            return self._send(http.HTTPStatus.NOT_FOUND, b"it can't be read\n", "text/plain", body)
        kind = mimetypes.guess_type(path.name)[0] or "application/octet-stream"
        kind = "text/plain" if path.suffix in (".md", ".tex", ".py", ".bib", ".csv") else kind
        own = {"Last-Modified": email.utils.formatdate(changed, usegmt=True), "ETag": f'"{changed!r}-{len(content)}"'}
        if path.suffix != ".html":
            own["Content-Security-Policy"] = "default-src 'none'; style-src 'unsafe-inline'; sandbox"
        return self._send(http.HTTPStatus.OK, content, kind, body, own)

    def _asked_for_here(self) -> bool:
        """Return whether the Host header names this server: another site can't reach it through its own host name."""
        host = self.headers.get("Host", "").rpartition(":")
        return (host[0] or host[2]) in (HOST, "localhost")

    def _send(
        self, status: http.HTTPStatus, content: bytes, kind: str, body: bool, own: Mapping[str, str] | None = None
    ) -> None:
        self.send_response(status)
        text = kind.startswith("text/") or kind in ("application/json", "image/svg+xml")
        self.send_header("Content-Type", kind + ("; charset=utf-8" if text else ""))
        self.send_header("Content-Length", str(len(content)))
        self.send_header("Cache-Control", "no-cache")
        self.send_header("X-Content-Type-Options", "nosniff")
        self.send_header("Cross-Origin-Resource-Policy", "same-origin")
        self.send_header("Referrer-Policy", "no-referrer")
        for name, value in (own if own is not None else {"Content-Security-Policy": POLICY}).items():
            self.send_header(name, value)
        self.end_headers()
        if body:
            self.wfile.write(content)


def names(root: Path) -> list[str]:
    """Return the names of the store's reports, the last changed first."""
    found = [path for path in root.glob("reports/*/bundle.json") if not path.parent.is_symlink()]
    return [path.parent.name for path in sorted(found, key=_changed, reverse=True)]


def file(root: Path, run: str, name: str) -> Path | None:
    """Return the path of a report's file; None unless it is a plain file of a served kind directly in its folder."""
    if run not in names(root) or not re.fullmatch(r"[^/\\\0]+", name) or name.startswith("."):
        return None
    path = root / "reports" / run / name
    plain = path.suffix in KINDS and path.is_file() and not path.is_symlink()
    return path if plain else None


def index(root: Path) -> str:
    """Return the page that lists the store's runs and the work in progress."""
    going = list(unfinished(root))
    live = is_live(root)
    return _render("index", {"root": str(root.resolve()), "runs": list(runs(root)), "unfinished": going, "live": live})


def frame(run: str) -> str:
    """Return the page around a report; it reloads the report after a redraw."""
    return _render("run", {"run": run, "source": f"/files/{quote(run, safe='')}/report.html"})


def runs(root: Path) -> Iterator[Run]:
    """Yield the store's reports for the list, damaged ones included."""
    for name in names(root):
        folder = root / "reports" / name
        try:
            record = json.loads((folder / "bundle.json").read_text(encoding="utf-8"))
            chosen = record.get("selection", {})
            about = (
                f"{', '.join(map(str, chosen.get('solvers', [])))} on {', '.join(map(str, chosen.get('teachers', [])))}"
            )
            counts = ", ".join(f"{count} {status}" for status, count in record.get("counts", {}).items() if count)
            command = str(record.get("command", ""))
        except (OSError, ValueError, AttributeError, TypeError) as error:
            about, counts, command = "", f"bundle.json can't be read ({type(error).__name__})", ""
        changed = time.strftime("%Y-%m-%d %H:%M", time.localtime(_changed(folder / "bundle.json")))
        drawn = (folder / "report.html").is_file()
        yield Run(name, about, counts, command, changed, drawn, f"/runs/{quote(name, safe='')}")


def unfinished(root: Path) -> Iterator[Progress]:
    """Yield the store's unfinished cells and trainings, the last changed first."""
    found = [*_cells(root), *_trainings(root)]
    yield from sorted(found, key=lambda each: each.age)


def is_live(root: Path) -> bool:
    """Return whether the store changed within the last `FRESH` seconds."""
    newest = max((_changed(path) for path in _signs(root)), default=0.0)
    return time.time() - newest < FRESH


def _signs(root: Path) -> Iterator[Path]:
    """Yield the files that an active run or training touches regularly."""
    yield from root.glob("leases/runs/*")
    yield from root.glob("cells/*/*/blocks")
    yield from root.glob("targets/*")
    yield from root.glob("trained/*/runs/*/checkpoint.safetensors")


def _cells(root: Path) -> Iterator[Progress]:
    for path in root.glob("cells/*/*/cell.json"):
        folder = path.parent
        if (folder / "metrics.json").exists():
            continue
        try:
            told = json.loads(path.read_text(encoding="utf-8"))
            key, named = told["key"], {**told["key"], **told["names"]}  # format 1 had nfe in the key
            first, _, last = str(key["seeds"]).partition("-")
            total = -(-(int(last or first) - int(first) + 1) // int(key["block"]))
            name = f"{named['solver']} NFE {named['nfe']} on {named['teacher']}"
        except (OSError, ValueError, KeyError, TypeError, ZeroDivisionError):
            continue
        done = sum(1 for _ in (folder / "blocks").glob("*.npz"))
        error = folder / "error.txt"
        said = error.read_text(encoding="utf-8", errors="replace").partition("\n")[0] if error.is_file() else ""
        detail = f"failed: {said}" if said else "blocks"
        age = time.time() - max(_changed(path), _changed(folder / "blocks"))
        yield Progress(name, detail, done, total, age, age < FRESH and not said)


def _trainings(root: Path) -> Iterator[Progress]:
    for path in root.glob("trained/*/runs/*/checkpoint.safetensors"):
        age = time.time() - _changed(path)
        name = f"training {path.parent.name} on {path.parents[2].name}"
        yield Progress(name, "at its last checkpoint", 0, 0, age, age < 10 * FRESH)


def _changed(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0


def _ago(seconds: float) -> str:
    if seconds < 90:
        return f"{max(seconds, 0):.0f} s ago"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min ago"
    return f"{seconds / 3600:.0f} h ago" if seconds < 172800 else f"{seconds / 86400:.0f} days ago"


def _render(name: str, given: Mapping[str, Any]) -> str:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).with_name("web")), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    environment.filters["ago"] = _ago
    return environment.get_template(f"{name}.html.j2").render(version=__version__, **given)
