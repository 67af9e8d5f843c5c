"""Checks of what a teacher predicts: the one-step denoising error on real images, or on the teacher's own samples.

At each of nine levels from the first to the last, noise is added to known images, and the prediction is compared with
them, see `one_step`. Source: Karras et al. 2022, arXiv:2206.00364, appendix B.3 (the ideal denoiser).
"""

from __future__ import annotations

import math

from torch import Tensor

from solverbench.conformance.advice import advice, general
from solverbench.conformance.one_step import REAL, SURE, Known, curve, deviation, samples
from solverbench.conformance.trials import Failed
from solverbench.teachers.conditions import Condition
from solverbench.teachers.teacher import Teacher


def error(teacher: Teacher, known: Known) -> str:
    """Raise unless the one-step error is at every level below what a poor denoiser leaves."""
    found = curve(teacher, known)
    if (worst := _beyond(found.excess)) is not None:
        error, trivial = float(found.errors[worst].mean()), min(float(found.levels[worst]) ** 2, found.variance)
        raise Failed(
            f"{known.of} with noise of {float(found.levels[worst]):.3g} are predicted with a mean squared error of "
            f"{error:.3g}; the better of the noisy image and the mean image has {trivial:.3g}; "
            f"{advice(teacher, known)}"
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
            if not float(fall[m].mean()) < SURE * float(deviation(fall[m][None])):
                raise Failed(
                    f"the mean squared error of {known.of} is {float(found.errors[m].mean()):.3g} with noise of "
                    f"{float(found.levels[m]):.3g}, but {float(found.errors[n].mean()):.3g} with noise of "
                    f"{float(found.levels[n]):.3g}; {advice(teacher, known)}"
                )
    return f"the error of {known.of} rises with the level"


def _beyond(shares: Tensor) -> int | None:
    """Return the index of the largest ratio of value to limit; None if all are below 1. NaN counts as infinite."""
    shares = shares.nan_to_num(nan=math.inf)
    worst = int(shares.argmax())
    return None if shares[worst] < 1 else worst


def bias(teacher: Teacher, known: Known) -> str:
    """Raise unless predictions are as bright as the images on average, as a mean over all images is kept."""
    found = curve(teacher, known)
    means, sure = found.biases.mean(1), SURE * deviation(found.biases)
    allowed = 0.15 * found.variance**0.5 + (found.noise_error**0.5 * found.levels)
    if (worst := _beyond((means.abs() - sure) / allowed)) is not None:
        raise Failed(
            f"predictions of {known.of} with noise of {float(found.levels[worst]):.3g} are {float(means[worst]):+.2g} "
            f"brighter on average, where images deviate by {found.variance**0.5:.2g}; {advice(teacher, known)}"
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
            f"{float(found.sizes[worst]):.3g}, {known.of} one of {found.size:.3g}; {advice(teacher, known)}"
        )
    return f"predictions have no larger mean square than {known.of}, {found.size:.3g}"


def span(teacher: Teacher, known: Known) -> str:
    """Raise unless images on [-1, 1] have a mean square that is possible there."""
    states = samples(teacher).states
    square, outside = float(states.double().square().mean()), float((states.abs() > 1).double().mean())
    if not square < 1.2:
        raise Failed(
            f"its own samples have a mean square of {square:.3g}, and {outside:.0%} of their values lie outside "
            f"[-1, 1]; look at {general(teacher)}, and whether its images are scaled to [-1, 1]; a network with too "
            "little training does this too"
        )
    return f"its own samples have a mean square of {square:.2g}; {outside:.1%} of their values lie outside [-1, 1]"


def channels(teacher: Teacher, known: Known) -> str:
    """Raise if images with their channels in reverse order are denoised better than the images."""
    if known.of != REAL:
        return "not visible in its own samples; give real images by --images FOLDER"
    plain = curve(teacher, known)
    swapped = curve(teacher, Known(known.states.flip(1), known.seeds, known.of))
    gain = (plain.errors - 1.05 * swapped.errors)[2:6].mean(0)  # the levels at which colours are guessed
    if float(gain.mean()) > SURE * float(deviation(gain[None])):
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
