"""Stored blocks, drawn at random, sampled again from their seeds and compared with what is stored."""

from __future__ import annotations

import math
import random
import re
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from solverbench import files, seeds
from solverbench.bench.block import BlockDone, UnitTask
from solverbench.bench.cells import Cell, reason
from solverbench.errors import UserError
from solverbench.sampling.devices import pool, worker_count
from solverbench.sampling.sample import Cancel
from solverbench.store import agreement
from solverbench.store.folder import CellFolder, Store


@dataclass(frozen=True)
class Drawn:
    """A stored block to sample again."""

    cell: Cell
    folder: CellFolder
    block: range

    def __str__(self) -> str:
        return f"{self.cell}, block {seeds.label(self.block)}"


@dataclass(frozen=True)
class Share:
    """The number of blocks to draw, given as a count or as a fraction of all blocks.

    Args:
        number: number of blocks; 0 if a part is asked for.
        part: fraction of all blocks, from 0 to 1.
    """

    number: int = 0
    part: float = 0.0

    @classmethod
    def of(cls, text: str) -> Share:
        """Return the share written as a number of blocks, `40`, or a part, `10%`.

        Raises:
            UserError: another form, or nothing.
        """
        match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*(%?)\s*", text)
        value = float(match[1]) if match else 0.0
        if match and match[2] and 0 < value <= 100:
            return cls(part=value / 100)
        if match and not match[2] and value >= 1 and value.is_integer():
            return cls(number=int(value))
        raise UserError(
            asked=f"--resample {text}", wrong="not a number of blocks or a part of them", remedy="write 40 or 10%"
        )

    def count(self, total: int) -> int:
        """Return how many of `total` blocks to draw: a part is rounded up."""
        return min(total, self.number or math.ceil(self.part * total))


def draw(found: Sequence[Drawn], share: Share, seed: int) -> list[Drawn]:
    """Return blocks drawn without replacement, in the order of `found`; each has the same probability."""
    chosen = random.Random(seed).sample(range(len(found)), share.count(len(found)))
    return [found[place] for place in sorted(chosen)]


def chance(total: int, drawn: int, false: int) -> float:
    """Return the probability that at least one of `false` blocks among `total` is drawn."""
    if false > total - drawn:
        return 1.0
    return 1.0 - math.comb(total - drawn, false) / math.comb(total, false)


def sample_again(drawn: Sequence[Drawn], told: Callable[[Drawn, float | str], None]) -> list[float | str]:
    """Sample blocks again and return, for each, its largest relative difference, or why it can't be sampled.

    The teacher's own samples and exact solutions are computed again, too, in a temporary folder: none of the store is
    used but its trained solvers and references.

    Args:
        told: called from worker threads after each block, with that result.
    """
    stop = Cancel()
    with tempfile.TemporaryDirectory() as place:
        scratch = Store.open(place)

        def compare(each: Drawn) -> float | str:
            found = _again(each, scratch, stop)
            told(each, found)
            return found

        count = max((worker_count(each.cell.teacher.device) for each in drawn), default=1)
        with pool(count) as threads:
            try:
                return list(threads.map(compare, drawn))
            except BaseException:
                stop.set()
                raise


def _again(drawn: Drawn, scratch: Store, stop: Cancel) -> float | str:
    try:
        [done] = UnitTask([drawn.cell], drawn.block, scratch.root, stop)()
        if not isinstance(done, BlockDone):
            raise done
    except UserError as error:
        return str(error)
    except Exception as error:  # a plugin may raise anything
        return reason(error)
    again = scratch.at(drawn.folder.address)
    again.write_block(drawn.block, done.result)
    return agreement.distance_of_files(*(files.read_arrays(each.place(drawn.block)) for each in (drawn.folder, again)))
