"""GS: a multistep solver that learns its times, evaluation times and coefficients; GAS adds an adversarial loss."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from solverbench.errors import GridError, TrainingError
from solverbench.exponential import differences, phis
from solverbench.grids import Grid
from solverbench.schedules import NoiseSchedule, VPLinear
from solverbench.solver import Denoise, LearnedSolver, option

MARGIN = 1e-5
"""How far the sigmoid's output stays from 0 and 1."""


class Generalized(LearnedSolver):
    """The generalized solver on a linear VP schedule: corrections added to DPM-Solver++(3M), over the whole history.

    With x in the VP frame, k = n+1 outputs at hand, A = s(t')/s(t), alpha = alpha(t') and the weights and differences
    of DPM-Solver++ (`phis`, `differences`), the step from t = t_n to t' = t_{n+1} is

        k = 1:   x' = (A + a1) x_n - (alpha p1 + c1) m_n
        k = 2:   x' = ... - (alpha p1/2 + c2) d0 + a2 x_{n-1}
        k >= 3:  x' = (A + a1) x_n - (alpha p1 + c1) m_n + (alpha p2 + c2) D1 - (alpha p3 + c3) D2
                      + sum_{i=4}^{k} c_i m_{n+1-i} + sum_{i=2}^{k} a_i x_{n+1-i}

    The loop keeps states in the EDM frame (x / alpha), so that a_i is multiplied by alpha(t_{n+1-i})/alpha(t') and c_i
    by 1/alpha(t'). Parameters, indexed by n: mu_logit [N-1], t_couple [N], then for i = 1 .. N: ci [N], ai [N].

    Source: GAS, arXiv:2510.17699, equations 12-16, with the public code's order of parameters.
    """

    paper: ClassVar[str] = "GAS, arXiv:2510.17699"

    levels: str = option("learned", key="grid", choices=("learned",), help="always the learned one")
    t_eps: float | None = option(
        None, above=0.0, help="end of the standard VP time range, as published; the teacher's own ends if not given"
    )

    def initial(self, schedule: NoiseSchedule, nfe: int) -> dict[str, Tensor]:
        """Return uniform times, no offsets and no corrections: DPM-Solver++(3M) without lower_order_final."""
        left = torch.arange(nfe - 1, 0, -1, dtype=torch.float64)
        parameters = {
            "mu_logit": torch.logit((left / (left + 1) - MARGIN) / (1 - 2 * MARGIN)),
            "t_couple": torch.zeros(nfe, dtype=torch.float64),
        }
        for i in range(1, nfe + 1):
            parameters |= {
                f"c{i}": torch.zeros(nfe, dtype=torch.float64),
                f"a{i}": torch.zeros(nfe, dtype=torch.float64),
            }
        return parameters

    def group(self, name: str) -> str:
        """Return the group of a parameter."""
        return {"mu_logit": "times", "t_couple": "offsets"}.get(name, "coefficients")

    def grid(self, schedule: NoiseSchedule, steps: int) -> Grid:
        """Return the learned levels on the model's own schedule, or a VP one with an EDM model's ends (or `t_eps`)."""
        if len(self.trained["t_couple"]) != steps:
            raise GridError(
                f"{self.name}: parameters for {len(self.trained['t_couple'])} steps, {steps} asked for; "
                "use those trained for this number of calls"
            )
        clock = self._clock(schedule)
        return Grid(clock.sigma(self._times(clock)), clock)

    def integrate(self, denoise: Denoise, x: Tensor, grid: Grid) -> Tensor:
        """Return the sample; M calls for M intervals."""
        vp, sigmas = grid.schedule, grid.sigmas
        t, lam = vp.time(sigmas), -sigmas.log()
        alpha = vp.alpha(t)
        states: list[Tensor] = []
        outputs: list[Tensor] = []
        for n in range(grid.steps):
            states = [x, *states]
            outputs = [self._output(denoise, x, n, t[n], vp), *outputs]
            p1, p2, p3 = phis(lam[n + 1] - lam[n])
            c = [self.trained[f"c{i}"][n] / alpha[n + 1] for i in range(1, n + 2)]
            x = sigmas[n + 1] / sigmas[n] * x - (p1 + c[0]) * outputs[0]
            match differences(lam, outputs[:3], n):
                case (d0,):
                    x = x - (p1 / 2 + c[1]) * d0
                case (d1, d2):
                    x = x + (p2 + c[1]) * d1 - (p3 + c[2]) * d2
            for weight, output in zip(c[3:], outputs[3:], strict=True):
                x = x + weight * output
            for i, state in enumerate(states, start=1):
                x = x + self.trained[f"a{i}"][n] * alpha[n + 1 - i] / alpha[n + 1] * state
        return x

    def _clock(self, schedule: NoiseSchedule) -> NoiseSchedule:
        if self.t_eps is None:
            return schedule.clock
        return VPLinear.clamped(schedule.sigma_min, schedule.sigma_max, self.t_eps)

    def _times(self, clock: NoiseSchedule) -> Tensor:
        """[N+1] falling times: a stick from the end to the start time, broken from the end, the two fixed."""
        mu = torch.sigmoid(self.trained["mu_logit"]) * (1 - 2 * MARGIN) + MARGIN
        inner = clock.t_end + (clock.t_start - clock.t_end) * (1 - mu.cumprod(0))
        ends = torch.tensor([clock.t_end, clock.t_start], dtype=torch.float64)
        return torch.cat([ends[:1], inner, ends[1:]]).flip(0)

    def _output(self, denoise: Denoise, x: Tensor, n: int, t: Tensor, vp: NoiseSchedule) -> Tensor:
        """The data prediction at t, from a network that sees the unchanged VP state at its own time t + offset."""
        offset = self.trained["t_couple"][n]
        told = t + offset
        sigma, sigma_told = vp.sigma(t), vp.sigma(told)
        # A refitted schedule has a small negative beta_min: its sigma is 0 a little above time 0, and NaN below.
        if not (float(told.detach()) > 0 and float(sigma_told.detach()) > 0):
            raise TrainingError(
                f"{self.name}: call {n + 1} would be at time {float(told.detach()):.3g} (offset "
                f"{float(offset.detach()):.3g}), where there is no noise level above 0; lower the learning rate or "
                "start again from another seed"
            )
        alpha, alpha_told = vp.alpha(t), vp.alpha(told)
        d = denoise(alpha / alpha_told * x, sigma_told, level=sigma)
        return (1 - alpha * sigma / (alpha_told * sigma_told)) * x + sigma / sigma_told * d


