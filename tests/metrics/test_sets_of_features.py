"""KID, CMMD, precision, recall, density and coverage against the papers' formulas, written without the product's code.

Each formula is a loop over images or pairs, in float64; equal to 1e-6, which is far above rounding.
"""

import dataclasses

import numpy as np
import pytest
import torch
import toys

import solverbench as sb
from solverbench.bench import run as runner
from solverbench.bench.run_options import RunOptions
from solverbench.errors import FeatureError, UserError
from solverbench.metrics import reduction, vectors
from solverbench.metrics.quantise import quantise
from solverbench.metrics.table import TABLE

pytestmark = pytest.mark.usefixtures("unrendered", "remembered")

CLOSE = 1e-6


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    """Features of 120 images and of 150 real ones, from a file: shifted, narrower, with two clusters."""
    generator = np.random.default_rng(11)
    x, y = 0.8 * generator.standard_normal((120, 6)) + 0.3, generator.standard_normal((150, 6))
    y[:50] += 2
    file = tmp_path_factory.mktemp("features") / "features.npz"
    np.savez(file, x=x.astype(np.float32), y=y.astype(np.float32))
    read = np.load(file)
    return read["x"].astype(np.float64), read["y"].astype(np.float64)


def distance(a, b):
    return sum((p - q) ** 2 for p, q in zip(a, b, strict=True)) ** 0.5


def radius(rows, at, k):
    """Distance of a row to its k-th nearest other row."""
    return sorted(distance(rows[at], rows[other]) for other in range(len(rows)) if other != at)[k - 1]


def density(x, y, k=5):
    """Naeem et al., section 3: sum over images and balls of 1[image in ball], over k M."""
    radii = [radius(y, at, k) for at in range(len(y))]
    return sum(distance(one, y[at]) < radii[at] for one in x for at in range(len(y))) / (k * len(x))


def coverage(x, y, k=5):
    """Naeem et al., section 3: share of balls that hold an image."""
    radii = [radius(y, at, k) for at in range(len(y))]
    return sum(any(distance(one, y[at]) < radii[at] for one in x) for at in range(len(y))) / len(y)


def precision(x, y, k=3):
    """Kynkäänniemi et al., equation 1: share of images in the ball of a real one; recall exchanges the sets."""
    radii = [radius(y, at, k) for at in range(len(y))]
    return sum(any(distance(one, y[at]) <= radii[at] for at in range(len(y))) for one in x) / len(x)


def discrepancy(x, y, kernel):
    """Gretton et al., equation 3: means of the kernel over pairs of different images, and over pairs of both sets."""
    own = [
        sum(kernel(rows[i], rows[j]) for i in range(len(rows)) for j in range(len(rows)) if i != j)
        / (len(rows) * (len(rows) - 1))
        for rows in (x, y)
    ]
    both = sum(kernel(a, b) for a in x for b in y) / (len(x) * len(y))
    return own[0] + own[1] - 2 * both


def gaussian(a, b):
    """CMMD's kernel, with its bandwidth of 10."""
    return np.exp(-sum((p - q) ** 2 for p, q in zip(a, b, strict=True)) / (2 * 10**2))


def cubic(a, b):
    """KID's kernel."""
    return (sum(p * q for p, q in zip(a, b, strict=True)) / len(a) + 1) ** 3


def without(blocks, left):
    return np.concatenate([block for number, block in enumerate(blocks) if number != left])


def test_density_and_coverage_are_the_papers(stored):
    x, y = stored
    blocks = np.split(x, 10)
    found = vectors.neighbourhoods(blocks, y)
    for name, formula in (("density", density), ("coverage", coverage)):
        value, left = found[name]
        assert value == pytest.approx(formula(x, y), abs=CLOSE)
        for block in (0, 7):
            assert left[block] == pytest.approx(formula(without(blocks, block), y), abs=CLOSE)


def test_precision_and_recall_are_the_papers(stored):
    x, y = stored
    found = vectors.manifold(np.split(x, 10), y)
    assert found["precision"][0] == pytest.approx(precision(x, y), abs=CLOSE)
    assert found["recall"][0] == pytest.approx(precision(y, x), abs=CLOSE)


