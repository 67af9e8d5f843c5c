"""The site builds strictly, asks nothing of a network, and names everything that is public. Skipped without MkDocs."""

import os
import re
import shutil
import subprocess
import sys
import time
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


def test_a_page_that_is_opened_from_a_folder_has_a_search(site: Path) -> None:
    """A browser reads no JSON and starts no worker for a file: address; the page has a script for each."""
    assert (site / "search" / "search_index.js").read_text(encoding="utf-8").startswith("var __index = {")
    for page in ("index.html", "how/paper.html"):
        text = (site / page).read_text(encoding="utf-8")
        assert f'<script src="{"../" * page.count("/")}iframe-worker.js"></script>' in text
    webdriver = pytest.importorskip("selenium.webdriver")
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if not (chromium and driver):
        pytest.skip("no chromium and chromedriver")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for argument in ("--headless=new", "--disable-gpu", *(["--no-sandbox"] if os.getuid() == 0 else [])):
        options.add_argument(argument)
    with webdriver.Chrome(options=options, service=webdriver.ChromeService(driver)) as browser:
        browser.get((site / "how" / "paper.html").as_uri())
        browser.execute_script("document.querySelector('#__search').checked = true")
        browser.find_element("css selector", "[data-md-component=search-query]").send_keys("conformance")
        found = "return [...document.querySelectorAll('.md-search-result__link')].map((each) => each.href)"
        for _ in range(600):
            if any("/conformance.html" in link for link in browser.execute_script(found)):
                return
            time.sleep(0.1)
    raise AssertionError("the page is not found")


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
