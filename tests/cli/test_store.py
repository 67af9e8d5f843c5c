"""`solverbench store`: what it says of a store, what it takes from another, and what it never overwrites."""

import csv
import hashlib
import json
import shutil
import subprocess
import sys
import zipfile

import numpy as np
import pytest
import toys
from click.testing import CliRunner

from solverbench import files
from solverbench.bench import run as runner
from solverbench.bench.progress import Silent
from solverbench.bench.run_options import RunOptions
from solverbench.cli.main import main
from solverbench.store import leases
from solverbench.store import runs as store_runs
from solverbench.store.folder import Store

SMALL = {"samples": 40, "replicates": 1, "batch": 4}


def invoke(*arguments):
    return CliRunner().invoke(main, ["store", *map(str, arguments)], catch_exceptions=False)


def run(out, solvers="euler", nfe="3,4"):
    result = runner.run(RunOptions(solvers=solvers, nfe=nfe, teachers=toys.teacher(), out=out, **SMALL))
    assert result.exit_code == 0, result.summary()
    return result


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    out = tmp_path_factory.mktemp("made") / "runs"
    run(out)
    return out


@pytest.fixture
def runs(made, tmp_path):
    shutil.copytree(made, tmp_path / "runs")
    return tmp_path / "runs"


def block(out, number=0, place="50008-50011"):
    return sorted(out.glob(f"cells/*/*/blocks/{place}.npz"))[number]


def rewrite(path):
    """Other content, whole."""
    arrays = files.read_arrays(path)
    files.write_arrays(path, {**arrays, "errors": arrays["errors"] + 1})


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def test_status_counts_cells_sizes_and_reports(runs):
    next(runs.glob("cells/*/*/metrics.json")).unlink()
    result = invoke("status", "--out", runs, "--json")
    told = json.loads(result.stdout.splitlines()[-1])
    assert told["cells"] == {"done": 1, "failed": 0, "unfinished": 1}
    assert told["reports"] == 1
    assert told["bytes"]["cells"] == sum(p.stat().st_size for p in runs.glob("cells/**/*") if p.is_file())
    assert told["runs"] == []
    assert "cells    1 done, 1 unfinished" in result.stdout


def test_status_shows_who_is_at_work(runs):
    mine = leases.Leases(runs)
    assert mine.attempt("cell-1")
    assert f"run      working: {mine.holder('cell-1')}, 1 leases" in invoke("status", "--out", runs).stdout
    mine.close()


@pytest.mark.parametrize("command", ["status", "verify", "gc"])
def test_a_folder_without_a_store_is_exit_code_3(tmp_path, command):
    result = invoke(command, "--out", tmp_path / "none")
    assert result.exit_code == 3
    assert "no store" in result.stderr
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize(
    "pattern",
    [*(f"cells/*/*/{name}" for name in ("blocks/*", "metrics.json", "cell.json", "timing.json")), "targets/*/*"],
)
def test_every_kind_of_damage_is_named_set_aside_and_made_again(runs, made, pattern):
    path = sorted(runs.glob(pattern))[3 if pattern.endswith("*") else 0]
    flip(path)
    named = invoke("verify", "--out", runs)
    assert named.exit_code == 4
    lines = [line.split(":")[0] for line in named.stdout.splitlines()]
    assert [line for line in lines if " cell" not in line] == [f"DAMAGED  {path}", "1 damaged files"]
    assert invoke("verify", "--set-aside", "--out", runs).exit_code == 4
    assert invoke("verify", "--out", runs).exit_code == 0
    if "targets" in pattern or path.name in ("cell.json", "timing.json"):
        for metrics in runs.glob("cells/*/*/metrics.json"):
            metrics.unlink()
    if "targets" in pattern:
        for each in runs.glob("cells/*/*/blocks/*"):
            each.unlink()
    run(runs)
    invoke("gc", "--out", runs)
    assert toys.files_of(runs) == toys.files_of(made)


def test_a_file_in_another_cells_place_is_damage(runs):
    [one, two] = sorted(runs.glob("cells/*/*"))
    shutil.copy(one / "metrics.json", two / "metrics.json")
    shutil.copy(one / "cell.json", two / "cell.json")
    result = invoke("verify", "--out", runs)
    assert result.stdout.count("another cell") == 2


