"""The tables of docs/gas.md: those of the stored numbers, and what they call held."""

import documents
import pytest


@pytest.fixture(scope="module")
def maker():
    return documents.tool("gas")


def test_the_tables_are_those_of_the_stored_numbers(maker):
    text = maker.PAGE.read_text(encoding="utf-8")
    assert maker.page(text) == text
    assert text.count("made by docs/tools/gas.py") >= 4


def test_a_number_that_was_typed_would_be_seen(maker):
    text = maker.PAGE.read_text(encoding="utf-8")
    value = maker.each(4).splitlines()[-1].split("|")[2].strip()
    assert maker.page(text.replace(value, "1, 2, 3, 4, 5")) == text


@pytest.mark.parametrize(
    ("metric", "gs", "gas", "p", "said"),
    [
        ("frechet_data", 2.0, 1.0, 0.01, "**held**"),
        ("frechet_data", 1.0, 2.0, 0.01, "**not held**"),
        ("frechet_data", 2.0, 1.0, 0.06, "unresolved"),
        ("recall_data", 0.6, 0.5, 0.01, "**not held**"),
        ("recall_data", 0.5, 0.6, 0.01, "**held**"),
        ("residual_teacher", -6.0, -7.0, 0.01, "**held**"),
        ("detail_teacher", -0.5, 0.2, 0.01, "**held**"),
        ("detail_teacher", -0.2, 0.5, 0.01, "**not held**"),
    ],
)
def test_a_claim_is_held_where_the_test_says_so_and_gas_is_better(maker, metric, gs, gas, p, said):
    assert maker.verdict(metric, {"value": str(gs)}, {"value": str(gas), "p_holm": str(p)}) == said


def test_numbers_keep_five_digits_and_words_stay(maker):
    told = ["0.123456789", "-1.5|2.123456", "3", "gs", "1.23456789e-05", ""]
    assert [maker._rounded(each) for each in told] == ["0.12346", "-1.5|2.1235", "3", "gs", "1.2346e-05", ""]
