"""Runs a command on the package as it is installed: one folder, made of links into the checkout.

python tools/installed.py mypy -p solverbench: mypy and import-linter cannot join the checkout's folders to one package.
The tools' options are read from this project's pyproject.toml.
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
BESIDE = ("baselines", "registries", "reports")
"""Subpackages that lie beside `solverbench/` in a checkout."""


def assemble(folder: Path) -> None:
    """Link the package and pyproject.toml into an empty folder."""
    package = folder / "solverbench"
    package.mkdir()
    for path in (ROOT / "solverbench").iterdir():
        if path.name != "__pycache__":
            (package / path.name).symlink_to(path)
    for name in BESIDE:
        (package / name).symlink_to(ROOT / name)
    (folder / "pyproject.toml").symlink_to(ROOT / "pyproject.toml")


def run(folder: Path, command: list[str]) -> subprocess.CompletedProcess[str]:
    """Run a command in an assembled folder; its package takes precedence over an installed one.

    What mypy knows is kept in the checkout, so that it reads again only what has changed.
    """
    kept = {"MYPY_CACHE_DIR": str(ROOT / ".mypy_cache")}
    return subprocess.run(
        command, cwd=folder, env={**kept, **os.environ, "PYTHONPATH": str(folder)}, capture_output=True, text=True
    )


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as place:
        assemble(Path(place))
        found = run(Path(place), sys.argv[1:])
        print(found.stdout + found.stderr, end="")
        sys.exit(found.returncode)
