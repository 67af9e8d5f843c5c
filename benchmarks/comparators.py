"""Other projects' solvers, unmodified, from a local clone that the user names: run beside ours, never copied here.

Each adaptor imports the clone's own code, so only name clones that you trust. It reports the commit, the options, and
the number of denoiser calls.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import harness
import torch
from torch import Tensor, nn

import solverbench as sb

Denoise = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Comparator:
    """A solver of another project, ready to run.

    Args:
        name: its name in the figures.
        spec: the spec of the same solver here.
        goal: smallest wanted ratio of its time per step to ours; None where none was set.
        prepare: (denoise, levels [N+1], dtype) -> function from unit noise [B, C, H, W] to a sample.
        options: the options it was called with.
        source: project and commit.
        kept: whether unit noise is its variance-preserving state; our state is sqrt(1 + sigma^2) times that.
    """

    name: str
    spec: str
    goal: float | None
    prepare: Callable[[Denoise, Tensor, torch.dtype], Callable[[Tensor], Tensor]]
    options: str
    source: str
    kept: bool = False


@contextmanager
def _importing(root: Path, *names: str) -> Iterator[tuple[ModuleType, ...]]:
    """Yield the modules of a clone; its folder is first on the import path meanwhile."""
    sys.path.insert(0, str(root))
    try:
        yield tuple(importlib.import_module(name) for name in names)
    finally:
        sys.path.remove(str(root))


def _commit(clone: Path) -> str:
    return f"{clone.resolve().name}@{harness.commit(clone) or 'no commit'}"


def diff_sampler(clone: Path) -> list[Comparator]:
    """Return diff-sampler's Euler, DPM-Solver++ and UniPC, with and without their thresholding.

    Its code thresholds every output in data prediction, which ours does not. Thresholding is therefore turned off for
    the goals and reported separately.
    """
    with _importing(clone / "diff-solvers-main", "solver_utils", "solvers") as (updates, solvers):
        own = updates.dynamic_thresholding_fn

    def prepare(sampler: str, threshold: bool, **options: object) -> Callable[..., Callable[[Tensor], Tensor]]:
        def prepared(denoise: Denoise, levels: Tensor, dtype: torch.dtype) -> Callable[[Tensor], Tensor]:
            def net(x: Tensor, sigma: Tensor, class_labels: object = None) -> Tensor:
                return denoise(x, sigma)

            def run(noise: Tensor) -> Tensor:
                for module in (updates, solvers):
                    module.dynamic_thresholding_fn = own if threshold else _as_it_is
                found: Tensor = getattr(solvers, sampler)(
                    net, noise, num_steps=len(levels), t_steps=levels.to(dtype), **options
                )
                return found

            return run

        return prepared

    source = _commit(clone)
    found = [Comparator("diff-sampler euler", "euler", None, prepare("euler_sampler", False), "", source)]
    for name, spec, goal, sampler in (
        ("dpm_pp(3)", "dpm:order=3", 3.0, "dpm_pp_sampler"),
        ("unipc(3)", "unipc:order=3", 5.0, "unipc_sampler"),
    ):
        for threshold in (False, True):
            told = f"max_order=3, thresholding {'on, as shipped' if threshold else 'off'}"
            asked = spec + (":threshold=true" if threshold else "")
            made = prepare(sampler, threshold, max_order=3)
            label = f"diff-sampler {name}{' thresholded' if threshold else ''}"
            found.append(Comparator(label, asked, None if threshold else goal, made, told, source))
    return found


def _as_it_is(x: Tensor) -> Tensor:
    return x


class GASSolver:
    """GAS's generalized solver on an EDM network, as its wrapper sets it up, without LPIPS and discriminator.

    Args:
        clone: folder of GAS's clone.
        denoise: (x, sigma) -> the data prediction.
        steps: N, and its order.
        levels: last and first noise level, from which its EDM adaptor refits a VP schedule.
        t_eps: the last time.
        device: the device of its parameters and of the images.
    """

    def __init__(
        self,
        clone: Path,
        denoise: Denoise,
        steps: int,
        levels: tuple[float, float],
        dtype: torch.dtype,
        t_eps: float,
        device: str = "cpu",
    ) -> None:
        with _importing(clone, "src.gas.solver_utils", "src.gas.generalized_solver") as (schedules, solvers):
            pass
        low, high = (float(torch.log1p(torch.tensor(level, dtype=torch.float64) ** 2)) for level in levels)
        slope = 2 * (low / t_eps - high) / (t_eps - 1)
        least = high - slope / 2

        def sigma(t: Tensor) -> Tensor:
            return torch.expm1(slope * t**2 / 2 + least * t).sqrt()

        def network(x: Tensor, t: Tensor) -> Tensor:
            at = sigma(t)
            return denoise(x * (1 + at**2).sqrt(), at)

        schedule = schedules.NoiseScheduleVP("linear", continuous_beta_0=least, continuous_beta_1=least + slope)
        model = schedules.model_wrapper(model=network, noise_schedule=schedule, model_type="x_start")
        self.solver, self.steps, self.end = solvers.GeneralizedSolver(model, schedule), steps, t_eps
        self.offset = 1e-5  # for the logits, as in its wrapper
        even = torch.linspace(1.0, t_eps, steps + 1, dtype=dtype, device=device).flip(0)
        self.logits = nn.Parameter(self._logits(even))
        self.corrections = {"t_couple": nn.Parameter(even.new_zeros(steps))}
        for i in range(1, steps + 1):
            self.corrections |= {f"{c}{i}_diff": nn.Parameter(even.new_zeros(steps)) for c in "ac"}
        for name, values in self.corrections.items():
            setattr(self.solver, name, values)
        self.solver.get_time_steps = self._times

    @property
    def parameters(self) -> list[nn.Parameter]:
        """The trainable parameters."""
        return [self.logits, *self.corrections.values()]

    def _logits(self, times: Tensor) -> Tensor:
        left = 1 - (times[1:-1] - self.end) / (1 - self.end)
        shares = left / torch.cat([torch.ones_like(left[:1]), left[:-1]])
        return ((shares - self.offset) / (1 - 2 * self.offset)).logit()

    def _times(self, **options: object) -> Tensor:
        shares = self.logits.sigmoid() * (1 - 2 * self.offset) + self.offset
        inner = (1 - torch.cumprod(shares, 0)) * (1 - self.end) + self.end
        ends = inner.new_full((1,), self.end), inner.new_ones(1)
        return torch.cat([ends[0], inner, ends[1]]).flip(0)

    def __call__(self, noise: Tensor) -> Tensor:
        """Return the images made from unit noise, in the VP frame at the last time."""
        found: Tensor = self.solver.sample(noise, steps=self.steps, order=self.steps)
        return found


T_EPS = 1e-3


def gas(clone: Path) -> list[Comparator]:
    """Return GAS's generalized solver with zero corrections."""

    def prepare(denoise: Denoise, levels: Tensor, dtype: torch.dtype) -> Callable[[Tensor], Tensor]:
        schedule = sb.EDM()
        low, high = schedule.sigma_min, schedule.sigma_max
        vp = sb.VPLinear.clamped(low, high, T_EPS)
        solver = GASSolver(clone, denoise, len(levels) - 1, (vp.sigma_min, vp.sigma_max), dtype, T_EPS)

        def run(noise: Tensor) -> Tensor:
            with torch.no_grad():
                end = solver(noise)
            return end * (1 + vp.sigma_min**2) ** 0.5  # into the EDM frame

        return run

    told = "EDM, order = steps, corrections zero"
    return [Comparator("GAS generalized solver", f"gs:t_eps={T_EPS}", 10.0, prepare, told, _commit(clone), kept=True)]


