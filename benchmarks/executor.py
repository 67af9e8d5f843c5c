"""Solver time per step against other projects' solvers, with a denoiser that costs nothing; operations counted.

python benchmarks/executor.py [--diff-sampler PATH] [--gas PATH] [--ld3 PATH]: a JSON line per solver and size. Each
pair is a whole run of ours and one of theirs on the same noise; for a non-trivial denoiser both give the same sample.
Ours executes a plan that is made once per cell; the planning time is reported separately.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import comparators
import counts
import harness
import torch
from torch import Tensor

import solverbench as sb
from solverbench import seeds
from solverbench.learned import trained_files
from solverbench.method.execution import Counter, _Buffer, _levels, _trajectory
from solverbench.method.solver import LearnedSolver
from solverbench.method.tableau import Plan, Tableau

NFE = 8
SIZES = ((1, 3, 16, 16), (64, 3, 16, 16), (64, 3, 32, 32))
GOAL_SIZE = SIZES[1]


def measure(options: harness.Options) -> Iterator[harness.Line]:
    """Yield the figures."""
    sizes = SIZES[1:2] if options.quick else SIZES
    for size in sizes:
        yield _both_ways(size, options.pairs)
    for other in comparators.found(options):
        if not isinstance(other, comparators.Comparator):
            yield {"benchmark": "executor", "comparator": other.name, "verdict": f"not measured: {other.lack}"}
            continue
        for size in sizes:
            yield _paired(other, size, options.pairs)


def tableau_of(spec: str, nfe: int = NFE) -> Tableau:
    """Return a solver's tableau on EDM's range; a learned solver's is the untrained one."""
    solver = sb.make(f"{spec}:grid=polynomial" if not spec.startswith("gs") else spec)
    schedule = sb.EDM()
    if isinstance(solver, LearnedSolver):
        solver = trained_files.learned(spec).with_parameters(trained_files.learned(spec).initial(schedule, nfe))
    return sb.trace(solver, solver.grid(schedule, solver.steps(nfe)))


def null(size: tuple[int, ...]) -> Callable[[Tensor, Tensor], Tensor]:
    """Return a denoiser that always returns the same images and costs nothing."""
    d = torch.randn(size, generator=torch.Generator().manual_seed(1))
    return lambda x, sigma: d


def shrinking(x: Tensor, sigma: Tensor) -> Tensor:
    """Return a nonlinear function of the input that exceeds [-1, 1], so that thresholding has an effect."""
    level = torch.as_tensor(sigma).to(x).reshape(-1)[0]
    return 2 * torch.tanh(x / (1 + level**2).sqrt())


def _both_ways(size: tuple[int, ...], pairs: int) -> harness.Line:
    """Return a comparison of the CPU's chain with the matrix-vector product that CUDA uses, both on this CPU."""
    plan, denoise, noise = tableau_of("dpm:order=3").plan(), null(size), seeds.noise(range(size[0]), size[1:])
    buffer, levels = _Buffer(noise, plan.rows), _levels(plan.sigmas)

    def product() -> Tensor:
        buffer.begin(noise)
        return _trajectory(buffer, levels, denoise)

    with torch.no_grad():
        ways = {"chain": lambda: sb.execute(plan, denoise, noise), "product": product}
        times = harness.alternate(ways, pairs)
        counted = {name: counts.per_step(way, plan.nfe) for name, way in ways.items()}
    return {
        "benchmark": "executor", "case": "both ways on a CPU", "size": size, "nfe": plan.nfe,
        "seconds_per_step": {name: each.as_dict()["cpu_median"] / plan.nfe for name, each in times.items()},
        "product_over_chain": harness.Ratio.of(times["product"].cpu, times["chain"].cpu).as_dict(),
        "counted_per_step": counted,
    }  # fmt: skip


def _paired(other: comparators.Comparator, size: tuple[int, ...], pairs: int) -> harness.Line:
    begun = time.process_time()
    tableau = tableau_of(other.spec.removesuffix(":threshold=true"))
    planned = time.process_time() - begun
    adapt = sb.make(other.spec.removeprefix("gs:") if other.spec.endswith("=true") else "euler").adapt
    start = float(tableau.start)
    plan = tableau.plan((1 + start**2) ** 0.5 if other.kept else start)
    noise = seeds.noise(range(size[0]), size[1:])
    levels = tableau.levels if other.kept else torch.cat([tableau.sigmas, tableau.levels[-1:]])

    calls, off = _same_work(other, plan, levels, adapt, noise)
    denoise = null(size)
    run = other.prepare(denoise, levels, torch.float32)
    adapted = adapt(denoise)
    ways = {"ours": lambda: sb.execute(plan, adapted, noise), "theirs": lambda: run(noise)}
    with torch.no_grad():
        times = harness.alternate(ways, pairs)
        counted = {name: counts.per_step(way, plan.nfe) for name, way in ways.items()}
    ratio = harness.Ratio.of(times["theirs"].cpu, times["ours"].cpu)
    wall = harness.Ratio.of(times["theirs"].wall, times["ours"].wall)
    goal = other.goal if size == GOAL_SIZE else None
    return {
        "benchmark": "executor", "comparator": other.name, "source": other.source, "options": other.options,
        "size": size, "nfe": plan.nfe, "calls": calls, "samples_differ_by": off, "planned_once_in_seconds": planned,
        "seconds_per_step": {name: each.as_dict()["cpu_median"] / plan.nfe for name, each in times.items()},
        "theirs_over_ours": ratio.as_dict(), "theirs_over_ours_wall": wall.as_dict(), "counted_per_step": counted,
        "goal": goal, "verdict": ratio.verdict(at_least=goal) if goal else "no goal",
    }  # fmt: skip


def _same_work(
    other: comparators.Comparator,
    plan: Plan,
    levels: Tensor,
    adapt: Callable[[Callable[[Tensor, Tensor], Tensor]], Callable[[Tensor, Tensor], Tensor]],
    noise: Tensor,
) -> tuple[dict[str, int], float]:
    """Return the calls of each, and the relative difference of their samples, both in float64 on a few images."""
    few = noise[:4].double()
    ours, theirs = Counter(shrinking), Counter(shrinking)
    with torch.no_grad():
        a = sb.execute(plan, adapt(ours), few)
        b = other.prepare(theirs, levels, torch.float64)(few)
    return {"ours": ours.calls, "theirs": theirs.calls}, float((a - b).abs().max() / a.abs().max())


if __name__ == "__main__":
    harness.main(measure)
