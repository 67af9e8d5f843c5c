"""Seeds: noise belongs to the image, ranges are read strictly, evaluation stays apart from training."""

import pytest
import torch

from solverbench import seeds
from solverbench.errors import UserError

SHAPE = (2, 3, 4)


def test_noise_of_an_image_does_not_depend_on_its_batch():
    together = seeds.noise(range(7, 20), SHAPE)
    alone = torch.cat([seeds.noise([s], SHAPE) for s in range(7, 20)])
    assert torch.equal(together, alone)
    assert torch.equal(seeds.noise([19, 7], SHAPE), together[[12, 0]])


def test_noise_is_the_documented_generator():
    expected = torch.randn(SHAPE, generator=torch.Generator("cpu").manual_seed(50_000))
    assert torch.equal(seeds.noise([50_000], SHAPE)[0], expected)


def test_noise_leaves_the_global_generator_alone():
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    seeds.noise(range(100), SHAPE)
    assert torch.equal(torch.rand(4), expected)


@pytest.mark.parametrize(
    ("text", "expected"), [("50000-79999", range(50_000, 80_000)), ("7", range(7, 8)), (" 3 - 4 ", range(3, 5))]
)
def test_parse_reads_a_range_with_both_ends(text, expected):
    assert seeds.parse(text) == expected


@pytest.mark.parametrize("text", ["", "a-b", "5-", "-5", "9-3", "1-2-3", "1.5", "0-99999999999999999999"])
def test_parse_refuses_what_is_no_range(text):
    with pytest.raises(UserError, match="seeds"):
        seeds.parse(text)


def test_label_and_parse_agree():
    assert seeds.parse(seeds.label(range(50_000, 80_000))) == range(50_000, 80_000)


def test_overlap_with_training_seeds_is_an_error_that_names_the_shared_seeds():
    used = {"training": range(40_000), "validation": range(40_000, 50_000)}
    seeds.check_apart(range(50_000, 80_000), used, "gas nfe=4")
    with pytest.raises(UserError, match="49999-49999 are validation seeds of gas nfe=4; evaluate on seeds from 50000"):
        seeds.check_apart(range(49_999, 60_000), used, "gas nfe=4")


@pytest.mark.gpu
def test_a_cuda_device_fetches_the_same_noise_without_making_anybody_wait():
    torch.cuda.set_sync_debug_mode("error")
    try:
        there = seeds.noise(range(7, 20), SHAPE, "cuda")
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert torch.equal(there.cpu(), seeds.noise(range(7, 20), SHAPE))
