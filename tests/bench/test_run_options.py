"""The options of a run: declared once, they are the same on the command line, in Python and in a report."""

import dataclasses
import inspect
import shlex

import click
import pytest
import toys
from click.testing import CliRunner

import solverbench as sb
from solverbench.bench.bundle import notes
from solverbench.bench.protocol import Protocol
from solverbench.bench.run_options import NUMBERS, WORK, RunOptions, declared, spans
from solverbench.cli.main import main

OTHERS = ("strict", "as_json", "detect", "power", "pilot")
"""Flags of the commands that aren't options of a run."""


def parsed(name, words):
    """The options that a command line gives."""
    with main.commands[name].make_context(name, list(words)) as context:
        given = dict(context.params)
    return RunOptions(**{key: value for key, value in given.items() if key not in OTHERS})


@pytest.mark.parametrize("name", ["run", "plan"])
def test_a_command_line_without_flags_gives_the_defaults_of_python(name):
    assert parsed(name, []) == RunOptions()


def test_every_option_is_a_flag_with_its_help():
    flags = {each.name: each for each in main.commands["run"].params if isinstance(each, click.Option)}
    for name, option in declared().items():
        assert option.flag in flags[name].opts
        assert flags[name].help == option.about


def test_help_and_completion_list_the_arguments_of_run():
    parameters = inspect.signature(sb.run).parameters
    assert [name for name in parameters if name not in ("progress", "command")] == list(declared())
    assert {name: parameters[name].default for name in ("nfe", "exact", "engine")} == {
        "nfe": "3-10",
        "exact": None,
        "engine": "local",
    }
    assert all(option.help in sb.run.__doc__ for option in declared().values())
    with pytest.raises(TypeError, match="sampels"):
        sb.run(sampels=20)


@pytest.mark.parametrize(
    "options",
    [
        RunOptions(),
        RunOptions(solvers=["dpm:order=2|3", "euler"], nfe=[9, 3, 4, 5], full=True, exact=False),
        RunOptions(
            nfe=5, exact=True, train="missing", batch="auto", metrics=["fid", "kid"], seeds=range(60_000, 60_080)
        ),
        RunOptions(teachers=["digits", "shapes:guidance=2"], samples=40, protocol="smoke", device="cuda:0", out="a b"),
    ],
)
def test_a_command_asks_the_same_again(options):
    words = shlex.split(options.command())
    assert words[:2] == ["solverbench", "run"]
    again = parsed("run", words[2:])
    assert again.command() == options.command()
    assert again.full == options.full
    assert again.exact is options.exact


def test_a_command_names_solvers_and_teachers_that_are_objects_and_leaves_out_how_it_ran():
    told = RunOptions(solvers=[sb.make("dpm:order=2"), "euler"], teachers=toys.teacher(), workers=3).command()
    assert f"--solvers {shlex.quote(sb.make('dpm:order=2').spec + ',euler')} " in told
    assert " --teachers toy " in told
    assert "--workers" not in told


def test_the_selection_is_of_what_changes_numbers():
    plain = RunOptions().selection
    assert plain == {"full": False, "device": "cpu"}
    for changed in (
        {name: "7" if isinstance(each.default, str) else 7 for name, each in declared().items() if each.group == WORK}
        | {"ray_address": "7"},
        {"out": "elsewhere", "train": "missing"},
    ):
        assert RunOptions(**changed).selection == plain
    assert RunOptions(exact=False, device="cuda:1", metrics="fid").selection == {
        "exact": False,
        "full": False,
        "judging": {"metrics": "fid"},
        "device": "cuda",
    }


@dataclasses.dataclass(frozen=True, kw_only=True)
class More(RunOptions):
    """Options with a new one."""

    blur: float = dataclasses.field(
        default=0.0,
        metadata={"help": "Blur images.", "group": NUMBERS, "metavar": None, "choices": (), "unset": ""},
    )


def test_a_new_option_that_changes_numbers_is_in_key_selection_command_and_tags_by_itself():
    plain, blurred = More(samples=20), More(samples=20, blur=1.5)
    keys = [Protocol.of(each).key for each in (RunOptions(samples=20), plain, blurred)]
    assert keys[0] == keys[1]
    assert keys[2] == keys[0] | {"blur": 1.5}
    assert blurred.selection == plain.selection | {"blur": 1.5}
    assert "--blur 1.5" in blurred.command()
    assert "blur=1.5" in notes._tags([], Protocol.of(blurred))


def test_numbers_are_written_as_spans():
    assert spans([9, 3, 4, 5, 7, 4]) == ["3-5", "7", "9"]


def test_an_unknown_name_in_a_config_file_is_one_line(tmp_path):
    (tmp_path / "c.toml").write_text("worker = 2\n")
    result = CliRunner().invoke(main, ["run", "--config", str(tmp_path / "c.toml")])
    assert result.exit_code == 2
    [line] = result.output.splitlines()
    assert "did you mean 'workers'" in line
