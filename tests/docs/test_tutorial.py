"""docs/tutorial.md is run as it stands, in an empty folder, and what it shows is what comes out."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

PAGE = Path(__file__).parents[2] / "docs" / "tutorial.md"
NUMBER = re.compile(r"-?\d+(?:\.\d+)?")
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.M | re.S)

SESSION = """
import contextlib, io, json, sys
names = {"__name__": "tutorial"}
sys.path.insert(0, "")
for line in sys.stdin:
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        exec(compile(json.loads(line), "tutorial.md", "exec"), names)
    print(json.dumps(said.getvalue()), flush=True)
"""
"""One Python for all blocks of a page: a block a line, what it prints a line."""


def shown(expected: str, printed: str) -> bool:
    """Whether a line stands in `printed`: spaces don't count, … is anything, numbers are to 2 % or their last digit."""
    text = " ".join(expected.split())
    numbers = NUMBER.findall(text)
    pattern = r"(-?\d+(?:\.\d+)?)".join(re.escape(words).replace("…", ".*") for words in NUMBER.split(text))
    found = (re.fullmatch(pattern, " ".join(line.split())) for line in printed.splitlines())
    return any(all(map(close, match.groups(), numbers)) for match in found if match)


def close(got: str, wanted: str) -> bool:
    digits = len(wanted.partition(".")[2])
    return abs(float(got) - float(wanted)) <= max(0.02 * abs(float(wanted)), 1.01 * 10**-digits if digits else 0)


@pytest.mark.parametrize(
    ("expected", "printed", "there"),
    [
        ("a  0.200", "x\na 0.2034\n", True),
        ("a  0.200", "a 0.21", False),
        ("9 cells: 9 done", "9 cells: 8 done, 1 failed", False),
        ("9 cells: 9 done", "9 cells: 8 done", False),
        ("done, rmse 0.04 ± … (n=1000)", "done, rmse 0.0402 ± 0.01 (n=1000)", True),
        ("done, rmse 0.04 ± …", "failed, rmse 0.04 ± 0.01", False),
    ],
)
def test_a_line_is_compared_by_its_words_and_numbers(expected: str, printed: str, there: bool) -> None:
    assert shown(expected, printed) is there


@pytest.fixture
def session(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """A Python in an empty folder, where `solverbench` is a command."""
    tool = tmp_path / "bin" / "solverbench"
    tool.parent.mkdir()
    tool.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m solverbench "$@"\n')
    tool.chmod(0o755)
    (tmp_path / "work").mkdir()
    way = os.pathsep.join(filter(None, [str(PAGE.parents[1]), os.environ.get("PYTHONPATH")]))
    env = os.environ | {"PATH": f"{tool.parent}{os.pathsep}{os.environ['PATH']}", "PYTHONPATH": way}
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, "-c", SESSION], cwd=tmp_path / "work", env=env, **pipes) as child:
        child.env, child.folder = env, tmp_path / "work"  # type: ignore[attr-defined]
        yield child
        child.stdin.close()  # type: ignore[union-attr]


def test_the_tutorial_runs_and_prints_what_it_shows(session: Any) -> None:
    printed, ran = "", 0
    for language, text in BLOCK.findall(PAGE.read_text(encoding="utf-8")):
        if language == "sh":
            given: dict[str, Any] = {"cwd": session.folder, "env": session.env, "text": True, "capture_output": True}
            done = subprocess.run(["sh", "-e", "-c", text], check=False, **given)
            printed, ran = done.stdout + done.stderr, ran + 1
            assert done.returncode == 0, f"{text}\n{printed}"
        elif language == "python":
            session.stdin.write(json.dumps(text) + "\n")
            session.stdin.flush()
            answer = session.stdout.readline()
            assert answer, f"failed:\n{text}"
            printed, ran = json.loads(answer), ran + 1
        else:
            assert language == "text", f"a block of {language}, which nothing runs"
            missing = [line for line in text.splitlines() if line.strip() and not shown(line, printed)]
            assert missing == [], f"not printed; what was:\n{printed}"
    assert ran >= 10
