"""Paired differences, who is ahead, and two runs compared."""

import json
import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from reports_large import write

from solverbench import reports
from solverbench.bench.measure import Measure, p_value
from solverbench.bench.measure import paired as ours
from solverbench.cli.main import main
from solverbench.metrics import intervals
from solverbench.reports import comparison, paired
from solverbench.reports.parts import Part, parts
from solverbench.teachers import convergence
from solverbench.wording import BELOW_ERROR

SMALL = {"teachers": ["digits"], "budgets": (3, 4), "metrics": ["frechet_data", "precision"]}


def small(folder: Path, solvers: tuple[str, ...] = ("euler", "dpm", "gas")) -> Path:
    return write(folder, list(solvers), **SMALL)


def ahead(part: Part, cells: paired.Cells) -> Mapping[int, paired.Standing]:
    """Who is ahead in a table of one part, by budget."""
    return paired.standings([part], cells).found[0]


def edit(folder: Path, name: str, **changes: object) -> None:
    record = json.loads((folder / name).read_text())
    (folder / name).write_text(json.dumps(record | changes))


def test_a_difference_is_that_of_the_measures_that_it_was_stored_from() -> None:
    dice = np.random.default_rng(0)
    left = [5 + dice.standard_normal((3, 10)) for _ in range(2)]
    measures = [Measure("fid", each.mean(1), each, 1000, "the same", "data") for each in left]
    found = paired.of_measures(*(each.as_dict() for each in measures))
    np.testing.assert_allclose((found.value, found.low, found.high), ours(*measures), rtol=1e-12)


@pytest.mark.parametrize(
    "spoil",
    [{"over": "others"}, {"leave_one_out": [[1.0, 2.0]]}, {"leave_one_out": [[math.nan] * 10] * 3},
     {"leave_one_out": "x"}, {"replicates": [math.inf] * 3}, {"leave_one_out": [[1e308, -1e308] * 5] * 3}],
)  # fmt: skip
def test_what_is_not_comparable_has_a_reason_and_no_number(spoil: dict) -> None:
    sound = {"over": "a", "replicates": [1.0] * 3, "leave_one_out": [[1.0] * 10] * 3}
    found = paired.of_measures(sound, sound | spoil)
    assert found.reason
    assert math.isnan(found.value)
    assert not paired.of_measures(sound, sound).reason


def test_differences_are_the_baselines_and_signed_by_value(tmp_path: Path) -> None:
    bundle = reports.load(small(tmp_path / "a"))
    part = parts(bundle.frame, bundle.record)[0]
    found = paired.against(part, "dpm", bundle.cells)
    assert set(found) == {(label, nfe) for label in ("euler", "gas") for nfe in (3, 4)}
    assert found["gas", 3].sign == -1
    assert found["euler", 3].sign == 1
    values = dict(zip(zip(part.frame["label"], part.frame["nfe"], strict=True), part.frame["value"], strict=True))
    assert found["gas", 4].value == pytest.approx(values["gas", 4] - values["dpm", 4])


def test_the_highest_wins_where_higher_is_better(tmp_path: Path) -> None:
    bundle = reports.load(small(tmp_path / "a"))
    distance, precision = parts(bundle.frame, bundle.record)
    assert {found.winner for found in ahead(distance, bundle.cells).values()} == {"gas"}
    best = precision.frame.sort_values("value")["label"].iloc[-1]
    assert {found.winner for found in ahead(precision, bundle.cells).values()} == {best}


def test_nobody_wins_where_no_value_is_better(tmp_path: Path) -> None:
    bundle = reports.load(small(tmp_path / "a"))
    distance = parts(bundle.frame, bundle.record)[0]
    assert ahead(replace(distance, ranked=False), bundle.cells) == {}


def test_a_solver_trained_on_the_metric_never_wins(tmp_path: Path) -> None:
    folder = small(tmp_path / "a")
    frame = pd.read_csv(folder / "results.csv")
    frame.loc[frame["solver"] == "gas", "metric_loss"] = True
    frame.to_csv(folder / "results.csv", index=False)
    bundle = reports.load(folder)
    found = ahead(parts(bundle.frame, bundle.record)[0], bundle.cells)
    assert {each.winner for each in found.values()} == {"dpm"}


