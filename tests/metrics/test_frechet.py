"""The Fréchet distance against closed forms, clean-fid's own function and fifty digits."""

import warnings

import mpmath
import numpy as np
import pytest
from metrics import standin
from scipy import linalg

from solverbench.errors import FeatureError
from solverbench.metrics.frechet import Gaussian, Moments, Rows, frechet
from solverbench.metrics.quantise import quantise
from solverbench.store.folder import LARGE, BlockResult, Store


def draws(n, d, seed, shift=0.0):
    generator = np.random.default_rng(seed)
    return generator.normal(size=(n, d)) @ generator.normal(size=(d, d)) / d**0.5 + shift


def by_sqrtm(a, b):
    """The formula as clean-fid evaluates it."""
    root = linalg.sqrtm(np.cov(a, rowvar=False) @ np.cov(b, rowvar=False))
    spread = np.trace(np.cov(a, rowvar=False)) + np.trace(np.cov(b, rowvar=False))
    return ((a.mean(0) - b.mean(0)) ** 2).sum() + spread - 2 * np.trace(root.real)


@pytest.mark.parametrize(("n", "d"), [(2, 1), (16, 8), (200, 8), (128, 64), (1000, 64)])
def test_it_is_what_a_general_matrix_root_gives(n, d):
    a, b = draws(n, d, 1), draws(2 * n, d, 2, shift=0.3)
    expected = ((a.mean() - b.mean()) ** 2 + (a.std(ddof=1) - b.std(ddof=1)) ** 2) if d == 1 else by_sqrtm(a, b)
    assert frechet(Moments.of(a), Moments.of(b)) == pytest.approx(expected, rel=1e-6)
    assert frechet(Rows(a), Moments.of(b)) == pytest.approx(expected, rel=1e-6)


def test_it_is_what_clean_fid_gives(monkeypatch):
    fid_from_feats = standin.clean_fid(monkeypatch).fid_from_feats

    a, b = draws(300, 48, 1), draws(400, 48, 2, shift=0.1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        expected = fid_from_feats(a, b)
    assert frechet(Moments.of(a), Moments.of(b)) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(("n", "m"), [(4, 40), (3, 5), (2, 7), (6, 6)])
def test_below_full_rank_it_is_exact_to_fifty_digits(n, m):
    d = 7
    a, b = draws(n, d, 3), draws(m, d, 4, shift=0.5)
    with mpmath.workdps(50):
        covariances = []
        for rows in (a, b):
            exact = mpmath.matrix(rows.tolist())
            mean = [sum(exact[i, j] for i in range(exact.rows)) / exact.rows for j in range(d)]
            gaps = mpmath.matrix(exact.rows, d)
            for i in range(exact.rows):
                for j in range(d):
                    gaps[i, j] = exact[i, j] - mean[j]
            covariances.append((mean, gaps.T * gaps / (exact.rows - 1)))
        (mu, s), (nu, t) = covariances
        values = mpmath.eig(s * t, left=False, right=False)
        root = sum(mpmath.sqrt(abs(mpmath.re(value))) for value in values if abs(value) > mpmath.mpf(10) ** -30)
        trace = sum(s[i, i] + t[i, i] for i in range(d))
        expected = float(sum((x - y) ** 2 for x, y in zip(mu, nu, strict=True)) + trace - 2 * root)
    assert frechet(Rows(a), Rows(b)) == pytest.approx(expected, rel=1e-10)
    assert frechet(Rows(a), Moments.of(b)) == pytest.approx(expected, rel=1e-6)


def test_a_set_has_no_distance_to_itself():
    rows = draws(50, 8, 0)
    assert frechet(Moments.of(rows), Moments.of(rows)) == 0
    assert frechet(Rows(rows[:5]), Rows(rows[:5])) == pytest.approx(0, abs=1e-12)


def test_gaussians_have_their_closed_form():
    turn = linalg.qr(np.random.default_rng(0).normal(size=(5, 5)))[0]
    one, other = np.array([1.0, 2.0, 0.5, 3.0, 0.0]), np.array([2.0, 2.0, 1.5, 0.1, 1.0])
    a = Gaussian(np.full(5, 0.2), turn @ np.diag(one**2) @ turn.T)
    b = Gaussian(np.zeros(5), turn @ np.diag(other**2) @ turn.T)
    assert frechet(a, b) == pytest.approx(5 * 0.04 + ((one - other) ** 2).sum(), rel=1e-7)


@pytest.mark.parametrize("count", [1, 2, 7, 30])
@pytest.mark.parametrize("d", [6, LARGE])
def test_any_number_of_blocks_stored_in_any_order_give_the_same_bits_merged_in_that_of_their_seeds(tmp_path, count, d):
    parts = [Moments.of(draws(20, d, seed)) for seed in range(count)]
    blocks = [range(20 * number, 20 * number + 20) for number in range(count)]
    nothing = 3, np.empty((0, 1, 1, 1), np.uint8), {}
    folder = Store(tmp_path).cell({"a": 1})
    for number in np.random.default_rng(0).permutation(count):
        folder.write_block(blocks[number], BlockResult(parts[number], *nothing))
    again = [folder.read_block(block).moments for block in blocks]
    one, other = sum(parts[1:], parts[0]), sum(again[1:], again[0])
    assert one.n == other.n == 20 * count
    assert one.total.tobytes() == other.total.tobytes()
    assert one.outer.tobytes() == other.outer.tobytes()
    reference = Gaussian(np.zeros(d), np.eye(d))
    assert frechet(one, reference) == frechet(other, reference)


@pytest.mark.parametrize(
    ("a", "b", "message"),
    [
        (Moments.of(draws(9, 4, 0)), Moments.of(draws(9, 5, 0)), "the images have 4 features, but the reference has 5"),
        (Rows(draws(1, 4, 0)), Moments.of(draws(9, 4, 0)), "1 image has no covariance"),
    ],
)
def test_sets_without_a_distance_are_refused(a, b, message):
    with pytest.raises(FeatureError, match=message):
        frechet(a, b)


def test_the_two_quantisers_differ_by_half_a_level():
    import torch

    x = torch.tensor([-1.2, -1.0, -0.5 / 127.5, 0.0, 0.4 / 127.5, 1.0])
    assert quantise(x).tolist() == [0, 0, 127, 128, 128, 255]
    assert quantise(x, "adm-floor").tolist() == [0, 0, 127, 127, 127, 255]
    levels = torch.linspace(-0.99, 0.99, 10001)
    gap = quantise(levels).float() - quantise(levels, "adm-floor").float()
    assert gap.mean() == pytest.approx(0.5, abs=0.01)


@pytest.mark.parametrize("rule", ["edm-round", "adm-floor"])
def test_levels_are_those_of_the_written_rule_whatever_the_shape_layout_and_precision(rule):
    import torch

    images = torch.randn(300, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    offset = {"edm-round": 128, "adm-floor": 127.5}[rule]

    def written(x):
        return (x.float() * 127.5 + offset).clip(0, 255).to(torch.uint8)

    assert torch.equal(quantise(images, rule), written(images))
    spread = images.to(memory_format=torch.channels_last)
    assert torch.equal(quantise(spread, rule), written(images))
    for half in (torch.float16, torch.bfloat16):
        assert torch.equal(quantise(images.to(half), rule), written(images.to(half)))
    assert quantise(images.double(), rule).float().sub(written(images).float()).abs().max() <= 1
    assert quantise(images[:0], rule).shape == (0, 3, 16, 16)
    assert torch.equal(quantise(images.requires_grad_(), rule), written(images.detach()))
