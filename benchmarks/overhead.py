"""The executor's overhead over the network: its time per step relative to one forward of the small U-Net.

python benchmarks/overhead.py: two JSON lines. Derived: time per step with a denoiser that costs nothing, over the time
of a forward of the teacher `shapes`. Direct: a whole run over the same number of bare forwards, whose spread is wider
than the overhead to be measured.
"""

from __future__ import annotations

from collections.abc import Iterator

import executor
import harness
import torch

import solverbench as sb
from solverbench import seeds

IMAGES, NFE, SPEC = 64, 8, "dpm:order=3"
MOST = 0.02


def measure(options: harness.Options) -> Iterator[harness.Line]:
    """Yield the figures."""
    teacher = sb.load_teacher("shapes")
    images = 8 if options.quick else IMAGES
    size = (images, *teacher.shape)
    denoise, plan = teacher.denoiser(range(images)), executor.tableau_of(SPEC, NFE).plan(80.0)
    noise, null = seeds.noise(range(images), teacher.shape), executor.null(size)
    states = [80 * noise for _ in plan.sigmas]
    levels = [torch.tensor(sigma, dtype=torch.float64) for sigma in plan.sigmas]

    def bare() -> None:
        for state, level in zip(states, levels, strict=True):
            denoise(state, level)

    about = {"benchmark": "overhead", "solver": SPEC, "nfe": NFE, "teacher": "shapes", "size": size}
    with torch.no_grad():
        ways = {"run": lambda: sb.execute(plan, null, noise), "forward": lambda: denoise(states[0], levels[4])}
        times = harness.alternate(ways, options.pairs)
        whole = harness.Ratio.of(times["run"].cpu, times["forward"].cpu)
        share = harness.Ratio([value / NFE for value in whole.values])
        yield about | {
            "case": "derived", "share_of_a_forward": share.as_dict(), "goal": MOST,
            "verdict": share.verdict(at_most=MOST), "forward_seconds": times["forward"].as_dict(),
        }  # fmt: skip
        times = harness.alternate({"run": lambda: sb.execute(plan, denoise, noise), "bare": bare}, options.pairs)
    ratio, wall = (harness.Ratio.of(getattr(times["run"], c), getattr(times["bare"], c)) for c in ("cpu", "wall"))
    yield about | {
        "case": "direct", "run_over_bare_forwards": ratio.as_dict(), "run_over_bare_forwards_wall": wall.as_dict(),
        "goal": 1 + MOST, "verdict": ratio.verdict(at_most=1 + MOST),
    }  # fmt: skip


if __name__ == "__main__":
    harness.main(measure)