def test_without_leave_one_outs_intervals_decide(tmp_path: Path) -> None:
    folder = small(tmp_path / "a")
    (folder / "cells.json").unlink()
    bundle = reports.load(folder)
    found = ahead(parts(bundle.frame, bundle.record)[0], bundle.cells)[3]
    assert (found.winner, found.paired) == ("gas", False)


def test_an_older_bundle_takes_plans_and_leave_one_outs_from_its_store(tmp_path: Path) -> None:
    folder = small(tmp_path / "runs" / "reports" / "a")
    cells = reports.load(folder).cells
    for key, cell in cells.items():
        place = tmp_path / "runs" / "cells" / key[:2] / f"{key}{'0' * 48}"
        place.mkdir(parents=True)
        (place / "cell.json").write_text(json.dumps({"key": {"plan": cell["plan"]}, "names": {}}))
        (place / "metrics.json").write_text(json.dumps({"measures": cell["measures"]}))
    (folder / "cells.json").unlink()
    assert reports.load(folder).cells == cells


def test_a_damaged_cells_file_is_named(tmp_path: Path) -> None:
    folder = small(tmp_path / "a")
    (folder / "cells.json").write_text("{")
    with pytest.raises(reports.BundleError, match=r"cells.json: it cannot be read as JSON"):
        _ = reports.load(folder).cells


def test_compare_names_what_differs_and_pairs_what_is_shared(tmp_path: Path) -> None:
    a, b = small(tmp_path / "a"), small(tmp_path / "b", ("dpm", "gas", "unipc"))
    frame = pd.read_csv(b / "results.csv", dtype={"cell": str})
    frame["spec"] = frame["spec"].str.replace("order=3", "order=2")
    frame["cell"] = "f" + frame["cell"].str[1:]
    frame.to_csv(b / "results.csv", index=False)
    cells = json.loads((b / "cells.json").read_text())
    (b / "cells.json").write_text(json.dumps({"f" + key[1:]: cell for key, cell in cells.items()}))
    edit(b, "bundle.json", environment={"python": "3.12"})
    found = reports.compare(a, b)
    assert found.names == ("a", "b")
    assert ("environment", "python", "3.11", "3.12") in found.settings
    assert {(label, what) for label, _, _, what in found.specs} == {
        ("dpm", "order 3 -> 2"),
        ("gas", "order 3 -> 2"),
    }
    assert found.only["a"] == ["euler at NFE 3 on digits", "euler at NFE 4 on digits"]
    assert found.only["b"][0] == "unipc at NFE 3 on digits"
    shared = found.cells[found.cells["metric"] == "frechet_data"]
    assert list(zip(shared["label"], shared["nfe"], strict=True)) == [("dpm", 3), ("dpm", 4), ("gas", 3), ("gas", 4)]
    assert shared["paired"].all()
    np.testing.assert_allclose(shared["difference"], shared["b"] - shared["a"])
    text = "\n".join(found.lines())
    assert "solver dpm: order 3 -> 2" in text
    assert "only in b: unipc at NFE 3 on digits" in text


@pytest.mark.parametrize(
    ("column", "value", "note", "interval"),
    [("n", 5000, "not to be compared: other n", False), ("reference", "another", "other reference", False),
     ("seeds", "80000-109999", "independent: other seeds", True), ("seeds", "60000-89999", "other seeds", False)],
)  # fmt: skip
def test_compare_gives_no_interval_where_protocols_differ(
    tmp_path: Path, column: str, value: object, note: str, interval: bool
) -> None:
    a, b = small(tmp_path / "a"), small(tmp_path / "b")
    frame = pd.read_csv(b / "results.csv", dtype={"cell": str})
    frame[column] = value
    frame["cell"] = "f" + frame["cell"].str[1:]
    frame.to_csv(b / "results.csv", index=False)
    cells = reports.compare(a, b).cells
    assert cells["note"].str.contains(note).all()
    assert cells["low"].notna().all() == interval
    assert not cells["paired"].any()


