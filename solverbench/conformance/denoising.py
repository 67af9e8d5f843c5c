"""Checks of a teacher: `denoise(x, sigma)` is a differentiable data prediction that treats each image separately."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable

import torch
from torch import Tensor

from solverbench.conformance import trials
from solverbench.conformance.trials import Failed
from solverbench.errors import UserError
from solverbench.method.execution import execute
from solverbench.method.solver import Solver
from solverbench.method.spec import make
from solverbench.method.tracing import trace
from solverbench.seeds import EVALUATION_START
from solverbench.teachers.teacher import Teacher

SEEDS = range(EVALUATION_START, EVALUATION_START + 4)
"""Seeds of the images that a teacher is checked on."""

CALLS = 8
"""Number of calls of the sampler that makes them, DPM-Solver++(2M)."""

ALONE = 1e-4
"""Relative tolerance for an image's dependence on its batch: float32 rounding in another order of summation."""

STEPS = (1e-2, 3e-3, 1e-3, 3e-4, 1e-4, 3e-5)
"""Relative steps of finite differences, from the longest."""

DIFFERENCES = 0.05
"""Relative tolerance between a gradient and finite differences in float32."""


def identity(teacher: Teacher) -> str:
    """Raise unless the teacher has a valid name and its own identity, which distinguish its results."""
    if not re.fullmatch(r"[A-Za-z0-9._=+-]+", teacher.name):
        raise Failed(f"is called {teacher.name!r}; give it one word as `name`")
    if not teacher.identity.strip() or teacher.identity == Teacher.identity:
        raise Failed(f"its identity is {teacher.identity!r}; give identity=sb.fingerprint(network)")
    return teacher.identity[:12]


def schedule(teacher: Teacher) -> str:
    """Raise unless the schedule's levels fall and stay above 0, and `sigma` and `time` are inverse."""
    found = teacher.schedule
    if not 0 < found.sigma_min < found.sigma_first <= found.sigma_max:
        raise Failed(f"goes from {found.sigma_max:g} to {found.sigma_min:g}; give levels that fall and stay above 0")
    levels = torch.stack([_level(teacher, share / 8) for share in range(9)])
    again = found.sigma(found.time(levels))
    error = float(((again - levels) / levels).abs().max())
    if not error < 1e-6:
        raise Failed(f"sigma(time(level)) is {error:.1e} away from the level; make `sigma` and `time` inverse")
    return f"{found.sigma_max:g} to {found.sigma_min:g}, {type(found).__name__}"


def sampler(teacher: Teacher) -> str:
    """Raise unless the teacher's sampler, the target of learned solvers, can spend its calls on this schedule."""
    try:
        solver = make(teacher.sampler)
        trace(solver, solver.grid(teacher.schedule, solver.steps(teacher.sampler_nfe)))
    except UserError as error:
        raise Failed(
            f"sampler={teacher.sampler!r} with sampler_nfe={teacher.sampler_nfe}: {error}; use another"
        ) from None
    return f"{teacher.sampler}, {teacher.sampler_nfe} calls"


def form(teacher: Teacher) -> str:
    """Raise unless the denoiser takes a 0-d float64 level and keeps shape, dtype and device for 1 and 4 images."""
    for count in (1, len(SEEDS)):
        x, level = _noise(teacher, count), _level(teacher, 0.5)
        try:
            d = teacher.denoiser(SEEDS[:count])(x, level)
        except Exception as error:  # a network may raise anything
            raise Failed(
                f"raises {type(error).__name__} ({' '.join(str(error).split())}) for x {tuple(x.shape)} float32 and "
                "sigma [] float64; take a 0-d float64 CPU tensor as sigma and convert it inside"
            ) from error
        if not isinstance(d, Tensor):
            raise Failed(f"returns a {type(d).__name__}; return the data prediction, a tensor of x's shape")
        if (d.shape, d.dtype, d.device) != (x.shape, x.dtype, x.device):
            raise Failed(
                f"returns {tuple(d.shape)} {d.dtype} on {d.device} for x {tuple(x.shape)} {x.dtype} on {x.device}; "
                "return x's shape, dtype and device"
            )
    return f"{tuple(x.shape)} float32 kept, sigma taken as 0-d float64"


