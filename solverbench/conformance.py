"""What every solver must pass, as plain functions: run them from a test of your own, or with `run_all`.

@pytest.mark.parametrize("check", conformance.checks(Mine()), ids=str)
def test_mine(check):
    check()
"""

from __future__ import annotations

import itertools
import math
import pickle
import random
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from solverbench import order
from solverbench.errors import BudgetError, GridError, NotLinearError, UserError
from solverbench.execution import unrounded
from solverbench.grids import Grid, explicit
from solverbench.schedules import EDM, NoiseSchedule
from solverbench.solver import LearnedSolver, Solver, declared, parse_value
from solverbench.tracing import trace

BUDGETS = range(1, 13)
TOLERANCE = 0.25
"""How far a measured order may be from the declared one."""

SHAPE = (2, 2, 2)


class ConformanceError(AssertionError):
    """A solver that doesn't keep what every solver promises: one line with solver, check, finding and remedy."""


@dataclass(frozen=True)
class Check:
    """One check of one solver; call it to run it.

    Raises, when called:
        ConformanceError: the solver doesn't pass.
    """

    name: str
    solver: Solver
    schedule: NoiseSchedule
    function: Callable[[Solver, NoiseSchedule], None]

    def __call__(self) -> None:
        self.function(self.solver, self.schedule)

    def __str__(self) -> str:
        return self.name


class Outcome(NamedTuple):
    """How a check went; `line` says what was found."""

    name: str
    passed: bool
    line: str


def checks(solver: Solver, schedule: NoiseSchedule | None = None) -> list[Check]:
    """Return the checks that apply to `solver`.

    Args:
        solver: the instance; what options change is checked for each instance. A learned solver without parameters
            is checked with its initial ones, moved a little.
        schedule: the one to sample on; EDM() if not given.
    """
    found = [function for function, applies in _CHECKS.items() if applies(solver)]
    return [Check(function.__name__, solver, schedule or EDM(), function) for function in found]


def run_all(solver: Solver, schedule: NoiseSchedule | None = None) -> Iterator[Outcome]:
    """Yield the outcome of every check that applies; an exception of any kind is a failure."""
    for check in checks(solver, schedule):
        try:
            check()
        except ConformanceError as error:
            yield Outcome(check.name, False, str(error))
        except Exception as error:
            reason = str(error).partition("\n")[0]
            yield Outcome(check.name, False, f"{solver.spec}: {check.name}: raised {type(error).__name__}: {reason}")
        else:
            yield Outcome(check.name, True, f"{solver.spec}: {check.name}")


def documented(solver: Solver, schedule: NoiseSchedule) -> None:
    """Raise unless the class says what it is and where it comes from."""
    cls = type(solver)
    doc = cls.__dict__.get("__doc__") or ""
    if not doc.strip() or doc.startswith(f"{cls.__name__}("):  # a dataclass without one gets its signature
        raise _failed(solver, documented, "has no docstring; say in a line what the method is")
    if not cls.paper:
        raise _failed(solver, documented, "has no `paper`; name its source, or say that it is unpublished")


def spec_round_trip(solver: Solver, schedule: NoiseSchedule) -> None:
    """Raise unless the canonical spec, read again, gives the same solver."""
    name, *parts = solver.spec.split(":")
    given = {}
    for key, _, text in (part.partition("=") for part in parts):
        field, kind = declared(type(solver))[key]
        given[field.name] = parse_value(solver.spec, kind, text)
    again = type(solver)(**given)
    if again != solver or again.spec != solver.spec or name != type(solver).name:
        raise _failed(solver, spec_round_trip, f"reads back as {again.spec}; declare options with sb.option")


def representable(solver: Solver, schedule: NoiseSchedule) -> None:
    """Raise unless the repr is one line that names the class and is the same for an equal solver."""
    text = repr(solver)
    if type(solver).__name__ not in text or "\n" in text or " at 0x" in text:
        raise _failed(solver, representable, f"repr is {text[:60]!r}; leave the dataclass's own")


def linear(solver: Solver, schedule: NoiseSchedule) -> None:
    """Raise unless the loop is a fixed linear combination of the start and the outputs."""
    for _, ready, grid in _few(solver, schedule):
        try:
            trace(ready, grid)
        except NotLinearError as error:
            raise _failed(solver, linear, str(error)) from None


