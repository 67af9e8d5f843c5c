"""The progress of a run: bars on a terminal, plain lines elsewhere, only warnings if it is to be quiet."""

from __future__ import annotations

import importlib.util
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TextIO

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TaskProgressColumn, TimeRemainingColumn
from rich.table import Column
from rich.text import Text

from solverbench.bench.progress import Listener, Silent, duration
from solverbench.cli.terminal import Amount, in_notebook, moves, raw, stamp, width
from solverbench.wording import printable, wrapped

EVERY = 5.0
"""Seconds between two plain progress lines."""
EVERY_VERBOSE = 0.5
"""Seconds between two lines if everything is shown."""


class Pace:
    """Progress of a run: images and their rate, and the time left as the run expects it, less what passed since."""

    def __init__(self, images: int, calls: int, clock: Callable[[], float] = time.monotonic) -> None:
        self.images, self.calls = images, calls
        self.done_images = self.done_calls = 0
        self.shares: Mapping[str, int] = {}
        self.done = Counter[str]()
        self.clock = clock
        self.begun = self.seen = clock()
        self.ends: float | None = None

    def expect(self, seconds: float | None) -> None:
        """Set the seconds left; None if they are unknown."""
        self.ends = None if seconds is None else self.clock() + seconds

    def share(self, images: Mapping[str, int]) -> None:
        """Set the number of images of each cell."""
        self.shares = images

    def advance(self, cell: str, images: int, calls: int) -> None:
        """Count finished work of a cell; the time before the first images isn't theirs."""
        self.begun, self.seen = self.begun if self.done_images else self.seen, self.clock()
        self.done[cell] += images
        self.done_images += images
        self.done_calls += calls

    @property
    def rate(self) -> float:
        """Images per second since the first were begun."""
        return self.done_images / max(self.clock() - self.begun, 1e-9)

    @property
    def left(self) -> float | None:
        """Seconds left; None while they are unknown."""
        return None if self.ends is None else max(self.ends - self.clock(), 0.0)

    def of(self, cell: str) -> str:
        """Return a cell's own progress; its name alone if it has no images of its own."""
        if cell not in self.shares:
            return cell
        return f"{cell}: {min(self.done[cell], self.shares[cell])}/{self.shares[cell]} images"

    @property
    def text(self) -> str:
        """The images done and to do, their rate, and the time left; no images while a reference is measured."""
        images = f"{self.done_images}/{self.images} images, {self.rate:.0f}/s" if self.done_images else ""
        return ", ".join(filter(None, (images, "" if self.left is None else f"{duration(self.left)} left")))

    def __str__(self) -> str:
        """Return the progress of the whole run; as a share of the calls while there are no images."""
        share = "" if self.done_images else f"{self.done_calls / max(self.calls, 1):.0%} of the network calls"
        return f"whole run: {', '.join(filter(None, (share, self.text)))}"


def _expected(seconds: float | None) -> str:
    return "" if seconds is None else f", about {duration(seconds)}"


class Course:
    """Progress of training a cell: iterations, the last loss and validation error, and the time left."""

    def __init__(self, cell: str, clock: Callable[[], float] = time.monotonic) -> None:
        self.cell, self.clock = cell, clock
        self.first: tuple[int, float] | None = None
        self.error = ""
        self.text = ""

    def advance(self, iteration: int, iterations: int, loss: float, validation: float | None) -> None:
        """Record an iteration; those before the first one recorded belong to an earlier run."""
        now = self.clock()
        if self.first is None:
            self.first = iteration, now
        begun, since = self.first
        self.error = self.error if validation is None else f", validation {validation:.4g}"
        left = ""
        if iteration > begun:
            left = f", {duration((iterations - iteration) * (now - since) / (iteration - begun))} left"
        self.text = f"training {self.cell}: {iteration}/{iterations}, loss {loss:.4g}{self.error}{left}"

    def __str__(self) -> str:
        return self.text


