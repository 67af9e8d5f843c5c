"""Solvers with fixed coefficients: the analytic first step, the step to level 0, and the calls that they cost."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, Self

import torch
from torch import Tensor

from solverbench import registries
from solverbench.errors import SpecError
from solverbench.method import grids
from solverbench.method.declarations import option
from solverbench.method.grids import Grid
from solverbench.method.schedules import NoiseSchedule
from solverbench.method.solver import Denoise, Solver, refuse_budget
from solverbench.method.thresholding import thresholded


class Classical(Solver):
    """A solver with fixed coefficients, which may start analytically and end at level 0.

    The analytic first step replaces the first call by the score of N(0, (1 + sigma^2) I), which is close to the data's
    score at the start. The last interval, to level 0, is one call whose output is the sample: a first-order step.
    Source: Dockhorn et al. 2022, arXiv:2210.05475, section 3.3 (analytic first step); Karras et al. 2022,
    arXiv:2206.00364, algorithm 1 (the step to 0).
    """

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
    def stages(self) -> int:
        """The number of calls of a regular step, which spans one interval unless `spanned` says otherwise."""
        return 1

    def spanned(self, calls: int) -> int | None:
        """Return the number of intervals on which `integrate` makes `calls` calls; None if it makes them on none."""
        count, rest = divmod(calls, self.stages)
        return count if count > 0 and rest == 0 else None

    def alternatives(self) -> dict[str, Self]:
        """Return solvers that spend other numbers of calls, by the option that makes them, for a refused budget."""
        named = isinstance(self._levels(), str)
        return {"end=zero": dataclasses.replace(self, end="zero")} if named and self.end == "sigma_min" else {}

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
        """Return M: the intervals that `integrate` spans with the calls left to it, and the one to level 0.

        That one costs a call, and afs saves one in total.
        """
        found = self._steps(nfe)
        if found is None:
            near = [n for n in range(1, nfe + 2 * self.stages + 2) if self._steps(n) is not None]
            close: list[int | str] = [*sorted(sorted(near, key=lambda n: abs(n - nfe))[:2])]
            for option, others in self.alternatives().items():
                close += [f"{self.name}:{option}"] * (others._steps(nfe) is not None)
            raise refuse_budget(self, nfe, f"{self._costs()}{self._exceptions()}", close)
        return found

    def grid(self, schedule: NoiseSchedule, steps: int) -> Grid:
        """Return the grid of `steps` intervals; with end=zero the last of them goes from sigma_min to 0."""
        if (own := self.on(schedule)) is not self:
            return own.grid(schedule, steps)
        levels = self._levels()
        if self.end == "sigma_min" or not isinstance(levels, str):
            return super().grid(schedule, steps)
        if grids.takes(levels, "end"):
            return grids.named(levels, schedule, steps, **self.grid_parameters, end=0.0)
        body = super().grid(schedule, max(steps - 1, 1))
        return Grid(torch.cat([body.sigmas[:steps], body.sigmas.new_zeros(1)]), schedule, body.search)

    @property
    def grid_parameters(self) -> dict[str, Any]:
        """Return the parameters of the grid; a searched one is told of the analytic first step."""
        levels = self._levels()
        told = self.afs and isinstance(levels, str) and levels in registries.grids and grids.takes(levels, "afs")
        return super().grid_parameters | ({"afs": True} if told else {})

    def sample(self, denoise: Denoise, x: Tensor, grid: Grid) -> Tensor:
        """Return the sample of `integrate`, with the analytic first step and the step to 0 as the options say."""
        sigmas = grid.sigmas
        evaluate = _analytic_first(denoise) if self.afs else denoise
        if sigmas[-1] > 0:
            return self.integrate(evaluate, x, grid)
        if grid.steps > 1:
            x = self.integrate(evaluate, x, Grid(sigmas[:-1], grid.schedule))
        return denoise(x, sigmas[-2])

    def _steps(self, nfe: int) -> int | None:
        """Return the number of intervals that cost `nfe` calls; None if there is none."""
        last = self.end == "zero"
        calls = nfe + self.afs - last
        if last and nfe > 0 and calls == 0:
            return 1
        found = self.spanned(calls)
        return None if found is None else found + last

    def _costs(self) -> str:
        """Return what the steps cost, for a refused budget."""
        return f"each step costs {self.stages} evaluations"

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
