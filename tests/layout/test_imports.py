"""Imports run one way, and what should be light doesn't import torch."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ROOMS = {"registries", "solverbench", "baselines", "reports"}
MAY_IMPORT = {
    "registries": set(),
    "solverbench": {"registries"},
    "baselines": {"solverbench"},
    "reports": set(),
}
DOORS = {"solverbench/cli.py": {"reports"}, "solverbench/__init__.py": {"reports"}}
"""The two files that may also import reports."""


def imported(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names.add(node.module or "")
    return names


@pytest.mark.parametrize("room", sorted(ROOMS))
def test_imports_run_one_way(room):
    for path in sorted((ROOT / room).rglob("*.py")):
        allowed = MAY_IMPORT[room] | {room} | DOORS.get(path.relative_to(ROOT).as_posix(), set())
        wrong = {name for name in imported(path) if name.split(".")[0] in ROOMS - allowed}
        assert not wrong, f"{path.relative_to(ROOT)} imports {wrong}"


def test_baselines_use_public_names_alone():
    for path in sorted((ROOT / "baselines").glob("*.py")):
        assert not {name for name in imported(path) if name.startswith("solverbench.")}, path


@pytest.mark.parametrize(
    "statement",
    [
        "import registries, reports",
        "import solverbench, solverbench.cli.main",
        "from click.testing import CliRunner; from solverbench.cli.main import main; "
        "assert CliRunner().invoke(main, ['list', 'solvers']).exit_code == 0",
    ],
)
def test_light_things_do_not_import_torch(statement):
    code = f"import sys; {statement}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0


def test_every_public_name_is_there():
    import solverbench as sb

    assert all(getattr(sb, name) is not None for name in dir(sb))