def finite(teacher: Teacher) -> str:
    """Raise unless predictions are finite over the whole noise range."""
    denoise, levels = teacher.denoiser(SEEDS), [_level(teacher, share / 8) for share in range(9)]
    largest = 0.0
    for level in levels:
        with torch.no_grad():
            d = denoise(_noise(teacher) * teacher.schedule.scale(float(level)), level)
        if not d.isfinite().all():
            raise Failed(f"{int((~d.isfinite()).sum())} values aren't finite at sigma={level:.3g}; check its formulas")
        largest = max(largest, float(d.abs().max()))
    return f"from {levels[0]:.3g} to {levels[-1]:.3g}; the largest value is {largest:.3g}"


def small_noise(teacher: Teacher) -> str:
    """Raise unless the prediction for an image with minimal noise is close to that image."""
    level = torch.tensor(teacher.schedule.sigma_min, dtype=torch.float64)
    images, noise = _images(teacher), _noise(teacher)
    x = images + float(level) * noise
    with torch.no_grad():
        error, size = _rms(teacher.denoiser(SEEDS)(x, level) - x), _rms(x)
    if not error <= 3 * float(level) + 0.05 * size:
        raise Failed(
            f"at sigma={level:.3g} it is {error:.2g} away from x, whose size is {size:.2g}; return the clean image, "
            "not the noise or v (sb.Adapted turns one into the other)"
        )
    return f"at sigma={level:.3g} it is {error:.1g} away from x, whose size is {size:.2g}"


def removes_noise(teacher: Teacher) -> str:
    """Raise unless the prediction is closer to the clean image than the noisy image is."""
    level = torch.tensor(1.0, dtype=torch.float64).clamp(teacher.schedule.sigma_min, teacher.schedule.sigma_first)
    images = _images(teacher)
    with torch.no_grad():
        error = _rms(teacher.denoiser(SEEDS)(images + float(level) * _noise(teacher), level) - images)
    if not error < 0.9 * float(level):
        raise Failed(
            f"its own images with noise of {level:.3g} are denoised to an error of {error:.2g}; return the "
            "clean image, and check the scale and the level passed to the network"
        )
    return f"its own images with noise of {level:.3g} are denoised to an error of {error:.2g}"


def batch(teacher: Teacher) -> str:
    """Raise unless each image's prediction is independent of the rest of the batch."""
    x, level = _noise(teacher), _level(teacher, 0.5)
    with torch.no_grad():
        together = teacher.denoiser(SEEDS)(x, level)
        apart = torch.cat([teacher.denoiser([seed])(x[n : n + 1], level) for n, seed in enumerate(SEEDS)])
    error = trials.relative(together, apart)
    if not error < ALONE:
        raise Failed(
            f"{len(SEEDS)} images in a batch differ from single images by {error:.1e}; call network.eval(), "
            "and use no sums over the batch"
        )
    return f"{len(SEEDS)} images in a batch equal single images to {error:.0e}"


def repeatable(teacher: Teacher) -> str:
    """Raise unless a call gives the same bits again after a different call."""
    x, level = _noise(teacher), _level(teacher, 0.5)
    denoise = teacher.denoiser(SEEDS)
    with torch.no_grad():
        first = denoise(x, level)
        denoise(2 * x, _level(teacher, 0.9))
        error = trials.relative(denoise(x, level), first)
    if error != 0:
        raise Failed(f"a second call differs by {error:.1e}; call network.eval(), keep no state between calls")
    return "the same bits after another call"


def inputs(teacher: Teacher) -> str:
    """Raise unless state and level are left unchanged."""
    x, level = _noise(teacher), _level(teacher, 0.5)
    kept, told = x.clone(), level.clone()
    with torch.no_grad():
        teacher.denoiser(SEEDS)(x, level)
    for what, now, before in (("x", x, kept), ("sigma", level, told)):
        if not torch.equal(now, before):
            change = float((now - before).abs().max())
            raise Failed(f"changes {what} in place, by up to {change:.1e}; make new tensors")
    return "x and sigma are unchanged"


