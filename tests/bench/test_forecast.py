"""The time left of a run, on a simulated clock: after 20 % of the work it is within 30 % of the truth."""

import heapq
from dataclasses import dataclass

import pytest

from solverbench.bench.estimates import Forecast, Phase


@dataclass
class Clock:
    now: float = 0.0

    def __call__(self):
        return self.now


@dataclass(frozen=True)
class Chunk:
    """A piece of work that one worker does at once."""

    phase: str
    calls: float
    seconds: float


def chunks(phase, calls, pace, pieces):
    return [Chunk(phase, calls / pieces, calls / pieces * pace)] * pieces


def simulated(stages, ends, guesses, workers=2, idle=0.0):
    """Return (share of the work done, time left as told, true time left) of each event.

    Args:
        stages: lists of chunks; all of one are done before the next begins, as references before cells.
        ends: phase -> (amount, true seconds, guess) of what one thread does at the end.
        guesses: phase -> guess of the seconds of a call; none if it isn't known.
        idle: seconds between two chunks of a worker, for what the scheduler takes.
    """
    clock, told = Clock(), []
    every = [chunk for stage in stages for chunk in stage]
    phases = {
        name: Phase(sum(each.calls for each in every if each.phase == name), guesses.get(name))
        for name in dict.fromkeys(each.phase for each in every)
    }
    phases |= {name: Phase(amount, guess, serial=True) for name, (amount, _, guess) in ends.items()}
    forecast = Forecast(phases, workers, clock)
    total, done = sum(each.seconds for each in every), 0.0
    for stage in stages:
        waiting, free, finished = list(stage), [(clock.now, k) for k in range(workers)], []
        heapq.heapify(free)
        for chunk in waiting:
            at, worker = heapq.heappop(free)
            heapq.heappush(free, (at + chunk.seconds + idle, worker))
            finished.append((at + chunk.seconds, chunk))
        for at, chunk in sorted(finished, key=lambda each: each[0]):
            clock.now = at
            forecast.spend(chunk.phase, chunk.calls, chunk.seconds)
            done += chunk.seconds
            told.append((done / total, clock.now, forecast.left))
    for name, (amount, seconds, _) in ends.items():
        for _ in range(amount):
            clock.now += seconds / amount
            forecast.spend(name, 1, seconds / amount)
    assert forecast.left == 0
    return [(share, left, clock.now - now) for share, now, left in told]


PACE = 1e-4
DRAW = {"measures": (16, 4.0, 0.3), "drawing": (1, 6.0, 5.0)}


def blocks(parts, blocks):
    """The chunks of blocks: those of each phase, one block after the other; (phase, calls of a block, pace, pieces)."""
    return [chunk for _ in range(blocks) for part in parts for chunk in chunks(*part)]


RUNS = {
    # the teacher's own samples in a fifth of the blocks, each of 63 calls, at the pace of the cells less their features
    "main": (
        [blocks([("own", 63_000, PACE, 2), ("cells", 80_000, 1.3 * PACE, 20)], 4)
         + blocks([("cells", 80_000, 1.3 * PACE, 20)], 16)] * 3,
        DRAW, {"own": PACE, "cells": PACE}, 0.05,
    ),
    # without a guess, because it is little work
    "unknown": (
        [blocks([("own", 63_000, PACE, 2), ("cells", 80_000, 1.3 * PACE, 20)], 4)
         + blocks([("cells", 80_000, 1.3 * PACE, 20)], 16)] * 3,
        DRAW, {}, 0.05,
    ),
    # exact solutions in float64, which take five times as long as a call, and not as many calls as expected
    "exact": (
        [blocks([("exact", 128_000, 5 * PACE, 25), ("cells", 8_000, 1.3 * PACE, 4)], 10)
         + blocks([("cells", 8_000, 1.3 * PACE, 4)], 20)],
        DRAW, {"exact": 2 * PACE, "cells": PACE}, 0.05,
    ),
    # a reference of hundreds of calls is measured first, and cells have small batches, which are slower
    "reference": (
        [chunks("reference", 20_000, PACE, 3),
         blocks([("own", 5_000, 2 * PACE, 2), ("cells", 4_000, 3 * PACE, 8)], 20)],
        DRAW, {"reference": PACE, "own": 2 * PACE, "cells": 2 * PACE}, 0.0,
    ),
    # two teachers, the slow one last: its pace is known from a probe alone, on a machine that is now twice as busy
    "slow teacher": (
        [blocks([("own a", 20_000, 2 * PACE, 2), ("cells a", 40_000, 2.4 * PACE, 10)], 10),
         blocks([("own b", 20_000, 60 * PACE, 2), ("cells b", 40_000, 62 * PACE, 10)], 10)],
        DRAW, {"own a": PACE, "cells a": PACE, "own b": 30 * PACE, "cells b": 30 * PACE}, 0.0,
    ),
    # features take longer than the calls, and the measures of many features after them a fifth of the time
    "features": (
        [blocks([("own", 20_000, PACE, 2), ("cells", 40_000, 5 * PACE, 10)], 30)],
        {"measures": (16, 60.0, 4.0), "drawing": (1, 6.0, 5.0)}, {"own": PACE, "cells": PACE}, 0.05,
    ),
}  # fmt: skip


@pytest.mark.parametrize("workers", [1, 2, 8])
@pytest.mark.parametrize("name", RUNS)
def test_the_time_left_after_a_fifth_of_the_work_is_within_30_percent(name, workers):
    stages, ends, guesses, idle = RUNS[name]
    told = simulated(stages, ends, guesses, workers, idle)
    [(_, left, true)] = [next(each for each in told if each[0] >= 0.2)]
    assert left == pytest.approx(true, rel=0.3)
    middle = [each for each in told if 0.2 <= each[0] <= 0.9]
    assert all(left == pytest.approx(true, rel=0.35) for _, left, true in middle)


def test_nothing_is_told_before_any_pace_is_known():
    forecast = Forecast({"cells": Phase(10, None), "own": Phase(5, None)}, 1, Clock())
    assert forecast.left is None
    forecast.spend("own", 1, 2.0)
    assert forecast.left == pytest.approx(4 * 2 + 10 * 2)


def test_what_one_thread_does_at_the_end_is_slower_on_a_busy_machine():
    """Workers that got a quarter of a processor each: so will the drawing of the report."""
    clock, processor = Clock(), Clock()
    phases = {"cells": Phase(10, 1.0), "drawing": Phase(1, 5.0, serial=True)}
    forecast = Forecast(phases, 2, clock, processor)
    assert forecast.left == 10 / 2 + 5
    clock.now += 20
    processor.now += 10
    for _ in range(10):
        forecast.spend("cells", 1, 4.0)
    assert forecast.left == 5 * 4


def test_work_that_is_left_out_takes_no_time():
    forecast = Forecast({"cells": Phase(10, 1.0)}, 1, Clock())
    forecast.drop("cells", 4)
    assert forecast.left == 6
