"""A solver run as N noise levels and one triangular matrix."""

from __future__ import annotations

import hashlib
import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from solverbench.method.schedules import NoiseSchedule

DIGITS = 12
"""Significant digits of the numbers in a plan."""

SHOWN = 12
"""Calls up to which a tableau's weights are printed."""


@dataclass(frozen=True, eq=False)
class Tableau:
    """A complete description of a solver's N calls. All float64 on the CPU; may carry gradient.

        input_k = weights[k, 0] x + sum_{j<k} weights[k, 1+j] d_j        k = 0 .. N-1
        d_k     = denoise(input_k, sigmas[k])
        sample  = weights[N, 0] x + sum_{j<N} weights[N, 1+j] d_j

    Args:
        sigmas: [N], the noise level passed to the network at each call; positive.
        weights: [N+1, N+1], lower triangular.
        levels: [N+1], the noise level of each row's state; the last is the end level.
        start: 0-d, the noise level of x.
    """

    sigmas: Tensor
    weights: Tensor
    levels: Tensor
    start: Tensor

    def __post_init__(self) -> None:
        n = len(self.sigmas)
        shapes = tuple(self.sigmas.shape), tuple(self.weights.shape), tuple(self.levels.shape), tuple(self.start.shape)
        if shapes != ((n,), (n + 1, n + 1), (n + 1,), ()) or n == 0:
            raise ValueError(
                f"Tableau: its arrays have the shapes {shapes}; give sigmas [N], weights [N+1, N+1], levels "
                "[N+1], start []"
            )
        numbers = torch.cat([self.sigmas, self.weights.flatten(), self.levels, self.start[None]]).detach()
        if not numbers.isfinite().all():
            raise ValueError("Tableau: has a number that isn't finite; check the grid and the coefficients")
        if not (self.sigmas > 0).all():
            raise ValueError(f"Tableau: the network gets the levels {self.sigmas.tolist()}; give positive levels")
        if self.weights.detach().triu(1).any():
            raise ValueError("Tableau: has weights above the diagonal; a call can use only earlier outputs")

    @property
    def nfe(self) -> int:
        """N, the number of calls."""
        return len(self.sigmas)

    @property
    def serial_calls(self) -> int:
        """The largest number of calls that must wait for one another; at most `nfe`.

        Call k waits for call j if W[k,1+j] isn't 0. Calls that don't wait for one another, such as the points of a step
        of EPD, can run side by side on a machine with room for them.
        """
        return _longest_chain(self.weights.detach().tolist())

    def equals(self, other: Tableau, tolerance: float = 1e-12) -> bool:
        """Return whether all numbers agree within `tolerance` times max(1, |number|): the same solver and levels."""
        if self.nfe != other.nfe:
            return False
        pairs = zip(self._numbers(), other._numbers(), strict=True)
        return all(((a - b).abs() <= tolerance * b.abs().clamp(min=1)).all() for a, b in pairs)

    def inconsistency(self) -> float:
        """Return the largest deviation from W[k,0] = levels[k]/start and sum_j W[k,1+j] = 1 - levels[k]/start.

        It is 0 for a method that keeps a constant image at every stage. Row 0 is the start itself.
        """
        kept = self.levels / self.start
        noise = (self.weights[:, 0] - kept).abs()
        data = (self.weights[:, 1:].sum(1) - (1 - kept)).abs()
        return float(torch.maximum(noise, data).max())

    @property
    def amplification(self) -> float:
        """The largest sum of absolute weights of the outputs in a row: the factor on an error of the outputs."""
        return float(self.weights.detach()[:, 1:].abs().sum(1).max())

    def plan_from_noise(self, schedule: NoiseSchedule) -> Plan:
        """Return the plan that starts from unit noise."""
        return self.plan(self.noise_scale(schedule))

    def __repr__(self) -> str:
        """Return the number of calls and the levels, on one line; `print` shows the weights, too."""
        levels = [f"{float(level):.4g}" for level in self.levels]
        shown = levels if len(levels) <= SHOWN else [*levels[:3], "…", levels[-1]]
        return f"Tableau(nfe={self.nfe}, start={float(self.start):.4g}, levels={' '.join(shown)})"

    def __str__(self) -> str:
        """Return levels and weights as an aligned table, as `_repr_html_`; only the levels beyond `SHOWN` calls."""
        whole = self.nfe <= SHOWN
        rows = [row if whole else row[:3] for row in self._texts()]
        widths = [max(len(row[i]) for row in rows if i < len(row)) for i in range(max(map(len, rows)))]
        lines = [
            "  ".join(f"{text:<{width}}" if i == 0 else f"{text:>{width}}" for i, (text, width) in enumerate(pairs))
            for pairs in (zip(row, widths, strict=False) for row in rows)
        ]
        more = [] if whole else [f"({self.nfe + 1} x {self.nfe + 1} weights: see .weights)"]
        return "\n".join([*(line.rstrip() for line in lines), *more])

    def _repr_html_(self) -> str:
        """Return levels and weights as an HTML table, for a notebook: a row for each input, and one for the sample."""
        head, *rows = self._texts()
        lines = ["".join(f"<th>{name}</th>" for name in head)]
        lines += [f"<th>{name}</th>" + "".join(f"<td>{text}</td>" for text in texts) for name, *texts in rows]
        return f"<table>{''.join(f'<tr>{line}</tr>' for line in lines)}</table>"

    def _texts(self) -> list[list[str]]:
        """Return the cells of a table: a head, a row for each input, and one for the sample."""
        count = self.nfe
        rows = [["", "level", "told", "x", *(f"d{j}" for j in range(count))]]
        for k, weights in enumerate(self.weights.detach().tolist()):
            told = f"{float(self.sigmas[k]):.4g}" if k < count else ""
            name = f"input {k}" if k < count else "sample"
            rows.append([name, f"{float(self.levels[k]):.4g}", told, *(f"{each:.4g}" for each in weights[: k + 1])])
        return rows

    def noise_scale(self, schedule: NoiseSchedule) -> float:
        """Return the factor that turns unit noise into the state at `start`."""
        return noise_scale(float(self.start), schedule)

    def plan(self, scale: float = 1.0) -> Plan:
        """Return the plan: numbers rounded to 12 significant digits, the first column multiplied by `scale`.

        Args:
            scale: the schedule's prior scale, if x is to be unit noise; 1 if x is the state at `start`.
        """
        scaled = self.weights.detach().clone()
        scaled[:, 0] *= scale
        rows = tuple(tuple(map(_rounded, row[: k + 1])) for k, row in enumerate(scaled.tolist()))
        return Plan(tuple(map(_rounded, self.sigmas.tolist())), rows)

    def _numbers(self) -> tuple[Tensor, ...]:
        return self.sigmas, self.weights, self.levels, self.start


