"""Coloured shapes on textured backgrounds, 16x16: an image is a pure function of one integer seed.

The image's random numbers are a hash of the seed, so they depend neither on the batch nor on the order of the images.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from solverbench.teachers.embedded.streams import as_tensor, uniforms

FOLDER = Path(__file__).parent / "data"
SIDE = 16
SHAPE = (3, SIDE, SIDE)
KINDS = ("disc", "ring", "square", "triangle", "cross")
TEXTURES = ("plain", "striped")
CLASSES = len(KINDS) * len(TEXTURES)
"""Class c is kind c // 2 with texture c % 2."""
GROUNDS = ("gradient", "checks", "grain")
ATTRIBUTES = 10
"""Number of an image's attributes: centre x and y, size, tilt, colour of the shape (3) and of the background (3)."""

REFERENCE_SEEDS = range(1_000_000, 1_200_000)
"""Seeds of the images whose moments are the data reference."""
FLOOR_SEEDS = range(2_000_000, 2_100_000)
"""Seeds of the images that measure the distance of fresh data from the reference."""
VALIDATION_SEEDS = range(3_000_000, 3_100_000)
"""Seeds of the images for tests and for the accuracy of the classifiers; no training stream contains them."""

REACH = 0.25
SIZES = (0.5, 0.75)
"""Half range of the centre, and range of the radius; unit: half the image side."""
TILT = math.pi / 6
"""Half range of the angle, in radians."""
GRAIN = 0.08
"""Standard deviation of the grain, for an image range of [0, 1]."""
STRIPE, CHECK = 4, 8
"""Periods of stripes and checks, in pixels."""
_PIXEL = 2 / SIDE
_DRAWS = 16


@dataclass(frozen=True, eq=False)
class Drawn:
    """Images with their classes and attributes.

    Args:
        images: [B, 3, 16, 16] float32 in [-1, 1].
        labels: [B] int64, class of each image.
        grounds: [B] int64, kind of background.
        attributes: [B, 10] float64 in [-1, 1], see ATTRIBUTES.
    """

    images: Tensor
    labels: Tensor
    grounds: Tensor
    attributes: Tensor

    @property
    def kinds(self) -> Tensor:
        """Kind of shape, [B] int64."""
        return self.labels // len(TEXTURES)


