"""DPM-Solver-v3: an exponential integrator whose linear part is estimated from the teacher, by three statistics."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from solverbench.errors import GridError, SpecError
from solverbench.learned.estimated import EstimatedSolver
from solverbench.learned.moments import Moments
from solverbench.method import Denoise, Grid, NoiseSchedule, option
from solverbench.method.declarations import shown
from solverbench.method.exponential import order_at
from solverbench.method.grids import ROUNDED
from solverbench.teachers.teacher import Teacher

REFINED = 10
"""Trapezoids per interval of the statistics: 1200 with the default, as the public code has for less than 10 steps."""

PSEUDO_UP_TO, CORRECTED_UP_TO = 5, 6
"""Largest numbers of steps with pseudo derivatives, and with a corrector. Source: the public code, for EDM models."""


class DPMSolverV3(EstimatedSolver):
    """An exponential Adams method on what is left of the slope after its best linear part is taken out.

    In lambda = -log sigma, dx/dlambda = -(x - D). With statistics l(lambda), s(lambda) of the teacher,

        F = (1 - l) x - D,                       so that  dx/dlambda = -l x - F
        L = int l,  S = int s                    from lambda_a, the level of the step's start
        g_k = exp(-S_k) F_k                      at the start a and at earlier levels
        x_z = exp(-L_z) (x_a - sum_{i<p} W_i g^(i)),     W_i = int_a^z exp(L + S) (lambda - lambda_a)^i/i! dlambda

    where g^(i) is the i-th derivative at a of the polynomial through the p newest g. With pseudo derivatives it is i!
    times the divided difference of order i that begins at a. The corrector computes the step again, with the output
    at its end as one of the p values; no call is made at the corrected state, and F keeps the predicted one. All but
    the last step have one, because nothing is called at the end.

    l minimises E |d(x - D)/dx - l|^2: the mean of the Jacobian's diagonal. s minimises E |dF/dlambda - s F|^2 along
    the teacher's trajectories. Both are numbers at the ends of `intervals` equal intervals in lambda, cubic in between,
    and integrals are trapezoids of a tenth of an interval. The paper has one number per pixel, and a third statistic
    b, which adds a constant image to each step. A tableau has no place for it, so b = 0 here; hence `stats=scalar`.

    Unestimated, l = 1 and s = 0, the exponential Adams method on D. l = 0 and s = -1 is the same on the noise.

    Source: Zheng et al. 2023, arXiv:2310.13268, equations 5, 8 and 11, and its public code for the defaults on EDM
    models; that code moves the sample's levels to the nearest of the statistics', which is not needed here.
    """

    name: ClassVar[str] = "dpmv3"
    distilled: ClassVar[bool] = True
    paper: ClassVar[str] = "DPM-Solver-v3, arXiv:2310.13268"
    inferred: ClassVar[str] = "not the published DPM-Solver-v3: statistics are one number per level, and b is 0"

    levels: str = option("logsnr", key="grid", help="grid name, or M+1 noise levels joined with +")
    stats: str = option("scalar", choices=("scalar",), help="scalar: one number per level, in place of one per pixel")
    order: int = option(3, choices=(1, 2, 3), help="number of outputs that a regular step combines")
    pseudo: bool | None = option(None, help="divided differences as derivatives; if not given, up to 5 steps")
    corrector: bool | None = option(
        None, help="correct each step by the output at its end; if not given, up to 6 steps"
    )
    lower_order_final: bool = option(True, help="reduce the order to 1 over the last steps")
    intervals: int = option(120, above=0, help="intervals of the statistics, equal in log sigma")

    def __post_init__(self) -> None:
        super().__post_init__()
        for key, given, least, idle in (
            ("corrector", self.corrector is not None, 2, "corrects nothing"),
            ("pseudo", self.pseudo is not None, 3, "has the same derivatives either way"),
            ("lower_order_final", not self.lower_order_final, 2, "has order 1 in any case"),
        ):
            if self.order < least and given:
                asked = f"dpmv3:order={self.order}:{key}={shown(getattr(self, key))}"
                raise SpecError(asked=asked, wrong=f"order {self.order} {idle}", remedy="leave it out")

    @property
    def first_fixed(self) -> bool:
        """Whether the first call is fixed: yes, the grid is."""
        return True

    def shapes(self, nfe: int) -> dict[str, tuple[int, ...]]:
        """Return the shapes of the statistics; the same for every number of calls."""
        return dict.fromkeys(("l", "s"), (self.intervals + 1,))

    def initial(self, schedule: NoiseSchedule, nfe: int) -> dict[str, Tensor]:
        """Return l = 1 and s = 0."""
        ones = torch.ones(self.intervals + 1, dtype=torch.float64)
        return {"l": ones, "s": torch.zeros_like(ones)}

    def grid(self, schedule: NoiseSchedule, steps: int) -> Grid:
        """Return the fixed grid.

        Raises:
            GridError: a level lies outside those that the statistics cover.
        """
        grid = super().grid(schedule, steps)
        covered = self._places(schedule)[[0, -1]].neg().exp()
        if grid.sigmas[0] > covered[0] * (1 + ROUNDED) or grid.sigmas[-1] < covered[1] * (1 - ROUNDED):
            raise GridError(
                asked=f"dpmv3:grid={self.levels}",
                wrong=f"statistics are from level {covered[0]:g} to {covered[1]:g}, and this grid from "
                f"{float(grid.sigmas[0]):g} to {float(grid.sigmas[-1]):g}",
                remedy="use grid=logsnr",
            )
        return grid

    def integrate(self, denoise: Denoise, x: Tensor, grid: Grid) -> Tensor:
        """Return the sample; M calls for M intervals."""
        statistics = _Statistics(self._places(grid.schedule), self.trained["l"], self.trained["s"], self.order)
        lam = -grid.sigmas.log()
        pseudo = grid.steps <= PSEUDO_UP_TO if self.pseudo is None else self.pseudo
        corrected = grid.steps <= CORRECTED_UP_TO if self.corrector is None else self.corrector
        past = [_Value(lam[0], statistics.rest(denoise, x, grid.sigmas[0]))]
        for n in range(grid.steps):
            order = order_at(n, grid.steps, self.order, lowered=self.lower_order_final)
            predicted = statistics.step(x, lam[n], lam[n + 1], past[:order], pseudo=pseudo)
            if n + 1 == grid.steps:
                return predicted
            new = _Value(lam[n + 1], statistics.rest(denoise, predicted, grid.sigmas[n + 1]))
            nodes = [past[0], new, *past[1:]][: self.order]
            corrects = corrected and self.order > 1
            x = statistics.step(x, lam[n], lam[n + 1], nodes, pseudo=False) if corrects else predicted
            past = [new, *past][: self.order]
        raise AssertionError("a grid has at least one interval")

    def estimate(self, teacher: Teacher, noise: Tensor, seeds: Sequence[int], *, batch: int, seed: int) -> Moments:
        """Return the moments along DPM-Solver++(2M) trajectories on the statistics' levels; see `parameters_of`.

        Args:
            noise: unit noise [n, *shape] on the teacher's device; its dtype is that of the trajectories.
            seeds: the images' seeds [n], which choose their conditions; empty if the teacher has none.
            batch: images per call.
            seed: seed of the random signs by which the Jacobian's diagonal is estimated.
        """
        lam = self._places(teacher.schedule)
        moments = Moments(lam)
        for number, rows in enumerate(torch.split(torch.arange(len(noise)), batch)):
            denoise = teacher.denoiser([seeds[i] for i in rows.tolist()] if seeds else [])
            moments.add(denoise, noise[rows.to(noise.device)], teacher.schedule, seed=seed, number=number)
        return moments

    def parameters_of(self, moments: Moments) -> dict[str, Tensor]:
        """Return the statistics l and s [intervals + 1] that fit the moments best."""
        diagonal = moments.diagonal
        return {"l": diagonal, "s": moments.growth(diagonal)}

    def _places(self, schedule: NoiseSchedule) -> Tensor:
        """Return the statistics' places in lambda, [intervals + 1], rising."""
        first, last = -math.log(schedule.sigma_first), -math.log(schedule.sigma_min)
        return torch.linspace(first, last, self.intervals + 1, dtype=torch.float64)


