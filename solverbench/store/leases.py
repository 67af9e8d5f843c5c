"""Leases: locks on units of work in a shared store. Safe on NFS; clocks of different machines are never compared.

A lease is a folder that holds one file, named for the run that has it. There are three operations. Renaming a new
folder to the lease's path takes a free lease; renaming the file inside takes over a dead run's; removing it frees one.
"""

from __future__ import annotations

import errno
import json
import os
import re
import secrets
import shutil
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

from solverbench import files
from solverbench.store.runs import Holder, _born, _machine, forget, runs

EVERY = 5.0
"""Seconds between two heartbeats of a run that holds leases."""


PATIENCE = 60.0
"""Seconds without a heartbeat, by the observer's own clock, after which a run counts as dead."""


TAKEN = (errno.EEXIST, errno.ENOTEMPTY)
"""Errors of a rename onto a folder that is not empty."""


class Leases:
    """The leases that this process holds in a store, and its view of other runs. Thread-safe.

    Args:
        root: the store's folder.
        every: seconds between two heartbeats; `EVERY` if None.
        patience: seconds without a heartbeat after which another run counts as dead; must be several heartbeats.
            `PATIENCE` if None.
    """

    def __init__(self, root: Path, *, every: float | None = None, patience: float | None = None) -> None:
        self.folder = root / "leases"
        self.token = secrets.token_hex(8)
        self.every = EVERY if every is None else every
        self.patience = PATIENCE if patience is None else patience
        self.users = 0
        self._held: set[str] = set()
        self._quiet: dict[str, tuple[bytes, float, float]] = {}
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._heart: threading.Thread | None = None

    def attempt(self, unit: str) -> bool:
        """Try to lease the unit; return False if another thread or a living run holds it.

        Args:
            unit: a file name, the same in every run.

        Raises:
            StoreError: the folder cannot be written.
        """
        assert re.fullmatch(r"(?!runs$)[A-Za-z0-9][A-Za-z0-9._-]{0,149}", unit), unit
        with self._lock:
            if unit in self._held:
                return False
            self._held.add(unit)
        won = False
        try:
            self._begin()
            won = self._take(unit) or self._take_over(unit)
        except OSError as error:
            raise files.refusal(self.folder / unit, 0, error) from error
        finally:
            if not won:
                with self._lock:
                    self._held.discard(unit)
        return won

    @contextmanager
    def claimed(self, unit: str, stop: Callable[[], None] = lambda: None) -> Iterator[None]:
        """Wait until the unit is leased; free it at the end.

        Args:
            stop: called repeatedly during the wait; may raise to give up.
        """
        pause = 0.01
        while not self.attempt(unit):
            stop()
            time.sleep(pause)
            pause = min(2 * pause, 0.25)
        try:
            yield
        finally:
            self.release(unit)

    def release(self, unit: str) -> None:
        """Free the unit. A unit that another run has taken over stays with that run."""
        with self._lock:
            self._held.discard(unit)
        with suppress(OSError):
            (self.folder / unit / self.token).unlink()
            (self.folder / unit).rmdir()

    def holder(self, unit: str) -> Holder | None:
        """Return the run that holds the unit; None if it is free."""
        token = self._token(unit)
        return None if token is None else Holder.parse(token, self._said(token))

    def close(self) -> None:
        """Free all leases, stop the heartbeat and remove this run's file."""
        for unit in list(self._held):
            self.release(unit)
        self._ended.set()
        if self._heart is not None:
            self._heart.join()
        with suppress(OSError):
            self._file(self.token).unlink()

    def _begin(self) -> None:
        """Write this run's file and start its heartbeat; first forget dead runs."""
        with self._lock:
            if self._heart is not None:
                return
            for run in runs(self.folder.parent):
                if run.holder.dead:
                    forget(self.folder.parent, run)
            self._file(self.token).parent.mkdir(parents=True, exist_ok=True)
            self._beat(0)
            heart = threading.Thread(target=self._live, name="solverbench-leases", daemon=True)
            heart.start()
            self._heart = heart  # set only after the start, because only a started thread can be joined

    def _live(self) -> None:
        count = 0
        while not self._ended.wait(self.every):
            count += 1
            with suppress(OSError):  # a lost lease only costs time: the first result that is stored stays
                self._beat(count)

    def _beat(self, count: int) -> None:
        """Change the run's file in place, which needs no disk space; closing it flushes it to an NFS server."""
        path = self._file(self.token)
        if not path.exists():
            path.write_bytes(f"{count:012d}\n{json.dumps(_self())}\n".encode())
            return
        with open(path, "r+b") as file:
            file.write(f"{count:012d}".encode())

    def _take(self, unit: str) -> bool:
        """Put a folder with our name in place of a missing or empty one."""
        made = self.folder / f".{unit}.{self.token}"
        won = False
        made.mkdir(parents=True, exist_ok=True)
        try:
            (made / self.token).touch()
            won = _put(made, self.folder / unit) or (self.folder / unit / self.token).exists()
        finally:
            if not won:
                shutil.rmtree(made, ignore_errors=True)
        return won

    def _take_over(self, unit: str) -> bool:
        """Replace a dead run's name by ours. The file is renamed from the old name, so that only one run succeeds."""
        token = self._token(unit)
        if token is None or not self._gone(token):
            return False
        try:
            os.rename(self.folder / unit / token, self.folder / unit / self.token)
        except FileNotFoundError:
            return (self.folder / unit / self.token).exists()
        return True

    def _gone(self, token: str) -> bool:
        """Return whether a run is dead: its process has ended, or no heartbeat was seen for `patience` seconds."""
        said = self._said(token)
        if Holder.parse(token, said).dead:
            return True
        now = time.monotonic()
        with self._lock:
            before, last, quiet = self._quiet.get(token, (b"", now, 0.0))
            # Count only time spent observing: a pause of this process says nothing about the other run.
            quiet = quiet + min(now - last, 2 * self.every) if before == said else 0.0
            self._quiet[token] = said, now, quiet
        return quiet >= self.patience

    def _token(self, unit: str) -> str | None:
        try:
            return next(iter(os.listdir(self.folder / unit)), None)
        except OSError:
            return None

    def _said(self, token: str) -> bytes:
        try:
            return self._file(token).read_bytes()
        except OSError:
            return b""

    def _file(self, token: str) -> Path:
        return self.folder / "runs" / token


_open: dict[tuple[int, Path], Leases] = {}


_opening = threading.Lock()


@contextmanager
def opened(root: Path) -> Iterator[Leases]:
    """Yield this process's leases of the store at `root`; threads that open it at the same time share one object."""
    place = os.getpid(), Path(root).resolve()
    with _opening:
        mine = _open.setdefault(place, Leases(Path(root)))
        mine.users += 1
    try:
        yield mine
    finally:
        with _opening:
            mine.users -= 1
            last = not mine.users
            if last:
                del _open[place]
        if last:
            mine.close()


def _put(made: Path, place: Path) -> bool:
    """Rename a folder to `place`; return False if a non-empty one is there, or if a reply was lost on the network."""
    for _ in range(2):
        try:
            os.rename(made, place)
            return True
        except FileNotFoundError:
            return False
        except OSError as error:
            if error.errno not in TAKEN:
                raise
            try:
                place.rmdir()  # for systems that cannot rename onto an empty folder
            except OSError:
                return False
    return False


def _self() -> dict[str, str | int]:
    now = datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    pid = os.getpid()
    return {"host": socket.gethostname(), "pid": pid, "since": now, "machine": _machine(), "born": _born(pid)}
