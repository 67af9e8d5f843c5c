"""The harness of benchmarks/: verdicts that noise can't turn green, and lines that say what wasn't measured."""

import importlib.util
import json
import math
import sys
from pathlib import Path

import forks
import pytest

FOLDER = Path(__file__).parents[2] / "benchmarks"
SPEC = importlib.util.spec_from_file_location("harness", FOLDER / "harness.py")
harness = importlib.util.module_from_spec(SPEC)
sys.modules["harness"] = harness  # its dataclasses look themselves up
SPEC.loader.exec_module(harness)


@pytest.mark.parametrize(("pairs", "ends"), [(6, (0, 5)), (8, (0, 7)), (9, (1, 7)), (15, (3, 11)), (20, (5, 14))])
def test_the_median_is_between_these_of_the_ordered_pairs(pairs, ends):
    """Order statistics of the 95 % interval, from tables of the sign test."""
    assert harness.Ratio(range(pairs)).interval == ends


def test_so_few_pairs_settle_nothing():
    few = harness.Ratio([9.0] * 5)
    assert few.interval == (-math.inf, math.inf)
    assert few.verdict(at_least=3) == few.verdict(at_most=3) == "unresolved"
    assert harness.Ratio([9.0]).as_dict()["quartiles"] == [None, None]


@pytest.mark.parametrize(
    ("values", "verdict"),
    [
        ([3.1] * 15, "reached"),
        ([2.9] * 15, "missed"),
        ([3.1] * 12 + [2.9] * 3, "reached"),
        ([3.1] * 11 + [2.9] * 4, "unresolved"),
        ([3.1] * 4 + [2.9] * 11, "unresolved"),
        ([3.1] * 3 + [2.9] * 12, "missed"),
    ],
)
def test_a_verdict_needs_the_whole_interval(values, verdict):
    ratio = harness.Ratio(values)
    assert ratio.verdict(at_least=3.0) == verdict
    assert harness.Ratio([-value for value in values]).verdict(at_most=-3.0) == verdict


def test_ways_take_turns_in_both_orders():
    met = []
    ways = {name: lambda name=name: met.append(name) or sum(range(200_000)) for name in "ab"}
    times = harness.alternate(ways, 4)
    turns = [name for name, before in zip(met, [None, *met[:-1]], strict=True) if name != before]
    assert "".join(turns) == "ab" + "ababa"  # warming up, then ab, ba, ab, ba
    assert [len(each.cpu) for each in times.values()] == [4, 4]


def lines(*words):
    done = forks.run([FOLDER, *words])
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_what_is_not_there_is_not_measured_and_one_pair_is_no_verdict():
    made = lines("executor", "--quick", "--pairs", "1")
    assert [line.get("comparator") for line in made] == [None, "diff-sampler", "gas", "ld3"]
    assert all(line["verdict"].startswith("not measured: no clone") for line in made[1:])
    assert made[0]["counted_per_step"]["product"]["operations"] <= 3
    assert {"processor", "cores", "threads", "load", "torch", "cuda"} <= set(made[0]["machine"])
    assert made[0]["product_over_chain"]["interval"] == [None, None]


def test_a_name_that_is_none_is_refused():
    done = forks.run([FOLDER, "exekutor"])
    assert done.returncode == 1
    assert done.stderr.startswith("benchmark 'exekutor': there is none; choose from executor, overhead")
