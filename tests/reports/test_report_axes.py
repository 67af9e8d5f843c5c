"""Options of teachers as axes: what tables, figures and the page make of a run over, say, several guidances."""

import csv
import json
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest
from reports_large import HOSTILE, write

from solverbench import reports
from solverbench.reports.figures import contents
from solverbench.reports.pages import data, html, lists, markdown, sections, viewer
from solverbench.reports.parts import Axes, Part, axes, named, parts

TEACHERS = ("shapes-guidance=1", "shapes-guidance=2", "digits")
AXES = {
    "options": ["guidance"],
    "teachers": {
        "shapes-guidance=1": {"model": "shapes", "values": {"guidance": "1"}},
        "shapes-guidance=2": {"model": "shapes", "values": {"guidance": "2"}},
        "digits": {"model": "digits", "values": {}},
    },
}
METRICS = ("frechet_data", "rmse_teacher")


def told(folder: Path, record: dict) -> Path:
    found = json.loads((folder / "bundle.json").read_text())
    (folder / "bundle.json").write_text(json.dumps(found | record))
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = write(tmp_path_factory.mktemp("axes") / "a", ("euler", "dpm", "gas"), TEACHERS, (3, 4), METRICS, side=8)
    return told(made, {"axes": AXES})


@pytest.fixture(scope="module")
def report(folder: Path) -> sections.Report:
    return sections.of(reports.load(folder))


def test_a_teacher_is_named_by_its_model_and_the_options_that_differ(report: sections.Report) -> None:
    assert [part.title for part in report.parts] == [
        *["shapes, guidance 1"] * 2, *["shapes, guidance 2"] * 2, *["digits"] * 2,
    ]  # fmt: skip
    assert report.parts[0].name == "shapes-guidance-1-frechet_data"  # names of files stay
    text = markdown.page(report)
    assert "# euler, dpm, gas at NFE 3, 4 on shapes, guidance 1; shapes, guidance 2; digits" in text
    assert "## shapes, guidance 2: Root" in text or "## shapes, guidance 2: RMSE" in text
    assert "teacher shapes, guidance 2." in text
    assert named("a", (("guidance", ""), ("prompts", "x"))) == "a, default guidance, prompts x"


def test_each_value_has_its_own_row_of_who_is_ahead_and_the_file_has_its_column(report: sections.Report) -> None:
    text = html.page(report)
    assert '<th scope="col">guidance</th>' in text
    assert text.count('<th scope="row">shapes</th><th scope="row">2</th>') == len(METRICS)
    assert text.count('<th scope="row">digits</th><th scope="row">–</th>') == len(METRICS)
    rows = list(csv.DictReader(dict(lists.files(report))["ahead.csv"].decode().splitlines()))
    assert {(row["teacher"], row["guidance"]) for row in rows} == {
        ("shapes-guidance=1", "1"), ("shapes-guidance=2", "2"), ("digits", ""),
    }  # fmt: skip
    assert {row["comparisons"] for row in rows} == {str(3 * 2 * 3)}  # teachers, budgets, pairs


def test_the_page_has_a_choice_for_each_option_and_lists_a_model_once(report: sections.Report) -> None:
    text = html.page(report)
    assert '<select class="axis" data-axis="guidance"><option value="*">all side by side</option>' in text
    assert '<option value="=1">1</option><option value="=2">2</option></select>' in text
    assert text.count('<option value="shapes">') == 1
    given = data.of(report, data.Sprites({}, {}, {}, ""))
    assert given["teachers"]["shapes-guidance=2"] == {"title": "shapes, guidance 2", "model": "shapes", "values": ["2"]}
    assert given["teachers"]["digits"]["values"] == [None]
    assert "shapes, guidance 2" in (viewer.page(report) or "")


def test_figures_have_a_panel_for_each_value_and_a_column_named_after_the_option(folder: Path) -> None:
    bundle = reports.load(folder)
    found = [part for part in parts(bundle.frame, bundle.record) if part.metric == "rmse_teacher"]
    content = contents.grid(found)
    assert set(content.data["guidance"].dropna()) == {"1", "2"}
    assert content.figure["options"] == ["guidance"]
    titles = {text.get_text() for text in content.draw().texts}
    assert {"shapes, guidance\u00a01", "shapes, guidance\u00a02", "digits"} <= titles


