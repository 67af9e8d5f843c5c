"""Web pages of a store's runs, for this machine only: its reports, and the work in progress. Read-only.

Python's own http.server, bound to 127.0.0.1. A request names a report and a file in it; no other file is ever opened.
"""

from __future__ import annotations

import email.utils
import http
import http.server
import json
import mimetypes
import os
import re
import shutil
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import quote, unquote, urlsplit

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from solverbench import files
from solverbench._version import __version__
from solverbench.errors import RecordError, StoreError, UserError
from solverbench.store import layout
from solverbench.store.folder import CellFolder
from solverbench.wording import printable

HOST = "127.0.0.1"
FRESH = 60.0
"""Seconds since the store's last change up to which a run counts as active."""
KINDS = (".html", ".md", ".csv", ".json", ".png", ".pdf", ".svg", ".tex", ".py", ".npz", ".bib")
"""Files of a report that are served, by their ending."""
WORKERS = 16
"""Number of threads that answer requests; further requests wait."""
WAITING = 1024
"""Number of connections that may wait for a thread."""
POLICY = "default-src 'none'; img-src 'self' data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'; "
POLICY += "connect-src 'self'; frame-src 'self'; frame-ancestors 'self'; base-uri 'none'; form-action 'none'"
"""Content-Security-Policy of the server's own pages."""
FOREIGN = "sandbox allow-scripts allow-popups; default-src 'none'; img-src data:; style-src 'unsafe-inline'; "
FOREIGN += "script-src 'unsafe-inline'; connect-src 'none'; frame-ancestors 'self'; base-uri 'none'; form-action 'none'"
"""Policy of a report's page, which may come from a stranger: an origin of its own, and no request to any server."""
INERT = "default-src 'none'; style-src 'unsafe-inline'; sandbox"
"""Content security policy of every other file of a report."""


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
    """A fixed number of threads answers the requests; a browser that disconnects is not an error."""

    request_queue_size = WAITING

    def __init__(self, address: tuple[str, int], handler: type[http.server.BaseHTTPRequestHandler]) -> None:
        self._workers = ThreadPoolExecutor(WORKERS, "serve")
        super().__init__(address, handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        """Answer the request in one of the threads."""
        self._workers.submit(self.process_request_thread, request, client_address)

    def server_close(self) -> None:
        """Close the socket; requests that wait are dropped."""
        super().server_close()
        self._workers.shutdown(wait=False, cancel_futures=True)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Do nothing: the error was answered, or the browser has disconnected."""


class Pages(http.server.BaseHTTPRequestHandler):
    """The store's pages; `store` is set by `serve`."""

    store: Path
    server_version, sys_version = "SolverBench", ""
    timeout = 10  # seconds for one request, so that a client that sends nothing doesn't keep a thread

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
        pieces = [unquote(piece, errors="surrogateescape") for piece in urlsplit(self.path).path.split("/")[1:]]
        if pieces == [""]:
            return self._send(http.HTTPStatus.OK, _bytes(index(self.store)), "text/html", body)
        if len(pieces) == 2 and pieces[0] == "runs" and pieces[1] in names(self.store):
            return self._send(http.HTTPStatus.OK, _bytes(frame(pieces[1])), "text/html", body)
        path = file(self.store, pieces[1], pieces[2]) if len(pieces) == 3 and pieces[0] == "files" else None
        if path is None:
            return self._send(http.HTTPStatus.NOT_FOUND, b"there is no such page\n", "text/plain", body)
        try:
            with files.regular(path) as content:
                self._send_file(path, content, body)
        except (RecordError, StoreError):
            self._send(http.HTTPStatus.NOT_FOUND, b"it can't be read\n", "text/plain", body)

    def _send_file(self, path: Path, content: BinaryIO, body: bool) -> None:
        found = os.fstat(content.fileno())
        kind = mimetypes.guess_type(path.name)[0] or "application/octet-stream"
        kind = "text/plain" if path.suffix in (".md", ".tex", ".py", ".bib", ".csv") else kind
        self._head(
            http.HTTPStatus.OK,
            found.st_size,
            kind,
            {
                "Last-Modified": email.utils.formatdate(found.st_mtime, usegmt=True),
                "ETag": f'"{found.st_mtime!r}-{found.st_size}"',
                "Content-Security-Policy": FOREIGN if path.suffix == ".html" else INERT,
            },
        )
        if body:
            shutil.copyfileobj(content, self.wfile)

    def _asked_for_here(self) -> bool:
        """Return whether the Host header names this server: another site can't reach it through its own host name."""
        host = self.headers.get("Host", "").rpartition(":")
        return (host[0] or host[2]) in (HOST, "localhost")

    def _send(self, status: http.HTTPStatus, content: bytes, kind: str, body: bool) -> None:
        self._head(status, len(content), kind, {"Content-Security-Policy": POLICY})
        if body:
            self.wfile.write(content)

    def _head(self, status: http.HTTPStatus, size: int, kind: str, own: Mapping[str, str]) -> None:
        self.send_response(status)
        text = kind.startswith("text/") or kind in ("application/json", "image/svg+xml")
        self.send_header("Content-Type", kind + ("; charset=utf-8" if text else ""))
        self.send_header("Content-Length", str(size))
        self.send_header("Cache-Control", "no-cache")
        self.send_header("X-Content-Type-Options", "nosniff")
        self.send_header("Cross-Origin-Resource-Policy", "same-origin")
        self.send_header("Referrer-Policy", "no-referrer")
        for name, value in own.items():
            self.send_header(name, value)
        self.end_headers()


def names(root: Path) -> list[str]:
    """Return the names of the store's reports, the last changed first."""
    bundles = (path / "bundle.json" for path in files.listed(root / "reports") if not path.is_symlink())
    found = [path for path in bundles if path.is_file()]
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
    return _render("run", {"run": run, "source": f"/files/{_quoted(run)}/report.html"})


def runs(root: Path) -> Iterator[Run]:
    """Yield the store's reports for the list, damaged ones included."""
    for name in names(root):
        folder = root / "reports" / name
        try:
            record = _json(folder / "bundle.json")
            chosen = record.get("selection", {})
            about = (
                f"{', '.join(map(str, chosen.get('solvers', [])))} on {', '.join(map(str, chosen.get('teachers', [])))}"
            )
            counts = ", ".join(f"{count} {status}" for status, count in record.get("counts", {}).items() if count)
            command = str(record.get("command", ""))
        except (UserError, ValueError, AttributeError, TypeError, RecursionError) as error:
            about, counts, command = "", f"bundle.json can't be read ({type(error).__name__})", ""
        changed = time.strftime("%Y-%m-%d %H:%M", time.localtime(_changed(folder / "bundle.json")))
        drawn = (folder / "report.html").is_file()
        yield Run(name, about, counts, command, changed, drawn, f"/runs/{_quoted(name)}")


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
    yield from files.listed(root / "leases" / "runs")
    yield from (cell / "blocks" for cell in layout.cells(root))
    yield from files.folders(root / "targets")
    yield from _checkpoints(root)


def _checkpoints(root: Path) -> Iterator[Path]:
    """Yield the last checkpoint of each training in progress."""
    for teacher in files.folders(root / "trained"):
        for run in files.folders(teacher / "runs"):
            if (run / "checkpoint.safetensors").is_file():
                yield run / "checkpoint.safetensors"


def _cells(root: Path) -> Iterator[Progress]:
    for folder in layout.cells(root):
        path = folder / "cell.json"
        if (folder / "metrics.json").exists():
            continue
        try:
            told = _json(path)
            said = CellFolder(folder, folder.name).failure() or ""
            key, named = told["key"], {**told["key"], **told["names"]}  # format 1 had nfe in the key
            first, _, last = str(key["seeds"]).partition("-")
            total = -(-(int(last or first) - int(first) + 1) // int(key["block"]))
            name = f"{named['solver']} NFE {named['nfe']} on {named['teacher']}"
        except (UserError, ValueError, KeyError, TypeError, ZeroDivisionError, RecursionError):
            continue
        done = sum(path.suffix == ".npz" for path in files.listed(folder / "blocks"))
        detail = f"failed: {said}" if said else "blocks"
        age = time.time() - max(_changed(path), _changed(folder / "blocks"))
        yield Progress(name, detail, done, total, age, age < FRESH and not said)


def _trainings(root: Path) -> Iterator[Progress]:
    for path in _checkpoints(root):
        age = time.time() - _changed(path)
        name = f"training {path.parent.name} on {path.parents[2].name}"
        yield Progress(name, "at its last checkpoint", 0, 0, age, age < 10 * FRESH)


def _json(path: Path) -> Any:
    """Return the content of a JSON file; UserError or ValueError if it can't be read or is too large."""
    return json.loads(files.read(path, files.JSON_BYTES))


def _quoted(name: str) -> str:
    return quote(name, safe="", errors="surrogateescape")


def _bytes(page: str) -> bytes:
    """Return a page in UTF-8; a folder's name may hold bytes that aren't."""
    return page.encode(errors="replace")


def _changed(path: Path) -> float:
    try:
        return path.lstat().st_mtime
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
    environment.finalize = lambda value: printable(value) if type(value) is str else value
    return environment.get_template(f"{name}.html.j2").render(version=__version__, **given)
