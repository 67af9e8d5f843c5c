"""Advice on poor predictions: the one change, if there is one, that makes the teacher a decent denoiser."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import lru_cache
from pathlib import Path

from torch import Tensor

from solverbench import registries
from solverbench.conformance.one_step import BATCH, LEVELS, REAL, Curve, Denoiser, Known, curve_at, noise_levels
from solverbench.teachers.adaptors import PREDICTIONS, Adapted, Clipped, coefficients
from solverbench.teachers.families import hub
from solverbench.teachers.families.diffusers_folder import SCHEDULER
from solverbench.teachers.families.schedulers import PREDICTIONS as DIFFUSERS
from solverbench.teachers.teacher import Teacher

FEWER = 0.9
"""Share of the error of an output of zeros, at some level, below which the network's output says something."""
NAMED = {ours: theirs for theirs, ours in DIFFUSERS.items()}
"""Predictions as diffusers calls them."""


@lru_cache(maxsize=2)
def advice(teacher: Teacher, known: Known) -> str:
    """Return the advice: the one change that brings the error below its limit, or a list of likely causes."""
    look = f"look at {general(teacher)}"
    if known.of != REAL:
        return f"{look}; with real images, by --images FOLDER, this check says which"
    worth = {what: score for what, score in _changes(teacher, known) if score < 1}
    if worth:  # the first of those that are as good as the best: times of 1000 t and 1000 t - 1 differ by nothing here
        return next(what for what, score in worth.items() if score <= 1.1 * min(worth.values()))
    return f"{look}; whether these are images of its data; and whether the network is trained"


def general(teacher: Teacher) -> str:
    """Return what the user of this teacher can get wrong: arguments of a plugin, or the configuration of a folder."""
    if _configured(teacher):
        return f"prediction_type in {SCHEDULER}, and the scale of the images"
    if teacher.base not in registries.teachers and teacher.spec:
        return "its checkpoint, and the scale of the images"
    return "`told` (the times that the network is told), `predicts`, and the scale of its input"


def _configured(teacher: Teacher) -> bool:
    """Return whether the teacher was read from a folder in diffusers' layout, which says what its network predicts."""
    if teacher.base in registries.teachers:
        return False
    folder = Path(teacher.base)
    return teacher.base.startswith(hub.PREFIX) or any((folder / sub / SCHEDULER).is_file() for sub in ("", "scheduler"))


