"""The solver base classes: options, grid, and a textbook loop over `x` and `denoise(x, sigma)`."""

from __future__ import annotations

import dataclasses
import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Protocol, Self, dataclass_transform

from torch import Tensor

from solverbench import registries
from solverbench.errors import BudgetError, GridError, SpecError, TrainingError
from solverbench.method import grids
from solverbench.method.declarations import (
    RESERVED,
    Unnamed,
    check,
    declared,
    option,
    own_defaults,
    read_levels,
    shown,
    spec_key,
    write_levels,
)
from solverbench.method.grids import Grid
from solverbench.method.schedules import EDM, NoiseSchedule
from solverbench.method.tableau import Tableau
from solverbench.registries import recipe_names


class Denoise(Protocol):
    """The denoiser passed to a loop: returns the data prediction for state `x`, with `sigma` passed to the network.

    `level` is the noise level of the state itself; give it only where it differs from `sigma`.
    """

    def __call__(self, x: Tensor, sigma: Tensor, *, level: Tensor | None = None) -> Tensor: ...


@dataclass_transform(frozen_default=True, kw_only_default=True, field_specifiers=(option,))
@dataclasses.dataclass(frozen=True, kw_only=True)
class Solver(ABC):
    """One method: a frozen dataclass whose fields are its options, with the paper's loop as `integrate`.

    To write one: subclass, set `name`, define `integrate`. Every subclass becomes a frozen keyword-only dataclass
    automatically. `consistent` and the orders below may be plain class attributes where no option changes them.
    `solverbench.conformance` measures these declarations. The orders are those of the method itself, without skipped
    evaluations and with a last level above 0.
    """

    name: ClassVar[str] = ""
    paper: ClassVar[str] = ""
    bibtex: ClassVar[str] = ""
    """BibTeX entry for reports; needed only if the package has no entry for `paper`."""
    learned: ClassVar[bool] = False
    version: ClassVar[int] = 1
    """Version of the formulas; bump when they give different numbers, so that old results are not reused."""
    uniform: ClassVar[bool] = False
    """Whether the coefficients, and thus the declared orders, assume equal steps in sigma."""

    levels: str = option("polynomial", key="grid", help="a named grid, or the M+1 levels joined with +")
    rho: float | None = option(None, above=0.0, help="the grid's exponent; the grid's own default if not given")
    shift: float | None = option(None, above=0.0, help="a flow's shift in its grid; the schedule's own if not given")
    offset: int | None = option(None, above=-1, help="steps_offset of the leading grids; 1 if not given")
    c: float | None = option(None, above=0.0, help="deviation of the data for the grid arctan; 1 if not given")
    a: float | None = option(None, above=0.0, help="first parameter of the Beta distribution of grid=beta; 0.6")
    b: float | None = option(None, above=0.0, help="second parameter of the Beta distribution of grid=beta; 0.6")
    candidates: int | None = option(None, above=2, help="number of levels that a grid search chooses from")
    warmup: int | None = option(None, above=0, help="number of noises that a grid search uses")
    pilot: str | None = option(
        None, choices=("ipndm", "dpm", "euler"), help="solver that a grid search runs on all its candidate levels"
    )
    cost: str | None = option(None, choices=("dev", "l2", "l1"), help="cost of a step in the search of gits")
    discount: float | None = option(None, above=0.0, help="factor on the cost of later steps in the search of gits")
    own: bool | None = option(None, help="dmn minimises its bound for this solver, not for a polynomial of order 3")

    def __init_subclass__(cls) -> None:
        own_defaults(cls)
        dataclasses.dataclass(frozen=True, kw_only=True)(cls)

    @classmethod
    def misdeclared(cls) -> tuple[str, str]:
        """Return the first error in the options of this class or their defaults, and its remedy; both empty if none."""
        try:
            known = declared(cls)
        except Exception as error:  # an annotation may be any code
            return f"the types of its options can't be read ({type(error).__name__}: {error})", "correct them"
        for key, (field, kind) in known.items():
            if not any(base == kind or base in getattr(kind, "__args__", ()) for base in (bool, int, float, str)):
                found = getattr(kind, "__name__", kind)
                return f"option {key!r} is declared as {found}", "declare a bool, int, float or str"
            try:
                check(f"option {key!r}", field, kind, field.default)
            except SpecError as error:
                return f"the default of {error.asked}: {error.wrong}", error.remedy
        return "", ""

    def __post_init__(self) -> None:
        for field, kind in declared(type(self)).values():
            value = getattr(self, field.name)
            check(f"{self.name}:{spec_key(field)}={shown(value)}", field, kind, value)
        levels = self._levels()
        named, given = write_levels(levels), self._given()
        taken = grids.parameters(named) if isinstance(levels, str) else {}
        if not isinstance(levels, str):
            grids.explicit(levels, EDM())  # levels that no schedule allows are an error of the spec
        for key, value in given.items():
            if key not in taken and value is not None:
                raise SpecError(
                    asked=f"{self.name}:grid={self.levels}:{key}={shown(value)}",
                    wrong=f"this grid has no {key}",
                    remedy=f"leave it out{grids.told_takers(key)}",
                )
            if value is None:
                object.__setattr__(self, key, taken.get(key))
        asked = any(value not in (None, taken.get(key)) for key, value in given.items())
        unnamed = isinstance(self.levels, Unnamed) and not asked
        object.__setattr__(self, "levels", Unnamed(named) if unnamed else str(named))

    def on(self, schedule: NoiseSchedule) -> Self:
        """Return this solver with the grid that it takes on `schedule`; itself if a grid was named.

        The class's default grid was made for images in EDM's frame. A flow's default is uniform in its time.
        """
        named = self.default_grid(schedule) if isinstance(self.levels, Unnamed) else self.levels
        return self if named == self.levels else dataclasses.replace(self, levels=named, **self._no_parameters())

    def default_grid(self, schedule: NoiseSchedule) -> str:
        """Return the name of the grid on `schedule` if none is named."""
        return schedule.default_grid or self.levels

    def at(self, levels: Sequence[float]) -> Self:
        """Return this solver on explicit levels, checked as if they were given in its spec."""
        return dataclasses.replace(self, levels=write_levels(levels), **self._no_parameters())

    @property
    def consistent(self) -> bool:
        """Whether every row keeps a constant image, as `Tableau.inconsistency` measures."""
        return True

    @property
    def block(self) -> int:
        """The number of grid intervals that one regular step spans."""
        return 1

    @property
    def local_order(self) -> int | None:
        """p such that a regular step from exact values has error O(h^(p+1)), after any corrector; None: not declared.

        Start-up steps and lowered orders at the end are excluded.
        """
        return None

    @property
    def predicted_order(self) -> int | None:
        """The local order before the corrector: that of the state at which the next call is made."""
        return self.local_order

    @property
    def global_order(self) -> int | None:
        """p such that the sample has error O(h^p), start-up steps and end rule included; None: not declared."""
        return None

    @abstractmethod
    def integrate(self, denoise: Denoise, x: Tensor, grid: Grid) -> Tensor:
        """Return the sample: `x` integrated from grid.sigmas[0] to grid.sigmas[-1], which is above 0.

        `x` is a batch of images or a vector of coefficients. Combine it and the outputs of `denoise` linearly with
        0-d float64 coefficients; use no reductions, shapes, randomness or branches on values.
        """

    def steps(self, nfe: int) -> int:
        """Return M, the number of grid intervals that cost exactly `nfe` calls.

        Raises:
            BudgetError: no number of intervals costs `nfe` calls; the text names the nearest budgets.
        """
        return nfe

    def grid(self, schedule: NoiseSchedule, steps: int) -> Grid:
        """Return the grid of `steps` intervals on `schedule`.

        Raises:
            GridError: the number of explicit levels is not steps + 1, or the solver cannot reach a final 0.
        """
        levels = self._levels()
        if isinstance(levels, str):
            if (own := self.on(schedule)) is not self:
                return own.grid(schedule, steps)
            return grids.named(levels, schedule, steps, **self.grid_parameters)
        grid = grids.explicit(levels, schedule)
        grids.check_ends(grid, self.spec)
        if grid.steps != steps:
            raise GridError(
                asked=self.spec,
                wrong=f"{len(levels)} levels make {grid.steps} steps, but {steps} were asked for",
                remedy=f"give {steps + 1} levels, or another number of calls",
            )
        return grid

    def sample(self, denoise: Denoise, x: Tensor, grid: Grid) -> Tensor:
        """Return the sample by `integrate` and the steps around it. This is the function that is traced and measured.

        Raises:
            GridError: the grid ends in 0, and this solver cannot step to 0.
        """
        if grid.sigmas[-1] == 0:
            raise GridError(asked=self.name, wrong="can't step to level 0", remedy="end the grid at a positive level")
        return self.integrate(denoise, x, grid)

    def adapt(self, denoise: Callable[[Tensor, Tensor], Tensor]) -> Callable[[Tensor, Tensor], Tensor]:
        """Return the denoiser to execute the tableau with: `denoise` itself, or a wrapper that an option asks for."""
        return denoise

    @property
    def spec(self) -> str:
        """The canonical spec: keys sorted, defaults written out."""
        given = {spec_key(f): getattr(self, f.name) for f, _ in declared(type(self)).values()}
        return ":".join([self.name, *(f"{k}={shown(v)}" for k, v in sorted(given.items()) if v is not None)])

    @property
    def key(self) -> dict[str, Any]:
        """The solver's part of a cell's key, without budget and schedule: plain JSON values, equal on every processor.

        Options equal to their defaults are left out, so that an option added later changes no key. For a class that is
        not built in, it holds the sha256 of its source, as returned by `registries.source`; "" if that is unknown.
        """
        options = {
            key: float(value) if isinstance(value, int) and float in getattr(kind, "__args__", (kind,)) else value
            for key, (field, kind) in declared(type(self)).items()
            if key not in ("grid", *self._grid_options()) and (value := getattr(self, field.name)) != field.default
        }
        levels = self._levels()
        if not isinstance(levels, str):
            grid: dict[str, Any] = {"levels": levels}
        elif levels in registries.grids:
            grid = grids.key(levels, self._given())
        else:
            grid = {"name": levels}
        sources = [registries.source(cls) for cls in type(self).__mro__ if not built_in(cls)]
        return {
            "name": self.name,
            "version": self.version,
            "options": options,
            "grid": grid,
            **({"sources": sources} if sources else {}),
        }

    @property
    def grid_parameters(self) -> dict[str, Any]:
        """Return the parameters of the grid; `own` is this solver's spec, for which the grid is made."""
        given = self._given()
        return given | ({"own": self.spec if given["own"] else None} if "own" in given else {})

    def _given(self) -> dict[str, Any]:
        """Return the options that are parameters of the grid."""
        return {key: getattr(self, key) for key in self._grid_options()}

    @classmethod
    def _grid_options(cls) -> tuple[str, ...]:
        """Return the parameters of grids that are options of this class, without those whose names it uses itself."""
        inherited, own = Solver.__dataclass_fields__, cls.__dataclass_fields__
        return tuple(key for key in grids.PARAMETERS if key in RESERVED or own[key] is inherited[key])

    def _no_parameters(self) -> dict[str, Any]:
        """Return the parameters of a grid, none of them given."""
        return dict.fromkeys(self._grid_options())

    def _levels(self) -> str | list[float]:
        """Return the name of the grid, or its explicit levels."""
        return read_levels(f"{self.name}:grid={self.levels}", self.levels)