def test_a_trained_solver_is_verified_and_never_set_aside(runs):
    from solverbench.learned import zoo

    folder = runs / "trained" / "digits"
    folder.mkdir(parents=True)
    packed = next((zoo.packaged() / "digits").glob("gas-nfe4.safetensors"))
    shutil.copy(packed, folder)
    assert invoke("verify", "--out", runs).exit_code == 0
    flip(folder / packed.name)
    result = invoke("verify", "--set-aside", "--out", runs)
    assert result.exit_code == 4
    assert "merge a store with an intact copy, or delete it and train again" in result.stdout
    assert (folder / packed.name).exists()


def test_gc_removes_leftovers_and_says_them_first(runs):
    part, aside = block(runs).with_name(".50008-50011.npz.0a1b.part"), block(runs).with_name("50012-50015.npz.damaged")
    part.write_bytes(b"x" * 100)
    aside.write_bytes(b"x" * 100)
    dry = invoke("gc", "--dry-run", "--out", runs)
    assert "2 files, 0 dead runs, 0 cells: 200 B would be freed" in dry.stdout
    assert part.exists()
    assert str(part) in invoke("gc", "--out", runs).stdout
    assert not part.exists()
    assert not aside.exists()
    assert "0 files" in invoke("gc", "--out", runs).stdout


def test_gc_leaves_the_temporary_files_of_a_run_at_work(runs):
    part = block(runs).with_name(".50008-50011.npz.0a1b.part")
    part.write_bytes(b"x")
    mine = leases.Leases(runs)
    assert mine.attempt("cell-1")
    assert "temporary files are kept because a run may be active" in invoke("gc", "--out", runs).stdout
    assert part.exists()
    assert invoke("gc", "--cells", "--out", runs).exit_code == 3
    mine.close()


def test_gc_frees_what_a_killed_run_held(runs):
    script = "import sys, os; from pathlib import Path; from solverbench.store.leases import Leases; "
    script += "Leases(Path(sys.argv[1])).attempt('cell-1'); os._exit(0)"
    subprocess.run([sys.executable, "-c", script, runs], check=True)
    assert "1 leases of " in invoke("gc", "--dry-run", "--out", runs).stdout
    assert "1 dead runs" in invoke("gc", "--out", runs).stdout
    assert store_runs.runs(runs) == []


def test_gc_removes_cells_of_no_report_only_when_asked(runs):
    run(runs, nfe="5")
    [shown] = [path for path in runs.glob("reports/*") if path.name.startswith("toy-euler-nfe-5")]
    shutil.rmtree(shown)
    invoke("gc", "--out", runs)
    assert len(list(runs.glob("cells/*/*/metrics.json"))) == 3
    assert "1 cells" in invoke("gc", "--cells", "--out", runs).stdout
    assert len(list(runs.glob("cells/*/*/metrics.json"))) == 2
    assert run(runs).counts["cached"] == 2


def test_merge_takes_what_is_missing_and_nothing_twice(runs, tmp_path):
    run(tmp_path / "other", nfe="4,5")
    result = invoke("merge", runs, "--out", tmp_path / "other")
    assert result.exit_code == 0, result.output
    assert run(tmp_path / "other", nfe="3-5").counts["cached"] == 3
    again = invoke("merge", runs, "--out", tmp_path / "other")
    assert "0 files copied" in again.stdout
    run(tmp_path / "whole", nfe="3-5")
    assert toys.files_of(tmp_path / "other") == toys.files_of(tmp_path / "whole")


def test_an_interrupted_merge_goes_on(runs, tmp_path, monkeypatch):
    write, count = files.write_bytes, iter(range(1000))

    def until(path, content, *, replace=True):
        if next(count) == 9:
            raise KeyboardInterrupt
        write(path, content, replace=replace)

    monkeypatch.setattr(files, "write_bytes", until)
    assert invoke("merge", runs, "--out", tmp_path / "other").exit_code == 130
    monkeypatch.undo()
    assert not list(tmp_path.glob("other/cells/*/*/metrics.json"))
    assert invoke("merge", runs, "--out", tmp_path / "other").exit_code == 0
    assert toys.files_of(tmp_path / "other") == toys.files_of(runs)


