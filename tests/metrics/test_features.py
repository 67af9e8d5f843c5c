"""Kernel distance, precision and recall, Inception score: against plain definitions and clean-fid's own code."""

import numpy as np
import pytest
from metrics import standin

from solverbench.errors import FeatureError
from solverbench.metrics import vectors as features
from solverbench.metrics.reduction import means


def vectors(n, seed, shift=0.0, d=6):
    return np.random.default_rng(seed).normal(size=(n, d)) + shift


def test_the_kernel_distance_is_the_sum_over_pairs():
    x, y = vectors(7, 0), vectors(5, 1, 0.5)

    def mean(a, b, own):
        found = [(u @ v / 6 + 1) ** 3 for i, u in enumerate(a) for j, v in enumerate(b) if not (own and i == j)]
        return np.mean(found)

    expected = mean(x, x, True) + mean(y, y, True) - 2 * mean(x, y, False)
    assert features.kernel_distance(x, y) == pytest.approx(expected, rel=1e-12)


def test_kid_is_what_clean_fid_gives(monkeypatch):
    kernel_distance = standin.clean_fid(monkeypatch).kernel_distance

    x, y = vectors(120, 0), vectors(120, 1, 0.2)
    whole = kernel_distance(x, y, num_subsets=1, max_subset_size=120)
    assert features.kernel_distance(x, y) == pytest.approx(whole, rel=1e-6)
    np.random.seed(0)  # noqa: NPY002  # clean-fid draws from it
    theirs = kernel_distance(x, y, num_subsets=200, max_subset_size=40)
    ours = features.kernel_subsets(x, y, subsets=200, size=40)
    error = ours.std(ddof=1) * (2 / 200) ** 0.5  # both means vary
    assert abs(ours.mean() - theirs) < 3 * error


def test_subsets_are_right_in_the_mean_and_the_kernel_distance_is_without_bias():
    x, y = vectors(300, 0), vectors(300, 1)
    subsets = features.kernel_subsets(x, y, subsets=200, size=50)
    assert abs(subsets.mean() - features.kernel_distance(x, y)) < 3 * subsets.std(ddof=1) / 200**0.5
    same = [features.kernel_distance(vectors(20, 2 * s), vectors(20, 2 * s + 1)) for s in range(300)]
    assert abs(np.mean(same)) < 3 * np.std(same) / 300**0.5


def test_a_blocks_kernel_distance_is_the_mean_over_its_disjoint_subsets():
    blocks, y = [vectors(40, seed, 0.3) for seed in range(10)], vectors(20, 99)
    found = features.kernel_blocks(blocks, y)  # 20 vectors each, as many as y has
    expected = [np.mean([features.kernel_distance(half, y) for half in (b[:20], b[20:])]) for b in blocks]
    assert found == pytest.approx(expected, rel=1e-9)
    values, left = means(found[None])
    assert values[0] == pytest.approx(np.mean(expected))
    assert left[0, 3] == pytest.approx(np.delete(found, 3).mean())
    with pytest.raises(FeatureError, match="20 samples or more"):
        features.kernel_blocks([each[:1] for each in blocks], y)


def plain(x, y, k=3):
    """Precision by its definition."""
    gaps = np.linalg.norm(y[:, None] - y[None], axis=2)
    radii = np.sort(gaps, axis=1)[:, k]  # the nearest is the vector itself
    return float(np.mean([(np.linalg.norm(u - y, axis=1) <= radii).any() for u in x]))


def test_precision_and_recall_are_their_definitions_with_any_block_left_out(monkeypatch):
    monkeypatch.setattr(features, "CHUNK", 7)  # several chunks
    blocks, y = [vectors(4, seed, 0.8) for seed in range(5)], vectors(30, 99)
    found = features.manifold(blocks, y)
    x = np.concatenate(blocks)
    assert found["precision"][0] == plain(x, y)
    assert found["recall"][0] == plain(y, x)
    for g in range(5):
        rest = np.concatenate(blocks[:g] + blocks[g + 1 :])
        assert found["precision"][1][g] == pytest.approx(plain(rest, y))
        assert found["recall"][1][g] == pytest.approx(plain(y, rest))
    assert 0 < found["recall"][0] < 1
    assert 0 < found["precision"][0] < 1
    with pytest.raises(FeatureError, match="too small for the 3 nearest neighbours"):
        features.manifold([y[:2], y[2:4]], y)


def test_the_inception_score_is_the_number_of_classes_at_best():
    sure = np.eye(4)[np.arange(20) % 4]
    vague = np.full((20, 4), 0.25)
    assert features.inception_scores([sure, vague]) == pytest.approx([4, 1])


def test_subsets_have_a_thousand_vectors_as_in_the_public_implementations():
    block, y = vectors(2000, 0, d=3), vectors(1500, 1, 0.1, d=3)
    assert features.kernel_blocks([block], y) == features.kernel_blocks([block], y, size=1000)
    assert features.kernel_blocks([block], y) != features.kernel_blocks([block], y, size=999)


def test_the_inception_score_is_its_definition_on_classes_that_are_not_alike():
    p = np.random.default_rng(0).dirichlet([0.2, 0.7, 1.5], size=30)
    marginal = p.mean(0)
    expected = np.exp(np.mean([sum(a * np.log(a / b) for a, b in zip(row, marginal, strict=True)) for row in p]))
    assert features.inception_scores([p]) == pytest.approx([expected], rel=1e-12)
