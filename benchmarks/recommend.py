"""`solverbench recommend` against all of its candidates: is the pick the best, and do its intervals hold?

python benchmarks/recommend.py picks [OUT]      the picks beside an exhaustive run over the same candidates
python benchmarks/recommend.py coverage [OUT]   how often the interval of the pick's advantage covers its true value

Both print Markdown for docs/recommend.md (benchmarks/recommend.log).
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from solverbench import seeds
from solverbench.bench.measure import Measure, paired
from solverbench.bench.progress import Silent
from solverbench.choice import candidates, defaults
from solverbench.choice.choose import choose
from solverbench.choice.race import Race, beaten
from solverbench.metrics.reduction import rmses
from solverbench.sampling.devices import pool
from solverbench.teachers.loading import load_teacher
from solverbench.teachers.teacher import Teacher

Array = NDArray[np.float64]

CASES = [("digits", nfe) for nfe in range(3, 9)] + [("mixture", nfe) for nfe in range(3, 9)] + [("shapes", 5)]
EXHAUSTIVE = {"digits": 1000, "mixture": 1000, "shapes": 100}
"""Images of every candidate in the exhaustive run."""

SOLVERS = ",".join(f"{solver}{grid}" for grid in ("", ":grid=logsnr", ":grid=time_uniform", ":grid=time_quadratic",
                   ":grid=oss", ":grid=gits", ":grid=dmn") for solver in candidates.SOLVERS)  # fmt: skip
"""Candidates of the comparison: no trained solver, as one of those wins by far."""

REPETITIONS, IMAGES, TIMES = 100, 200, 20
"""Repetitions of the coverage, images of each interval, and how many times as many give the true value."""


def picks(out: Path) -> None:
    """Print a row for each case: the pick, the best of the exhaustive run, their difference, and the calls of both."""
    print(
        "| teacher | calls | candidates | pick | best of all | pick minus best, RMSE | verdict | network calls, share |"
    )
    print("|---|---|---|---|---|---|---|---|")
    for name, nfe in CASES:
        print(_case(load_teacher(name), nfe, out), flush=True)


def _case(teacher: Teacher, nfe: int, out: Path) -> str:
    field = candidates.gather(teacher, [nfe], out, Silent(), solvers=SOLVERS, calls=None)
    count = EXHAUSTIVE[teacher.name]
    errors = _exhaustive(teacher, field, nfe, count, out)
    whole = sum(each.nfe for each in field.candidates) * count + teacher.sampler_nfe * count
    found = choose(teacher, nfe, out=out, solvers=SOLVERS, calls=whole // 4, exports=(), tell=Silent())
    best = min(errors, key=lambda spec: errors[spec].mean())
    spec = next(key for key in errors if key == found.pick.spec)
    value, low, high = paired(_measure(errors[spec]), _measure(errors[best]))
    verdict = "the same" if spec == best else "level" if low <= 0 <= high else "behind"
    spent = found.cost["calls"] / whole
    told = f"{value:+.2g} [{low:+.2g}, {high:+.2g}]"
    return (
        f"| {teacher.name} | {nfe} | {len(field.candidates)} | `{spec}` | `{best}` | {told} | {verdict} "
        f"| {whole}, {spent:.0%} in the race |"
    )


def _exhaustive(teacher: Teacher, field: candidates.Field, nfe: int, count: int, out: Path) -> dict[str, Array]:
    """Return the squared errors of every candidate, on seeds that neither the race nor its fresh seeds use."""
    first = seeds.EVALUATION_START + 100_000
    with pool(1) as threads:
        return threads.submit(_errors, teacher, field.candidates, range(first, first + count), out).result()


def _errors(teacher: Teacher, every: Sequence[candidates.Candidate], chosen: range, out: Path) -> dict[str, Array]:
    race = Race(teacher, every, out, out / "unused.json", calls=None, seconds=None, say=lambda line: None)
    found: dict[str, list[float]] = {}
    for begin in range(chosen.start, chosen.stop, 100):
        made = race.errors(race.runners, range(begin, min(begin + 100, chosen.stop)))[0]
        for key, values in made.items():
            found.setdefault(key.partition(" ")[2], []).extend(values)
    return {key: np.array(values) for key, values in found.items()}


def _measure(errors: Array) -> Measure:
    values, left = rmses(errors[None])
    return Measure("rmse_teacher", values, left, len(errors), "same", "reference")


def coverage(out: Path) -> None:
    """Print how often the interval of the winner's advantage covers the value of `TIMES` as many seeds, by replay.

    Errors of a fixed set of candidates are made once. Each repetition draws images for a race and other images for the
    interval, both without replacement.
    """
    teacher, nfe = load_teacher("mixture"), 5
    field = candidates.gather(teacher, [nfe], out, Silent(), solvers=SOLVERS, calls=None)
    first = seeds.EVALUATION_START + 200_000
    with pool(1) as threads:
        every = threads.submit(_errors, teacher, field.candidates, range(first, first + IMAGES * TIMES), out).result()
    table = np.stack(list(every.values()))
    specs = list(every)
    euler = next(place for place, each in enumerate(specs) if each == defaults.DEFAULT)
    generator, hits, winners = np.random.default_rng(0), {"second": 0, "default": 0, "race": 0}, set()
    for _ in range(REPETITIONS):
        order = generator.permutation(table.shape[1])
        raced, rest = order[:256], order[256 : 256 + IMAGES]
        chosen, second = _raced(table[:, raced])[:2]
        winners.add(specs[chosen])
        for role, other in (("second", second), ("default", euler)):
            truth = np.sqrt(table[chosen].mean()) - np.sqrt(table[other].mean())
            _, low, high = paired(_measure(table[chosen, rest]), _measure(table[other, rest]))
            hits[role] += low <= truth <= high
        used = raced[: len(raced) // 10 * 10]
        truth = np.sqrt(table[chosen].mean()) - np.sqrt(table[second].mean())
        _, low, high = paired(_measure(table[chosen, used]), _measure(table[second, used]))
        hits["race"] += low <= truth <= high
    print(
        f"{REPETITIONS} repetitions, {len(specs)} candidates, {len(winners)} different winners. Intervals that cover: "
        f"on fresh seeds, the advantage over the second {hits['second']} %, over Euler {hits['default']} %; "
        f"on the race's own images, that over the second {hits['race']} %"
    )


def _raced(table: Array) -> list[int]:
    """Return the places of the candidates in the order of a race over these images: those left, then by rounds."""
    left, images, lost = list(range(len(table))), 8, list[int]()
    while len(left) > 1 and images <= table.shape[1]:
        dropped = beaten(table[left, :images].tolist(), len(table))
        out = sorted((left[place] for place in dropped), key=lambda place: table[place, :images].mean())
        lost = out + lost
        left = [each for each in left if each not in out]
        images *= 2
    seen = min(images, table.shape[1])
    return sorted(left, key=lambda place: table[place, :seen].mean()) + lost


if __name__ == "__main__":
    what = sys.argv[1] if len(sys.argv) > 1 else "picks"
    place = Path(sys.argv[2] if len(sys.argv) > 2 else "recommend-runs")
    {"picks": picks, "coverage": coverage}[what](place)
