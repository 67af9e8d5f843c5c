"""How many images a call of the network takes at best on this machine: tried once, then kept beside the results."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import torch

from solverbench import files
from solverbench.bench import estimates
from solverbench.bench.cells import Cell, teachers_of
from solverbench.bench.protocol import Protocol
from solverbench.errors import RecordError
from solverbench.sampling.devices import device_name
from solverbench.sampling.sample import BATCH
from solverbench.teachers.teacher import Teacher

FILE = "batches.json"
_LEAST = 32
_GAIN = 1.05
"""Doubling a batch must make the calls this many times as fast for an image, or the smaller one is kept."""


def chosen(teachers: Sequence[Teacher], most: int, out: Path, *, keep: bool, say: Callable[[str], None]) -> int:
    """Return how many images a call takes in a run of these teachers: as many as the one takes that wants fewest.

    The batch is part of every cell's key, because it can change last bits: what was found is kept in the results
    folder for each network and device, so that another run there means the same cells.

    Args:
        most: images that any batch can have: those of a block.
        keep: write what was found.
        say: takes a line for people.

    Raises:
        RecordError: what is kept there is damaged.
    """
    path = out / FILE
    known: dict[str, int] = files.read_json(path) if path.is_file() else {}
    if not all(type(count) is int and count > 0 for count in known.values()):
        raise RecordError(f"{path}: damaged; remove it, and --batch auto tries again")
    for label, teacher in (found := {_label(teacher): teacher for teacher in teachers}).items():
        if label not in known:
            try:
                known[label] = fastest(teacher, most)
            except Exception:  # its cells will meet the same error again, and say so
                return min(BATCH, most)
            say(f"batch of {teacher.name}: {known[label]} images a call, found by trying")
            if keep:
                files.write_json(path, known)
    return min(most, *(known[label] for label in found))


def fastest(teacher: Teacher, most: int) -> int:
    """Return the images of a call from which on twice as many are less than a twentieth faster, or don't fit.

    Args:
        most: the answer is no larger.
    """
    size, pace = min(_LEAST, most), 0.0
    while True:
        try:
            seconds = estimates.probe(teacher, size)
        except torch.OutOfMemoryError:
            torch.cuda.empty_cache()
            return max(size // 2, 1)
        if pace and seconds * _GAIN > pace:
            return size // 2
        if 2 * size > most:
            return size
        size, pace = 2 * size, seconds


def _label(teacher: Teacher) -> str:
    """Names the network, what it runs on and how it counts: what its speed depends on."""
    return f"{teacher.ode} {teacher.arithmetic} {device_name(teacher.device)}"


def _fitted(
    protocol: Protocol, wanted: list[Cell], out: Path, say: Callable[[str], None] | None
) -> tuple[Protocol, list[Cell]]:
    """Protocol and cells with the batch that fits their teachers here; kept in `out` if somebody is told."""
    keep, tell = say is not None, say or (lambda line: None)
    found = chosen(teachers_of(wanted), protocol.block, out, keep=keep, say=tell)
    fitted = replace(protocol, batch=found)
    return fitted, [replace(cell, protocol=fitted) for cell in wanted]