def ld3(clone: Path) -> list[Comparator]:
    """Return LD3's UniPC, which calls the network once more than it has steps."""

    def prepare(denoise: Denoise, levels: Tensor, dtype: torch.dtype) -> Callable[[Tensor], Tensor]:
        with _importing(clone, "noise_schedulers", "samplers.uni_pc") as (schedules, solvers):
            pass
        solver = solvers.UniPC(schedules.NoiseScheduleVE(), variant="bh2")
        times = levels.to(dtype)

        def network(x: Tensor, t: Tensor, *condition: object) -> Tensor:
            return (x - denoise(x, t[0])) / t[:, None, None, None]  # it expects the noise prediction

        def run(noise: Tensor) -> Tensor:
            with torch.no_grad():
                return solver.sample_simple(network, noise * levels[0].item(), times, times, order=3)  # type: ignore[no-any-return]

        return run

    return [Comparator("LD3 unipc(3)", "unipc:order=3", None, prepare, "variant=bh2, order 3", _commit(clone))]


PROJECTS: dict[str, Any] = {"diff-sampler": diff_sampler, "gas": gas, "ld3": ld3}


def found(options: harness.Options) -> Iterator[Comparator | SimpleNamespace]:
    """Yield every comparator whose clone was named; for the others, the name and why it is not measured."""
    for project, make in PROJECTS.items():
        clone = options.clones.get(project)
        if clone is None:
            yield SimpleNamespace(name=project, lack=f"no clone of it was named (--{project} PATH)")
        elif not clone.is_dir():
            yield SimpleNamespace(name=project, lack=f"{clone} is no folder")
        else:
            yield from make(clone)
