"""Leases: which run works on what in a shared store, so that no two do the same. Safe on NFS, and no clock is compared.

A lease is a folder that holds one file, named for the run that has it. Three renames are all there is: a new folder
onto the place takes a free lease, the file inside gets another name to take over a dead run's, and removing it frees.
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
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Generic, TypeVar

from solverbench import files

EVERY = 5.0
"""Seconds between two heartbeats of a run that holds leases."""

PATIENCE = 60.0
"""Seconds without a heartbeat, by the own clock of the run that looks, after which a run is taken for dead."""

POLL = 1.0
"""Seconds between two looks at what another run holds."""

AHEAD = 256
"""Units that a queue finds taken before it stops to look further: more than other runs have under way."""

TAKEN = (errno.EEXIST, errno.ENOTEMPTY)

Unit = TypeVar("Unit")
Piece = TypeVar("Piece")


@dataclass(frozen=True)
class Holder:
    """The run that has a lease, as it says itself.

    Args:
        token: its name in the leases folder.
        since: when it began, by its own clock: for people alone.
        machine: of its process numbers: this boot of this machine and its container; empty where none is known.
        born: tells it from a later process with its number.
    """

    token: str
    host: str = "another host"
    pid: int = 0
    since: str = "an unknown time"
    machine: str = ""
    born: str = ""

    @classmethod
    def parse(cls, token: str, content: bytes) -> Holder:
        """Return what a run's file says, as far as it can be read."""
        try:
            told = json.loads(content.partition(b"\n")[2])
            return cls(token, *(str(told["host"]), int(told["pid"]), str(told["since"])), told["machine"], told["born"])
        except (ValueError, KeyError, TypeError):
            return cls(token)

    @property
    def dead(self) -> bool:
        """Whether it was a process of this machine and is one no more; where that can't be seen it isn't."""
        return bool(self.machine) and self.machine == _machine() and not _alive(self.pid, self.born)

    def __str__(self) -> str:
        return f"{self.host} (process {self.pid}, since {self.since})"


class Leases:
    """What this process holds in a store's leases folder, and what it sees of other runs. Used by several threads.

    Args:
        root: of the store.
        every: seconds between two heartbeats.
        patience: seconds without one after which another run is dead; it must be several of its heartbeats.
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
        """Return whether the unit is ours now; it isn't if any other thread or living run has it.

        Args:
            unit: a file name, the same in every run.

        Raises:
            StoreError: the folder can't be written.
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
        """Wait until the unit is ours, and free it at the end.

        Args:
            stop: called now and then while it waits; raises to give up.
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
        """Free the unit. One that was taken over meanwhile stays with the run that has it now."""
        with self._lock:
            self._held.discard(unit)
        with suppress(OSError):
            (self.folder / unit / self.token).unlink()
            (self.folder / unit).rmdir()

    def holder(self, unit: str) -> Holder | None:
        """Return who has the unit; None if nobody has."""
        token = self._token(unit)
        return None if token is None else Holder.parse(token, self._said(token))

    def close(self) -> None:
        """Free what is held; nothing is left of this run."""
        for unit in list(self._held):
            self.release(unit)
        self._ended.set()
        if self._heart is not None:
            self._heart.join()
        with suppress(OSError):
            self._file(self.token).unlink()

    def _begin(self) -> None:
        """Say who this run is, and keep saying that it lives."""
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
            self._heart = heart  # only one that could be started can be waited for, whatever interrupts this

    def _live(self) -> None:
        count = 0
        while not self._ended.wait(self.every):
            count += 1
            with suppress(OSError):  # a lost lease costs time alone: the first result that is stored stays
                self._beat(count)

    def _beat(self, count: int) -> None:
        """Change the run's file in place, which needs no space; closing it brings it to an NFS server."""
        path = self._file(self.token)
        if not path.exists():
            path.write_bytes(f"{count:012d}\n{json.dumps(_self())}\n".encode())
            return
        with open(path, "r+b") as file:
            file.write(f"{count:012d}".encode())

    def _take(self, unit: str) -> bool:
        """Put a folder with our name where none is, or an empty one."""
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
        """Put our name in place of a dead run's. The old name is what is renamed, so that one run alone succeeds."""
        token = self._token(unit)
        if token is None or not self._gone(token):
            return False
        try:
            os.rename(self.folder / unit / token, self.folder / unit / self.token)
        except FileNotFoundError:
            return (self.folder / unit / self.token).exists()
        return True

    def _gone(self, token: str) -> bool:
        """Whether a run is dead: its process is no more, or this run has looked long enough and heard nothing."""
        said = self._said(token)
        if Holder.parse(token, said).dead:
            return True
        now = time.monotonic()
        with self._lock:
            before, last, quiet = self._quiet.get(token, (b"", now, 0.0))
            # Only time in which it looked: a pause of this process, however long, says nothing of the other.
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
    """Yield this process's leases of the store at `root`; what its threads open at the same time is one object."""
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