def randomness(teacher: Teacher) -> str:
    """Raise unless the global random states of torch, numpy and random are untouched."""
    with torch.no_grad():
        moved = trials.disturbed(lambda: teacher.denoiser(SEEDS)(_noise(teacher), _level(teacher, 0.5)))
    if moved:
        raise Failed(f"seeds or draws from {moved}; call network.eval(), and use no randomness")
    return "global random states of torch, numpy and random unchanged"


def detached(teacher: Teacher) -> str:
    """Raise unless the result carries no gradient when the inputs carry none."""
    if teacher.denoiser(SEEDS)(_noise(teacher), _level(teacher, 0.5)).requires_grad:
        raise Failed(
            "its result has a gradient graph, although its inputs have none; call network.requires_grad_(False)"
        )
    return "no gradient graph for inputs without one"


def state_gradient(teacher: Teacher) -> str:
    """Raise unless the gradient with respect to x exists and agrees with finite differences."""
    denoise, level = teacher.denoiser(SEEDS), _level(teacher, 0.5)
    leaf = (_noise(teacher) * teacher.schedule.scale(float(level))).requires_grad_()
    weights = torch.randn(leaf.shape, generator=torch.Generator().manual_seed(5))
    d = denoise(leaf, level)
    if not d.requires_grad:
        raise Failed("no gradient reaches x; use no torch.no_grad, no detach and no numpy inside")
    (gradient,) = torch.autograd.grad((d * weights).sum(), leaf)
    size = float(gradient.norm())
    if not (gradient.isfinite().all() and size > 0):
        raise Failed(f"the gradient of x has the norm {size:.3g}; use no rounding and no comparisons inside")
    # Along the gradient, the directional derivative is its norm, which is not small.
    along = gradient / size * _rms(leaf) * leaf.numel() ** 0.5

    def change(step: float) -> Tensor:
        return denoise(leaf + step * along, level) - denoise(leaf - step * along, level)

    return _agrees(size, float((_slope(change) * weights).sum()) / float(along.norm()), "x")


def level_gradient(teacher: Teacher) -> str:
    """Raise unless the gradient with respect to sigma, needed for learned times, agrees with finite differences."""
    denoise, level = teacher.denoiser(SEEDS), _level(teacher, 0.5)
    x = _noise(teacher) * teacher.schedule.scale(float(level))
    slope = _slope(lambda step: denoise(x, level * (1 + step)) - denoise(x, level * (1 - step)))
    leaf = level.clone().requires_grad_()
    d = denoise(x, leaf)
    if not d.requires_grad:
        raise Failed("no gradient reaches sigma; convert it by tensor operations, no float() and no .item()")
    # Weighted by the slope itself, the derivative is a square, which is not small.
    (gradient,) = torch.autograd.grad((d * slope.to(d)).sum(), leaf)
    return _agrees(float(gradient), float(slope.square().sum()) / float(level), "sigma")


def _slope(change: Callable[[float], Tensor]) -> Tensor:
    """Return the derivative at 0 by central differences, float64, of the first step that a shorter one agrees with.

    A network that counts training steps varies within one of them, of which a step of 1 % in sigma spans several. Too
    short a step is lost in float32 rounding. Where no two steps agree, those are taken that differ least.

    Args:
        change: step -> f(step) - f(-step).
    """
    found, best, least = None, None, math.inf
    with torch.no_grad():
        for step in STEPS:
            before, found = found, change(step).double() / (2 * step)
            if before is None:
                continue
            gap = float((found - before).norm() / found.norm().clamp(min=1e-300))
            if gap < least:
                best, least = found, gap
            if gap < DIFFERENCES / 4:
                break
    assert found is not None
    return found if best is None else best


