"""Uncertainty of a distance: intervals over disjoint sets, bias extrapolation, jackknife, correction of comparisons.

The paired difference is in `solverbench.bench.measure`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from solverbench.errors import FeatureError

Array = NDArray[np.float64]

ROUNDING = 1e-12
"""Standard error below which a share's leave-one-outs are equal but for rounding."""


def over_sets(values: Array, level: float = 0.95) -> tuple[float, float, tuple[float, float]]:
    """Return mean, standard deviation and Student interval of the mean of one value [R] per disjoint set of images.

    Raises:
        FeatureError: there are fewer than two sets.
    """
    if len(values) < 2:
        raise FeatureError(
            asked="deviation over sets of images",
            wrong="one set has no deviation",
            remedy="ask for --replicates 2 or more",
        )
    mean, deviation = float(values.mean()), float(values.std(ddof=1))
    half = quantile(len(values) - 1, level) * deviation / len(values) ** 0.5
    return mean, deviation, (mean - half, mean + half)


def extrapolated(replicates: Array, leave_one_out: Array) -> tuple[Array, Array]:
    """Return a biased distance extrapolated to infinitely many images [R], and its leave-one-outs shifted alike [R, G].

    The line in 1/n through the distance of all n images and the mean distance of n (G-1)/G images is evaluated at
    1/n = 0: G v - (G-1) mean(v_g). The remaining bias is of order 1/n^2, so n should be several times the number of
    features. The sampling error is, to first order, that of the distance itself.

    Args:
        replicates: distance of each replicate, [R].
        leave_one_out: distances with one of G equal blocks left out, [R, G].

    Source: the line is that of Chong & Forsyth 2020, arXiv:1911.07023; with these two points it is the jackknife's
        bias correction (Quenouille 1956).
    """
    groups = leave_one_out.shape[1]
    bias = (groups - 1) * (leave_one_out.mean(axis=1) - replicates)
    return replicates - bias, leave_one_out - bias[:, None]


def jackknife(leave_one_out: Array) -> float:
    """Return the delete-a-block jackknife's standard error from the values [G] with one of G blocks left out.

    Source: Efron & Stein 1981; sqrt((G-1)/G sum (v_g - mean v)^2).
    """
    groups = len(leave_one_out)
    return float(np.sqrt((groups - 1) / groups * ((leave_one_out - leave_one_out.mean()) ** 2).sum()))


def standard_error(leave_one_out: Array) -> float:
    """Return the standard error of a mean over R replicates from their leave-one-out values [R, G]."""
    return float(np.sqrt(sum(jackknife(row) ** 2 for row in leave_one_out)) / len(leave_one_out))


def within(value: float, half: float, bounds: tuple[float, float]) -> tuple[float, float]:
    """Return the ends of value ± half, cut to the range of the metric.

    The true value lies in that range, so the cut interval covers it exactly as often as the whole one.

    Args:
        bounds: least and greatest value that the metric can have.
    """
    low, high = min(bounds[0], value), max(bounds[1], value)  # rounding may carry a value beyond its range
    return max(value - half, low), min(value + half, high)


def share(value: float, leave_one_out: Array, images: int, level: float = 0.95) -> tuple[float, float]:
    """Return the interval of a mean of shares in [0, 1] by Korn and Graubard's method; it lies in [0, 1].

    It is the exact binomial interval of Clopper and Pearson at the effective number of images p (1 - p)/SE^2, with the
    jackknife's SE, times the square of the ratio of the quantiles of the normal and of Student's distribution. A share
    of exactly 0 or 1 has SE = 0 and is taken for that of `images` independent images: none of them was an exception.

    Args:
        value: the mean over R replicates.
        leave_one_out: their leave-one-outs, [R, G].
        images: number of images of all replicates.

    Source: Korn & Graubard 1998, Survey Methodology 24(2), 193-201; Clopper & Pearson 1934, Biometrika 26, 404-413.
    """
    from scipy.special import betaincinv, ndtri  # see `quantile`

    replicates, groups = leave_one_out.shape
    value, error, tail = min(max(value, 0.0), 1.0), standard_error(leave_one_out), (1 - level) / 2
    if 0 < value < 1:
        if error <= ROUNDING:
            return value, value
        counted = value * (1 - value) / error**2
        counted *= float(ndtri(1 - tail)) ** 2 / quantile(replicates * (groups - 1), level) ** 2
    else:
        counted = float(images)
    held = value * counted
    low = float(betaincinv(held, counted - held + 1, tail)) if held > 0 else 0.0
    high = float(betaincinv(held + 1, counted - held, 1 - tail)) if held < counted else 1.0
    return low, high


def half_width(leave_one_out: Array, level: float = 0.95) -> float:
    """Return the half width of the Student interval with R (G-1) degrees of freedom, from [R, G] leave-one-outs."""
    replicates, groups = leave_one_out.shape
    return quantile(replicates * (groups - 1), level) * standard_error(leave_one_out)


