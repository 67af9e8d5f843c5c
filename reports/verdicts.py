"""The verdicts that a run recorded, as rows for a table: claims that were not held come first."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from solverbench.reports import paired
from solverbench.reports.wins import rate_text
from solverbench.wording import BELOW_ERROR, interval_texts

_RANKS = {"not held": 0, "unresolved": 1, BELOW_ERROR: 1, "held": 3}
"""Sort order of verdicts; comparisons without a claim (rank 2) come before claims that were held."""


@dataclass(frozen=True)
class Verdict:
    """One claim and its outcome; `shown` and `interval` are texts, or the reason why there is no number.

    `wins` is the win rate that decided it, as text; empty if a difference did.
    `p` and `p_holm` are those of its test alone and corrected for the verdicts of the run; NaN in a bundle of an
    earlier version, whose verdicts aren't corrected.
    """

    verdict: str
    claim: str
    metric: str
    difference: float
    shown: str
    interval: str
    caution: str
    wins: str = ""
    p: float = math.nan
    p_holm: float = math.nan


def rows(record: Mapping[str, Any]) -> list[Verdict]:
    """Return the verdicts of bundle.json, ranked."""
    found = []
    for entry in sorted(record["verdicts"], key=lambda entry: _RANKS.get(str(entry.get("verdict")), 2)):
        numbers = [entry.get(key) for key in ("difference", "low", "high")]
        known = all(isinstance(number, int | float) for number in numbers)
        shown = interval_texts(*numbers) if known else (str(entry.get("reason", "")), "", "")
        metric = record["metrics"].get(entry.get("metric"), {}).get("short", entry.get("metric", ""))
        found.append(
            Verdict(
                verdict=str(entry.get("verdict", "")), claim=str(entry.get("claim", "")), metric=str(metric),
                difference=float(entry["difference"]) if known else math.nan, shown=shown[0],
                interval=f"{shown[1]} to {shown[2]}" if known else "", caution=str(entry.get("caution", "")),
                wins=_wins(entry.get("wins")),
                p=_number(entry.get("p")), p_holm=_number(entry.get("p_holm")),
            )
        )  # fmt: skip
    return found


def _wins(told: Any) -> str:
    """Return a verdict's win rate as text; empty if it has none."""
    found = [told.get(key) for key in ("rate", "low", "high")] if isinstance(told, dict) else []
    numbers = [float(number) for number in found if isinstance(number, int | float) and math.isfinite(number)]
    return rate_text(*numbers) if len(numbers) == 3 else ""


def family(record: Mapping[str, Any]) -> int:
    """Return the number of comparisons that the verdicts were corrected for; 0 if they weren't."""
    known = [entry.get("comparisons") for entry in record["verdicts"]]
    return max((each for each in known if isinstance(each, int)), default=0)


def _number(value: Any) -> float:
    return float(value) if isinstance(value, int | float) else math.nan


def below_error(record: Mapping[str, Any]) -> str:
    """Return what the verdict `BELOW_ERROR` means, as a sentence; empty if no verdict is it."""
    below = [entry for entry in record["verdicts"] if entry.get("verdict") == BELOW_ERROR]
    return paired.below_error(_number(entry.get("reference_error")) for entry in below)


def counted(found: Sequence[Verdict]) -> str:
    """Return a count such as "3 claims: 1 unresolved, 2 held"."""
    counts = Counter(row.verdict for row in found)
    return f"{len(found)} claims: {', '.join(f'{count} {name}' for name, count in counts.items())}"
