"""Steps with free weights for the network's outputs; the linear part follows from the levels."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from solverbench.method.exponential import ADAMS_BASHFORTH, block_orders, differences, order_at, phis, unified
from solverbench.method.grids import Grid
from solverbench.method.solver import Denoise, check_steps
from solverbench.method.spec import make
from solverbench.method.tracing import trace

KNOWN = 3
"""Largest number of outputs that DPM-Solver++ and UniPC combine; further (older) outputs start with weight 0."""


@dataclass(frozen=True)
class Coefficients:
    """The steps of a solver with free weights, in the EDM frame, on any grid.

    There are q = min(order, n+1) known outputs m; m_n is made at level n. With the exact linear part from level s to t

        data :  A = t/s,  C = 1 - t/s = -expm1(-h)      m = D           h = log(s/t)
        noise:  A = 1,    C = t - s = -t expm1(h)       m = (x - D)/s

    the step from level n to n+1 is

        lms   :  x_{n+1} = A x_n + C sum_{i=1}^{q} b_n[i] m_{n+1-i}
        pc    :  x~      = A x_n + C sum_{i=1}^{q} b_n[i] m_{n+1-i},    m_{n+1} = m(x~), also for later steps
                 x_{n+1} = A x_n + C (c_n[0] m_{n+1} + sum_{i=1}^{q} c_n[i] m_{n+1-i}); not on the last step
        single:  calls begin .. end-1 form a block that starts from x_begin alone (`block_orders`), so that
                 x_{n+1} = A x_begin + C sum_{j=begin}^{n} b_n[j-begin] m_j    A, C from level begin to n+1

    b_n and c_n have exactly the entries that are used. One call per interval; call n is made at level n.

    Args:
        form: lms, pc or single.
        prediction: data or noise.
        order: number of outputs that a regular step combines; with form=single, the calls of a regular block.
    """

    form: str
    prediction: str
    order: int

    def shapes(self, nfe: int) -> dict[str, tuple[int, ...]]:
        """Return the shape of every parameter: b0 .. b{N-1}, then with form=pc c0 .. c{N-2}."""
        if self.form == "single":
            sizes = [k + 1 for order in block_orders(nfe, self.order) for k in range(order)]
        else:
            sizes = [min(self.order, n + 1) for n in range(nfe)]
        shapes: dict[str, tuple[int, ...]] = {f"b{n}": (size,) for n, size in enumerate(sizes)}
        if self.form == "pc":
            shapes |= {f"c{n}": (size + 1,) for n, size in enumerate(sizes[:-1])}
        return shapes

    def initial(self, grid: Grid, *, lowered: bool = False) -> dict[str, Tensor]:
        """Return the weights of the classical solver of this form on `grid`, float64.

        These are DPM-Solver++(3M) (lms, data), iPNDM (lms, noise), UniPC bh2 (pc), DPM-Solver++ singlestep (single).

        Args:
            lowered: whether the order falls over the last steps; weights that are then unused start at 0.
        """
        lam = -grid.sigmas.log()
        if self.form == "single":
            return self._single_initial(grid)
        known = self.order if self.prediction == "noise" else min(self.order, KNOWN)
        orders = [order_at(n, grid.steps, known, lowered=lowered) for n in range(grid.steps)]
        weights = {"lms": self._extrapolation, "pc": _predictor}[self.form]
        start = {f"b{n}": weights(lam, n, q) for n, q in enumerate(orders)}
        if self.form == "pc":
            start |= {f"c{n}": _corrector(lam, n, q) for n, q in enumerate(orders[:-1])}
        sizes = {name: shape[0] for name, shape in self.shapes(grid.steps).items()}
        return {name: torch.cat([part, part.new_zeros(sizes[name] - len(part))]) for name, part in start.items()}

    def check(self, asked: str, parameters: Mapping[str, Tensor], steps: int) -> None:
        """Raise GridError unless `parameters` were made for `steps` steps."""
        held = sum(name[0] == "b" and name[1:].isdigit() for name in parameters)
        check_steps(asked, held, steps)

    def integrate(self, parameters: Mapping[str, Tensor], denoise: Denoise, x: Tensor, grid: Grid) -> Tensor:
        """Return the sample; M calls for M intervals."""
        if self.form == "single":
            return self._single(parameters, denoise, x, grid.sigmas)
        sigmas = grid.sigmas
        past = [self._predict(denoise, x, sigmas[0])]
        for n in range(grid.steps):
            predicted = self._step(x, sigmas[n], sigmas[n + 1], parameters[f"b{n}"], past)
            if n + 1 == grid.steps:
                return predicted
            new = self._predict(denoise, predicted, sigmas[n + 1])
            corrected = self.form == "pc"
            x = self._step(x, sigmas[n], sigmas[n + 1], parameters[f"c{n}"], [new, *past]) if corrected else predicted
            past = [new, *past][: self.order]
        raise AssertionError("a grid has at least one interval")

    def _single(self, parameters: Mapping[str, Tensor], denoise: Denoise, x: Tensor, sigmas: Tensor) -> Tensor:
        for begin, end in _blocks(len(sigmas) - 1, self.order):
            start, outputs = x, []
            for n in range(begin, end):
                outputs.append(self._predict(denoise, x, sigmas[n]))
                x = self._step(start, sigmas[begin], sigmas[n + 1], parameters[f"b{n}"], outputs)
        return x

    def _predict(self, denoise: Denoise, x: Tensor, sigma: Tensor) -> Tensor:
        d = denoise(x, sigma)
        return d if self.prediction == "data" else (x - d) / sigma

    def _step(self, x: Tensor, s: Tensor, t: Tensor, weights: Tensor, outputs: Sequence[Tensor]) -> Tensor:
        """Return A x + C times the weighted outputs, for the step from level s to t."""
        by_data = self.prediction == "data"
        scale = -torch.expm1(t.log() - s.log()) if by_data else t - s
        x = t / s * x if by_data else x
        for n, output in enumerate(outputs):
            x = x + scale * weights[n] * output
        return x

    def _extrapolation(self, lam: Tensor, n: int, q: int) -> Tensor:
        """Return the weights of iPNDM or DPM-Solver++: 1 - (p2 D1 - p3 D2)/p1 on unit outputs."""
        if self.prediction == "noise":
            return torch.tensor(ADAMS_BASHFORTH[q], dtype=torch.float64)
        m: list[Tensor] = list(torch.eye(q, dtype=torch.float64))
        weights = m[0]
        p1, p2, p3 = phis(lam[n + 1] - lam[n])
        match differences(lam, m, n):
            case (d0,):
                weights = m[0] + d0 / 2
            case (d1, d2):
                weights = m[0] - p2 / p1 * d1 + p3 / p1 * d2
        return weights

    def _single_initial(self, grid: Grid) -> dict[str, Tensor]:
        """Return the weights of singlestep DPM-Solver++, read from its tableau: each of its states is a row."""
        rows = trace(make(f"dpm:singlestep=true:order={self.order}"), grid, check=False).weights
        sigmas = grid.sigmas
        parameters = {}
        for begin, end in _blocks(grid.steps, self.order):
            for n in range(begin, end):
                share = sigmas[n + 1] / sigmas[begin]
                change = rows[n + 1] - share * rows[begin]
                parameters[f"b{n}"] = change[1 + begin : 2 + n] / (1 - share)
        return parameters


def _blocks(calls: int, order: int) -> Iterator[tuple[int, int]]:
    """Return (first call, one past the last call) for each block."""
    return itertools.pairwise(itertools.accumulate(block_orders(calls, order), initial=0))


def _predictor(lam: Tensor, n: int, q: int) -> Tensor:
    """Return the weights of UniPC's predictor (UniP, bh2): m_n + sum_i rho_i D_i, D_i = (m_{n-i} - m_n)/r_i."""
    h = lam[n + 1] - lam[n]
    return _unified([(lam[n - i] - lam[n]) / h for i in range(1, q)], -h)


def _corrector(lam: Tensor, n: int, q: int) -> Tensor:
    """Return the weights of UniPC's corrector (UniC, bh2); the call at level n+1, with r = 1, comes first."""
    h = lam[n + 1] - lam[n]
    r = [(lam[n - i] - lam[n]) / h for i in range(1, q)]
    weights = _unified([*r, torch.ones_like(h)], -h)
    return weights.roll(1)


def _unified(r: Sequence[Tensor], z: Tensor) -> Tensor:
    """Return the weight of the output at r = 0, then the weights of those at `r`."""
    shares = [rho / r_i for rho, r_i in zip(unified(r, z, torch.expm1(z)), r, strict=True)]
    first = torch.ones_like(z) - sum(shares, torch.zeros_like(z))
    return torch.stack([first, *shares])