def test_conflicting_content_is_named_and_kept_and_its_metrics_with_it(runs, tmp_path):
    shutil.copytree(runs, tmp_path / "other")
    path = block(tmp_path / "other")
    rewrite(path)
    metrics = path.parents[1] / "metrics.json"
    metrics.unlink()
    before = path.read_bytes()
    result = invoke("merge", runs, "--out", tmp_path / "other")
    assert result.exit_code == 4
    name = path.relative_to(tmp_path / "other")
    assert f"CONFLICT   {name}: differs in the two stores; the existing file was kept" in result.stdout
    assert path.read_bytes() == before
    assert not metrics.exists(), "they would be of another block"


def scaled(measure, factor):
    """A measure of a metric that is `factor` times as large."""
    measure |= {name: measure[name] * factor for name in ("value", "low", "high")}
    measure["replicates"] = [each * factor for each in measure["replicates"]]


def rounded(runs, size=1e-6):
    """Another machine's results for the same cells: every float moved by a share of its array's largest value."""
    drawn = np.random.default_rng(0)
    for path in [*runs.glob("cells/*/*/blocks/*.npz"), *runs.glob("targets/*/*.npz")]:
        arrays = files.read_arrays(path)
        for name, array in arrays.items():
            if array.dtype.kind == "f":
                moved = array + size * np.abs(array).max(initial=0) * drawn.uniform(-1, 1, array.shape)
                arrays[name] = moved.astype(array.dtype)
            elif array.dtype == np.uint8 and array.size:
                arrays[name] = np.where(array < 255, array + 1, array).astype(np.uint8)
        files.write_arrays(path, arrays)
    for path in runs.glob("cells/*/*/metrics.json"):
        body = files.read_json(path)
        for measure in body["measures"].values():
            scaled(measure, 1 + size)
        files.write_json(path, body)
    for path in runs.glob("cells/*/*/cell.json"):
        body = files.read_json(path)
        body["plan"]["sigmas"] = [level * (1 + 1e-11) for level in body["plan"]["sigmas"]]
        files.write_json(path, body)


def test_another_machines_rounding_is_no_conflict_and_changes_nothing(runs, tmp_path):
    shutil.copytree(runs, tmp_path / "other")
    rounded(tmp_path / "other")
    before = toys.files_of(runs)
    result = invoke("merge", tmp_path / "other", "--out", runs)
    assert result.exit_code == 0, result.stdout
    many = len(list(runs.glob("cells/*/*/blocks/*.npz"))) + len(list(runs.glob("targets/*/*.npz"))) + 2
    assert f"{many} equal up to another machine's rounding, 0 in conflict" in result.stdout
    assert toys.files_of(runs) == before


def test_the_error_of_a_converged_solver_is_another_machines_rounding_by_its_root(runs, tmp_path):
    """Squared errors of 1e-10 are rounding of images: they differ by parts in a hundred, and their roots by 1e-7."""
    for place, error in ((runs, 1.41e-10), (tmp_path / "other", 1.43e-10)):
        if place != runs:
            shutil.copytree(runs, place)
        for path in place.glob("cells/*/*/blocks/*.npz"):
            arrays = files.read_arrays(path)
            files.write_arrays(path, arrays | {"errors": np.full_like(arrays["errors"], error)})
        for path in place.glob("cells/*/*/metrics.json"):
            path.unlink()  # they are of the blocks as they were
    many = len(list(runs.glob("cells/*/*/blocks/*.npz")))
    result = invoke("merge", tmp_path / "other", "--out", runs)
    assert result.exit_code == 0, result.stdout
    assert f"{many} equal up to another machine's rounding, 0 in conflict" in result.stdout
    for path in (tmp_path / "other").glob("cells/*/*/blocks/*.npz"):
        arrays = files.read_arrays(path)
        files.write_arrays(path, arrays | {"errors": np.full_like(arrays["errors"], 2e-10)})
    assert invoke("merge", tmp_path / "other", "--out", runs).exit_code == 4


