"""The discriminator's structure against a hand count, and the relativistic losses against closed forms."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from solverbench.errors import TrainingError
from solverbench.learned.training.adversarial import (
    Discriminator,
    Halving,
    Residual,
    discriminator_loss,
    generator_loss,
)


def small(seed: int = 0, channels: int = 1, side: int = 8) -> Discriminator:
    generator = torch.Generator().manual_seed(seed)
    return Discriminator(channels, (side, side), widths=(8, 12), cardinalities=(2, 3), blocks=2, generator=generator)


def images(count: int = 4, *, seed: int = 0, shape: tuple[int, int, int] = (1, 8, 8)) -> Tensor:
    return torch.randn(count, *shape, generator=torch.Generator().manual_seed(seed))


def linear(weights: Tensor) -> Callable[[Tensor], Tensor]:
    """D(x) = <w, x>."""
    return lambda x: (x * weights).flatten(1).sum(1)


def test_penalties_of_a_linear_discriminator_are_its_squared_norm() -> None:
    weights = images(1, seed=3)[0]
    terms = discriminator_loss(linear(weights), images(seed=1), images(seed=2), gamma=0.2)
    expected = weights.square().sum()
    torch.testing.assert_close(terms.r1, expected)
    torch.testing.assert_close(terms.r2, expected)
    torch.testing.assert_close(terms.loss - terms.adversarial, 0.1 * 2 * expected)  # gamma / 2 of both


def test_penalties_are_means_over_the_batch_and_know_real_from_fake() -> None:
    def quadratic(x: Tensor) -> Tensor:  # gradient 2x: penalty 4 |x|^2, different for every image
        return x.square().flatten(1).sum(1)

    real, fake = images(seed=1), 3 * images(seed=2)
    terms = discriminator_loss(quadratic, real, fake, gamma=0.2)
    torch.testing.assert_close(terms.r1, 4 * real.square().flatten(1).sum(1).mean())
    torch.testing.assert_close(terms.r2, 4 * fake.square().flatten(1).sum(1).mean())


def test_discriminator_loss_is_small_when_real_scores_above_fake_and_the_generator_loss_is_then_large() -> None:
    weights = torch.ones(1, 8, 8) / 64
    real, fake = torch.ones(2, 1, 8, 8), -torch.ones(2, 1, 8, 8)  # D(real) = 1, D(fake) = -1
    terms = discriminator_loss(linear(weights), real, fake, gamma=0.0)
    assert terms.loss.item() == pytest.approx(math.log1p(math.exp(-2)))
    assert (terms.real.item(), terms.fake.item()) == (pytest.approx(1), pytest.approx(-1))
    torch.testing.assert_close(generator_loss(linear(weights), fake, real), torch.full((2,), math.log1p(math.exp(2))))


def test_pairs_are_compared_one_to_one() -> None:
    weights = torch.ones(1, 8, 8) / 64
    real, fake = images(seed=1), images(seed=2)
    gap = linear(weights)(real) - linear(weights)(fake)
    terms = discriminator_loss(linear(weights), real, fake, gamma=0.0)
    torch.testing.assert_close(terms.loss, F.softplus(-gap).mean())
    torch.testing.assert_close(generator_loss(linear(weights), fake, real), F.softplus(gap))


def test_the_discriminator_step_sends_no_gradient_to_the_student() -> None:
    fake = images(seed=2).requires_grad_(True)
    discriminator_loss(small(), images(seed=1), fake, gamma=0.2).loss.backward()
    assert fake.grad is None


def test_the_generator_step_sends_gradient_to_the_student_and_not_to_the_teacher() -> None:
    real, fake = images(seed=1).requires_grad_(True), images(seed=2).requires_grad_(True)
    weights = images(1, seed=3)[0]
    generator_loss(linear(weights), fake, real).sum().backward()
    assert real.grad is None
    gap = linear(weights)(real) - linear(weights)(fake)
    expected = -torch.sigmoid(gap)[:, None, None, None] * weights  # the student is pushed to raise D(G)
    torch.testing.assert_close(fake.grad, expected.detach())


@pytest.mark.parametrize("part", ["r1", "r2"])
def test_each_penalty_has_a_gradient_in_the_discriminators_parameters(part: str) -> None:
    real, fake = (
        (images(seed=1), torch.zeros(4, 1, 8, 8)) if part == "r1" else (torch.zeros(4, 1, 8, 8), images(seed=2))
    )
    discriminator = small()
    plain = torch.autograd.grad(discriminator_loss(discriminator, real, fake, gamma=0.0).loss, [discriminator.first])
    penalised = torch.autograd.grad(
        discriminator_loss(discriminator, real, fake, gamma=2.0).loss, [discriminator.first]
    )
    assert (plain[0] - penalised[0]).abs().max() > 1e-4


def test_penalty_gradients_agree_with_finite_differences() -> None:
    discriminator = small().double()
    for parameter in discriminator.parameters():  # away from W3 = 0, where most derivatives vanish
        parameter.data += 0.1 * torch.randn(
            parameter.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(7)
        )
    real, fake = images(seed=1).double(), images(seed=2).double()
    weight = discriminator.first
    (slope,) = torch.autograd.grad(discriminator_loss(discriminator, real, fake, gamma=2.0).loss, [weight])
    losses = []
    for shift in (1e-5, -1e-5):
        with torch.no_grad():
            weight[0, 0, 0, 0] += shift
        losses.append(discriminator_loss(discriminator, real, fake, gamma=2.0).loss.item())
        with torch.no_grad():
            weight[0, 0, 0, 0] -= shift
    assert slope[0, 0, 0, 0].item() == pytest.approx((losses[0] - losses[1]) / 2e-5, rel=1e-5)


def test_parameter_count_of_the_small_preset_equals_the_hand_count() -> None:
    first = 1 * 8
    block_8 = 8 * 16 + 16 + 16 * (16 // 2) * 9 + 16 + 16 * 8
    block_12 = 12 * 24 + 24 + 24 * (24 // 3) * 9 + 24 + 24 * 12
    last = 12 * 16 + 12
    expected = first + 2 * block_8 + 8 * 12 + 2 * block_12 + last
    assert sum(p.numel() for p in small().parameters()) == expected


def test_ffhq_64_preset_has_22_38_million_parameters() -> None:
    with torch.device("meta"):
        discriminator = Discriminator(
            3,
            (64, 64),
            widths=(384, 768, 768, 768, 768),
            cardinalities=(48, 96, 96, 96, 96),
            blocks=2,
            generator=torch.Generator("cpu"),
        )
        scores = discriminator(torch.empty(2, 3, 64, 64))
    assert round(sum(p.numel() for p in discriminator.parameters()) / 1e6, 2) == 22.38
    assert scores.shape == (2,)


def test_initial_standard_deviations_follow_the_fan_in() -> None:
    generator = torch.Generator().manual_seed(0)
    discriminator = Discriminator(4, (8, 8), widths=(64, 96), cardinalities=(4, 6), blocks=2, generator=generator)
    gain = math.sqrt(2 / 1.04) * 4**-0.25
    blocks = [module for module in discriminator.layers if isinstance(module, Residual)]
    assert len(blocks) == 4
    for block, width in zip(blocks, (64, 64, 96, 96), strict=True):
        assert block.w1.weight.std().item() == pytest.approx(gain / math.sqrt(width), rel=0.03)
        assert block.w2.weight.std().item() == pytest.approx(gain / math.sqrt(32 * 9), rel=0.03)
        assert block.w3.weight.abs().max() == 0
        assert block.w1.bias is not None
        assert block.w1.bias.abs().max() == 0
    assert discriminator.first.std().item() == pytest.approx(1 / math.sqrt(4), rel=0.15)


def test_only_the_two_inner_convolutions_of_a_block_have_biases() -> None:
    biases = [name for name, _ in small().named_parameters() if name.endswith("bias")]
    assert len(biases) == 2 * 4
    assert all(".w1." in name or ".w2." in name for name in biases)


def test_halving_is_a_low_pass_that_keeps_the_mean_inside() -> None:
    halving = Halving(2, 2)
    ones = halving(torch.ones(1, 2, 8, 8))
    assert ones.shape == (1, 2, 4, 4)
    torch.testing.assert_close(ones[:, :, 1:3, 1:3], torch.ones(1, 2, 2, 2))
    impulse = torch.zeros(1, 2, 8, 8)
    impulse[0, 0, 4, 4] = 64  # rows 3..6 feed output row 2 (taps 1 3 3 1), rows 1..4 output row 1
    assert halving(impulse)[0, 0].tolist() == [[0, 0, 0, 0], [0, 1, 3, 0], [0, 3, 9, 0], [0, 0, 0, 0]]


def test_a_block_starts_as_the_identity_and_uses_its_two_rectifiers() -> None:
    block = Residual(4, 2, 1.0)
    for convolution in (block.w1, block.w2, block.w3):
        convolution.initialise(torch.Generator().manual_seed(1))
    x = images(2, shape=(4, 8, 8))
    assert torch.equal(block(x), x)
    with torch.no_grad():
        block.w3.weight.normal_(generator=torch.Generator().manual_seed(2))
        inner = F.leaky_relu(F.conv2d(x, block.w1.weight), 0.2)
        inner = F.leaky_relu(F.conv2d(inner, block.w2.weight, padding=1, groups=2), 0.2)
        torch.testing.assert_close(block(x), x + F.conv2d(inner, block.w3.weight))


def test_the_same_generator_seed_gives_the_same_discriminator_and_global_state_is_left_alone() -> None:
    before = torch.get_rng_state()
    one, two, other = small(1).state_dict(), small(1).state_dict(), small(2).state_dict()
    assert torch.equal(before, torch.get_rng_state())
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert any(not torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize(
    ("side", "widths", "cardinalities", "said"),
    [
        (24, (8, 8), (2, 2), "24 x 24: 2 widths leave 12 x 12 .* 2 to 8 are needed; give 3 widths"),
        (4, (8, 8, 8), (2, 2, 2), "3 widths leave 1 x 1 .* give 1 widths"),
        (8, (8, 8), (2,), "1 cardinalities for 2 widths"),
        (8, (8, 9), (2, 4), "cardinality 4 does not divide 18"),
    ],
)
def test_a_shape_that_does_not_fit_is_refused_by_value(
    side: int, widths: tuple[int, ...], cardinalities: tuple[int, ...], said: str
) -> None:
    with pytest.raises(TrainingError, match=said):
        Discriminator(
            1, (side, side), widths=widths, cardinalities=cardinalities, blocks=1, generator=torch.Generator()
        )


@pytest.mark.parametrize("size", [(4096, 64), (128, 4), (1, 1)])
def test_a_shape_that_no_number_of_widths_fits_is_refused_without_a_number(size: tuple[int, int]) -> None:
    """States that a pipeline packs, [N, D], are (1, N, D)."""
    said = f"{size[0]} x {size[1]}: no number of widths leaves 2 to 8 .* train a solver without it, such as gs"
    with pytest.raises(TrainingError, match=said):
        Discriminator(1, size, widths=(8, 8), cardinalities=(2, 2), blocks=1, generator=torch.Generator())


def test_widths_that_fit_no_side_are_replaced_by_a_number_that_fits_both() -> None:
    """By the shorter side alone it would be 2, which leaves 16 in the last stage."""
    with pytest.raises(TrainingError, match="give 3 widths and as many cardinalities"):
        Discriminator(1, (32, 8), widths=(8,), cardinalities=(2,), blocks=1, generator=torch.Generator())


@pytest.mark.parametrize("size", [(8, 16), (12, 12), (7, 9), (28, 20)])
def test_any_size_and_channel_count_has_a_discriminator(size: tuple[int, int]) -> None:
    generator = torch.Generator().manual_seed(0)
    made = Discriminator(5, size, widths=(8, 12, 12)[: 2 + (28 in size)], cardinalities=(2, 3, 3)[: 2 + (28 in size)],
                         blocks=1, generator=generator)  # fmt: skip
    x = torch.randn(3, 5, *size, generator=generator).requires_grad_(True)
    scores = made(x)
    (slope,) = torch.autograd.grad(scores.sum(), x)
    assert scores.shape == (3,)
    assert slope.flatten(2).abs().amax((0, 1)).min() > 0  # every pixel counts


def test_the_classic_losses_are_the_non_saturating_ones_unpaired() -> None:
    weights = torch.ones(1, 8, 8) / 64
    real, fake = torch.ones(2, 1, 8, 8), -2 * torch.ones(2, 1, 8, 8)  # D(real) = 1, D(fake) = -2
    terms = discriminator_loss(linear(weights), real, fake, gamma=0.0, kind="classic")
    assert terms.loss.item() == pytest.approx(math.log1p(math.exp(-1)) + math.log1p(math.exp(-2)))
    expected = torch.full((2,), math.log1p(math.exp(2)))
    torch.testing.assert_close(generator_loss(linear(weights), fake, real, "classic"), expected)
    torch.testing.assert_close(generator_loss(linear(weights), fake, 7 * real, "classic"), expected)