def nfe(solver: Solver, schedule: NoiseSchedule) -> None:
    """Raise unless it makes exactly the calls it claims, and refuses other budgets naming the nearest it takes."""
    taken = {budget for budget in range(1, 3 * BUDGETS.stop) if _steps(solver, budget) is not None}
    if not taken & set(BUDGETS):
        raise _failed(solver, nfe, f"takes no budget from 1 to {BUDGETS[-1]}; `steps` must return intervals for some")
    for budget, ready, grid in _runs(solver, schedule):
        counter = _Recorder()
        ready.sample(counter, _start(grid), grid)
        if counter.calls != budget:
            raise _failed(
                solver, nfe, f"makes {counter.calls} calls where it claims {budget}; mend `steps` or the loop"
            )
    for budget in sorted(set(BUDGETS) - taken):
        nearest = {n for n in taken if abs(n - budget) == min(abs(other - budget) for other in taken)}
        named = {int(number) for number in re.findall(r"nfe=(\d+)", _refusal(solver, budget))} - {budget}
        if not named & nearest or named - taken:
            raise _failed(
                solver,
                nfe,
                f"refuses nfe={budget} naming {sorted(named)} as nearest, not {sorted(nearest)}; use sb.refuse_budget",
            )


def finite(solver: Solver, schedule: NoiseSchedule) -> None:
    """Raise unless samples are finite and have the state's shape."""
    for budget, ready, grid in _few(solver, schedule):
        x = _start(grid)
        sample = ready.sample(_network, x, grid)
        if sample.shape != x.shape or not sample.isfinite().all():
            raise _failed(
                solver,
                finite,
                f"returns {tuple(sample.shape)} with {int((~sample.isfinite()).sum())} values not finite for a state "
                f"{tuple(x.shape)} at nfe={budget}; check the coefficients on this grid",
            )


def scrambled(solver: Solver, schedule: NoiseSchedule) -> None:
    """Raise unless grids of random falling levels give finite samples with the same number of calls."""
    for budget, ready, grid in _few(solver, schedule):
        grid = _scrambled(grid)
        counter = _Recorder()
        sample = ready.sample(counter, _start(grid), grid)
        if not sample.isfinite().all() or counter.calls != budget:
            raise _failed(
                solver,
                scrambled,
                f"makes {counter.calls} calls, {budget} claimed, for {int(sample.isfinite().sum())} finite values of "
                f"{sample.numel()} on {'+'.join(f'{v:.3g}' for v in grid.sigmas.tolist())}; use grid.sigmas alone",
            )


def dtype(solver: Solver, schedule: NoiseSchedule) -> None:
    """Raise unless network and sample have the state's dtype, and levels are told in float64."""
    _, ready, grid = _typical(solver, schedule)
    for kind in (torch.float64, torch.float32, torch.bfloat16):
        recorder = _Recorder()
        sample = ready.sample(recorder, _start(grid).to(kind), grid)
        seen = {sample.dtype, *(state.dtype for state, _ in recorder.inputs)}
        if seen != {kind}:
            raise _failed(solver, dtype, f"turns a {kind} state to {seen - {kind}}; keep coefficients as 0-d tensors")
        if any(sigma.dtype != torch.float64 or sigma.ndim for _, sigma in recorder.inputs):
            raise _failed(solver, dtype, "tells the network a level that isn't 0-d float64; pass grid.sigmas[n]")


def device(solver: Solver, schedule: NoiseSchedule) -> None:
    """Raise unless the loop runs where the state is; the meta device shows it without other hardware."""
    _, ready, grid = _typical(solver, schedule)
    for place in ("meta", "cuda") if torch.cuda.is_available() else ("meta",):
        sample = ready.sample(_network, _start(grid).to(place), grid)
        if sample.device.type != place:
            raise _failed(solver, device, f"moves the state from {place} to {sample.device}; leave it where it is")


def inputs(solver: Solver, schedule: NoiseSchedule) -> None:
    """Raise unless the state, the outputs of the network and the grid are left as they were."""
    _, ready, grid = _typical(solver, schedule)
    x, recorder = _start(grid), _Recorder()
    kept, levels = x.clone(), grid.sigmas.clone()
    ready.sample(recorder, x, grid)
    pairs = {
        "the state": [(x, kept)],
        "an output of the network": recorder.outputs,
        "the grid": [(grid.sigmas, levels)],
    }
    for what, both in pairs.items():
        if any(not torch.equal(now, before) for now, before in both):
            raise _failed(solver, inputs, f"changes {what} in place; return new tensors")


