"""CAB: variable-step Adams-Bashforth on the slopes, corrected by a multiple of their second difference."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from torch import Tensor

from solverbench.method import Classical, Denoise, Grid, option


class CAB(Classical):
    """Adams-Bashforth of order 2 or 3 in sigma, plus theta times the second difference; one call per interval.

    The term is added from the third step on, when three slopes are known. It is of second order in the step, so that
    the method is of second order unless theta = 0, which is ipndm_v of the same order. The first steps have lower
    order.
    Source: Roy and Nair 2026, arXiv:2605.16736 (CAB).
    """

    name: ClassVar[str] = "cab"
    paper: ClassVar[str] = "CAB, arXiv:2605.16736"

    order: int = option(2, choices=(2, 3), help="number of slopes that the Adams-Bashforth part combines")
    theta: float = option(0.9, help="weight of the second difference of the slopes, in units of the step; 0: none")

    @property
    def local_order(self) -> int | None:
        """2; with theta = 0, the order of the Adams-Bashforth part."""
        return 2 if self.theta else self.order

    @property
    def global_order(self) -> int | None:
        """2, as the first step is an Euler step.

        Not declared for other values of theta, whose error and that of the first step cancel in part.
        """
        return 2 if self.theta in (0, 0.9, 1) else None

    def integrate(self, denoise: Denoise, x: Tensor, grid: Grid) -> Tensor:
        """Return the sample; M calls for M intervals."""
        sigmas = grid.sigmas
        past: list[Tensor] = []
        for n in range(grid.steps):
            past = [(x - denoise(x, sigmas[n])) / sigmas[n], *past][:3]
            steps = [sigmas[n + 1 - i] - sigmas[n - i] for i in range(len(past))]
            known = min(self.order, len(past))
            for weight, slope in zip(adams_bashforth(steps[:known]), past, strict=False):
                x = x + steps[0] * weight * slope
            if len(past) == 3:
                ratio = steps[1] / steps[2]
                x = x + steps[0] * self.theta * (past[0] - (1 + ratio) * past[1] + ratio * past[2])
        return x


def adams_bashforth(steps: Sequence[Tensor]) -> Sequence[Tensor | float]:
    """Return the weights of one to three slopes, newest first, in units of the step.

    Args:
        steps: the step in sigma, then the steps before it; one for each slope.

    Source: Hairer, Norsett and Wanner 1993, section III.5.
    """
    match steps:
        case (_,):
            return [1.0]
        case (h, a):
            return [1 + h / (2 * a), -h / (2 * a)]
        case (h, a, b):
            return [
                1 + h * (2 * h + 3 * (2 * a + b)) / (6 * a * (a + b)),
                -h * (2 * h + 3 * (a + b)) / (6 * a * b),
                h * (2 * h + 3 * a) / (6 * b * (a + b)),
            ]
    raise AssertionError(f"{len(steps)} steps")
