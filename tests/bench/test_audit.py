"""Numbers in a store that its blocks or its sampler don't give are found; those that they give aren't."""

import itertools
import json
import shutil

import numpy as np
import pandas as pd
import pytest
import toys
from click.testing import CliRunner

from solverbench import files
from solverbench.bench import run as runner
from solverbench.bench.audit import resampled
from solverbench.bench.audit.audit import audit
from solverbench.bench.audit.resampled import Share
from solverbench.bench.run_options import RunOptions
from solverbench.cli.main import main
from solverbench.errors import UserError
from solverbench.store.folder import CellFolder

SAMPLES = {"samples": 20, "replicates": 1}


def invoke(*arguments):
    return CliRunner().invoke(main, ["store", *map(str, arguments)], catch_exceptions=False)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A store with two cells of digits: a classical solver and a learned one."""
    out = tmp_path_factory.mktemp("made") / "theirs"
    runner.run(RunOptions(solvers="dpm,gs", nfe=4, teachers="digits", out=out, **SAMPLES))
    return out


@pytest.fixture
def theirs(made, tmp_path):
    shutil.copytree(made, tmp_path / "theirs")
    return tmp_path / "theirs"


def cells(out, solver=""):
    found = sorted(path.parent for path in out.glob("cells/*/*/cell.json"))
    return [path for path in found if files.read_json(path / "cell.json")["names"]["solver"].startswith(solver)]


def written_again(path, change):
    """Write a file again with its checksum, as who forges it would."""
    body = files.read_json(path)
    change(body)
    files.write_json(path, body)


def number(name, part, change):
    def changed(body):
        body["measures"][name][part] = change(body["measures"][name][part])

    return changed


def smaller(body):
    """A whole metric with other numbers, which fit together."""
    each = body["measures"]["frechet_data"]
    for part in ("value", "low", "high", "std_error", "replicates", "leave_one_out"):
        each[part] = (np.array(each[part]) * 0.5).tolist()


def renamed(body):
    body["measures"]["frechet_teacher"] = body["measures"].pop("frechet_data")


FORGED = {
    "values that fit together": smaller,
    "the interval": number("rmse_teacher", "low", lambda low: low * 0.9),
    "the spread": number("rmse_teacher", "leave_one_out", lambda rows: [[row[0] + 1e-4, *row[1:]] for row in rows]),
    "the number of images": number("rmse_teacher", "n", lambda n: 1000 * n),
    "what it may be compared with": number("rmse_teacher", "over", lambda over: f"{over} "),
    "the name of the reference": number("frechet_data", "reference", lambda text: "another one"),
    "a metric under another name": renamed,
    "a metric left out": lambda body: body["measures"].pop("frechet_teacher"),
    "the statistics of its images": lambda body: body["statistics"]["images"].update(deviation=0.5),
    "the number of calls": lambda body: body.update(nfe=3),
}


@pytest.mark.parametrize("forged", FORGED)
def test_a_forged_number_is_found_by_verify_and_not_merged(theirs, tmp_path, forged):
    place = cells(theirs, "dpm")[0]
    written_again(place / "metrics.json", FORGED[forged])
    result = invoke("verify", "--out", theirs)
    assert result.exit_code == 4
    assert result.stdout.count("DIFFERS") == 1
    assert f"{place}/metrics.json: " in result.stdout
    result = invoke("merge", theirs, "--out", tmp_path / "ours")
    assert result.exit_code == 4
    assert "nothing of this cell was copied" in result.stdout
    assert [path.name for path in cells(tmp_path / "ours")] == [path.name for path in cells(theirs, "gs")]


def test_honest_numbers_are_recomputed(theirs):
    found = audit(theirs)
    assert [each.recomputed and not each.given and not each.wrong for each in found.verdicts.values()] == [True, True]
    result = invoke("verify", "--out", theirs)
    assert result.exit_code == 0
    assert result.stdout == "2 of 2 cells: metrics recomputed from their blocks\nno damaged files\n"


def test_an_older_result_without_statistics_is_not_false(theirs):
    written_again(cells(theirs)[0] / "metrics.json", lambda body: body.pop("statistics"))
    assert not audit(theirs).wrong


def made_up(place):
    """Blocks of better images, and the metrics that follow from them."""
    metrics = files.read_json(place / "metrics.json")
    for path in (place / "blocks").glob("*.npz"):
        arrays = files.read_arrays(path)
        arrays["errors"] = arrays["errors"] / 4
        files.write_arrays(path, arrays)
    each = metrics["measures"]["rmse_teacher"]
    for part in ("value", "low", "high", "std_error", "replicates", "leave_one_out"):
        each[part] = (np.array(each[part]) / 2).tolist()
    files.write_json(place / "metrics.json", metrics)


@pytest.mark.usefixtures("remembered")
def test_made_up_blocks_are_found_by_sampling_again_alone(theirs, tmp_path):
    place = cells(theirs, "dpm")[0]
    made_up(place)
    assert invoke("verify", "--out", theirs).exit_code == 0
    result = invoke("verify", "--resample", "100%", "--seed", 1, "--out", theirs)
    assert result.exit_code == 4
    assert result.stdout.count("DIFFERS") == 10
    assert "isn't what the sampler gives, off by 0.75 of the largest value" in result.stdout
    assert "10 of 20 drawn blocks agree with the sampler" in result.stdout
    assert result.stderr.count("agrees (largest difference") == 10
    merged = invoke("merge", theirs, "--resample", 20, "--out", tmp_path / "ours")
    assert merged.exit_code == 4
    assert "1 cell merged: metrics recomputed, some blocks sampled again" in merged.stdout
    assert len(cells(tmp_path / "ours")) == 1

    invoke("verify", "--resample", "100%", "--set-aside", "--out", theirs)
    again = runner.run(RunOptions(solvers="dpm,gs", nfe=4, teachers="digits", out=theirs, **SAMPLES))
    assert [outcome.status for outcome in again.cells] == ["done", "cached"]
    assert not audit(theirs, resample=Share.of("100%")).wrong


def test_a_key_that_does_not_fit_the_names_is_found(theirs):
    def moved(place, change):
        body = files.read_json(place / "cell.json")
        change(body)
        address = files.digest(body["key"])
        there = theirs / "cells" / address[:2] / address
        if there != place:
            shutil.copytree(place, there)
            written_again(there / "metrics.json", lambda metrics: metrics.update(cell=address))
        files.write_json(there / "cell.json", body)

    moved(cells(theirs, "gs")[0], lambda body: body["key"].update(teacher="0" * 64))
    moved(cells(theirs, "dpm")[0], lambda body: body["names"].update(solver="gs", spec="gs"))
    found = [damage.what for damage in audit(theirs).wrong]
    assert sorted(found) == [
        "named digits, but its key holds another network or condition than digits's",
        "named gs, but its key is of the solver dpm",
    ]


def test_a_key_changed_in_place_is_damage(theirs):
    place = cells(theirs)[0]
    written_again(place / "cell.json", lambda body: body["key"].update(teacher="0" * 64))
    assert f"DAMAGED  {place}/cell.json: the key of another cell" in invoke("verify", "--out", theirs).stdout


def test_without_the_teacher_paired_metrics_are_recomputed_and_the_rest_is_said(tmp_path):
    out, teacher = tmp_path / "theirs", toys.teacher()
    runner.run(RunOptions(solvers="euler,dpm", nfe=3, teachers=teacher, out=out, **SAMPLES))
    found = audit(out)
    assert not found.wrong
    given = "frechet_data, frechet_teacher, as its teacher 'toy' isn't registered here; name it with --teachers"
    named = [given] if "frechet_data" in files.read_json(cells(out)[0] / "metrics.json")["measures"] else [""]
    assert [each.given for each in found.verdicts.values()] == 2 * named
    assert not any(each.given or each.wrong for each in audit(out, teachers=[teacher]).verdicts.values())
    written_again(cells(out)[0] / "metrics.json", number("rmse_teacher", "leave_one_out", lambda rows: [rows[0][::-1]]))
    assert len(audit(out).wrong) == 1


def test_nothing_is_loaded_that_a_store_names_by_path(theirs, tmp_path, monkeypatch):
    """Neither a checkpoint of the stranger's own nor a file of levels."""
    monkeypatch.setattr("solverbench.bench.audit.restored.load_teacher", lambda *_: pytest.fail("loaded"))
    (tmp_path / "levels.txt").write_text("80 10 1 0.002")
    evil = tmp_path / "evil.toml"
    evil.write_text('family = "edm"\n')
    for name in (str(evil), "digits-label=evil.toml", f"../{evil.name}"):
        for place in cells(theirs):
            written_again(place / "cell.json", lambda body, name=name: body["names"].update(teacher=name))
        monkeypatch.chdir(tmp_path)
        assert all("name it with --teachers" in each.given for each in audit(theirs).verdicts.values())
    monkeypatch.undo()
    for place in cells(theirs):
        change = {"teacher": "digits", "spec": f"euler:grid=@{tmp_path / 'levels.txt'}"}
        written_again(place / "cell.json", lambda body: body["names"].update(change))  # noqa: B023
    assert all("its spec names a file" in each.given for each in audit(theirs).verdicts.values())


