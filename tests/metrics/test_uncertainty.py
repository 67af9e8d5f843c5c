"""Intervals cover what they promise: a fixed small part of the trials in docs/uncertainty.md."""

import numpy as np
import pytest

from solverbench.errors import FeatureError
from solverbench.metrics.frechet import Gaussian, Moments, frechet
from solverbench.metrics.intervals import extrapolated, half_width, jackknife, over_sets, standard_error
from solverbench.metrics.reduction import frechets

D, N, TRIALS = 12, 400, 200
SPREAD = np.linspace(0.5, 1.1, D)
REFERENCE = Gaussian(np.zeros(D), np.eye(D))
TRUTH = frechet(Gaussian(np.full(D, 0.05), np.diag(SPREAD**2)), REFERENCE)


def trial(generator, replicates):
    draws = 0.05 + SPREAD * generator.normal(size=(replicates, 10, N // 10, D))
    return frechets([[Moments.of(block) for block in part] for part in draws], REFERENCE)


@pytest.fixture(scope="module")
def trials():
    generator = np.random.default_rng(0)
    return [trial(generator, 3) for _ in range(TRIALS)]


def share(hits):
    return float(np.mean(hits))


def test_jackknife_and_disjoint_sets_cover_the_mean_at_this_n(trials):
    expected = np.mean([values.mean() for values, _ in trials])
    assert expected > TRUTH * 1.05, "a case without bias would test nothing"
    jackknife = [abs(values.mean() - expected) <= half_width(left) for values, left in trials]
    sets = [low <= expected <= high for low, high in (over_sets(values)[2] for values, _ in trials)]
    assert 0.90 <= share(jackknife) <= 0.98
    assert 0.90 <= share(sets) <= 0.98


def test_the_extrapolated_interval_covers_the_true_distance_and_the_plain_one_does_not(trials):
    found = [extrapolated(values, left) for values, left in trials]
    assert 0.90 <= share([abs(v.mean() - TRUTH) <= half_width(left) for v, left in found]) <= 0.98
    assert share([abs(v.mean() - TRUTH) <= half_width(left) for v, left in trials]) < 0.6


def test_one_set_has_no_deviation():
    with pytest.raises(FeatureError, match="--replicates 2 or more"):
        over_sets(np.array([1.0]))


def test_the_half_width_is_students_of_all_groups_and_the_standard_error_that_of_the_mean_over_replicates():
    left = np.array([[1.0, 2.0, 4.0, 1.0], [3.0, 3.0, 5.0, 1.0]])
    # The sums of squared gaps are 6 and 8; (G-1)/G of them is 4.5 and 6, the variances of two independent values.
    assert jackknife(left[0]) == pytest.approx(4.5**0.5)
    assert standard_error(left) == pytest.approx((4.5 + 6) ** 0.5 / 2)
    # 2.446912 is Student's 97.5 % point at 2 x 3 degrees of freedom.
    assert half_width(left) == pytest.approx(2.446912 * (4.5 + 6) ** 0.5 / 2, rel=1e-6)


def test_over_sets_is_students_interval_of_the_mean():
    mean, deviation, (low, high) = over_sets(np.array([1.0, 2.0, 4.0]))
    assert mean == pytest.approx(7 / 3)
    assert deviation == pytest.approx((7 / 3) ** 0.5)  # squared gaps add up to 14/3, over two degrees of freedom
    assert high - mean == pytest.approx(4.302653 * (7 / 9) ** 0.5, rel=1e-6)
    assert mean - low == pytest.approx(high - mean)
