"""The denoiser as a function of the image and of the noise level."""

import pytest
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from solverbench.teachers.embedded.digits.denoiser import Denoiser


@pytest.fixture(scope="module")
def network() -> Denoiser:
    """Small and random everywhere: a fresh one starts as the identity."""
    generator = torch.Generator().manual_seed(0)
    network = Denoiser(width=32, blocks=2, embedding=16).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.copy_(0.2 * torch.randn(parameter.shape, generator=generator))
    return network.requires_grad_(False)


def images(count: int) -> Tensor:
    return torch.randn(count, 1, 8, 8, generator=torch.Generator().manual_seed(1))


def level(value: float) -> Tensor:
    return torch.tensor(value, dtype=torch.float64)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("sigma", [1e-4, 0.002, 1.0, 80.0, 1e4])
def test_any_positive_level_gives_a_finite_image_of_the_same_kind(
    network: Denoiser, sigma: float, dtype: torch.dtype
) -> None:
    x = (sigma * images(3)).to(dtype)
    estimate = network(x, level(sigma))
    assert estimate.shape == x.shape
    assert estimate.dtype == dtype
    assert estimate.isfinite().all()


def test_one_level_for_all_equals_one_level_each(network: Denoiser) -> None:
    x = images(5)
    each = network(x, torch.full((5,), 0.7, dtype=torch.float64))
    torch.testing.assert_close(network(x, level(0.7)), each, atol=1e-6, rtol=1e-5)


def test_levels_of_a_batch_are_told_apart(network: Denoiser) -> None:
    x, sigmas = images(3), torch.tensor([0.01, 1.0, 40.0], dtype=torch.float64)
    alone = torch.cat([network(x[i : i + 1], sigmas[i]) for i in range(3)])
    torch.testing.assert_close(network(x, sigmas), alone, atol=1e-6, rtol=1e-5)


def test_a_row_does_not_depend_on_its_batch(network: Denoiser) -> None:
    x = images(64)
    torch.testing.assert_close(network(x[:3], level(0.7)), network(x, level(0.7))[:3], atol=1e-6, rtol=1e-5)


def test_the_image_is_kept_as_the_level_goes_to_zero(network: Denoiser) -> None:
    x = images(4)
    torch.testing.assert_close(network(x, level(1e-6)), x, atol=1e-4, rtol=0)


@pytest.mark.parametrize("sigma", [0.002, 0.3, 5.0, 120.0])
def test_the_gradient_with_respect_to_the_level_is_the_derivative(network: Denoiser, sigma: float) -> None:
    double = Denoiser(width=32, blocks=2, embedding=16).double()
    double.load_state_dict(network.state_dict())
    double.requires_grad_(False)
    x = (sigma * images(2)).double()
    told = level(sigma).requires_grad_()
    (gradient,) = torch.autograd.grad(double(x, told).square().sum(), told)
    step = 1e-5 * sigma
    ends = [double(x, level(sigma + sign * step)).square().sum() for sign in (1, -1)]
    assert gradient.item() == pytest.approx(((ends[0] - ends[1]) / (2 * step)).item(), rel=1e-5)


def test_the_gradient_with_respect_to_the_image_flows(network: Denoiser) -> None:
    x = images(2).requires_grad_()
    (gradient,) = torch.autograd.grad(network(x, level(1.0)).sum(), x)
    assert gradient.abs().min() > 0


def test_the_level_is_embedded_once_for_a_batch() -> None:
    network, seen = Denoiser(), []
    network.film.register_forward_hook(lambda module, inputs, output: seen.append(output.shape[0]))
    network(images(16), level(1.0))
    assert seen == [1]


def test_a_thousand_evaluations_take_little_more_than_a_thousand_million_operations() -> None:
    """20 ms of one core. With an embedding made per image there are 1.39 thousand million."""
    network, x = Denoiser().requires_grad_(False), images(1000)
    with FlopCounterMode(display=False) as counter:
        network(x, level(1.0))
    assert 1.1e9 < counter.get_total_flops() < 1.15e9