def test_a_merged_cell_says_where_it_came_from(theirs, tmp_path):
    ours, last = tmp_path / "ours", tmp_path / "last"
    before = {path: path.read_bytes() for path in theirs.rglob("*") if path.is_file()}
    assert invoke("merge", theirs, "--resample", "100%", "--out", ours).exit_code == 0
    assert before == {path: path.read_bytes() for path in theirs.rglob("*") if path.is_file()}
    assert invoke("merge", ours, "--out", last).exit_code == 0
    [first] = CellFolder(cells(ours)[0], "").origin()
    assert (first["from"], first["metrics"], first["sampled_again"]) == ("theirs", "recomputed", "10 of 10 blocks")
    again = {path: path.read_bytes() for path in last.rglob("*") if path.is_file()}
    invoke("merge", ours, "--out", last)
    assert again == {path: path.read_bytes() for path in last.rglob("*") if path.is_file()}
    origins = CellFolder(cells(last)[0], "").origin()
    assert [each["from"] for each in origins] == ["theirs", "ours"]
    assert not (cells(theirs)[0] / "origin.json").exists()

    result = runner.run(RunOptions(solvers="dpm,gs", nfe=4, teachers="digits", out=last, **SAMPLES))
    shown = pd.read_csv(result.folder / "results.csv").origin.unique().tolist()
    assert shown == [
        f"theirs on {first['date']}, metrics recomputed, 10 of 10 blocks sampled again; "
        f"ours on {first['date']}, metrics recomputed"
    ]
    notes = json.loads((result.folder / "bundle.json").read_text())["notes"]
    assert any(note.startswith("2 of the 2 cells were merged from theirs on") for note in notes)


