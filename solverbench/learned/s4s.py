"""S4S: learned weights of the network's outputs, on a fixed grid or on learned levels."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from solverbench.errors import SpecError
from solverbench.learned.coefficients import Coefficients
from solverbench.learned.discretisation import Discretisation, decoupled, refuse_one_call
from solverbench.learned.growth import resampled_changes
from solverbench.method.declarations import option, read_levels, shown, write_levels
from solverbench.method.grids import Grid
from solverbench.method.schedules import NoiseSchedule
from solverbench.method.solver import Denoise, LearnedSolver
from solverbench.method.spec import make

FORM_HELP = "multistep (lms), multistep with a corrector (pc), or blocks that each start from one state (single)"
ORDER_HELP = "number of outputs that a regular step combines; with form=single, calls in a block"
PREDICTION_HELP = "prediction that is combined; noise requires form=lms"
INFERRED = "S4S has no public code: what its paper leaves open is inferred, and was chosen by validation"


class S4S(LearnedSolver):
    """A multistep, predictor-corrector or singlestep solver with free weights on a fixed grid; see `Coefficients`.

    Derived from the paper, as table 1 of GAS (arXiv:2510.17699) restates it: the linear part and its scale follow from
    the levels, the weights of the last `order` outputs are free numbers, and the schedule is fixed. Inferred, because
    S4S has no public code: the initial weights (those of the classical solver of the same form) and the two forms
    other than lms. Form pc corrects the state without an extra call; form single frees the weights of the stages and
    block ends of singlestep DPM-Solver++.

    Unlike GS, it has no weights of earlier states, no learned times and no offsets.

    Source: S4S, arXiv:2502.17423.
    """

    name: ClassVar[str] = "s4s"
    distilled: ClassVar[bool] = True
    inferred: ClassVar[str] = INFERRED
    paper: ClassVar[str] = "S4S, arXiv:2502.17423, as arXiv:2510.17699 (GAS) restates it; it has no public code"

    levels: str = option("logsnr", key="grid", help="grid name, or M+1 noise levels joined with +; not learned")
    form: str = option("lms", choices=("lms", "pc", "single"), help=FORM_HELP)
    order: int = option(3, choices=(1, 2, 3, 4), help=ORDER_HELP)
    prediction: str = option("data", choices=("data", "noise"), help=PREDICTION_HELP)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.levels == "learned":
            raise SpecError(
                asked="s4s:grid=learned",
                wrong="its grid is fixed",
                remedy="use s4s_alt or s4s_joint, or name another grid",
            )
        _check(self.name, self.form, self.order, self.prediction)

    @property
    def first_fixed(self) -> bool:
        """Whether the first call is fixed: yes, the grid is."""
        return True

    @property
    def coefficients(self) -> Coefficients:
        """The steps that the parameters define."""
        return Coefficients(self.form, self.prediction, self.order)

    def initial(self, schedule: NoiseSchedule, nfe: int) -> dict[str, Tensor]:
        """Return the weights of the classical solver of this form on this grid; its order is not lowered at the end."""
        return self.coefficients.initial(self._fixed(schedule, nfe))

    def grown(self, schedule: NoiseSchedule, nfe: int) -> dict[str, Tensor]:
        """Return the classical weights, plus what training changed for fewer steps, interpolated over the steps."""
        if self.form == "single":
            return super().grown(schedule, nfe)
        steps = sum(name[0] == "b" for name in self.trained)
        before = self.coefficients.initial(self._fixed(schedule, steps))
        return resampled_changes(self.trained, before, self.initial(schedule, nfe))

    def shapes(self, nfe: int) -> dict[str, tuple[int, ...]]:
        """Return the shapes of `initial`."""
        return self.coefficients.shapes(nfe)

    def grid(self, schedule: NoiseSchedule, steps: int) -> Grid:
        """Return the fixed grid; with form=single, that of dpm:singlestep=true (on logsnr, equally long blocks)."""
        self.coefficients.check(self.name, self.trained, steps)
        return self._fixed(schedule, steps)

    def integrate(self, denoise: Denoise, x: Tensor, grid: Grid) -> Tensor:
        """Return the sample; M calls for M intervals."""
        return self.coefficients.integrate(self.trained, denoise, x, grid)

    def _fixed(self, schedule: NoiseSchedule, steps: int) -> Grid:
        if self.form != "single":
            return super().grid(schedule, steps)
        given = "".join(f":{key}={_text(value)}" for key, value in self._given().items() if value is not None)
        return make(f"dpm:singlestep=true:order={self.order}:grid={self.levels}{given}").grid(schedule, steps)


class Scheduled(LearnedSolver):
    """The steps of S4S on LD3's learned levels; see `Coefficients` and `Discretisation`.

    The linear part and its scale follow exactly from the levels; the free weights do not. As in LD3, a call may be
    told another level than its state's. The slope at that level (noise prediction) or the network's image there (data
    prediction) enters the step.
    """

    levels: str = option("learned", key="grid", choices=("learned",), help="learned is the only value")
    form: str = option("lms", choices=("lms", "pc", "single"), help=FORM_HELP)
    order: int = option(3, choices=(1, 2, 3, 4), help=ORDER_HELP)
    prediction: str = option("data", choices=("data", "noise"), help=PREDICTION_HELP)
    mode: str = option("lambda", choices=("lambda", "time"), help="variable in which levels and shifts are learned")
    prior: str | None = option(
        None, help="initial grid: a name, levels joined with +, or @file; if not given, equal steps"
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        _check(self.name, self.form, self.order, self.prediction)
        if self.prior is not None:
            asked = f"{self.name}:prior={self.prior}"
            object.__setattr__(self, "prior", write_levels(read_levels(asked, self.prior)))

    @property
    def first_fixed(self) -> bool:
        """Whether the first call is fixed: yes, both ends of the grid and the first told level are fixed."""
        return True

    @property
    def coefficients(self) -> Coefficients:
        """The steps that the parameters b and c define."""
        return Coefficients(self.form, self.prediction, self.order)

    @property
    def discretisation(self) -> Discretisation:
        """The map from the parameters theta to the levels."""
        return Discretisation(self.mode, self.prior)

    def group(self, name: str) -> str:
        """Return the group of a parameter."""
        return {"theta1": "times", "theta2": "offsets"}.get(name, "coefficients")

    def initial(self, schedule: NoiseSchedule, nfe: int) -> dict[str, Tensor]:
        """Return the levels of `prior` or equal intervals, without shifts, and the classical solver's weights there."""
        times = self.discretisation.initial(schedule, nfe)
        return times | self.coefficients.initial(self.discretisation.grid(times["theta1"], schedule))

    def grown(self, schedule: NoiseSchedule, nfe: int) -> dict[str, Tensor]:
        """Return levels and shifts between those of fewer steps, and the classical weights with the trained changes.

        What training changed of a weight is interpolated over the steps.
        """
        if self.form == "single":
            return super().grown(schedule, nfe)
        times = self.discretisation.grown(self.trained, schedule, nfe)
        before, initial = (
            self.coefficients.initial(self.discretisation.grid(theta1, schedule))
            for theta1 in (self.trained["theta1"], times["theta1"])
        )
        return times | resampled_changes({name: self.trained[name] for name in before}, before, initial)

    def shapes(self, nfe: int) -> dict[str, tuple[int, ...]]:
        """Return the shapes of `initial`."""
        return self.discretisation.shapes(nfe) | self.coefficients.shapes(nfe)

    def steps(self, nfe: int) -> int:
        """Return M = nfe; at least 2, because both ends and the first call are fixed."""
        if nfe < 2:
            raise refuse_one_call(self, nfe)
        return nfe

    def grid(self, schedule: NoiseSchedule, steps: int) -> Grid:
        """Return the learned levels between the schedule's own ends."""
        self.coefficients.check(self.name, self.trained, steps)
        return self.discretisation.grid(self.trained["theta1"], schedule)

    def integrate(self, denoise: Denoise, x: Tensor, grid: Grid) -> Tensor:
        """Return the sample; M calls for M intervals."""
        told = self.discretisation.told(self.trained, grid)
        shifted = decoupled(denoise, grid.schedule, told, by_data=self.prediction == "data")
        return self.coefficients.integrate(self.trained, shifted, x, grid)


