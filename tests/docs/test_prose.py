"""The pages' prose: phrases that readers stumbled over stay away, no page is a wall, and proselint has no remark.

proselint is in the extra `docs`; where it isn't installed that test is skipped. Phrases for code and pages alike are in
tests/layout/test_words.py.
"""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from documents import PAGES, name, prose

OTHERS = {"docs/teachers-latent.md", "docs/trust.md"}
"""Pages that others are writing."""

WORDS = {
    "at hand": "available",
    "beside": "next to; compared with; in addition to",
    "goes on": "continues; resumes",
    "go on from": "resume from",
    "leave away": "leave out",
    "left aside": "ignored",
    "all that begin so": "every row of",
    "no picture survives": "the images are unusable",
    "tame": "of moderate size",
    "is told of": "gets",
    "hand somebody": "give somebody",
    "stands twice": "occurs twice",
    "lies beside": "is next to",
    "what they come to": "what they give",
    "by the way": "(leave it out)",
}
"""What isn't written on pages, and what is written instead."""

LEFT_OUT = ("typography", "lexical_illusions", "spelling", "terms", "dates_times")
"""Checks of proselint that tables, numbers, quoted code and names of functions set off."""

LONGEST = 1100
"""Characters of a paragraph: about twelve lines. What is longer is a list or a table."""


@pytest.mark.parametrize("word", WORDS)
def test_a_page_says_it_in_plain_words(word):
    texts = {name(page): prose(page.read_text(encoding="utf-8")) for page in PAGES if name(page) not in OTHERS}
    found = [page for page, text in texts.items() if re.search(rf"\b{word}\b", " ".join(text.split()), re.I)]
    assert found == [], f"say {WORDS[word]!r} instead"


@pytest.mark.parametrize("page", [page for page in PAGES if name(page) not in OTHERS], ids=name)
def test_no_paragraph_is_a_wall(page):
    parts = re.split(r"\n\s*\n|\n(?=\s*[-*] |\s*\d+\. |\|)", prose(page.read_text(encoding="utf-8")))
    assert [part.strip()[:80] for part in parts if len(part) > LONGEST and not part.lstrip().startswith("|")] == []


def test_proselint_has_no_remark(tmp_path):
    pytest.importorskip("proselint")
    pages = [page for page in PAGES if name(page) not in OTHERS]
    for page in pages:
        text = re.sub(r"<!--.*?-->", "", prose(page.read_text(encoding="utf-8")), flags=re.DOTALL)
        text = re.sub(r"`[^`\n]*`", "code", re.sub(r"\]\([^)]*\)", "]", text))
        (tmp_path / name(page).replace("/", "-")).write_text(text, encoding="utf-8")
    tool = shutil.which("proselint", path=str(Path(sys.executable).parent)) or shutil.which("proselint")
    assert tool is not None
    command = [tool, "check", *map(str, sorted(tmp_path.iterdir()))]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    remarks = re.findall(r"^(\S+?:\d+:\d+): ([\w.]+): (.*)$", done.stdout + done.stderr, re.M)
    assert done.returncode in (0, 1), done.stderr
    kept = [(place.removeprefix(f"{tmp_path}/"), *said) for place, *said in remarks if not said[0].startswith(LEFT_OUT)]
    assert kept == []
