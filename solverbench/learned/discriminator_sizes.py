"""Sizes of a discriminator: which fit an image, and those that are chosen for a recipe that gives none."""

from __future__ import annotations

LEAST, MOST = 2, 8  # range of the side in the last stage, which its depthwise kernel covers; 4 in R3GAN's networks
MIDDLE = 32
"""Side up to which a stage of R3GAN's networks has its full width."""
FULL, GROUP = 768, 8
"""That width, and the channels in a group of its convolutions. Source: R3GAN, arXiv:2501.05441, public code."""


def halved(size: tuple[int, int], stages: int) -> tuple[int, int]:
    """Return height and width in the last of so many stages."""
    return size[0] >> max(stages - 1, 0), size[1] >> max(stages - 1, 0)


def fits(size: tuple[int, int], stages: int) -> bool:
    """Return whether both sides in the last stage are in range."""
    height, width = halved(size, stages)
    return min(height, width) >= LEAST and max(height, width) <= MOST


def fitting(size: tuple[int, int]) -> int | None:
    """Return the number of stages that fits an image best, with a last one of about 4 x 4; None if none fits."""
    there = [count for count in range(1, max(size).bit_length() + 1) if fits(size, count)]
    near = max((min(size) // 4).bit_length(), 1)
    return min(there, key=lambda count: abs(count - near)) if there else None


def chosen(size: tuple[int, int]) -> tuple[tuple[int, ...], tuple[int, ...]] | None:
    """Return widths and cardinalities for images of a size, as in R3GAN's networks; None if no network fits.

    A stage of side r has 768 channels up to r = 32, and 768 * 32/r above: 384 at 64, 192 at 128, 96 at 256. Networks
    of smaller images are proportionally narrower, 24 channels for each pixel of the longer side, for training on a CPU
    (not published).
    """
    stages = fitting(size)
    if stages is None:
        return None
    longer = max(size)
    sides = [longer >> k for k in range(stages)]
    top = FULL * min(longer, MIDDLE) // MIDDLE
    widths = [max(top * MIDDLE // max(side, MIDDLE) // GROUP, 1) * GROUP for side in sides]
    return tuple(widths), tuple(width // GROUP for width in widths)
