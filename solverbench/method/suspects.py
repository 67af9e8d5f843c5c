"""Diagnoses of a solver's loop that can't be run as a tableau, or whose tableau isn't that of its spec."""

from __future__ import annotations

import inspect
import math
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from solverbench import registries
from solverbench.errors import GridError, LoopError
from solverbench.method.declarations import read_levels
from solverbench.method.grids import Grid, named
from solverbench.method.schedules import NoiseSchedule
from solverbench.method.solver import Solver, built_in
from solverbench.method.tableau import Tableau

RANDOM = frozenset(
    {
        "bernoulli", "bernoulli_", "cauchy_", "dropout", "exponential_", "geometric_", "log_normal_", "multinomial",
        "normal", "normal_", "poisson", "rand", "rand_like", "randint", "randint_like", "randn", "randn_like",
        "random_", "randperm", "uniform_",
    }
)  # fmt: skip
"""Names of torch's functions and methods that draw random numbers."""

NONLINEAR = frozenset(
    {
        "abs", "absolute", "amax", "amin", "ceil", "clamp", "clamp_max", "clamp_min", "clip", "cos", "erf", "exp",
        "expm1", "floor", "ge", "gt", "le", "linalg_norm", "linalg_vector_norm", "log", "log1p", "lt", "max", "maximum",
        "min", "minimum", "nan_to_num", "norm", "normalize", "pow", "quantile", "reciprocal", "relu", "round", "rsqrt",
        "sigmoid", "sign", "sin", "softmax", "sqrt", "square", "std", "tanh", "var", "vector_norm", "where",
    }
)  # fmt: skip
"""Names of torch's functions and methods that are not linear in an image."""

PRODUCTS = frozenset({"bmm", "div", "divide", "einsum", "matmul", "mul", "multiply", "rdiv", "true_divide", "truediv"})
"""Names of those that are not linear in two images."""

CONVERSIONS = frozenset({"array", "detach", "float", "int", "item", "numpy", "tolist"})
"""Names of those whose result carries no gradient."""

LINEARLY = "combine x and the outputs linearly, with numbers made from grid.sigmas"
"""Remedy for a loop that does something else with them."""

DETERMINISTIC = (
    "solvers here are deterministic: leave the noise out, as ancestral sampling, SDE solvers and churn do with eta = 0"
)
"""Remedy for a stochastic solver."""

FIXED = "end it at grid.steps: the grid fixes the steps, an adaptive step size can't be run"
"""Remedy for a loop that doesn't end, or whose number of calls depends on values."""

NETWORK = "solverbench.method.loops"
"""Module whose denoiser calls the network, which is not linear."""

GROSS = 1e-6
"""Deviation, as a share of the largest weight, from which a tableau doesn't keep a constant image; float32 coefficients
deviate by 1e-7."""


