"""DyWeight: iPNDM whose weights are trained and needn't sum to one, with trained scales of the told levels."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from solverbench.learned.growth import resampled, resampled_changes
from solverbench.method import ADAMS_BASHFORTH, Denoise, Grid, LearnedSolver, NoiseSchedule, option
from solverbench.method.solver import check_steps


class DyWeight(LearnedSolver):
    """A multistep method on the slopes with free weights w and one scale a of the told level per call.

    The grid sigma_0 > .. > sigma_M is fixed. The weights of a step needn't sum to 1. Their sum says how far the state
    moves, so its own level tau departs from the grid's. With tau_0 = sigma_0, step n is

        e_n       = (x_n - D(x_n, |a_n tau_n|))/tau_n
        x_{n+1}   = x_n + (sigma_{n+1} - tau_n) sum_{j=n-H+1}^{n} w_n[n-j] e_j
        tau_{n+1} = tau_n + (sigma_{n+1} - tau_n) sum_{j=n-H+1}^{n} w_n[n-j]

    w0 .. w{M-1} have min(n+1, H) entries, newest output first; a [N] has one for each call. The sample is at level
    tau_M, which is left as it is, as in the public code. With `afs` the first slope is x/sqrt(1 + sigma_0^2), which
    costs no call and has no scale.

    Training starts at iPNDM: the Adams-Bashforth weights of order min(n+1, H, 4), and a = 1. Published is history=3;
    the default keeps the whole of iPNDM of order 4.

    Source: DyWeight, arXiv:2603.11607. Its code divides by tau + 1e-8; here, as in iPNDM, by tau.
    """

    name: ClassVar[str] = "dyweight"
    distilled: ClassVar[bool] = True
    paper: ClassVar[str] = "DyWeight, arXiv:2603.11607"

    levels: str = option("polynomial", key="grid", help="grid name, or M+1 noise levels joined with +; not learned")
    history: int = option(4, above=0, help="number of outputs that a regular step combines; published: 3")
    afs: bool = option(False, help="replace the first evaluation by the score of a Gaussian, which saves a call")

    def group(self, name: str) -> str:
        """Return the group of a parameter."""
        return "offsets" if name == "a" else "coefficients"

    def steps(self, nfe: int) -> int:
        """Return M: one call per interval, and with `afs` one interval more."""
        return nfe + self.afs

    def shapes(self, nfe: int) -> dict[str, tuple[int, ...]]:
        """Return the shapes of the weights of each step and of the scales."""
        weights = {f"w{n}": (min(n + 1, self.history),) for n in range(self.steps(nfe))}
        return {**weights, "a": (nfe,)}

    def initial(self, schedule: NoiseSchedule, nfe: int) -> dict[str, Tensor]:
        """Return the weights of iPNDM of order min(4, history), and scales of 1."""
        parameters = {name: torch.zeros(shape, dtype=torch.float64) for name, shape in self.shapes(nfe).items()}
        for n in range(self.steps(nfe)):
            order = min(n + 1, self.history, max(ADAMS_BASHFORTH))
            parameters[f"w{n}"][:order] = torch.tensor(ADAMS_BASHFORTH[order], dtype=torch.float64)
        return {**parameters, "a": torch.ones(nfe, dtype=torch.float64)}

    def grown(self, schedule: NoiseSchedule, nfe: int) -> dict[str, Tensor]:
        """Return iPNDM's weights, plus what training changed for fewer steps, and the scales, both interpolated."""
        before, initial = (self.initial(schedule, calls) for calls in (len(self.trained["a"]), nfe))
        scales = resampled(self.trained["a"], nfe)
        weights = ({n: w for n, w in each.items() if n != "a"} for each in (self.trained, before, initial))
        return resampled_changes(*weights) | {"a": scales}

    def grid(self, schedule: NoiseSchedule, steps: int) -> Grid:
        """Return the fixed grid."""
        check_steps(self.name, len(self.trained) - 1, steps)
        return super().grid(schedule, steps)

    def integrate(self, denoise: Denoise, x: Tensor, grid: Grid) -> Tensor:
        """Return the sample; M calls for M intervals, with `afs` M - 1."""
        tau, scales = grid.sigmas[0], iter(self.trained["a"])
        past: list[Tensor] = []
        for n in range(grid.steps):
            if self.afs and n == 0:
                slope = x / (1 + tau**2).sqrt()
            else:
                slope = (x - denoise(x, (next(scales) * tau).abs(), level=tau)) / tau
            past = [slope, *past][: self.history]
            step, weights = grid.sigmas[n + 1] - tau, self.trained[f"w{n}"]
            for weight, e in zip(weights, past, strict=True):
                x = x + step * weight * e
            tau = tau + step * weights.sum()
        return x
