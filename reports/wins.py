"""Win rates that a run recorded: how often a solver's image beats the baseline's from the same seed and prompt."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from solverbench.reports.bundle import Bundle
from solverbench.reports.paired import LEVEL, holm
from solverbench.wording import interval_texts

_NUMBERS = ("wins", "ties", "losses", "rate", "low", "high", "p", "difference", "difference_low", "difference_high")
_COUNTS = ("prompts", "images")


@dataclass(frozen=True)
class Win:
    """The comparison of `label` with `baseline` at one budget.

    `rate` is the share of images at which the former has the better score, ties counted half. The intervals are of
    95 %, with the images of a prompt as one cluster. `up` and `down` are the prompts at which the mean score exceeds
    the baseline's by most, and falls short of it by most, each with the difference. `p` is that of the two-sided test
    that the rate is one half, and `p_holm` the one adjusted for all comparisons of its metric and teacher.
    """

    teacher: str
    metric: str
    nfe: int
    label: str
    baseline: str
    wins: float
    ties: float
    losses: float
    rate: float
    low: float
    high: float
    p: float
    difference: float
    difference_low: float
    difference_high: float
    prompts: int
    images: int
    up: tuple[tuple[str, float], ...]
    down: tuple[tuple[str, float], ...]
    p_holm: float = math.nan

    @property
    def sign(self) -> int:
        """1 if the solver is told apart from the baseline and ahead of it, -1 if it is behind, else 0."""
        return 0 if not self.p_holm <= LEVEL else 1 if self.rate > 0.5 else -1

    @property
    def text(self) -> str:
        """The rate with its interval, in percent."""
        return rate_text(self.rate, self.low, self.high)


def rate_text(rate: float, low: float, high: float) -> str:
    """Return a win rate with its interval, in percent, such as "62 % (55 to 69)"."""
    shown, *ends = interval_texts(100 * rate, 100 * low, 100 * high)
    return f"{shown} % ({' to '.join(ends)})" if ends[0] else f"{shown} %"


def against(bundle: Bundle, baseline: str) -> list[Win]:
    """Return the win rates of each solver against the baseline, in the order of the results, then by budget."""
    columns = (bundle.frame[name].to_list() for name in ("teacher", "solver", "nfe", "label"))
    labels = {
        (str(teacher), str(solver), int(nfe)): str(label) for teacher, solver, nfe, label in zip(*columns, strict=True)
    }
    places = {label: place for place, label in enumerate(dict.fromkeys(bundle.frame["label"]))}
    found = [win for entry in bundle.record.get("wins", []) for win in _read(entry, labels, baseline)]
    families: dict[tuple[str, str], list[Win]] = {}
    for win in sorted(found, key=lambda win: (win.teacher, win.metric, places[win.label], win.nfe)):
        families.setdefault((win.teacher, win.metric), []).append(win)
    return [
        replace(win, p_holm=p)
        for family in families.values()
        for win, p in zip(family, holm([win.p for win in family]), strict=True)
    ]


def _read(entry: Any, labels: Mapping[tuple[str, str, int], str], baseline: str) -> Iterator[Win]:
    """Yield an entry as the comparison of its other solver with the baseline; nothing if it is another pair's."""
    try:
        teacher, metric, nfe = str(entry["teacher"]), str(entry["metric"]), int(entry["nfe"])
        pair = [labels.get((teacher, str(entry[side]), nfe), "") for side in ("a", "b")]
        numbers = {name: float(entry[name]) for name in _NUMBERS} | {name: int(entry[name]) for name in _COUNTS}
        up, down = (tuple((str(line), float(gap)) for line, gap in entry[name]) for name in ("up", "down"))
    except (KeyError, TypeError, ValueError, OverflowError):
        return
    gaps = [gap for _, gap in (*up, *down)]
    if "" in pair or baseline not in pair or pair[0] == pair[1]:
        return
    if not all(math.isfinite(number) for number in (*numbers.values(), *gaps)):
        return
    if baseline == pair[0]:
        pair, numbers = pair[::-1], _turned(numbers)
        up, down = (tuple((line, -gap) for line, gap in each) for each in (down, up))
    told: dict[str, Any] = {**numbers, "up": up, "down": down}
    yield Win(teacher, metric, nfe, pair[0], pair[1], **told)


def _turned(numbers: Mapping[str, float]) -> dict[str, float]:
    """Return the numbers of b compared with a from those of a compared with b."""
    return {
        **numbers, "wins": numbers["losses"], "losses": numbers["wins"], "rate": 1 - numbers["rate"],
        "low": 1 - numbers["high"], "high": 1 - numbers["low"], "difference": -numbers["difference"],
        "difference_low": -numbers["difference_high"], "difference_high": -numbers["difference_low"],
    }  # fmt: skip