class GS(Generalized):
    """The generalized solver, trained by distillation alone."""

    name: ClassVar[str] = "gs"


class GAS(Generalized):
    """The generalized solver, trained by distillation and a relativistic adversarial loss."""

    name: ClassVar[str] = "gas"


class S4SGASCompat(Generalized):
    """What GAS's public code runs as "S4S"; not S4S. Kept for parity with that code alone.

    With A and alpha as in `Generalized`, C = -alpha p1 and c_i, a_i in place of all theoretical weights, its step is

        x~ = A x_n + C sum_{i=1}^{k} c_i m_{n+1-i},    x' = A x~ + C sum_{i=1}^{k} a_i m_{n+1-i}

    so that the state is multiplied by A twice. Untrained it gives A times the step of DPM-Solver++(3M), at a noise
    level that is off by A too. Parameters are named and ordered as in `Generalized`.

    Source: the public code of GAS, arXiv:2510.17699, with use_theory_coef=false.
    """

    name: ClassVar[str] = "s4s_gas_compat"
    paper: ClassVar[str] = "public code of GAS, arXiv:2510.17699"

    def initial(self, schedule: NoiseSchedule, nfe: int) -> dict[str, Tensor]:
        """Return uniform times, no offsets, c of DPM-Solver++(3M) without lower_order_final, and a = 0."""
        parameters = super().initial(schedule, nfe)
        clock = self._clock(schedule)
        lam = -clock.sigma(self.with_parameters(parameters)._times(clock)).log()
        for n in range(nfe):
            m = list(torch.eye(min(n + 1, 3), dtype=torch.float64))
            p1, p2, p3 = phis(lam[n + 1] - lam[n])
            match differences(lam, m, n):
                case (d0,):
                    weights = m[0] + d0 / 2
                case (d1, d2):
                    weights = m[0] - p2 / p1 * d1 + p3 / p1 * d2
                case _:
                    weights = m[0]
            for i, weight in enumerate(weights, start=1):
                parameters[f"c{i}"][n] = weight
        return parameters

    def integrate(self, denoise: Denoise, x: Tensor, grid: Grid) -> Tensor:
        """Return the sample; M calls for M intervals."""
        vp, sigmas = grid.schedule, grid.sigmas
        t = vp.time(sigmas)
        alpha = vp.alpha(t)
        outputs: list[Tensor] = []
        for n in range(grid.steps):
            outputs = [self._output(denoise, x, n, t[n], vp), *outputs]
            kept = sigmas[n + 1] / sigmas[n]
            scale = -torch.expm1(sigmas[n + 1].log() - sigmas[n].log())
            x = kept * x
            for i, output in enumerate(outputs, start=1):
                x = x + scale * self.trained[f"c{i}"][n] * output
            x = kept * alpha[n + 1] / alpha[n] * x  # A once more: this x is in the VP frame of t_{n+1} already
            for i, output in enumerate(outputs, start=1):
                x = x + scale * self.trained[f"a{i}"][n] * output
        return x