def randomness(solver: Solver, schedule: NoiseSchedule) -> None:
    """Raise unless the global random states of torch, numpy and random are untouched."""
    before = _random_states()
    _, ready, grid = _typical(solver, schedule)
    ready.sample(_network, _start(grid), grid)
    after = _random_states()
    moved = [name for name in before if before[name] != after[name]]
    if moved:
        raise _failed(solver, randomness, f"seeds or draws from {' and '.join(moved)}; a loop has no randomness")


def batch(solver: Solver, schedule: NoiseSchedule) -> None:
    """Raise unless a batch of 8 is 8 batches of 1."""
    _, ready, grid = _typical(solver, schedule)
    x = _start(grid)
    together = ready.sample(_network, x, grid)
    apart = torch.cat([ready.sample(_network, row[None], grid) for row in x])
    error = _relative(together, apart)
    if not error < 1e-10:
        raise _failed(solver, batch, f"8 images at once differ from one by one by {error:.1e}; no sums over a batch")


def repeatable(solver: Solver, schedule: NoiseSchedule) -> None:
    """Raise unless the same run gives the same bits again, after another one on other levels."""
    _, ready, grid = _typical(solver, schedule)
    first = ready.sample(_network, _start(grid), grid)
    ready.sample(_network, _start(grid) * 2, _scrambled(grid))
    error = _relative(ready.sample(_network, _start(grid), grid), first)
    if error != 0:
        raise _failed(solver, repeatable, f"a second run differs by {error:.1e}; keep state in local variables")


def detached(solver: Solver, schedule: NoiseSchedule) -> None:
    """Raise unless nothing carries gradient where nothing that came in does."""
    _, ready, grid = _typical(solver, schedule)
    sample = ready.sample(_network, _start(grid), grid)
    if sample.requires_grad or trace(ready, grid, check=False).weights.requires_grad:
        raise _failed(solver, detached, "returns a result with a gradient graph; make no tensor require gradient")


def consistent(solver: Solver, schedule: NoiseSchedule) -> None:
    """Raise unless every row keeps a constant image, on the solver's own grids and on scrambled ones."""
    for budget, ready, own in _few(solver, schedule):
        for grid in (own, _scrambled(own)):
            tableau = trace(ready, grid, check=False)
            found = tableau.inconsistency()
            if not found < 1e-9 * float(tableau.weights.abs().max().clamp(min=1)):
                raise _failed(
                    solver,
                    consistent,
                    f"rows miss W[k,0] = level/start or their sum by {found:.1e} at nfe={budget}; check which level "
                    "each call is told, or declare consistent = False",
                )


def level_gradients(solver: Solver, schedule: NoiseSchedule) -> None:
    """Raise unless the sample's gradient reaches every level above 0 and is that of finite differences."""
    _, ready, own = _typical(solver, schedule)
    logs = own.sigmas[own.sigmas > 0].log().detach()
    ends = own.sigmas[own.sigmas == 0].detach()
    generator = torch.Generator().manual_seed(3)
    along = torch.randn(len(logs), dtype=torch.float64, generator=generator)

    def value(logs: Tensor) -> Tensor:
        grid = explicit(torch.cat([logs.exp(), ends]), own.schedule)
        return unrounded(trace(ready, grid, check=False), _network, _start(own)).square().sum()

    leaf = logs.clone().requires_grad_()
    found = value(leaf)
    if not found.requires_grad:
        raise _failed(solver, level_gradients, "the sample carries no gradient; keep levels as tensors, no .item()")
    (gradient,) = torch.autograd.grad(found, leaf)
    lost = [n for n, part in enumerate(gradient.tolist()) if part == 0 or not math.isfinite(part)]
    if lost:
        raise _failed(solver, level_gradients, f"no finite gradient at levels {lost}; keep coefficients as tensors")
    with torch.no_grad():
        step = 1e-5
        expected = float(value(logs + step * along) - value(logs - step * along)) / (2 * step)
    error = abs(float(gradient @ along) - expected) / float((gradient * along).abs().sum())
    if not error < 1e-5:
        raise _failed(
            solver, level_gradients, f"is {error:.1e} away from finite differences; detach nothing, convert nothing"
        )


