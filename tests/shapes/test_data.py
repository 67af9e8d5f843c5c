"""The images and what is known of them."""

import itertools

import pytest
import torch

from solverbench.teachers.embedded import streams
from solverbench.teachers.embedded.shapes import data


@pytest.fixture(scope="module")
def drawn() -> data.Drawn:
    return data.draw(range(500, 2500))


@pytest.mark.parametrize("batch", [1, 7, 64])
def test_an_image_depends_on_its_seed_alone(drawn: data.Drawn, batch: int) -> None:
    for first in range(0, 128, batch):
        part = data.draw(range(500 + first, 500 + min(first + batch, 128)))
        rows = slice(first, first + len(part.labels))
        assert torch.equal(part.images, drawn.images[rows])
        assert torch.equal(part.labels, drawn.labels[rows])


def test_the_order_of_seeds_does_not_matter() -> None:
    seeds = torch.tensor([7, 1 << 40, 1_000_000])
    assert torch.equal(data.draw(seeds.flip(0)).images, data.draw(seeds).images.flip(0))


def test_images_are_in_range_and_all_classes_are_there(drawn: data.Drawn) -> None:
    assert drawn.images.shape == (2000, *data.SHAPE)
    assert drawn.images.dtype == torch.float32
    assert drawn.images.abs().max() <= 1
    assert drawn.attributes.abs().max() <= 1
    assert drawn.labels.bincount(minlength=data.CLASSES).min() > 150
    assert drawn.grounds.bincount(minlength=len(data.GROUNDS)).min() > 550


def test_the_denoisers_sigma_data_is_that_of_the_images(drawn: data.Drawn) -> None:
    from solverbench.teachers.embedded.shapes.denoiser import Denoiser

    assert drawn.images.square().mean().sqrt().item() == pytest.approx(Denoiser().sigma_data, abs=0.01)


@pytest.mark.parametrize("kind", range(len(data.KINDS)))
def test_a_plain_shape_has_its_colour_where_its_centre_says(drawn: data.Drawn, kind: int) -> None:
    """A ring is empty there, so its background is looked for."""
    chosen = (drawn.labels == len(data.TEXTURES) * kind) & (drawn.grounds == data.GROUNDS.index("checks"))
    images, known = drawn.images[chosen], drawn.attributes[chosen].float()
    places = ((known[:, :2] * data.REACH + 1) * data.SIDE / 2).long()
    rows = torch.arange(len(images))
    seen = images[rows, :, places[:, 1], places[:, 0]]
    colour = known[:, 4:7] if data.KINDS[kind] != "ring" else known[:, 7:10]
    other = known[:, 7:10] if data.KINDS[kind] != "ring" else known[:, 4:7]
    near, far = (seen - colour).abs().mean(1), (seen - other).abs().mean(1)
    assert (near < far).float().mean() > 0.95


def test_stripes_alternate_between_two_colours(drawn: data.Drawn) -> None:
    """A striped square's middle rows vary along the row, a plain one's don't."""
    square = data.KINDS.index("square")
    spread = []
    for texture in range(len(data.TEXTURES)):
        images = drawn.images[drawn.labels == len(data.TEXTURES) * square + texture]
        spread.append(images[:, :, 7:9, 5:11].std(-1).mean().item())
    assert spread[1] > 2 * spread[0]


def test_edges_are_one_pixel_wide() -> None:
    """Across the edge of a disc on its axis the coverage falls from 1 to 0 within two pixels."""
    size = torch.full((1, 1, 1), 0.6)
    p, q = data._frame(torch.tensor([[0.0, 1 / data.SIDE]]), torch.zeros(1))
    covered = (0.5 - data._distance(torch.tensor([0]), p, q, size) / (2 / data.SIDE)).clamp(0, 1)[0, data.SIDE // 2]
    between = ((covered > 0) & (covered < 1)).sum()
    assert covered.max() == 1
    assert 1 <= between <= 2


def test_grain_is_noise_of_its_deviation(drawn: data.Drawn) -> None:
    """In the corners, where few shapes reach, neighbours differ by it times the root of 2, in the range of [-1, 1]."""
    corner = drawn.images[drawn.grounds == data.GROUNDS.index("grain")][:, :, 0, :2]
    assert corner.diff().median(0).values.abs().max() < 0.05
    found = corner.diff().abs().median().item() / 0.6745 / 2**0.5 / 2
    assert found == pytest.approx(data.GRAIN, rel=0.15)


def test_seed_ranges_are_disjoint() -> None:
    firsts = streams.TEACHER_STREAM, streams.METRIC_STREAM, streams.LOSS_STREAM
    training = [range(first, first + (1 << 40)) for first in firsts]
    ranges = sorted([data.REFERENCE_SEEDS, data.FLOOR_SEEDS, data.VALIDATION_SEEDS, *training], key=lambda r: r.start)
    assert all(a.stop <= b.start for a, b in itertools.pairwise(ranges))
