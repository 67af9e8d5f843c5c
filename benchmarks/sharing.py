"""CPU seconds of six solvers done together against each alone: calls that several make are made once.

python benchmarks/sharing.py [--pairs 7]: one JSON line. Ratios of CPU time in alternating pairs within one run; both
ways give the same bytes. The calls are the promise; the time follows them where the network is the cost.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import time
from collections.abc import Sequence
from datetime import UTC, datetime

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch

import solverbench as sb
from solverbench import prefixes, sampling, seeds
from solverbench.tableaux import Plan

CORE = ("euler", "dpm:order=2", "dpm:order=3", "unipc:order=3", "ipndm:order=4", "deis:order=4")
IMAGES = 64


def drawn(plans: Sequence[Plan], teacher: sb.Teacher) -> tuple[list[torch.Tensor], float, int]:
    """Return the samples of `plans` by one tree, the CPU seconds and the calls."""
    calls = 0

    def start(part: range) -> tuple[object, torch.Tensor]:
        network = teacher.denoiser(part)

        def denoise(call: prefixes.Call, x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
            nonlocal calls
            calls += 1
            return network(x, sigma)

        return denoise, seeds.noise(part, teacher.shape)

    begun = time.process_time()
    found: list[torch.Tensor] = [torch.empty(0)] * len(plans)
    for end, states in sampling.samples(
        prefixes.grow(plans), teacher, range(IMAGES), start, lambda end: True, sampling.Fit(IMAGES)
    ):
        for place in end.plans:
            found[place] = states
    return found, time.process_time() - begun, calls


def main() -> None:
    """Print one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=7)
    pairs = parser.parse_args().pairs
    torch.set_num_threads(1)
    teacher = sb.load_teacher("shapes")
    found = {}
    for nfe in (4, 6, 8):
        plans = [
            sb.tableau(f"{name}:grid=polynomial", nfe=nfe, teacher=teacher).plan_from_noise(teacher.schedule)
            for name in CORE
        ]
        ratios, same = [], True
        for turn in range(pairs + 1):
            ways = [lambda: [drawn([plan], teacher) for plan in plans], lambda: [drawn(plans, teacher)]]  # noqa: B023
            done = {way: ways[way]() for way in ((0, 1) if turn % 2 else (1, 0))}
            alone, together = [each[0][0] for each in done[0]], done[1][0][0]
            same &= all(torch.equal(a, b) for a, b in zip(alone, together, strict=True))
            if turn:  # the first pair warms up
                ratios.append(sum(each[1] for each in done[0]) / done[1][0][1])
        asked, needed = sum(each[2] for each in done[0]), done[1][0][2]
        low, high = statistics.quantiles(ratios, n=4)[::2]
        middle = statistics.median(ratios)
        found[nfe] = {
            "calls": [asked, needed], "calls_ratio": asked / needed, "time_ratio": middle, "quartiles": [low, high],
            "share_of_calls_ratio": middle * needed / asked, "same_bytes": same,
            "verdict": "unresolved" if (high - low) / middle > 0.05 else
            "within 5 %" if middle * needed / asked >= 0.95 else "not reached",
        }  # fmt: skip
    line = {
        "benchmark": "sharing", "date": datetime.now(UTC).date().isoformat(), "teacher": "shapes", "images": IMAGES,
        "pairs": pairs, "nfe": found, "load": os.getloadavg()[0],
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, torch {torch.__version__}",
    }  # fmt: skip
    print(json.dumps(line))


if __name__ == "__main__":
    main()
