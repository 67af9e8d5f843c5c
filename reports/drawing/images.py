"""A grid of sample images: solvers as rows, NFE as columns, the same seeds everywhere.

The teacher's many-step samples are the first row, across all columns. Small images are enlarged by an integer factor.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from solverbench.reports.drawing.base import Drawing, blank, settings

_PIXELS = 200  # per inch
_WIDTH = 6.75 * _PIXELS  # target width of the grid in pixels
_FACE = 22  # font size of labels in pixels
_LETTER = 14  # width of a label's character in pixels
_LARGE, _SMALL = 72, 40  # largest and smallest side of an enlarged image in pixels
_VOID = 235  # grey of a cell without images
_GAP = 10  # pixels between cells
FAR = 64
"""Smallest difference, in grey levels, that is drawn white."""


@dataclass(frozen=True)
class Grid:
    """Blocks of images by (row, column) with their labels.

    `taught` says that the first row is the teacher's own; `note` is printed below.
    """

    rows: Sequence[str]
    columns: Sequence[str]
    blocks: Mapping[tuple[int, int], np.ndarray]
    marks: Mapping[tuple[int, int], str]
    taught: bool
    note: str = ""


def differences(layout: Grid) -> Grid:
    """Return the grid with each solver's images replaced by their distance from the teacher's.

    The mean over channels of the absolute difference of grey levels, from black (none) to white (`FAR` or more).
    """
    goals = {j: block for (i, j), block in layout.blocks.items() if i == 0}
    blocks = {
        (i, j): block if i == 0 else _difference(block, goals[j])
        for (i, j), block in layout.blocks.items()
        if i == 0 or block.shape[1:] == goals[j].shape[1:]
    }
    note = f"mean absolute difference from the teacher's image: black 0, white {FAR} of 255 or more"
    return replace(layout, blocks=blocks, note=note)


def _difference(block: np.ndarray, goal: np.ndarray) -> np.ndarray:
    """Return the differences of the first k images of both as colours, [k, 3, H, W] uint8."""
    count = min(len(block), len(goal))
    apart = np.abs(block[:count].astype(int) - goal[:count].astype(int)).mean(axis=1)
    shades = matplotlib.colormaps["inferno"](np.minimum(apart / FAR, 1.0), bytes=True)[..., :3]
    shades[apart >= FAR] = 255
    return np.ascontiguousarray(shades.transpose(0, 3, 1, 2))


def draw(data: pd.DataFrame, figure: Mapping[str, Any], stored: Mapping[str, np.ndarray]) -> Drawing:
    """Return the grid as a matplotlib Figure, pixel for pixel.

    Args:
        data: the rows of its CSV: row, column, key in `stored`, and what is missing where there is no key.
        figure: the labels of `rows` and `columns`; `taught`: the first row is the teacher's own; `differences`: the
            other rows show the distance from it instead of the images.
        stored: batches of images, uint8 [k, C, H, W]; those of images.npz.
    """
    blocks, marks = dict[tuple[int, int], np.ndarray](), dict[tuple[int, int], str]()
    for row, column, key, mark in zip(data["row"], data["column"], data["key"], data["missing"], strict=True):
        if isinstance(key, str) and key:
            blocks[int(row), int(column)] = stored[key]
        else:
            marks[int(row), int(column)] = str(mark)
    layout = Grid(figure["rows"], figure["columns"], blocks, marks, figure["taught"])
    return draw_grid(differences(layout) if figure["differences"] else layout)


def draw_grid(layout: Grid) -> Drawing:
    """Return the grid as a matplotlib Figure, pixel for pixel."""
    told = arrangement(layout)
    width, height = told["width"], told["height"]
    across, down, zoom, cell = told["across"], told["down"], told["zoom"], np.array(told["cell"])
    corners = told["corners"]
    canvas = np.full((height, width, 3), 255, dtype=np.uint8)
    for place, (y, x) in corners.items():
        if place in layout.blocks:
            canvas[y : y + cell[0], x : x + cell[1]] = _block(layout.blocks[place], across, down, zoom, cell)
        else:
            canvas[y : y + cell[0], x : x + cell[1]] = _VOID
    with settings():
        figure = blank(width / _PIXELS, height / _PIXELS, _PIXELS)
        figure.figimage(canvas, 0, 0, origin="upper")
        _write(figure, layout, corners, (int(cell[0]), int(cell[1])))
        if layout.note:
            figure.text(corners[0, 0][1] / width, 16 / height, layout.note, fontsize=18 * 72 / _PIXELS, va="center")
    return figure


def arrangement(layout: Grid) -> dict[str, Any]:
    """Return the layout in pixels from the upper left: width, height, cell (height, width), corners by (row, column).

    It also has the number of images across and down in a block, and the integer factor by which they are enlarged.
    """
    batches = list(layout.blocks.values())
    shape = np.max([batch.shape[2:] for batch in batches], axis=0)
    count = min(len(batch) for batch in batches)
    across, down, zoom = _arrange(count, int(max(shape)), len(layout.columns))
    cell = (int(shape[0]) * zoom + 1) * down - 1, (int(shape[1]) * zoom + 1) * across - 1
    left, top = 16 + _LETTER * max(len(line) for row in layout.rows for line in row.split("\n")), 40
    rows, columns = len(layout.rows), len(layout.columns)
    corners = {
        (i, j): (top + i * (cell[0] + _GAP), left + j * (cell[1] + _GAP)) for i in range(rows) for j in range(columns)
    }
    return {
        "width": left + columns * (cell[1] + _GAP) + _GAP, "across": across, "down": down, "zoom": zoom, "cell": cell,
        "height": top + rows * (cell[0] + _GAP) + _GAP + (30 if layout.note else 0), "corners": corners,
    }  # fmt: skip


def _arrange(count: int, side: int, columns: int) -> tuple[int, int, int]:
    """Return the images across and down in a block, and the integer enlargement factor that fills a page's width."""
    room = (_WIDTH - 200) / columns
    smallest = max(1, -(-_SMALL // side)) * side
    down = 2 if columns > 3 and count > 1 else 1
    across = int(max(1, min(count // down, 8, room // smallest)))
    return across, down, max(1, min(_LARGE // side, int(room / across / side)))


def _block(batch: np.ndarray, across: int, down: int, zoom: int, cell: np.ndarray) -> np.ndarray:
    """Return the first across*down images as one array, nearest-neighbour enlarged, one white pixel between them."""
    block = np.full((*cell, 3), 255, dtype=np.uint8)
    high, wide = batch.shape[2] * zoom, batch.shape[3] * zoom
    for k, image in enumerate(batch[: across * down]):
        y, x = k // across * (high + 1), k % across * (wide + 1)
        large = image.transpose(1, 2, 0).repeat(zoom, axis=0).repeat(zoom, axis=1)
        block[y : y + high, x : x + wide] = large  # one grey channel becomes three by broadcasting
    return block


def _write(
    figure: Figure, layout: Grid, corners: Mapping[tuple[int, int], tuple[int, int]], cell: tuple[int, int]
) -> None:
    """Write row names at the left, column names above, and the status in each cell without images."""
    width, height = figure.get_size_inches() * _PIXELS

    def text(x: float, y: float, words: str, side: str, room: float = math.inf) -> None:
        lines = words.split("\n")
        wide = max(len(line) for line in lines) * _LETTER
        size = _FACE * min(1.0, room / wide, cell[0] * 1.1 / (len(lines) * 1.15 * _FACE)) * 72 / _PIXELS
        figure.text(x / width, 1 - y / height, words, fontsize=size, ha=side, va="center", linespacing=1.05)

    for j, name in enumerate(layout.columns):
        text(corners[0, j][1] + cell[1] / 2, corners[0, j][0] - 18, name, "center")
    for i, name in enumerate(layout.rows):
        text(corners[i, 0][1] - 10, corners[i, 0][0] + cell[0] / 2, name, "right")
    for place, mark in layout.marks.items():
        words = mark if len(mark) * _LETTER < cell[1] else mark.replace(" ", "\n")
        text(corners[place][1] + cell[1] / 2, corners[place][0] + cell[0] / 2, words, "center", cell[1])
