"""TODO."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import torch

from solverbench.errors import MissingError, UserError

THREADS = 1
"""Torch threads of a worker: the last bits of a matrix product depend on it, so that it is fixed and in every key."""


@contextmanager
def pool(count: int) -> Iterator[ThreadPoolExecutor]:
    """Yield a pool of `count` threads with `THREADS` torch threads each; the caller's own number is left as it was."""
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
    """Return how many workers serve `device`: one per usable core on a CPU, else one."""
    if torch.device(device).type != "cpu":
        return 1
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def peak_memory(device: str | torch.device) -> int:
    """Return the most bytes held: by torch on a CUDA device, else by this process; 0 where the system doesn't say."""
    if torch.device(device).type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    if sys.platform == "win32":
        return 0
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def device_name(device: str | torch.device) -> str:
    """Return what a CUDA device is called, such as `NVIDIA H200`; else `cpu`."""
    return torch.cuda.get_device_name(device) if torch.device(device).type == "cuda" else "cpu"


def check_device(device: str) -> str:
    """Return `device` if it can be used.

    Raises:
        UserError: no such kind of device.
        MissingError: this machine hasn't got it.
    """
    try:
        kind = torch.device(device).type
    except RuntimeError:
        kind = ""
    if kind not in ("cpu", "cuda"):
        raise UserError(f"device {device!r}: not a device; use cpu, cuda or cuda:0")
    if kind == "cuda" and (torch.device(device).index or 0) >= torch.cuda.device_count():
        raise MissingError(f"device {device!r}: torch sees {torch.cuda.device_count()} CUDA devices; use cpu")
    return device
