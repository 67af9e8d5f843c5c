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
import contextlib, io, json, os, shlex, sys, tempfile
import torch
torch.set_num_threads(1)  # a process forked after several have worked would wait for them for ever
from solverbench.cli.main import main
from solverbench.reports.drawing import base
from solverbench.reports.figures import training
base.render = training.render = lambda figure, kind: b"not rendered in this test"

def command(text):
    with tempfile.TemporaryFile("w+") as said:
        sys.stdout.flush()
        if not (pid := os.fork()):
            code = 1
            try:
                os.dup2(said.fileno(), 1)
                os.dup2(said.fileno(), 2)
                sys.argv = shlex.split(text, comments=True)
                main(sys.argv[1:], prog_name="solverbench")
                code = 0
            except SystemExit as ended:
                code = ended.code or 0
            except BaseException:
                sys.excepthook(*sys.exc_info())
            finally:
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(code)
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        said.seek(0)
        print(json.dumps([code, said.read()]), flush=True)

names = {"__name__": "tutorial"}
sys.path.insert(0, "")
for line in sys.stdin:
    language, text = json.loads(line)
    if language == "sh":
        command(text)
        continue
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        exec(compile(text, "tutorial.md", "exec"), names)
    print(json.dumps([0, said.getvalue()]), flush=True)
"""
"""One Python for all blocks of a page: a block a line, its exit code and what it prints a line.

It forks for a command, so that torch is imported once. No figure is rendered: the first command, which is a process
of its own, renders those of its report.
"""


COMMAND = """
import sys
from solverbench.cli.main import main
from solverbench.reports.drawing import base
base.FORMATS = ("png",)
main(sys.argv[1:], prog_name="solverbench")
"""
"""The command as a program, whose report has its pictures in one format of three."""


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
    tool.write_text(f"#!{sys.executable}\n{COMMAND}")
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
        if language == "sh" and not ran:
            given: dict[str, Any] = {"cwd": session.folder, "env": session.env, "text": True, "capture_output": True}
            done = subprocess.run(["sh", "-e", "-c", text], check=False, **given)
            printed, ran = done.stdout + done.stderr, ran + 1
            assert done.returncode == 0, f"{text}\n{printed}"
        elif language in ("sh", "python"):
            if language == "sh":
                assert re.fullmatch(r"solverbench [^\n;&|<>$`]*\n", text), f"not a single command of ours:\n{text}"
            session.stdin.write(json.dumps([language, text]) + "\n")
            session.stdin.flush()
            answer = session.stdout.readline()
            assert answer, f"failed:\n{text}"
            (code, printed), ran = json.loads(answer), ran + 1
            assert code == 0, f"{text}\n{printed}"
        else:
            assert language == "text", f"a block of {language}, which nothing runs"
            missing = [line for line in text.splitlines() if line.strip() and not shown(line, printed)]
            assert missing == [], f"not printed; what was:\n{printed}"
    assert ran >= 10