@dataclass(frozen=True)
class Plan:
    """A tableau's rounded numbers: the network's level per call, and row k's weights of x and the first k outputs."""

    sigmas: tuple[float, ...]
    rows: tuple[tuple[float, ...], ...]

    @property
    def nfe(self) -> int:
        """N, the number of calls."""
        return len(self.sigmas)

    @property
    def serial_calls(self) -> int:
        """The largest number of calls that must wait for one another, as `Tableau.serial_calls`."""
        return _longest_chain(self.rows)

    def fits(self, other: Plan, tolerance: float = 1e-8) -> bool:
        """Return whether all numbers agree within `tolerance` times max(1, |number|): one plan on two processors."""
        if (self.sigmas, self.rows) == (other.sigmas, other.rows):  # the usual case, without a loop in Python
            return True
        if self.nfe != other.nfe:
            return False
        pairs = zip(self._numbers(), other._numbers(), strict=True)
        return all(abs(a - b) <= tolerance * max(1.0, abs(b)) for a, b in pairs)

    def as_dict(self) -> dict[str, Any]:
        """Return the numbers as plain JSON values: {"sigmas": [...], "rows": [[...], ...]}."""
        return {"sigmas": list(self.sigmas), "rows": [list(row) for row in self.rows]}

    @classmethod
    def of(cls, numbers: Mapping[str, Any]) -> Plan:
        """Return the plan from the result of `as_dict`.

        Raises:
            KeyError, TypeError, ValueError: `numbers` is not such a result.
        """
        sigmas = tuple(float(sigma) for sigma in numbers["sigmas"])
        rows = tuple(tuple(float(weight) for weight in row) for row in numbers["rows"])
        if [len(row) for row in rows] != list(range(1, len(sigmas) + 2)):
            raise ValueError(f"rows of {[len(row) for row in rows][:9]} weights for {len(sigmas)} calls")
        return cls(sigmas, rows)

    def _numbers(self) -> Iterator[float]:
        return itertools.chain(self.sigmas, *self.rows)

    @cached_property
    def key(self) -> str:
        """The sha256 of the numbers; on one machine, equal for equal plans."""
        return hashlib.sha256(repr((self.sigmas, self.rows)).encode()).hexdigest()


def asked(method: Mapping[str, Any], plan: Plan, schedule: NoiseSchedule | None = None) -> dict[str, Any]:
    """Return a solver run's part of a key: `Solver.key`, `nfe`, and the plan's key if a source is unknown.

    Only the plan's key depends on the processor; it is left out for built-in solvers and plugins with a known source.

    Args:
        schedule: the teacher's; its `calls_rule` is part of the grid's key where the grid is the pipeline's own.
    """
    named = {**method, "nfe": plan.nfe}
    if schedule is not None and schedule.calls_rule and method["grid"].get("name") == "pipeline":
        named["grid"] = {**method["grid"], "calls": dict(schedule.calls_rule)}
    unknown = "" in method.get("sources", ()) or method["grid"].get("source") == ""
    return {**named, "numbers": plan.key} if unknown else named


def noise_scale(start: float, schedule: NoiseSchedule) -> float:
    """Return the factor that turns unit noise into the state at level `start`."""
    whole = math.isclose(start, schedule.sigma_max, rel_tol=1e-9)  # a learned grid may miss it by an ulp
    return schedule.prior_scale if whole else schedule.scale(start)


def _longest_chain(rows: Sequence[Sequence[float]]) -> int:
    """Return the length of the longest chain of calls of which each uses the one before; row k is the input of call k.

    The last row, the sample, is no call.
    """
    depths: list[int] = []
    for k, row in enumerate(rows[:-1]):
        depths.append(1 + max((depths[j] for j in range(k) if row[1 + j] != 0), default=0))
    return max(depths)


def _rounded(value: float) -> float:
    return float(f"{value:.{DIGITS - 1}e}")
