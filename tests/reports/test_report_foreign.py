"""A report folder from a stranger: bounded, drawn or refused in one line, and harmless in other programs."""

import csv
import json
import os
import zipfile

import numpy as np
import pandas as pd
import pytest
import reports_large

from solverbench import reports
from solverbench.reports import bundle, files
from solverbench.reports.drawing import base
from solverbench.reports.pages import lists, text
from solverbench.reports.parts import slug
from solverbench.wording import csv_text, of_csv

LONG = "x" * 110


@pytest.fixture(autouse=True)
def drawn(request, monkeypatch):
    """Figures are laid out, but hold a word instead of a picture, which takes seconds."""
    if "long_names" not in request.node.name:
        monkeypatch.setattr(base, "render", lambda figure, kind: b"a picture")


@pytest.fixture
def folder(tmp_path):
    return reports_large.write(tmp_path / "report", ("euler", "dpm"), ("digits",), (3, 4), ("rmse_teacher",), side=4)


def edit(folder, **changes):
    path = folder / "bundle.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def named(folder, column, **names):
    frame = pd.read_csv(folder / "results.csv", dtype=str, keep_default_na=False)
    frame[column] = frame[column].replace(names)
    frame.to_csv(folder / "results.csv", index=False)


def test_long_names_are_cut_and_stay_apart(folder, tmp_path):
    named(folder, "solver", euler=LONG, dpm=LONG + "y")
    named(folder, "spec", euler=LONG, dpm=LONG + "y")
    named(folder, "teacher", digits=300 * "t")
    labels = set(reports.load(folder).frame["label"])
    assert len(labels) == 2
    assert all(len(each) <= bundle.LABEL for each in labels)
    assert reports.write(folder)
    assert all(len(path.name.encode()) < 200 for path in folder.iterdir())
    assert bundle.shortened([LONG + "1" + LONG, LONG + "2" + LONG, "dpm"])[2] == "dpm"
    assert len(set(bundle.shortened([LONG + "1" + LONG, LONG + "2" + LONG]))) == 2
    assert slug(300 * "t") != slug(301 * "t")
    assert slug("digits-rmse_teacher") == "digits-rmse_teacher"


def test_more_solvers_than_a_report_holds_are_one_line(folder, monkeypatch):
    monkeypatch.setattr(bundle, "SOLVERS", 1)
    with pytest.raises(reports.BundleError, match=r"2 solvers, more than the 1 of a report; its results\.csv holds"):
        reports.load(folder)


@pytest.mark.parametrize("name", ["bundle.json", "results.csv", "cells.json", "images.npz", "figures.json"])
@pytest.mark.parametrize("kind", ["pipe", "link", "deep", "large"])
def test_a_bad_file_is_one_line_or_left_out(folder, tmp_path, monkeypatch, name, kind):
    path = folder / name
    before = path.read_bytes() if path.exists() else b"{}"
    path.unlink(missing_ok=True)
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "link":
        (tmp_path / "elsewhere").write_bytes(before)
        path.symlink_to(tmp_path / "elsewhere")
    elif kind == "deep":
        path.write_text(100_000 * "[")
    else:
        path.write_bytes(before)
        monkeypatch.setattr(files.content, "__defaults__", (10,))
        monkeypatch.setattr(files, "ARRAY_BYTES", 10)
    if name == "figures.json" and kind != "large":
        assert reports.write(folder)
        assert json.loads(path.read_text())
        return
    with pytest.raises(reports.BundleError) as caught:
        reports.write(folder)
    assert len(str(caught.value).splitlines()) == 1
    if kind == "link":
        assert (tmp_path / "elsewhere").read_bytes() == before


def test_a_bomb_of_images_is_refused_before_it_is_unpacked(folder):
    with zipfile.ZipFile(folder / "images.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.npy", bytes(10_000_000))
    with pytest.raises(reports.BundleError, match="more than 100 times as large as the file"):
        reports.load(folder).images  # noqa: B018
    np.savez(folder / "images.npz", **{"digits|euler|3": np.array([None])})
    with pytest.raises(reports.BundleError, match="cannot be read as npz"):
        reports.load(folder).images  # noqa: B018


def test_a_fence_in_the_command_ends_no_code_block(folder):
    edit(folder, command="solverbench run\n```\n# not code\n````")
    reports.write(folder)
    lines = (folder / "report.md").read_text().splitlines()
    fences = [place for place, line in enumerate(lines) if line == "`````"]
    assert lines[fences[0] + 1 : fences[1]] == ["solverbench run", "```", "# not code", "````"]


FORMULAS = ["=cmd|' /C calc'!A0", "+1+1|x", "-2+3|x", "@SUM(A1)"]


def test_a_spreadsheet_takes_no_name_for_a_formula(folder):
    first, second, *_ = FORMULAS
    named(folder, "solver", euler=first, dpm=second)
    named(folder, "reason", **{"": FORMULAS[2]})
    reports.write(folder)
    assert set(reports.load(folder).frame["solver"]) == {first, second}
    for path in folder.glob("*.csv"):
        if path.name != "results.csv":  # the stranger's own file
            with path.open(newline="") as file:
                for row in csv.reader(file):
                    assert list(map(csv_text, row)) == row, path.name
    assert [of_csv(csv_text(name)) for name in FORMULAS] == FORMULAS
    assert all(csv_text(name) == f"'{name}" for name in FORMULAS)


@pytest.mark.parametrize("value", ["-", "-0.5", "+1e-3", "", "dpm", "'=x", 3, -0.5, None])
def test_numbers_marks_and_other_texts_are_left_as_they_are(value):
    assert csv_text(value) == value


def test_foreign_bibtex_reads_and_defines_nothing(folder):
    said = r"@article{a, title={{\"o} \emph{x} \alpha}, note={\input{/etc/passwd}\csname input\endcsname ^^5cinput{x}}}"
    edit(folder, bibtex=said + "\n@ Preamble{\\def\\x{}}", verdicts=[])
    reports.write(folder)
    found = (folder / "solvers.bib").read_text()
    assert r"{\"o} \emph{x} \alpha" in found
    for harm in (r"\input", r"\csname", "^^", "reamble", r"\def"):
        assert harm not in found
    assert lists.bibtex is text.bibtex


def test_control_characters_of_a_report_are_escaped(folder):
    named(folder, "solver", euler="a\x1b[2Jb")
    edit(folder, notes=["x\x1b]0;t\x07"])
    reports.write(folder)
    for path in (folder / "report.md", folder / "report.html"):
        assert "\x1b" not in path.read_text()
