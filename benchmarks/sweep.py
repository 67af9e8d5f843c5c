"""The error of every solver on every grid, schedule and budget, against the closed-form solution on Gaussian data.

python benchmarks/sweep.py [SCHEDULE ...] > benchmarks/sweep.log: 90 720 cells, some forty minutes on a busy core.
For data N(0.3, 0.5^2) the denoiser is D = (.25 x + .3 s^2)/(.25 + s^2), and the ODE's solution from level s to t is
.3 + (x - .3) sqrt((.25 + t^2)/(.25 + s^2)). A cell is refused (with the reason), flagged (with the sentence that its
row shows), right, or wrong: neither refused nor flagged, and its error is above ten times that of Euler's method with
as many calls on the same grid, or any other exception than a UserError. The last line counts; none may be wrong.
Cells that are not flagged and lie above Euler's error with 50 calls are listed, too.
"""

from __future__ import annotations

import collections
import itertools
import math
import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

import solverbench as sb
from solverbench import registries
from solverbench.errors import UserError
from solverbench.method import grids, probe
from solverbench.method.loops import intervals
from solverbench.method.tableau import Tableau

NOISE = torch.distributions.Normal(0.0, 1.0).icdf(torch.linspace(0.005, 0.995, 200, dtype=torch.float64))
WORSE = 10.0
"""Factor by which an error may exceed that of Euler's method with as many calls on the same grid."""

SPECS = (
    *("euler", "euler:afs=true", "euler:end=zero", "heun", "heun:end=zero", "dpm2", "dpm2:r=1"),
    *("dpm:order=1", "dpm:order=2", "dpm", "dpm:d2=full", "dpm:prediction=noise", "dpm:lower_order_final=false"),
    *("dpm:end=zero", "dpm:singlestep=true", "dpm:singlestep=true:prediction=noise", "unipc", "unipc:order=2"),
    *("unipc:variant=bh1", "unipc:prediction=noise", "unipc:lower_order_final=false", "unipc:end=zero", "deis"),
    *("deis:order=2", "deis:form=rho", "deis:end=zero", "ipndm", "ipndm:end=zero", "ipndm_v", "ipndm_v:compat=true"),
)
GRIDS = ("", *(f"grid={name}" for name in registries.grids.builtin if name != "learned"), "grid=polynomial:rho=1")
BUDGETS = (*range(1, 21), 50)


def cosine(steps: int = 1000) -> Tensor:
    """Return alphas_cumprod of the cosine schedule. Source: arXiv:2102.09672, equation 17."""
    squares = ((torch.arange(steps + 1, dtype=torch.float64) / steps + 0.008) / 1.008 * math.pi / 2).cos() ** 2
    return (squares[1:] / squares[:-1]).clamp(min=0.001).cumprod(0)


def zero_snr() -> Tensor:
    """Return Stable Diffusion's alphas_cumprod, rescaled to 0. Source: arXiv:2305.08891, algorithm 1."""
    alpha = torch.tensor(sb.VPDiscrete.stable_diffusion().log_alphas, dtype=torch.float64).exp()
    return ((alpha - alpha[-1]) * alpha[0] / (alpha[0] - alpha[-1])) ** 2


def iddpm(steps: int = 1000) -> sb.EDM:
    """Return iDDPM's known levels up to 80. Source: arXiv:2206.00364, table 1 and its public code."""
    known, level = [], 0.0
    wave = [math.sin(math.pi / 2 * j / steps / 1.008) ** 2 for j in range(steps + 1)]
    for j in range(steps, 0, -1):
        level = math.sqrt((level**2 + 1) / max(wave[j - 1] / wave[j], 0.001) - 1)
        known.append(level)
    kept = [each for each in known if each <= 80]
    return sb.EDM(min(kept), max(kept), tuple(sorted(kept, reverse=True)))


SCHEDULES: dict[str, sb.NoiseSchedule] = {
    "EDM": sb.EDM(),
    "VP linear": sb.VPLinear(),
    "VP discrete": sb.VPDiscrete.stable_diffusion(),
    "iDDPM": iddpm(),
    "cosine": sb.VPDiscrete.from_alphas_cumprod(cosine()),
    "zero SNR": sb.VPDiscrete.from_alphas_cumprod(zero_snr()),
    "flow": sb.RectifiedFlow(),
    "flow from 1": sb.RectifiedFlow(t_start=1.0),
    "flow, shift 3": sb.RectifiedFlow(t_start=1.0, t_end=0.003 / 1.002, t_first=2.997 / 2.998, shift=3.0),
}


@dataclass(frozen=True)
class Outcome:
    """One cell: its error if it is computed, and the text that goes with it.

    Args:
        kind: right, flagged, refused or broken.
        text: the flags or the reason.
        error: root mean square error; NaN if it is not computed.
    """

    kind: str
    text: str = ""
    error: float = math.nan


