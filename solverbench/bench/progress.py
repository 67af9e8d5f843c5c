"""TODO."""

from __future__ import annotations

from typing import Protocol


class Listener(Protocol):
    """What a run calls, always from the thread that called `run`."""

    def learn(self, cell: str, iteration: int, iterations: int, loss: float, validation: float | None) -> None:
        """A training for `cell`, before the work starts, has made so many of its iterations; may raise to interrupt."""

    def begin(self, images: int, calls: int, seconds: float | None) -> None:
        """Work starts: so many images, costing so many denoiser calls (times images), the teacher's own included.

        `seconds` is what that will take, where it can be told.
        """

    def advance(self, cell: str, images: int, calls: int) -> None:
        """So many images of `cell` are done, or dropped, and so many calls were made for them first."""

    def settle(self, cell: str, status: str, detail: str) -> None:
        """A cell has got its status; `detail` is its metrics or its reason."""

    def note(self, line: str) -> None:
        """Something that people should know: what is damaged, whom the run waits for, or what won't be measured."""

    def end(self) -> None:
        """Nothing more comes."""


class Silent:
    """Shows nothing."""

    def learn(self, cell: str, iteration: int, iterations: int, loss: float, validation: float | None) -> None:
        """Nothing."""

    def begin(self, images: int, calls: int, seconds: float | None) -> None:
        """Nothing."""

    def advance(self, cell: str, images: int, calls: int) -> None:
        """Nothing."""

    def settle(self, cell: str, status: str, detail: str) -> None:
        """Nothing."""

    def note(self, line: str) -> None:
        """Nothing."""

    def end(self) -> None:
        """Nothing."""


def duration(seconds: float) -> str:
    """Return seconds as people say them: `45 s`, `3 min 20 s`, `2 h 05 min`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
