"""Local workers: threads of this process, one per core or GPU."""

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
    """The interface of workers; `run` is called from up to `size` threads at once.

    Attributes:
        size: number of units computed at the same time.
    """

    size: int

    def __enter__(self) -> Self:
        """Acquire the workers."""

    def __exit__(self, *error: object) -> None:
        """Release the workers."""

    def run(self, work: UnitTask) -> list[BlockDone | Exception]:
        """Return the result of `work()`."""


class LocalWorkers:
    """Threads of this process: one per core on a CPU, one per device on GPUs.

    Args:
        device: cpu, cuda (all visible GPUs, in turn) or cuda:0.
        workers: number of threads; one per core or GPU if None.

    Raises:
        UserError: fewer than one worker.
    """

    def __init__(self, device: str, workers: int | None = None) -> None:
        if workers is not None and workers < 1:
            raise UserError(
                asked=f"workers {workers}",
                wrong="at least one is needed",
                remedy="leave it out for one per core or GPU",
            )
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
        """Return the result of `work()`, computed on a free device."""
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
        """Return the work's teacher and its measurement on another device; created once per device."""
        cell = work.cells[0]
        with self._copying:
            if (cell.teacher, device) not in self._copies:
                copy, protocol = cell.teacher.to(device), cell.protocol
                measurement = protocol.judging.of_teacher(copy, protocol.samples, protocol.block, work.out)
                self._copies[cell.teacher, device] = copy, measurement
            return self._copies[cell.teacher, device]


def devices(device: str) -> list[str]:
    """Return the devices named by `device`: every visible GPU for cuda without a number."""
    if device != "cuda" or torch.cuda.device_count() < 2:
        return [device]
    return ["cuda", *(f"cuda:{k}" for k in range(1, torch.cuda.device_count()))]