class Lines:
    """Plain lines: one per settled cell, and the pace every few seconds.

    Args:
        stream: written and flushed line by line.
        every: seconds between two lines of pace.
        verbose: whether to list the work of each cell at the start, and to begin each line with the time since then.
    """

    def __init__(
        self,
        stream: TextIO,
        every: float = EVERY,
        clock: Callable[[], float] = time.monotonic,
        *,
        verbose: bool = False,
    ) -> None:
        self.stream, self.every, self.clock = stream, every, clock
        self.stamp = _Stamp(clock) if verbose else None
        self.pace = Pace(0, 0, clock)
        self.course = Course("", clock)
        self.last = clock()

    def learn(self, cell: str, iteration: int, iterations: int, loss: float, validation: float | None) -> None:
        """Print the training's progress, at intervals and at its end."""
        if self.course.cell != cell:
            self.course = Course(cell, self.clock)
        self.course.advance(iteration, iterations, loss, validation)
        if self.clock() - self.last >= self.every or iteration == iterations:
            self.last = self.clock()
            self._write(str(self.course))

    def begin(self, images: int, calls: int, seconds: float | None) -> None:
        """Print the amount of work, if there is any."""
        self.pace = Pace(images, calls, self.clock)
        self.pace.expect(seconds)
        self.last = self.clock()
        if images:
            self._write(f"to sample: {images} images{_expected(seconds)}")

    def share(self, images: Mapping[str, int]) -> None:
        """Record the number of images of each cell."""
        self.pace.share(images)
        if self.stamp is not None:
            for cell, count in images.items():
                self._write(f"to sample: {count} images of {cell}")

    def advance(self, cell: str, images: int, calls: int) -> None:
        """Print the cell's progress and the run's, at intervals."""
        self.pace.advance(cell, images, calls)
        if self.clock() - self.last >= self.every:
            self.last = self.clock()
            self._write(f"{self.pace.of(cell)}; {self.pace}")

    def expect(self, seconds: float) -> None:
        """Record the time left."""
        self.pace.expect(seconds)

    def settle(self, cell: str, status: str, detail: str) -> None:
        """Print a cell's status."""
        self._write(f"{cell}: {status}{detail and ', ' + detail}")

    def note(self, line: str) -> None:
        """Print the line."""
        self._write(line)

    def say(self, line: str) -> None:
        """Print the line."""
        self._write(line)

    def end(self) -> None:
        """Do nothing: lines leave nothing to remove."""

    def _write(self, line: str) -> None:
        text = f"{self.stamp or ''}{printable(line)}"
        self.stream.write("\n".join([*wrapped(text, width(self.stream)), ""]))
        self.stream.flush()


class _Stamp:
    """The time since the start, as the beginning of a line."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.clock, self.begun = clock, clock()

    def __str__(self) -> str:
        return stamp(self.begun, self.clock())


class Warnings(Silent):
    """The lines for the user alone, such as on damaged files; no progress."""

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream

    def note(self, line: str) -> None:
        """Print the line."""
        self.stream.write(printable(line) + "\n")
        self.stream.flush()


class _Whole(ProgressColumn):
    """A field of a task, never cut."""

    def __init__(self, field: str) -> None:
        super().__init__(Column(no_wrap=True))
        self.field = field

    def render(self, task: Task) -> Text:
        """Return the field's text."""
        return Text(str(task.fields[self.field]), no_wrap=True)


class _Cut(ProgressColumn):
    """A task's description, of which a narrow terminal shows the beginning; the only column that becomes narrower."""

    def __init__(self) -> None:
        super().__init__(Column(no_wrap=False, overflow="ellipsis"))

    def render(self, task: Task) -> Text:
        """Return the description."""
        return Text(task.description, no_wrap=True, overflow="ellipsis")


class Bar:
    """One bar over all images with rate and time left, a line per settled cell above it. For a terminal.

    Args:
        console: the console to draw on.
    """

    def __init__(self, console: Console) -> None:
        self.pace = Pace(0, 0)
        columns = BarColumn(12), TaskProgressColumn(), _Whole("pace"), _Cut()
        self.progress = Progress(*columns, console=console, transient=True)
        self.task = self.progress.add_task("", total=None, pace="", visible=False)
        self.course = Course("")
        self.training = self.progress.add_task("", total=None, pace="", visible=False)

    def learn(self, cell: str, iteration: int, iterations: int, loss: float, validation: float | None) -> None:
        """Move the training's bar, which disappears once it is full."""
        if self.course.cell != cell:
            self.course = Course(cell)
            self.progress.start()
        self.course.advance(iteration, iterations, loss, validation)
        head, _, pace = str(self.course).partition(": ")
        self.progress.update(
            self.training, completed=iteration, total=iterations, description=printable(head), pace=pace,
            visible=iteration < iterations,
        )  # fmt: skip

    def begin(self, images: int, calls: int, seconds: float | None) -> None:
        """Show the bar, if there is any work."""
        self.pace = Pace(images, calls)
        self.pace.expect(seconds)
        if images:
            self.progress.console.print(f"to sample: {images} images{_expected(seconds)}", highlight=False)
            self.progress.update(self.task, total=calls, visible=True)
            self.progress.start()

    def share(self, images: Mapping[str, int]) -> None:
        """Record the number of images of each cell."""
        self.pace.share(images)

    def advance(self, cell: str, images: int, calls: int) -> None:
        """Move the bar of the run, and show the cell's own progress beside it."""
        self.pace.advance(cell, images, calls)
        self.progress.update(self.task, advance=calls, description=printable(self.pace.of(cell)), pace=self.pace.text)

    def expect(self, seconds: float) -> None:
        """Record the time left."""
        self.pace.expect(seconds)

    def settle(self, cell: str, status: str, detail: str) -> None:
        """Print a cell's status above the bar."""
        self.note(f"{cell}: {status}{detail and ', ' + detail}")

    def note(self, line: str) -> None:
        """Print the line above the bar, in lines as wide as the terminal."""
        console = self.progress.console
        for each in wrapped(printable(line), console.width):
            console.print(each, markup=False, highlight=False, soft_wrap=True)

    def say(self, line: str) -> None:
        """Print the line above the bar."""
        self.note(line)

    def end(self) -> None:
        """Remove the bar."""
        self.progress.stop()


