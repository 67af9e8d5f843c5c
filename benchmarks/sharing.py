"""CPU seconds of six solvers executed together against each alone: shared calls are made once.

python benchmarks/sharing.py [--pairs 15]: a JSON line for each number of calls. Ratios of CPU time in alternating pairs
within one run; both ways give the same bytes. The number of calls is guaranteed; the time follows it where the network
dominates.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import harness
import torch

import solverbench as sb
from solverbench import seeds
from solverbench.method import prefixes
from solverbench.method.tableau import Plan
from solverbench.sampling import sample

CORE = ("euler", "dpm:order=2", "dpm:order=3", "unipc:order=3", "ipndm:order=4", "deis:order=4")
IMAGES = 64
SHARE = 0.95
"""Goal for the ratio of times, as a fraction of the ratio of calls."""


def drawn(plans: Sequence[Plan], teacher: sb.Teacher, images: int) -> tuple[list[torch.Tensor], int]:
    """Return the samples of `plans` from one shared tree, and the number of calls."""
    calls = 0

    def start(part: range) -> tuple[object, torch.Tensor]:
        network = teacher.denoiser(part)

        def denoise(call: prefixes.Call, x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
            nonlocal calls
            calls += 1
            return network(x, sigma)

        return denoise, seeds.noise(part, teacher.shape)

    found: list[torch.Tensor] = [torch.empty(0)] * len(plans)
    for end, states in sample.samples(
        prefixes.grow(plans), teacher, range(images), start, lambda end: True, sample.BatchLimit(images)
    ):
        for place in end.plans:
            found[place] = states
    return found, calls


def measure(options: harness.Options) -> Iterator[harness.Line]:
    """Yield the figures."""
    teacher, images = sb.load_teacher("shapes"), 8 if options.quick else IMAGES
    for nfe in (4,) if options.quick else (4, 6, 8):
        yield _at(nfe, teacher, images, options.pairs)


def _at(nfe: int, teacher: sb.Teacher, images: int, pairs: int) -> harness.Line:
    plans = [
        sb.tableau(f"{name}:grid=polynomial", nfe=nfe, teacher=teacher).plan_from_noise(teacher.schedule)
        for name in CORE
    ]
    alone, together = [drawn([plan], teacher, images) for plan in plans], drawn(plans, teacher, images)
    asked, needed = sum(calls for _, calls in alone), together[1]
    same = all(torch.equal(one[0], both) for (one, _), both in zip(alone, together[0], strict=True))
    ways = {
        "alone": lambda: [drawn([plan], teacher, images) for plan in plans],
        "together": lambda: drawn(plans, teacher, images),
    }
    times = harness.alternate(ways, pairs)
    ratio = harness.Ratio.of(times["alone"].cpu, times["together"].cpu)
    return {
        "benchmark": "sharing", "teacher": "shapes", "images": images, "nfe": nfe,
        "calls": [asked, needed], "calls_ratio": asked / needed, "same_bytes": same,
        "time_ratio": ratio.as_dict(), "share_of_calls_ratio": ratio.median * needed / asked,
        "goal": SHARE * asked / needed, "verdict": ratio.verdict(at_least=SHARE * asked / needed),
    }  # fmt: skip


if __name__ == "__main__":
    harness.main(measure)
