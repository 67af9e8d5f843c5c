"""Plans that begin alike share calls: their prefix tree, in which each call stands once."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from solverbench.method.tableau import Plan

UNIT = 500_000
"""Calls times images that are planned as one piece of work: what a kill can cost, and one plan may take more."""


@dataclass(eq=False)
class End:
    """A sample, the last row of a plan.

    Args:
        row: its weights of x and of the outputs before it.
        plans: places of the plans that it is the sample of, all of them the same numbers.
        path: the calls before it, in order.
    """

    row: tuple[float, ...]
    path: tuple[Call, ...]
    plans: list[int] = field(default_factory=list)


@dataclass(eq=False)
class Call:
    """A call of the denoiser, made once for all plans that make it after the same calls.

    Args:
        row, sigma: the state's weights and the level told; exactly equal for all these plans.
        calls: what may follow.
        ends: the samples that need no more calls.
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
    """Plans from the same unit noise by the same network.

    Args:
        calls: the first ones.
        asked: calls that the plans make one by one.
    """

    calls: list[Call]
    asked: int

    @property
    def ends(self) -> list[End]:
        """Every sample, as a depth-first walk meets them."""
        return [end for call in self.calls for end in call.below]

    @property
    def needed(self) -> int:
        """Calls that the plans make together."""
        return len({call for end in self.ends for call in end.path})


def grow(plans: Sequence[Plan]) -> Tree:
    """Return the prefix tree of plans that start from the same noise.

    Two plans share a call exactly if their rounded rows and levels are the same numbers up to it.
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
    """What tells the calls up to here from all others: a hash, as written out they'd grow with the cube of calls."""
    return hashlib.sha256(begin + repr(numbers).encode()).digest()


def bunches(plans: Sequence[Plan], images: int, most: int = UNIT, samples: int | None = None) -> list[list[int]]:
    """Return the places of `plans` cut into pieces of work: plans that share stand together as far as they fit.

    Args:
        images: that each call is made for.
        most: calls times images of a piece; a single plan may need more.
        samples: ends of a piece at most; None for as many as there are.
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
