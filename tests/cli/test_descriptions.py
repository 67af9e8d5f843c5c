"""`solverbench info` of classical solvers: stored, so that it needs no torch, and equal to what the classes say."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from solverbench import registries
from solverbench.cli import describe
from solverbench.cli.main import main
from solverbench.method.spec import solver_class

FOLDER = Path(registries.__file__).parent
STORED = json.loads((FOLDER / "descriptions.json").read_text(encoding="utf-8"))


def test_every_classical_solver_is_stored_under_each_of_its_names():
    names = [name for name in registries.solvers.builtin if not solver_class(name).learned]
    assert sorted(STORED) == sorted([*names, *(alias for name in names for alias in registries.solvers.aliases(name))])


@pytest.mark.parametrize("name", sorted(STORED))
def test_what_is_stored_is_what_the_class_says(name):
    made = describe.solver(name, "digits", Path("runs"))
    assert registries.described(name) == made, "run python tools/descriptions.py"
    assert str(FOLDER.parent) not in STORED[name]


def test_the_command_imports_no_torch_for_them():
    assert CliRunner().invoke(main, ["info", "ddim"]).stdout == describe.solver("ddim", "digits", Path("runs")) + "\n"
    code = (
        "import sys\nfrom solverbench.cli.main import main\n"
        "main(['info', 'unipc'], standalone_mode=False)\nassert 'torch' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("unipc: UniPC")
