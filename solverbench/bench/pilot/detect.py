"""How many images tell two solvers apart, from the variances of stored paired differences: `plan --detect`."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

from solverbench.bench.pilot.stored import Pilot
from solverbench.errors import UserError
from solverbench.metrics import table
from solverbench.metrics.intervals import images_needed, standard_error
from solverbench.metrics.reduction import BLOCKS
from solverbench.wording import number_text

LEVEL, POWER = 0.05, 0.8
"""Two-sided level of the test, and the probability that it finds the difference, unless another one is asked for."""

MOST = 10**9
"""Number of images beyond which no number is told."""


@dataclass(frozen=True)
class Needed:
    """The images that tell two solvers apart by one metric, at one number of calls on one teacher.

    All numbers are of images of all replicates together. They are for pairs of neighbours in rank, whose difference is
    in question. Of several trainings of one solver the first one stands for all.

    Args:
        pilot: images of each stored cell.
        pairs: number of pairs of neighbours.
        typical: images for the median pair.
        most: images for the pair that needs the most, `a` and `b`.
        corrected: images for that pair by a test corrected for all comparisons of a table, at Holm's first step.
        samples, replicates: a protocol with that many images for the metric.
        fewer: whether the metric is one of features, and the pilot has fewer images a replicate than this.
    """

    teacher: str
    nfe: int
    metric: str
    pilot: int
    pairs: int
    typical: int
    most: int
    corrected: int
    a: str
    b: str
    samples: int
    replicates: int
    fewer: bool = False


@dataclass(frozen=True)
class Detection:
    """How many images a run needs to tell two solvers apart.

    Args:
        difference: relative difference that is to be found, such as .05.
        power: probability that it is found.
        comparisons: number of comparisons of a report's table: every pair of solvers at each number of calls.
        rows: the images for each metric and number of calls with a pilot.
        lacking: (teacher, number of calls) without two stored cells.
        spread: relative standard error of these numbers, that of the pilot's variances; 0 without rows.
        command: the command of a pilot for what is lacking; empty if nothing is.
    """

    difference: float
    power: float
    comparisons: int
    rows: tuple[Needed, ...]
    lacking: tuple[tuple[str, int], ...]
    spread: float
    command: str = ""

    def as_dict(self) -> dict[str, Any]:
        """Return it as plain JSON values."""
        return {**asdict(self), "level": LEVEL}

    def lines(self) -> list[str]:
        """Return it as human-readable lines."""
        found = []
        if self.rows:
            found += [
                "images (samples x replicates) that would tell two solvers apart if they differed by "
                f"{100 * self.difference:g} % of the metric, with power {self.power:g} at a two-sided level of "
                f"{LEVEL:g}:",
                "",
                *_aligned([HEAD, *map(_shown, self.rows)]),
                "",
                "pairs are neighbours in rank; typical: the median pair; most: the pair named last; corrected: that "
                f"pair among {self.comparisons} comparisons of a table (Holm), as a report judges",
                f"from stored paired differences: good to about ± {100 * self.spread:.0f} %. The spread between "
                "training seeds is not in it: more images don't lower it",
            ]
            if any(row.metric in table.TABLE and table.TABLE[row.metric].features for row in self.rows):
                found.append(
                    "distances between features depend on the number of images of a replicate: for these, compare runs "
                    "with the same --samples, and change --replicates"
                )
            if any(row.fewer for row in self.rows):
                found.append(
                    "the pilot has fewer images a replicate than the run will have: distances between features are "
                    "larger there, and so is a difference of the same share; take a pilot with the run's --samples to "
                    "be sure"
                )
        if self.lacking:
            places: dict[str, list[int]] = {}
            for teacher, nfe in self.lacking:
                places.setdefault(teacher, []).append(nfe)
            told = "; ".join(f"NFE {', '.join(map(str, nfe))} on {teacher}" for teacher, nfe in places.items())
            found.append(f"no two stored solvers at {told}: run a pilot first, then plan again:")
            found.append(f"    {self.command}")
        return found


HEAD = ("teacher", "NFE", "metric", "pilot", "typical", "most", "corrected", "as", "pair")


def parse(text: str) -> float:
    """Return a relative difference such as "5%" or "0.05" as a fraction.

    Raises:
        UserError: it is no number above 0 and at most 1.
    """
    plain = str(text).strip()
    try:
        value = float(plain.removesuffix("%")) / (100 if plain.endswith("%") else 1)
    except ValueError:
        value = math.nan
    if not 0 < value <= 1:
        raise UserError(
            asked=f"detect {text}", wrong="no relative difference above 0 and up to 100 %", remedy="write 5% or 0.05"
        )
    return value


def untrained(solver: str) -> str:
    """Return a solver's name without its training seed: a report has the mean over trainings as one row."""
    return re.sub(r":training=[\d|]+", "", solver)


