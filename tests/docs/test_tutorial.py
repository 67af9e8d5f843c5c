"""docs/tutorial.md is run as it stands, in an empty folder, and what it shows is what comes out."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import forks
import pytest

PAGE = Path(__file__).parents[2] / "docs" / "tutorial.md"
NUMBER = re.compile(r"-?\d+(?:\.\d+)?")
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.M | re.S)

SESSION = """
import contextlib, gc, io, json, os, shlex, sys, tempfile
import torch
torch.set_num_threads(1)  # a process forked after several have worked would wait for them for ever
import solverbench
for name in dir(solverbench):
    getattr(solverbench, name)  # imported here, once for all commands
from solverbench.cli.main import main
from solverbench.reports.drawing import base
from solverbench.reports.figures import training
base.render = training.render = lambda figure, kind: b"not rendered in this test"

gc.freeze()

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
def program(tmp_path: Path) -> dict[str, Any]:
    """Where a process runs for which `solverbench` is a command: the environment, and an empty folder."""
    tool = tmp_path / "bin" / "solverbench"
    tool.parent.mkdir()
    tool.write_text(f"#!{sys.executable}\n{COMMAND}")
    tool.chmod(0o755)
    (tmp_path / "work").mkdir()
    way = os.pathsep.join(filter(None, [str(PAGE.parents[1]), os.environ.get("PYTHONPATH")]))
    env = os.environ | {"PATH": f"{tool.parent}{os.pathsep}{os.environ['PATH']}", "PYTHONPATH": way}
    return {"cwd": tmp_path / "work", "env": env}


def test_the_tutorial_runs_and_prints_what_it_shows(program: dict[str, Any]) -> None:
    """The first block as a shell runs it, all others in one Python."""
    blocks = BLOCK.findall(PAGE.read_text(encoding="utf-8"))
    assert {language for language, _ in blocks} == {"sh", "python", "text"}, "nothing runs a block of another language"
    [first, *others] = [(language, text) for language, text in blocks if language != "text"]
    assert first[0] == "sh"
    for language, text in others:
        single = re.fullmatch(r"solverbench [^\n;&|<>$`]*\n", text)
        assert language == "python" or single, f"not a single command of ours:\n{text}"
    done = subprocess.run(["sh", "-e", "-c", first[1]], check=False, text=True, capture_output=True, **program)
    assert done.returncode == 0, f"{first[1]}\n{done.stdout}{done.stderr}"
    session = forks.run(["-c", SESSION], input="".join(json.dumps(block) + "\n" for block in others), **program)
    answers = [(0, done.stdout + done.stderr), *map(json.loads, session.stdout.splitlines())]
    ran, printed = 0, ""
    for language, text in blocks:
        if language == "text":
            missing = [line for line in text.splitlines() if line.strip() and not shown(line, printed)]
            assert missing == [], f"not printed; what was:\n{printed}"
            continue
        assert ran < len(answers), f"failed:\n{text}\n{session.stderr}"
        code, printed = answers[ran]
        assert code == 0, f"{text}\n{printed}"
        ran += 1
    assert ran >= 10