class _Watch(TorchFunctionMode):
    """Record the first operation of some kinds in a loop, each as (name, FILE:LINE).

    They are a random draw, a result below float64, an operation that isn't linear in images, and one that turns a
    tensor with gradient into a number without.

    Args:
        module: module of the loop's class.
        shape: shape of its states.
    """

    def __init__(self, module: str, shape: torch.Size) -> None:
        super().__init__()
        self.module, self.shape = module, shape
        self.random: tuple[str, str] | None = None
        self.narrow: tuple[str, str] | None = None
        self.nonlinear: tuple[str, str] | None = None
        self.converted: tuple[str, str] | None = None

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        found = func(*args, **(kwargs or {}))
        name = getattr(func, "__name__", "")
        if self.random is None and name in RANDOM:
            self.random = name, self._place()
        floating = isinstance(found, Tensor) and found.is_floating_point()
        if self.narrow is None and floating and found.dtype != torch.float64 and (place := self._place()):
            self.narrow = name, place
        name = name.strip("_")
        if self.nonlinear is None and self._bends(name, args) and (place := self._place()):
            self.nonlinear = name, place
        if self.converted is None and self._converts(name, args) and (place := self._place(own=True)):
            self.converted = name, place
        return found

    def _bends(self, name: str, args: tuple[Any, ...]) -> bool:
        """Return whether an operation isn't linear in the states among its arguments."""
        count = sum(isinstance(each, Tensor) and each.shape == self.shape for each in args)
        return (count > 0 and name in NONLINEAR) or (count > 1 and name in PRODUCTS)

    def _converts(self, name: str, args: tuple[Any, ...]) -> bool:
        """Return whether an operation loses the gradient of an argument."""
        return name in CONVERSIONS and any(isinstance(each, Tensor) and each.requires_grad for each in args)

    def _place(self, *, own: bool = False) -> str:
        """Return FILE:LINE of the innermost frame in the loop's module; empty in a call of the network.

        Args:
            own: whether to return nothing for what code of this package does for the loop.
        """
        frame = inspect.currentframe()
        while frame is not None and (module := frame.f_globals.get("__name__", "")) != NETWORK:
            if module == self.module:
                return f"{frame.f_code.co_filename}:{frame.f_lineno}"
            if own and module != __name__ and module.partition(".")[0] == "solverbench":
                return ""
            frame = frame.f_back
        return ""


def cause(
    solver: Solver, run: Callable[[], Tensor], shape: torch.Size, *, fixed: bool = True
) -> tuple[str, str] | None:
    """Return why a solver's loop is no fixed linear combination, and what to do; None if it isn't known.

    Args:
        run: runs the loop on the same input each time and returns its sample.
        shape: shape of the states in it.
        fixed: whether the loop makes the calls that it is traced with. If not, what it computes to decide on more of
            them isn't the cause.
    """
    watch = _Watch(type(solver).__module__, shape)
    try:
        with torch.no_grad():
            with watch:
                first = run()
            second = run()
    except LoopError:
        return None
    if watch.random is not None:
        name, place = watch.random
        return f"{_at(place)}the loop draws random numbers ({name})", DETERMINISTIC
    if first.shape != second.shape or not torch.equal(first, second):
        return (
            "two runs of the loop from one state differ: it draws random numbers, or keeps something from run to run",
            DETERMINISTIC,
        )
    if watch.narrow is not None:
        name, place = watch.narrow
        return (
            f"{_at(place)}levels or coefficients are in float32 or below ({name})",
            "keep them in float64, as grid.sigmas is",
        )
    if watch.nonlinear is not None and fixed:
        name, place = watch.nonlinear
        if name in PRODUCTS:
            return f"{_at(place)}the loop multiplies or divides states or outputs by each other ({name})", LINEARLY
        return f"{_at(place)}the loop applies {name} to a state or an output, which isn't linear", LINEARLY
    return None


def conversion(solver: Solver, run: Callable[[], Tensor]) -> str:
    """Return where a solver's loop turns a level or a coefficient into a number without gradient; empty if nowhere.

    Args:
        run: runs the loop on levels that carry gradient.
    """
    watch = _Watch(type(solver).__module__, torch.Size())
    with watch, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's, of the same
        run()
    return "" if watch.converted is None else f"{_at(watch.converted[1])}{watch.converted[0]}() of a level: "


def _at(place: str) -> str:
    return f"{place}: " if place else ""


def calls_advice(solver: Solver, schedule: NoiseSchedule, nfe: int, made: int, count: Callable[[Grid], int]) -> str:
    """Return the remedy for a solver that makes `made` calls on the grid of `steps(nfe)` intervals.

    Args:
        count: grid -> calls that the loop makes on it.
    """
    steps, possible = solver.steps(nfe), dict[int, int]()
    for other in sorted(range(1, 2 * max(nfe, steps) + 3), key=lambda other: abs(other - steps)):
        try:
            calls = count(solver.grid(schedule, other))
        except Exception:  # a plugin may raise anything; another number of steps may do
            continue
        if calls == nfe:
            return f"let steps({nfe}) return {other}, with which it makes {nfe} calls"
        possible[calls] = other
    near = sorted(sorted(possible, key=lambda calls: (abs(calls - nfe), calls))[:2])
    return f"let steps({nfe}) refuse (sb.refuse_budget): the loop can make {' or '.join(map(str, near or [made]))}"


