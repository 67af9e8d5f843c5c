"""Levels and weights of plans that no ordinary report has: a thousand calls, levels as good as 0."""

import json
from pathlib import Path

import pandas as pd
import pytest

from solverbench import reports
from solverbench.reports.figures import contents, gallery, plans
from solverbench.reports.figures.widths import DEFAULT
from solverbench.reports.pages import html, markdown, sections
from solverbench.reports.parts import parts


def plan(nfe: int, sigmas: list[float] | None = None) -> dict:
    return {"sigmas": sigmas or [80.0 / (k + 1) for k in range(nfe)], "rows": [[1.0] * (k + 1) for k in range(nfe + 1)]}


@pytest.fixture
def made(frame: pd.DataFrame, record: dict, write):
    """A report's folder whose cells of dpm at these budgets execute these plans."""

    def maker(**of: dict) -> Path:
        own = frame[(frame["solver"] == "dpm") & frame["nfe"].isin([4, 5])]
        named = own.assign(nfe=own["nfe"].map(lambda nfe: len(of[f"dpm-{nfe}"]["sigmas"])))
        folder = write(named, record, "plans")
        (folder / "cells.json").write_text(json.dumps({cell: {"plan": own} for cell, own in of.items()}))
        return folder

    return maker


def test_weights_of_a_thousand_calls_are_left_out_and_its_levels_are_drawn(made) -> None:
    bundle = reports.load(made(**{"dpm-4": plan(65), "dpm-5": plan(1000)}))
    known = plans.of(bundle, parts(bundle.frame, bundle.record), "digits")
    assert [each.nfe for each in known] == [65, 1000]
    assert contents.weights(known) is None
    assert len(contents.levels(known).draw().axes) == 2
    assert "levels-digits.png" in markdown.page(sections.of(bundle))
    assert "weights-digits.png" not in markdown.page(sections.of(bundle))
    assert len(html.page(sections.of(bundle))) < 3_000_000


def test_the_smaller_of_two_budgets_is_drawn_where_the_larger_has_too_many_calls(made) -> None:
    bundle = reports.load(made(**{"dpm-4": plan(4), "dpm-5": plan(65)}))
    known = plans.of(bundle, parts(bundle.frame, bundle.record), "digits")
    assert plans.weights_budget(known) == 4
    assert "weights-digits.png" in markdown.page(sections.of(bundle))


@pytest.mark.parametrize("level", [5e-324, 1e-300, 1e-200])
def test_a_level_as_good_as_0_has_an_axis(made, level: float) -> None:
    bundle = reports.load(made(**{"dpm-4": plan(4, [80.0, 1.0, 0.1, level]), "dpm-5": plan(5)}))
    known = plans.of(bundle, parts(bundle.frame, bundle.record), "digits")
    assert contents.levels(known).draw().axes[0].get_xlim()[1] > 0


def test_one_row_adds_a_figure_to_the_report_its_files_and_the_notebook(folder: Path, monkeypatch) -> None:
    kind = contents.Kind(
        lambda source: contents.curves(source.parts[:1], source.wide),
        file="figure-again",
        section=("Again", "It", "So."),
    )
    monkeypatch.setitem(contents.KINDS, "again", kind)
    bundle = reports.load(folder)
    report = sections.of(bundle)
    assert "![It](figure-again.png)" in markdown.page(report)
    assert "So. Also as [PDF](figure-again.pdf)" in markdown.page(report)
    assert "figure-again" in gallery.gallery(bundle, report.parts, DEFAULT)
    assert reports.draw(bundle, kind="again").axes
