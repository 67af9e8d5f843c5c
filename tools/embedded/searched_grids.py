"""Search the grids that ship for the embedded teachers: python tools/embedded/searched_grids.py FOLDER [TEACHER ...].

FOLDER gets <teacher>/grid-*.json, to be copied to registries/zoo. What is there already is kept.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import torch

from solverbench.learned.searches import search
from solverbench.method.spec import make
from solverbench.method.tracing import own_grid
from solverbench.teachers.loading import load_teacher

GRIDS = ("gits", "gits:discount=1.0", "oss", "dmn")
STEPS = range(2, 11)


def main(folder: Path, names: list[str]) -> None:
    """Search all grids on the named teachers, largest number of steps first, as that finds the smaller ones."""
    torch.set_num_threads(1)
    for name in names:
        known = search.searching(load_teacher(name), folder).schedule
        for grid in GRIDS:
            for steps in reversed(STEPS):
                begun = time.monotonic()
                found = own_grid(make(f"euler:grid={grid}"), known, steps).sigmas.tolist()
                told = " ".join(f"{level:.4g}" for level in found)
                print(f"{name} {grid} {steps}: {told} ({time.monotonic() - begun:.1f} s)", flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:] or ["digits", "mixture", "shapes"])
