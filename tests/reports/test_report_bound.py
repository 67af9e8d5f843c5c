"""How far learned solvers get from the best classical one to the bound, and how the bound is drawn."""

import json
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from reports_large import write
from scipy.stats import t as student

from solverbench import reports
from solverbench.reports.drawing.palette import look_of
from solverbench.reports.drawing.panel import panels, tags
from solverbench.reports.figures import bound, contents
from solverbench.reports.pages import html, markdown, sections
from solverbench.reports.parts import Part, parts

SMALL = {"teachers": ["digits"], "budgets": (3, 4), "metrics": ["frechet_data", "precision"]}
SOLVERS = ["euler", "dpm", "gas", "free"]


def small(folder: Path, solvers: list[str] = SOLVERS, **changes: object) -> reports.bundle.Bundle:
    return reports.load(write(folder, solvers, **SMALL | changes))


def edited(bundle: reports.bundle.Bundle, **values: float) -> reports.bundle.Bundle:
    """With other values of some solvers, whose leave-one-outs move with them."""
    frame, cells = (
        pd.read_csv(bundle.folder / "results.csv", dtype={"cell": str}),
        json.loads((bundle.folder / "cells.json").read_text()),
    )
    for i, row in frame.iterrows():
        if row["solver"] in values:
            new = values[row["solver"]]
            measure = cells[row["cell"]]["measures"][row["metric"]]
            moved = np.array(measure["leave_one_out"]) - row["value"] + new
            measure |= {"leave_one_out": moved.tolist(), "replicates": [new] * 3}
            frame.loc[i, "value"] = new
    frame.to_csv(bundle.folder / "results.csv", index=False)
    (bundle.folder / "cells.json").write_text(json.dumps(cells))
    return reports.load(bundle.folder)


def first(bundle: reports.bundle.Bundle) -> Part:
    return parts(bundle.frame, bundle.record)[0]


def test_a_share_is_the_way_from_the_best_classical_solver_to_the_bound(tmp_path: Path) -> None:
    bundle = edited(small(tmp_path / "a"), euler=12.0, dpm=10.0, gas=4.0, free=2.0)
    found = bound.shares(first(bundle), bundle.cells)
    assert [(each.solver, each.nfe, each.classical, each.bound) for each in found] == [
        ("gas", 3, "dpm", "free"),
        ("gas", 4, "dpm", "free"),
    ]
    assert all(each.value == pytest.approx(0.75) for each in found)
    assert all(each.low < 0.75 < each.high for each in found)


def test_its_interval_is_the_jackknifes_of_the_ratio(tmp_path: Path) -> None:
    bundle = edited(small(tmp_path / "a"), euler=12.0, dpm=10.0, gas=4.0, free=2.0)
    part = first(bundle)
    (share, _) = bound.shares(part, bundle.cells)
    rows = part.frame[part.frame["nfe"] == 3].set_index("label")["cell"]
    c, g, f = (np.array(bundle.cells[rows[name]]["measures"][part.metric]["leave_one_out"]) for name in SOLVERS[1:])
    ratios = (c - g) / (c - f)
    spread = ((ratios - ratios.mean(1, keepdims=True)) ** 2).sum(1) * 9 / 10
    half = student.ppf(0.975, 27) * math.sqrt(spread.sum()) / 3
    assert (share.high - share.low) / 2 == pytest.approx(half, rel=0.02)


def test_where_higher_is_better_the_share_is_the_same_way(tmp_path: Path) -> None:
    bundle = edited(small(tmp_path / "a"), euler=0.1, dpm=0.2, gas=0.5, free=0.6)
    precision = parts(bundle.frame, bundle.record)[1]
    assert precision.higher
    assert [each.value for each in bound.shares(precision, bundle.cells)] == [pytest.approx(0.75)] * 2
    distance = first(bundle)  # there the same numbers put the bound behind
    assert {each.reason for each in bound.shares(distance, bundle.cells)} == {"free isn't ahead of euler"}


def test_there_is_no_share_of_a_way_that_may_be_none(tmp_path: Path) -> None:
    bundle = edited(small(tmp_path / "a"), euler=12.0, dpm=10.0, gas=9.999, free=9.9999)
    (share, _) = bound.shares(first(bundle), bundle.cells)
    assert share.reason == "free and dpm can't be told apart"
    assert math.isnan(share.value)


def test_a_solver_may_pass_the_bound_or_lie_behind_the_classical_one(tmp_path: Path) -> None:
    bundle = edited(small(tmp_path / "a", [*SOLVERS, "gs"]), euler=12.0, dpm=10.0, gas=1.0, gs=11.0, free=2.0)
    values = {each.solver: each.value for each in bound.shares(first(bundle), bundle.cells)}
    assert values == {"gas": pytest.approx(9 / 8), "gs": pytest.approx(-1 / 8)}


def test_without_leave_one_outs_there_is_a_share_without_interval(tmp_path: Path) -> None:
    bundle = edited(small(tmp_path / "a"), euler=12.0, dpm=10.0, gas=4.0, free=2.0)
    (share, _) = bound.shares(first(bundle), {})
    assert share.value == pytest.approx(0.75)
    assert math.isnan(share.low)


@pytest.mark.parametrize("solvers", [["euler", "dpm", "gas"], ["gas", "free"], ["euler", "free"]])
def test_nothing_is_said_without_all_three(tmp_path: Path, solvers: list[str]) -> None:
    bundle = small(tmp_path / "a", solvers)
    assert list(bound.sentences(parts(bundle.frame, bundle.record), bundle.cells)) == []
    assert "How far to the bound" not in markdown.page(sections.of(bundle)) + html.page(sections.of(bundle))


def test_a_solver_trained_on_the_metric_has_no_share_and_is_no_bound(tmp_path: Path) -> None:
    bundle = edited(small(tmp_path / "a"), euler=12.0, dpm=10.0, gas=4.0, free=2.0)
    for marked in ("gas", "free"):
        frame = pd.read_csv(bundle.folder / "results.csv", dtype={"cell": str})
        frame["metric_loss"] = frame["solver"] == marked
        frame.to_csv(bundle.folder / "results.csv", index=False)
        assert bound.shares(first(reports.load(bundle.folder)), bundle.cells) == []


def test_report_and_page_say_it_with_what_it_means(tmp_path: Path) -> None:
    bundle = edited(small(tmp_path / "a"), euler=12.0, dpm=10.0, gas=4.0, free=2.0)
    for text in (markdown.page(sections.of(bundle)), html.page(sections.of(bundle))):
        assert "How far to the bound" in text
        assert "only estimates the bound" in text
        assert "gas gets 75" in text.replace("75.0", "75")
        assert "at NFE 4 (from dpm)" in text


def test_the_bound_is_drawn_dashed_and_named_as_one(tmp_path: Path) -> None:
    part = first(small(tmp_path / "a"))
    content = contents.curves([part])
    [panel] = panels(content.data, content.figure)
    assert [tag.text for tag in tags(panel)][:4] == ["euler", "dpm", "gas", "free (bound)"]
    assert look_of(part.specs, "free")[2] != "-"
    assert {look_of(part.specs, label)[2] for label in SOLVERS[:3]} == {"-"}
    axes = content.draw().axes[0]
    assert [line.get_linestyle() for line in axes.lines if line.get_label() == "free"] == ["--"]
