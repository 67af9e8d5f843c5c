"""The pages about the command line say what it does: exit codes, variables, a configuration file, completion."""

import json
import re

import pytest
from click.testing import CliRunner
from documents import ROOT, fenced

from solverbench import errors, userdata
from solverbench.cli.main import main


def page(name):
    return (ROOT / "docs" / f"{name}.md").read_text(encoding="utf-8")


def test_every_exit_code_of_an_error_is_on_the_page():
    listed = {int(code) for code in re.findall(r"^\| (\d+) \|", page("exit-codes"), re.M)}
    kinds = [each for each in vars(errors).values() if isinstance(each, type) and issubclass(each, errors.UserError)]
    assert {each.exit_code for each in kinds} <= listed
    assert {0, 1, 2, 3, 4, 5, 130} <= listed


def test_the_variable_of_the_data_folder_is_on_the_page(monkeypatch, tmp_path):
    assert f"`{userdata.VARIABLE}`" in page("environment")
    monkeypatch.setenv(userdata.VARIABLE, str(tmp_path))
    assert userdata.data() == tmp_path


def test_the_configuration_file_of_the_page_is_read_as_the_page_says(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = page("configuration")
    (tmp_path / "sweep.toml").write_text(fenced(text)[0][1], encoding="utf-8")
    commands = next(body for language, body in fenced(text) if language == "sh").splitlines()
    assert commands[0] == "solverbench plan --config sweep.toml"
    planned = []
    for words in (commands[0], commands[1].replace(" run ", " plan ")):
        told = CliRunner().invoke(main, [*words.split()[1:], "--json"])
        assert told.exit_code == 0, told.stderr
        planned.append(json.loads(told.stdout.splitlines()[-1])["cells"])
    assert {cell["nfe"] for cell in planned[0]} == {4, 5, 6, 7, 8}
    assert {cell["spec"].split(":")[0] for cell in planned[0]} == {"gas", "dpm", "unipc"}
    assert {cell["nfe"] for cell in planned[1]} == {6}


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_line_of_the_page_sets_up_completion(shell):
    (line,) = re.findall(rf"_SOLVERBENCH_COMPLETE={shell}_source solverbench(?: \\\||\))", page("completion"))
    assert line.startswith("_SOLVERBENCH_COMPLETE")
    if shell == "bash":  # click asks bash itself for its version
        return
    told = CliRunner().invoke(main, [], env={"_SOLVERBENCH_COMPLETE": f"{shell}_source"}, prog_name="solverbench")
    assert "_solverbench_completion" in told.stdout


@pytest.mark.parametrize(
    ("typed", "offered"), [("st", "store"), ("run --engine ", "ray"), ("run --solvers gas,dp", "gas,dpm2")]
)
def test_what_the_page_says_is_completed_is(typed, offered):
    words = f"solverbench {typed}".split(" ")
    env = {
        "_SOLVERBENCH_COMPLETE": "bash_complete",
        "COMP_WORDS": f"solverbench {typed}",
        "COMP_CWORD": str(len(words) - 1),
    }
    told = CliRunner().invoke(main, [], env=env, prog_name="solverbench")
    assert f"plain,{offered}" in told.stdout.splitlines()