def draw(seeds: Tensor | range) -> Drawn:
    """Return one image per seed ([B] int64 or a range), on the device of `seeds`.

    Every edge is a signed distance clipped to one pixel, so it is sharp and antialiased.
    """
    draws = uniforms(as_tensor(seeds), _DRAWS + SIDE * SIDE)
    labels = (draws[:, 0] * CLASSES).long()
    grounds = (draws[:, 1] * len(GROUNDS)).long()
    u = draws[:, 2:_DRAWS].float()
    shape_hue, shape_saturation, shape_value = u[:, 4], 0.5 + 0.5 * u[:, 5], 0.75 + 0.25 * u[:, 6]
    ground = _colour(u[:, 7], 0.5 * u[:, 8], 0.15 + 0.3 * u[:, 9])
    colour = _colour(shape_hue, shape_saturation, shape_value)
    second = _colour(shape_hue + 1 / 3, shape_saturation, shape_value)

    centre, size = REACH * (2 * u[:, :2] - 1), SIZES[0] + (SIZES[1] - SIZES[0]) * u[:, 2]
    p, q = _frame(centre, TILT * (2 * u[:, 3] - 1))
    covered = (0.5 - _distance(labels // len(TEXTURES), p, q, size[:, None, None]) / _PIXEL).clamp(0, 1)
    waves = _wave(p / (STRIPE * _PIXEL) + u[:, 10, None, None], STRIPE)
    striped = (labels % len(TEXTURES)).float()[:, None, None] * (0.5 + 0.5 * waves)
    filled = torch.lerp(colour[:, :, None, None], second[:, :, None, None], striped[:, None])

    grain = torch.special.ndtri(draws[:, _DRAWS:].clamp(1e-9, 1 - 1e-9)).float().unflatten(1, (SIDE, SIDE))
    behind = _ground(grounds, ground[:, :, None, None], u[:, 11:14], grain)
    images = torch.lerp(behind.clamp(0, 1), filled, covered[:, None])
    known = torch.cat((2 * u[:, :4] - 1, 2 * colour - 1, 2 * ground - 1), 1)
    return Drawn(images * 2 - 1, labels, grounds, known.double())


def _frame(centre: Tensor, angle: Tensor) -> tuple[Tensor, Tensor]:
    """Return the pixels' coordinates [B, 16, 16] from `centre` [B, 2], along axes rotated by `angle` [B]."""
    x, y = _axes(centre.device)
    x, y = x - centre[:, :1, None], y - centre[:, 1:, None]
    cos, sin = torch.cos(angle)[:, None, None], torch.sin(angle)[:, None, None]
    return cos * x + sin * y, cos * y - sin * x


def _axes(device: torch.device) -> tuple[Tensor, Tensor]:
    """Return x [1, 1, 16] and y [1, 16, 1] of the pixels' centres, in [-1, 1]."""
    middles = (torch.arange(SIDE, device=device) * 2 + 1) / SIDE - 1
    return middles[None, None, :], middles[None, :, None]


def _distance(kinds: Tensor, p: Tensor, q: Tensor, size: Tensor) -> Tensor:
    """Return the signed distance [B, 16, 16] to the edge of each shape of radius `size`, negative inside."""
    radius, across, along = torch.hypot(p, q), p.abs(), q.abs()
    slant = math.sqrt(3) / 2 * across - q / 2  # rows count downwards: the triangle points up
    arm = 0.35 * size
    found = torch.stack(
        (
            radius - size,
            (radius - 0.75 * size).abs() - 0.25 * size,
            torch.maximum(across, along) - 0.85 * size,
            torch.maximum(q, slant) - 0.575 * size,
            torch.minimum(torch.maximum(across - size, along - arm), torch.maximum(along - size, across - arm)),
        ),
        1,
    )
    return found.gather(1, kinds[:, None, None, None].expand(-1, 1, SIDE, SIDE)).squeeze(1)


def _wave(cycles: Tensor, period: int) -> Tensor:
    """Return a square wave of `cycles` in [-1, 1], each edge spread over one pixel; `period` is in pixels."""
    return ((0.25 - (cycles - cycles.floor() - 0.5).abs()) * (2 * period)).clamp(-1, 1)


def _ground(grounds: Tensor, colour: Tensor, u: Tensor, grain: Tensor) -> Tensor:
    """Return backgrounds [B, 3, 16, 16] of `colour` [B, 3, 1, 1], from numbers [B, 3] and unit noise [B, 16, 16]."""
    x, y = _axes(grain.device)
    turn = 2 * math.pi * u[:, 0, None, None]
    gradient = 0.7 * (torch.cos(turn) * x + torch.sin(turn) * y)
    step = CHECK * _PIXEL
    checks = 0.45 * _wave(x / step + u[:, 1, None, None], CHECK) * _wave(y / step + u[:, 2, None, None], CHECK)
    shade = torch.stack((gradient, checks, torch.zeros_like(grain)), 1)
    shade = shade.gather(1, grounds[:, None, None, None].expand(-1, 1, SIDE, SIDE))
    noise = GRAIN * grain * (grounds == GROUNDS.index("grain"))[:, None, None]
    return colour * (1 + shade) + noise[:, None]


def _colour(hue: Tensor, saturation: Tensor, value: Tensor) -> Tensor:
    """Return RGB [B, 3] in [0, 1] from hue (in turns), saturation and value [B]."""
    k = torch.remainder(torch.tensor([5.0, 3.0, 1.0], device=hue.device) + 6 * hue[:, None], 6)
    return value[:, None] * (1 - saturation[:, None] * torch.minimum(k, 4 - k).clamp(0, 1))
