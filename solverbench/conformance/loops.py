"""Checks of a solver's loop: calls, levels, shapes, precision, unchanged inputs, and no state between runs."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from solverbench.conformance import trials
from solverbench.conformance.trials import BUDGETS, Counter, Failed, Recorder
from solverbench.errors import BudgetError, NotLinearError
from solverbench.method import suspects
from solverbench.method.declarations import read_levels
from solverbench.method.execution import unrounded
from solverbench.method.grids import explicit
from solverbench.method.loops import sampled
from solverbench.method.schedules import NoiseSchedule
from solverbench.method.solver import Solver
from solverbench.method.spec import ranges
from solverbench.method.tracing import miscounted, trace


def linear(solver: Solver, schedule: NoiseSchedule) -> str:
    """Raise unless the loop is a fixed linear combination of the start and the outputs."""
    for _, ready, grid in trials.few(solver, schedule):
        try:
            trace(ready, grid)
        except NotLinearError as error:
            raise Failed(error.without(solver.spec)) from None
    return "loop and tableau agree on random networks"


class OwnRun(NamedTuple):
    """A run on the solver's own grid of a budget: the solver with parameters, its calls, the state and the sample."""

    ready: Solver
    calls: int
    state: Tensor
    sample: Tensor


class OwnRuns:
    """The runs of a solver on its own grids, each made once for the checks that look at all of them.

    Args:
        solver: a copy of the solver that no other check uses.
        schedule: the noise schedule.
    """

    def __init__(self, solver: Solver, schedule: NoiseSchedule) -> None:
        self.solver, self.schedule = solver, schedule
        self._made: dict[int, OwnRun | None] = {}

    def __iter__(self) -> Iterator[tuple[int, OwnRun]]:
        """Yield each budget that the solver accepts and has a grid for, with its run; an error of a run passes."""
        for budget in BUDGETS:
            if budget not in self._made:
                self._made[budget] = self._run(budget)
            if (made := self._made[budget]) is not None:
                yield budget, made

    def _run(self, budget: int) -> OwnRun | None:
        for _, ready, grid in trials.runs(self.solver, self.schedule, [budget]):
            counter, x = Counter(), trials.start(grid)
            sample = sampled(ready, counter, x, grid)
            return OwnRun(ready, counter.calls, x, sample)
        return None


def nfe(own: OwnRuns) -> str:
    """Raise unless the loop makes exactly the claimed calls and a refusal names the nearest budgets."""
    solver = own.solver
    refusals = {budget: _refusal(solver, budget) for budget in range(1, 3 * BUDGETS.stop)}
    taken = {budget for budget, refusal in refusals.items() if refusal is None}
    if not taken & set(BUDGETS):
        raise Failed(f"takes no budget from 1 to {BUDGETS[-1]}; `steps` must return intervals for some")
    counted = []
    for budget, run in own:
        if run.calls != budget:
            advice = miscounted(run.ready, own.schedule, budget, run.calls)[1]
            raise Failed(f"makes {run.calls} calls where it claims {budget}; mend the loop, or {advice}")
        counted.append(budget)
    for budget in sorted(set(BUDGETS) - taken):
        nearest = {n for n in taken if abs(n - budget) == min(abs(other - budget) for other in taken)}
        named = refusals[budget] or frozenset()
        if not named & nearest or named - taken:
            raise Failed(
                f"refuses nfe={budget} naming {sorted(named)} as nearest, not {sorted(nearest)}; use sb.refuse_budget"
            )
    refused = set(BUDGETS) - set(counted)
    return f"counted as claimed at {ranges(counted)}" + (f"; refuses {ranges(refused)}" if refused else "")


def _refusal(solver: Solver, budget: int) -> frozenset[int] | None:
    """The budgets that are named where one is refused; None if it is taken."""
    try:
        solver.steps(budget)
    except BudgetError as error:
        return error.near
    except Exception as error:  # whatever a plugin raises
        raise Failed(f"refuses nfe={budget} by {type(error).__name__} ({error}); use sb.refuse_budget") from error
    return None


def finite(own: OwnRuns) -> str:
    """Raise unless samples are finite and have the state's shape, at every budget."""
    seen = []
    for budget, (_, _, x, sample) in own:
        if sample.shape != x.shape or not sample.isfinite().all():
            raise Failed(
                f"returns {tuple(sample.shape)} with {int((~sample.isfinite()).sum())} values not finite for a state "
                f"{tuple(x.shape)} at nfe={budget}; check the coefficients on this grid"
            )
        seen.append(budget)
    return f"on its own grids of {ranges(seen)} calls"


