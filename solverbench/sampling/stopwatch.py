"""Time spent in denoisers, by purpose."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Hashable, Mapping
from functools import partial

import torch
from torch import Tensor


class Stopwatch:
    """A sum of the seconds spent in the watched denoisers, by purpose.

    Args:
        device: device of the images; on CUDA, device time is measured.
    """

    def __init__(self, device: str) -> None:
        self.cuda = torch.device(device).type == "cuda"
        self.now: Hashable = None
        """Purpose of the calls from now on."""
        self._spent: defaultdict[Hashable, float] = defaultdict(float)
        self._events: list[tuple[Hashable, torch.cuda.Event, torch.cuda.Event]] = []

    def watched(self, denoise: Callable[[Tensor, Tensor], Tensor]) -> Callable[[Tensor, Tensor], Tensor]:
        """Return `denoise` with each call timed."""
        return partial(self._time, denoise)

    def _time(self, denoise: Callable[[Tensor, Tensor], Tensor], x: Tensor, sigma: Tensor) -> Tensor:
        if self.cuda:
            begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
            begin.record()
            d = denoise(x, sigma)
            end.record()
            self._events.append((self.now, begin, end))
            return d
        begun = time.perf_counter()
        d = denoise(x, sigma)
        self._spent[self.now] += time.perf_counter() - begun
        return d

    @property
    def seconds(self) -> float:
        """Total seconds so far; on CUDA, reading it waits for the device."""
        return sum(self.parts.values())

    @property
    def parts(self) -> Mapping[Hashable, float]:
        """Seconds so far by purpose; on CUDA, reading it waits for the device."""
        if self._events:
            torch.cuda.synchronize()
            for spent_for, begin, end in self._events:
                self._spent[spent_for] += begin.elapsed_time(end) / 1000
            self._events.clear()
        return self._spent
