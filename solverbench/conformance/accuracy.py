"""Checks of what a teacher predicts: the one-step denoising error on real images, or on the teacher's own samples.

At each of nine levels from the first to the last, noise is added to known images, and the prediction is compared with
them. The optimal denoiser is the posterior mean, so its error is below that of every other predictor. Two of these have
known errors: the noisy image itself (sigma^2) and the mean image (the variance v of the images). The best predictor
a + b x with one number b has the error v sigma^2/(v + sigma^2).
Source: Karras et al. 2022, arXiv:2206.00364, appendix B.3 (the ideal denoiser).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from solverbench.conformance.trials import Failed
from solverbench.method.execution import execute
from solverbench.method.solver import Solver
from solverbench.method.spec import make
from solverbench.method.tracing import trace
from solverbench.seeds import EVALUATION_START, noise
from solverbench.teachers.adaptors import PREDICTIONS, Adapted, coefficients
from solverbench.teachers.conditions import Condition
from solverbench.teachers.teacher import Teacher

LEVELS = 9
"""Number of noise levels, equally spaced in log sigma."""

IMAGES = 64
"""Number of real images that are used at most; 2 000 000 is the first seed of a teacher's own `images_of`."""

FIRST_SEED = 2_000_000

OWN, OWN_LARGE = 16, 4
"""Number of the teacher's own samples, and of those with more than `LARGE` values."""

LARGE = 3 * 128 * 128

CALLS = 12
"""Number of calls of the sampler that makes them, DPM-Solver++(2M)."""

SLACK = 1.5
"""Allowed error, in geometric means of the better trivial error and the best linear one; a tiny MLP needs 1.2."""

NOISE_ERROR = 0.015
"""Largest share of the noise's variance that a prediction of noise may miss. Its error in x0 is sigma^2 times that, so
that it exceeds the variance of the images at high levels; networks in use miss about 0.001."""

ROUGH = 0.05
"""Allowed error of a prediction of the data at any level, as a share of the images' size, as in `small_noise`."""

SURE = 3.0
"""Standard errors by which a limit must be exceeded."""

_GENERAL = "look at `told` (the times that the network is told), `predicts`, and the scale of its input"

REAL, SAMPLED = "real images", "its own samples"


@dataclass(frozen=True, eq=False)
class Known:
    """Images of a teacher.

    Args:
        states: [n, *shape] float32, what the network denoises.
        seeds: seeds of their conditions.
        of: `REAL` or `SAMPLED`.
    """

    states: Tensor
    seeds: range
    of: str

    @property
    def variance(self) -> float:
        """The mean squared distance of an image value to that of the mean image, unbiased."""
        return float(self.states.double().var(0).mean())

    @property
    def size(self) -> float:
        """The mean square of an image value."""
        return float(self.states.double().square().mean())


@dataclass(frozen=True, eq=False)
class Curve:
    """The one-step predictions at each level, summarised; all float64.

    Args:
        levels: [L], rising.
        errors: [L, n], mean squared error of each image.
        biases: [L, n], mean error of each image.
        sizes: [L], mean square of a predicted value.
        variance: variance of the images, see `Known`.
        size: mean square of an image value.
    """

    levels: Tensor
    errors: Tensor
    biases: Tensor
    sizes: Tensor
    variance: float
    size: float

    @property
    def noise_error(self) -> float:
        """The share of the noise's variance that is allowed to be missed: at most that at the highest level, twice."""
        return min(NOISE_ERROR, 2 * float(self.errors[-1].mean() / self.levels[-1] ** 2))

    @property
    def limits(self) -> Tensor:
        """The largest error [L] of a decent denoiser, see `SLACK`, `NOISE_ERROR` and `ROUGH`."""
        squares = self.levels**2
        trivial, linear = squares.clamp(max=self.variance), self.variance * squares / (self.variance + squares)
        return SLACK * (trivial * linear).sqrt() + self.noise_error * squares + ROUGH**2 * self.size

    @property
    def excess(self) -> Tensor:
        """The error [L] as a share of its limit, less `SURE` standard errors."""
        return (self.errors.mean(1) - SURE * _deviation(self.errors)) / self.limits


def error(teacher: Teacher, known: Known) -> str:
    """Raise unless the one-step error is at every level below what a poor denoiser leaves."""
    found = curve(teacher, known)
    if (worst := _beyond(found.excess)) is not None:
        error, trivial = float(found.errors[worst].mean()), min(float(found.levels[worst]) ** 2, found.variance)
        raise Failed(
            f"{known.of} with noise of {float(found.levels[worst]):.3g} are predicted with a mean squared error of "
            f"{error:.3g}; the better of the noisy image and the mean image has {trivial:.3g}; "
            f"{_advice(teacher, known)}"
        )
    reached = found.errors.mean(1) / found.limits
    return (
        f"{len(known.states)} of {known.of}: the squared error is at most {float(reached.max()):.2f} of the limit, at "
        f"sigma={float(found.levels[int(reached.argmax())]):.3g}"
    )