class S4SAlt(Scheduled):
    """S4S with levels and weights trained alternately.

    Derived from the paper: the alternation (its algorithm 2), and evaluation times that differ from the grid's times,
    as table 1 of GAS restates it. Inferred: the levels are parametrised and limited as in LD3.

    Source: S4S, arXiv:2502.17423, algorithm 2 (S4S-Alt).
    """

    name: ClassVar[str] = "s4s_alt"
    distilled: ClassVar[bool] = True
    inferred: ClassVar[str] = INFERRED
    paper: ClassVar[str] = "S4S-Alt, arXiv:2502.17423, as arXiv:2510.17699 (GAS) restates it; it has no public code"


class S4SJoint(Scheduled):
    """S4S with levels and weights trained jointly; as a solver it equals S4S-Alt.

    Derived from the paper: its existence (algorithm 3). Inferred: the rest, as for `S4SAlt`.

    Source: S4S, arXiv:2502.17423, algorithm 3.
    """

    name: ClassVar[str] = "s4s_joint"
    distilled: ClassVar[bool] = True
    inferred: ClassVar[str] = INFERRED
    paper: ClassVar[str] = "S4S, joint, arXiv:2502.17423, as arXiv:2510.17699 (GAS) restates it; it has no public code"


def _text(value: float | str | bool) -> str:
    """Return an option's value in a spec, a number with all its digits."""
    return repr(value) if type(value) in (int, float) else shown(value)


def _check(name: str, form: str, order: int, prediction: str) -> None:
    if form != "lms" and prediction == "noise":
        raise SpecError(
            asked=f"{name}:form={form}:prediction=noise",
            wrong="this form is defined only for data",
            remedy="leave prediction or form out",
        )
    if form == "single" and order == 1:
        raise SpecError(
            asked=f"{name}:form=single:order=1",
            wrong="blocks of one call are the multistep form",
            remedy="leave form out, or use order 2 or 3",
        )
    if form == "single" and order > 3:
        raise SpecError(
            asked=f"{name}:form=single:order={order}",
            wrong="blocks of at most 3 calls start from a known solver",
            remedy="use 3",
        )
