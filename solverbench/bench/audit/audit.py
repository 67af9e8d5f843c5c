"""The check of a store's numbers: each cell's metrics from its blocks, and some blocks from their seeds."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from solverbench import files, seeds
from solverbench.bench.audit import recomputed, resampled
from solverbench.bench.audit.resampled import Drawn, Share
from solverbench.bench.audit.restored import Contradiction, Restorer, Unknown
from solverbench.bench.cells import Cell
from solverbench.errors import RecordError, StoreError
from solverbench.store import agreement, layout, schema
from solverbench.store.folder import CellFolder
from solverbench.store.layout import Damage
from solverbench.store.verdict import Verdict
from solverbench.teachers.teacher import Teacher


@dataclass
class Checked:
    """A cell that is being checked."""

    folder: CellFolder
    name: str = ""
    blocks: int = 0
    cell: Cell | None = None
    wrong: list[Damage] = field(default_factory=list)
    recomputed: bool = False
    given: str = ""
    sampled: int = 0

    @property
    def verdict(self) -> Verdict:
        """The result."""
        return Verdict(tuple(self.wrong), self.recomputed, self.given, self.sampled, self.blocks)


@dataclass(frozen=True)
class Audit:
    """The result of a check.

    Args:
        verdicts: address to verdict, of each cell whose cell.json can be read.
        drawn: number of blocks that were drawn to be sampled again.
        total: number of stored blocks that could have been drawn.
        notes: blocks that were drawn and couldn't be sampled, one line each.
    """

    verdicts: dict[str, Verdict]
    drawn: int = 0
    total: int = 0
    notes: tuple[str, ...] = ()

    @property
    def wrong(self) -> list[Damage]:
        """The files whose content contradicts the keys of their cells."""
        return [damage for verdict in self.verdicts.values() for damage in verdict.wrong]

    def lines(self) -> list[str]:
        """Return human-readable lines: reasons why metrics are taken as given, then the counts."""
        reasons = Counter(each.given for each in self.verdicts.values() if each.given)
        lines = [f"taken as given in {count} cell{'s' * (count != 1)}: {why}" for why, count in reasons.items()]
        lines += self.notes
        whole = sum(each.recomputed and not each.given for each in self.verdicts.values())
        lines.append(f"{whole} of {len(self.verdicts)} cells: metrics recomputed from their blocks")
        if self.drawn:
            agree = sum(each.sampled for each in self.verdicts.values())
            one, ten = (resampled.chance(self.total, self.drawn, count) for count in (1, 10))
            lines.append(
                f"{agree} of {self.drawn} drawn blocks agree with the sampler; such a draw finds one false block among "
                f"the {self.total} with a probability of {one:.0%}, one or more of ten false blocks with {ten:.0%}"
            )
        return lines

    def as_dict(self) -> dict[str, Any]:
        """Return it as plain JSON values."""
        told = ("recomputed", "given", "sampled", "blocks")
        cells = {address: {name: getattr(each, name) for name in told} for address, each in self.verdicts.items()}
        return {"cells": cells, "drawn": self.drawn, "blocks": self.total}


def audit(
    root: Path,
    *,
    resample: Share | None = None,
    seed: int = 0,
    teachers: Sequence[Teacher] = (),
    say: Callable[[str], None] = lambda line: None,
) -> Audit:
    """Check the numbers of all cells of a store; nothing is written into it.

    A cell's metrics are computed again from its blocks. That needs its teacher's references, so the teacher must be
    registered here, or given; without it only metrics of paired images are computed again. With `resample`, blocks are
    drawn at random and sampled again.

    Args:
        root: folder of the store. Damaged files are left out, as `layout.check` names them.
        resample: how many blocks to sample again.
        seed: of the draw. Someone who forges a store must not know it before.
        teachers: teachers of its cells that aren't registered.
        say: callback for progress, one line each.
    """
    restore, checked = Restorer(root, teachers), dict[str, Checked]()
    folders = list(layout.cells(root))
    for count, path in enumerate(folders, 1):
        if count % 100 == 0:
            say(f"metrics of {count} of {len(folders)} cells recomputed")
        each = Checked(CellFolder(path, path.name), path.relative_to(root).as_posix())
        try:
            told = files.read_json(path / "cell.json")
            schema.checked(path / "cell.json", schema.cell, told)
            if files.digest(told["key"]) != path.name:
                continue
            _check(each, told, restore)
        except (RecordError, StoreError, KeyError, TypeError, ValueError):
            continue  # a damaged file; `layout.check` names it
        checked[path.name] = each
    if resample is None:
        return Audit({address: each.verdict for address, each in checked.items()})
    found = [
        Drawn(each.cell, each.folder, block)
        for each in checked.values()
        if each.cell is not None
        for block in each.cell.protocol.blocks
        if each.folder.sound_block(block)
    ]
    drawn = resampled.draw(found, resample, seed)
    notes: list[str] = []
    done = 0

    def told_of(each: Drawn, result: float | str) -> None:
        nonlocal done
        done += 1
        say(f"{done} of {len(drawn)} blocks: {each}: {_verdict(result)}")

    for block, result in zip(drawn, resampled.sample_again(drawn, told_of), strict=True):
        place = checked[block.folder.address]
        if isinstance(result, str):
            notes.append(f"can't be sampled again: {block}: {result}")
        elif result <= agreement.CLOSE:
            place.sampled += 1
        else:
            name = f"{place.name}/blocks/{seeds.label(block.block)}.npz"
            place.wrong.append(Damage(name, f"isn't what the sampler gives, {_verdict(result)}", differs=True))
    return Audit({address: each.verdict for address, each in checked.items()}, len(drawn), len(found), tuple(notes))


def _verdict(result: float | str) -> str:
    if isinstance(result, str):
        return "can't be sampled again"
    if result <= agreement.CLOSE:
        return f"agrees (largest difference {result:.1g} of the largest value)"
    return "other arrays or whole numbers" if math.isinf(result) else f"off by {result:.2g} of the largest value"


def _check(each: Checked, told: dict[str, Any], restore: Restorer) -> None:
    """Compute the metrics of a cell again.

    Raises:
        RecordError: a file is damaged.
    """
    key, folder = told["key"], each.folder
    try:
        each.cell = restore(folder.address, told)
        why = ""
    except Contradiction as error:
        each.wrong.append(Damage(f"{each.name}/cell.json", str(error), differs=True))
        return
    except Unknown as error:
        why = str(error)
    if "block" not in key or "seeds" not in key:
        each.given = why
        return
    each.blocks = len(recomputed.blocks(key))
    stored = folder.metrics()
    if stored is None:
        return
    found = recomputed.whole(folder, key)
    if found is None:
        each.given = "some of its blocks are missing"
        return
    if each.cell is not None:
        lines, others = recomputed.differences(each.cell, stored, found), list[str]()
    else:
        lines, others = recomputed.parts(stored, found)
    each.recomputed = True
    each.given = f"{', '.join(others)}, as {why}" if others else ""
    if lines:
        more = f", and {len(lines) - 1} more" if len(lines) > 1 else ""
        each.wrong.append(Damage(f"{each.name}/metrics.json", lines[0] + more, differs=True))