def test_cmmd_is_the_unbiased_estimate_of_the_papers_distance(stored):
    x, y = (rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in stored)
    blocks = [x[:5], *np.split(x[5:], 5)]
    value, left = vectors.gaussian_discrepancy(blocks, y)
    assert value == pytest.approx(1000 * discrepancy(x, y, gaussian), abs=CLOSE)
    for block in (0, 3):
        assert left[block] == pytest.approx(1000 * discrepancy(without(blocks, block), y, gaussian), abs=CLOSE)
    known = vectors.gaussian_discrepancy(blocks, y, vectors.gaussian_within(y))
    assert known[0] == value


def test_kid_of_one_subset_is_the_papers(stored):
    x, y = stored
    assert vectors.kernel_distance(x, y) == pytest.approx(discrepancy(x, y, cubic), abs=CLOSE * cubic(y[0], y[0]))


def test_the_chunks_of_a_large_set_change_nothing(stored, monkeypatch):
    x, y = stored
    whole = vectors.gaussian_discrepancy(np.split(x, 10), y), vectors.neighbourhoods(np.split(x, 10), y)
    monkeypatch.setattr(vectors, "CHUNK", 7)
    parts = vectors.gaussian_discrepancy(np.split(x, 10), y), vectors.neighbourhoods(np.split(x, 10), y)
    assert parts[0][0] == pytest.approx(whole[0][0], abs=1e-9)
    assert parts[1]["coverage"][0] == whole[1]["coverage"][0]
    assert parts[1]["density"][1] == pytest.approx(whole[1]["density"][1])


def test_the_mean_of_cmmd_does_not_depend_on_the_number_of_images():
    """Equal distributions: the mean over many draws is 0 at ten images, where the biased estimate is not."""
    generator, found = np.random.default_rng(5), []
    for _ in range(400):
        x, y = generator.standard_normal((2, 10, 3))
        found.append(vectors.gaussian_discrepancy(np.split(x, 5), y)[0])
    error = np.std(found) / 20
    assert abs(np.mean(found)) < 4 * error
    assert 20 * error < 2 * 1000 * 3 / 100 / 10, "the biased estimate's mean is 2 (1 - kernel) / n, times 1000"


def test_sets_that_are_too_small_are_refused(stored):
    x, y = stored
    with pytest.raises(FeatureError, match="a reference of 5 images is too small for the 5 nearest neighbours"):
        vectors.neighbourhoods([x], y[:5])
    for blocks, real in (([x], y[:1]), ([x[:1], x[1:2]], y)):
        with pytest.raises(FeatureError, match="a set of 1 image has no pairs"):
            vectors.gaussian_discrepancy(blocks, real)


def test_a_run_measures_them_of_its_own_features(tmp_path, monkeypatch):
    monkeypatch.setattr(reduction, "MANIFOLD", 40)
    rows = toys.extractor(quantise(toys.data(60, seed=2)))
    judged = sb.Evaluation(toys.extractor, "toy-projection", data=sb.Reference.of(rows, "toys"))
    teacher = toys.teacher(evaluation=judged)
    options = {"solvers": "euler", "nfe": 3, "samples": 60, "replicates": 2, "teachers": teacher, "out": tmp_path}
    [outcome] = runner.run(RunOptions(**options, metrics="density_data,coverage_data")).cells
    for name in ("density_data", "coverage_data"):
        measure = outcome.measures[name]
        assert measure.n == 40
        assert measure.leave_one_out.shape == (2, 10)
        assert measure.interval[0] < measure.value < measure.interval[1] <= TABLE[name].bounds[1]
    plan = sb.tableau("euler", nfe=3, teacher=teacher).plan(teacher.schedule.prior_scale)
    images = sb.execute(plan, teacher.denoise, sb.noise(range(50_000, 50_060), teacher))
    blocks = [block[:4] for block in np.split(toys.extractor(quantise(images)).double().numpy(), 10)]
    expected = coverage(np.concatenate(blocks), rows.double().numpy())
    assert outcome.measures["coverage_data"].replicates[0] == pytest.approx(expected, abs=1e-9)


def test_they_need_the_vectors_of_the_reference(tmp_path):
    rows = toys.extractor(quantise(toys.data(60)))
    bare = dataclasses.replace(sb.Reference.of(rows, "toys"), features=None)
    teacher = toys.teacher(evaluation=sb.Evaluation(toys.extractor, "toy-projection", data=bare))
    for name in ("density_data", "coverage_data"):
        with pytest.raises(UserError, match="holds only moments, no feature vectors"):
            runner.run(RunOptions(solvers="euler", nfe=3, samples=60, teachers=teacher, out=tmp_path, metrics=name))
    assert TABLE["cmmd"].data_vectors
    assert torch.is_tensor(rows)
