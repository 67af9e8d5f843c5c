"""A queue of units of work that several runs share through leases."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Generic, TypeVar

from solverbench.store.leases import Leases

POLL = 1.0
"""Seconds between two checks of units that other runs hold."""


AHEAD = 256
"""Number of units held by other runs after which a queue looks no further; larger than what runs hold at a time."""


Unit = TypeVar("Unit")


Piece = TypeVar("Piece")


class Queue(Generic[Unit, Piece]):
    """A work queue shared by several runs: yields units that no other run holds, and tracks results of other runs.

    Args:
        leases: the leases of the store.
        units: all units of work, in order; consumed lazily.
        pieces: function from a unit to its pieces; each piece is leased separately.
        name: function from a piece to its name, the same in every run.
        made: function that says whether a piece's result is stored.
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
        """Return a unit and its pieces that are leased to us until `release`; None if there is none at the moment."""
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
        """Release the leases of pieces, done or not."""
        for piece in pieces:
            self.leases.release(self.name(piece))

    def come(self) -> list[tuple[Unit, Piece]]:
        """Return the pieces that other runs have finished since the last call."""
        come, self._come = self._come, []
        return come

    @property
    def waiting(self) -> bool:
        """Whether other runs hold any pieces."""
        return bool(self._theirs)

    def holders(self) -> list[str]:
        """Return the runs that hold the pieces this run waits for, each once."""
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
            elif self.made(piece):  # finished between the two checks
                self.release([piece])
                self._come.append((unit, piece))
            else:
                ours.append(piece)
        if theirs:
            self._theirs.append((unit, theirs))
        return ours


class Others:
    """A wait for other runs, which reports their names when they change.

    Args:
        say: callback for a line.
    """

    def __init__(self, say: Callable[[str], None]) -> None:
        self.say, self._said = say, ""

    def wait(self, queue: Queue[Unit, Piece]) -> None:
        """Wait until it is time to check again which units other runs hold."""
        if (names := ", ".join(queue.holders())) and names != self._said:
            self._said = names
            self.say(f"waiting for results that another run is computing: {names}")
        time.sleep(POLL)
