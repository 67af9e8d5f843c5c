"""Tables: golden text, marks, digits, and what a table never mixes."""

import shutil
import subprocess
from pathlib import Path

import pandas as pd
import pytest

from solverbench import reports
from solverbench.reports import paired, verdicts
from solverbench.reports.bundle import tidy
from solverbench.reports.pages import html, markdown, sections, tables
from solverbench.reports.parts import Part, parts, ranges
from solverbench.wording import decimals, interval_texts

GOLDEN = Path(__file__).parent / "golden"


def part_of(frame: pd.DataFrame, record: dict, metric: str = "frechet_data") -> Part:
    return next(part for part in parts(tidy(frame), record) if part.metric == metric)


@pytest.mark.parametrize("name", ["table.md", "table.tex", "table.csv"])
def test_the_table_is_the_golden_one(frame: pd.DataFrame, record: dict, name: str) -> None:
    write = {"md": tables.markdown, "tex": tables.latex, "csv": tables.comma_separated}[name.split(".")[1]]
    assert write(part_of(frame, record)) == (GOLDEN / name).read_text(encoding="utf-8")


def test_rows_stand_in_the_order_of_results_csv(frame: pd.DataFrame, record: dict) -> None:
    order = ["gas", "heun", "dpm", "euler", "unipc", "gs", "ipndm"]
    shuffled = pd.concat([frame[frame["solver"] == solver] for solver in order])
    assert [line.split(",")[0] for line in tables.comma_separated(part_of(shuffled, record)).splitlines()[1:]] == order


def test_the_lowest_value_is_best_and_only_overlapping_ones_are_tied(frame: pd.DataFrame, record: dict) -> None:
    cells = tables.entries(part_of(frame, record))
    assert {solver: cells[solver, 4].rank for solver in ("gas", "gs", "ipndm")} == {
        "gas": "best",
        "gs": "tied",
        "ipndm": "",
    }
    assert cells["dpm", 8].rank == "best"  # a classical solver can win
    assert cells["gs", 8].rank == ""


def test_an_interval_that_just_touches_the_best_ones_is_tied_and_one_beyond_is_not(
    frame: pd.DataFrame, record: dict
) -> None:
    here = (frame["nfe"] == 4) & (frame["metric"] == "frechet_data")
    frame.loc[here & (frame["solver"] == "gas"), ["value", "low", "high"]] = [0.80, 0.70, 0.90]
    frame.loc[here & (frame["solver"] == "gs"), ["value", "low", "high"]] = [1.0, 0.90, 1.10]
    frame.loc[here & (frame["solver"] == "dpm"), ["value", "low", "high"]] = [1.0, 0.91, 1.09]
    cells = tables.entries(part_of(frame, record))
    assert (cells["gas", 4].rank, cells["gs", 4].rank, cells["dpm", 4].rank) == ("best", "tied", "")


def test_without_intervals_only_the_best_is_marked(frame: pd.DataFrame, record: dict) -> None:
    frame[["low", "high", "std_error"]] = None
    cells = tables.entries(part_of(frame, record))
    assert {cell.rank for cell in cells.values()} == {"best", ""}
    assert cells["gas", 4].value == "0.860"
    assert "±" not in tables.markdown(part_of(frame, record))


@pytest.mark.parametrize(
    ("value", "error", "places"),
    [(24.9, 0.5, 1), (24.9, 0.25, 2), (0.8, 0.016, 3), (0.8, 0.031, 2), (0.066, 0.00026, 5), (1234.0, 40.0, 0),
     (1234.0, 9.9, 0), (0.45, float("nan"), 3), (12.0, float("nan"), 1), (0.0, float("nan"), 2), (0.45, 0.0, 3)],
)  # fmt: skip
def test_digits_follow_the_standard_error(value: float, error: float, places: int) -> None:
    assert decimals(value, error) == places


@pytest.mark.parametrize(
    ("numbers", "texts"),
    [((9.544, 5.144, 13.944), ("9.5", "5.1", "13.9")), ((-0.0102, -0.0161, -0.0044), ("-0.0102", "-0.0161", "-0.0044")),
     ((0.02983, 0.0203, 0.0394), ("0.030", "0.020", "0.039")), ((3.93, float("nan"), 7.0), ("3.93", "", "")),
     ((1e300, -1e300, 3e300), ("1e+300", "-1e+300", "3e+300")), ((0.0, 0.0, 0.0), ("0.00", "0.00", "0.00"))],
)  # fmt: skip
def test_a_value_and_its_interval_have_the_same_digits(numbers: tuple, texts: tuple) -> None:
    assert interval_texts(*numbers) == texts


def test_every_text_of_a_difference_has_its_digits(frame: pd.DataFrame, record: dict) -> None:
    """On the page, in a paired table and in the table of verdicts."""
    found = paired.Difference(-8.7123, -9.1234, -8.3012)
    part = part_of(frame[frame["solver"].isin(["dpm", "gs"])], record)
    made = tables.differences(part, "dpm", {("gs", nfe): found for nfe in part.nfe})
    assert "**-8.71** [-9.12, -8.30]" in made["md"]
    assert "$-$8.71" in made["tex"]
    assert html._difference(found, higher=False)["interval"] == "-9.12 to -8.30"
    record["verdicts"] = [record["verdicts"][1] | {"difference": -8.7123, "low": -9.1234, "high": -8.3012}]
    [verdict] = verdicts.rows(record)
    assert (verdict.shown, verdict.interval) == ("-8.71", "-9.12 to -8.30")