def hierarchical(leave_one_out: Array, trainings: Sequence[Array], level: float = 0.95) -> tuple[float, float]:
    """Return standard error and half width of a value that holds means over training seeds.

    Two sources of chance add: the images, by the jackknife of the leave-one-outs of the whole value, and the training
    seeds, by the variance between the values of each mean, divided by their number. Student's degrees of freedom are
    Welch and Satterthwaite's. A fixed set of images shared by all trainings is in the second part as far as trainings
    respond to it differently, which makes the interval a little wide.

    Args:
        leave_one_out: leave-one-outs of the value, [R, G].
        trainings: for each mean that the value is made of, the value of each of its training seeds, [K] with K >= 2.

    Source: Satterthwaite 1946, Biometrics Bulletin 2(6), 110-114.
    """
    error, freedom = error_and_freedom(leave_one_out, trainings)
    return error, quantile(freedom, level) * error if error > 0 else 0.0


def error_and_freedom(leave_one_out: Array, trainings: Sequence[Array] = ()) -> tuple[float, float]:
    """Return the standard error of a value and the degrees of freedom of Student's distribution for it.

    Args:
        leave_one_out: leave-one-outs of the value, [R, G].
        trainings: as of `hierarchical`.
    """
    replicates, groups = leave_one_out.shape
    parts = [(standard_error(leave_one_out) ** 2, replicates * (groups - 1))]
    parts += [(float(values.var(ddof=1)) / len(values), len(values) - 1) for values in trainings]
    variance = sum(part for part, _ in parts)
    spread = sum(part**2 / freedom for part, freedom in parts)
    return variance**0.5, variance**2 / spread if spread > 0 else float(replicates * (groups - 1))


def p_value(value: float, error: float, freedom: float) -> float:
    """Return the two-sided p of Student's test that the true value is 0; without an error 0, or 1 for a value of 0.

    It is at most .05 exactly where the 95 % interval of `hierarchical` or `half_width` excludes 0.
    """
    from scipy.special import stdtr  # see `quantile`

    if error <= 0:
        return float(value == 0)
    return float(min(2 * stdtr(freedom, -abs(value) / error), 1.0))


def images_needed(
    error: float, images: int, difference: float, *, power: float, level: float = 0.05, each: int | None = None
) -> int:
    """Return the number of images at which a test of a paired difference finds a true difference.

    The error of a difference falls as one over the square root of the number of images, N. The test is Student's with
    9 degrees of freedom a replicate; its power at error sqrt(images / N) is that of the noncentral distribution, with
    noncentrality c = difference / (error sqrt(images / N)). So N = images (c error / difference)^2, with c such that
    the power is the one asked for. For large N, c is the sum of the normal quantiles of 1 - level / 2 and of the power.

    Args:
        error: standard error of the difference at `images` images; it and `difference` in one unit.
        images: number of images, of all replicates together.
        difference: the true difference.
        power: probability that the test finds it.
        level: two-sided level of the test.
        each: images per replicate that the metric uses; if None, all are one replicate.

    Source: Cohen 1988, Statistical Power Analysis for the Behavioral Sciences, 2nd ed., section 12.8 (one sample of
        paired differences); noncentral t as in Owen 1965, Biometrika 52, 437-446.
    """
    from scipy.special import nctdtrinc, stdtrit  # see `quantile`

    replicates = 1
    while True:
        freedom = 9.0 * replicates
        noncentrality = float(nctdtrinc(freedom, 1 - power, stdtrit(freedom, 1 - level / 2)))
        wanted = math.ceil(images * (noncentrality * error / difference) ** 2)
        if each is None or wanted <= each * replicates or replicates > 1000:
            return max(wanted, 1)
        # More replicates give more degrees of freedom, so that fewer images do.
        replicates = max(replicates + 1, min(2 * replicates, math.ceil(wanted / each)))


def holm(values: Sequence[float], family: int | None = None) -> list[float]:
    """Return the p values of a family of comparisons, adjusted by Holm's step-down; NaN for one that isn't known.

    Rejecting what is at most .05 keeps the probability of any false rejection in the family at .05, whatever the
    dependence between the comparisons.

    Args:
        values: p of each comparison that is told.
        family: number of comparisons that these were chosen from, as those with the best of several solvers are
            chosen from all pairs; if None, as many as are known. Those that aren't told count as not rejected, which
            makes the result at most too large.

    Source: Holm 1979, Scandinavian Journal of Statistics 6(2), 65-70.
    """
    known = sorted((value, place) for place, value in enumerate(values) if not math.isnan(value))
    found, largest = [math.nan] * len(values), 0.0
    left = max(family or 0, len(known))
    for rank, (value, place) in enumerate(known):
        largest = max(largest, min((left - rank) * value, 1.0))
        found[place] = largest
    return found


def quantile(freedom: float, level: float) -> float:
    """Return the half width of Student's interval in units of the standard error."""
    from scipy.special import stdtrit  # imported where something is measured: a finished run needs no scipy

    return float(stdtrit(freedom, (1 + level) / 2))
