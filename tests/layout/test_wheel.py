"""What is installed: one package and nothing else at the top, with its data."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def names(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    with zipfile.ZipFile(next(folder.glob("*.whl"))) as wheel:
        return wheel.namelist()


def test_the_wheels_top_level_is_one_package(names):
    top = {name.split("/")[0] for name in names if ".dist-info" not in name}
    assert top == {"solverbench"}


@pytest.mark.parametrize(
    "needed",
    [
        "digits.npz",
        ".safetensors",
        "gas.toml",
        "gits.toml",
        "ays.toml",
        "recommended.toml",
        "teachers.toml",
        "registries/prompts.toml",
        "registries/prompts/small.txt",
        "solvers.bib",
        "reports/columns.toml",
        "reports/web/page.html.j2",
        "reports/web/page.js",
        "reports/web/recommend.css",
        "reports/web/recommend.html.j2",
        "reports/web/recommend.js",
        "reports/web/shared.js",
        "reports/web/viewer.html.j2",
        "reports/drawing/curves.py",
        "solverbench/cli/web/index.html.j2",
        "solverbench/cli/starters/pyproject.toml.txt",
        "solverbench/cli/starters/solver/module.py.txt",
        "solverbench/cli/starters/learned-solver/test.py.txt",
        "solverbench/cli/starters/teacher/README.md.txt",
        "py.typed",
        "LICENSE",
    ],
)
def test_the_wheel_holds_its_data(names, needed):
    assert any(name.endswith(needed) for name in names)
