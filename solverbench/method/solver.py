"""The solver base classes: options, grid, and a textbook loop over `x` and `denoise(x, sigma)`."""

from __future__ import annotations

import dataclasses
import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any, ClassVar, Protocol, Self, dataclass_transform, get_type_hints

import torch
from torch import Tensor

from solverbench import options, registries
from solverbench.errors import BudgetError, GridError, SpecError
from solverbench.method import grids
from solverbench.method.grids import Grid
from solverbench.method.schedules import EDM, NoiseSchedule
from solverbench.method.thresholding import thresholded
from solverbench.registries import recipe_names
from solverbench.wording import suggest


class Denoise(Protocol):
    """The denoiser passed to a loop: returns the data prediction for state `x`, with `sigma` passed to the network.

    `level` is the noise level of the state itself; give it only where it differs from `sigma`.
    """

    def __call__(self, x: Tensor, sigma: Tensor, *, level: Tensor | None = None) -> Tensor: ...


class Unnamed(str):
    """The grid that a solver takes by default; another one takes its place on a schedule that has its own default."""

    __slots__ = ()


def option(
    default: Any, *, key: str | None = None, choices: Sequence[Any] = (), above: float | None = None, help: str = ""
) -> Any:
    """Declare an option of a solver.

    Args:
        default: value when a spec does not name the option.
        key: name in a spec; the attribute's name if None.
        choices: allowed values; any value of its type if empty.
        above: exclusive lower bound of a number.
        help: one line for `solverbench info`.
    """
    metadata = {"key": key, "choices": tuple(choices), "above": above, "help": help}
    default = Unnamed(default) if key == "grid" else default
    return dataclasses.field(default=default, metadata=metadata)


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
    """BibTeX entry for reports, where `paper` names no entry that this package knows."""
    learned: ClassVar[bool] = False
    version: ClassVar[int] = 1
    """Version of the formulas; bump when they give different numbers, so that old results are not reused."""
    uniform: ClassVar[bool] = False
    """Whether the coefficients, and thus the declared orders, assume equal steps in sigma."""

    levels: str = option("polynomial", key="grid", help="a named grid, or the M+1 levels joined with +")
    rho: float | None = option(None, above=0.0, help="the grid's exponent; the grid's own default if not given")
    shift: float | None = option(None, above=0.0, help="a flow's shift in its grid; the schedule's own if not given")
    offset: int | None = option(None, above=-1, help="steps_offset of the leading grids; 1 if not given")

    def __init_subclass__(cls) -> None:
        _own_defaults(cls)
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
                _check(f"option {key!r}", field, kind, field.default)
            except SpecError as error:
                return f"the default of {error.asked}: {error.wrong}", error.remedy
        return "", ""

    def __post_init__(self) -> None:
        for field, kind in declared(type(self)).values():
            value = getattr(self, field.name)
            _check(f"{self.name}:{_key(field)}={_text(value)}", field, kind, value)
        levels = self._levels()
        named, given = write_levels(levels), {key: getattr(self, key) for key in grids.PARAMETERS}
        taken = grids.parameters(named) if isinstance(levels, str) else {}
        if not isinstance(levels, str):
            grids.explicit(levels, EDM())  # levels that no schedule allows are an error of the spec
        for key, value in given.items():
            if key not in taken and value is not None:
                raise SpecError(
                    asked=f"{self.name}:grid={self.levels}:{key}={value:g}",
                    wrong=f"this grid has no {key}",
                    remedy="leave it out",
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
        return self if named == self.levels else dataclasses.replace(self, levels=named, **_nothing_given())

    def default_grid(self, schedule: NoiseSchedule) -> str:
        """Return the name of the grid on `schedule` if none is named."""
        return schedule.default_grid or self.levels

    def at(self, levels: Sequence[float]) -> Self:
        """Return this solver on explicit levels, checked as if they were given in its spec."""
        return dataclasses.replace(self, levels=write_levels(levels), **_nothing_given())

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
        given = {_key(f): getattr(self, f.name) for f, _ in declared(type(self)).values()}
        return ":".join([self.name, *(f"{k}={_text(v)}" for k, v in sorted(given.items()) if v is not None)])

    @property
    def key(self) -> dict[str, Any]:
        """The solver's part of a cell's key, without budget and schedule: plain JSON values, equal on every processor.

        Options equal to their defaults are left out, so that an option added later changes no key. For a class that is
        not built in, it holds the sha256 of its source, as returned by `registries.source`; "" if that is unknown.
        """
        options = {
            key: float(value) if isinstance(value, int) and float in getattr(kind, "__args__", (kind,)) else value
            for key, (field, kind) in declared(type(self)).items()
            if key not in ("grid", *grids.PARAMETERS) and (value := getattr(self, field.name)) != field.default
        }
        levels = self._levels()
        if not isinstance(levels, str):
            grid: dict[str, Any] = {"levels": levels}
        elif levels in registries.grids:
            grid = grids.key(levels, self.grid_parameters)
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
        """Return the parameters of the grid."""
        return {key: getattr(self, key) for key in grids.PARAMETERS}

    def _levels(self) -> str | list[float]:
        """Return the name of the grid, or its explicit levels."""
        return read_levels(f"{self.name}:grid={self.levels}", self.levels)


def _own_defaults(cls: type[Solver]) -> None:
    """Make a plain class attribute with the name of an inherited option the option's default in `cls`.

    A dataclass reads annotated attributes alone, and would ignore it.

    Raises:
        SpecError: an attribute that is taken for the default grid, and isn't read.
    """
    mine = vars(cls)
    if "grid_name" in mine or isinstance(mine.get("grid"), (str, list, tuple)):
        name = "grid_name" if "grid_name" in mine else "grid"
        raise SpecError(
            asked=f"class {cls.__qualname__}: {name} = {mine[name]!r}",
            wrong="not the default grid's name",
            remedy='give levels = NAME, as in levels = "logsnr"',
        )
    annotated = mine.get("__annotations__", {})
    for base in reversed(cls.__mro__[1:]):
        for name, field in vars(base).get("__dataclass_fields__", {}).items():
            if name not in mine or name in annotated or "choices" not in field.metadata:
                continue
            given = mine[name]
            if isinstance(given, dataclasses.Field):
                metadata = {**given.metadata, "key": given.metadata["key"] or field.metadata["key"]}
                given = given.default
            elif callable(given) or isinstance(given, property):
                continue
            else:
                metadata = dict(field.metadata)
            given = Unnamed(given) if metadata["key"] == "grid" and isinstance(given, str) else given
            setattr(cls, name, dataclasses.field(default=given, metadata=metadata))
            cls.__annotations__ = {**annotated, name: get_type_hints(base)[name]}
            annotated = cls.__annotations__


class Classical(Solver):
    """A solver with fixed coefficients, which may start analytically and end at level 0.

    The analytic first step replaces the first call by the score of N(0, (1 + sigma^2) I), which is close to the data's
    score at the start. The last interval, to level 0, is one call whose output is the sample: a first-order step.
    Source: Dockhorn et al. 2022, arXiv:2210.05475, section 3.3 (analytic first step); Karras et al. 2022,
    arXiv:2206.00364, algorithm 1 (the step to 0).
    """

    stages: ClassVar[int] = 1

    afs: bool = option(False, help="replace the first evaluation by the score of a Gaussian, which saves a call")
    end: str = option(
        "sigma_min", choices=("sigma_min", "zero"), help="zero: add a step to level 0, which costs a call"
    )
    threshold: bool = option(False, help="clip the network's images at their 0.995 quantile if it is above 1")

    def __post_init__(self) -> None:
        super().__post_init__()
        levels = self._levels()
        if not isinstance(levels, str) and levels[-1] > 0 and self.end == "zero":
            raise SpecError(
                asked=f"{self.name}:end=zero:grid={self.levels}",
                wrong=f"these levels end at {levels[-1]:g}",
                remedy="end them in 0",
            )
        if not isinstance(levels, str) and levels[-1] == 0:
            object.__setattr__(self, "end", "zero")

    @property
    def consistent(self) -> bool:
        """Whether every row keeps a constant image; false with an analytic first step."""
        return not self.afs

    def default_grid(self, schedule: NoiseSchedule) -> str:
        """Return the name of the grid if none is named; on flows, steps of several calls need a finite first level."""
        return "logsnr" if schedule.default_grid and self.stages > 1 else super().default_grid(schedule)

    def adapt(self, denoise: Callable[[Tensor, Tensor], Tensor]) -> Callable[[Tensor, Tensor], Tensor]:
        """Return `denoise`, or `thresholded(denoise)` with threshold=true; a tableau is linear and cannot hold it."""
        return thresholded(denoise) if self.threshold else denoise

    def steps(self, nfe: int) -> int:
        """Return M: an interval costs `stages` calls, the one to level 0 costs one, and afs saves one in total."""
        if not self._spends(nfe):
            near = filter(self._spends, range(1, nfe + 2 * self.stages + 2))
            close: list[int | str] = [*sorted(sorted(near, key=lambda n: abs(n - nfe))[:2])]
            named = isinstance(self._levels(), str)
            if named and self.end == "sigma_min" and dataclasses.replace(self, end="zero")._spends(nfe):
                close.append(f"{self.name}:end=zero")
            raise refuse_budget(self, nfe, f"each step costs {self.stages} evaluations{self._exceptions()}", close)
        last = self.end == "zero"
        return (nfe + self.afs - last) // self.stages + last

    def grid(self, schedule: NoiseSchedule, steps: int) -> Grid:
        """Return the grid of `steps` intervals; with end=zero the last of them goes from sigma_min to 0."""
        if (own := self.on(schedule)) is not self:
            return own.grid(schedule, steps)
        levels = self._levels()
        if self.end == "sigma_min" or not isinstance(levels, str):
            return super().grid(schedule, steps)
        if grids.places_end(levels):
            return grids.named(levels, schedule, steps, **self.grid_parameters, end=0.0)
        body = super().grid(schedule, max(steps - 1, 1)).sigmas[:steps]
        return Grid(torch.cat([body, body.new_zeros(1)]), schedule)

    def sample(self, denoise: Denoise, x: Tensor, grid: Grid) -> Tensor:
        """Return the sample of `integrate`, with the analytic first step and the step to 0 as the options say."""
        sigmas = grid.sigmas
        evaluate = _analytic_first(denoise) if self.afs else denoise
        if sigmas[-1] > 0:
            return self.integrate(evaluate, x, grid)
        if grid.steps > 1:
            x = self.integrate(evaluate, x, Grid(sigmas[:-1], grid.schedule))
        return denoise(x, sigmas[-2])

    def _spends(self, nfe: int) -> bool:
        last = self.end == "zero"
        calls = nfe + self.afs - last
        return calls % self.stages == 0 and (calls > 0 or (last and nfe > 0))

    def _exceptions(self) -> str:
        return (", one less with afs" if self.afs else "") + (
            ", the one to level 0 costs 1" if self.end == "zero" else ""
        )


def _analytic_first(denoise: Denoise) -> Denoise:
    """Return `denoise` with its first call replaced by the posterior mean under unit Gaussian data, linear in x."""
    asked = False

    def evaluate(x: Tensor, sigma: Tensor, *, level: Tensor | None = None) -> Tensor:
        nonlocal asked
        if asked:
            return denoise(x, sigma, level=level)
        asked = True
        return x - sigma * x / (1 + sigma**2).sqrt()

    return evaluate


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
    """Whether its name says that no discriminator trains it."""

    recipe: str | None = option(default=None, help="name of the training recipe; if not given, the solver's name")
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


def _nothing_given() -> dict[str, Any]:
    """Return the parameters of a grid, none of them given."""
    return dict.fromkeys(grids.PARAMETERS)


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


@cache
def declared(cls: type[Solver]) -> dict[str, tuple[dataclasses.Field[Any], Any]]:
    """Return the options of a solver class: spec key to (field, type)."""
    hints = get_type_hints(cls)
    return {_key(f): (f, hints[f.name]) for f in dataclasses.fields(cls) if "choices" in f.metadata}


def read_levels(asked: str, text: str) -> str | list[float]:
    """Return the value of a levels option: the name of a grid, or the levels themselves.

    Raises:
        GridError: `text` is neither a name nor numbers joined with +.
    """
    if "+" not in text and not text[:1].isdigit():
        return text
    try:
        return [float(part) for part in text.split("+")]
    except ValueError:
        raise GridError(
            asked=asked, wrong="not a list of numbers", remedy="join levels with +, as in 80+9.7+0.8+0.002"
        ) from None


def write_levels(levels: str | Sequence[float]) -> str:
    """Return the canonical text of the result of `read_levels`: aliases resolved, levels with all their digits.

    Raises:
        UnknownNameError: no such grid.
    """
    return grids.resolve(levels) if isinstance(levels, str) else "+".join(map(repr, levels))


def unknown_option(asked: str, cls: type[Solver], key: str) -> SpecError:
    """Return the error for an option that the solver does not have."""
    keys = sorted(declared(cls))
    remedy = suggest(key, keys, f"it has {', '.join(keys)}.")
    return SpecError(asked=asked, wrong=f"{cls.name} has no option {key!r}", remedy=remedy)


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


def _check(asked: str, field: dataclasses.Field[Any], kind: Any, value: Any) -> None:
    allowed = getattr(kind, "__args__", (kind,))
    fits = isinstance(value, (*allowed, int) if float in allowed else allowed)
    if not fits or isinstance(value, bool) is not (bool in allowed):
        raise SpecError(
            asked=asked,
            wrong=f"{value!r} is {type(value).__name__}",
            remedy=f"give {' or '.join(k.__name__ for k in allowed)}",
        )
    choices, above = field.metadata["choices"], field.metadata["above"]
    if choices and value not in choices:
        raise SpecError(
            asked=asked,
            wrong=f"{_text(value)} isn't one of its values",
            remedy=f"use {' or '.join(map(_text, choices))}",
        )
    if above is not None and value is not None and (wanted := options.outside(value, above=above)):
        raise SpecError(asked=asked, wrong=f"{value:g} is out of range", remedy=f"give {wanted}")


def _key(field: dataclasses.Field[Any]) -> str:
    return str(field.metadata["key"] or field.name)


def _text(value: Any) -> str:
    return (
        str(value).lower() if isinstance(value, bool) else f"{value:.12g}" if isinstance(value, float) else str(value)
    )
