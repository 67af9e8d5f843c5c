"""Advice on poor predictions: the one change, if there is one, that makes the teacher a decent denoiser."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import lru_cache

from torch import Tensor

from solverbench.conformance.one_step import LEVELS, REAL, Denoiser, Known, curve_at, noise_levels
from solverbench.teachers.adaptors import PREDICTIONS, Adapted, coefficients
from solverbench.teachers.teacher import Teacher

GENERAL = "look at `told` (the times that the network is told), `predicts`, and the scale of its input"


@lru_cache(maxsize=2)
def advice(teacher: Teacher, known: Known) -> str:
    """Return the advice: the one change that brings the error below its limit, or a list of likely causes."""
    if known.of != REAL:
        return f"{GENERAL}; with real images, by --images FOLDER, this check says which"
    worth = {what: score for what, score in _changes(teacher, known) if score < 1}
    if worth:  # the first of those that are as good as the best: times of 1000 t and 1000 t - 1 differ by nothing here
        return next(what for what, score in worth.items() if score <= 1.1 * min(worth.values()))
    return f"{GENERAL}, and whether these are images of its data"


def _changes(teacher: Teacher, known: Known) -> Iterator[tuple[str, float]]:
    """Yield possible mistakes, as what to do, each with the share of the limit that the error has without it."""
    levels = noise_levels(teacher)
    few = Known(known.states[:32], known.seeds[:32], known.of)

    def score(images: Known, through: Denoiser, levels: Tensor = levels) -> float:
        try:
            found = curve_at(teacher, images, levels, through)
        except Exception:  # a network may refuse a time
            return math.inf
        return float((found.errors.mean(1) / found.limits).nan_to_num(nan=math.inf).max())

    own = teacher.denoiser(few.seeds)
    yield from ((what, score(few, through)) for what, through in _parametrisations(teacher, own))
    if isinstance(teacher.denoise, Adapted) and teacher.bind is None:
        yield from ((what, score(few, through)) for what, through in _times(teacher.denoise))
    for what, scale, shift in (("[0, 1]", 0.5, 0.5), ("[0, 255]", 127.5, 127.5)):
        fitting = levels[scale * levels <= 1.01 * teacher.schedule.sigma_first]

        def scaled(x: Tensor, sigma: Tensor, scale: float = scale, shift: float = shift) -> Tensor:
            return (own(scale * x + shift, sigma * scale) - shift) / scale

        if len(fitting) > LEVELS // 2:
            yield (
                f"the network's images lie in {what}; scale them to [-1, 1]: denoise((x + 1) * {scale:g}, "
                f"{scale:g} * sigma) / {scale:g} - 1 is its prediction",
                score(few, scaled, fitting),
            )


def _parametrisations(teacher: Teacher, own: Denoiser) -> Iterator[tuple[str, Denoiser]]:
    """Yield readings of the network's output as another prediction than it was taken for."""
    network = teacher.denoise
    taken = [network.predicts] if isinstance(network, Adapted) else ["x0", "eps", "v", "flow"]
    for was in taken:
        for now in PREDICTIONS:
            if was == now:
                continue

            def through(x: Tensor, sigma: Tensor, was: str = was, now: str = now) -> Tensor:
                alpha = teacher.schedule.alpha(teacher.schedule.time(sigma))
                keep, take = (float(each) for each in coefficients(was, alpha, alpha * sigma, sigma))
                raw = (own(x, sigma) - keep * x) / take
                keep, take = (float(each) for each in coefficients(now, alpha, alpha * sigma, sigma))
                return keep * x + take * raw

            fix = f'give predicts="{now}"' if isinstance(network, Adapted) else "convert it (sb.Adapted does)"
            yield f"the network's output is {now}, and is taken for {was}; {fix}", through


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