def error_of(tableau: Tableau, schedule: sb.NoiseSchedule) -> float:
    """Return the root mean square error on Gaussian data, computed call by call in the module's own formulas."""
    x, outputs = tableau.noise_scale(schedule) * NOISE, list[Tensor]()
    for k in range(tableau.nfe + 1):
        row = tableau.weights[k]
        state = row[0] * x + sum((w * d for w, d in zip(row[1:], outputs, strict=False)), torch.zeros_like(x))
        if k < tableau.nfe:
            s2 = tableau.sigmas[k] ** 2
            outputs.append((0.25 * state + 0.3 * s2) / (0.25 + s2))
    ratio = (0.25 + tableau.levels[-1] ** 2) / (0.25 + tableau.start**2)
    return float((state - 0.3 - (x - 0.3) * ratio.sqrt()).square().mean().sqrt())


def outcome(spec: str, nfe: int, schedule: sb.NoiseSchedule) -> Outcome:
    """Return what a run would make of one cell."""
    try:
        solver = sb.make(spec).on(schedule)
        tableau = sb.tableau(solver, nfe=nfe, schedule=schedule)
        inner = grids.inner_ends(solver.grid(schedule, intervals(solver, nfe)))
        told = [*["inner-ends"] * bool(inner), *["long-steps"] * bool(probe.unstable(tableau, schedule))]
        error = error_of(tableau, schedule)
    except UserError as failure:
        return Outcome("refused", str(failure))
    except Exception as failure:
        return Outcome("broken", f"{type(failure).__name__}: {failure}")
    return Outcome("flagged" if told else "right", " ".join(told), error)


def wrong(found: Outcome, euler: Outcome) -> bool:
    """Return whether a cell is neither right nor refused nor flagged."""
    if found.kind == "broken" or "\n" in found.text:
        return True
    if found.kind != "right":
        return False
    return not found.error <= (0.5 if math.isnan(euler.error) else WORSE * euler.error)


def sweep(
    schedules: Iterable[str], grids: Iterable[str], specs: Iterable[str], budgets: Iterable[int]
) -> Iterator[tuple[str, str, int, Outcome, Outcome]]:
    """Yield (schedule, spec with its grid, calls, outcome, Euler's outcome with as many calls on that grid)."""
    budgets = tuple(budgets)
    for name, grid in itertools.product(schedules, grids):
        euler = {nfe: outcome(_on("euler", grid), nfe, SCHEDULES[name]) for nfe in budgets}
        for spec, nfe in itertools.product(specs, budgets):
            yield name, _on(spec, grid), nfe, outcome(_on(spec, grid), nfe, SCHEDULES[name]), euler[nfe]


def _on(spec: str, grid: str) -> str:
    return f"{spec}:{grid}" if grid else spec


def main(names: Iterable[str]) -> int:
    """Print one section per schedule; return how many cells are wrong."""
    return sum(map(_section, names))


def _section(name: str) -> int:
    begun, kinds = time.perf_counter(), collections.Counter[str]()
    reasons, listed, slow = collections.Counter[str](), collections.Counter[str](), list[str]()
    print(f"== {name}", flush=True)
    for _, spec, nfe, found, euler in sweep([name], GRIDS, SPECS, BUDGETS):
        if wrong(found, euler):
            kinds["wrong"] += 1
            print(f"wrong: {spec}, {nfe} calls: {found.error:.3g}, Euler's {euler.error:.3g}; {found.text}", flush=True)
            continue
        kinds[found.kind] += 1
        if found.kind == "refused":
            reasons[_shape(found.text)] += 1
        if found.kind == "flagged":
            listed[f"{found.text}, {spec}"] += 1
        if nfe == max(BUDGETS) and found.kind == "right" and found.error > 1.5 * euler.error:
            slow.append(f"{spec}: {found.error:.2g}, Euler's {euler.error:.2g}")
    for heading, counted in (("Refused, by reason:", reasons), ("Flagged, by solver:", listed)):
        print(heading, *(f"{count:6d}  {text}" for text, count in sorted(counted.items())), sep="\n")
    print(f"Not flagged, and above 1.5 times Euler's error with {max(BUDGETS)} calls:", *slow, sep="\n        ")
    counts = ", ".join(f"{kinds[kind]} {kind}" for kind in ("right", "flagged", "refused", "wrong"))
    print(f"{name}: {sum(kinds.values())} cells: {counts}; torch {torch.__version__}", flush=True)
    print(f"{name}: {time.perf_counter() - begun:.0f} s", file=sys.stderr)
    return kinds["wrong"]


def _shape(text: str) -> str:
    """Return a reason without what it was asked for, and without its numbers."""
    told = text.split(": ", 1)[-1]
    return " ".join("#" if any(map(str.isdigit, word)) else word for word in told.split())[:150]


if __name__ == "__main__":
    torch.set_num_threads(1)
    sys.exit(main(sys.argv[1:] or SCHEDULES) > 0)
