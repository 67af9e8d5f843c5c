"""Imports run one way, from floor to floor, and what should be light doesn't import torch."""

import ast
import subprocess
import sys

import forks
import installed
import pytest
from installed import BESIDE, ROOT


@pytest.fixture(scope="module")
def package(tmp_path_factory):
    """A folder that holds the package as it is installed, by links."""
    folder = tmp_path_factory.mktemp("shape")
    installed.assemble(folder)
    return folder


def lint(package):
    code = "from importlinter.cli import lint_imports; sys.exit(lint_imports(no_cache=True))"
    return installed.run(package, [sys.executable, "-c", f"import sys; {code}"])


def test_imports_run_from_floor_to_floor(package):
    """The contracts are in pyproject.toml; docs/design.md has the picture."""
    found = lint(package)
    assert found.returncode == 0, found.stdout[-6000:] + found.stderr[-2000:]


def test_an_import_that_runs_up_is_found(package):
    (package / "solverbench" / "seeds.py").unlink()
    text = (ROOT / "solverbench" / "seeds.py").read_text()
    (package / "solverbench" / "seeds.py").write_text(
        text + "\n\ndef planted():\n    from solverbench.bench import run\n\n    return run\n"
    )
    found = lint(package)
    (package / "solverbench" / "seeds.py").unlink()
    (package / "solverbench" / "seeds.py").symlink_to(ROOT / "solverbench" / "seeds.py")
    assert found.returncode == 1
    assert "solverbench.seeds -> solverbench.bench.run" in found.stdout


def modules():
    """Every module of the package with its source."""
    for folder in ("solverbench", *BESIDE):
        yield from sorted((ROOT / folder).rglob("*.py"))


def imported(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield node.module or ""


def test_each_package_is_imported_by_its_one_name():
    """In a checkout `import baselines`, or solverbench.solverbench, would make second classes."""
    wrong = {"solverbench.solverbench", "solverbench.tests", "solverbench.tools", "solverbench.benchmarks", *BESIDE}
    for path in modules():
        for name in imported(path):
            assert not any(f"{name}.".startswith(f"{each}.") for each in wrong), f"{path} imports {name}"


@pytest.mark.parametrize("name", BESIDE)
def test_a_checkouts_folder_is_no_package_of_its_own(name):
    found = subprocess.run([sys.executable, "-c", f"import {name}"], cwd=ROOT, capture_output=True, text=True)
    assert found.returncode == 1
    assert f"{name}: import it as solverbench.{name}" in found.stderr


def test_a_users_own_modules_of_those_names_do_no_harm(tmp_path):
    (tmp_path / "reports").mkdir()
    for name in ("reports/__init__.py", "baselines.py", "registries.py"):
        (tmp_path / name).write_text("raise SystemExit('the user's own')\n")
    (tmp_path / "script.py").write_text("import solverbench as sb\nprint(sb.tableau('heun', nfe=4).nfe, sb.report)\n")
    found = forks.run(["script.py"], cwd=tmp_path)
    assert found.stdout.startswith("4 "), found.stderr


def test_no_level_has_more_than_twenty_one_modules():
    for folder in {path.parent for path in modules()}:
        count = len([path for path in folder.glob("*.py") if path.name != "__init__.py"])
        assert count <= 21, f"{folder}: {count}"


@pytest.mark.parametrize(
    "statement",
    [
        "from solverbench import registries, reports",
        "import solverbench, solverbench.cli.main",
        "from click.testing import CliRunner; from solverbench.cli.main import main; "
        "assert CliRunner().invoke(main, ['list', 'solvers']).exit_code == 0",
        "from click.testing import CliRunner; from solverbench.cli.main import main; "
        "assert CliRunner().invoke(main, ['run', '--help']).exit_code == 0",
    ],
)
def test_light_things_do_not_import_torch(statement):
    code = f"import sys; {statement}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0


def test_every_public_name_is_there():
    import solverbench as sb

    assert all(getattr(sb, name) is not None for name in dir(sb))