def growth(teacher: Teacher, known: Known) -> str:
    """Raise unless the one-step error rises with the level, as it does where more noise hides more."""
    found = curve(teacher, known)
    for n in range(1, len(found.levels)):
        fall = 0.9 * found.errors[:n] - found.errors[n]  # [n, images]
        for m in range(n):
            if not float(fall[m].mean()) < SURE * float(_deviation(fall[m][None])):
                raise Failed(
                    f"the mean squared error of {known.of} is {float(found.errors[m].mean()):.3g} with noise of "
                    f"{float(found.levels[m]):.3g}, but {float(found.errors[n].mean()):.3g} with noise of "
                    f"{float(found.levels[n]):.3g}; {_advice(teacher, known)}"
                )
    return f"the error of {known.of} rises with the level"


def _beyond(shares: Tensor) -> int | None:
    """Return the index of the largest share of what is allowed; None if all are below 1. NaN counts as infinite."""
    shares = shares.nan_to_num(nan=math.inf)
    worst = int(shares.argmax())
    return None if shares[worst] < 1 else worst


def bias(teacher: Teacher, known: Known) -> str:
    """Raise unless predictions are as bright as the images on average, as a mean over all images is kept."""
    found = curve(teacher, known)
    means, sure = found.biases.mean(1), SURE * _deviation(found.biases)
    allowed = 0.15 * found.variance**0.5 + (found.noise_error**0.5 * found.levels)
    if (worst := _beyond((means.abs() - sure) / allowed)) is not None:
        raise Failed(
            f"predictions of {known.of} with noise of {float(found.levels[worst]):.3g} are {float(means[worst]):+.2g} "
            f"brighter on average, where images deviate by {found.variance**0.5:.2g}; {_advice(teacher, known)}"
        )
    return f"predictions of {known.of} are at most {float(means.abs()[:6].max()):.2g} brighter on average"


def size(teacher: Teacher, known: Known) -> str:
    """Raise unless predictions are on average no larger than the images: a posterior mean has less variance."""
    found = curve(teacher, known)
    spread = float(known.states.double().square().flatten(1).mean(1).std()) / len(known.states) ** 0.5
    allowed = 1.2 * found.size + SURE * spread + found.noise_error * found.levels**2
    if (worst := _beyond(found.sizes / allowed)) is not None:
        raise Failed(
            f"predictions with noise of {float(found.levels[worst]):.3g} have a mean square of "
            f"{float(found.sizes[worst]):.3g}, {known.of} one of {found.size:.3g}; {_advice(teacher, known)}"
        )
    return f"predictions have no larger mean square than {known.of}, {found.size:.3g}"


def span(teacher: Teacher, known: Known) -> str:
    """Raise unless images on [-1, 1] have a mean square that is possible there."""
    states = samples(teacher).states
    square, outside = float(states.double().square().mean()), float((states.abs() > 1).double().mean())
    if not square < 1.2:
        raise Failed(
            f"its own samples have a mean square of {square:.3g}, and {outside:.0%} of their values lie outside "
            f"[-1, 1]; {_GENERAL}, and whether its images are scaled to [-1, 1]; a network with too little training "
            "does this too"
        )
    return f"its own samples have a mean square of {square:.2g}; {outside:.1%} of their values lie outside [-1, 1]"


def channels(teacher: Teacher, known: Known) -> str:
    """Raise if images with their channels in reverse order are denoised better than the images."""
    if known.of != REAL:
        return "not visible in its own samples; give real images by --images FOLDER"
    plain = curve(teacher, known)
    swapped = curve(teacher, Known(known.states.flip(1), known.seeds, known.of))
    gain = (plain.errors - 1.05 * swapped.errors)[2:6].mean(0)  # the levels at which colours are guessed
    if float(gain.mean()) > SURE * float(_deviation(gain[None])):
        share = float(swapped.errors[2:6].mean() / plain.errors[2:6].mean())
        raise Failed(
            f"with channels in reverse order, {known.of} are left with {share:.2f} of the error; the network takes "
            "blue, green, red: flip the channels of its input and output"
        )
    return "no better with channels in reverse order"


def unguided(teacher: Teacher) -> bool:
    """Return whether predictions are posterior means, which guidance moves away from."""
    return teacher.passes == 1 or teacher.condition is None or teacher.condition.guidance == 1


def on_pixels(teacher: Teacher) -> bool:
    """Return whether final states are images on [-1, 1] and predictions aren't guided."""
    return teacher.decode is None and unguided(teacher)


def coloured(teacher: Teacher) -> bool:
    """Return whether final states are images with three channels and predictions aren't guided."""
    return on_pixels(teacher) and teacher.shape[0] == 3


def one_condition(condition: Condition | None) -> bool:
    """Return whether all images have the same class or prompt, or none."""
    if condition is None:
        return True
    return (condition.classes is None or condition.classes.startswith("fixed:")) and len(condition.prompts) <= 1


