"""Checks of a tableau against the loop that it was traced from, and of its start at an infinite level."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from solverbench.errors import GridError, NotLinearError
from solverbench.method import suspects
from solverbench.method.execution import unrounded
from solverbench.method.grids import Grid
from solverbench.method.loops import plain, random_network, sampled
from solverbench.method.solver import Solver
from solverbench.method.tableau import Tableau
from solverbench.method.tape import record

GROWTH = 4.0
"""Factor by which weights may grow when the start level grows tenfold.

Weights with a logarithm of the level grow by 1.2. Those with its square root grow by 3.2, as in DPM-Solver-2 at the
midpoint, whose error falls with more calls. Weights in proportion to the level grow by 10.
"""


def check_start(solver: Solver, grid: Grid, tableau: Tableau) -> None:
    """Check that a tableau whose start replaces an infinite level has a limit as that level grows.

    Some steps, such as those of Heun, divide a difference of outputs by the level that they reach. Their weights are
    proportional to the level that they start from. From 1e6 they multiply an error of the network by a million.

    Raises:
        GridError: the weights grow with the start level.
    """
    schedule, start = grid.schedule, float(grid.sigmas[0])
    if not schedule.stands_in or start <= schedule.sigma_first * (1 + 1e-9):
        return
    higher = grid.sigmas.detach().clone()
    higher[0] *= 10
    if record(solver, Grid(higher, schedule)).amplification > GROWTH * tableau.amplification:
        raise GridError(
            asked=f"{solver.name}:grid={solver.levels}",
            wrong=f"starts at {start:g}, which stands for an infinite level, and its weights grow with that level",
            remedy="use grid=polynomial or grid=logsnr, which start at a finite one, or a solver of one call a step",
        )


ROUNDINGS = 512
"""Number of rounding errors, of its start and of each operation, by which a sample of loop and tableau may differ."""


_checked: set[tuple[type[Solver], str, tuple[float, ...]]] = set()


def check_linear(solver: Solver, grid: Grid, tableau: Tableau) -> None:
    """Compare loop and tableau on two random networks and two start scales; remember which passed.

    Raises:
        LoopError: see `sampled`.
        NotLinearError: they differ.
    """
    seen = type(solver), solver.spec, tuple(grid.sigmas.tolist())
    if seen in _checked and not solver.learned:
        return
    generator = torch.Generator().manual_seed(0)
    for scale in (1.0, 0.1):
        network = random_network(generator)
        x = torch.randn(3, 2, 2, 2, dtype=torch.float64, generator=generator) * scale * float(tableau.start)
        calls = 0

        def denoise(
            x: Tensor, sigma: Tensor, *, level: Tensor | None = None, network: Callable[..., Tensor] = network
        ) -> Tensor:
            nonlocal calls
            calls += 1
            return network(x, sigma)

        with torch.no_grad():
            by_loop = sampled(solver, denoise, x, grid)
            by_tableau = unrounded(tableau, network, x)
        size, gap = float(by_loop.abs().max()), float((by_loop - by_tableau).abs().max())
        # From a high start level, the rounding error of x, which nearly cancels, exceeds that of the sample.
        allowed = 1e-10 * size + ROUNDINGS * torch.finfo(x.dtype).eps * float(x.abs().max())
        if gap > allowed:
            allowed += _rounding(solver, network, x, grid, by_loop)
        error = gap / size
        if calls != tableau.nfe or not math.isfinite(error) or gap > allowed:
            counts = "" if calls == tableau.nfe else f", {calls} and {tableau.nfe} calls"
            differ = f"loop and tableau differ on a random network (relative {error:.1e}{counts})"
            run = partial(sampled, solver, plain(network), x, grid)
            why = suspects.cause(solver, run, x.shape, fixed=calls == tableau.nfe)
            if why is None and calls != tableau.nfe:
                why = "the number of calls depends on the values, as with an adaptive step size", suspects.FIXED
            wrong, remedy = why or ("", f"{suspects.LINEARLY}, without branches on their values")
            raise NotLinearError(asked=solver.spec, wrong=f"{wrong}: {differ}" if wrong else differ, remedy=remedy)
    _checked.add(seen)


def _rounding(solver: Solver, network: Callable[..., Tensor], x: Tensor, grid: Grid, sample: Tensor) -> float:
    """Return how far a loop's sample moves if the result of each operation on images has `ROUNDINGS` rounding errors.

    It is 0 for a loop that gives another sample each time: what moves there is no rounding.
    Large weights that cancel lose digits, which no weight of the tableau shows where they cancel between two steps.
    Coefficients are left as they are: loop and tableau compute the same ones.
    """

    def exactly(x: Tensor, sigma: Tensor) -> Tensor:
        with torch._C.DisableTorchFunction():
            return network(x, sigma)

    with torch.no_grad():
        if not torch.equal(sampled(solver, plain(network), x, grid), sample):
            return 0.0
        with _Inexact(x.shape):
            moved = sampled(solver, plain(exactly), x, grid)
    return float((moved - sample).abs().max())


class _Inexact(TorchFunctionMode):
    """Multiply the results of the given shape by 1 + e, with e of random sign and `ROUNDINGS` rounding errors."""

    def __init__(self, shape: torch.Size) -> None:
        super().__init__()
        self.shape, self.generator = shape, torch.Generator().manual_seed(0)

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        found = func(*args, **(kwargs or {}))
        if not isinstance(found, Tensor) or found.shape != self.shape or not found.is_floating_point():
            return found
        signs = torch.randint(0, 2, self.shape, generator=self.generator).to(found) * 2 - 1
        return found * (1 + ROUNDINGS * torch.finfo(found.dtype).eps * signs)
