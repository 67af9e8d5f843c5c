"""The fastest batch size of a network on this machine, measured once and cached in the results folder."""

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
"""Minimum speed-up per image for which a doubled batch is preferred."""


def chosen(teachers: Sequence[Teacher], most: int, out: Path, *, keep: bool, say: Callable[[str], None]) -> int:
    """Return the batch size of a run of these teachers: the smallest of their fastest batch sizes.

    The batch size is part of every cell's key, because it can change the last bits. It is cached in the results folder
    for each network and device, so that a later run there asks for the same cells.

    Args:
        most: upper limit, the images of a block.
        keep: whether to write the measured batch sizes to the results folder.
        say: callback for a human-readable line.

    Raises:
        RecordError: the cached file is damaged.
    """
    path = out / FILE
    known: dict[str, int] = files.read_json(path) if path.is_file() else {}
    if not all(type(count) is int and count > 0 for count in known.values()):
        raise RecordError(asked=path, wrong="damaged", remedy="delete it, and --batch auto measures again")
    for label, teacher in (found := {_label(teacher): teacher for teacher in teachers}).items():
        if label not in known:
            try:
                known[label] = fastest(teacher, most)
            except Exception:  # the cells raise the same error and report it
                return min(BATCH, most)
            say(f"batch of {teacher.shown}: {known[label]} images per call, as measured here")
            if keep:
                files.write_json(path, known)
    return min(most, *(known[label] for label in found))


def fastest(teacher: Teacher, most: int) -> int:
    """Return the batch size at which doubling makes a call less than 5 % faster per image, or exceeds the memory.

    Args:
        most: upper limit, in images.
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
    """Return the network, arithmetic and device, on which the speed depends."""
    return f"{teacher.ode} {teacher.arithmetic} {device_name(teacher.device)}"


def _fitted(
    protocol: Protocol, wanted: list[Cell], out: Path, say: Callable[[str], None] | None
) -> tuple[Protocol, list[Cell]]:
    """Return protocol and cells with the fastest batch size; cache it in `out` if `say` is given."""
    keep, tell = say is not None, say or (lambda line: None)
    found = chosen(teachers_of(wanted), protocol.block, out, keep=keep, say=tell)
    fitted = replace(protocol, batch=found)
    return fitted, [replace(cell, protocol=fitted) for cell in wanted]