def conditions(teacher: Teacher) -> str:
    """Raise unless an image's condition depends only on its seed, and the teacher declares the condition."""
    x, level = _noise(teacher), _level(teacher, 0.5)
    if teacher.condition is None:
        raise Failed("binds a condition (bind) but doesn't declare it; give condition=sb.Condition(...)")
    json.dumps(teacher.condition.key)
    mixed = [SEEDS[2], SEEDS[0], SEEDS[2], SEEDS[3]]
    with torch.no_grad():
        together = teacher.denoiser(mixed)(x, level)
        apart = torch.cat([teacher.denoiser([seed])(x[n : n + 1], level) for n, seed in enumerate(mixed)])
    error = trials.relative(together, apart)
    if not error < ALONE:
        raise Failed(
            f"an image's prediction differs by {error:.1e} with the other seeds in the batch; bind each "
            "seed's own condition"
        )
    return str(teacher.condition)


def double(teacher: Teacher) -> str:
    """Raise unless the float64 network agrees with `denoise` and returns float64."""
    assert teacher.double is not None
    level = _level(teacher, 0.5)
    x = _noise(teacher) * teacher.schedule.scale(float(level))
    with torch.no_grad():
        wide, narrow = teacher.double(x.double(), level), teacher.denoise(x, level)
    if wide.dtype != torch.float64:
        raise Failed(f"`double` returns {wide.dtype} for float64 images; keep them")
    error = trials.relative(narrow.double(), wide)
    if not error < 1e-3:
        raise Failed(f"`double` differs from `denoise` by {error:.1e}; give it the same weights")
    return f"differs from `denoise` by {error:.0e}"


def decode(teacher: Teacher) -> str:
    """Raise unless decoded states are finite images, one per state, with gradient."""
    states = _noise(teacher).requires_grad_()
    images = teacher.images(states)
    if images.ndim != 4 or len(images) != len(states) or not images.isfinite().all():
        raise Failed(
            f"`decode` makes {tuple(images.shape)} of {tuple(states.shape)}; return finite images [B, C, H, W]"
        )
    if not images.requires_grad:
        raise Failed("`decode` passes no gradient on; use no torch.no_grad and no detach")
    return f"{tuple(states.shape)} to {tuple(images.shape)}"


def move(teacher: Teacher) -> str:
    """Raise unless `move` gives the same teacher on the other device."""
    assert teacher.move is not None
    there = teacher.move("cpu")
    if (there.identity, there.shape, there.device) != (teacher.identity, teacher.shape, "cpu"):
        raise Failed(
            f"`move` to the CPU gives {there.identity[:12]} {there.shape} on {there.device}, not "
            f"{teacher.identity[:12]} {teacher.shape} on cpu; load the same network"
        )
    return f"the same on {there.device}"


def _images(teacher: Teacher) -> Tensor:
    """Return images sampled from the teacher, [4, *shape] float32."""
    solver: Solver = make("dpm:order=2")
    plan = trace(solver, solver.grid(teacher.schedule, CALLS)).plan_from_noise(teacher.schedule)
    with torch.no_grad():
        return execute(plan, teacher.denoiser(SEEDS), _noise(teacher))


def _noise(teacher: Teacher, count: int = len(SEEDS)) -> Tensor:
    """Return unit noise [count, *shape] float32."""
    return torch.randn(count, *teacher.shape, generator=torch.Generator().manual_seed(1)).to(teacher.device)


def _level(teacher: Teacher, share: float) -> Tensor:
    """Return the level at a fraction `share` of the way from the first to the last, in log sigma."""
    first, last = teacher.schedule.sigma_first, teacher.schedule.sigma_min
    return torch.tensor(first * (last / first) ** share, dtype=torch.float64)


def _rms(x: Tensor) -> float:
    return float(x.detach().double().square().mean().sqrt())


def _agrees(gradient: float, expected: float, of: str) -> str:
    error = abs(gradient - expected) / max(abs(expected), abs(gradient))
    if not error < DIFFERENCES:
        raise Failed(
            f"the gradient of {of} is {gradient:.3g}, that of finite differences {expected:.3g}; detach nothing inside"
        )
    return f"finite differences agree to {error:.0e}"
