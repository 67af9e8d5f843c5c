"""Progress: rate and time left from finished work; plain lines off a terminal, a bar on one, more or less if asked."""

import io

import pytest
from rich.console import Console

from solverbench.bench.progress import duration
from solverbench.cli.progress import Bar, Lines, Pace, counted, display, training_display
from solverbench.cli.terminal import Amount
from solverbench.wording import wrapped


class Clock:
    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


def test_the_time_left_is_what_the_run_expects_less_what_passed_since():
    clock = Clock()
    pace = Pace(images=100, calls=1000, clock=clock)
    assert pace.left is None
    clock.now += 10
    pace.advance("dpm", images=50, calls=200)
    assert pace.rate == 5
    pace.expect(50)
    clock.now += 10
    assert pace.left == 40
    assert str(pace) == "whole run: 50/100 images, 2/s, 40 s left"


def test_while_a_reference_is_made_no_image_is_counted_and_the_rate_begins_after_it():
    clock = Clock()
    pace = Pace(images=100, calls=1000, clock=clock)
    clock.now += 30
    pace.advance("reference of toy", images=0, calls=200)
    pace.expect(50)
    assert str(pace) == "whole run: 20% of the network calls, 50 s left"
    clock.now += 10
    pace.advance("dpm", images=50, calls=200)
    assert str(pace) == "whole run: 50/100 images, 5/s, 40 s left"


def test_plain_lines_come_now_and_then_and_for_every_cell():
    clock, stream = Clock(), io.StringIO()
    lines = Lines(stream, every=5, clock=clock)
    lines.begin(100, 1100, 90.0)
    lines.share({"dpm nfe=3 on toy": 80, "unipc nfe=3 on toy": 20})
    for i in range(10):
        clock.now += 1
        lines.expect(11 - i)
        lines.advance("unipc nfe=3 on toy" if i < 2 else "dpm nfe=3 on toy", 10, 100)
    clock.now += 5
    lines.advance("the reference of toy", 0, 100)
    lines.settle("dpm nfe=3 on toy", "done", "rmse_teacher 0.1 ± 0.01")
    lines.settle("gs nfe=3 on toy", "unsupported", "")
    lines.end()
    assert stream.getvalue().splitlines() == [
        "to sample: 100 images, about 1 min 30 s",
        "dpm nfe=3 on toy: 30/80 images; whole run: 50/100 images, 10/s, 7 s left",
        "dpm nfe=3 on toy: 80/80 images; whole run: 100/100 images, 10/s, 2 s left",
        "the reference of toy; whole run: 100/100 images, 7/s, 0 s left",
        "dpm nfe=3 on toy: done, rmse_teacher 0.1 ± 0.01",
        "gs nfe=3 on toy: unsupported",
    ]


def test_a_stream_that_is_no_terminal_gets_plain_lines():
    stream = io.StringIO()
    with display(stream) as shown:
        assert isinstance(shown, Lines)
        shown.begin(10, 30, None)
    with training_display("gs nfe=4", stream) as report:
        report(1, 5, 0.5, None)
        report(5, 5, 0.25, 0.125)
    assert stream.getvalue().splitlines() == ["to sample: 10 images", "gs nfe=4: 5/5, loss 0.25, validation 0.125"]


def test_the_bar_shows_cells_and_pace_on_a_terminal():
    stream = io.StringIO()
    bar = Bar(Console(file=stream, force_terminal=True, width=120))
    bar.begin(100, 1000, None)
    bar.share({"dpm nfe=3 on toy": 60})
    bar.advance("dpm nfe=3 on toy", 50, 500)
    bar.settle("dpm nfe=3 on toy", "done", "[bold] rmse 0.1")
    bar.end()
    assert "dpm nfe=3 on toy: done, [bold] rmse 0.1" in stream.getvalue()
    assert "50/100 images" in stream.getvalue()
    assert "dpm nfe=3 on toy: 50/60 images" in stream.getvalue()


def test_on_a_narrow_terminal_the_time_left_stays_and_a_long_name_is_cut():
    stream, clock = io.StringIO(), Clock()
    bar = Bar(Console(file=stream, force_terminal=True, width=80, no_color=True))
    bar.begin(30_000, 90_000, None)
    bar.pace = Pace(30_000, 90_000, clock)
    clock.now += 60
    bar.expect(29 * 60)
    bar.advance("unipc:order=3:variant=bh1:prediction=noise:grid=polynomial nfe=3 on digits", 1000, 3000)
    bar.end()
    line = next(line for line in stream.getvalue().replace("\r", "\n").split("\n") if "unipc" in line)
    assert " 1000/30000 images, 17/s, 29 min 00 s left unipc:order=3" in line
    assert line.rstrip().endswith("…")


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_quiet_shows_warnings_alone():
    stream = Terminal()
    with display(stream, Amount.QUIET) as shown:
        shown.begin(10, 30, 5.0)
        shown.share({"dpm nfe=3 on toy": 10})
        shown.advance("dpm nfe=3 on toy", 10, 30)
        shown.settle("dpm nfe=3 on toy", "done", "")
        shown.note("a damaged\nfile")
    with training_display("gs nfe=4", stream, Amount.QUIET) as report:
        assert report is None
    assert stream.getvalue() == "a damaged\\nfile\n"


