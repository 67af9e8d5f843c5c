"""The README: its length, its two first commands, its numbers and picture, its Python, and whom it cites."""

import json
import re
from pathlib import Path

import documents
import pytest
from click.testing import CliRunner
from documents import ROOT, fenced
from PIL import Image

import solverbench
from solverbench.cli.main import main

TEXT = (ROOT / "README.md").read_text(encoding="utf-8")
INSTALL = """python3 -m venv .venv && . .venv/bin/activate
pip install -c constraints.txt .
solverbench run --solvers gas,dpm --nfe 3-10
"""
AUTHORS = ["Oganov", "Bykov", "Neudachina", "Aliev", "Tolmachev", "Sidorov", "Zuev", "Okhotin", "Rakitin", "Alanov"]


@pytest.fixture(scope="module")
def maker():
    return documents.tool("readme")


def test_it_is_short():
    assert len(TEXT.splitlines()) < 120


def test_its_first_two_shell_blocks_install_and_test():
    """Tools read these two: `.ci/run` runs the second."""
    shell = [body for language, body in fenced(TEXT) if language in ("bash", "sh", "shell", "console")]
    assert shell[:2] == [INSTALL, "pip install tox\ntox\n"]


def test_its_table_is_that_of_the_stored_numbers(maker):
    assert maker.section(TEXT, maker.stored()) == TEXT
    assert TEXT.count("| `gas` |") == 1
    assert f"`{maker.COMMAND}`" in TEXT


def test_a_number_that_was_typed_would_be_seen(maker):
    assert maker.section(TEXT.replace("| 0.32 ±", "| 0.31 ±"), maker.stored()) == TEXT
    assert "| 0.32 ±" in TEXT


def test_its_pictures_were_drawn_from_the_stored_numbers(maker):
    for look in maker.LOOKS:
        with Image.open(ROOT / "docs" / "images" / f"readme-{look}.png") as picture:
            assert picture.text[maker.SOURCE] == maker.digest(), "run python docs/tools/readme.py"


def test_the_script_draws_them(maker, tmp_path, monkeypatch):
    monkeypatch.setattr(maker, "PICTURES", tmp_path)
    maker.figure("dark", maker.stored())
    with Image.open(tmp_path / "readme-dark.png") as drawn, Image.open(ROOT / "docs/images/readme-dark.png") as stored:
        assert drawn.size == stored.size
        assert drawn.text == stored.text


def test_the_stored_numbers_belong_to_the_solvers_as_they_are(maker, tmp_path):
    """A cell's address changes with whatever changes its numbers; the plan of the same command has the same ones."""
    words = maker.COMMAND.replace("solverbench run", "plan").split()
    told = CliRunner().invoke(main, [*words, "--out", str(tmp_path), "--json"])
    planned = json.loads(told.stdout.splitlines()[-1])["cells"]
    now = {(cell["solver"], cell["nfe"]): cell["cell"] for cell in planned}
    assert {(row["solver"], int(row["nfe"])): row["cell"] for row in maker.stored()} == now


@pytest.mark.usefixtures("unrendered", "remembered")
def test_its_python_runs(tmp_path, monkeypatch, capsys):
    (code,) = [body for language, body in fenced(TEXT) if language == "python"]
    assert len(code.splitlines()) <= 21
    assert "samples=1000" in code
    monkeypatch.chdir(tmp_path)
    exec(compile(code.replace("samples=1000", "samples=50"), "README.md", "exec"), {"__name__": "readme"})
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    values = {row[0]: [float(number) for number in row[1:]] for row in rows if row and row[0] in ("ab2", "dpm", "gas")}
    assert all(learned < theirs for learned, theirs in zip(values["gas"], values["dpm"], strict=True))
    assert len(values["ab2"]) == 3


def test_the_paper_is_cited_alike_everywhere():
    cited = re.search(r"@article\{oganov2025gas,.*?author = \{(.*?)\}", TEXT, re.DOTALL).group(1)
    names = [re.split(r",\s+", each) for each in re.split(r"\s+and\s+", cited)]
    assert [family for family, _ in names] == AUTHORS
    listed = (ROOT / "registries" / "solvers.bib").read_text(encoding="utf-8")
    assert " and ".join(", ".join(name) for name in names) in listed
    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert re.findall(r"\{family-names: (\w+), given-names: (\w+)\}", citation) == [tuple(name) for name in names]
    assert f"version: {solverbench.__version__}" in citation
    assert f"version = {{{solverbench.__version__}}}" in TEXT
    for text in (TEXT, citation, (ROOT / "pyproject.toml").read_text(encoding="utf-8")):
        assert "https://arxiv.org/abs/2510.17699" in text


def test_no_address_of_a_repository_is_invented():
    told = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "README.md", ROOT / "pyproject.toml"))
    assert set(re.findall(r"https?://([^/\s)\"]+)", told)) <= {"arxiv.org"}
    assert Path(ROOT / "LICENSE").exists()
