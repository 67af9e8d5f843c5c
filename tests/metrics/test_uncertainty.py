"""Intervals cover what they promise: a fixed small part of the trials in docs/uncertainty.md."""

import numpy as np
import pytest
from scipy.special import stdtrit

from solverbench.bench.measure import Measure
from solverbench.errors import FeatureError
from solverbench.metrics import intervals, vectors
from solverbench.metrics.frechet import Gaussian, Moments, frechet
from solverbench.metrics.intervals import extrapolated, half_width, hierarchical, jackknife, over_sets, standard_error
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


@pytest.mark.parametrize(
    ("truth", "n", "replicates"), [(0.9987, 100, 1), (0.9987, 100, 3), (0.95, 200, 1), (0.4, 200, 3)]
)
def test_the_interval_of_a_share_covers_it_near_one_too(truth, n, replicates):
    """Precision is the share of images that a fixed set of data holds; benchmarks/uncertainty.log has whole trials."""
    generator, hits, plain = np.random.default_rng(1), [], []
    for _ in range(TRIALS):
        held = generator.random((replicates, 10, n // 10)) < truth
        left = (held.sum((1, 2))[:, None] - held.sum(2)) / (n - n // 10)
        low, high = intervals.share(held.mean(), left, n * replicates)
        assert 0 <= low <= held.mean() <= high <= 1
        hits.append(low <= truth <= high)
        plain.append(abs(held.mean() - truth) <= half_width(left))
    assert share(hits) >= 0.92
    if truth > 0.99:
        assert share(plain) < 0.4, "Student's interval would do"


def test_a_share_of_one_has_the_exact_interval_of_as_many_images_and_a_constant_one_has_no_width():
    ones, half = np.ones((1, 10)), np.full((1, 10), 0.5)
    assert intervals.share(1.0, ones, 100) == pytest.approx((0.025**0.01, 1.0), rel=1e-9)
    assert intervals.share(0.0, ones * 0, 100) == pytest.approx((0.0, 1 - 0.025**0.01), rel=1e-9)
    assert intervals.share(0.5, half, 100) == (0.5, 0.5)
    for value in (299 / 300, 0.1 + 0.2):  # the mean of ten equal numbers may differ from them by rounding
        assert intervals.share(value, np.full((3, 10), value), 100) == (value, value)


def test_a_measure_from_0_to_1_has_the_interval_of_a_share_and_another_one_students():
    left = np.array([[0.9, 0.8, 0.85, 0.9, 0.9, 0.7, 0.9, 0.95, 0.9, 0.9]])
    ranges = (0.0, 1.0), (0.0, np.inf)
    one, other = (Measure("mine", np.array([0.87]), left, 100, "", "", bounds) for bounds in ranges)
    assert one.interval == pytest.approx(intervals.share(0.87, left, 100))
    assert one.half == pytest.approx(max(one.interval[1] - 0.87, 0.87 - one.interval[0]))
    assert other.interval == pytest.approx((max(0.0, 0.87 - half_width(left)), 0.87 + half_width(left)))
    assert Measure.from_dict("precision", one.as_dict()).interval == one.interval


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


def test_a_mean_over_training_seeds_adds_their_variance_with_satterthwaites_degrees_of_freedom():
    left = np.array([[1.0, 2.0, 4.0, 1.0]])  # variance 4.5, 3 degrees of freedom
    error, half = hierarchical(left, [np.array([1.0, 3.0])])  # variance 2 / 2 seeds, 1 degree of freedom
    assert error == pytest.approx(5.5**0.5)
    freedom = 5.5**2 / (4.5**2 / 3 + 1.0)
    assert half == pytest.approx(float(stdtrit(freedom, 0.975)) * 5.5**0.5)
    assert hierarchical(left, [])[1] == pytest.approx(half_width(left))  # without trainings, the images' own
    assert hierarchical(np.ones((1, 4)), [np.ones(3)]) == (0.0, 0.0)


def test_the_interval_of_a_difference_of_means_over_training_seeds_covers_it_and_that_of_the_images_does_not():
    hits, trials = np.zeros(2), 400
    for trial in range(trials):
        generator = np.random.default_rng(trial)
        shared = generator.normal(size=10)  # difficulty of each block of images
        offsets = 0.3 * generator.normal(size=(2, 3, 1))
        blocks = shared + offsets + 0.1 * generator.normal(size=(2, 3, 10))
        left = (blocks.sum(2, keepdims=True) - blocks) / 9
        values = blocks.mean(2)
        apart, difference = (left[0].mean(0) - left[1].mean(0))[None], values[0].mean() - values[1].mean()
        hits += [abs(difference) <= hierarchical(apart, list(values))[1], abs(difference) <= half_width(apart)]
    assert 0.93 <= hits[0] / trials <= 0.99
    assert hits[1] / trials < 0.5


def test_the_intervals_of_density_coverage_and_cmmd_cover_their_means():
    """100 trials, so a true 95 % rarely shows below 88 %; benchmarks/uncertainty.log has more of them."""
    data, found = np.random.default_rng(1).normal(size=(120, 3)), {"density": [], "coverage": [], "cmmd": []}
    within = vectors.gaussian_within(data)
    for trial in range(100):
        blocks = list(0.3 + 0.7 * np.random.default_rng([2, trial]).normal(size=(10, 10, 3)))
        for name, each in vectors.neighbourhoods(blocks, data).items():
            found[name].append(each)
        found["cmmd"].append(vectors.gaussian_discrepancy(blocks, data, within))
    for name, each in found.items():
        mean = np.mean([value for value, _ in each])
        if name == "coverage":
            ends = [intervals.share(value, left[None], 100) for value, left in each]
        else:
            ends = [(value - half_width(left[None]), value + half_width(left[None])) for value, left in each]
        assert np.mean([low <= mean <= high for low, high in ends]) >= 0.88, name
        assert np.mean([high - low for low, high in ends]) < 8 * np.std([value for value, _ in each]), (
            "not far too wide"
        )
