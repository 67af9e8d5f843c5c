"""No page speaks of a command, flag, spec or name that isn't there."""

import ast
import itertools
import re
import shlex
import tomllib
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from documents import PAGES, ROOT, fenced, name, prose, shell_lines

import solverbench
from solverbench.cli.main import main
from solverbench.method import spec

FOREIGN = {"--clean_resize"}
"""Flags of other programs that pages name."""

SHARED = ("commands.py", "training.py", "stages.py", "references.py", "guided_references.py")
"""Modules of tools/embedded with options that several commands share."""
MODULES = [*sorted(ROOT.glob("tools/embedded/*.py")), ROOT / "solverbench/cli/production.py"]
"""What `python -m` runs beside the command line."""

PLACEHOLDER = re.compile(r"…|\.\.\.|[A-Z]{3,}")


def walk(command: click.Command) -> Iterator[click.Command]:
    yield command
    for below in command.commands.values() if isinstance(command, click.Group) else ():
        yield from walk(below)


def flags(command: click.Command) -> set[str]:
    options = (p for p in command.params if isinstance(p, click.Option))
    return {flag for p in options for flag in (*p.opts, *p.secondary_opts)} | {"--help", "-h", "--version"}


def of_module(source: Path) -> set[str]:
    """The flags that a module's parser declares, with those that the scripts of a folder share."""
    texts = [each.read_text(encoding="utf-8") for each in (source, *map(source.with_name, SHARED)) if each.exists()]
    return set(re.findall(r"""["'](--[a-z][\w-]*)["']""", "".join(texts)))


def called(words: list[str]) -> tuple[set[str] | None, list[str]]:
    """The flags of the command that a line calls, None if there is none, and the words behind its name."""
    command: click.Command = main
    rest = words[1:]
    if words[0] == "python":  # python -m solverbench[.module], or tools.module
        place, rest = ROOT / words[2].replace(".", "/"), words[3:]
        if words[2] != "solverbench":
            return of_module(place.with_suffix(".py")) if place.with_suffix(".py") in MODULES else None, rest
    while isinstance(command, click.Group) and rest and re.fullmatch(r"[a-z]+", rest[0]):
        if rest[0] not in command.commands:
            return None, rest
        command, rest = command.commands[rest[0]], rest[1:]
    return flags(command), rest


def mistakes(line: str) -> list[str]:
    """What is wrong with a line of shell that calls us."""
    try:
        words = shlex.split(re.split(r" (?:&&|;|>|\|) ", line.replace("`", ""))[0])
    except ValueError as error:
        return [f"{line}: {error}"]
    known, rest = called(words)
    if known is None:
        return [f"{line}: no such command"]
    asked = [word.partition("=")[0] for word in rest if re.match(r"--?[a-z]", word)]
    wrong = [f"{line}: no flag {flag}" for flag in asked if flag not in known]
    for flag, value in itertools.pairwise(rest):
        if flag == "--solvers" and "--plugin" not in rest and not PLACEHOLDER.search(value):
            wrong += refused(line, value)
    return wrong


def refused(line: str, value: str) -> list[str]:
    try:
        for each in spec.expand(value):
            spec.make(each)
    except solverbench.UserError as error:
        return [f"{line}: {error}"]
    return []


@pytest.mark.parametrize(
    ("line", "wrong"),
    [
        ("solverbench run --solvers gas,dpm --nfe 3-10", 0),
        ("solverbench run --solver gas", 1),
        ("solverbench walk", 1),
        ("solverbench run --solvers dpm:odrer=2", 1),
        ("solverbench zoo lst", 1),
        ("solverbench zoo export gas --nfe 4 --format py --to a.py", 0),
        ("python -m solverbench.cli.production --teacher digits --out FOLDER --nmbr 1", 1),
        ("solverbench run --device cuda ...", 0),
    ],
)
def test_a_mistake_in_a_line_is_seen(line: str, wrong: int) -> None:
    assert len(mistakes(line)) == wrong


def test_lines_are_found_in_blocks_and_in_prose() -> None:
    text = "a `solverbench list` b\n\n    solverbench run --x  # why\n\n```sh\n$ solverbench plan \\\n  --y\n```\n"
    assert sorted(shell_lines(text)) == ["solverbench list", "solverbench plan --y", "solverbench run --x"]


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_a_pages_commands_are_those_of_the_program(page: Path) -> None:
    lines = shell_lines(page.read_text(encoding="utf-8"))
    assert [wrong for line in lines for wrong in mistakes(line)] == []


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_flags_named_alone_belong_to_some_command(page: Path) -> None:
    scripts = [*MODULES, *ROOT.glob("benchmarks/*.py")]
    known = set().union(FOREIGN, *map(flags, walk(main)), *map(of_module, scripts))
    code = re.findall(r"`([^`]*)`", prose(page.read_text(encoding="utf-8")))
    mine = [piece for piece in code if not piece.startswith(("python -m", "pip "))]
    assert sorted({f for piece in mine for f in re.findall(r"(?<![\w-])--[a-z][\w-]*", piece)} - known) == []


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_python_on_a_page_reads_and_names_what_is_there(page: Path) -> None:
    for language, body in fenced(page.read_text(encoding="utf-8")):
        if language != "python":
            continue
        nodes = list(ast.walk(ast.parse(body)))
        used = {n.attr for n in nodes if isinstance(n, ast.Attribute) and getattr(n.value, "id", "") == "sb"}
        assert used - set(dir(solverbench)) == set()


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_extras_named_on_a_page_are_the_packages(page: Path) -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    named = re.findall(r"(?:solverbench|'\.)\[([\w,]+)\]", page.read_text(encoding="utf-8"))
    assert {extra for each in named for extra in each.split(",")} - set(extras) == set()