def parameter_gradients(solver: Solver, schedule: NoiseSchedule) -> None:
    """Raise unless the sample's gradient reaches every parameter of a learned solver."""
    budget, ready, _ = _typical(solver, schedule)
    assert isinstance(ready, LearnedSolver)
    leaves = {name: value.detach().clone().requires_grad_() for name, value in ready.trained.items()}
    ready = ready.with_parameters(leaves)
    grid = ready.grid(schedule, ready.steps(budget))
    sample = unrounded(trace(ready, grid, check=False), _network, _start(grid))
    gradients = torch.autograd.grad(sample.square().sum(), list(leaves.values()), allow_unused=True)
    for (name, leaf), gradient in zip(leaves.items(), gradients, strict=True):
        if leaf.numel() and (gradient is None or not gradient.isfinite().all() or not gradient.any()):
            raise _failed(
                solver, parameter_gradients, f"no finite gradient reaches {name!r}; use it in the loop, undetached"
            )


def wrong_parameters(solver: Solver, schedule: NoiseSchedule) -> None:
    """Raise unless a learned solver refuses a number of steps that its parameters aren't for."""
    _, ready, grid = _typical(solver, schedule)
    try:
        ready.grid(schedule, grid.steps + 1)
    except UserError:
        return
    raise _failed(
        solver, wrong_parameters, f"parameters for {grid.steps} steps make a grid of {grid.steps + 1}; raise GridError"
    )


def local_order(solver: Solver, schedule: NoiseSchedule) -> None:
    """Raise unless a regular step has the declared order, corrected if the solver corrects."""
    _compare(solver, local_order, solver.local_order, order.local_order(solver))


def predicted_order(solver: Solver, schedule: NoiseSchedule) -> None:
    """Raise unless a regular step has the declared order before its corrector."""
    _compare(solver, predicted_order, solver.predicted_order, order.predicted_order(solver))


def global_order(solver: Solver, schedule: NoiseSchedule) -> None:
    """Raise unless the whole sample, with first steps and end rule, has the declared order."""
    _compare(solver, global_order, solver.global_order, order.global_order(solver))


_CHECKS: dict[Callable[[Solver, NoiseSchedule], None], Callable[[Solver], bool]] = {
    documented: lambda solver: True,
    spec_round_trip: lambda solver: True,
    representable: lambda solver: True,
    linear: lambda solver: True,
    nfe: lambda solver: True,
    finite: lambda solver: True,
    scrambled: lambda solver: True,
    dtype: lambda solver: True,
    device: lambda solver: True,
    inputs: lambda solver: True,
    randomness: lambda solver: True,
    batch: lambda solver: True,
    repeatable: lambda solver: True,
    detached: lambda solver: True,
    consistent: lambda solver: solver.consistent,
    level_gradients: lambda solver: True,
    parameter_gradients: lambda solver: solver.learned,
    wrong_parameters: lambda solver: solver.learned,
    local_order: lambda solver: solver.local_order is not None,
    predicted_order: lambda solver: solver.predicted_order is not None and solver.block == 1,
    global_order: lambda solver: solver.global_order is not None,
}
"""Every check, with the solvers to which it applies."""


class _Recorder:
    """The network, with what it was handed and what it returned, the latter beside a copy."""

    def __init__(self) -> None:
        self.inputs: list[tuple[Tensor, Tensor]] = []
        self.outputs: list[tuple[Tensor, Tensor]] = []

    @property
    def calls(self) -> int:
        return len(self.inputs)

    def __call__(self, x: Tensor, sigma: Tensor, *, level: Tensor | None = None) -> Tensor:
        d = _network(x, sigma)
        self.inputs.append((x, sigma))
        self.outputs.append((d, d.clone()))
        return d


_MATRIX = torch.randn(8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(1)) / 3


def _network(x: Tensor, sigma: Tensor, *, level: Tensor | None = None) -> Tensor:
    """A denoiser that isn't linear and treats each image by itself."""
    inside = (x / (1 + sigma**2).sqrt()).flatten(1) @ _MATRIX.to(x)
    return torch.asinh(inside).reshape(x.shape)  # never flat, so that every gradient shows