def _console(stream: TextIO | None) -> Console | None:
    """Return the console for bars: of a notebook or a terminal; None if neither can show them."""
    if stream is None and in_notebook() and importlib.util.find_spec("ipywidgets") is not None:
        return Console(force_jupyter=True)
    stream = stream or sys.stderr
    return Console(file=raw(stream)) if moves(stream) else None


@contextmanager
def display(stream: TextIO | None = None, amount: Amount = Amount.NORMAL) -> Iterator[Listener]:
    """Yield the display for the stream: a bar on a terminal or in a notebook, else plain lines; end it afterwards.

    Args:
        stream: stderr if None; a notebook's output, if it runs in one that has ipywidgets.
        amount: quiet shows warnings alone; verbose shows plain lines on a terminal, too, and more of them.
    """
    console, stream = _console(stream), stream or sys.stderr
    shown: Bar | Lines | Warnings
    if amount is Amount.QUIET:
        shown = Warnings(stream)
    elif amount is Amount.VERBOSE:
        shown = Lines(stream, EVERY_VERBOSE, verbose=True)
    else:
        shown = Lines(stream) if console is None else Bar(console)
    try:
        yield shown
    finally:
        shown.end()


@contextmanager
def training_display(
    label: str, stream: TextIO | None = None, amount: Amount = Amount.NORMAL
) -> Iterator[Callable[[int, int, float, float | None], None] | None]:
    """Yield the callback for each training iteration: (iteration, iterations, loss, validation error or None).

    Args:
        amount: quiet yields None; verbose prints a line for each iteration with a validation error.
    """
    console, stream, label = _console(stream), stream or sys.stderr, printable(label)
    if amount is Amount.QUIET:
        yield None
        return
    if amount is Amount.VERBOSE or console is None:
        yield _TrainingLines(label, stream, verbose=amount is Amount.VERBOSE)
        return
    columns = BarColumn(12), TaskProgressColumn(), TimeRemainingColumn(), _Cut()
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task(label)

        def show(iteration: int, total: int, loss: float, validation: float | None) -> None:
            progress.update(task, completed=iteration, total=total, description=f"{label}: loss {loss:.4g}")

        yield show


@contextmanager
def counted(
    what: str, stream: TextIO | None = None, amount: Amount = Amount.NORMAL, clock: Callable[[], float] = time.monotonic
) -> Iterator[Callable[[int, int], None] | None]:
    """Yield the callback for work that is counted, such as images: (how many are done, all of them).

    It moves a bar on a terminal, and elsewhere prints a line every few seconds.

    Args:
        what: what is counted.
        amount: quiet yields None; verbose prints lines on a terminal, too, and more of them.
    """
    console, stream = _console(stream), stream or sys.stderr
    if amount is Amount.QUIET:
        yield None
        return
    if amount is Amount.VERBOSE or console is None:
        yield _CountedLines(what, stream, clock, verbose=amount is Amount.VERBOSE)
        return
    columns = BarColumn(12), TaskProgressColumn(), TimeRemainingColumn(), _Cut()
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("")

        def show(done: int, total: int) -> None:
            progress.update(task, completed=done, total=total, description=f"{done}/{total} {what}")

        yield show


class _CountedLines:
    """Plain lines of counted work, at intervals, with the time left; see `counted`."""

    def __init__(self, what: str, stream: TextIO, clock: Callable[[], float], *, verbose: bool) -> None:
        self.what, self.stream, self.clock = what, stream, clock
        self.stamp = _Stamp(clock) if verbose else None
        self.every = EVERY_VERBOSE if verbose else EVERY
        self.begun = self.last = clock()

    def __call__(self, done: int, total: int) -> None:
        now = self.clock()
        if now - self.last >= self.every and done:
            self.last = now
            left = f", {duration((total - done) * (now - self.begun) / done)} left" if done < total else ""
            self.stream.write(f"{self.stamp or ''}{done}/{total} {self.what}{left}\n")
            self.stream.flush()


class _TrainingLines:
    """Plain lines of training progress, at intervals; if verbose, also for each validation."""

    def __init__(self, label: str, stream: TextIO, *, verbose: bool = False) -> None:
        self.label, self.stream = label, stream
        self.stamp = _Stamp() if verbose else None
        self.last = time.monotonic()
        self.first: tuple[int, float] | None = None

    def __call__(self, iteration: int, total: int, loss: float, validation: float | None) -> None:
        now = time.monotonic()
        self.first = self.first or (iteration, now)
        told = self.stamp is not None and validation is not None
        if told or now - self.last >= EVERY or iteration == total:
            self.last = now
            seen = "" if validation is None else f", validation {validation:.4g}"
            done = iteration - self.first[0]
            left = (total - iteration) * (now - self.first[1]) / done if done else 0
            seen += f", {duration(left)} left" if iteration < total and done else ""
            self.stream.write(f"{self.stamp or ''}{self.label}: {iteration}/{total}, loss {loss:.4g}{seen}\n")
            self.stream.flush()