def test_a_figures_script_reads_the_option_as_text(folder: Path, tmp_path: Path) -> None:
    """A value needn't be a number."""
    bundle = reports.load(folder)
    record = json.loads(json.dumps(dict(bundle.record)))
    record["axes"]["teachers"]["shapes-guidance=2"]["values"]["guidance"] = "strong"
    content = contents.curves(parts(bundle.frame, record)[:4])
    (tmp_path / "f.csv").write_bytes(content.csv)
    read: list[pd.DataFrame] = []
    script: dict[str, Any] = {"__file__": str(tmp_path / "f.py"), "__name__": "f"}
    exec(compile(content.script("f"), "f.py", "exec"), script)
    script |= {"draw": lambda rows, figure: read.append(rows), "render": lambda figure, kind: b""}
    script["sys"] = SimpleNamespace(argv=["f.py"])
    script["main"]()
    assert set(read[0]["guidance"]) == {"1", "strong"}
    assert read[0]["nfe"].dtype == float


@pytest.mark.parametrize(
    "foreign",
    [None, [], {"options": "guidance"}, {"options": ["guidance"]}, {"options": ["g"], "teachers": []},
     {"options": ["g"], "teachers": {"digits": 3}}, {"options": [], "teachers": {"digits": {"values": {}}}}],
)  # fmt: skip
def test_a_foreign_record_has_no_axes(foreign: object) -> None:
    found = axes({"axes": foreign})
    assert found.title("digits") == "digits"
    assert not any(value for value in found.values("digits"))


def test_hostile_options_are_text_everywhere(tmp_path: Path) -> None:
    made = write(tmp_path / "a", ("euler", "dpm"), ("a", "b"), (3,), ("rmse_teacher",), side=8)
    values = {"a": {"model": HOSTILE[0], "values": {HOSTILE[1]: HOSTILE[4]}},
              "b": {"model": HOSTILE[2], "values": {HOSTILE[1]: HOSTILE[3]}}}  # fmt: skip
    told(made, {"axes": {"options": [HOSTILE[1]], "teachers": values}})
    report = sections.of(reports.load(made))
    text = html.page(report)
    assert HOSTILE[0] not in text
    assert HOSTILE[1] not in text
    assert HOSTILE[0] not in markdown.page(report)
    rows = dict(lists.files(report))["ahead.csv"].decode()
    assert "'=cmd" in rows


def test_without_axes_nothing_differs(tmp_path: Path) -> None:
    made = write(tmp_path / "a", ("euler", "dpm"), ("digits",), (3,), ("rmse_teacher",), side=8)
    report = sections.of(reports.load(made))
    assert report.axes == Axes()
    assert "select class" not in html.page(report)
    content = contents.curves(report.parts)
    assert "options" not in content.figure
    assert "title" not in next(iter(content.figure["panels"].values()))
    assert isinstance(content.data, pd.DataFrame)


def test_a_long_name_of_a_teacher_is_short_everywhere_and_whole_once_in_each_caption(tmp_path: Path) -> None:
    whole = "my-own-fine-tuned-model-of-flowers-prompts=small-sampler_nfe=6"
    folder = write(tmp_path / "a", ["dpm", "gas"], [whole], (4,), ["frechet_data"])
    record = json.loads((folder / "bundle.json").read_text())
    changes = {"shown": {whole: "flowers"}, "lines": [], "verdicts": [], "published": []}
    (folder / "bundle.json").write_text(json.dumps(record | changes))
    reports.write(folder)
    table = (folder / f"table-{parts_of(folder)[0].name}.md").read_text()
    assert f"teacher flowers ({whole})." in table
    assert table.count(whole) == 1
    text = (folder / "report.md").read_text()
    assert text.startswith("# dpm, gas at NFE 4 on flowers\n")
    seen = re.sub(r"<(style|script)[^>]*>.*?</\1>|<[^>]*>", " ", (folder / "report.html").read_text(), flags=re.DOTALL)
    assert seen.count(whole) == 1


def parts_of(folder: Path) -> list[Part]:
    bundle = reports.load(folder)
    return parts(bundle.frame, bundle.record)
