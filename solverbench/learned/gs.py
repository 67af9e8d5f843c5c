"""GS, a multistep solver with learned times, evaluation times and coefficients; GAS adds an adversarial loss."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor

from solverbench.errors import GridError, SpecError, TrainingError
from solverbench.learned.coefficients import Coefficients
from solverbench.learned.growth import resampled, resampled_changes
from solverbench.method.declarations import option
from solverbench.method.exponential import differences, order_at, phis
from solverbench.method.grids import Grid
from solverbench.method.schedules import EDM, NoiseSchedule, VPLinear
from solverbench.method.solver import Denoise, LearnedSolver, check_steps
from solverbench.method.tableau import Tableau

MARGIN = 1e-5
"""Distance that the sigmoid's output keeps from 0 and 1."""


BASE_ORDER = 3
"""Order of the DPM-Solver++ to which the corrections are added."""


class Timed(LearnedSolver):
    """A solver on GS's learned times; the network may be told other learned times.

    mu_logit [N-1] breaks the time range like a stick, from the end; t_couple [N] is added to the time of each call.
    Where a schedule's start replaces an infinite level, the stick ends at the first time with a finite level: an
    offset at the start would weigh 1e6 times as much as any other.

    With x the state divided by alpha, as everywhere here, `authors` samples as the authors' code does. It starts from
    unit noise in the variance preserving frame, x = sqrt(1 + sigma^2) noise, and its sample is the state there,
    alpha x. `authors=model` starts at the model's own first level. `authors=free` starts at that of the linear schedule
    (19.9, 0.1), 152.167: the code does so if a network has no largest level, as NVIDIA's EDM networks have none.
    """

    levels: str = option(default="learned", key="grid", choices=("learned",), help="learned is the only value")
    t_eps: float | None = option(
        default=None,
        above=0.0,
        help="end of the VP time range, as published; if not given, the ends of the teacher's levels",
    )
    authors: str = option(
        "none",
        choices=("none", "model", "free"),
        help="sample in the authors' frame, from the model's first level (model) or from level 152.167 (free)",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.authors == "free" and self.t_eps is None:
            raise SpecError(
                asked=f"{self.name}:authors=free",
                wrong="it starts where a linear VP schedule does, which needs its end",
                remedy="give t_eps too, as in t_eps=1e-3, or authors=model",
            )

    def group(self, name: str) -> str:
        """Return the group of a parameter."""
        return {"mu_logit": "times", "t_couple": "offsets"}.get(name, "coefficients")

    def grid(self, schedule: NoiseSchedule, steps: int) -> Grid:
        """Return the learned levels on the model's schedule, or on a VP one for an EDM model or a given `t_eps`."""
        check_steps(self.name, len(self.trained["mu_logit"]) + 1, steps)
        clock = self._clock(schedule)
        return Grid(clock.sigma(self._times(self.trained["mu_logit"], clock)), clock)

    def _clock(self, schedule: NoiseSchedule) -> NoiseSchedule:
        framed = isinstance(schedule, EDM) and self.authors != "none"
        linear = _FromEDM if framed else VPLinear
        if self.t_eps is None:
            return linear.refit(schedule.sigma_min, schedule.sigma_max) if framed else schedule.clock
        if not isinstance(schedule, (EDM, VPLinear)):
            raise GridError(
                asked=f"{self.name}:t_eps={self.t_eps:g} on {type(schedule).__name__}",
                wrong="it would replace this schedule by a linear VP one",
                remedy="leave t_eps out; the range then ends where the teacher ends, as the authors' does here",
            )
        highest = VPLinear().sigma_max if self.authors == "free" else schedule.sigma_max
        return linear.clamped(schedule.sigma_min, highest, self.t_eps)

    def _framed(self, x: Tensor, grid: Grid) -> Tensor:
        """Return the start state of the authors' code, if asked for; x is that of the teacher's schedule."""
        start = grid.sigmas[0]
        return x * (1 + start**2).sqrt() / start if isinstance(grid.schedule, _FromEDM) else x

    def _sample(self, x: Tensor, grid: Grid) -> Tensor:
        """Return the final state x, in the frame of the authors' code if asked for."""
        return x if self.authors == "none" else x * grid.schedule.alpha(grid.schedule.time(grid.sigmas[-1]))

    @staticmethod
    def _times(mu_logit: Tensor, clock: NoiseSchedule) -> Tensor:
        """Return [N+1] falling times: a stick from the end time to the start time, both fixed, broken from the end."""
        mu = torch.sigmoid(mu_logit) * (1 - 2 * MARGIN) + MARGIN
        inner = clock.t_end + (clock.t_first - clock.t_end) * (1 - mu.cumprod(0))
        ends = torch.tensor([clock.t_end, clock.t_first], dtype=torch.float64)
        return torch.cat([ends[:1], inner, ends[1:]]).flip(0)

    @staticmethod
    def _logits(times: Tensor, clock: NoiseSchedule) -> Tensor:
        """Return the mu_logit [N-1] of falling times [N+1] with the ends of `clock`."""
        left = (times.flip(0) - clock.t_first) / (clock.t_end - clock.t_first)  # of the stick, from 1 to 0
        return torch.logit((left[1:-1] / left[:-2] - MARGIN) / (1 - 2 * MARGIN), eps=MARGIN)

    def _uniform(self, schedule: NoiseSchedule, nfe: int) -> tuple[dict[str, Tensor], Grid]:
        """Return the parameters of uniform times without offsets, and their grid."""
        left = torch.arange(nfe - 1, 0, -1, dtype=torch.float64)
        parameters = {
            "mu_logit": torch.logit((left / (left + 1) - MARGIN) / (1 - 2 * MARGIN)),
            "t_couple": torch.zeros(nfe, dtype=torch.float64),
        }
        clock = self._clock(schedule)
        return parameters, Grid(clock.sigma(self._times(parameters["mu_logit"], clock)), clock)

    def _output(self, denoise: Denoise, x: Tensor, n: int, t: Tensor, vp: NoiseSchedule) -> Tensor:
        """Return the data prediction at t; the network sees the unchanged VP state at time t + offset."""
        offset = self.trained["t_couple"][n]
        told = t + offset
        sigma, sigma_told = vp.sigma(t), vp.sigma(told)
        # A refitted schedule has a small negative beta_min: its sigma is 0 a little above time 0, and NaN below.
        if not (float(told.detach()) > 0 and float(sigma_told.detach()) > 0):
            raise TrainingError(
                asked=self.name,
                wrong=(
                    f"call {n + 1} would be at time {float(told.detach()):.3g} (offset "
                    f"{float(offset.detach()):.3g}), where there is no noise level above 0"
                ),
                remedy="lower the learning rate or start again from another seed",
            )
        alpha, alpha_told = vp.alpha(t), vp.alpha(told)
        d = denoise(alpha / alpha_told * x, sigma_told, level=sigma)
        return (1 - alpha * sigma / (alpha_told * sigma_told)) * x + sigma / sigma_told * d


class _FromEDM(VPLinear):
    """The VP clock of an EDM model, whose start state is sigma times unit noise, for the authors' frame."""


class Generalized(Timed):
    """The generalized solver on a linear VP schedule: DPM-Solver++(3M) with corrections over the whole history.

    With x in the VP frame, k = n+1 known outputs, A = s(t')/s(t), alpha = alpha(t') and the weights and differences
    of DPM-Solver++ (`phis`, `differences`), the step from t = t_n to t' = t_{n+1} is

        k = 1:   x' = (A + a1) x_n - (alpha p1 + c1) m_n
        k = 2:   x' = ... - (alpha p1/2 + c2) d0 + a2 x_{n-1}
        k >= 3:  x' = (A + a1) x_n - (alpha p1 + c1) m_n + (alpha p2 + c2) D1 - (alpha p3 + c3) D2
                      + sum_{i=4}^{k} c_i m_{n+1-i} + sum_{i=2}^{k} a_i x_{n+1-i}

    The loop keeps states in the EDM frame (x / alpha), so a_i is multiplied by alpha(t_{n+1-i})/alpha(t') and c_i
    by 1/alpha(t'). Parameters, indexed by n: mu_logit [N-1], t_couple [N], then for i = 1 .. N: ci [N], ai [N].

    The paper's ablations, each with learned times and offsets unchanged unless stated:

        theory=false    free a_i, c_i replace A, alpha p1 .. above and start at those numbers; that they weigh the
                        same differences is inferred
        form=lms, pc    the steps of S4S (`Coefficients`) over the whole history: exact A, free weights of the outputs
        offsets=false   no t_couple: the network is told the time of its state
        lower_order_final=true   p2, p3 of the base's lower order over the last steps; corrections unchanged

    Source: GAS, arXiv:2510.17699, equations 12-16, with the public code's order of parameters; tables 5 and 10 for the
    ablations. Their code is not public, except for one variant that is not S4S (`S4SGASCompat`).
    """

    paper: ClassVar[str] = "GAS, arXiv:2510.17699"

    form: str = option(
        "gs",
        choices=("gs", "lms", "pc"),
        help="parametrisation: corrections as in GS (gs), or weights as in S4S (lms, pc)",
    )
    theory: bool = option(
        True, help="learn corrections to theoretical coefficients; false: learn all coefficients freely"
    )
    offsets: bool = option(
        True, help="learn the time that the network gets at each call; false: use the time of its state"
    )
    lower_order_final: bool = option(False, help="reduce the order of the base solver to 1 over the last steps")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.form != "gs" and not self.theory:
            raise SpecError(
                asked=f"{self.name}:form={self.form}:theory=false",
                wrong="its linear part is exact",
                remedy="leave theory out",
            )

    @property
    def first_fixed(self) -> bool:
        """Whether the first call is fixed: without offsets, because the grid starts where the schedule does."""
        return not self.offsets

    def initial(self, schedule: NoiseSchedule, nfe: int) -> dict[str, Tensor]:
        """Return uniform times, no offsets and the weights of DPM-Solver++(3M) (as zero corrections with form=gs).

        With form=pc, the weights are those of UniPC of order 3.
        """
        parameters, grid = self._uniform(schedule, nfe)
        if not self.offsets:
            del parameters["t_couple"]
        if self.form != "gs":
            return parameters | self._coefficients(nfe).initial(grid, lowered=self.lower_order_final)
        for i in range(1, nfe + 1):
            parameters |= {f"{kind}{i}": torch.zeros(nfe, dtype=torch.float64) for kind in "ca"}
        if not self.theory:
            lam, alpha = -grid.sigmas.log(), grid.schedule.alpha(grid.schedule.time(grid.sigmas))
            for n in range(nfe):
                kept, *weights = self._theory(grid.sigmas, lam, n)
                parameters["a1"][n] = kept * alpha[n + 1] / alpha[n]
                for i, weight in enumerate(weights[: n + 1], start=1):
                    parameters[f"c{i}"][n] = weight * alpha[n + 1]
        return parameters

    def grown(self, schedule: NoiseSchedule, nfe: int) -> dict[str, Tensor]:
        """Return times, offsets and corrections interpolated linearly over the steps.

        The correction of the i-th newest output or state is interpolated over the steps that have one; those of
        outputs and states that are older than all of before are 0. With form=lms and pc it is the change of each weight
        that is interpolated.
        """
        trained, clock = self.trained, self._clock(schedule)
        if not self.theory:
            return super().grown(schedule, nfe)
        held = len(trained["mu_logit"]) + 1
        times = resampled(self._times(trained["mu_logit"], clock), nfe + 1)
        parameters = {"mu_logit": self._logits(times, clock)}
        if self.offsets:
            parameters["t_couple"] = resampled(trained["t_couple"], nfe)
        if self.form != "gs":
            grids = [Grid(clock.sigma(each), clock) for each in (self._times(trained["mu_logit"], clock), times)]
            before, initial = (
                self._coefficients(grid.steps).initial(grid, lowered=self.lower_order_final) for grid in grids
            )
            return parameters | resampled_changes({name: trained[name] for name in before}, before, initial)
        for i in range(1, nfe + 1):
            for kind in "ca":
                entry = torch.zeros(nfe, dtype=torch.float64)
                if i <= held:
                    entry[i - 1 :] = resampled(trained[f"{kind}{i}"][i - 1 :], nfe - i + 1)
                parameters[f"{kind}{i}"] = entry
        return parameters

    @property
    def imitates(self) -> bool:
        """Whether its form can give other tableaus: corrections to theoretical weights can."""
        return self.form == "gs" and self.theory

    def imitating(self, tableau: Tableau, schedule: NoiseSchedule) -> dict[str, Tensor]:
        """Return the times of the tableau's levels, and the corrections that give its weights.

        A step may use every output and state before it, so every tableau has such corrections. Times are those within
        `MARGIN` of the ends of each part of the stick.
        """
        if not self.imitates:
            return super().imitating(tableau, schedule)
        clock, nfe = self._clock(schedule), tableau.nfe
        times = clock.time(tableau.levels)
        ends = torch.stack([times[0] - clock.t_first, times[-1] - clock.t_end]).abs()
        if not (ends < MARGIN * (clock.t_first - clock.t_end)).all():
            raise TrainingError(
                asked=self.name,
                wrong=f"the start's levels run from {tableau.levels[0]:.4g} to {tableau.levels[-1]:.4g}",
                remedy=f"give a start from {schedule.sigma_max:.4g} to {schedule.sigma_min:.4g}",
            )
        parameters = {"mu_logit": self._logits(times, clock)}
        if self.offsets:
            parameters["t_couple"] = clock.time(tableau.sigmas) - times[:-1]
        sigmas = clock.sigma(self._times(parameters["mu_logit"], clock))
        lam, alpha = -sigmas.log(), clock.alpha(clock.time(sigmas))
        for i in range(1, nfe + 1):
            parameters |= {f"{kind}{i}": torch.zeros(nfe, dtype=torch.float64) for kind in "ca"}
        for n in range(nfe):
            kept, *theory = self._theory(sigmas, lam, n)
            change = tableau.weights[n + 1, : n + 2] - kept * tableau.weights[n, : n + 2]
            parameters[f"a{n + 1}"][n] = change[0] * alpha[n + 1] / alpha[0]
            newest, size = change[1:].flip(0), min(n + 1, BASE_ORDER)
            units = list(torch.eye(size, dtype=torch.float64))
            columns = [-units[0]]
            match differences(lam, units, n):
                case (d0,):
                    columns.append(-d0)
                case (d1, d2):
                    columns += [d1, -d2]
            found = torch.linalg.solve(torch.stack(columns, 1), newest[:size])
            for i in range(n + 1):
                correction = found[i] - theory[i] if i < size else newest[i]
                parameters[f"c{i + 1}"][n] = correction * alpha[n + 1]
        return parameters

    def integrate(self, denoise: Denoise, x: Tensor, grid: Grid) -> Tensor:
        """Return the sample; M calls for M intervals."""
        vp, sigmas = grid.schedule, grid.sigmas
        t = vp.time(sigmas)
        evaluate = self._shifted(denoise, t, vp) if self.offsets else denoise
        x = self._framed(x, grid)
        if self.form != "gs":
            return self._sample(self._coefficients(grid.steps).integrate(self.trained, evaluate, x, grid), grid)
        lam, alpha = -sigmas.log(), vp.alpha(t)
        states: list[Tensor] = []
        outputs: list[Tensor] = []
        for n in range(grid.steps):
            states = [x, *states]
            outputs = [evaluate(x, sigmas[n]), *outputs]
            kept, w1, w2, w3 = self._theory(sigmas, lam, n) if self.theory else torch.zeros(4, dtype=torch.float64)
            c = [self.trained[f"c{i}"][n] / alpha[n + 1] for i in range(1, n + 2)]
            x = kept * x - (w1 + c[0]) * outputs[0]
            match differences(lam, outputs[:3], n):
                case (d0,):
                    x = x - (w2 + c[1]) * d0
                case (d1, d2):
                    x = x + (w2 + c[1]) * d1 - (w3 + c[2]) * d2
            for weight, output in zip(c[3:], outputs[3:], strict=True):
                x = x + weight * output
            for i, state in enumerate(states, start=1):
                x = x + self.trained[f"a{i}"][n] * alpha[n + 1 - i] / alpha[n + 1] * state
        return self._sample(x, grid)

    def _theory(self, sigmas: Tensor, lam: Tensor, n: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return (A, w1, w2, w3) of step n in the EDM frame: x' = A x - w1 m_n, then - w2 d0 or + w2 D1 - w3 D2."""
        h = lam[n + 1] - lam[n]
        p1, p2, p3 = phis(h)
        kept = sigmas[n + 1] / sigmas[n]
        order = order_at(n, len(sigmas) - 1, BASE_ORDER, lowered=self.lower_order_final)
        if n < 2 or order == BASE_ORDER:
            return (kept, p1, p2, p3) if n > 1 else (kept, p1, p1 / 2, p3)
        if order == 1:
            return kept, p1, torch.zeros_like(h), torch.zeros_like(h)
        return kept, p1, -p1 / 2, -p1 / 2 * (lam[n] - lam[n - 1]) / h  # d0 = D1 - r0 D2

    def _coefficients(self, steps: int) -> Coefficients:
        return Coefficients(self.form, "data", max(steps, BASE_ORDER))  # whole history; at least the base's order

    def _shifted(self, denoise: Denoise, t: Tensor, vp: NoiseSchedule) -> Denoise:
        """Return a `denoise` whose call n returns `_output`."""
        calls = iter(range(len(t)))

        def evaluate(x: Tensor, sigma: Tensor, *, level: Tensor | None = None) -> Tensor:
            n = next(calls)
            return self._output(denoise, x, n, t[n], vp)

        return evaluate


class GS(Generalized):
    """The generalized solver, trained by distillation alone."""

    name: ClassVar[str] = "gs"
    distilled: ClassVar[bool] = True


class GAS(Generalized):
    """The generalized solver, trained by distillation and a relativistic adversarial loss."""

    name: ClassVar[str] = "gas"


class S4SGASCompat(Timed):
    """The solver that GAS's public code calls "S4S"; it is not S4S. Kept only for parity with that code.

    With A and alpha as in `Generalized`, C = -alpha p1 and c_i, a_i in place of all theoretical weights, its step is

        x~ = A x_n + C sum_{i=1}^{k} c_i m_{n+1-i},    x' = A x~ + C sum_{i=1}^{k} a_i m_{n+1-i}

    so the state is multiplied by A twice. Untrained, it gives A times the step of DPM-Solver++(3M), at a noise
    level that is also wrong by A. Parameters are named and ordered as in `Generalized`.

    Source: the public code of GAS, arXiv:2510.17699, with use_theory_coef=false.
    """

    name: ClassVar[str] = "s4s_gas_compat"
    paper: ClassVar[str] = "public code of GAS, arXiv:2510.17699"
    trained_by: ClassVar[Mapping[str, Any] | None] = None

    def initial(self, schedule: NoiseSchedule, nfe: int) -> dict[str, Tensor]:
        """Return uniform times, no offsets, the c of DPM-Solver++(3M) without lower_order_final, and a = 0."""
        parameters, grid = self._uniform(schedule, nfe)
        for i in range(1, nfe + 1):
            parameters |= {f"{kind}{i}": torch.zeros(nfe, dtype=torch.float64) for kind in "ca"}
        start = Coefficients("lms", "data", BASE_ORDER).initial(grid)
        for n in range(nfe):
            for i, weight in enumerate(start[f"b{n}"], start=1):
                parameters[f"c{i}"][n] = weight
        return parameters

    def integrate(self, denoise: Denoise, x: Tensor, grid: Grid) -> Tensor:
        """Return the sample; M calls for M intervals."""
        vp, sigmas = grid.schedule, grid.sigmas
        t = vp.time(sigmas)
        alpha = vp.alpha(t)
        x = self._framed(x, grid)
        outputs: list[Tensor] = []
        for n in range(grid.steps):
            outputs = [self._output(denoise, x, n, t[n], vp), *outputs]
            kept = sigmas[n + 1] / sigmas[n]
            scale = -torch.expm1(sigmas[n + 1].log() - sigmas[n].log())
            x = kept * x
            for i, output in enumerate(outputs, start=1):
                x = x + scale * self.trained[f"c{i}"][n] * output
            x = kept * alpha[n + 1] / alpha[n] * x  # A a second time; x is now in the VP frame of t_{n+1}
            for i, output in enumerate(outputs, start=1):
                x = x + scale * self.trained[f"a{i}"][n] * output
        return self._sample(x, grid)
