"""An iteration of a learned solver's training: time against GAS's code, and memory of each way, by calls per image.

python benchmarks/training.py [--gas PATH]: JSON lines. The network is the teacher `shapes`, 24 images, the mean squared
difference as the loss; no LPIPS and no discriminator on either side. Time is CPU time in alternating pairs; memory is
counted from torch's allocations and frees.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import comparators
import harness
import torch

import solverbench as sb
from solverbench import seeds
from solverbench.learned import recipes, trained_files
from solverbench.learned.training.data import Data, Pairs
from solverbench.learned.training.run import TrainingRun
from solverbench.learned.training.trainer import Trainer

BATCH = 24
CALLS = (4, 10)
TIME, MEMORY, FLAT = 1.7, 0.25, 1.15
"""Goals: recompute over store in time, recompute over GAS in memory, recompute's memory at most over fewest calls."""

Step = Callable[[], object]


def measure(options: harness.Options) -> Iterator[harness.Line]:
    """Yield the figures."""
    clone = options.clones.get("gas")
    for nfe in CALLS[:1] if options.quick else CALLS:
        yield _times(nfe, clone, options.pairs)
    yield _memory(clone, CALLS[:1] if options.quick else (4, 6, 8, 10))
    yield _first(options.pairs)


def data(teacher: sb.Teacher, count: int = 2 * BATCH) -> Data:
    """Return pairs with synthetic images; their values do not matter."""

    def pairs(chosen: range) -> Pairs:
        noise = seeds.noise(chosen, teacher.shape).to(teacher.device)
        return Pairs(noise, noise.tanh(), torch.tensor(chosen))

    return Data(pairs(range(count)), pairs(range(count, count + 2)))


def ours(nfe: int, memory: str, solver: str = "gs", *, first: bool = True, teacher: sb.Teacher | None = None) -> Step:
    """Return one of our training iterations: batch, student, loss, gradient, clipped step, average.

    Args:
        memory: the memory mode, as in a recipe.
        first: whether to keep the outputs of the first call where they are constant.
        teacher: `shapes` if None.
    """
    teacher = teacher or sb.load_teacher("shapes")
    recipe = replace(
        recipes.load(solver, "digits"), loss="l2", batch=BATCH, train_size=2 * BATCH, validation_size=2, memory=memory,
        validate_every=10**9, adversarial_weight=0.0, radius=0.0,
    )  # fmt: skip
    student = Trainer(TrainingRun(trained_files.learned(solver), nfe, teacher, recipe, 0), data(teacher))
    if not first:
        student.first = None
    return student.step


def theirs(nfe: int, clone: Path, *, teacher: sb.Teacher | None = None) -> Step:
    """Return an iteration of GAS's code: its solver, its parameters, loss, gradient, clipped step, average."""
    teacher = teacher or sb.load_teacher("shapes")
    network = teacher.denoiser(range(BATCH))
    levels = (0.002, 80.0), torch.float32, comparators.T_EPS
    solver = comparators.GASSolver(clone, network, nfe, *levels, device=teacher.device)
    optimiser = torch.optim.Adam(solver.parameters, lr=1e-3)
    shadow = [value.detach().clone() for value in solver.parameters]
    batch = data(teacher).train.pick(torch.arange(BATCH))

    def step() -> None:
        loss = (solver(batch.noise) - batch.images).square().mean((1, 2, 3)).mean()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(solver.parameters, 1.0)
        optimiser.step()
        optimiser.zero_grad()
        for kept, value in zip(shadow, solver.parameters, strict=True):
            kept.sub_(0.001 * (kept - value.detach()))

    return step


def _times(nfe: int, clone: Path | None, pairs: int) -> harness.Line:
    ways = {"store": ours(nfe, "store"), "recompute": ours(nfe, "recompute")}
    if clone is not None:
        ways["gas"] = theirs(nfe, clone)
    times = harness.alternate(ways, pairs)
    mode = harness.Ratio.of(times["recompute"].cpu, times["store"].cpu)
    line = {
        "benchmark": "training", "case": "time of an iteration", "nfe": nfe, "batch": BATCH,
        "seconds": {name: each.as_dict() for name, each in times.items()},
        "recompute_over_store": mode.as_dict(), "goal_recompute": TIME, "verdict_recompute": mode.verdict(at_most=TIME),
    }  # fmt: skip
    if clone is None:
        return line | {"verdict": "not measured: no clone of GAS was named (--gas PATH)"}
    ratio = harness.Ratio.of(times["store"].cpu, times["gas"].cpu)
    return line | {"ours_over_gas": ratio.as_dict(), "goal": 1.0, "verdict": ratio.verdict(at_most=1.0)}


def _memory(clone: Path | None, calls: tuple[int, ...]) -> harness.Line:
    """Return the peak tensor memory, by way and number of calls."""
    ways = ["store", "recompute"] + (["gas"] if clone is not None else [])
    found = {
        way: {nfe: peak(theirs(nfe, clone) if clone and way == "gas" else ours(nfe, way)) for nfe in calls}
        for way in ways
    }
    low, high = calls[0], calls[-1]
    flat = found["recompute"][high] / found["recompute"][low]
    line: harness.Line = {
        "benchmark": "training", "case": "memory of an iteration", "batch": BATCH, "megabytes": found,
        "recompute_most_over_fewest_calls": flat, "goal_flat": FLAT, "verdict_flat": _said(flat <= FLAT),
    }  # fmt: skip
    if clone is None:
        return line | {"verdict": "not measured: no clone of GAS was named (--gas PATH)"}
    share = found["recompute"][high] / found["gas"][high]
    return line | {"recompute_over_gas": share, "goal": MEMORY, "verdict": _said(share <= MEMORY)}


def _said(reached: bool) -> str:
    return "reached" if reached else "missed"


def peak(step: Step) -> float:
    """Return the peak additional tensor memory during `step` in MiB, counted from allocations."""
    step()
    with torch.autograd.profiler.profile(profile_memory=True) as profile:
        step()
    events = [event for event in profile.kineto_results.events() if event.name() == "[memory]"]
    changes = [event.nbytes() for event in sorted(events, key=lambda event: event.start_ns())]
    return max(itertools.accumulate(changes)) / 2**20


def _first(pairs: int) -> harness.Line:
    """Return LD3's iteration time with the constant first call kept, relative to recomputing it each time."""
    nfe = CALLS[0]
    ways = {"kept": ours(nfe, "store", "ld3"), "again": ours(nfe, "store", "ld3", first=False)}
    times = harness.alternate(ways, pairs)
    ratio = harness.Ratio.of(times["kept"].cpu, times["again"].cpu)
    goal = (nfe - 1) / nfe * 1.05
    return {
        "benchmark": "training", "case": "first call kept", "solver": "ld3", "nfe": nfe, "batch": BATCH,
        "seconds": {name: each.as_dict() for name, each in times.items()}, "kept_over_again": ratio.as_dict(),
        "goal": goal, "verdict": ratio.verdict(at_most=goal),
    }  # fmt: skip


if __name__ == "__main__":
    harness.main(measure)
