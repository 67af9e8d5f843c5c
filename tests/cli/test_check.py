"""`solverbench check` as a person meets it: what passes, what fails and why, and one clear line for each mistake."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from solverbench import registries
from solverbench.cli.main import main
from solverbench.conformance import processes, subjects

LAGGING = '''
import solverbench as sb


class Lagging(sb.Solver):
    """Euler, whose steps are made from the level before."""

    name = "lagging"
    paper = "none: a test's own"
    global_order = 1

    def integrate(self, denoise, x, grid):
        sigmas = grid.sigmas
        for n in range(grid.steps):
            x = x + (sigmas[n + 1] - sigmas[n]) * (x - denoise(x, sigmas[n])) / sigmas[max(n - 1, 0)]
        return x
'''


@pytest.fixture(autouse=True)
def forgotten():
    """What a test registers is gone after it."""
    yield
    registries.solvers.withdraw("lagging")
    registries.teachers.withdraw("ours")


def invoke(*arguments):
    return CliRunner().invoke(main, list(map(str, arguments)), catch_exceptions=False)


@pytest.mark.usefixtures("forked_checks")
@pytest.mark.usefixtures("forked_checks")
def test_what_fails_is_told_with_what_was_found_and_what_to_do(tmp_path):
    path = tmp_path / "lagging.py"
    path.write_text(LAGGING)
    result = invoke("check", path, "shapes:guidance=2", "--json")
    assert result.exit_code == 4
    lines = result.stdout.splitlines()
    assert lines[0] == f"lagging:grid=polynomial:rho=7 ({path})"
    assert lines[28] == "shapes-guidance=2 (shapes:guidance=2)"
    assert lines[-2] == "35 pass, 2 fail, 15 not declared"
    assert "  fail          consistent           rows miss W[k,0] = level/start" in result.stdout
    assert "  pass          teacher_key          equal in two processes" in result.stdout
    told = json.loads(lines[-1])
    assert told["counts"] == {"pass": 35, "fail": 2, "not declared": 15}
    solver, teacher = told["subjects"]
    assert (solver["subject"], solver["passed"]) == ("lagging:grid=polynomial:rho=7", False)
    assert (teacher["subject"], teacher["passed"]) == ("shapes-guidance=2", True)
    found = {check["name"]: check for check in solver["checks"]}
    assert {name for name, check in found.items() if check["status"] == "fail"} == {"consistent", "last_level"}
    assert found["consistent"]["finding"].endswith("or declare consistent = False")
    assert found["global_order"]["finding"].startswith("declares 1, measured sin 1.0")
    assert found["local_order"]["status"] == "not declared"


def test_all_that_is_registered_is_checked_and_what_can_t_be_had_is_said(tmp_path, monkeypatch):
    package = tmp_path / "broken-1.0.dist-info"
    package.mkdir()
    (package / "METADATA").write_text("Metadata-Version: 2.1\nName: broken\nVersion: 1.0\n")
    (package / "entry_points.txt").write_text("[solverbench.solvers]\nhopeless = no_such_module:Hopeless\n")
    monkeypatch.syspath_prepend(tmp_path)
    found = {name: (subject, lacking) for name, subject, lacking in subjects.everything()}
    assert found.keys() == {*registries.solvers, *registries.teachers}
    assert [name for name, (subject, _) in found.items() if subject is None] == ["hopeless"]
    assert "broken 1.0 can't be loaded" in found["hopeless"][1]


OURS = """
import solverbench as sb

@sb.register(kind="teacher", name="ours")
def load(device="cpu"):
    return sb.Teacher(lambda x, sigma: 0 * x, "ours", (1, 2, 2), sb.EDM(0.01, 10.0), identity="of zeros")
"""


def test_the_file_of_an_installed_package_is_checked_by_its_path_too(tmp_path, monkeypatch):
    package = tmp_path / "ours-1.0.dist-info"
    package.mkdir()
    (package / "METADATA").write_text("Metadata-Version: 2.1\nName: ours\nVersion: 1.0\n")
    (package / "entry_points.txt").write_text("[solverbench.teachers.teacher]\nours = ours_of_a_test:load\n")
    folder = tmp_path / "ours_of_a_test"
    folder.mkdir()
    (folder / "ours_of_a_test.py").write_text(OURS)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.syspath_prepend(folder)
    for text in (f"{folder}/ours_of_a_test.py", str(folder), "ours"):
        (found,) = subjects.named(text)
        assert found.identity == "of zeros"


def test_a_solver_is_checked_on_the_levels_of_a_teacher(tmp_path, monkeypatch):
    monkeypatch.setattr(processes, "elsewhere", lambda subjects: list(map(processes.keys, subjects)))
    (tmp_path / "ours.py").write_text(OURS)
    result = invoke("check", "euler", "--plugin", tmp_path / "ours.py", "--teacher", "ours")
    assert result.exit_code == 0, result.output
    assert "  pass          last_level           0.01\n" in result.stdout


def test_a_name_that_is_not_installed_is_the_file_beside(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("mine.py").write_text(OURS)
    result = invoke("check", "mine")
    assert result.exit_code == 2
    assert result.stderr == "Error: check mine: neither a solver nor a teacher; install the package, or check mine.py\n"


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        ((), 2, "check: nothing to check; give either names or --all"),
        (("heun", "--all"), 2, "check: both names and --all are given; give either names or --all"),
        (("huen",), 2, "check huen: neither a solver nor a teacher; did you mean 'heun'? Give a name or a"),
        (("xyz:order=2",), 2, "check xyz:order=2: neither a solver nor a teacher; give a name or a spec, of a "),
        (("./no/folder:clip=1",), 3, "teacher 'no/folder': there is no such file or folder"),
        (("heun:order=2",), 2, "heun:order=2: heun has no option 'order'"),
        (("no/such.py",), 3, "plugin no/such.py: can't be read (No such file or directory); give the path of a"),
        (("heun", "--teacher", "digit"), 2, "teacher 'digit': not registered; did you mean 'digits'?"),
    ],
)
def test_a_mistake_is_one_line(arguments, code, said):
    result = invoke("check", *arguments)
    assert result.exit_code == code
    assert result.stdout == ""
    assert result.stderr.startswith(f"Error: {said}")
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("def f(:\n", "SyntaxError: invalid syntax; correct it"),
        ("raise ValueError('early')\n", "ValueError: early; correct it"),
        ("x = 1\n", "registers nothing; give its solver a `name`, or use @sb.register"),
        (
            "import solverbench as sb\n\n@sb.register(kind='grid')\ndef mine(schedule, steps): ...\n",
            "has only grid 'mine'; only solvers, teachers and extractors of plugins are checked: give a file of those",
        ),
    ],
)
def test_a_file_with_nothing_to_check_is_refused(tmp_path, text, said):
    path = tmp_path / "mine.py"
    path.write_text(text)
    result = invoke("check", path)
    assert result.exit_code == 3
    assert str(path) in result.stderr
    assert said in result.stderr
