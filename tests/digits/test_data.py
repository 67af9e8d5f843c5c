"""The digits and their copies."""

import itertools

import pytest
import torch

from solverbench.teachers.embedded import streams
from solverbench.teachers.embedded.digits import data


@pytest.fixture(scope="module")
def digits() -> data.Digits:
    return data.load()


def test_all_1797_digits_are_there_and_in_range(digits: data.Digits) -> None:
    assert digits.images.shape == (1797, 1, 8, 8)
    assert (digits.images.min().item(), digits.images.max().item()) == (0, 1)
    assert digits.labels.bincount().min() >= 174


@pytest.mark.parametrize("batch", [1, 3, 64])
def test_a_copy_depends_on_its_seed_alone(digits: data.Digits, batch: int) -> None:
    whole = digits.copies(range(500, 596))
    for first in range(0, 96, 8 * batch):
        part = digits.copies(range(500 + first, 500 + min(first + batch, 96)))
        rows = slice(first, first + len(part.labels))
        assert torch.equal(part.images, whole.images[rows])
        assert torch.equal(part.labels, whole.labels[rows])


def test_the_order_of_seeds_does_not_matter(digits: data.Digits) -> None:
    seeds = torch.tensor([7, 1 << 40, 1_000_000])
    assert torch.equal(digits.copies(seeds.flip(0)).images, digits.copies(seeds).images.flip(0))


def test_random_numbers_are_those_of_splitmix64() -> None:
    """Steele, Lea & Flood's sequence from state 0 starts 0xE220A8397B1DCDAF: the mixed seed 0 is that number."""
    mask = (1 << 64) - 1

    def mix(z: int) -> int:
        z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 & mask
        z = (z ^ (z >> 27)) * 0x94D049BB133111EB & mask
        return z ^ (z >> 31)

    golden = 0x9E3779B97F4A7C15
    assert mix(golden) == 0xE220A8397B1DCDAF
    seeds = [0, 1, 12345, (1 << 40) + 3]
    expected = [[(mix(mix(s + golden) + k * golden & mask) >> 11) / 2**53 for k in (1, 2, 3)] for s in seeds]
    assert streams.uniforms(torch.tensor(seeds), 3).tolist() == expected


def test_random_numbers_are_uniform_and_uncorrelated_between_neighbouring_seeds() -> None:
    draws = streams.uniforms(torch.arange(20_000), 6)
    assert (draws.mean(0) - 0.5).abs().max() < 0.01
    assert (draws.var(0) - 1 / 12).abs().max() < 0.002
    rows = torch.cat((draws[:-1], draws[1:]), 1).T
    assert (torch.corrcoef(rows) - torch.eye(12)).abs().max() < 0.03


def test_the_middle_pose_gives_the_source_back(digits: data.Digits) -> None:
    """No rotation, scale, shift or shear: what is left is the blur of rendering and averaging."""
    grid = data._grid(torch.zeros(1, data.POSE, dtype=torch.float64)).expand(50, -1, -1, -1)
    source = digits.images[:50]
    drawn = torch.nn.functional.grid_sample(source, grid, mode="bicubic", align_corners=False)
    assert (torch.nn.functional.avg_pool2d(drawn, 3) - source).abs().mean() < 0.05


@pytest.mark.parametrize(("column", "axis"), [(2, 3), (3, 2)])
def test_a_shift_moves_the_digit_by_half_a_pixel(digits: data.Digits, column: int, axis: int) -> None:
    pose = torch.zeros(2, data.POSE, dtype=torch.float64)
    pose[:, column] = torch.tensor([-1.0, 1.0], dtype=torch.float64)
    blob = torch.zeros(2, 1, 8, 8)
    blob[:, :, 3:5, 3:5] = 1
    drawn = torch.nn.functional.grid_sample(blob, data._grid(pose), mode="bicubic", align_corners=False)
    places = torch.arange(24.0)
    mass = drawn.sum((1, 5 - axis))
    centres = (mass * places).sum(1) / mass.sum(1) / 3
    assert (centres[0] - centres[1]).item() == pytest.approx(2 * data.SHIFT, abs=0.02)


def test_seed_ranges_are_disjoint() -> None:
    firsts = streams.TEACHER_STREAM, streams.METRIC_STREAM, streams.LOSS_STREAM
    training = [range(first, first + (1 << 40)) for first in firsts]
    ranges = sorted([data.REFERENCE_SEEDS, data.FLOOR_SEEDS, data.VALIDATION_SEEDS, *training], key=lambda r: r.start)
    assert all(a.stop <= b.start for a, b in itertools.pairwise(ranges))


def test_folds_part_the_digits(digits: data.Digits) -> None:
    seen, unseen = digits.fold(held_out=False), digits.fold(held_out=True)
    assert (len(seen.labels), len(unseen.labels)) == (1437, 360)
    assert torch.equal(unseen.images, digits.images[::5])
