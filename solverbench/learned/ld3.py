"""LD3: a classical solver on learned levels, whose network is told learned levels of its own."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from solverbench.errors import SpecError
from solverbench.learned.discretisation import Discretisation, decoupled, refuse_one_call
from solverbench.method.exponential import ExponentialIntegrator
from solverbench.method.grids import Grid
from solverbench.method.schedules import NoiseSchedule
from solverbench.method.solver import Denoise, LearnedSolver, Solver, option, read_levels, write_levels
from solverbench.method.spec import make

VARIANTS = {"lambda": "bh1", "time": "bh2"}
"""UniPC's B(h) by mode: the public configurations take bh1 on pixel models, bh2 on latent ones."""


class LD3(LearnedSolver):
    """A base solver, unchanged, with learned levels and learned evaluation levels; see `Discretisation`.

    Source: Tong et al. 2024, arXiv:2405.15506 (LD3), and its public code, which in lambda mode takes the gaps between
    the logits theta1 instead of those in lambda: all shifts are 0 until the logits differ, and have no gradient beyond
    (compat=true). It makes a call at the last level and discards it; here it isn't made. Gradients pass through
    UniPC's matrix, which is a constant there.
    """

    name: ClassVar[str] = "ld3"
    distilled: ClassVar[bool] = True
    paper: ClassVar[str] = "LD3, arXiv:2405.15506"

    levels: str = option("learned", key="grid", choices=("learned",), help="always the learned one")
    base: str = option("unipc", choices=("unipc", "dpm", "ipndm", "euler"), help="the solver whose levels are learned")
    order: int | None = option(None, help="the base's order; its own default if not given")
    variant: str | None = option(None, help="unipc's B(h); bh1 with mode=lambda, bh2 with mode=time if not given")
    mode: str = option("lambda", choices=("lambda", "time"), help="the variable in which levels and shifts are learned")
    prior: str | None = option(None, help="the grid to start from: named, levels joined with +, or @file; else equal")
    compat: bool = option(False, help="shifts limited by the gaps between logits, as in the public code")
    limited: bool = option(True, help="false: shifts aren't limited; what an imported file may need")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.compat and self.mode == "time":
            raise SpecError("ld3:compat=true:mode=time: the public code's limit is the same here; leave compat out")
        if self.compat and not self.limited:
            raise SpecError("ld3:compat=true:limited=false: compat is a limit; leave one of them out")
        if self.prior is not None:
            object.__setattr__(self, "prior", write_levels(read_levels(f"ld3:prior={self.prior}", self.prior)))
        try:
            self._base()
        except SpecError as error:
            raise SpecError(f"ld3:base={self.base}: {error}") from None

    @property
    def first_fixed(self) -> bool:
        """Both ends of the grid are fixed, and so is what the first call is told."""
        return True

    @property
    def discretisation(self) -> Discretisation:
        """What the parameters stand for."""
        return Discretisation(self.mode, self.prior, "logits" if self.compat else "gaps" if self.limited else "none")

    def group(self, name: str) -> str:
        """Return the group of a parameter."""
        return {"theta1": "times", "theta2": "offsets"}[name]

    def initial(self, schedule: NoiseSchedule, nfe: int) -> dict[str, Tensor]:
        """Return the levels of `prior`, or equal intervals, and no shifts."""
        return self.discretisation.initial(schedule, nfe)

    def shapes(self, nfe: int) -> dict[str, tuple[int, ...]]:
        """Return the shapes of `initial`."""
        return self.discretisation.shapes(nfe)

    def steps(self, nfe: int) -> int:
        """Return M = nfe; at least 2, because both ends are fixed and so is the first call."""
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
        """Return [M], the level that the network is told at each call."""
        return self.discretisation.told(self.trained, grid)

    def _base(self) -> Solver:
        options = {"order": self.order, "variant": self.variant}
        if self.base == "unipc" and self.variant is None:
            options["variant"] = VARIANTS[self.mode]
        return make(":".join([self.base, *(f"{key}={value}" for key, value in options.items() if value is not None)]))


def integrate_decoupled(base: Solver, denoise: Denoise, x: Tensor, grid: Grid, told: Tensor) -> Tensor:
    """Return the sample of `base`, whose loop sees `grid` alone while call k is made at the level told[k]; `decoupled`.

    Args:
        base: a solver that makes one call per interval, the k-th at grid.sigmas[k].
        told: [M], above 0.
    """
    by_data = isinstance(base, ExponentialIntegrator) and base.prediction == "data"
    return base.integrate(decoupled(denoise, grid.schedule, told, by_data=by_data), x, grid)
