"""What docs/how/solver.md and docs/plugins.md show works as it stands there."""

import re
import shlex

import pytest
from plugged import EXAMPLES, PAGE

import solverbench as sb

pytestmark = pytest.mark.usefixtures("unrendered", "remembered", "few_compared", "loose", "forked_checks")

COMMANDS = [line for block in re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL) for line in block.splitlines()]
NOTEBOOK = re.findall(r"## In a notebook\n\n```python\n(.*?)```", PAGE, re.DOTALL)


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_of_the_page_runs(examples, invoke, command):
    program, *words = shlex.split(command)
    result = invoke(*words)
    assert program == "solverbench"
    assert result.exit_code == 0, result.stderr
    assert "unavailable" not in result.stdout


def test_the_page_has_an_example_of_each_kind():
    names = ["ab2.py", "harmonic.py", "blob.py", "contrast.py", "sliced.py", "patches.py", "charbonnier.py"]
    assert list(EXAMPLES) == names
    assert len(COMMANDS) == 11
    assert len(NOTEBOOK) == 1


def test_the_notebook_of_the_page_runs(examples):
    examples("notebook.py", NOTEBOOK[0])
    names = {"__name__": "notebook"}
    exec(compile(NOTEBOOK[0], "notebook.py", "exec"), names)
    values = names["frame"].set_index(["solver", "metric"]).value
    assert values["plain", "rmse_teacher"] > values["ab2", "rmse_teacher"] > 0
    assert sb.tableau("plain", nfe=3).weights.allclose(sb.tableau("euler", nfe=3).weights)


def test_the_solver_of_the_page_is_the_built_in_ab2():
    """Variable-step AB2 is ipndm_v of order 2, which was written from another text."""
    sb.register(_class(EXAMPLES["ab2.py"], "AB2"))
    for nfe in (1, 2, 5, 9):
        ours, theirs = sb.tableau("ab2", nfe=nfe), sb.tableau("ipndm_v:order=2", nfe=nfe)
        assert ours.sigmas.equal(theirs.sigmas)
        assert (ours.weights - theirs.weights).abs().max() < 1e-12
    assert not sb.tableau("ab2:blend=0.5", nfe=5).weights.equal(ours.weights)


def _class(text, name):
    names = {"__name__": "example"}
    exec(text, names)
    return names[name]