def known(teacher: Teacher, images: Tensor | None) -> Known:
    """Return the images to check a teacher on: those given, else its own real ones, else its samples.

    Args:
        images: real images [n, *shape] on [-1, 1]; None for the teacher's own.
    """
    if images is None and teacher.images_of is not None and teacher.decode is None and teacher.condition is None:
        images = _drawn(teacher)  # of no certain class
    if images is None:
        return samples(teacher)
    return _real(teacher, images)


@lru_cache(maxsize=1)
def _drawn(teacher: Teacher) -> Tensor:
    assert teacher.images_of is not None
    return teacher.images_of(range(FIRST_SEED, FIRST_SEED + IMAGES))


@lru_cache(maxsize=1)
def _real(teacher: Teacher, images: Tensor) -> Known:
    seeds = range(EVALUATION_START, EVALUATION_START + len(images))
    return Known(images.to(teacher.device, torch.float32), seeds, REAL)


@lru_cache(maxsize=1)
def samples(teacher: Teacher) -> Known:
    """Return the teacher's own samples."""
    count = OWN if math.prod(teacher.shape) <= LARGE else OWN_LARGE
    seeds = range(EVALUATION_START, EVALUATION_START + count)
    solver: Solver = make("dpm:order=2")
    plan = trace(solver, solver.grid(teacher.schedule, CALLS)).plan_from_noise(teacher.schedule)
    with torch.no_grad():
        parts = [
            execute(plan, teacher.denoiser(part), noise(part, teacher.shape, teacher.device))
            for part in _parts(seeds, teacher)
        ]
    return Known(torch.cat(parts), seeds, SAMPLED)


Denoiser = Callable[[Tensor, Tensor], Tensor]


@lru_cache(maxsize=2)
def curve(teacher: Teacher, known: Known) -> Curve:
    """Return the one-step predictions of a teacher on known images, at all levels."""
    return _curve(teacher, known, _levels(teacher))


def _levels(teacher: Teacher) -> Tensor:
    """Return the noise levels, rising."""
    first, last = teacher.schedule.sigma_first, teacher.schedule.sigma_min
    shares = torch.linspace(0, 1, LEVELS, dtype=torch.float64)
    found: Tensor = last * torch.tensor(first / last, dtype=torch.float64) ** shares
    return found


def _curve(teacher: Teacher, known: Known, levels: Tensor, through: Denoiser | None = None) -> Curve:
    """Return the one-step predictions on known images, with `through` in place of the teacher's denoiser."""
    errors, biases, sizes = [], [], []
    with torch.no_grad():
        for number, level in enumerate(levels):
            generator = torch.Generator().manual_seed(number)
            drawn = torch.randn(known.states.shape, generator=generator).to(known.states.device)
            x = known.states + float(level) * drawn
            rows = []
            for part in _parts(known.seeds, teacher):
                place = slice(part.start - known.seeds.start, part.stop - known.seeds.start)
                rows.append((through or teacher.denoiser(part))(x[place], level))
            d = torch.cat(rows)
            gap = (d - known.states).double().flatten(1)
            errors.append(gap.square().mean(1))
            biases.append(gap.mean(1))
            sizes.append(d.double().square().mean())
    stacked, means, squares = (torch.stack(each).cpu() for each in (errors, biases, sizes))
    return Curve(levels, stacked, means, squares, known.variance, known.size)


def _parts(seeds: range, teacher: Teacher) -> Iterator[range]:
    """Yield the seeds in batches of about a million values."""
    many = max(1, 2**20 // math.prod(teacher.shape))
    for begin in range(0, len(seeds), many):
        yield seeds[begin : begin + many]


def _deviation(values: Tensor) -> Tensor:
    """Return the standard error [L] of the means of values [L, n]."""
    return values.std(1) / math.sqrt(values.shape[1])


@lru_cache(maxsize=2)
def _advice(teacher: Teacher, known: Known) -> str:
    """Return what to look at: the one change that makes the error that of a decent denoiser, if there is one."""
    if known.of != REAL:
        return f"{_GENERAL}; with real images, by --images FOLDER, this check says which"
    worth = {what: score for what, score in _changes(teacher, known) if score < 1}
    if worth:  # the first of those that are as good as the best: times of 1000 t and 1000 t - 1 differ by nothing here
        return next(what for what, score in worth.items() if score <= 1.1 * min(worth.values()))
    return f"{_GENERAL}, and whether these are images of its data"


def _changes(teacher: Teacher, known: Known) -> Iterator[tuple[str, float]]:
    """Yield possible mistakes, as what to do, each with the share of the limit that the error has without it."""
    levels = _levels(teacher)
    few = Known(known.states[:32], known.seeds[:32], known.of)

    def score(images: Known, through: Denoiser, levels: Tensor = levels) -> float:
        try:
            found = _curve(teacher, images, levels, through)
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