def test_the_command_compares_two_names_or_folders(tmp_path: Path) -> None:
    small(tmp_path / "runs" / "reports" / "a")
    other = small(tmp_path / "b")
    given = ["compare", "a", str(other), "--out", str(tmp_path / "runs"), "--json"]
    done = CliRunner().invoke(main, given)
    assert done.exit_code == 0, done.output
    last = json.loads(done.output.splitlines()[-1])
    assert len(last["cells"]) == 12
    assert "values are of the same stored cells" in done.output
    missing = CliRunner().invoke(main, ["compare", "a", "nothing", "--out", str(tmp_path / "runs")])
    assert missing.exit_code == 2
    assert "run 'nothing': no report" in missing.output
    same = CliRunner().invoke(main, ["compare", "a", "a", "--out", str(tmp_path / "runs")])
    assert same.exit_code == 2


def test_compare_says_where_a_difference_is_small_beside_the_error_of_the_reference(tmp_path: Path) -> None:
    """As the flags of a run: ten times the error; below the error itself, a difference has no sign."""
    a, b = (write(tmp_path / name, ["euler", "dpm", "gas"], ["digits"], (3,), ["rmse_teacher"]) for name in ("a", "b"))
    frame = pd.read_csv(b / "results.csv", dtype={"cell": str})
    frame["value"] += frame["solver"].map({"dpm": 1.0, "euler": 3e-3, "gas": 2e-4})
    frame["cell"] = "f" + frame["cell"].str[1:]
    frame["reference_error"] = 1e-3
    frame.to_csv(b / "results.csv", index=False)
    found = reports.compare(a, b)
    cells = found.cells.set_index("label")
    assert cells.loc["dpm", "beside_reference"] == ""
    assert cells.loc["euler", "beside_reference"].endswith("below 10 times the error of the reference, 0.001")
    assert cells.loc["gas", "beside_reference"].startswith("below the reference's error, 0.001")
    assert (cells["reference_error"] == 1e-3).all()
    assert found.as_dict()["cells"][0]["beside_reference"] == found.cells.iloc[0]["beside_reference"]
    text = "\n".join(found.lines())
    assert "below the reference's error, 0.001: decides nothing" in text
    assert "Below the reference's error, 0.001: the interval of the difference excludes 0" in text
    assert "below 10 times the error of the reference, 0.001" in text


def test_compare_and_a_runs_flags_use_one_share_of_the_references_error() -> None:
    assert comparison.SHARE == convergence.SHARE


def test_load_results_finds_the_only_report_and_names_the_choices(tmp_path: Path) -> None:
    import solverbench as sb

    small(tmp_path / "runs" / "reports" / "a")
    assert len(sb.load_results(tmp_path / "runs").frame) == 12
    small(tmp_path / "runs" / "reports" / "b")
    with pytest.raises(sb.BundleError, match="there is a, b; name one"):
        sb.load_results(tmp_path / "runs")
    assert sb.load_results(tmp_path / "runs", "b").folder.name == "b"
    assert sb.plot(sb.load_results(tmp_path / "runs" / "reports" / "a"), "frechet_data").get_size_inches()[0] == 3.25


def test_a_solver_under_another_spelling_is_the_same_cell(tmp_path: Path) -> None:
    a, b = small(tmp_path / "a"), small(tmp_path / "b")
    for name in ("results.csv", "bundle.json"):
        text = (b / name).read_text().replace("gas", "gas-written-otherwise")
        (b / name).write_text(text)
    frames = [pd.read_csv(folder / "results.csv") for folder in (a, b)]
    frames[1]["spec"] = frames[0]["spec"]
    frames[1].to_csv(b / "results.csv", index=False)
    found = reports.compare(a, b)
    assert all(not cells for cells in found.only.values())
    assert set(found.cells["label"]) == {"euler", "dpm", "gas"}


def test_a_difference_smaller_than_the_error_of_the_reference_puts_no_one_ahead(tmp_path: Path) -> None:
    bundle = reports.load(small(tmp_path / "a"))
    part = parts(bundle.frame, bundle.record)[0]
    assert ahead(part, bundle.cells)[3].winner
    part = replace(part, frame=part.frame.assign(reference_error=1e9))
    standing = ahead(part, bundle.cells)[3]
    assert not standing.winner
    assert {*standing.level, *standing.below} == set(part.solvers)
    assert {found.sign for found in paired.against(part, "dpm", bundle.cells).values()} == {0}


