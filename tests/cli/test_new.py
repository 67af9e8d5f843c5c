"""`solverbench new` writes packages that work as they are, and refuses names that would not."""

import importlib
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import forks
import pytest
from click.testing import CliRunner

from solverbench.cli.main import main
from solverbench.cli.starters import KINDS

ROOT = Path(__file__).parents[2]
NAMES = {kind: f"mine_{kind.partition('-')[0]}" for kind in KINDS}


def invoke(*arguments):
    return CliRunner().invoke(main, list(map(str, arguments)), catch_exceptions=False)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """One package of each kind."""
    folder = tmp_path_factory.mktemp("new")
    for kind, name in NAMES.items():
        result = invoke("new", kind, name, "--to", folder)
        assert result.exit_code == 0, result.output
        assert result.stdout.splitlines()[-2:] == [
            f"to check it, run: solverbench check {folder / name / name}.py",
            f"{folder / name}/README.md has the next steps",
        ]
    return folder


PYTEST = """
import sys
import conftest, pytest
with pytest.MonkeyPatch.context() as patch:
    conftest.fork_checks(patch)
    code = pytest.main(sys.argv[1:])
conftest.forks.end()
sys.exit(code)
"""
"""pytest in a process in which a check forks the process that it asks, so that torch is imported once for all."""


def outside(folder, *words):
    """The output of pytest in another process, to which the project and the packages are known."""
    path = os.pathsep.join(map(str, [ROOT, ROOT / "tests", *(folder / name for name in NAMES.values())]))
    done = forks.run(["-c", PYTEST, *words], cwd=folder, env={**os.environ, "PYTHONPATH": path})
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.usefixtures("forked_checks")
def test_as_they_are_they_pass_check(folder, monkeypatch):
    """Here; their own tests run the same in another process."""
    monkeypatch.chdir(folder)
    for name in NAMES.values():
        monkeypatch.syspath_prepend(folder / name)
    result = invoke("check", *(f"{name}/{name}.py" for name in NAMES.values()))
    assert result.exit_code == 0, result.output
    said = result.stdout
    assert " 0 fail, " in said.splitlines()[-1]
    assert said.count("documented") == 3
    assert said.count("distinguishes") == 1
    assert said.count("removes_noise") == 1


def test_as_they_are_they_pass_their_own_tests(folder):
    said = outside(folder, "-q", "-p", "no:cacheprovider", *(f"{name}/tests" for name in NAMES.values()))
    assert " passed in " in said
    assert " skipped" not in said


@pytest.mark.parametrize("kind", KINDS)
def test_a_wheel_of_it_holds_its_module_and_its_entry_point(folder, kind, tmp_path):
    name = NAMES[kind]
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(command, cwd=folder / name, check=True, capture_output=True)
    with zipfile.ZipFile(next(tmp_path.glob(f"solverbench_{name}-0.1.0-*.whl"))) as wheel:
        assert {each for each in wheel.namelist() if ".dist-info" not in each} == {f"{name}.py"}
        points = wheel.read(f"solverbench_{name}-0.1.0.dist-info/entry_points.txt").decode()
    target = "load" if kind == "teacher" else name.title().replace("_", "")
    assert points.split() == [f"[solverbench.{KINDS[kind]}]", name, "=", f"{name}:{target}"]


@pytest.mark.parametrize("kind", ["solver", "teacher"])
def test_a_second_call_names_the_folder_of_the_first_and_no_module(tmp_path, monkeypatch, kind):
    """Python takes the folder for a module without code; it is only in the way of a starter in the same place."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    assert invoke("new", kind, "mine").exit_code == 0
    importlib.invalidate_caches()
    again = invoke("new", kind, "mine")
    assert again.exit_code == 2
    assert "the folder mine exists already" in again.stderr
    assert "module" not in again.stderr
    assert invoke("new", kind, "mine", "--to", "elsewhere").exit_code == 0


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("Mine", "not a name; give a lowercase word"),
        ("my-solver", "not a name; give a lowercase word"),
        ("2m", "not a name; give a lowercase word"),
        ("class", "not a name; give a lowercase word"),
        ("../mine", "not a name; give a lowercase word"),
        ("heun", "a solver of this name exists already; choose another name"),
        ("ddim", "a solver of this name exists already; choose another name"),
        ("digits", "a teacher of this name exists already; choose another name"),
        ("dinov2", "an extractor of this name exists already; choose another name"),
        ("json", "an installed module has this name, "),
        ("sys", "an installed module has this name; choose another name"),
        ("there", "there exists already, and may hold your work; go on in it, remove it, or choose another name"),
    ],
)
@pytest.mark.parametrize("kind", ["solver", "teacher"])
def test_a_name_that_would_not_work_is_refused_and_nothing_written(tmp_path, kind, name, said):
    (tmp_path / "there").mkdir()
    result = invoke("new", kind, name, "--to", tmp_path)
    assert result.exit_code == 2
    assert result.stderr.startswith(f"Error: new {kind} {name}: ")
    assert said in result.stderr
    assert [each.name for each in tmp_path.rglob("*")] == ["there"]
