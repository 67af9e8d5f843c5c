"""Every link and image of the pages leads to a file, and to a heading, that is there. No network."""

import re
from pathlib import Path

import pytest
from documents import MADE, PAGES, ROOT, anchors, links, name

FOLDERS = "solverbench|baselines|registries|reports|tests|benchmarks|tools|examples|docs"


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_links_and_images_lead_somewhere(page: Path) -> None:
    lost = []
    for target in links(page.read_text(encoding="utf-8")):
        path, _, anchor = target.partition("#")
        place = (page.parent / path).resolve() if path else page
        made = place.is_relative_to(ROOT / "docs") and str(place.relative_to(ROOT / "docs")) in MADE
        known = made or place.exists()
        if not known or (anchor and not made and anchor not in anchors(place.read_text(encoding="utf-8"))):
            lost.append(target)
    assert lost == []


def test_every_image_is_on_a_page() -> None:
    shown = {(page.parent / target).resolve() for page in PAGES for target in links(page.read_text(encoding="utf-8"))}
    assert sorted(set((ROOT / "docs" / "images").iterdir()) - shown) == []


def test_every_page_is_in_the_sites_navigation() -> None:
    listed = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    pages = [str(page.relative_to(ROOT / "docs")) for page in PAGES if page.is_relative_to(ROOT / "docs")]
    assert [page for page in pages if f": {page}\n" not in listed] == []


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_files_and_folders_named_as_code_are_there(page: Path) -> None:
    named = re.findall(rf"`((?:{FOLDERS})/[\w./*-]+)`", page.read_text(encoding="utf-8"))
    places = (ROOT, ROOT / "tests")  # CONTRIBUTING.md names tests from there
    assert [path for path in named if not any(any(place.glob(path.rstrip("/"))) for place in places)] == []
