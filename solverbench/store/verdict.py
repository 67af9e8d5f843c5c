"""The result of a check of stored cells: do their numbers follow from their blocks, and from sampling again?"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from solverbench.store.layout import Damage


@dataclass(frozen=True)
class Verdict:
    """The result of a check of one stored cell's numbers.

    Args:
        wrong: files whose content isn't what the cell's key asks for.
        recomputed: whether the metrics were computed again from the blocks; False also for a cell without metrics.
        given: why some or all of the metrics are taken as given; empty if none are.
        sampled: number of blocks that were sampled again and agree.
        blocks: number of blocks of the cell.
    """

    wrong: tuple[Damage, ...] = ()
    recomputed: bool = False
    given: str = ""
    sampled: int = 0
    blocks: int = 0

    def origin(self, name: str) -> dict[str, Any]:
        """Return the entry of origin.json for a cell that is merged from the store or export of this name."""
        metrics = f"taken as given: {self.given}" if self.given else "recomputed" if self.recomputed else "none"
        sampled = f"{self.sampled} of {self.blocks} blocks"
        date = datetime.now(UTC).date().isoformat()
        return {"from": name, "date": date, "metrics": metrics, "sampled_again": sampled if self.sampled else "no"}


def describe(origin: dict[str, Any]) -> str:
    """Return an entry of origin.json as text for a table."""
    sampled = "" if origin["sampled_again"] == "no" else f", {origin['sampled_again']} sampled again"
    return f"{origin['from']} on {origin['date']}, metrics {origin['metrics']}{sampled}"


def roughly(text: str) -> str:
    """Return the text of `describe` without numbers of blocks, so that cells that were checked alike have one."""
    return re.sub(r"\d+ of \d+ blocks sampled again", "some blocks sampled again", text)
