"""The mixture's denoiser against brute force and against the log density, and its samples against its moments."""

import itertools
import math

import pytest
import torch
from embedded import mixture_fit as fit

from solverbench.teachers.embedded.mixture import density
from solverbench.teachers.embedded.mixture.density import Mixture

SHAPE = (1, 2, 3)


def tiny(*, components=3, seed=0):
    generator = torch.Generator().manual_seed(seed)
    draws = torch.rand(components, 6, generator=generator, dtype=torch.float64)
    weights = torch.arange(1.0, components + 1, dtype=torch.float64)
    means = 2 * torch.rand(components, 6, generator=generator, dtype=torch.float64) - 1
    return Mixture(weights / weights.sum(), means, 0.01 + 0.3 * draws, SHAPE)


def level(value):
    return torch.tensor(value, dtype=torch.float64)


def points(sigma, *, n=5, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return (1 + sigma) * torch.randn(n, *SHAPE, generator=generator, dtype=torch.float64)


def brute_force(mixture, x, sigma):
    """Component by component and pixel by pixel, in logs."""
    logs, means = [], []
    for weight, mean, variance in zip(mixture.weights, mixture.means, mixture.variances, strict=True):
        total = torch.log(weight)
        pixels = []
        for value, m, v in zip(x.flatten(), mean, variance, strict=True):
            s = v + sigma**2
            total = total - (value - m) ** 2 / (2 * s) - torch.log(2 * math.pi * s) / 2
            pixels.append(m + v / s * (value - m))
        logs.append(total)
        means.append(torch.stack(pixels))
    logs = torch.stack(logs)
    chances = (logs - logs.max()).exp()
    return chances / chances.sum() @ torch.stack(means), logs.max() + chances.sum().log()


@pytest.mark.parametrize("sigma", [1e-3, 0.05, 0.7, 9.0, 80.0])
def test_the_denoiser_is_the_posterior_mean(sigma):
    mixture, x = tiny(), points(sigma)
    found, logs = mixture(x, level(sigma)), mixture.log_density(x, sigma)
    for image, row, log in zip(x, found, logs, strict=True):
        expected, density_there = brute_force(mixture, image, sigma)
        torch.testing.assert_close(row.flatten(), expected, rtol=1e-9, atol=1e-10)
        torch.testing.assert_close(log, density_there, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("sigma", [0.05, 0.7, 9.0])
def test_the_denoiser_is_x_plus_the_score_of_the_density(sigma):
    """Tweedie: D = x + sigma^2 grad log p."""
    for mixture in (tiny(), density.load()[0]):
        generator = torch.Generator().manual_seed(2)
        noise = torch.randn(4, *mixture.shape, generator=generator, dtype=torch.float64)
        x = (mixture.sample(range(4)).double() + sigma * noise).requires_grad_()
        (score,) = torch.autograd.grad(mixture.log_density(x, sigma).sum(), x)
        torch.testing.assert_close(mixture(x, level(sigma)), x + sigma**2 * score, rtol=1e-8, atol=1e-8)


def test_it_is_differentiable_in_the_image_and_the_level():
    mixture, x, sigma = tiny(), points(0.5, n=2).requires_grad_(), level(0.5).requires_grad_()
    assert torch.autograd.gradcheck(mixture, (x, sigma))


@pytest.mark.parametrize("sigma", [1e-6, 0.002, 0.3, 80.0, 1e4])
def test_float32_images_lose_no_more_than_their_own_rounding(sigma):
    mixture, _ = density.load()
    noise = torch.randn(50, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    x = mixture.sample(range(50)) + sigma * noise
    found = mixture(x, level(sigma))
    exact = mixture(x.double(), level(sigma))
    assert (found.dtype, exact.dtype) == (torch.float32, torch.float64)
    assert torch.equal(found, exact.float())
    assert exact.isfinite().all()


def test_far_from_every_component_it_is_finite():
    mixture, _ = density.load()
    x = torch.full((1, 1, 8, 8), 1e4)
    assert mixture(x, level(0.002)).isfinite().all()


def test_samples_have_the_mixtures_moments():
    mixture, n = tiny(), 200_000
    found = mixture.sample(range(n)).double().flatten(1)
    mean = mixture.weights @ mixture.means
    outer = mixture.means.T @ (mixture.weights[:, None] * mixture.means) + (mixture.weights @ mixture.variances).diag()
    torch.testing.assert_close(found.mean(0), mean, rtol=0, atol=5 / n**0.5)
    torch.testing.assert_close(found.T @ found / n, outer, rtol=0, atol=10 / n**0.5)


def test_samples_come_from_components_by_their_weights():
    apart = Mixture(level([0.6, 0.3, 0.1]), level([[0.0], [10.0], [20.0]]), level([[0.1]] * 3), (1, 1, 1))
    component = (apart.sample(range(100_000)).flatten() / 10).round()
    shares = torch.stack([(component == k).double().mean() for k in range(3)])
    torch.testing.assert_close(shares, apart.weights, rtol=0, atol=0.006)


def test_a_sample_is_a_function_of_its_seed_alone():
    mixture, _ = density.load()
    assert torch.equal(mixture.sample(range(10, 30))[5:9], mixture.sample(torch.tensor([15, 16, 17, 18])))
    assert not torch.equal(mixture.sample(range(1)), mixture.sample(range(1, 2)))


def test_denoised_noise_has_the_least_squared_error():
    """The posterior mean beats the same denoiser told a level 20 % off, on exact samples."""
    mixture, _ = density.load()
    clean = mixture.sample(range(2000))
    noisy = clean + 0.5 * torch.randn(clean.shape, generator=torch.Generator().manual_seed(3))
    errors = [(mixture(noisy, level(told)) - clean).square().mean().item() for told in (0.4, 0.5, 0.6)]
    assert errors[1] < min(errors[0], errors[2])


def test_fitting_never_lowers_the_likelihood():
    truth = tiny(components=2)
    images = truth.sample(range(3000))
    mixture, history = fit.fit(images, components=4, iterations=15, floor=1e-4, seed=0, say=lambda line: None)
    assert all(later >= earlier - 1e-9 for earlier, later in itertools.pairwise(history))
    assert history[-1] > history[0] + 0.5
    assert mixture.log_density(images).mean() == pytest.approx(truth.log_density(images).mean().item(), abs=0.1)


def test_no_variance_is_below_the_floor():
    images = torch.cat([torch.full((50, 1, 1, 1), value) for value in (-1.0, 1.0)])
    mixture, _ = fit.fit(images, components=2, iterations=9, floor=0.01, seed=0, say=lambda line: None)
    assert mixture.variances.min() == 0.01
    assert sorted(mixture.means.flatten().tolist()) == pytest.approx([-1, 1])