def scrambled(solver: Solver, schedule: NoiseSchedule) -> str:
    """Raise unless grids of random falling levels give finite samples with the same number of calls."""
    for budget, ready, grid in trials.few(solver, schedule):
        grid = trials.scrambled(ready, grid)
        counter = Recorder()
        sample = sampled(ready, counter, trials.start(grid), grid)
        if not sample.isfinite().all() or counter.calls != budget:
            raise Failed(
                f"makes {counter.calls} calls, {budget} claimed, for {int(sample.isfinite().sum())} finite values of "
                f"{sample.numel()} on {'+'.join(f'{v:.3g}' for v in grid.sigmas.tolist())}; use grid.sigmas alone"
            )
    return "finite on random decreasing levels"


def last_level(solver: Solver, schedule: NoiseSchedule) -> str:
    """Raise unless the solver's grid is the one that its spec names, and a consistent loop arrives at its last level.

    Explicit levels, and GS's `t_eps`, may have other ends.
    """
    given = not isinstance(read_levels(solver.spec, solver.levels), str) or getattr(solver, "t_eps", None) is not None
    firsts, lasts = {schedule.sigma_max, schedule.sigma_first}, {schedule.sigma_min, 0.0}
    for budget, ready, grid in trials.few(solver, schedule):
        wanted = ready.steps(budget)
        if grid.steps != wanted:
            raise Failed(f"makes a grid of {grid.steps} steps for {wanted}; `grid` must return {wanted + 1} levels")
        if wrong := suspects.other_levels(ready, grid, wanted):
            raise Failed(f"{wrong}; {suspects.LEVELS_REMEDY}")
        first, last = float(grid.sigmas[0].detach()), float(grid.sigmas[-1].detach())
        if not given and not (_among(first, firsts) and _among(last, lasts)):
            raise Failed(
                f"its grid goes from {first:g} to {last:g} at nfe={budget}, the schedule from {schedule.sigma_max:g} "
                f"to {schedule.sigma_min:g}; keep the schedule's ends in `grid`"
            )
        arrived = float(trace(ready, grid, check=False).weights[-1, 0].detach()) * first
        if solver.consistent and not math.isclose(arrived, last, rel_tol=1e-6, abs_tol=1e-9):
            raise Failed(
                f"a constant image's sample is at level {arrived:.3g} at nfe={budget}, the grid ends at {last:.3g}; "
                "step to grid.sigmas[-1]"
            )
    return f"{last:g}"


def _among(value: float, levels: set[float]) -> bool:
    return any(math.isclose(value, level, rel_tol=1e-9) for level in levels)


def dtype(solver: Solver, schedule: NoiseSchedule) -> str:
    """Raise unless network inputs and sample have the state's dtype, and levels are passed in float64."""
    _, ready, grid = trials.typical(solver, schedule)
    for kind in (torch.float64, torch.float32, torch.bfloat16):
        recorder = Recorder()
        sample = sampled(ready, recorder, trials.start(grid).to(kind), grid)
        seen = {sample.dtype, *(state.dtype for state, _ in recorder.inputs)}
        if seen != {kind}:
            raise Failed(f"turns a {kind} state into {seen - {kind}}; keep coefficients as 0-d tensors")
        if any(sigma.dtype != torch.float64 or sigma.ndim for _, sigma in recorder.inputs):
            raise Failed("passes the network a level that isn't 0-d float64; pass grid.sigmas[n]")
    return "float64, float32 and bfloat16 kept; levels passed as 0-d float64"


def device(solver: Solver, schedule: NoiseSchedule) -> str:
    """Raise unless the loop runs on the state's device; the meta device tests this without other hardware."""
    _, ready, grid = trials.typical(solver, schedule)
    places = ("meta", "cuda") if torch.cuda.is_available() else ("meta",)
    for place in places:
        sample = sampled(ready, _blank, trials.start(grid).to(place), grid)
        if sample.device.type != place:
            raise Failed(f"moves the state from {place} to {sample.device}; leave it where it is")
    return f"{' and '.join(places)} kept"


def _blank(x: Tensor, sigma: Tensor, *, level: Tensor | None = None) -> Tensor:
    """Return a blank image on the state's device; on the meta device a network's operations take milliseconds each."""
    return torch.zeros_like(x)


def inputs(solver: Solver, schedule: NoiseSchedule) -> str:
    """Raise unless the state, the network's outputs and the grid are left unchanged."""
    _, ready, grid = trials.typical(solver, schedule)
    x, recorder = trials.start(grid), Recorder()
    kept, levels = x.clone(), grid.sigmas.clone()
    sampled(ready, recorder, x, grid)
    pairs = {
        "the state": [(x, kept)],
        "an output of the network": recorder.outputs,
        "the grid": [(grid.sigmas, levels)],
    }
    for what, both in pairs.items():
        changes = [float((now - before).abs().max()) for now, before in both if not torch.equal(now, before)]
        if changes:
            raise Failed(f"changes {what} in place, by up to {max(changes):.1e}; return new tensors")
    return "state, outputs and grid are unchanged"