def test_a_manifest_finds_every_change(theirs, tmp_path):
    to = tmp_path / "paper.zip"
    told = invoke("export", "--to", to, "--out", theirs).stdout
    sha = told.split("manifest sha256 ")[1].strip()
    unchanged = invoke("verify", "--manifest", sha, "--out", to)
    assert unchanged.exit_code == 0
    assert "all files of the manifest are there, unchanged" in unchanged.stdout
    ours = tmp_path / "ours"
    invoke("merge", to, "--out", ours)
    shutil.unpack_archive(to, tmp_path / "open")
    manifest = tmp_path / "open" / "export.json"
    assert invoke("verify", "--manifest", manifest, "--out", ours).exit_code == 0
    block = next(ours.glob("cells/*/*/blocks/*.npz"))
    files.write_arrays(block, {**files.read_arrays(block), "nfe": np.array(9)})
    changed = invoke("verify", "--manifest", manifest, "--out", ours)
    assert changed.exit_code == 4
    assert f"{block}: does not match the sha256 in the export's list" in changed.stdout
    other = invoke("verify", "--manifest", "0" * 64, "--out", tmp_path / "open")
    assert other.exit_code == 2
    assert "is another manifest, of sha256 " + sha in other.stderr
    table = tmp_path / "open" / "results.csv"
    table.write_text(table.read_text().replace("dpm", "gas", 1))
    body = {name: each for name, each in json.loads(manifest.read_text()).items() if name != "checksum"}
    body["files"]["results.csv"] = files.sha256(table)
    files.write_json(manifest, body)
    forged = invoke("verify", "--out", tmp_path / "open")
    assert forged.exit_code == 4
    assert "results.csv: isn't the table of the metrics of these cells" in forged.stdout


@pytest.mark.parametrize(("total", "drawn", "false"), [(12, 3, 1), (12, 3, 4), (8, 8, 1), (9, 2, 8)])
def test_the_chance_of_finding_a_false_block_is_that_of_the_draw(total, drawn, false):
    draws = list(itertools.combinations(range(total), drawn))
    hit = sum(min(places) < false for places in draws) / len(draws)
    assert resampled.chance(total, drawn, false) == pytest.approx(hit, rel=1e-12)


@pytest.mark.parametrize(("text", "count"), [("3", 3), ("10%", 20), ("0.1%", 1), ("100%", 200), ("999", 200)])
def test_a_share_of_the_blocks(text, count):
    assert Share.of(text).count(200) == count


@pytest.mark.parametrize("text", ["0", "", "-3", "0%", "101%", "1.5", "ten", "1e3"])
def test_no_share(text):
    with pytest.raises(UserError, match="not a number of blocks or a part of them; write 40 or 10%"):
        Share.of(text)
