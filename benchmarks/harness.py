"""Side-by-side measurements: alternating pairs, ratios with their spread, verdicts, the machine; JSON lines."""

from __future__ import annotations

import argparse
import gc
import json
import math
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch

RESULTS = Path(__file__).with_name("results.jsonl")
TURN = 0.05
"""Smallest CPU time of a turn in seconds; faster calls are repeated."""

PAIRS = 15

Line = dict[str, Any]


@dataclass(frozen=True)
class Options:
    """The options of a benchmark.

    Args:
        pairs: rounds in which the ways alternate, after a warm-up.
        clones: local clones of other projects, by name; missing ones are left out.
        quick: whether to use smaller sizes, where a benchmark has them.
    """

    pairs: int
    clones: Mapping[str, Path]
    quick: bool


@dataclass(frozen=True)
class Times:
    """Seconds per call of a way, by round."""

    cpu: Sequence[float]
    wall: Sequence[float]

    def as_dict(self) -> dict[str, float]:
        """Return the medians and the smallest CPU time."""
        return {
            "cpu_median": statistics.median(self.cpu),
            "cpu_least": min(self.cpu),
            "wall_median": statistics.median(self.wall),
        }


def alternate(ways: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, Times]:
    """Return the times of each way; in every other round the order is reversed."""
    repeats = {name: _repeats(way) for name, way in ways.items()}
    cpu: dict[str, list[float]] = {name: [] for name in ways}
    wall: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(rounds):
        for name in reversed(list(ways)) if turn % 2 else ways:
            gc.collect()
            begun, used = time.perf_counter(), time.process_time()
            for _ in range(repeats[name]):
                ways[name]()
            cpu[name].append((time.process_time() - used) / repeats[name])
            wall[name].append((time.perf_counter() - begun) / repeats[name])
    return {name: Times(cpu[name], wall[name]) for name in ways}


def _repeats(way: Callable[[], object]) -> int:
    """Return the number of calls of a way per turn; finding it warms the way up."""
    count = 1
    while True:
        used = time.process_time()
        for _ in range(count):
            way()
        spent = time.process_time() - used
        if spent >= TURN or count >= 1 << 16:
            return count
        count = max(2 * count, math.ceil(count * TURN / max(spent, 1e-6)))


@dataclass(frozen=True)
class Ratio:
    """The ratio of two quantities, pair by pair."""

    values: Sequence[float]

    @classmethod
    def of(cls, above: Sequence[float], below: Sequence[float]) -> Ratio:
        """Return above / below of each round."""
        return cls([a / b for a, b in zip(above, below, strict=True)])

    @property
    def median(self) -> float:
        """The median ratio."""
        return statistics.median(self.values)

    @property
    def interval(self) -> tuple[float, float]:
        """The 95 % confidence interval of the median, for any distribution: two of the ordered values.

        The k-th from each end, for the largest k with P(fewer than k of n tosses are heads) <= 2.5 %; unbounded where
        there are too few pairs for that.
        """
        ordered, n = sorted(self.values), len(self.values)
        tail, k = 0.0, 0
        while (tail := tail + math.comb(n, k) / 2**n) <= 0.025:
            k += 1
        return (ordered[k - 1], ordered[n - k]) if k else (-math.inf, math.inf)

    def verdict(self, *, at_least: float = -math.inf, at_most: float = math.inf) -> str:
        """Return `reached` or `missed` if the whole interval is on that side of the goal, else `unresolved`."""
        low, high = self.interval
        if at_least <= low and high <= at_most:
            return "reached"
        return "missed" if high < at_least or low > at_most else "unresolved"

    def as_dict(self) -> Line:
        """Return the reported numbers."""
        low, high = statistics.quantiles(self.values, n=4)[::2] if len(self.values) > 1 else (None, None)
        bounds = [bound if math.isfinite(bound) else None for bound in self.interval]
        found = {"median": self.median, "quartiles": [low, high], "interval": bounds, "pairs": len(self.values)}
        return {**found, "from_to": [min(self.values), max(self.values)]}


def _shortened(value: Any) -> Any:
    """Return the value with numbers rounded to six digits."""
    if isinstance(value, float):
        return float(f"{value:.6g}")
    if isinstance(value, dict):
        return {name: _shortened(each) for name, each in value.items()}
    return [_shortened(each) for each in value] if isinstance(value, list | tuple) else value


def machine() -> Line:
    """Return a description of the machine."""
    cuda = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {
        "processor": _processor(), "cores": os.cpu_count(), "threads": torch.get_num_threads(),
        "load": round(os.getloadavg()[0], 2), "cuda": cuda, "system": platform.platform(),
        "python": platform.python_version(), "torch": torch.__version__,
    }  # fmt: skip


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    named = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{platform.machine()} {named[0] if named else platform.processor()}".strip()


def commit(folder: Path) -> str:
    """Return the commit checked out at `folder`, with + if files differ from it; empty if there is none."""

    def git(*words: str) -> str:
        done = subprocess.run(["git", "-C", str(folder), *words], capture_output=True, text=True, check=False)
        return done.stdout.strip()

    found = git("rev-parse", "--short=12", "HEAD")
    return f"{found}{'+' if git('status', '--porcelain', '-uno') else ''}" if found else ""


def main(*measures: Callable[[Options], Iterable[Line]], words: Sequence[str] | None = None) -> None:
    """Parse the command line, measure, print a line of JSON per figure, and append it to the results if requested."""
    parser = argparse.ArgumentParser(description=sys.modules["__main__"].__doc__)
    parser.add_argument("--pairs", type=int, default=PAIRS, help="rounds in which the ways alternate")
    parser.add_argument("--quick", action="store_true", help="smaller sizes, to see that it works")
    parser.add_argument("--save", action="store_true", help=f"append the lines to {RESULTS.name}")
    for name in ("diff-sampler", "gas", "ld3"):
        parser.add_argument(f"--{name}", type=Path, help="a local clone of it, whose code is run beside ours")
    given = parser.parse_args(words)
    torch.set_num_threads(1)
    clones = {name: getattr(given, name.replace("-", "_")) for name in ("diff-sampler", "gas", "ld3")}
    options = Options(given.pairs, {name: path for name, path in clones.items() if path}, given.quick)
    for line in _complete(measures, options):
        text = json.dumps(_shortened(line), allow_nan=False)
        print(text, flush=True)
        if given.save:
            with RESULTS.open("a") as results:
                results.write(text + "\n")


def _complete(measures: Sequence[Callable[[Options], Iterable[Line]]], options: Options) -> Iterator[Line]:
    about = {"date": datetime.now(UTC).date().isoformat(), "commit": commit(Path(__file__).parent)}
    for measure in measures:
        for line in measure(options):
            yield {"benchmark": line["benchmark"], **about, **line, "machine": machine()}