def gross(solver: Solver, tableau: Tableau) -> str:
    """Return what is grossly wrong with the traced loop of a solver that isn't built in; empty if nothing is.

    A row of a solver that declares `consistent` gives a constant image d as d and unit noise at the level that the
    network is told. It doesn't where another level is told, or the output is taken for the noise.
    """
    if built_in(type(solver)) or not solver.consistent:
        return ""
    weights, kept = tableau.weights.detach(), (tableau.levels / tableau.start).detach()
    noise, data = weights[:, 0] - kept, weights[:, 1:].sum(1) - (1 - kept)
    allowed = GROSS * float(weights.abs().max().clamp(min=1))
    wrong = torch.maximum(noise.abs(), data.abs()) > allowed
    if not wrong.any():
        return ""
    row = int(wrong.double().argmax())
    what = f"call {row + 1}" if row < tableau.nfe else "the end"
    start = float(tableau.start)
    if abs(float(noise[row])) > allowed:
        found = (
            f"the state has the noise of level {float(weights[row, 0]) * start:.3g}, not {float(kept[row]) * start:.3g}"
        )
    else:
        found = f"the outputs' weights sum to {float(weights[row, 1:].sum()):.3g}, not {1 - float(kept[row]):.3g}"
    return f"{registries.origin(type(solver).integrate)}: at {what} {found}"


GROSS_REMEDY = (
    "denoise returns the clean image, not the noise, and is told the level of the state that it is given; if it is "
    "meant, declare consistent = False"
)
"""Remedy for a solver that `gross` finds wrong."""


def believed(solver: Solver, tableau: Tableau) -> Tableau:
    """Return the tableau, unless a plugin's solver is grossly wrong, see `gross`.

    Raises:
        LoopError: it is.
    """
    if wrong := gross(solver, tableau):
        raise LoopError(asked=solver.spec, wrong=wrong, remedy=GROSS_REMEDY)
    return tableau


def other_levels(solver: Solver, grid: Grid, steps: int) -> str:
    """Return how a grid differs from the one that the solver's spec names; empty if it doesn't.

    Only `grid` of a class that isn't built in is doubted, and not that of a learned solver, whose levels are trained.
    It may add levels to those of the named grid, such as a last one of 0 or levels in between.
    """
    method, solver = type(solver).grid, solver.on(grid.schedule)
    asked = read_levels(solver.spec, solver.levels)
    if solver.learned or not isinstance(asked, str) or method.__module__.partition(".")[0] == "solverbench":
        return ""
    found = grid.sigmas.detach()
    inner = found[1:][found[1:] > 0][:-1] if float(found[-1]) > 0 else found[1:-1]
    if not len(inner):
        return ""
    for count in range(min(grid.steps, steps + 1), 1, -1):
        try:
            levels = named(asked, grid.schedule, count, **solver.grid_parameters).sigmas
        except GridError:
            continue
        if all(((found - level).abs() <= 1e-9 * level).any() for level in levels[levels > 0]):
            return ""
    first = float(inner[0])
    try:
        there = float(named(asked, grid.schedule, steps, **solver.grid_parameters).sigmas[1])
        beside = f", where grid={solver.levels} has {there:.4g}" if not math.isclose(first, there) else ""
    except GridError:
        beside = ""
    return f"{registries.origin(method)}: its own `grid` makes other levels than its spec says ({first:.4g}{beside})"


LEVELS_REMEDY = (
    "register the function that makes them (kind='grid') and give the class levels = \"NAME\", so that the spec says so"
)
"""Remedy for a class whose `grid` makes other levels than its spec says."""
