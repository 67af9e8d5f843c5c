"""iPNDM with variable steps: Adams-Bashforth on the slopes, with coefficients for the grid's actual steps."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import ClassVar

from torch import Tensor

from solverbench.errors import SpecError
from solverbench.method import Classical, Denoise, Grid, option


class IPNDMV(Classical):
    """Linear multistep method of order 1 to 4 on any grid; one call per interval. The order rises at the start.

    A step integrates the Newton interpolant of the last slopes in sigma. `compat` uses the weights of the public code
    behind published numbers; it has three errors at orders 3 and 4. At order 4 they do not sum to 1 on general grids.
    Source: Hairer, Norsett and Wanner 1993, section III.5, for the method; diff-sampler's ipndm_v for `compat`.
    """

    name: ClassVar[str] = "ipndm_v"
    paper: ClassVar[str] = "variable-step Adams-Bashforth for iPNDM, arXiv:2204.13902"

    order: int = option(4, choices=(1, 2, 3, 4), help="number of outputs that a regular step combines")
    compat: bool = option(False, help="use the weights of the public code, which are wrong at orders 3 and 4")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.compat and self.order < 3:
            raise SpecError(
                asked=f"ipndm_v:order={self.order}:compat=true",
                wrong="the public code is right at orders 1 and 2",
                remedy="leave compat out, or use order 3 or 4",
            )

    @property
    def consistent(self) -> bool:
        """Whether every row keeps a constant image; false with compat at order 4, whose weights do not sum to 1."""
        return super().consistent and not (self.compat and self.order == 4)

    @property
    def local_order(self) -> int | None:
        """The order of the weights. With compat, order 3 gives 2 and order 4 gives 0: its weights do not sum to 1."""
        if not self.compat:
            return self.order
        return 0 if self.order == 4 else 2

    @property
    def global_order(self) -> int | None:
        """At most 2, because the first step is an Euler step; also with compat on grids whose steps vary smoothly."""
        return min(self.order, 2)

    def integrate(self, denoise: Denoise, x: Tensor, grid: Grid) -> Tensor:
        """Return the sample; M calls for M intervals."""
        sigmas = grid.sigmas
        past: list[Tensor] = []
        for n in range(grid.steps):
            slope = (x - denoise(x, sigmas[n])) / sigmas[n]
            past = [slope, *past][: self.order]
            steps = [sigmas[n + 1 - i] - sigmas[n - i] for i in range(len(past))]
            if self.compat:
                for weight, e in zip(_public_weights(steps), past, strict=True):
                    x = x + steps[0] * weight * e
            else:
                for integral, difference in zip(_integrals(steps), _newton(steps, past), strict=True):
                    x = x + integral * difference
        return x


def _newton(steps: Sequence[Tensor], past: Sequence[Tensor]) -> list[Tensor]:
    """Return the divided differences f[0], f[01], f[012], ... of the slopes; steps[i] starts where past[i] was made."""
    column, leading = list(past), [past[0]]
    for k in range(1, len(past)):
        column = [
            (newer - older) / sum(steps[i + 2 : i + k + 1], start=steps[i + 1])
            for i, (newer, older) in enumerate(itertools.pairwise(column))
        ]
        leading.append(column[0])
    return leading


def _integrals(steps: Sequence[Tensor]) -> list[Tensor]:
    """Return the integrals over the step of the Newton basis 1, u, u(u + H1), u(u + H1)(u + H1 + H2)."""
    match steps:
        case (h,):
            return [h]
        case (h, _):
            return [h, h**2 / 2]
        case (h, h1, _):
            return [h, h**2 / 2, h**3 / 3 + h1 * h**2 / 2]
        case (h, h1, h2, _):
            cubic = h**4 / 4 + (2 * h1 + h2) * h**3 / 3 + h1 * (h1 + h2) * h**2 / 2
            return [h, h**2 / 2, h**3 / 3 + h1 * h**2 / 2, cubic]
    raise AssertionError(f"{len(steps)} steps")


def _public_weights(steps: Sequence[Tensor]) -> Sequence[Tensor | float]:
    """Return the weights of the slopes, newest first, in units of the step, with the public code's three errors."""
    h, *past = steps
    if not past:
        return [1.0]
    h1, *past = past
    a = h / h1
    if not past:
        return [1 + a / 2, -a / 2]
    h2, *past = past
    ratio = h1 / h2
    # Error 1: the product of steps belongs outside the bracket.
    t1 = (1 - h / (3 * (h + h1)) * (h * (h + h1)) / (h1 * (h1 + h2))) / 2
    if not past:
        return [1 + a / 2 + t1, -a / 2 - (1 + ratio) * t1, ratio * t1]
    (h3,) = past
    # Error 2: the second term should be subtracted.
    bracket = (1 - h / (3 * (h + h1))) / 2 + (1 - h / (2 * (h + h1))) * h / (6 * (h + h1 + h2))
    t2 = bracket * (h * (h + h1) * (h + h1 + h2)) / (h1 * (h1 + h2) * (h1 + h2 + h3))
    q = h1 * (h1 + h2) / (h2 * (h2 + h3))
    return [
        1 + a / 2 + t1 + t2,
        -a / 2 - (1 + ratio) * t1 - (1 + ratio + q) * t2,
        ratio * t1 + (ratio + q * (1 + h2 / h3)) * t2,
        -q * ratio * t2,  # Error 3: the ratio should be h2/h3.
    ]
