"""Reading a bundle: types, reasons, and one clear error for every damage."""

import json
import math
import re
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from solverbench import reports
from solverbench.reports.bundle import tidy
from solverbench.reports.parts import parts


def test_importing_reports_does_not_import_torch_or_a_plotting_backend() -> None:
    code = (
        "import sys, solverbench.reports; print(sorted({'torch', 'matplotlib.pyplot'} & set(sys.modules)), "
        "{name.split('.')[1] for name in sys.modules if name.startswith('solverbench.')} "
        "- {'reports', '_version', 'wording'})"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[] set()"


def test_a_value_is_a_float_and_a_missing_one_is_nan_with_its_reason(folder: Path) -> None:
    frame = reports.load(folder).frame
    missing = frame[frame["value"].isna()]
    assert len(missing) == 4 * 3
    assert (missing["reason"] != "").all()
    assert (frame[frame["value"].notna()]["reason"] == "").all()
    assert frame["nfe"].dtype.kind == "i"
    assert frame["learned"].sum() == 2 * 6 * 3


@pytest.mark.parametrize("written", ["", "nan", "NaN", "None"])
def test_every_way_of_writing_no_value_is_nan(frame: pd.DataFrame, written: str) -> None:
    frame["value"] = frame["value"].astype(object)
    frame.loc[0, "value"] = written
    row = tidy(frame).iloc[0]
    assert math.isnan(row["value"])
    assert row["reason"] == "no value recorded"


def test_an_infinite_value_is_missing_and_says_so(frame: pd.DataFrame) -> None:
    frame.loc[0, "value"] = math.inf
    row = tidy(frame).iloc[0]
    assert math.isnan(row["value"])
    assert math.isnan(row["low"])
    assert row["reason"] == "the value is inf, not finite"


def test_a_value_of_a_failed_cell_is_not_shown(frame: pd.DataFrame) -> None:
    frame.loc[0, ["status", "reason"]] = ["failed", "boom"]
    assert math.isnan(tidy(frame)["value"].iloc[0])


def test_one_name_with_several_specs_is_told_apart_by_the_options_that_differ(frame: pd.DataFrame) -> None:
    other = frame[frame["solver"] == "dpm"].assign(
        spec="dpm:grid=logsnr:lower_order_final=true:order=2:prediction=data"
    )
    labels = list(dict.fromkeys(tidy(pd.concat([frame, other]))["label"]))
    assert "dpm:order=3" in labels
    assert "dpm:order=2" in labels
    assert "dpm" not in labels
    assert "gas" in labels


def test_a_solver_whose_spec_changes_with_nfe_keeps_one_name(frame: pd.DataFrame) -> None:
    frame["spec"] = frame["spec"] + ":@" + frame["nfe"].astype(str)
    assert "dpm" in set(tidy(frame)["label"])


def test_rows_measured_on_another_n_become_a_part_of_their_own(frame: pd.DataFrame, record: dict) -> None:
    frame.loc[frame["solver"] == "gas", "n"] = 5000
    data = [part for part in parts(tidy(frame), record) if part.metric == "frechet_data"]
    assert [part.n for part in data] == [10000, 5000]
    assert data[1].solvers == ["gas"]
    assert "gas" not in data[0].solvers
    assert len(data[1].frame) == 6  # its cells without a value, too


def test_the_same_cell_twice_is_refused(frame: pd.DataFrame, record: dict) -> None:
    with pytest.raises(reports.BundleError, match=r"dpm at NFE 3: .* occurs twice"):
        parts(tidy(pd.concat([frame, frame[frame["solver"] == "dpm"]])), record)


DAMAGES = {
    "no folder": (lambda folder: [file.unlink() for file in folder.iterdir()] and folder.rmdir(), "it is not there"),
    "no bundle.json": (lambda folder: (folder / "bundle.json").unlink(), "bundle.json: it is not there"),
    "no results.csv": (lambda folder: (folder / "results.csv").unlink(), "results.csv: it is not there"),
    "cut-off JSON": (lambda folder: _json(folder, '{"schema": 1,'), "cannot be read as JSON"),
    "foreign JSON": (lambda folder: _json(folder, '{"a": 1}'), "no 'schema'"),
    "JSON list": (lambda folder: _json(folder, "[]"), "no 'schema'"),
    "newer schema": (lambda folder: _json(folder, '{"schema": 2}'), "schema is 2 .* reads 1"),
    "wrong kind": (lambda folder: _json(folder, '{"schema": 1, "lines": {}}'), "'lines' is a dict"),
    "line no object": (lambda folder: _json(folder, '{"schema": 1, "lines": [1]}'), "no object"),
    "foreign CSV": (lambda folder: _text(folder, "a,b\n1,2\n"), "columns teacher, .* not there"),
    "empty CSV": (lambda folder: _text(folder, ""), "cannot be read as CSV"),
    "binary CSV": (lambda folder: (folder / "results.csv").write_bytes(b"\xff\xfe\x81" * 9), "cannot be read as CSV"),
    "no rows": (lambda folder: _cut(folder, 1), "no rows"),
    "word for a number": (lambda folder: _replace(folder, "24.9,", "2x4.9,"), r"row 1, value: '2x4.9' is not a number"),
    "odd status": (lambda folder: _replace(folder, ",cached,", ",finished,"), "status 'finished' is none of"),
    "half an nfe": (lambda folder: _replace(folder, ",3,frechet_data", ",3.5,frechet_data"), "3.5 is not a whole"),
    "odd flag": (lambda folder: _replace(folder, ",False\n", ",maybe\n"), "'maybe' is neither true nor false"),
    "cut-off images": (lambda folder: (folder / "images.npz").write_bytes(b"PK\x03\x04zzz"), "cannot be read as npz"),
}  # fmt: skip


def test_an_infinite_cost_is_one_clear_line(frame: pd.DataFrame) -> None:
    frame["cost_training_seeds"] = math.inf
    with pytest.raises(reports.BundleError, match="row 1, cost_training_seeds: inf is not finite"):
        tidy(frame)


@pytest.mark.parametrize(
    "cell",
    [
        {"plan": [1.0]},
        {"plan": {"sigmas": 1.0, "rows": [[1.0]]}},
        {"plan": {"sigmas": [1.0], "rows": [[1.0], 2.0]}},
        {"plan": {"sigmas": ["1"], "rows": [[1.0], [1.0, 2.0]]}},
        {"measures": [1]},
        {"measures": {"rmse_teacher": 1.0}},
    ],
)
def test_a_cell_of_another_form_is_one_clear_line(folder: Path, cell: object) -> None:
    (folder / "cells.json").write_text(json.dumps({"0123456789abcdef": cell}))
    with pytest.raises(reports.BundleError, match="cell '0123456789abcdef' has no valid plan or measures"):
        _ = reports.load(folder).cells


def _json(folder: Path, text: str) -> None:
    (folder / "bundle.json").write_text(text)


def _text(folder: Path, text: str) -> None:
    (folder / "results.csv").write_text(text)


def _cut(folder: Path, lines: int) -> None:
    text = (folder / "results.csv").read_text().splitlines()[:lines]
    (folder / "results.csv").write_text("\n".join(text) + "\n")


def _replace(folder: Path, old: str, new: str) -> None:
    text = (folder / "results.csv").read_text()
    assert old in text
    (folder / "results.csv").write_text(text.replace(old, new, 1))


@pytest.mark.parametrize("name", DAMAGES)
def test_a_damaged_bundle_gives_one_clear_line_and_writes_nothing(folder: Path, name: str) -> None:
    damage, message = DAMAGES[name]
    damage(folder)
    before = sorted(folder.iterdir()) if folder.exists() else []
    with pytest.raises(reports.BundleError, match=message) as caught:
        reports.write(folder)
    text = str(caught.value)
    assert "\n" not in text
    assert re.fullmatch(r".+: .+; .+", text)
    assert (sorted(folder.iterdir()) if folder.exists() else []) == before


def test_images_of_another_shape_are_refused(folder: Path) -> None:
    import numpy as np

    np.savez(folder / "images.npz", **{"digits|gas|4": np.zeros((8, 8), dtype=np.uint8)})
    with pytest.raises(reports.BundleError, match=r"'digits\|gas\|4' is uint8"):
        _ = reports.load(folder).images


@pytest.mark.usefixtures("unrendered", "remembered")
def test_a_bundle_needs_no_images_and_no_optional_keys(folder: Path) -> None:
    (folder / "images.npz").unlink()
    (folder / "bundle.json").write_text(json.dumps({"schema": 1}))
    names = {path.name for path in reports.write(folder)}
    assert "figure-digits-frechet_data.png" in names
    assert not any(name.startswith("images") for name in names)