def _start(grid: Grid) -> Tensor:
    """[8, 2, 2, 2] noise at the grid's start."""
    noise = torch.randn(8, *SHAPE, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    return noise * float(grid.sigmas[0].detach())


def _runs(
    solver: Solver, schedule: NoiseSchedule, budgets: Iterable[int] = BUDGETS
) -> Iterator[tuple[int, Solver, Grid]]:
    """(calls, solver with parameters, grid) for every budget that the solver takes and has a grid for."""
    for budget in budgets:
        steps = _steps(solver, budget)
        if steps is None:
            continue
        try:
            ready = _with_parameters(solver, schedule, budget)
            yield budget, ready, ready.grid(schedule, steps)
        except GridError:  # a table of levels, or a list of them, for other numbers of steps
            continue


def _typical(solver: Solver, schedule: NoiseSchedule) -> tuple[int, Solver, Grid]:
    """The run nearest to 6 calls."""
    for run in _runs(solver, schedule, sorted(BUDGETS, key=lambda budget: abs(budget - 6))):
        return run
    raise _failed(solver, nfe, f"has no grid for any budget from 1 to {BUDGETS[-1]}; check `steps` and `grid`")


def _few(solver: Solver, schedule: NoiseSchedule) -> list[tuple[int, Solver, Grid]]:
    """The smallest, the typical and the largest run."""
    smallest, largest = (list(itertools.islice(_runs(solver, schedule, way), 1)) for way in (BUDGETS, BUDGETS[::-1]))
    return [*smallest, _typical(solver, schedule), *largest]


def _steps(solver: Solver, budget: int) -> int | None:
    try:
        return solver.steps(budget)
    except BudgetError:
        return None


def _refusal(solver: Solver, budget: int) -> str:
    try:
        solver.steps(budget)
    except BudgetError as error:
        return str(error)
    return ""


def _with_parameters(solver: Solver, schedule: NoiseSchedule, budget: int) -> Solver:
    """A learned solver with its initial parameters, moved a little, so that none acts as if it weren't there."""
    if not isinstance(solver, LearnedSolver) or solver.parameters is not None:
        return solver
    generator = torch.Generator().manual_seed(budget)
    return solver.with_parameters(
        {
            name: value + 1e-4 * torch.randn(value.shape, dtype=value.dtype, generator=generator)
            for name, value in solver.initial(schedule, budget).items()
        }
    )


def _scrambled(grid: Grid) -> Grid:
    """Random levels between the ends of `grid`, no two within 2 % of the whole in log sigma."""
    logs = grid.sigmas[grid.sigmas > 0].detach().log()
    generator = torch.Generator().manual_seed(4)
    gaps = torch.rand(len(logs) - 1, dtype=torch.float64, generator=generator) ** 2 + 0.02
    places = torch.cat([gaps.new_zeros(1), gaps.cumsum(0) / gaps.sum()])
    levels = (logs[0] + places * (logs[-1] - logs[0])).exp()
    return explicit(torch.cat([levels, grid.sigmas[len(logs) :].detach()]), grid.schedule)


def _random_states() -> dict[str, bytes]:
    return {
        "torch": torch.get_rng_state().numpy().tobytes(),
        "numpy": pickle.dumps(np.random.get_state()),  # noqa: NPY002 - the state that a loop might touch
        "random": pickle.dumps(random.getstate()),
    }


def _relative(a: Tensor, b: Tensor) -> float:
    return float((a - b).abs().max() / b.abs().max())


def _compare(
    solver: Solver, check: Callable[[Solver, NoiseSchedule], None], claim: int | None, found: order.Slopes
) -> None:
    assert claim is not None
    if not all(abs(slope - claim) <= TOLERANCE for slope in found.values()):
        slopes = ", ".join(f"{name} {slope:.2f}" for name, slope in found.items())
        raise _failed(solver, check, f"declares {claim}, measured {slopes}; mend the coefficients or the declaration")


def _failed(solver: Solver, check: Callable[[Solver, NoiseSchedule], None], finding: str) -> ConformanceError:
    return ConformanceError(f"{solver.spec}: {check.__name__}: {finding}")
