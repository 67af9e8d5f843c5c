"""Heun++ of ComfyUI: up to three slopes a step, with weights that depend on the noise level alone."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from solverbench.method import Classical, Denoise, Grid


class HeunPP2(Classical):
    """A step along three slopes, at its start, its end and the end of the next step; three calls per interval.

    With s_0 the first level, the slope at the level s has the weight s/(3 s_0), and the first slope the rest. The last
    interval has two slopes, the second with the weight s/(2 s_0). The weights don't depend on the step, so the method
    is of first order. It is here for users who know it by name.
    Source: ComfyUI's heunpp2, which is heunpp2:end=zero.
    """

    name: ClassVar[str] = "heunpp2"
    paper: ClassVar[str] = "Heun++ of ComfyUI, without a paper"
    global_order: ClassVar[int | None] = 1
    stages: ClassVar[int] = 3

    def spanned(self, calls: int) -> int | None:
        """Return the intervals of `calls` calls: three each, but two in the last one."""
        return (calls + 1) // 3 if calls > 0 and calls % 3 == 2 else None

    def _costs(self) -> str:
        return "each step costs 3 evaluations, and the last one 2"

    def integrate(self, denoise: Denoise, x: Tensor, grid: Grid) -> Tensor:
        """Return the sample; 3M - 1 calls for M intervals."""
        sigmas = grid.sigmas
        for n in range(grid.steps):
            s, t = sigmas[n], sigmas[n + 1]
            slope = (x - denoise(x, s)) / s
            trial = x + (t - s) * slope
            second = (trial - denoise(trial, t)) / t
            if n + 1 == grid.steps:
                weight = t / (2 * sigmas[0])
                return x + (t - s) * ((1 - weight) * slope + weight * second)
            after = sigmas[n + 2]
            trial = trial + (after - t) * second
            third = (trial - denoise(trial, after)) / after
            two, three = t / (3 * sigmas[0]), after / (3 * sigmas[0])
            x = x + (t - s) * ((1 - two - three) * slope + two * second + three * third)
        raise AssertionError("a grid has at least one interval")
