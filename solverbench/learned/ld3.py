"""LD3: a classical solver on learned levels; the network is told separate learned levels."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from solverbench.errors import SpecError
from solverbench.learned.discretisation import Discretisation, decoupled, refuse_one_call
from solverbench.method.declarations import option, read_levels, write_levels
from solverbench.method.exponential import ExponentialIntegrator
from solverbench.method.grids import Grid
from solverbench.method.schedules import NoiseSchedule
from solverbench.method.solver import Denoise, LearnedSolver, Solver
from solverbench.method.spec import make

VARIANTS = {"lambda": "bh1", "time": "bh2"}
"""UniPC's B(h) by mode; the public configurations use bh1 for pixel models and bh2 for latent ones."""


class LD3(LearnedSolver):
    """A base solver, unchanged, with learned levels and learned evaluation levels; see `Discretisation`.

    Source: Tong et al. 2024, arXiv:2405.15506 (LD3), and its public code. In lambda mode that code limits shifts by the
    gaps between the logits theta1 instead of those in lambda: all shifts are 0 until the logits differ, and shifts
    beyond the limit have no gradient (compat=true). That code makes and discards a call at the last level; this one
    does not. Gradients pass through UniPC's matrix here; there it is a constant.
    """

    name: ClassVar[str] = "ld3"
    distilled: ClassVar[bool] = True
    paper: ClassVar[str] = "LD3, arXiv:2405.15506"

    levels: str = option("learned", key="grid", choices=("learned",), help="learned is the only value")
    base: str = option("unipc", choices=("unipc", "dpm", "ipndm", "euler"), help="solver whose levels are learned")
    order: int | None = option(None, help="order of the base solver; if not given, its default")
    variant: str | None = option(
        None, help="variant of the base solver; if not given, its default, but bh1 of unipc with mode=lambda"
    )
    mode: str = option("lambda", choices=("lambda", "time"), help="variable in which levels and shifts are learned")
    prior: str | None = option(
        None, help="initial grid: a name, levels joined with +, or @file; if not given, equal steps"
    )
    compat: bool = option(False, help="limit shifts by the gaps between logits, as the public code does")
    limited: bool = option(True, help="false: don't limit shifts, as some imported files require")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.compat and self.mode == "time":
            raise SpecError(
                asked="ld3:compat=true:mode=time",
                wrong="the public code's limit is the same here",
                remedy="leave compat out",
            )
        if self.compat and not self.limited:
            raise SpecError(
                asked="ld3:compat=true:limited=false",
                wrong="compat=true requires limited=true",
                remedy="leave one of them out",
            )
        if self.prior is not None:
            object.__setattr__(self, "prior", write_levels(read_levels(f"ld3:prior={self.prior}", self.prior)))
        try:
            self._base()
        except SpecError as error:
            raise SpecError.of(error, asked=f"ld3:base={self.base}") from None

    @property
    def first_fixed(self) -> bool:
        """Whether the first call is fixed: yes, both ends of the grid and the first told level are fixed."""
        return True

    @property
    def discretisation(self) -> Discretisation:
        """The map from the parameters to the levels."""
        return Discretisation(self.mode, self.prior, "logits" if self.compat else "gaps" if self.limited else "none")

    def group(self, name: str) -> str:
        """Return the group of a parameter."""
        return {"theta1": "times", "theta2": "offsets"}[name]

    def initial(self, schedule: NoiseSchedule, nfe: int) -> dict[str, Tensor]:
        """Return the parameters of the levels of `prior`, or of equal intervals, without shifts."""
        return self.discretisation.initial(schedule, nfe)

    def grown(self, schedule: NoiseSchedule, nfe: int) -> dict[str, Tensor]:
        """Return levels and shifts between those of fewer steps."""
        return self.discretisation.grown(self.trained, schedule, nfe)

    def shapes(self, nfe: int) -> dict[str, tuple[int, ...]]:
        """Return the shapes of the parameters."""
        return self.discretisation.shapes(nfe)

    def steps(self, nfe: int) -> int:
        """Return M = nfe; at least 2, because both ends and the first call are fixed."""
        if nfe < 2:
            raise refuse_one_call(self, nfe)
        return nfe

    def grid(self, schedule: NoiseSchedule, steps: int) -> Grid:
        """Return the learned levels between the schedule's own ends."""
        self.discretisation.check(self.name, self.trained["theta1"], steps)
        return self.discretisation.grid(self.trained["theta1"], schedule)

    def integrate(self, denoise: Denoise, x: Tensor, grid: Grid) -> Tensor:
        """Return the base's sample; M calls for M intervals."""
        return integrate_decoupled(self._base(), denoise, x, grid, self.told(grid))

    def told(self, grid: Grid) -> Tensor:
        """Return the level that the network is told at each call, [M]."""
        return self.discretisation.told(self.trained, grid)

    def _base(self) -> Solver:
        options = {"order": self.order, "variant": self.variant}
        if self.base == "unipc" and self.variant is None:
            options["variant"] = VARIANTS[self.mode]
        return make(":".join([self.base, *(f"{key}={value}" for key, value in options.items() if value is not None)]))


def integrate_decoupled(base: Solver, denoise: Denoise, x: Tensor, grid: Grid, told: Tensor) -> Tensor:
    """Return the sample of `base` run on `grid`, with call k made at the level told[k]; see `decoupled`.

    Args:
        base: solver with one call per interval, the k-th at grid.sigmas[k].
        told: levels of the calls, [M], above 0.
    """
    by_data = isinstance(base, ExponentialIntegrator) and base.prediction == "data"
    return base.integrate(decoupled(denoise, grid.schedule, told, by_data=by_data), x, grid)
