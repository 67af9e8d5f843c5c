"""The denoiser as a function of the image, the noise level and the class; guidance."""

import pytest
import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from solverbench.teachers.embedded.shapes import kind
from solverbench.teachers.embedded.shapes.data import SHAPE
from solverbench.teachers.embedded.shapes.denoiser import NULL, Denoiser
from solverbench.teachers.embedded.unet import _attended


def randomised(network: Denoiser) -> Denoiser:
    """Random everywhere: a fresh one starts as the identity."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.copy_(0.1 * torch.randn(parameter.shape, generator=generator))
    return network.requires_grad_(False).eval()


@pytest.fixture(scope="module")
def network() -> Denoiser:
    return randomised(Denoiser(widths=(16, 32, 32), embedding=32))


def images(count: int) -> Tensor:
    return torch.randn(count, *SHAPE, generator=torch.Generator().manual_seed(1))


def level(value: float) -> Tensor:
    return torch.tensor(value, dtype=torch.float64)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("sigma", [1e-4, 0.002, 1.0, 80.0, 1e4])
def test_any_positive_level_gives_a_finite_image_of_the_same_kind(
    network: Denoiser, sigma: float, dtype: torch.dtype
) -> None:
    x = (sigma * images(3)).to(dtype)
    estimate = network(x, level(sigma), torch.tensor([0, 9, NULL]))
    assert estimate.shape == x.shape
    assert estimate.dtype == dtype
    assert estimate.isfinite().all()


def test_levels_and_classes_of_a_batch_are_told_apart(network: Denoiser) -> None:
    x, sigmas, classes = images(3), torch.tensor([0.01, 1.0, 40.0], dtype=torch.float64), torch.tensor([3, NULL, 3])
    alone = torch.cat([network(x[i : i + 1], sigmas[i], classes[i : i + 1]) for i in range(3)])
    together = network(x, sigmas, classes)
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-4)
    assert not torch.allclose(network(x, sigmas, classes.flip(0)[[1, 0, 2]]), together, atol=1e-3)


def test_no_class_is_the_null_class(network: Denoiser) -> None:
    x = images(2)
    torch.testing.assert_close(network(x, level(1.0)), network(x, level(1.0), torch.full((2,), NULL)))


def test_the_image_is_kept_as_the_level_goes_to_zero(network: Denoiser) -> None:
    torch.testing.assert_close(network(images(4), level(1e-6)), images(4), atol=1e-4, rtol=0)


@pytest.mark.parametrize("sigma", [0.01, 0.3, 5.0])
def test_the_gradient_with_respect_to_the_level_is_the_derivative(network: Denoiser, sigma: float) -> None:
    double = Denoiser(widths=(16, 32, 32), embedding=32).double()
    double.load_state_dict(network.state_dict())
    double.requires_grad_(False)
    x, classes = (sigma * images(2)).double(), torch.tensor([1, 2])
    told = level(sigma).requires_grad_()
    (gradient,) = torch.autograd.grad(double(x, told, classes).square().sum(), told)
    step = 1e-5 * sigma
    ends = [double(x, level(sigma + sign * step), classes).square().sum() for sign in (1, -1)]
    assert gradient.item() == pytest.approx(((ends[0] - ends[1]) / (2 * step)).item(), rel=1e-4)


def test_attention_is_torchs_own() -> None:
    tokens = torch.randn(3, 3 * 2 * 32, 4, 5, generator=torch.Generator().manual_seed(2))
    query, key, value = (part.reshape(3, 2, 32, 20).transpose(-1, -2) for part in tokens.chunk(3, 1))
    expected = scaled_dot_product_attention(query, key, value).transpose(-1, -2)
    torch.testing.assert_close(_attended(tokens), expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("guidance", [0.0, 0.5, 1.0, 3.0])
def test_guidance_leads_from_the_unconditional_estimate_through_the_conditional_one(
    network: Denoiser, guidance: float
) -> None:
    seeds, x = range(50_007, 50_013), images(6)
    bound = kind().bound(network, kind().condition(guidance), "cpu")(seeds)
    led = network(x, level(0.8), torch.tensor([7, 8, 9, 0, 1, 2]))
    free = network(x, level(0.8))
    torch.testing.assert_close(bound(x, level(0.8)), free + guidance * (led - free), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(("guidance", "rows"), [(1.0, 6), (2.0, 12)])
def test_guidance_doubles_the_rows_of_a_call(network: Denoiser, guidance: float, rows: int) -> None:
    seen: list[int] = []
    hook = network.enter.register_forward_hook(lambda module, inputs, output: seen.append(len(output)))
    condition = kind().condition(guidance)
    kind().bound(network, condition, "cpu")(range(6))(images(6), level(1.0))
    hook.remove()
    assert seen == [rows]
