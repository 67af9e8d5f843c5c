"""How a command speaks: how much, in which colours, and in lines that never break a name or a spec."""

import inspect
import io
import logging
import re
import sys

import click
import pytest
from click.testing import CliRunner

from solverbench.bench.bundle.numbers import Entry, Table
from solverbench.bench.plan import _aligned
from solverbench.cli import terminal
from solverbench.cli.main import main
from solverbench.cli.terminal import Amount

LONG = {"run", "train", "recommend", "sample", "reproduce", "refs build", "refs fetch", "teachers fetch"}
LONG |= {"prompts fetch", "store verify", "store merge", "store export"}


class Stream(io.StringIO):
    def __init__(self, is_terminal):
        super().__init__()
        self.is_terminal = is_terminal

    def isatty(self):
        return self.is_terminal


def commands(command, path=()):
    yield path, command
    if isinstance(command, click.Group):
        for name, each in command.commands.items():
            yield from commands(each, (*path, name))


def test_every_long_command_and_no_other_has_quiet_and_verbose():
    having = {
        " ".join(path) for path, each in commands(main) if {"-q", "-v"} <= {o for p in each.params for o in p.opts}
    }
    assert having == LONG


@pytest.mark.parametrize(
    ("words", "expected"), [((), "NORMAL"), (("-q",), "QUIET"), (("--verbose",), "VERBOSE"), (("-q", "-v"), None)]
)
def test_quiet_and_verbose_are_said_once(words, expected):
    @click.command()
    @terminal.amount_options
    def speak():
        terminal.tell("progress")
        click.echo(terminal.amount().name)

    group = type(main)(commands={"speak": speak})
    done = CliRunner().invoke(group, ["speak", *words])
    if expected is None:
        assert done.exit_code == 2
        assert "--quiet and --verbose: exclude each other" in done.stderr
        return
    assert done.stdout.strip() == expected
    said = {"NORMAL": "progress\n", "QUIET": ""}
    assert (
        done.stderr == said[expected] if expected in said else re.fullmatch(r"\[ +\d+\.\d s\] progress\n", done.stderr)
    )


def test_without_a_command_the_amount_is_normal():
    assert terminal.amount() is Amount.NORMAL


@pytest.mark.parametrize(
    ("variables", "on_terminal", "elsewhere"),
    [
        ({}, True, False),
        ({"NO_COLOR": "1"}, False, False),
        ({"NO_COLOR": ""}, True, False),
        ({"FORCE_COLOR": "1"}, True, True),
        ({"FORCE_COLOR": ""}, True, False),
        ({"FORCE_COLOR": "1", "NO_COLOR": "1"}, False, False),
        ({"TERM": "dumb"}, False, False),
        ({"TERM": "dumb", "FORCE_COLOR": "1"}, True, True),
    ],
)
def test_colours_follow_the_two_variables(monkeypatch, variables, on_terminal, elsewhere):
    for name in ("NO_COLOR", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert terminal.coloured(Stream(True)) is on_terminal
    assert terminal.coloured(Stream(False)) is elsewhere
    for place, coloured in ((True, on_terminal), (False, elsewhere)):
        for name in ("stdout", "stderr"):
            monkeypatch.setattr(sys, name, Stream(place))
        terminal.show([Table("rmse", [3], [("dpm", [Entry("0.1", best=True)])])])
        terminal.fail("a name: is wrong; give another")
        assert ("\x1b" in sys.stdout.getvalue()) is coloured
        assert ("\x1b" in sys.stderr.getvalue()) is coloured
        assert ("| dpm" in sys.stdout.getvalue()) is not (place or coloured)


def test_an_error_is_not_obeyed_by_the_terminal(monkeypatch):
    monkeypatch.setattr(sys, "stderr", Stream(True))
    terminal.fail("a file \x1b[2J: is wrong; give another")
    assert "\x1b[2J" not in sys.stderr.getvalue()


@pytest.mark.parametrize("width", [60, 80, 120])
def test_help_never_breaks_a_word_at_a_hyphen(width):
    for path, _ in commands(main):
        lines = CliRunner().invoke(main, [*path, "--help"], terminal_width=width).stdout.splitlines()
        assert [line for line in lines if line.endswith("-")] == []
        assert [line for line in lines if len(line) > max(width, 80)] == []


def test_a_plan_breaks_lines_between_columns_and_words_alone():
    spec = "unipc:order=3:variant=bh1:prediction=noise:grid=polynomial"
    reason = "heun with nfe=3: each step costs 2 evaluations; use nfe=2 or heun:end=zero"
    table = [
        ("cell", "status", "blocks to do", "estimate", ""),
        (f"{spec} nfe=3 on digits", "new", "10 of 10", "0 s", ""),
        ("heun nfe=3 on digits", "unsupported", "-", "-", reason),
    ]
    wide = [line.rstrip() for line in _aligned(table, None)]
    assert len(wide) == 3
    narrow = [line.rstrip() for line in _aligned(table, 80)]
    assert max(map(len, narrow)) <= 80
    assert f"{spec} nfe=3 on digits" in narrow
    assert " ".join(" ".join(narrow).split()) == " ".join(" ".join(wide).split())
    assert [line for line in narrow if line.endswith(("-", ":", "="))] == ["    unsupported  -             -"]


@pytest.mark.parametrize(("is_terminal", "lines"), [(True, 4), (False, 1)])
def test_what_the_package_logs_is_as_wide_as_the_terminal(monkeypatch, is_terminal, lines):
    monkeypatch.setattr(sys, "stderr", Stream(is_terminal))
    monkeypatch.setenv("COLUMNS", "40")
    with terminal.noted():
        logging.getLogger("solverbench.teachers.loading").warning("%s", "a note on a teacher " * 6)
    said = sys.stderr.getvalue().splitlines()
    assert len(said) == lines
    assert not is_terminal or max(map(len, said)) <= 40
    assert not logging.getLogger("solverbench").handlers


@pytest.mark.parametrize(
    ("is_terminal", "loaded", "words", "told"),
    [
        (True, False, (), "loading PyTorch and the teacher\n"),
        (True, False, ("-q",), ""),
        (True, True, (), ""),
        (False, False, (), ""),
    ],
    ids=["terminal", "quiet", "loaded", "pipe"],
)
def test_a_command_says_on_a_terminal_that_it_loads(monkeypatch, is_terminal, loaded, words, told):
    @click.command()
    @terminal.amount_options
    def speak():
        stream = Stream(is_terminal)
        monkeypatch.setattr(sys, "stderr", stream)
        terminal.loading()
        click.echo(stream.getvalue(), nl=False)

    if not loaded:
        monkeypatch.delitem(sys.modules, "torch", raising=False)
    done = CliRunner().invoke(speak, list(words))
    assert done.stdout == told


def test_every_command_that_samples_says_that_it_loads_before_it_imports():
    """The line stands before the first import of the body, which loads PyTorch."""
    for name in ("run", "plan", "train", "sample", "recommend", "reproduce", "check", "doctor"):
        body = inspect.getsource(main.commands[name].callback)
        said, imported = body.find("terminal.loading("), body.find("    from solverbench")
        assert 0 < said < imported, name


def test_a_plugin_that_is_loaded_with_the_flags_is_announced_too(monkeypatch, tmp_path):
    """Its file imports SolverBench, and so PyTorch, before the command begins."""
    said = []
    monkeypatch.setattr(terminal, "loading", lambda what="": said.append(what))
    (tmp_path / "empty.py").write_text("")
    CliRunner().invoke(main, ["list", "solvers", "--plugin", str(tmp_path / "empty.py")])
    assert said == ["PyTorch and the plugin"]