@dataclass(frozen=True)
class _Value:
    """F at a place in lambda."""

    place: Tensor
    rest: Tensor


class _Statistics:
    """l and s as smooth functions of lambda, with their integrals.

    Between places, a function is the cubic with its values and slopes at both ends. The integrals are trapezoids on
    places `REFINED` times as dense; between those, too, the cubics.

    Args:
        places: [S+1], equally spaced and rising.
        l, s: values at the places, [S+1].
        order: number of outputs that a step combines at most.
    """

    def __init__(self, places: Tensor, l: Tensor, s: Tensor, order: int) -> None:  # noqa: E741
        self.first = places[0]
        dense = torch.linspace(float(places[0]), float(places[-1]), REFINED * (len(places) - 1) + 1, dtype=places.dtype)
        self.diagonal = _Cubic(places, l, _slopes(l, places))
        growth, decay = self.diagonal(dense), _Cubic(places, s, _slopes(s, places))(dense)
        self.growth, self.decay = _integral(dense, growth), _integral(dense, decay)
        kernel = (self.growth.values + self.decay.values).exp()
        self.moments = [_integral(dense, kernel * (dense - self.first) ** i) for i in range(order)]

    def rest(self, denoise: Denoise, x: Tensor, sigma: Tensor) -> Tensor:
        """Return F = (1 - l) x - D. Costs one call."""
        return (1 - self.diagonal(-sigma.log())) * x - denoise(x, sigma)

    def step(self, x: Tensor, a: Tensor, z: Tensor, nodes: Sequence[_Value], *, pseudo: bool) -> Tensor:
        """Return the state at place `z` from `x` at place `a`, by the values at `nodes`, of which a's is the first."""
        apart = torch.stack([node.place - a for node in nodes])
        weights = _weights(self._moments(a, z, len(nodes)), apart, pseudo=pseudo)
        for weight, node in zip(weights, nodes, strict=True):
            x = x - weight * (self.decay(a) - self.decay(node.place)).exp() * node.rest
        return (self.growth(a) - self.growth(z)).exp() * x

    def _moments(self, a: Tensor, z: Tensor, count: int) -> Tensor:
        """Return W_0 .. W_{count-1}, from the integrals of powers of the distance to the first place."""
        raw = [moment(z) - moment(a) for moment in self.moments[:count]]
        scale, back = (-self.growth(a) - self.decay(a)).exp(), self.first - a
        found = [
            sum((math.comb(i, r) * back ** (i - r) * raw[r] for r in range(i + 1)), torch.zeros_like(a))
            for i in range(count)
        ]
        return torch.stack([scale * each / math.factorial(i) for i, each in enumerate(found)])


