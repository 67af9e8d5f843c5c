"""Progress of a run: the listener interface, a silent listener, and the wording of durations."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol


class Listener(Protocol):
    """Callbacks of a run, always called from the thread that called `run`."""

    def learn(self, cell: str, iteration: int, iterations: int, loss: float, validation: float | None) -> None:
        """Report iterations of a training for `cell`, before the sampling starts; may raise to interrupt."""

    def begin(self, images: int, calls: int, seconds: float | None) -> None:
        """Report that sampling starts.

        Args:
            images: number of images to sample.
            calls: denoiser calls times images, including the teacher's own samples.
            seconds: estimated time; None if unknown.
        """

    def share(self, images: Mapping[str, int]) -> None:
        """Report, after `begin`, the number of images to sample of each cell that has any."""

    def advance(self, cell: str, images: int, calls: int) -> None:
        """Report images of `cell` that are done or dropped, and the new denoiser calls (times images) for them."""

    def expect(self, seconds: float) -> None:
        """Report, now and then after `begin`, the estimated seconds until the run ends and its report is drawn."""

    def settle(self, cell: str, status: str, detail: str) -> None:
        """Report a cell's status; `detail` is its metrics or its reason."""

    def note(self, line: str) -> None:
        """Report a line for the user, on a damaged file, a run to wait for, or a metric that can't be measured."""

    def say(self, line: str) -> None:
        """Report a line about the work that warns of nothing: a search that begins, a file that is reused."""

    def end(self) -> None:
        """Report the end of the run."""


class Silent:
    """A listener that ignores everything."""

    def learn(self, cell: str, iteration: int, iterations: int, loss: float, validation: float | None) -> None:
        """Ignore the event."""

    def begin(self, images: int, calls: int, seconds: float | None) -> None:
        """Ignore the event."""

    def share(self, images: Mapping[str, int]) -> None:
        """Ignore the event."""

    def advance(self, cell: str, images: int, calls: int) -> None:
        """Ignore the event."""

    def expect(self, seconds: float) -> None:
        """Ignore the event."""

    def settle(self, cell: str, status: str, detail: str) -> None:
        """Ignore the event."""

    def note(self, line: str) -> None:
        """Ignore the event."""

    def say(self, line: str) -> None:
        """Ignore the event."""

    def end(self) -> None:
        """Ignore the event."""


def duration(seconds: float) -> str:
    """Return seconds as human-readable text: `< 1 s`, `45 s`, `3 min 20 s`, `2 h 05 min`."""
    whole = round(seconds)
    if whole < 1 and seconds > 0:
        return "< 1 s"
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
