"""docs/which.md: its tables are those of the stored numbers, and its claims about grids hold for these."""

import documents
import pytest


@pytest.fixture(scope="module")
def maker():
    return documents.tool("which")


def test_its_tables_are_those_of_the_stored_numbers(maker):
    text = maker.PAGE.read_text(encoding="utf-8")
    assert maker.page(text) == text
    assert text.count("made by docs/tools/which.py") == 2 * len(maker.SHOWN)


@pytest.mark.parametrize("teacher", ["digits", "mixture", "shapes"])
@pytest.mark.parametrize("solver", ["unipc", "ipndm"])
def test_oss_is_ahead_of_the_default_grid_beyond_both_intervals(maker, teacher, solver):
    values = maker.stored()
    for nfe in (4, 6):
        found, usual = values[teacher, f"{solver}:grid=oss", nfe], values[teacher, solver, nfe]
        assert float(found["high"]) < float(usual["low"])