def test_verbose_shows_everything_as_lines_with_their_time():
    clock, stream = Clock(), io.StringIO()
    lines = Lines(stream, every=0.5, clock=clock, verbose=True)
    lines.begin(10, 30, None)
    lines.share({"dpm nfe=3 on toy": 10})
    clock.now += 1
    lines.expect(1)
    lines.advance("dpm nfe=3 on toy", 5, 15)
    lines.settle("dpm nfe=3 on toy", "done", "")
    assert stream.getvalue().splitlines() == [
        "[     0.0 s] to sample: 10 images",
        "[     0.0 s] to sample: 10 images of dpm nfe=3 on toy",
        "[     1.0 s] dpm nfe=3 on toy: 5/10 images; whole run: 5/10 images, 5/s, 1 s left",
        "[     1.0 s] dpm nfe=3 on toy: done",
    ]
    with display(Terminal(), Amount.VERBOSE) as shown:
        assert isinstance(shown, Lines)


def test_verbose_training_shows_each_validation():
    stream = io.StringIO()
    with training_display("gs nfe=4", stream, Amount.VERBOSE) as report:
        for iteration in range(1, 5):
            report(iteration, 9, 0.5, 0.125 if iteration % 2 else None)
    found = stream.getvalue().splitlines()
    assert [line.partition("] ")[2].partition(",")[0] for line in found] == ["gs nfe=4: 1/9", "gs nfe=4: 3/9"]


def test_a_terminal_whose_cursor_does_not_move_gets_lines(monkeypatch):
    monkeypatch.setenv("TERM", "dumb")
    with display(Terminal()) as shown:
        assert isinstance(shown, Lines)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 s"), (0.4, "< 1 s"), (59.4, "59 s"), (200, "3 min 20 s"), (3599.6, "1 h 00 min"), (7500, "2 h 05 min")],
)
def test_durations_are_said_as_people_say_them(seconds, text):
    assert duration(seconds) == text


def test_counted_work_tells_its_time_left_now_and_then():
    clock, stream = Clock(), io.StringIO()
    with counted("images", stream, clock=clock) as tell:
        for done in (100, 200, 300, 400, 500):
            clock.now += 3
            tell(done, 500)
    assert stream.getvalue() == "200/500 images, 9 s left\n400/500 images, 3 s left\n"
    with counted("images", stream, Amount.QUIET) as tell:
        assert tell is None


def test_counted_work_has_a_bar_on_a_terminal(monkeypatch):
    stream = io.StringIO()
    stream.isatty = lambda: True
    monkeypatch.setenv("TERM", "xterm")
    with counted("files", stream) as tell:
        tell(3, 7)
    assert "3/7 files" in stream.getvalue()


def test_no_line_of_a_cell_is_wider_than_the_terminal_and_no_spec_is_broken():
    """The numbers of the README's run, a spec with options, and a note."""
    spec = "unipc:order=3:variant=bh1:prediction=noise:grid=polynomial:rho=5:end=zero"
    stream = io.StringIO()
    bar = Bar(Console(file=stream, force_terminal=True, width=80, no_color=True))
    numbers = "frechet_data 3.05 ± 0.26, frechet_teacher 0.227 ± 0.041, rmse_teacher 0.0644 ± 0.0013"
    for name in ("gas", spec):
        bar.settle(f"{name} nfe=3 on digits", "done", numbers)
    bar.note(
        "the reference of toy isn't converged: its error is 0.087 RMSE, above 0.0039, half the step of an 8-bit pixel"
    )
    bar.end()
    lines = stream.getvalue().splitlines()
    assert max(map(len, lines)) <= 80
    assert lines[:2] == [
        "gas nfe=3 on digits: done, frechet_data 3.05 ± 0.26,",
        "  frechet_teacher 0.227 ± 0.041, rmse_teacher 0.0644 ± 0.0013",
    ]
    assert any(line.startswith(spec) for line in lines)
    whole = " ".join(line.strip() for line in lines)
    assert f"{spec} nfe=3 on digits: done, {numbers} the reference of toy isn't converged:" in whole


def test_verbose_lines_fit_a_terminal_too_and_a_file_has_whole_ones(monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    line = (
        "dpm nfe=3 on digits: done, frechet_data 3.05 ± 0.26, frechet_teacher 0.227 ± 0.041, rmse_teacher 0.06 ± 0.01"
    )
    for stream, count in ((Terminal(), 2), (io.StringIO(), 1)):
        Lines(stream, verbose=True).say(line)
        lines = stream.getvalue().splitlines()
        assert len(lines) == count
        assert (max(map(len, lines)) <= 80) is (count == 2)


def test_a_word_that_is_wider_than_the_terminal_stays_whole():
    assert wrapped(f"run {'a' * 90} now", 80) == ["run", f"  {'a' * 90}", "  now"]
    assert wrapped("short, line", 80) == ["short, line"]
    assert wrapped("any " * 100, None) == ["any " * 100]