class LearnedSolver(Solver):
    """A solver whose loop reads trained tensors.

    `parameters` maps each name of `initial` to a float64 tensor on the CPU; None until set.
    """

    learned: ClassVar[bool] = True
    consistent: ClassVar[bool] = False
    inferred: ClassVar[str] = ""
    """Details that the paper leaves open and how they are resolved here, shown in every table; empty if none."""
    trained_by: ClassVar[Mapping[str, Any] | None] = {}
    """Training recipe: the base recipe, the values that differ, and overrides per teacher.

    For example {"base": "gs", "lr": 1e-2, "digits": {"iterations": 500}}, with tables as in a file of
    registries/recipes. Empty: the file with the solver's name, or GS's if there is none. None: not trained here.
    """
    distilled: ClassVar[bool] = False
    """Whether the solver is, by definition, trained without a discriminator."""

    recipe: str | None = option(default=None, help="name of the training recipe; if not given, the solver's name")
    training: int | None = option(
        default=None, above=-1, help="training seed; if not given, the one with the lowest validation error"
    )
    parameters: Mapping[str, Tensor] | None = dataclasses.field(default=None, compare=False, repr=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.recipe is not None and not recipe_names.exists(registries.solvers, self.recipe):
            there = ", ".join(recipe_names.names())
            raise SpecError(
                asked=f"{self.name}:recipe={self.recipe}",
                wrong="there is no such recipe",
                remedy=f"use a solver's recipe, or {there}",
            )

    def default_grid(self, schedule: NoiseSchedule) -> str:
        """Return the class's own: training starts from it, on every schedule."""
        return self.levels

    @property
    def first_fixed(self) -> bool:
        """Whether the first call's input and level are independent of the parameters, so its output can be cached."""
        return False

    @property
    def recipe_name(self) -> str:
        """The name of the training recipe."""
        return self.recipe or self.name

    def group(self, name: str) -> str:
        """Return the group of a parameter of `initial`: times, offsets or coefficients (`stages.GROUPS`).

        Recipes say for each group in which stage it is trained, and how.
        """
        return "coefficients"

    @abstractmethod
    def initial(self, schedule: NoiseSchedule, nfe: int) -> dict[str, Tensor]:
        """Return the initial parameters of training for `nfe` calls, float64, in checkpoint order.

        Raises:
            GridError: the solver's levels do not fit `schedule` or `nfe`.
        """

    def grown(self, schedule: NoiseSchedule, nfe: int) -> dict[str, Tensor]:
        """Return the initial parameters of a training for `nfe` calls that starts from this solver's own, for fewer.

        Override it to make the recipe's `warm_start` possible. The result has the names and shapes of `initial`.

        Raises:
            TrainingError: the method, or this form of it, has no such rule.
        """
        raise TrainingError(
            asked=f"{self.name} with warm_start=true",
            wrong="it has no rule that turns parameters for fewer calls into a start for more",
            remedy="leave warm_start out",
        )

    @property
    def imitates(self) -> bool:
        """Whether its form can give the tableau of another solver, see `imitating`."""
        return False

    def imitating(self, tableau: Tableau, schedule: NoiseSchedule) -> dict[str, Tensor]:
        """Return the initial parameters of a training that starts at another solver: those whose tableau is `tableau`.

        Override it and `imitates` to make the recipe's `start` possible. The result has the names and shapes of
        `initial`.

        Raises:
            TrainingError: the method, or this form of it, can't imitate others, or not on these levels.
        """
        raise TrainingError(
            asked=f"{self.name} with start=SPEC",
            wrong="it can't start at another solver",
            remedy="leave start out",
        )

    def shapes(self, nfe: int) -> dict[str, tuple[int, ...]]:
        """Return the shapes of `initial`, for any schedule; override it if `initial` needs a certain one."""
        return {name: tuple(tensor.shape) for name, tensor in self.initial(EDM(), nfe).items()}

    @property
    def key(self) -> dict[str, Any]:
        """`Solver.key` with the sha256 of the parameters."""
        parameters = {} if self.parameters is None else {"parameters": _digest(self.parameters)}
        return super().key | parameters

    def with_parameters(self, parameters: Mapping[str, Tensor]) -> Self:
        """Return this solver with `parameters`."""
        return dataclasses.replace(self, parameters=parameters)

    @property
    def trained(self) -> Mapping[str, Tensor]:
        """The parameters; an assertion fails if there are none."""
        assert self.parameters is not None, f"{self.name} has no parameters; use with_parameters"
        return self.parameters


def check_steps(asked: str, held: int, steps: int) -> None:
    """Check that trained parameters are for the number of steps of a grid.

    Args:
        asked: the solver, for the message.
        held: number of steps that the parameters are for.

    Raises:
        GridError: they are for another number.
    """
    if held != steps:
        raise GridError(
            asked=asked,
            wrong=f"its parameters are for {held} steps, but {steps} are requested",
            remedy="use parameters trained for this number of calls",
        )


def built_in(cls: type) -> bool:
    """Return whether a class comes with this project or with Python, not from a plugin."""
    return cls.__module__.partition(".")[0] in ("solverbench", "builtins", "abc", "typing")


def _digest(parameters: Mapping[str, Tensor]) -> str:
    """Return the sha256 of named float64 tensors, in the order of their names."""
    digest = hashlib.sha256()
    for name, tensor in sorted(parameters.items()):
        values = tensor.detach().cpu().double().numpy().astype("<f8")
        digest.update(f"{name} {list(tensor.shape)}".encode() + values.tobytes())
    return digest.hexdigest()


def refuse_budget(solver: Solver, nfe: int, why: str, instead: Sequence[int | str]) -> BudgetError:
    """Return the error for a number of calls that the solver can't spend.

    Args:
        why: what is wrong with `nfe`.
        instead: what can be asked for: the nearest numbers of calls, and other specs, as in "heun:end=zero".
    """
    shown = [f"nfe={each}" if isinstance(each, int) else each for each in instead]
    return BudgetError(
        asked=f"{solver.name} with nfe={nfe}",
        wrong=why,
        remedy=f"use {' or '.join(shown)}.",
        near=[each for each in instead if isinstance(each, int)],
    )