def test_metrics_of_another_machines_blocks_are_not_taken(runs, tmp_path):
    shutil.copytree(runs, tmp_path / "other")
    rounded(tmp_path / "other")
    for path in runs.glob("cells/*/*/metrics.json"):
        path.unlink()
    assert invoke("merge", tmp_path / "other", "--out", runs).exit_code == 0
    assert not list(runs.glob("cells/*/*/metrics.json")), "they would be of other blocks"


@pytest.mark.parametrize("what", ["floats", "images", "plan", "metrics"])
def test_more_than_rounding_is_a_conflict(runs, tmp_path, what):
    shutil.copytree(runs, tmp_path / "other")
    if what == "floats":
        rounded(tmp_path / "other", 0.02)
    elif what == "images":
        path = block(tmp_path / "other", place="50000-50003")
        arrays = files.read_arrays(path)
        files.write_arrays(path, {**arrays, "images": arrays["images"] ^ 4})
    else:
        name = "cell.json" if what == "plan" else "metrics.json"
        path = next((tmp_path / "other").glob(f"cells/*/*/{name}"))
        body = files.read_json(path)
        if what == "plan":
            body["plan"]["rows"][1][0] *= 1.001
        else:
            scaled(body["measures"]["rmse_teacher"], 1.01)
        files.write_json(path, body)
    result = invoke("merge", tmp_path / "other", "--out", runs)
    assert result.exit_code == 4
    assert (
        "DIFFERS" if what == "metrics" else "CONFLICT"
    ) in result.stdout  # such metrics don't follow from the blocks


def test_a_run_says_that_cells_of_an_earlier_format_are_not_reused(runs):
    for path in list(runs.glob("cells/*/*/cell.json")):
        body = files.read_json(path)
        body["key"] |= {"format": 1, "spec": "euler", "nfe": body["names"]["nfe"], "plan": body.pop("plan")}
        files.write_json(path, {**body, "names": {"teacher": "toy", "solver": "euler", "trained": None}})
        address = files.digest(body["key"])
        metrics = files.read_json(path.parent / "metrics.json")
        files.write_json(path.parent / "metrics.json", {**metrics, "cell": address})
        (runs / "cells" / address[:2]).mkdir(exist_ok=True)
        path.parent.rename(runs / "cells" / address[:2] / address)
    said = []

    class Notes(Silent):
        def note(self, line):
            said.append(line)

    options = {"solvers": "euler", "nfe": "3,4", "teachers": toys.teacher(), "out": runs, **SMALL}
    assert {each.status for each in runner.run(RunOptions(**options), progress=Notes()).cells} == {"done"}
    assert any("cells of an earlier version, which aren't reused" in line for line in said)
    assert invoke("export", "--to", runs.parent / "all.zip", "--out", runs).exit_code == 0
    assert invoke("verify", "--out", runs).exit_code == 0


def test_merge_leaves_damaged_files_and_mends_damaged_ones(runs, tmp_path):
    shutil.copytree(runs, tmp_path / "other")
    flip(block(runs, 0))
    flip(block(tmp_path / "other", 1))
    block(tmp_path / "other", 0).unlink()
    result = invoke("merge", runs, "--out", tmp_path / "other")
    assert result.exit_code == 4
    assert result.stdout.count("DAMAGED") == result.stdout.count("repaired  ") == 1
    assert invoke("verify", "--out", tmp_path / "other").exit_code == 0


@pytest.mark.parametrize("source", ["none", "folder", "file.zip", "self"])
def test_what_is_no_store_is_not_merged(runs, tmp_path, source):
    (tmp_path / "folder").mkdir()
    (tmp_path / "file.zip").write_bytes(b"no zip")
    result = invoke("merge", runs if source == "self" else tmp_path / source, "--out", runs)
    assert result.exit_code in (2, 3)
    assert result.stderr.startswith("Error: merge ")
    assert result.stderr.count("\n") == 1
    invoke("merge", tmp_path / source, "--out", tmp_path / "new")
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("to", ["export.zip", "export"])
def test_an_export_is_merged_into_an_empty_store(runs, tmp_path, to):
    assert invoke("export", "--to", tmp_path / to, "--targets", "--out", runs).exit_code == 0
    assert invoke("merge", tmp_path / to, "--out", tmp_path / "other").exit_code == 0
    assert toys.files_of(tmp_path / "other") == toys.files_of(runs)
    assert run(tmp_path / "other").counts["cached"] == 2