def _changes(teacher: Teacher, known: Known) -> Iterator[tuple[str, float]]:
    """Yield possible mistakes, as what to do, each with the share of the limit that the error has without it."""
    levels = noise_levels(teacher)
    count = min(32, max(1, BATCH // math.prod(teacher.shape)))
    few = Known(known.states[:count], known.seeds[:count], known.of)

    def curve(through: Denoiser, levels: Tensor = levels) -> Curve | None:
        try:
            return curve_at(teacher, few, levels, through)
        except Exception:  # a network may refuse a time
            return None

    def score(found: Curve | None) -> float:
        if found is None:
            return math.inf
        return float((found.errors.mean(1) / found.limits).nan_to_num(nan=math.inf).max())

    own = teacher.denoiser(few.seeds)
    for what, through, silent in _parametrisations(teacher, own):
        found = curve(through)
        # An untrained network would be called one that predicts v, as zeros are then a decent denoiser.
        if found is not None and score(found) < 1 and _better(found, curve_at(teacher, few, levels, silent)):
            yield what, score(found)
    if isinstance(teacher.denoise, Adapted) and teacher.bind is None:
        yield from ((what, score(curve(through))) for what, through in _times(teacher.denoise))
    for what, scale, shift in (("[0, 1]", 0.5, 0.5), ("[0, 255]", 127.5, 127.5)):
        fitting = levels[scale * levels <= 1.01 * teacher.schedule.sigma_first]

        def scaled(x: Tensor, sigma: Tensor, scale: float = scale, shift: float = shift) -> Tensor:
            return (own(scale * x + shift, sigma * scale) - shift) / scale

        if len(fitting) > LEVELS // 2:
            yield (
                f"the network's images lie in {what}; scale them to [-1, 1]: denoise((x + 1) * {scale:g}, "
                f"{scale:g} * sigma) / {scale:g} - 1 is its prediction",
                score(curve(scaled, fitting)),
            )


def _better(found: Curve, silent: Curve) -> bool:
    """Return whether the error is below a share of that of an output of zeros at some level."""
    return bool((found.errors.mean(1) < FEWER * silent.errors.mean(1)).any())


def _parametrisations(teacher: Teacher, own: Denoiser) -> Iterator[tuple[str, Denoiser, Denoiser]]:
    """Yield readings of the network's output as another prediction than it was taken for.

    Each is (what is wrong and what to do, denoiser of the reading, the same with zeros as the network's output).
    """
    network = _adapted(teacher)

    def weights(predicts: str, sigma: Tensor) -> tuple[float, float]:
        alpha = teacher.schedule.alpha(teacher.schedule.time(sigma))
        keep, take = coefficients(predicts, alpha, alpha * sigma, sigma)
        return float(keep), float(take)

    for was in [network.predicts] if network is not None else ["x0", "eps", "v", "flow"]:
        for now in PREDICTIONS:
            if was == now:
                continue

            def silent(x: Tensor, sigma: Tensor, now: str = now) -> Tensor:
                return weights(now, sigma)[0] * x

            def through(x: Tensor, sigma: Tensor, was: str = was, now: str = now) -> Tensor:
                (kept, taken), (keep, take) = weights(was, sigma), weights(now, sigma)
                return keep * x + take / taken * (own(x, sigma) - kept * x)

            what = f"the network's output seems to be {now}, and is taken for {was}; {_fix(teacher, now)}"
            yield what, through, silent


def _adapted(teacher: Teacher) -> Adapted | None:
    """Return the adaptor that says what the teacher's network predicts, if it has one."""
    for found in (teacher.denoise, None if teacher.bind is None else teacher.bind(range(1))):
        bare = found.denoise if isinstance(found, Clipped) else found
        if isinstance(bare, Adapted):
            return bare
    return None


def _fix(teacher: Teacher, now: str) -> str:
    """Return how the teacher's network is read as one that predicts `now`."""
    if _configured(teacher):
        return f'prediction_type in {SCHEDULER} may have to be "{NAMED[now]}"'
    return f'give predicts="{now}"' if isinstance(teacher.denoise, Adapted) else "convert it (sb.Adapted does)"


def _times(network: Adapted) -> Iterator[tuple[str, Denoiser]]:
    """Yield the adaptor with other times told to its network, and with its input unscaled."""
    steps = len(getattr(network.schedule, "log_alphas", ())) or 1000
    times: dict[str, Callable[[Tensor], Tensor] | None] = {
        f"give told=lambda t: {steps} * t - 1": lambda t: steps * t - 1,
        f"give told=lambda t: {steps} * t": lambda t: steps * t,
        f"give told=lambda t: {steps - 1} * t": lambda t: (steps - 1) * t,
        "leave out `told`": None,
        f"give told=lambda t: {steps} * (1 - t)": lambda t: steps * (1 - t),
        "give told=lambda t: schedule.sigma(t)": network.schedule.sigma,
        "give told=lambda t: schedule.sigma(t).log() / 4": lambda t: network.schedule.sigma(t).log() / 4,
    }
    for what, told in times.items():
        yield (
            f"the network is told other times; {what}",
            Adapted(network.network, network.schedule, network.predicts, told=told),
        )
    for what, power in (("x = y / alpha", -1), ("alpha y", 1)):
        yield f"the network takes {what} in place of y = alpha x; scale its input inside", _rescaled(network, power)


def _rescaled(network: Adapted, power: int) -> Denoiser:
    """Return the adaptor with alpha^power times the state as the network's input."""

    def through(x: Tensor, sigma: Tensor) -> Tensor:
        factor = float(network.schedule.alpha(network.schedule.time(sigma))) ** power
        scaled = Adapted(
            lambda y, t: network.network(factor * y, t), network.schedule, network.predicts, told=network.told
        )
        return scaled(x, sigma)

    return through
