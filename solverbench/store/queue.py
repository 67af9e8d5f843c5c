"""TODO."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Generic, TypeVar

from solverbench.store.leases import Leases

POLL = 1.0
"""Seconds between two looks at what another run holds."""


AHEAD = 256
"""Units that a queue finds taken before it stops to look further: more than other runs have under way."""


Unit = TypeVar("Unit")


Piece = TypeVar("Piece")


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