def test_an_export_holds_its_numbers_as_csv_and_a_list_of_hashes(runs, tmp_path):
    result = run(runs)
    cell = result.frame.cell[0]
    assert invoke("export", "--to", tmp_path / "a", "--cell", cell, "--out", runs).exit_code == 0
    with open(tmp_path / "a" / "results.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["solver"], row["nfe"], row["metric"], float(row["value"])) for row in rows] == [
        ("euler", "3", metric, value) for metric, value in zip(result.frame.metric, result.frame.value, strict=True)
    ][:3]
    listed = json.loads((tmp_path / "a" / "export.json").read_text())["files"]
    there = {str(p.relative_to(tmp_path / "a")): p for p in (tmp_path / "a").rglob("*") if p.is_file()}
    assert listed.keys() == there.keys() - {"export.json"}
    assert all(hashlib.sha256(there[name].read_bytes()).hexdigest() == sha for name, sha in listed.items())
    name = result.folder.name
    assert "29 files" in invoke("export", "--to", tmp_path / "b", "--report", name, "--out", runs).stdout


def test_an_export_that_lost_a_file_says_so(runs, tmp_path):
    invoke("export", "--to", tmp_path / "a", "--out", runs)
    block(tmp_path / "a").unlink()
    result = invoke("merge", tmp_path / "a", "--out", tmp_path / "other")
    assert result.exit_code == 4
    assert "listed in the export, but missing" in result.stdout


def test_nothing_of_a_zip_is_written_outside_its_place(runs, tmp_path):
    invoke("export", "--to", tmp_path / "a.zip", "--out", runs)
    names = ("../evil.txt", "/tmp/evil-solverbench", "trained/../../evil.txt", "cells/x", "trained/a/../../../evil.txt")
    with zipfile.ZipFile(tmp_path / "a.zip", "a") as archive:
        for name in names:
            archive.writestr(name, b"evil")
    assert invoke("merge", tmp_path / "a.zip", "--out", tmp_path / "deep" / "other").exit_code == 0
    assert not list(tmp_path.rglob("evil*"))
    assert toys.files_of(tmp_path / "deep" / "other", pattern="cells/**/*") == toys.files_of(runs, pattern="cells/**/*")


@pytest.mark.parametrize(
    ("options", "line"),
    [
        (["--cell", "zz"], "--cell 'zz': no such cell"),
        (["--cell", ""], "--cell '': no such cell"),
        (["--report", "no"], "report 'no': "),
        (["--report", "../../x"], "report '../../x': "),
    ],
)
def test_an_export_of_what_is_not_there_is_one_line(runs, tmp_path, options, line):
    result = invoke("export", "--to", tmp_path / "a", *options, "--out", runs)
    assert result.exit_code == 2
    assert line in result.stderr
    assert not (tmp_path / "a").exists()


def test_an_export_overwrites_nothing(runs, tmp_path):
    (tmp_path / "a.zip").write_text("mine")
    assert invoke("export", "--to", tmp_path / "a.zip", "--out", runs).exit_code == 2
    assert (tmp_path / "a.zip").read_text() == "mine"


def test_timings_of_both_stores_are_kept(runs, tmp_path):
    shutil.copytree(runs, tmp_path / "other")
    cell = sorted(runs.glob("cells/*/*"))[0]
    files.write_json(cell / "timing.json", {"attempts": [{"pid": 1}], "blocks": {"50036-50039": {"seconds": 5.0}}})
    invoke("merge", runs, "--out", tmp_path / "other")
    found = Store(tmp_path / "other").cell(files.read_json(cell / "cell.json")["key"]).timing()
    assert len(found["attempts"]) == 2
    assert len(found["blocks"]) == 10