def test_a_difference_that_only_the_references_error_leaves_open_has_the_same_words_everywhere(tmp_path: Path) -> None:
    """Level would be wrong beside an interval that excludes 0; more images don't help there."""
    chosen = {"teachers": ["digits"], "budgets": (3,), "metrics": ["frechet_data", "rmse_teacher"]}
    folder = write(tmp_path / "a", ["euler", "dpm", "gas"], **chosen)
    frame = pd.read_csv(folder / "results.csv", dtype={"cell": str})
    frame["reference_error"] = np.where(frame["metric"] == "rmse_teacher", 1e3, np.nan)
    frame.to_csv(folder / "results.csv", index=False)
    claim = {"claim": "gas NFE 3 ahead of dpm NFE 3 on digits", "metric": "rmse_teacher", "difference": -0.2,
             "low": -0.3, "high": -0.1, "verdict": BELOW_ERROR, "p": 0.0, "p_holm": 0.0, "comparisons": 1,
             "reference_error": 1e3, "caution": "the difference is below the reference's error, 1e+03"}  # fmt: skip
    edit(folder, "bundle.json", verdicts=[claim])
    reports.write(folder)
    meaning = "elow the reference's error, 1e+03: the interval of the difference excludes 0"
    rows = pd.read_csv(folder / "ahead.csv")
    told = {metric: set(own["verdict"]) for metric, own in rows.groupby("metric")}
    assert told == {"frechet_data": {"ahead"}, "rmse_teacher": {BELOW_ERROR}}
    assert set(pd.read_csv(folder / "paired-digits-rmse_teacher.csv")["verdict"]) == {BELOW_ERROR}
    page = (folder / "report.html").read_text().replace("&#39;", "'")
    assert "below the reference's error: gas, " in page
    assert "level: " not in page
    assert page.count(meaning) == 3  # who is ahead, the differences, the verdicts
    for name in ("paired-digits-rmse_teacher.md", "paired-digits-rmse_teacher.tex", "verdicts.tex", "verdicts.md"):
        assert meaning in (folder / name).read_text(), name
    assert "§ [" in (folder / "paired-digits-rmse_teacher.md").read_text()
    assert "\\S{}" in (folder / "paired-digits-rmse_teacher.tex").read_text()
    assert "§" not in (folder / "paired-digits-frechet_data.md").read_text()


def equal_solvers(generator: np.random.Generator, solvers: int, budgets: int) -> tuple[Part, dict]:
    """A part of solvers with one true value, and its cells."""
    rows = [
        {"teacher": "t", "solver": f"s{i}", "spec": f"s{i}", "nfe": nfe, "metric": "m", "value": 1.0, "low": 0.9,
         "high": 1.1, "std_error": 0.1, "n": 10, "replicates": 3, "seeds": "0-9", "reference": "r", "extractor": "",
         "quantiser": "", "status": "done", "reason": "", "cell": f"{i}-{nfe}", "net_passes": 1, "learned": False,
         "metric_loss": False, "inferred": ""}
        for i in range(solvers)
        for nfe in range(1, budgets + 1)
    ]  # fmt: skip
    part = parts(reports.bundle.tidy(pd.DataFrame(rows)), {})[0]
    blocks = 1 + 0.1 * generator.standard_normal((len(rows), 3, 10))
    left = (blocks.sum(2, keepdims=True) - blocks) / 9
    part.frame["value"] = blocks.mean((1, 2))
    cells = {
        row["cell"]: {"measures": {"m": {"over": "o", "replicates": own.mean(1), "leave_one_out": out}}}
        for row, own, out in zip(rows, blocks, left, strict=True)
    }
    return part, cells


def test_equal_solvers_are_told_apart_in_at_most_one_table_of_twenty() -> None:
    """Of 60 tables of 10 solvers 3 are expected at .05, and 9 or more have a probability of .003.

    By intervals alone about two of three tables, and four of ten baselines, have a false difference.
    """
    ahead_of, alone, beside = 0, 0, 0
    for trial in range(60):
        part, cells = equal_solvers(np.random.default_rng(trial), 10, 1)
        found = paired.standings([part], cells)
        assert found.pairs == 45
        best = [each.found for each in found.found[0][1].comparisons]
        ahead_of += any(each.sign for each in best)
        alone += any(each.low > 0 or each.high < 0 for each in best)
        beside += any(each.sign for each in paired.against(part, "s0", cells).values())
    assert ahead_of <= 8
    assert beside <= 8
    assert alone >= 25


