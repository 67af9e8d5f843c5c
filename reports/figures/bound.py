"""The share of the way from the best classical solver to `free`, in which every number is trained.

`free` estimates what any linear solver could reach with the same number of calls. It is only an estimate of that bound,
because it is trained itself, and for its training distance: a solver may be better than it in another metric.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from solverbench.reports.drawing.palette import bounds
from solverbench.reports.paired import Cells, Row, combined, difference
from solverbench.reports.parts import Part


@dataclass(frozen=True)
class Share:
    """The fraction of the distance from the best classical solver to the bound that a learned one covers at one budget.

    `value` is 1 at the bound and 0 at the classical solver. Its 95 % interval is NaN where it is not known.
    `reason` says why there is no number.
    """

    solver: str
    nfe: int
    classical: str
    bound: str
    value: float = math.nan
    low: float = math.nan
    high: float = math.nan
    reason: str = ""


def shares(part: Part, cells: Cells) -> list[Share]:
    """Return a share per learned solver and budget at which a classical solver and the bound have values."""
    found = []
    named = bounds(part.specs)
    frame = part.frame[part.frame["value"].notna() & ~part.frame["metric_loss"]]
    for nfe in part.nfe if named and part.ranked else []:
        rows = sorted(frame[frame["nfe"] == nfe].to_dict("records"), key=lambda row: _badness(row, part))
        bound = next((row for row in rows if row["label"] in named), None)
        classical = next((row for row in rows if not row["learned"]), None)
        if bound is not None and classical is not None:
            learned = [row for row in rows if row["learned"] and row["label"] not in named]
            found += [_share(row, classical, bound, part, cells) for row in learned]
    return sorted(found, key=lambda each: part.solvers.index(each.solver))


def sentences(found: Sequence[Part], cells: Cells) -> Iterator[str]:
    """Yield a line per part and learned solver that has shares: "gas gets 97 % [96, 98] at NFE 4 (from deis); ..."."""
    several = len({part.teacher for part in found}) > 1
    for part in found:
        known = shares(part, cells)
        for solver in dict.fromkeys(share.solver for share in known):
            own = [share for share in known if share.solver == solver]
            where = f"{part.title}, " if several else ""
            where += part.label + (f", part {part.number}" if part.number > 1 else "")
            yield f"{where}: {solver} gets {'; '.join(map(_told, own))}"


def explained(found: Sequence[Part]) -> str:
    """Return the explanation of these lines."""
    named = ", ".join(dict.fromkeys(label for part in found for label in bounds(part.specs)))
    return (
        f"How much of the way from the best classical solver of this run at the same NFE to {named} a learned one "
        f"gets: 0 % is that classical solver, 100 % is {named}, all of whose weights and levels are trained. "
        f"Intervals are those of sampling, paired by seed. {named} is trained too, so that it only estimates the "
        "bound (trained longer it may be lower, and the shares with it), and it was trained by one distance: by "
        "another one more than 100 % is possible."
    )


def _share(row: Row, classical: Row, bound: Row, part: Part, cells: Cells) -> Share:
    names = str(row["label"]), int(row["nfe"]), str(classical["label"]), str(bound["label"])
    way = classical["value"] - bound["value"]
    if way * (-1 if part.higher else 1) <= 0:
        return Share(*names, reason=f"{names[3]} isn't ahead of {names[2]}")
    apart = difference(classical, bound, part, cells)
    if not apart.reason and apart.sign == 0:
        return Share(*names, reason=f"{names[3]} and {names[2]} can't be told apart")
    value = (classical["value"] - row["value"]) / way
    if apart.reason:
        return Share(*names, value)
    measures = [cells.get(str(each["cell"]), {}).get("measures", {}).get(part.metric, {})
                for each in (classical, row, bound)]  # fmt: skip
    spread = combined(measures, (1 - value, -1.0, value))  # its value is 0, its spread is the share's times |way|
    half = (spread.high - spread.low) / 2 / abs(way)
    return Share(*names, value, value - half, value + half)


def _told(share: Share) -> str:
    at = f"at NFE {share.nfe}"
    if share.reason:
        return f"no share {at}: {share.reason}"
    known = math.isfinite(share.low)
    places = 1 if known and share.high - share.low < 0.02 else 0
    interval = f" [{100 * share.low:.{places}f}, {100 * share.high:.{places}f}]" if known else ""
    return f"{100 * share.value:.{places}f} %{interval} {at} (from {share.classical})"


def _badness(row: Row, part: Part) -> float:
    return float(row["value"]) * (-1 if part.higher else 1)