def check_power(power: float) -> float:
    """Return a power.

    Raises:
        UserError: it isn't between .5 and 1, both excluded.
    """
    if not 0.5 < power < 1:
        raise UserError(asked=f"power {power}", wrong="not between 0.5 and 1", remedy="give one such as 0.8")
    return power


def detection(
    pilots: Sequence[Pilot],
    asked: Mapping[tuple[str, int], int],
    difference: float,
    power: float,
    command: Callable[[Sequence[int]], str],
    samples: int | None = None,
    paired: int | None = None,
) -> Detection:
    """Return how many images tell solvers apart, from finished cells.

    Args:
        pilots: measures of finished cells.
        asked: number of solvers to compare at each (teacher, number of calls).
        difference: relative difference, as a fraction of the mean of the two values.
        power: probability that it is found.
        command: numbers of calls to the command of a pilot.
        samples: images per replicate of the run to come; if None, those of the pilot.
        paired: how many of them are compared with the teacher's own; if None, those of the pilot.
    """
    comparisons = sum(count * (count - 1) // 2 for count in asked.values())
    groups: dict[tuple[str, int, str], dict[str, dict[str, Pilot]]] = {}
    for each in pilots:
        if (each.teacher, each.nfe) in asked:
            own = groups.setdefault((each.teacher, each.nfe, each.metric), {})
            own.setdefault(each.over, {}).setdefault(untrained(each.solver), each)
    rows, freedoms = [], []
    for (teacher, nfe, metric), overs in groups.items():
        known = max(overs.values(), key=lambda own: (len(own), next(iter(own.values())).images))
        used = {table.TABLE[metric].takes if metric in table.TABLE else None}
        limit = paired if used & {table.Takes.PAIR, table.Takes.EXACT} else samples
        if row := _needed(teacher, nfe, metric, list(known.values()), difference, power, comparisons, samples, limit):
            rows.append(row)
            freedoms.append(len(next(iter(known.values())).left) * (BLOCKS - 1))
    places = {(row.teacher, row.nfe) for row in rows}
    lacking = tuple(place for place, count in asked.items() if place not in places and count > 1)
    spread = math.sqrt(2 / min(freedoms)) if freedoms else 0.0
    order = {place: at for at, place in enumerate(asked)}
    rows.sort(key=lambda row: order[row.teacher, row.nfe])
    pilot = command(sorted({nfe for _, nfe in lacking})) if lacking else ""
    return Detection(difference, power, comparisons, tuple(rows), lacking, spread, pilot)


def _needed(
    teacher: str,
    nfe: int,
    metric: str,
    cells: Sequence[Pilot],
    difference: float,
    power: float,
    comparisons: int,
    samples: int | None,
    limit: int | None,
) -> Needed | None:
    """Return the row of one metric at one place; None without two different cells.

    Args:
        limit: images per replicate that the metric will use; if None, as in the pilot.
    """
    ranked = sorted(cells, key=lambda each: each.value)
    found = []
    for a, b in itertools.pairwise(ranked):
        error, level = standard_error(a.left - b.left), abs(a.value + b.value) / 2
        if error > 0 and level > 0 and a.left.shape == b.left.shape:
            found.append((error / level, a, b))
    if not found:
        return None
    each = limit or found[0][1].n
    told = [_images(ratio, a, difference, power, LEVEL, each) for ratio, a, _ in found]
    ratio, a, b = max(found, key=lambda pair: pair[0])
    corrected = _images(ratio, a, difference, power, LEVEL / max(comparisons, 1), each)
    replicates = math.ceil(corrected / each)
    size, features = samples or a.n, metric in table.TABLE and bool(table.TABLE[metric].features)
    if replicates == 1 and not features:
        size = min(size, math.ceil(corrected / BLOCKS) * BLOCKS)
    return Needed(
        teacher, nfe, metric, a.images, len(found), round(median(told)), max(told), corrected, a.solver, b.solver, size,
        replicates, fewer=features and a.n < size,
    )  # fmt: skip


def _images(ratio: float, pilot: Pilot, difference: float, power: float, level: float, each: int) -> int:
    return min(images_needed(ratio, pilot.images, difference, power=power, level=level, each=each), MOST)


def _shown(row: Needed) -> tuple[str, ...]:
    numbers = (row.pilot, row.typical, row.most, row.corrected)
    texts = ("more than 1e9" if number >= MOST else number_text(number, 0) for number in numbers)
    pair = f"{row.a} and {row.b}"
    return row.teacher, str(row.nfe), row.metric, *texts, f"{row.samples} x {row.replicates}", pair


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(f"{text:<{width}}" for text, width in zip(row, widths, strict=True)).rstrip() for row in rows]