class Queue(Generic[Unit, Piece]):
    """Work that several runs may do: hands out what no other run has, and knows what came from others meanwhile.

    Args:
        leases: of the store.
        units: all the work, in order; taken from as it is needed.
        pieces: what a unit consists of: each is ours or another run's by itself.
        name: a piece's name, the same in every run.
        made: whether the piece's result is stored.
    """

    def __init__(
        self,
        leases: Leases,
        units: Iterable[Unit],
        pieces: Callable[[Unit], Sequence[Piece]],
        name: Callable[[Piece], str],
        made: Callable[[Piece], bool],
    ) -> None:
        self.leases, self.pieces, self.name, self.made = leases, pieces, name, made
        self._units: Iterator[Unit] = iter(units)
        self._theirs: list[tuple[Unit, list[Piece]]] = []
        self._come: list[tuple[Unit, Piece]] = []
        self._looked = time.monotonic()

    def next(self) -> tuple[Unit, list[Piece]] | None:
        """Return a unit and what of it is ours to do, until that is given to `release`; None if there is none now."""
        while len(self._theirs) < AHEAD:
            try:
                unit = next(self._units)
            except StopIteration:
                break
            if ours := self._ours(unit, self.pieces(unit)):
                return unit, ours
        if self._theirs and time.monotonic() - self._looked >= POLL:
            self._looked = time.monotonic()
            for unit, theirs in self._theirs.copy():
                self._theirs.remove((unit, theirs))
                if ours := self._ours(unit, theirs):
                    return unit, ours
        return None

    def release(self, pieces: Iterable[Piece]) -> None:
        """Give pieces back, done or not."""
        for piece in pieces:
            self.leases.release(self.name(piece))

    def come(self) -> list[tuple[Unit, Piece]]:
        """Return what other runs have done since this was last asked."""
        come, self._come = self._come, []
        return come

    @property
    def waiting(self) -> bool:
        """Whether anything is with other runs."""
        return bool(self._theirs)

    def holders(self) -> list[str]:
        """Return the runs that have what this one waits for, each once."""
        wanted = (piece for _, pieces in self._theirs for piece in pieces)
        found = (self.leases.holder(self.name(piece)) for piece in wanted)
        return list(dict.fromkeys(str(holder) for holder in found if holder is not None))

    def _ours(self, unit: Unit, pieces: Sequence[Piece]) -> list[Piece]:
        ours, theirs = [], []
        for piece in pieces:
            if self.made(piece):
                self._come.append((unit, piece))
            elif not self.leases.attempt(self.name(piece)):
                theirs.append(piece)
            elif self.made(piece):  # between the two looks
                self.release([piece])
                self._come.append((unit, piece))
            else:
                ours.append(piece)
        if theirs:
            self._theirs.append((unit, theirs))
        return ours


class Others:
    """Waits for other runs, and says which they are whenever that changes.

    Args:
        say: takes a line.
    """

    def __init__(self, say: Callable[[str], None]) -> None:
        self.say, self._said = say, ""

    def wait(self, queue: Queue[Unit, Piece]) -> None:
        """Wait until it is worth another look at what they hold."""
        if (names := ", ".join(queue.holders())) and names != self._said:
            self._said = names
            self.say(f"waiting for what another run has under way: {names}")
        time.sleep(POLL)


@dataclass(frozen=True)
class Run:
    """A run that has or had leases.

    Args:
        units: what it holds.
        state: "working", "dead", or "silent", which may be either: no heartbeat came while this was looked at.
    """

    holder: Holder
    units: list[str]
    state: str


def runs(root: Path, look: float = 0.0) -> list[Run]:
    """Return the runs that say they work in the store at `root`, or that left leases.

    Args:
        look: seconds to wait for heartbeats of runs on other machines; 2.5 of them tell the living from the dead.
    """
    folder = root / "leases"
    names = {path.name for path in files.listed(folder / "runs")}
    held: dict[str, list[str]] = {name: [] for name in sorted(names)}
    for unit in files.listed(folder):
        if unit.name != "runs" and not unit.name.startswith("."):
            for path in files.listed(unit):
                held.setdefault(path.name, []).append(unit.name)

    def said(token: str) -> bytes:
        try:
            return (folder / "runs" / token).read_bytes()
        except OSError:
            return b""

    before = {token: said(token) for token in held}
    holders = {token: Holder.parse(token, content) for token, content in before.items()}
    here = {token for token, each in holders.items() if each.machine and each.machine == _machine()}
    if look and held.keys() - here:
        time.sleep(look)

    def state(token: str) -> str:
        if token in here:
            return "dead" if holders[token].dead else "working"
        if not before[token] or (look and said(token) == before[token]):
            return "dead" if look else "silent"
        return "working" if look else "silent"

    return [Run(holders[token], units, state(token)) for token, units in held.items()]


def forget(root: Path, run: Run) -> None:
    """Remove what a dead run left in the leases folder."""
    for unit in run.units:
        with suppress(OSError):
            (root / "leases" / unit / run.holder.token).unlink()
            (root / "leases" / unit).rmdir()
    for path in (root / "leases").glob(f".*.{run.holder.token}"):
        shutil.rmtree(path, ignore_errors=True)
    with suppress(OSError):
        (root / "leases" / "runs" / run.holder.token).unlink()


def _put(made: Path, place: Path) -> bool:
    """Rename a folder to `place`; False if there is one that isn't empty, or an answer got lost on the network."""
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
                place.rmdir()  # for systems that don't rename onto an empty folder
            except OSError:
                return False
    return False


def _self() -> dict[str, str | int]:
    now = datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    pid = os.getpid()
    return {"host": socket.gethostname(), "pid": pid, "since": now, "machine": _machine(), "born": _born(pid)}


@cache
def _machine() -> str:
    """What process numbers belong to; empty where the system doesn't say."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return ""


def _alive(pid: int, born: str) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    now = _born(pid)
    return not now or not born or now == born


def _born(pid: int) -> str:
    """When a process began, in ticks since boot; "ended" of one that nobody has waited for; empty if it isn't told."""
    try:
        told = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    return "ended" if told[0] in "ZX" else told[19]
