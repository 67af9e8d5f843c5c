"""Who does the units of a run; here, threads of this process, on every visible GPU in turn."""

from __future__ import annotations

import dataclasses
import queue
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol, Self

import torch

from solverbench.bench.block import BlockDone, UnitTask
from solverbench.errors import UserError
from solverbench.evaluation.selection import Measurement
from solverbench.sampling.devices import worker_count
from solverbench.teachers.teacher import Teacher


class Workers(Protocol):
    """Workers. `run` is called from as many threads at once as it says.

    Attributes:
        size: units that are under way at once.
    """

    size: int

    def __enter__(self) -> Self:
        """Get ready."""

    def __exit__(self, *error: object) -> None:
        """Let go of what was taken."""

    def run(self, work: UnitTask) -> list[BlockDone | Exception]:
        """Return what `work()` gives."""


class LocalWorkers:
    """Threads of this process: one per core on a CPU, one per device on GPUs.

    Args:
        device: cpu, cuda (all that are visible, in turn) or cuda:0.
        workers: threads; as above if None.

    Raises:
        UserError: fewer workers than one.
    """

    def __init__(self, device: str, workers: int | None = None) -> None:
        if workers is not None and workers < 1:
            raise UserError(f"workers {workers}: at least one is needed; leave it out for one per core or GPU")
        self.devices = devices(device)
        self.size = workers or (len(self.devices) if self.devices[0] != "cpu" else worker_count(device))
        self._free: queue.SimpleQueue[str] = queue.SimpleQueue()
        for place in range(self.size):
            self._free.put(self.devices[place % len(self.devices)])
        self._copies: dict[tuple[Teacher, str], tuple[Teacher, Measurement]] = {}
        self._copying = threading.Lock()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def run(self, work: UnitTask) -> list[BlockDone | Exception]:
        """Return what `work()` gives, done on a device that is free."""
        with self._device() as device:
            if device == self.devices[0]:
                return work()
            teacher, measurement = self._copy(work, device)
            cells = [dataclasses.replace(each, teacher=teacher, measurement=measurement) for each in work.cells]
            return dataclasses.replace(work, cells=cells)()

    @contextmanager
    def _device(self) -> Iterator[str]:
        device = self._free.get()
        try:
            yield device
        finally:
            self._free.put(device)

    def _copy(self, work: UnitTask, device: str) -> tuple[Teacher, Measurement]:
        """The work's teacher on another device, and what measures it there, made once."""
        cell = work.cells[0]
        with self._copying:
            if (cell.teacher, device) not in self._copies:
                copy, protocol = cell.teacher.to(device), cell.protocol
                measurement = protocol.judging.of_teacher(copy, protocol.samples, protocol.block, work.out)
                self._copies[cell.teacher, device] = copy, measurement
            return self._copies[cell.teacher, device]


def devices(device: str) -> list[str]:
    """Return the devices that `device` stands for: every visible GPU if it is cuda without a number."""
    if device != "cuda" or torch.cuda.device_count() < 2:
        return [device]
    return ["cuda", *(f"cuda:{k}" for k in range(1, torch.cuda.device_count()))]
