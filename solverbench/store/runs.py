"""The runs that work in a store: who they are, and whether they are alive."""

from __future__ import annotations

import json
import os
import shutil
import time
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from solverbench import files
from solverbench.wording import printable


@dataclass(frozen=True)
class Holder:
    """A run that holds a lease, as described by its own file.

    Args:
        token: the run's name in the leases folder.
        host: host name.
        pid: process id; 0 if unknown.
        since: start time by the run's own clock, for display only.
        machine: scope of process ids: the boot id and the pid namespace; empty where unknown.
        born: start time of the process, which distinguishes it from a later process with the same id.
    """

    token: str
    host: str = "another host"
    pid: int = 0
    since: str = "an unknown time"
    machine: str = ""
    born: str = ""

    @classmethod
    def parse(cls, token: str, content: bytes) -> Holder:
        """Return the holder described by a run's file; only the token is set if the file cannot be parsed."""
        try:
            told = json.loads(content.partition(b"\n")[2])
            return cls(token, *(str(told["host"]), int(told["pid"]), str(told["since"])), told["machine"], told["born"])
        except (ValueError, KeyError, TypeError):
            return cls(token)

    @property
    def dead(self) -> bool:
        """Whether it is a process of this machine that has ended; False where that cannot be determined."""
        return bool(self.machine) and self.machine == _machine() and not _alive(self.pid, self.born)

    def __str__(self) -> str:
        return printable(f"{self.host} (process {self.pid}, since {self.since})")


@dataclass(frozen=True)
class Run:
    """A run that holds or held leases.

    Args:
        holder: the run's own description.
        units: units that it holds.
        state: "working", "dead", or "silent" if it could be either because its heartbeat was not observed.
    """

    holder: Holder
    units: list[str]
    state: str


def runs(root: Path, look: float = 0.0) -> list[Run]:
    """Return the runs that have a file or leases in the store at `root`.

    Args:
        look: seconds to wait for heartbeats of runs on other machines; 2.5 heartbeat intervals tell living from dead.
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
    """Remove a dead run's leases and files from the leases folder."""
    for unit in run.units:
        with suppress(OSError):
            (root / "leases" / unit / run.holder.token).unlink()
            (root / "leases" / unit).rmdir()
    for path in files.folders(root / "leases"):
        if path.name.startswith(".") and path.name.endswith(f".{run.holder.token}"):
            shutil.rmtree(path, ignore_errors=True)
    with suppress(OSError):
        (root / "leases" / "runs" / run.holder.token).unlink()


@cache
def _machine() -> str:
    """Return the scope of process ids: boot id and pid namespace; empty where unknown."""
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
    """Return a process's start time in ticks since boot; "ended" for a zombie or dead process; empty if unknown."""
    try:
        told = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    return "ended" if told[0] in "ZX" else told[19]
