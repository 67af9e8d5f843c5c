"""The fonts that a PDF embeds, without the tables that only typesetting needs; each set of glyphs is subset once.

matplotlib has laid out the text when it subsets a font for a PDF, and no reader of a PDF uses the font's tables of
ligatures, kerning and formulas (ISO 32000-1, section 9.9, lists those that it uses). To subset these tables takes most
of the time, though: DejaVu Sans needs 35 ms without and 86 ms with them, and a figure embeds two or three fonts.
"""

import io
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from types import SimpleNamespace
from typing import Any

_LAYOUT = ("GDEF", "GPOS", "GSUB", "BASE", "JSTF", "MATH", "kern", "kerx", "morx", "mort", "feat", "trak", "just")
"""Tables of OpenType's and Apple's typesetting."""
_FOREIGN = ("FFTM", "PfEd", "BDF ", "meta", "MERG", "TSIV", "Zapf", "bdat", "bloc", "fdsc", "fmtx", "fond", "ltag",
            "xref")  # fmt: skip
"""Further tables that matplotlib leaves out: timestamps, notes of font editors, bitmaps."""
_one_at_a_time = threading.RLock()


@contextmanager
def small_subsets() -> Iterator[None]:
    """Have matplotlib embed such fonts. A version with other functions than 3.11's keeps its own way, which is slower.

    The outlines, hints and widths of the glyphs are the font's own, so a PDF looks the same.
    """
    try:
        from matplotlib.backends import _backend_pdf_ps as backend

        kept = backend.SubsetResults, backend.get_glyphs_subset, backend.font_as_file
    except (ImportError, AttributeError):
        yield
        return
    module: Any = backend
    with _one_at_a_time:
        module.get_glyphs_subset, module.font_as_file = _glyphs_subset, io.BytesIO
        try:
            yield
        finally:
            _, module.get_glyphs_subset, module.font_as_file = kept


@contextmanager
def _glyphs_subset(font: Any, glyphs: Any) -> Iterator[SimpleNamespace]:
    """As matplotlib's `get_glyphs_subset`, with the bytes of the font in place of the font.

    Args:
        font: the path of the file, with its `face_index`.
        glyphs: indices of glyphs.
    """
    content, places = _subset(str(font), font.face_index, frozenset(glyphs))
    yield SimpleNamespace(font=content, glyph_index_map=places)


@lru_cache(maxsize=256)
def _subset(path: str, face: int, glyphs: frozenset[int]) -> tuple[bytes, dict[int, int]]:
    """Return the font file of these glyphs, and the index of each in it."""
    from fontTools import subset

    options = subset.Options(glyph_names=True, recommended_glyphs=True, font_number=face)
    options.drop_tables += [*_LAYOUT, *_FOREIGN]
    subsetter = subset.Subsetter(options=options)
    subsetter.populate(gids=glyphs)
    with subset.load_font(path, options) as font:
        subsetter.subset(font)
        file = io.BytesIO()
        font.save(file, reorderTables=False)
    return file.getvalue(), subsetter.glyph_index_map
