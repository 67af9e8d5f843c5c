"""The prefix tree of plans: plans that begin with the same calls share them, and each call appears once."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from solverbench.method.tableau import Plan

UNIT = 500_000
"""Calls x images per unit of work, which bounds the loss when a run is killed; a single plan may exceed it."""


@dataclass(eq=False)
class End:
    """A sample, the last row of a plan.

    Args:
        row: weights of x and of the outputs of the calls in `path`.
        path: the calls before it, in order.
        plans: indices of the plans with this sample; their numbers are identical.
    """

    row: tuple[float, ...]
    path: tuple[Call, ...]
    plans: list[int] = field(default_factory=list)


@dataclass(eq=False)
class Call:
    """A call of the denoiser, made once for all plans that make it after the same calls.

    Args:
        row, sigma: the weights of the state and the level passed to the network; exactly equal for all these plans.
        calls: the calls that follow it.
        ends: the samples that need no further call.
    """

    row: tuple[float, ...]
    sigma: float
    calls: list[Call] = field(default_factory=list)
    ends: list[End] = field(default_factory=list)

    @property
    def below(self) -> Iterator[End]:
        """Every sample that needs this call."""
        pending = [self]  # no recursion: a plan may have a thousand calls
        while pending:
            call = pending.pop()
            yield from call.ends
            pending += reversed(call.calls)


@dataclass(eq=False)
class Tree:
    """Plans that start from the same unit noise and call the same network.

    Args:
        calls: the first calls.
        asked: number of calls if each plan runs alone.
    """

    calls: list[Call]
    asked: int

    @property
    def ends(self) -> list[End]:
        """Every sample, in depth-first order."""
        return [end for call in self.calls for end in call.below]

    @property
    def needed(self) -> int:
        """Number of calls if the plans share their common calls."""
        return len({call for end in self.ends for call in end.path})


def grow(plans: Sequence[Plan]) -> Tree:
    """Return the prefix tree of plans that start from the same noise.

    Two plans share a call if and only if their rounded rows and levels are equal up to and including it.
    """
    tree = Tree([], sum(plan.nfe for plan in plans))
    known: dict[bytes, Call] = {}
    ends: dict[bytes, End] = {}
    for place, plan in enumerate(plans):
        begin, path = b"", []
        siblings = tree.calls
        for row, sigma in zip(plan.rows[:-1], plan.sigmas, strict=True):
            begin = _after(begin, (row, sigma))
            if begin not in known:
                known[begin] = Call(row, sigma)
                siblings.append(known[begin])
            path.append(known[begin])
            siblings = path[-1].calls
        last = _after(begin, plan.rows[-1])
        if last not in ends:
            ends[last] = End(plan.rows[-1], tuple(path))
            path[-1].ends.append(ends[last])
        ends[last].plans.append(place)
    return tree


def _after(begin: bytes, numbers: object) -> bytes:
    """Return a hash that identifies the calls up to this one; written out, they would grow with the cube of calls."""
    return hashlib.sha256(begin + repr(numbers).encode()).digest()


def bunches(plans: Sequence[Plan], images: int, most: int = UNIT, samples: int | None = None) -> list[list[int]]:
    """Return the indices of `plans` in units of work; plans that share calls are grouped as far as they fit.

    Args:
        images: number of images per call.
        most: largest calls x images per unit; a single plan may exceed it.
        samples: largest number of ends per unit; None for no limit.
    """
    found: list[list[int]] = []
    spent = ends = 0
    there: set[Call] = set()
    for end in grow(plans).ends:
        new = images * sum(call not in there for call in end.path)
        if not found or spent + new > most or ends == samples:
            found.append([])
            there, spent, ends = set(), 0, 0
            new = images * len(end.path)
        found[-1] += end.plans
        there |= set(end.path)
        spent += new
        ends += 1
    return [sorted(bunch) for bunch in found]