def randomness(solver: Solver, schedule: NoiseSchedule) -> str:
    """Raise unless the global random states of torch, numpy and random are untouched."""
    _, ready, grid = trials.typical(solver, schedule)
    moved = trials.disturbed(lambda: sampled(ready, trials.network, trials.start(grid), grid))
    if moved:
        raise Failed(f"seeds or draws from {moved}; use no randomness in the loop")
    return "global random states of torch, numpy and random unchanged"


def batch(solver: Solver, schedule: NoiseSchedule) -> str:
    """Raise unless a batch of 8 gives the same as 8 batches of 1."""
    _, ready, grid = trials.typical(solver, schedule)
    x = trials.start(grid)
    together = sampled(ready, trials.network, x, grid)
    apart = torch.cat([sampled(ready, trials.network, row[None], grid) for row in x])
    error = trials.relative(together, apart)
    if not error < 1e-10:
        raise Failed(f"8 images in a batch differ from single images by {error:.1e}; use no sums over the batch")
    return f"8 images in a batch equal single images to {error:.0e}"


def repeatable(solver: Solver, schedule: NoiseSchedule) -> str:
    """Raise unless a run gives the same bits again after a run on other levels."""
    _, ready, grid = trials.typical(solver, schedule)
    first = sampled(ready, trials.network, trials.start(grid), grid)
    sampled(ready, trials.network, trials.start(grid) * 2, trials.scrambled(ready, grid))
    error = trials.relative(sampled(ready, trials.network, trials.start(grid), grid), first)
    if error != 0:
        raise Failed(f"a second run differs by {error:.1e}; keep state in local variables")
    return "the same bits after another run"


def detached(solver: Solver, schedule: NoiseSchedule) -> str:
    """Raise unless the results carry no gradient when the inputs carry none."""
    _, ready, grid = trials.typical(solver, schedule)
    sample = sampled(ready, trials.network, trials.start(grid), grid)
    if sample.requires_grad or trace(ready, grid, check=False).weights.requires_grad:
        raise Failed("its result has a gradient graph, although its inputs have none; set requires_grad on no tensor")
    return "no gradient graph for inputs without one"


def consistent(solver: Solver, schedule: NoiseSchedule) -> str:
    """Raise unless every row keeps a constant image, on the solver's own grids and on scrambled ones."""
    worst = 0.0
    for budget, ready, own in trials.few(solver, schedule):
        for grid in (own, trials.scrambled(ready, own)):
            tableau = trace(ready, grid, check=False)
            found = tableau.inconsistency()
            if not found < 1e-9 * float(tableau.weights.abs().max().clamp(min=1)):
                raise Failed(
                    f"rows miss W[k,0] = level/start or their sum by {found:.1e} at nfe={budget}; check the "
                    "level passed to each call, or declare consistent = False"
                )
            worst = max(worst, found)
    return f"rows keep a constant image, to {worst:.0e}"


def level_gradients(solver: Solver, schedule: NoiseSchedule) -> str:
    """Raise unless the sample's gradient reaches every level above 0 and agrees with finite differences.

    A step that spans several intervals may leave out levels inside it: they don't move the sample.
    """
    _, ready, own = trials.typical(solver, schedule)
    logs = own.sigmas[own.sigmas > 0].log().detach()
    ends, place = own.sigmas[own.sigmas == 0].detach(), torch.arange(len(logs))
    generator = torch.Generator().manual_seed(3)
    along = torch.randn(len(logs), dtype=torch.float64, generator=generator)

    def value(logs: Tensor) -> Tensor:
        grid = explicit(torch.cat([logs.exp(), ends]), own.schedule)
        return unrounded(trace(ready, grid, check=False), trials.network, trials.start(own)).square().sum()

    leaf = logs.clone().requires_grad_()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's, of a conversion to a number: it is told below
        found = value(leaf)
    if not found.requires_grad:
        where = suspects.conversion(ready, lambda: value(leaf))
        raise Failed(f"{where}the sample carries no gradient; keep levels as tensors, no .item()")
    (gradient,) = torch.autograd.grad(found, leaf)
    lost = [n for n, part in enumerate(gradient.tolist()) if part == 0 or not math.isfinite(part)]
    with torch.no_grad():
        still = value(logs)
        unused = [n for n in lost if ready.block > 1 and torch.equal(value(logs + 1e-3 * (place == n)), still)]
    if lost := sorted(set(lost) - set(unused)):
        where = suspects.conversion(ready, lambda: value(leaf))
        raise Failed(f"{where}no finite gradient at levels {lost}; keep coefficients as tensors")
    with torch.no_grad():
        step = 1e-5
        expected = float(value(logs + step * along) - value(logs - step * along)) / (2 * step)
    error = abs(float(gradient @ along) - expected) / float((gradient * along).abs().sum())
    if not error < 1e-5:
        raise Failed(f"is {error:.1e} away from finite differences; detach nothing, convert nothing")
    return f"finite differences agree to {error:.0e}"