@dataclass(frozen=True)
class _Cubic:
    """The piecewise cubic with these values and slopes at equally spaced, rising places, [n] each."""

    places: Tensor
    values: Tensor
    slopes: Tensor

    def __call__(self, at: Tensor) -> Tensor:
        """Return the function at `at`, of any shape; beyond the ends, the last cubics."""
        h = self.places[1] - self.places[0]
        left = ((at.detach() - self.places[0]) / h).floor().long().clamp(0, len(self.places) - 2)
        u = (at - self.places[left]) / h
        rise = self.values[left + 1] - self.values[left]
        begin, end = h * self.slopes[left] - rise, rise - h * self.slopes[left + 1]
        return self.values[left] + u * rise + u * (1 - u) * ((1 - u) * begin + u * end)


def _slopes(values: Tensor, places: Tensor) -> Tensor:
    """Return the slopes of a function at its places: of a parabola through neighbours; at the ends, of a line."""
    h, rises = places[1] - places[0], values.diff()
    return torch.cat([rises[:1] / h, (rises[1:] + rises[:-1]) / (2 * h), rises[-1:] / h])


def _integral(places: Tensor, values: Tensor) -> _Cubic:
    """Return the integral from the first place on, by trapezoids."""
    sums = torch.cat([values.new_zeros(1), torch.cumulative_trapezoid(values, places)])
    return _Cubic(places, sums, values)


def _weights(moments: Tensor, apart: Tensor, *, pseudo: bool) -> Tensor:
    """Return the weight of each value in sum_i moments[i] g^(i).

    Args:
        moments: [p].
        apart: [p], the places of the values less the first one's.
        pseudo: whether g^(i) is i! times a divided difference in place of the polynomial's derivative.
    """
    count = len(moments)
    if not pseudo:
        rows = torch.stack([apart**i / math.factorial(i) for i in range(count)])
        solved: Tensor = torch.linalg.solve(rows, moments)
        return solved
    parts = []
    for j in range(count):
        shares = [
            moments[i] * math.factorial(i) / math.prod(apart[j] - apart[m] for m in range(i + 1) if m != j)
            for i in range(j, count)
        ]
        parts.append(sum(shares, torch.zeros_like(moments[0])))
    return torch.stack(parts)