def test_a_table_is_one_family_and_its_intervals_stay() -> None:
    part, cells = equal_solvers(np.random.default_rng(0), 4, 3)
    [found] = paired.standings([part], cells).found
    assert paired.standings([part], cells).pairs == 3 * 6
    told = [each.found for own in found.values() for each in own.comparisons]
    alone = paired.holm([each.p for each in told], 18)
    assert [each.p_holm for each in told] == alone
    for each in told:
        assert (each.p <= 0.05) == (each.low > 0 or each.high < 0)
        assert each.p_holm >= each.p
    beside = paired.against(part, "s0", cells)
    assert paired.tested(beside.values()) == 9
    assert min(each.p_holm for each in beside.values()) == pytest.approx(min(min(e.p for e in beside.values()) * 9, 1))


def test_holm_is_its_definition_and_one_rule_in_both_places() -> None:
    """Hand-computed: .01 x 4, .02 x 3, .03 x 2 below that, .9; from 10 comparisons .01 x 10, .02 x 9 and so on."""
    values = [0.03, 0.01, math.nan, 0.9, 0.02]
    for rule in (paired.holm, intervals.holm):
        found = rule(values)
        assert found[:2] + found[3:] == pytest.approx([0.06, 0.04, 0.9, 0.06])
        assert math.isnan(found[2])
        chosen = rule(values, 10)
        assert chosen[:2] + chosen[3:] == pytest.approx([0.24, 0.1, 1.0, 0.18])


def test_the_p_of_a_difference_is_that_of_the_measures_that_it_was_stored_from() -> None:
    dice = np.random.default_rng(0)
    left = [5 + dice.standard_normal((3, 10)) for _ in range(2)]
    measures = [Measure("fid", each.mean(1), each, 1000, "the same", "data", trainings=(5.0, 5.1)) for each in left]
    found = paired.of_measures(*(each.as_dict() for each in measures))
    assert found.p == pytest.approx(p_value(*measures), rel=1e-10)


def test_every_comparison_is_in_a_file_with_its_p(tmp_path: Path) -> None:
    folder = small(tmp_path / "a")
    reports.write(folder)
    rows = pd.read_csv(folder / "ahead.csv")
    assert set(rows["comparisons"]) == {6}  # three solvers at two budgets of one metric
    assert len(rows) == 2 * 2 * 2
    assert (rows["p_holm"] >= rows["p"]).all()
    assert set(rows[rows["metric"] == "frechet_data"]["best"]) == {"gas"}
    beside = pd.read_csv(folder / "paired-digits-frechet_data.csv")
    assert (beside["p_holm"] <= 0.05).all()
    text = (folder / "paired-digits-frechet_data.md").read_text()
    assert "told apart from 0, corrected for the 4 comparisons of this table (Holm, family-wise .05)" in text
    assert "Corrected for 6 comparisons, every pair of solvers at each budget" in (folder / "report.html").read_text()
    assert "aren't corrected for their number" in (folder / "report.md").read_text()  # its verdicts have no p


def test_a_star_of_compare_is_corrected_for_the_list(tmp_path: Path) -> None:
    """One difference of 2.4 standard errors has a star alone, and none among twelve."""
    folders = []
    for name in ("a", "b"):
        folder = small(tmp_path / name)
        frame = pd.read_csv(folder / "results.csv", dtype={"cell": str})
        frame["cell"] = name + frame["cell"].str[1:]
        frame["seeds"] = {"a": "0-9", "b": "10-19"}[name]
        half = (frame["high"] - frame["low"]) / 2
        frame[["value", "low", "high"]] = frame[["value", "low", "high"]].add(
            half * {"a": 0.0, "b": 1.65}[name], axis=0
        )
        frame.to_csv(folder / "results.csv", index=False)
        folders.append(folder)
    found = reports.compare(*folders)
    assert len(found.cells) == 12
    assert ((found.cells["p"] <= 0.05) == ((found.cells["low"] > 0) | (found.cells["high"] < 0))).all()
    assert (found.cells["p"] <= 0.05).all()
    assert (found.cells["p_holm"] > 0.05).all()
    lines = list(found.lines())
    assert not any("*" in line for line in lines if line.startswith("digits"))
    assert any("corrected for the 12 comparisons" in line for line in lines)
