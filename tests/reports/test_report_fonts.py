"""The fonts of a report's PDFs: the font's own outlines, hints and widths, without tables for typesetting."""

import io
import re
import zlib
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from fontTools.ttLib import TTFont
from matplotlib import font_manager
from matplotlib.backends import _backend_pdf_ps as backend
from matplotlib.font_manager import get_font

from solverbench import reports
from solverbench.reports.drawing import base
from solverbench.reports.figures import fonts, gallery
from solverbench.reports.figures.fonts import small_subsets
from solverbench.reports.figures.training import HISTORY, training
from solverbench.reports.figures.widths import DEFAULT
from solverbench.reports.parts import parts

TEXT = "Fréchet distance, RMSE − 0.5 ± 2 σ office waffle"

OWN = ("get_glyphs_subset", "font_as_file")
"""What is replaced in matplotlib's backend; older ones have one of them."""

needs_subsets = pytest.mark.skipif(not hasattr(backend, "SubsetResults"), reason="an older matplotlib")


def embedded(pdf: bytes) -> list[bytes]:
    """The font files in a PDF."""
    heads = re.finditer(rb"/Length1 \d+[^>]*>>\s*stream\r?\n", pdf)
    return [zlib.decompressobj().decompress(pdf[head.end() :]) for head in heads]


def outline(font: TTFont, name: str) -> tuple[list[Any], ...]:
    """The points of a glyph, also of one that is composed of others, where its contours end, and its hints."""
    points, ends, flags = font["glyf"][name].getCoordinates(font["glyf"])
    hints = getattr(font["glyf"][name], "program", None)
    return list(points), list(ends), list(flags), list(hints.getBytecode()) if hints else []


def drawn() -> base.Drawing:
    figure = base.blank(3, 1)
    with base.settings():
        figure.text(0, 0, TEXT)
        figure.text(0, 0.5, TEXT, weight="bold")
    return figure


@needs_subsets
@pytest.mark.parametrize("style", ["normal", "oblique"])
@pytest.mark.parametrize("weight", ["normal", "bold"])
def test_a_subset_has_the_fonts_own_outlines_hints_and_widths(weight: str, style: str) -> None:
    path = font_manager.findfont(font_manager.FontProperties(family="DejaVu Sans", weight=weight, style=style))
    font = get_font(path)
    glyphs = {font.get_char_index(ord(letter)) for letter in TEXT}
    with backend.get_glyphs_subset(path, glyphs) as made:
        theirs, theirs_of = TTFont(backend.font_as_file(made.font)), made.glyph_index_map
    with small_subsets(), backend.get_glyphs_subset(path, glyphs) as made:
        ours, ours_of = TTFont(backend.font_as_file(made.font)), made.glyph_index_map
    for glyph in glyphs:
        here, there = ours.getGlyphName(ours_of[glyph]), theirs.getGlyphName(theirs_of[glyph])
        outlines = [outline(file, name) for file, name in ((ours, here), (theirs, there))]
        assert outlines[0] == outlines[1], glyph
        assert ours["hmtx"][here] == theirs["hmtx"][there], glyph
    for table in ("fpgm", "prep", "cvt "):
        assert theirs.getTableData(table) == ours.getTableData(table)
    assert theirs["head"].unitsPerEm == ours["head"].unitsPerEm
    assert {"GSUB", "GPOS", "GDEF", "MATH", "kern"}.isdisjoint(ours.keys())


@needs_subsets
def test_a_pdf_embeds_truetype_fonts_smaller_ones_and_each_set_of_glyphs_is_made_once() -> None:
    plain = base.render(drawn(), "pdf")
    fonts._subset.cache_clear()
    with small_subsets():
        small, again = base.render(drawn(), "pdf"), base.render(drawn(), "pdf")
    assert small == again
    files = embedded(small)
    assert len(files) == len(embedded(plain)) >= 2
    found = fonts._subset.cache_info()
    assert (found.misses, found.hits) == (len(files), len(files))
    assert len(small) < len(plain)
    assert b"/FontFile2" in small
    assert b"/Type3" not in small
    for content in files:
        assert {"glyf", "head", "hhea", "hmtx", "loca", "maxp"} <= set(TTFont(io.BytesIO(content)).keys())
    # what draws the page, with the place of each glyph, is the same
    first, other = (re.search(rb"stream\r?\n(.*?)endstream", pdf, re.DOTALL) for pdf in (plain, small))
    assert first
    assert other
    assert first[1] == other[1]


def test_matplotlibs_own_way_is_back_afterwards_also_after_an_error() -> None:
    kept = {each: getattr(backend, each, None) for each in OWN}
    with pytest.raises(ZeroDivisionError), small_subsets():
        raise ZeroDivisionError
    with small_subsets(), small_subsets():
        pass
    assert {each: getattr(backend, each, None) for each in OWN} == kept


@pytest.mark.parametrize("name", ["SubsetResults", "get_glyphs_subset", "font_as_file"])
def test_another_matplotlib_keeps_its_own_way(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = {each: getattr(backend, each, None) for each in OWN}
    monkeypatch.delattr(backend, name, raising=False)
    with small_subsets():
        assert {each: getattr(backend, each, kept[each]) for each in kept} == kept


@needs_subsets
def test_the_pdfs_of_a_report_and_of_a_training_have_them(folder: Path, tmp_path: Path) -> None:
    bundle = reports.load(folder)
    made = gallery.gallery(bundle, parts(bundle.frame, bundle.record), DEFAULT)
    gallery.draw(tmp_path, {"figure": made["figure"]()}, ["figure"])
    pd.DataFrame({name: [1.0, 0.5, 0.25] for name in HISTORY}).to_csv(tmp_path / "history.csv", index=False)
    training(tmp_path)
    for name in ("figure.pdf", "curves.pdf"):
        files = embedded((tmp_path / name).read_bytes())
        assert files
        assert all("GSUB" not in TTFont(io.BytesIO(content)) for content in files)