def test_a_missing_cell_shows_its_mark_and_the_legend_its_reason(frame: pd.DataFrame, record: dict) -> None:
    part = part_of(frame, record)
    cells = tables.entries(part)
    assert [cells[key].mark for key in (("heun", 3), ("gas", 3), ("gas", 8))] == ["-", "t", "x"]
    text = tables.markdown(part)
    assert "`t` needs training: gas at NFE 3: run: solverbench train gas --nfe 3 --teacher digits" in text
    assert (
        "heun at NFE 3: heun with nfe=3: each step costs 2 evaluations; use nfe=2 or nfe=4 (and likewise at 5)" in text
    )


def test_a_cell_never_asked_for_is_empty(frame: pd.DataFrame, record: dict) -> None:
    some = frame[~((frame["solver"] == "euler") & (frame["nfe"] == 4))]
    assert "| euler | 24.9 ± 1.0 |  | 10.30" in tables.markdown(part_of(some, record))


def test_the_caption_says_how_the_numbers_were_made(frame: pd.DataFrame, record: dict) -> None:
    text = tables.caption(part_of(frame, record))
    for word in ("Fréchet distance to the data", "10 000 images", "3 replicates", "seeds 50000-79999",
                 "digits data, seeds 1000000-1099999", "digits-metric@3fa9c1", "edm-round"):  # fmt: skip
        assert word in text


@pytest.mark.parametrize("column", ["n", "replicates", "seeds", "reference", "extractor", "quantiser"])
def test_a_table_never_mixes_protocols(folder: Path, frame: pd.DataFrame, record: dict, column: str) -> None:
    frame.loc[frame["solver"] == "gs", column] = 7 if column in ("n", "replicates") else "another"
    first, second = (part for part in parts(tidy(frame), record) if part.metric == "frechet_data")
    assert (first.name, second.name) == ("digits-frechet_data", "digits-frechet_data-part2")
    assert "| gs |" not in tables.markdown(first)
    assert "| gs |" in tables.markdown(second)
    frame.to_csv(folder / "results.csv", index=False)
    assert "not to be compared with part 1" in markdown.page(sections.of(reports.load(folder)))


def test_latex_letters_are_escaped_everywhere(frame: pd.DataFrame, record: dict) -> None:
    nasty = r"a_b&50%#{x}~^$\c|λ中"
    frame["solver"] = frame["solver"].replace("gas", "my_solver")
    frame.loc[frame["status"] == "failed", "reason"] = nasty
    frame["reference"] = nasty
    frame["label"] = ""
    record["metrics"]["frechet_data"]["label"] = nasty
    text = tables.latex(part_of(frame, record))
    escaped = r"a\_b\&50\%\#\{x\}\textasciitilde{}\textasciicircum{}\$\textbackslash{}c\textbar{}$\lambda$[U+4E2D]"
    assert text.count(escaped) == 3
    assert r"my\_solver" in text
    bare = text.replace(r"\{", "").replace(r"\}", "")
    assert bare.count("{") == bare.count("}")
    assert all(line.count("&") - line.count(r"\&") in (0, 6) for line in text.splitlines() if line.endswith(r"\\")
               and "multicolumn" not in line)  # fmt: skip


def test_markdown_letters_are_escaped(frame: pd.DataFrame, record: dict) -> None:
    frame.loc[frame["status"] == "failed", "reason"] = "a|b <script> *x* `y` _z_ some_name"
    assert r"a\|b &lt;script&gt; \*x\* \`y\` \_z\_ some_name" in tables.markdown(part_of(frame, record))


def test_a_long_reason_is_cut_in_a_legend_and_whole_in_the_page(folder: Path, frame: pd.DataFrame) -> None:
    frame.loc[frame["status"] == "failed", "reason"] = "long " * 200 + "end"
    frame.to_csv(folder / "results.csv", index=False)
    text = markdown.page(sections.of(reports.load(folder)))
    assert "…\n" in text
    assert "long end |" in text


def test_ranges_are_written_short() -> None:
    assert ranges([5, 3, 4, 8, 10, 11]) == "3-5, 8, 10, 11"


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="no pdflatex")
@pytest.mark.parametrize("columns", ["onecolumn", "twocolumn"])
def test_no_table_is_wider_than_its_column(frame: pd.DataFrame, record: dict, tmp_path: Path, columns: str) -> None:
    long = frame.replace({"value": {0.2: 0.123456789}}).assign(solver=frame["solver"] + ":grid=polynomial:rho=5")
    bodies = []
    for part in parts(tidy(long), record):
        bodies.append(tables.latex(part))
        found = paired.against(part, "dpm:grid=polynomial:rho=5", {})
        bodies.append(tables.differences(part, "dpm:grid=polynomial:rho=5", found)["tex"])
    head = f"\\documentclass[{columns}]{{article}}\\usepackage[T1]{{fontenc}}\\usepackage{{booktabs,graphicx}}"
    text = "\n".join([head, "\\begin{document}", *bodies, "\\end{document}"])
    (tmp_path / "all.tex").write_text(text, encoding="utf-8")
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "all.tex"]
    said = subprocess.run(command, cwd=tmp_path, capture_output=True).stdout.decode("latin-1")
    assert "Output written on all.pdf" in said, said[-2000:]
    assert [line for line in said.splitlines() if line.startswith("Overfull \\hbox")] == []
