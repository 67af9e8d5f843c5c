"""Devices: worker pools, worker counts, peak memory, device names and checks."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import torch

from solverbench.errors import MissingError, UserError

THREADS = 1
"""Torch threads per worker. The last bits of a matrix product depend on it, so it is fixed and part of every key."""


@contextmanager
def pool(count: int) -> Iterator[ThreadPoolExecutor]:
    """Yield a pool of `count` threads with `THREADS` torch threads each; restore the caller's number at the end."""
    before = torch.get_num_threads()
    try:
        threads = ThreadPoolExecutor(count, "solverbench", initializer=torch.set_num_threads, initargs=(THREADS,))
        try:
            yield threads
        finally:
            threads.shutdown(wait=True, cancel_futures=True)
    finally:
        torch.set_num_threads(before)


def worker_count(device: str) -> int:
    """Return the number of workers for `device`: one per usable core on a CPU, else one."""
    if torch.device(device).type != "cpu":
        return 1
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def peak_memory(device: str | torch.device) -> int:
    """Return the peak memory in bytes: of torch on a CUDA device, else of this process; 0 where unknown."""
    if torch.device(device).type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    if sys.platform == "win32":
        return 0
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def device_name(device: str | torch.device) -> str:
    """Return the name of a CUDA device, such as `NVIDIA H200`; else `cpu`."""
    return torch.cuda.get_device_name(device) if torch.device(device).type == "cuda" else "cpu"


def check_device(device: str) -> str:
    """Return `device` if it can be used.

    Raises:
        UserError: the kind of device is not supported.
        MissingError: this machine does not have the device.
    """
    try:
        kind = torch.device(device).type
    except RuntimeError:
        kind = ""
    if kind not in ("cpu", "cuda"):
        raise UserError(asked=f"device {device!r}", wrong="not a device", remedy="use cpu, cuda or cuda:0")
    if kind == "cuda" and (torch.device(device).index or 0) >= torch.cuda.device_count():
        raise MissingError(
            asked=f"device {device!r}", wrong=f"torch sees {torch.cuda.device_count()} CUDA devices", remedy="use cpu"
        )
    return device
