"""The site builds strictly, asks nothing of a network, and names everything that is public. Skipped without MkDocs."""

import os
import re
import subprocess
import sys
from pathlib import Path

import click
import pytest

import solverbench
from solverbench import registries
from solverbench.cli.main import main

pytest.importorskip("mkdocs")
pytest.importorskip("material")
pytest.importorskip("mkdocstrings_handlers.python")
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    # Not --quiet, which would hide warnings from --strict, too.
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    way = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    env = os.environ | {"NO_MKDOCS_2_WARNING": "1", "PYTHONPATH": way}
    done = subprocess.run(command, cwd=ROOT, env=env, check=False, text=True, capture_output=True)
    assert done.returncode == 0, done.stderr
    return folder


def test_no_page_asks_anything_of_a_network(site: Path) -> None:
    asked = re.compile(r"<(?:script|img|iframe|source|link)\b[^>]*?(?:src|href)=[\"']?((?:https?:)?//[^\"' >]+)")
    pages = {page: asked.findall(page.read_text(encoding="utf-8")) for page in site.rglob("*.html")}
    assert len(pages) > 25
    assert {page.name: found for page, found in pages.items() if found} == {}
    styles = "".join(style.read_text(encoding="utf-8") for style in site.rglob("*.css"))
    assert re.findall(r"(?:url\(|@import )[\"']?(?:https?:)?//", styles) == []


def test_every_public_name_is_in_the_reference(site: Path) -> None:
    page = (site / "reference" / "python.html").read_text(encoding="utf-8")
    names = [name for name in dir(solverbench) if not name.startswith("_")]
    assert [name for name in names if f'id="solverbench.{name}"' not in page] == []


def test_every_command_and_flag_is_in_the_reference(site: Path) -> None:
    page = (site / "reference" / "commands.html").read_text(encoding="utf-8")
    lacking = []

    def look(command: click.Command, name: str) -> None:
        lacking.extend([name] if name != "solverbench" and f">{name}<" not in page else [])
        lacking.extend(flag for p in command.params for flag in p.opts if flag.startswith("--") and flag not in page)
        for key, below in command.commands.items() if isinstance(command, click.Group) else ():
            look(below, f"{name} {key}")

    look(main, "solverbench")
    assert lacking == []


def test_every_solver_is_in_the_reference(site: Path) -> None:
    page = (site / "reference" / "options.html").read_text(encoding="utf-8")
    assert [name for name in registries.solvers if f'id="{name}"' not in page] == []
