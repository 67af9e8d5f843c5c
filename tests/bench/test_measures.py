"""Measures: definitions checked against all images at once, intervals against Gaussians whose distances are known."""

import json

import numpy as np
import pytest
import torch
import toys

import solverbench as sb
from solverbench import seeds
from solverbench.bench import run
from solverbench.bench.measure import Measure, paired
from solverbench.bench.run_options import RunOptions
from solverbench.errors import UserError
from solverbench.metrics.frechet import Moments, frechet
from solverbench.metrics.quantise import quantise
from solverbench.metrics.reduction import frechets, rmses

SPREAD = np.array([1.0, 0.7, 0.5, 0.3])
SHIFT = np.array([0.3, 0.0, 0.1, 0.0])
REFERENCE = Moments(10**9, np.zeros(4), np.eye(4) * (10**9 - 1))


def blocks(generator, *, replicates=1, size=100, change=0.0):
    """[R][10] moments of N(SHIFT, SPREAD^2), and of the same draws, a little changed."""
    draws = generator.normal(size=(replicates, 10, size, 4))
    one = [[Moments.of(SHIFT + SPREAD * block) for block in replicate] for replicate in draws]
    other = [[Moments.of(SHIFT + (SPREAD + change) * block) for block in replicate] for replicate in draws]
    return one, other


def measured(moments, metric="frechet_data", over="same"):
    return Measure(metric, *frechets(moments, REFERENCE), 1000, over, "unit normal")


def covered(intervals, truth):
    return np.mean([low <= truth <= high for low, high in intervals])


@pytest.mark.parametrize("replicates", [1, 3])
def test_intervals_cover_the_mean_at_this_n_about_95_percent(replicates):
    """300 trials: 0.92 to 0.98 is 2.4 standard deviations each way."""
    generator = np.random.default_rng(replicates)
    found = [measured(blocks(generator, replicates=replicates)[0]) for _ in range(300)]
    truth = float(np.mean([each.value for each in found]))
    exact = (SHIFT**2).sum() + ((1 - SPREAD) ** 2).sum()
    assert truth == pytest.approx(exact, rel=0.01)
    assert 0.92 <= covered([each.interval for each in found], truth) <= 0.98
    spread = np.std([each.value for each in found], ddof=1)
    assert np.mean([each.std_error for each in found]) == pytest.approx(spread, rel=0.15)


def test_paired_intervals_cover_the_difference_and_are_much_narrower():
    generator = np.random.default_rng(5)
    results, widths = [], []
    for _ in range(300):
        one, other = map(measured, blocks(generator, change=0.02))
        difference, low, high = paired(one, other)
        assert difference == one.value - other.value
        results.append((difference, low, high))
        widths.append((high - low) / (one.interval[1] - one.interval[0]))
    truth = float(np.mean([difference for difference, _, _ in results]))
    exact = ((1 - SPREAD) ** 2).sum() - ((1 - SPREAD - 0.02) ** 2).sum()
    assert truth == pytest.approx(exact, rel=0.02)
    assert 0.92 <= covered([(low, high) for _, low, high in results], truth) <= 0.98
    assert np.mean(widths) < 0.2


@pytest.mark.parametrize("change", [{"metric": "frechet_teacher"}, {"over": "other seeds"}])
def test_measures_over_other_things_are_not_paired(change):
    one, other = blocks(np.random.default_rng(0))
    with pytest.raises(UserError, match="not paired"):
        paired(measured(one), measured(other, **change))


def test_a_measure_comes_back_from_its_file():
    one = measured(blocks(np.random.default_rng(0), replicates=2)[0])
    again = Measure.from_dict("frechet_data", one.as_dict())
    assert (again.value, again.interval, again.n, again.over) == (one.value, one.interval, one.n, one.over)


@pytest.mark.parametrize(
    ("metric", "values", "left", "ends"),
    [
        ("recall", 0.02, [0.0, 0.04], (0.0, None)),
        ("precision_data", 0.98, [1.0, 0.96], (None, 1.0)),
        ("frechet_data", 0.1, [0.0, 0.2], (0.0, None)),
        ("fid", 0.1, [0.0, 0.2], (0.0, None)),
        ("inception_score", 1.01, [1.0, 1.1], (1.0, None)),
        ("kid", 0.001, [-0.1, 0.1], (None, None)),
        ("frechet_data_inf", 0.1, [-1.0, 1.0], (None, None)),
    ],
)
def test_an_interval_ends_where_its_metric_does(metric, values, left, ends):
    """KID and extrapolated distances are estimates that can be below 0, so theirs aren't cut."""
    known = {"replicates": [values], "leave_one_out": [left * 5], "n": 100, "over": "", "reference": ""}
    found = Measure.from_dict(metric, known)
    whole = values - found.half, values + found.half
    expected = [value if end is None else end for value, end in zip(whole, ends, strict=True)]
    assert found.interval == pytest.approx(expected)
    assert Measure.from_dict(metric, found.as_dict()).interval == found.interval


def test_a_plugins_range_is_kept_with_its_measure():
    one = Measure("own", np.array([0.1]), np.array([[0.0, 0.2] * 5]), 10, "", "", (0.0, np.inf))
    assert one.interval[0] == 0.0
    assert Measure.from_dict("own", json.loads(json.dumps(one.as_dict()))).interval == one.interval


def test_rmse_leaves_out_a_tenth_of_the_images_at_a_time():
    errors = np.random.default_rng(0).random((2, 50))
    values, left = rmses(errors)
    assert values == pytest.approx(np.sqrt(errors.mean(1)))
    without_third = np.delete(errors, slice(10, 15), axis=1)
    assert left[:, 2] == pytest.approx(np.sqrt(without_third.mean(1)))
    assert left.shape == (2, 10)


def test_a_cells_metrics_are_those_of_all_its_images_at_once(tmp_path):
    """Everything made again in one batch: noise, samples, uint8, features, distances; RMSE over the first 2000."""
    teacher = toys.teacher()
    options = {"solvers": "dpm", "nfe": 4, "teachers": teacher, "out": tmp_path}
    [outcome] = run.run(RunOptions(**options, samples=3000, replicates=2, batch=130)).cells
    scale = teacher.schedule.prior_scale
    plan = sb.tableau("dpm", nfe=4, teacher=teacher).plan(scale)
    goal = sb.tableau(teacher.sampler, nfe=teacher.sampler_nfe, teacher=teacher).plan(scale)
    data, errors = [], []
    for replicate in (range(50_000, 53_000), range(53_000, 56_000)):
        noise = seeds.noise(replicate, toys.SHAPE)
        images, target = sb.execute(plan, teacher.denoise, noise), sb.execute(goal, teacher.denoise, noise)
        features = Moments.of(toys.extractor(quantise(images)))
        data.append(frechet(features, teacher.evaluation.data.moments))
        errors.append(float(((images - target)[:2000].double() ** 2).mean().sqrt()))
    assert outcome.measures["frechet_data"].replicates == pytest.approx(data, rel=1e-6)
    assert outcome.measures["rmse_teacher"].replicates == pytest.approx(errors, rel=1e-6)
    assert (outcome.measures["frechet_data"].n, outcome.measures["rmse_teacher"].n) == (3000, 2000)
    assert torch.equal(torch.from_numpy(outcome.pictures), quantise(sample_first(plan, teacher)))


def sample_first(plan, teacher):
    return sb.execute(plan, teacher.denoise, seeds.noise(range(50_000, 50_008), toys.SHAPE))
